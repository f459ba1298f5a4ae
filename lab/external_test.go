//go:build linux

package lab_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Authorities whose keys are on no machine of the cluster: openssl plays the
// certification office. The control plane runs on what it signs.
func TestControlPlaneRunsOnCertificatesThatAnotherSigned(t *testing.T) {
	office := opensslAuthorities(t)
	dir := t.TempDir()
	root := filepath.Join(dir, "cp1")
	config := configOf(t, "ECDSA-P256")
	initNode(t, config, root, "--csr-only")
	signRequests(t, office, root)
	initNode(t, config, root)
	for _, name := range []string{"ca.key", "front-proxy-ca.key", "etcd/ca.key"} {
		if _, err := os.Stat(filepath.Join(root, "etc/kubernetes/pki", name)); err == nil {
			t.Errorf("there is a key of an authority: %s", name)
		}
	}
	proved(t, verify(t, "--root="+root), 1, 3, 5, 6, 8, 9)
	plane := startCluster(t, dir, "separate", 1)
	plane.office = office
	for _, test := range controlPlaneTests {
		if !test.signs { // nothing on cp1 can sign
			t.Run(test.name, func(t *testing.T) { test.run(t, plane) })
		}
	}
}

// opensslAuthorities makes three authorities, in kubeadm's places below a
// folder.
func opensslAuthorities(t *testing.T) string {
	t.Helper()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatalf("%v: install openssl", err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etcd"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca", "front-proxy-ca", "etcd/ca"} {
		path := filepath.Join(dir, name)
		run(t, openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650",
			"-subj", "/O=Example Office/CN="+strings.ReplaceAll(name, "/", "-"), "-addext", "keyUsage=critical,keyCertSign,cRLSign",
			"-keyout", path+".key", "-out", path+".crt")
	}
	return dir
}

// signRequests signs every request below a node's root as it asks to be, and
// puts the authorities' certificates in their places.
func signRequests(t *testing.T, office, root string) {
	t.Helper()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal(err)
	}
	pki := filepath.Join(root, "etc/kubernetes/pki")
	for _, name := range []string{"ca.crt", "front-proxy-ca.crt", "etcd/ca.crt"} {
		if err := os.WriteFile(filepath.Join(pki, name), read(t, filepath.Join(office, name)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		stem, ok := strings.CutSuffix(path, ".csr")
		if err != nil || !ok {
			return err
		}
		authority := filepath.Join(office, strings.TrimSuffix(anchorOf("", "separate", stem+".crt"), ".crt"))
		run(t, openssl, "x509", "-req", "-in", path, "-CA", authority+".crt", "-CAkey", authority+".key", "-CAcreateserial",
			"-days", "365", "-copy_extensions", "copyall", "-out", stem+".crt")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
