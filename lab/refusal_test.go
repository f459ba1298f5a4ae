//go:build linux

package lab_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// Why init makes the service-account key with ECDSA where Ed25519 is asked for.
func TestAPIServerRefusesAnEd25519ServiceAccountKey(t *testing.T) {
	root := filepath.Join(initCluster(t, 1, "--key-algorithm=ECDSA-P256"), "cp1")
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	pki := filepath.Join(root, "etc/kubernetes/pki")
	write(t, filepath.Join(pki, "sa.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	write(t, filepath.Join(pki, "sa.pub"), string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})))
	node := addNode(t, newNetwork(t), "cp1", root, "10.99.0.11/24")
	etcd := start(t, node, "etcd", "--unsafe-no-fsync")
	ready(t, etcd)
	ctx, cancel := context.WithTimeout(t.Context(), readyWait)
	defer cancel()
	err = start(t, node, "kube-apiserver").Ended(ctx)
	const want = "unknown private key type ed25519.PrivateKey"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("kube-apiserver: %v\nwant: %s", err, want)
	}
}

// Why a bundle that authenticates clients holds its own intermediate only: with
// the shared root in its place, a client of the cluster's authority speaks for
// whom it likes. The same request is refused with the flags that init writes,
// see testFrontProxy.
func TestTheSharedRootAsFrontProxyBundleLetsTheClustersClientsSpeakForOthers(t *testing.T) {
	dir := initCluster(t, 1, "--key-algorithm=ECDSA-P256", "--authorities=intermediate")
	plane := &controlPlane{dir: dir, shape: "intermediate"}
	node := addNode(t, newNetwork(t), "cp1", filepath.Join(dir, "cp1"), "10.99.0.11/24")
	ready(t,
		start(t, node, "etcd", "--unsafe-no-fsync"),
		// The last value of a flag holds.
		start(t, node, "kube-apiserver", "--requestheader-client-ca-file=/etc/kubernetes/pki/root-ca.crt"))
	plane.admin = plane.conf(t, "super-admin")
	config := forge(t, plane.authority("ca"), "front-proxy-client").with(t, plane.pki("ca.crt")).as(plane.admin)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return headers{map[string]string{"X-Remote-User": "heather", "X-Remote-Group": "via-proxy"}, next}
	})
	isIdentity(t, "a client of the cluster's authority", config, identity{"heather", []string{"system:authenticated", "via-proxy"}})
}
