//go:build linux

package lab_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/kubepki/kubepki/lab"
)

const memberClients = "10.99.0.1%d:2379"

// etcdTLS is the TLS configuration of a client that trusts etcd's authority.
func (c *controlPlane) etcdTLS(t *testing.T, show credential) *tls.Config {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(read(t, c.pki("etcd/ca.crt"))) {
		t.Fatal("etcd/ca.crt holds no certificate")
	}
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if len(show.certificate) > 0 {
		pair, err := tls.X509KeyPair(show.certificate, show.key)
		if err != nil {
			t.Fatal(err)
		}
		// Shown even where the server's hints would not ask for it.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return config
}

// etcdHealth reads a key through one member as etcdctl's endpoint health does.
func etcdHealth(t *testing.T, address string, config *tls.Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{"https://" + address},
		TLS:         config,
		Context:     ctx,
		DialTimeout: 10 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithBlock(), grpc.FailOnNonTempDialError(true), grpc.WithReturnConnectionError()}, //nolint:staticcheck // etcdctl's way
		Logger:      zap.NewNop(),
	})
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Get(ctx, "health")
	if errors.Is(err, rpctypes.ErrPermissionDenied) {
		return nil // it has answered
	}
	return err
}

func testEtcdHealth(t *testing.T, c *controlPlane) {
	for i := range c.nodes {
		for _, name := range []string{"etcd/healthcheck-client", "apiserver-etcd-client"} {
			address := fmt.Sprintf(memberClients, i+1)
			if err := etcdHealth(t, address, c.etcdTLS(t, load(t, c.pki(name)))); err != nil {
				t.Errorf("%s with %s: %v", address, name, err)
			}
		}
	}
}

func testEtcdRefuses(t *testing.T, c *controlPlane) {
	strangers := map[string]credential{
		"nobody": {},
		"a client of the front proxy's authority": forge(t, c.authority("front-proxy-ca"), "kube-etcd-healthcheck-client"),
	}
	member := forge(t, c.authority("ca"), "kube-etcd-healthcheck-client")
	if c.shape == "shared" {
		// What sharing means, and what init and verify warn of.
		if err := etcdHealth(t, fmt.Sprintf(memberClients, 1), c.etcdTLS(t, member)); err != nil {
			t.Errorf("with one shared authority, etcd refuses the cluster's clients: %v", err)
		}
	} else {
		strangers["a client of the cluster's authority"] = member
	}
	if c.shape == "intermediate" {
		strangers["a client of the cluster's authority with its chain to the root"] = member.with(t, c.pki("ca.crt"), c.pki("root-ca.crt"))
	}
	for name, stranger := range strangers {
		// 2379 is for clients, 2380 for peers.
		for _, address := range []string{fmt.Sprintf(memberClients, 1), "10.99.0.11:2380"} {
			err := tlsAlert(t, address, c.etcdTLS(t, stranger))
			if err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
				t.Errorf("%s at %s: %v; want a TLS alert", name, address, err)
			}
		}
	}
}

// tlsAlert connects and waits for the server's verdict: with TLS 1.3 it comes
// after the client's side of the handshake is done. Nothing is sent, as a server
// that closes with something unread resets the connection and the alert is lost.
// A server that is content says nothing, and the read ends by its deadline.
func tlsAlert(t *testing.T, address string, config *tls.Config) error {
	t.Helper()
	conn, err := tls.DialWithDialer(dialer, "tcp", address, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

// A real member, with everything right but for the authority of its peer
// certificate, must not get into a cluster.
func TestEtcdRefusesAMemberOfAnotherAuthority(t *testing.T) {
	dir, other := initCluster(t, 3, "--key-algorithm=ECDSA-P256"), initCluster(t, 3, "--key-algorithm=ECDSA-P256")
	if err := os.RemoveAll(filepath.Join(dir, "cp3/etc/kubernetes/pki/etcd")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "cp3/etc/kubernetes/pki/etcd"), os.DirFS(filepath.Join(other, "cp3/etc/kubernetes/pki/etcd"))); err != nil {
		t.Fatal(err)
	}
	network := newNetwork(t)
	var members []*lab.Process
	for i := 1; i <= 3; i++ {
		name := fmt.Sprintf("cp%d", i)
		node := addNode(t, network, name, filepath.Join(dir, name), fmt.Sprintf("10.99.0.1%d/24", i))
		members = append(members, start(t, node, "etcd", "--unsafe-no-fsync"))
	}
	ready(t, members[:2]...)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := members[2].Ready(ctx); err == nil {
		t.Error("the member of another authority has joined")
	}
	if log := members[0].Log() + members[1].Log(); !strings.Contains(log, "10.99.0.13") || !strings.Contains(log, "unknown authority") {
		t.Errorf("the other members do not say why they refuse 10.99.0.13:\n%s", log)
	}
}
