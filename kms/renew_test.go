package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// All certificates of a control plane are made anew with three authorities whose keys
// are in a device, and so is an authority's own; while the device is away nothing
// changes.
func TestRenewalByThreeAuthoritiesInADevice(t *testing.T) {
	k := newToken(t)
	program := k.path("kubepki")
	build := exec.Command("go", "build", "-tags", "grpcnotrace", "-o", program, "./cmd/kubepki")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building kubepki: %v\n%s", err, out)
	}
	kubepki := func(args ...string) (string, error) {
		out, err := exec.Command(program, args...).CombinedOutput()
		return string(out), err
	}
	root := k.path("cp1")
	if out, err := kubepki("init", "--root", root, "--manifests", "--node-name", "cp1", "--apiserver-advertise-address", "10.0.0.11", "--key-algorithm", "ECDSA-P256"); err != nil {
		t.Fatal(out)
	}
	pki := filepath.Join(root, "etc/kubernetes/pki")
	socket := k.path("run/kms.sock")
	serve := []string{"--socket", socket}
	var keys []string
	for n, name := range []string{"ca", "front-proxy-ca", "etcd/ca"} {
		label := strings.ReplaceAll(name, "/", "-")
		k.importKey(t, filepath.Join(pki, name+".key"), label, []string{"01", "02", "03"}[n])
		serve = append(serve, "--key", label+"=pkcs11:module-path="+module+";token=lab;object="+label+"?pin-source="+k.path("pin"))
		keys = append(keys, "--ca-key="+label+"=kms:"+label)
	}
	// Nothing on the node signs any more.
	manifest := filepath.Join(root, "etc/kubernetes/manifests/kube-controller-manager.yaml")
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, "cluster-signing-") {
			kept = append(kept, line)
		}
	}
	put(t, manifest, strings.Join(kept, ""))

	p := k.start(t, nil, serve...)
	renew := func(what ...string) (string, error) {
		return kubepki(append(append([]string{"renew", "--yes", "--root", root, "--kms-socket", socket}, keys...), what...)...)
	}
	was := map[string][]byte{}
	for _, name := range []string{"apiserver.crt", "front-proxy-client.crt", "etcd/peer.crt"} {
		content, err := os.ReadFile(filepath.Join(pki, name))
		if err != nil {
			t.Fatal(err)
		}
		was[name] = content
	}
	if out, err := renew("--all"); err != nil || strings.Count(out, " renewed: valid until ") < 12 {
		t.Fatalf("%v: %s", err, out)
	}
	for name, old := range was {
		if content, err := os.ReadFile(filepath.Join(pki, name)); err != nil || bytes.Equal(content, old) {
			t.Errorf("%s is the old one: %v", name, err)
		}
	}
	if out, err := renew("ca"); err != nil || !strings.Contains(out, "ca renewed") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := kubepki("verify", "--root", root, "--fail-on", "warning"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	// A key that is another authority's.
	if out, err := kubepki("renew", "apiserver", "--yes", "--root", root, "--kms-socket", socket, "--ca-key=ca=kms:etcd-ca"); err == nil || !strings.Contains(out, "kms:etcd-ca does not belong to /etc/kubernetes/pki/ca.crt") {
		t.Errorf("%v: %s", err, out)
	}
	p.kill(t, syscall.SIGKILL)
	if out, err := renew("apiserver"); err == nil || !strings.Contains(out, "kubepki-kms at "+socket) {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := kubepki("verify", "--root", root, "--fail-on", "warning"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// importKey moves a key from a file into the token.
func (k *token) importKey(t *testing.T, file, label, id string) {
	t.Helper()
	for _, args := range [][]string{
		{"openssl", "pkcs8", "-topk8", "-nocrypt", "-in", file, "-out", file + ".p8"},
		{"softhsm2-util", "--import", file + ".p8", "--token", "lab", "--label", label, "--id", id, "--pin", pin},
		{"rm", file, file + ".p8"},
	} {
		run := exec.Command(args[0], args[1:]...)
		run.Env = k.env
		if out, err := run.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", args[0], err, out)
		}
	}
}
