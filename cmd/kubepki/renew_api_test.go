package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// signedByAPI is a control plane whose authority is that of an API server, and
// kubeconfigs of one who may approve and of one who may not.
func signedByAPI(t *testing.T, more ...string) (a *apiServer, root, admin, viewer string) {
	t.Helper()
	a, err := newAPIServer()
	if err != nil {
		t.Fatal(err)
	}
	url, stop, err := a.start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	dir := t.TempDir()
	root = filepath.Join(dir, "root")
	pki := filepath.Join(root, "etc/kubernetes/pki")
	if err := os.MkdirAll(pki, 0o755); err != nil {
		t.Fatal(err)
	}
	key, err := issue.EncodePrivateKey(a.authority.Key)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{filepath.Join(pki, "ca.key"): key, filepath.Join(pki, "ca.crt"): trust.EncodeCertificates(a.authority.Certificate)}
	for _, user := range []string{"admin", "viewer"} {
		if files[filepath.Join(dir, user)], err = a.kubeconfig(url, user); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range files {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	here(t, append([]string{"init", "--root", root, "--manifests", "--node-name", "cp1", "--apiserver-advertise-address", "10.0.0.11", "--key-algorithm", "ECDSA-P256"}, more...)...)
	if err := os.Remove(filepath.Join(pki, "ca.key")); err != nil {
		t.Fatal(err)
	}
	return a, root, filepath.Join(dir, "admin"), filepath.Join(dir, "viewer")
}

func TestSignersThatCannotBeTrusted(t *testing.T) {
	a, root, admin, _ := signedByAPI(t)
	conf := filepath.Join(root, "etc/kubernetes/scheduler.conf")
	before := readFile(t, conf)
	for name, row := range map[string]struct {
		forge func(*issue.Template)
		want  string
	}{
		"another name":  {func(t *issue.Template) { t.Subject.CommonName = "system:admin" }, `its common name (CN) is "system:admin"`},
		"a group more":  {func(t *issue.Template) { t.Subject.Organization = []string{"system:masters"} }, "its organizations (O), which are groups"},
		"an authority":  {func(t *issue.Template) { t.Authority = true }, "it is an authority"},
		"another usage": {func(t *issue.Template) { t.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "usage-missing: it lacks the extended key usage clientAuth"},
		"expired": {func(t *issue.Template) {
			t.NotBefore, t.NotAfter = time.Now().Add(-50*time.Minute), time.Now().Add(-time.Minute)
		}, "it expired at"},
		"not what it asks": {func(t *issue.Template) { t.NotBefore = time.Now().Add(30 * time.Minute) }, "it begins at"},
	} {
		a.mu.Lock()
		a.forge = row.forge
		a.mu.Unlock()
		var out, talk bytes.Buffer
		code := run(context.Background(), []string{"renew", "scheduler.conf", "--yes", "--root", root, "--signer-kubeconfig", admin}, streams{in: strings.NewReader(""), out: &out, err: &talk})
		if code != exitFailed || !strings.Contains(talk.String(), row.want) {
			t.Errorf("%s: it ends with %d: %s", name, code, &talk)
		}
		if !bytes.Equal(before, readFile(t, conf)) {
			t.Fatalf("%s: the kubeconfig was changed", name)
		}
	}
	a.mu.Lock()
	a.forge = nil
	a.mu.Unlock()
	here(t, "renew", "scheduler.conf", "--yes", "--root", root, "--signer-kubeconfig", admin)
	if bytes.Equal(before, readFile(t, conf)) {
		t.Error("the kubeconfig was not changed by a good signer")
	}
}

func TestWhoMayNotApproveWaits(t *testing.T) {
	a, root, admin, viewer := signedByAPI(t)
	ask := []string{"renew", "scheduler.conf", "admin.conf", "--yes", "--root", root, "--signer-timeout", "300ms", "--signer-kubeconfig"}
	var talk bytes.Buffer
	if code := run(context.Background(), append(ask, viewer), streams{in: strings.NewReader(""), out: &talk, err: &talk}); code != exitFindings || strings.Count(talk.String(), "you may not approve it") != 2 || strings.Count(talk.String(), "outstanding: ") != 2 {
		t.Fatalf("it ends with %d: %s", code, &talk)
	}
	talk.Reset()
	if code := run(context.Background(), append(ask, viewer, "--approve=always"), streams{in: strings.NewReader(""), out: &talk, err: &talk}); code != exitFailed || !strings.Contains(talk.String(), "leave out --approve=always") {
		t.Fatalf("it ends with %d: %s", code, &talk)
	}
	out, said := here(t, append(ask, admin)...)
	a.mu.Lock()
	defer a.mu.Unlock()
	if strings.Count(said, "going on with request") != 2 || strings.Count(out, " renewed: ") != 2 || len(a.requests) != 2 {
		t.Errorf("it says %s%s, and %d requests are there", out, said, len(a.requests))
	}
}
