package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// ofOffice are credentials by the authority that signs them elsewhere.
var ofOffice = map[string]string{
	"apiserver": "ca", "apiserver-kubelet-client": "ca", "scheduler.conf": "ca", "admin.conf": "ca", "kubelet.conf": "ca",
	"front-proxy-client": "front-proxy-ca", "etcd-server": "etcd/ca", "etcd-peer": "etcd/ca", "apiserver-etcd-client": "etcd/ca",
}

// heldElsewhere takes the keys of the authorities away from a control plane.
func heldElsewhere(t *testing.T, root string) map[string]issue.Authority {
	t.Helper()
	held := map[string]issue.Authority{}
	for _, name := range []string{"ca", "front-proxy-ca", "etcd/ca"} {
		at := filepath.Join(root, "etc/kubernetes/pki", name)
		certificates, err := trust.ParseCertificates(readFile(t, at+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		key, err := issue.ParsePrivateKey(readFile(t, at+".key"))
		if err != nil {
			t.Fatal(err)
		}
		held[name] = issue.Authority{Certificate: certificates[0], Key: key}
		if err := os.Remove(at + ".key"); err != nil {
			t.Fatal(err)
		}
	}
	manifest := filepath.Join(root, "etc/kubernetes/manifests/kube-controller-manager.yaml")
	var kept []string
	for line := range strings.Lines(string(readFile(t, manifest))) {
		if !strings.Contains(line, "cluster-signing-") {
			kept = append(kept, line)
		}
	}
	if err := os.WriteFile(manifest, []byte(strings.Join(kept, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	return held
}

// answerRequests signs the requests of a folder as they ask, and returns what is sent back.
func answerRequests(t *testing.T, held map[string]issue.Authority, folder string, names ...string) []byte {
	t.Helper()
	var back bytes.Buffer
	for _, name := range names {
		r, err := issue.ParseRequest(readFile(t, filepath.Join(folder, name+".csr")))
		if err != nil {
			t.Fatal(err)
		}
		asked, err := issue.ReadRequest(r)
		if err != nil {
			t.Fatal(err)
		}
		c, err := issue.Sign(issue.Template{
			Subject: r.Subject, DNSNames: r.DNSNames, Addresses: r.IPAddresses, Usages: asked.Usages,
			NotBefore: time.Now().Add(-issue.Backdate), NotAfter: time.Now().Add(100 * 24 * time.Hour),
		}, r.PublicKey, held[ofOffice[name]])
		if err != nil {
			t.Fatal(err)
		}
		back.Write(trust.EncodeCertificates(c))
	}
	return back.Bytes()
}

func allOfOffice() []string {
	var names []string
	for name := range ofOffice {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Killed while it asks or while it takes in, another run completes; at no moment is a
// key in place without its certificate.
func TestRenewalElsewhereKilled(t *testing.T) {
	template := controlPlaneRoot(t, "ECDSA-P256")
	held := heldElsewhere(t, template)
	start := time.Now()
	runKubepki(t, append([]string{"renew", "--csr-only", "--dry-run", "--root", template}, allOfOffice()...)...)
	took := time.Since(start)
	killed := 0
	for round := range 4 {
		dir := t.TempDir()
		root, requests, back := filepath.Join(dir, "root"), filepath.Join(dir, "requests"), filepath.Join(dir, "back.pem")
		if err := os.CopyFS(root, os.DirFS(template)); err != nil {
			t.Fatal(err)
		}
		err := filepath.WalkDir(filepath.Join(root, "etc/kubernetes"), func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				err = os.Chmod(name, 0o600)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		moment := func(first string) func() {
			if round%2 == 1 {
				return func() { waitFor(first, 20*took) }
			}
			delay := took/3 + rand.N(took)
			return func() { time.Sleep(delay) }
		}
		ask := append([]string{"renew", "--csr-only", "--csr-dir", requests, "--root", root}, allOfOffice()...)
		pending := filepath.Join(root, "etc/kubernetes/kubepki-pending")
		if kill(t, moment(pending), ask...) {
			killed++
		}
		runKubepki(t, ask...)
		if err := os.WriteFile(back, answerRequests(t, held, requests, allOfOffice()...), 0o600); err != nil {
			t.Fatal(err)
		}
		take := []string{"renew", "--yes", "--certificates", back, "--root", root}
		if kill(t, moment(filepath.Join(root, "etc/kubernetes/kubepki-backup")), take...) {
			killed++
		}
		// A key in place has its certificate, whatever moment it was.
		here(t, "verify", "--root", root, "--fail-on", "warning")
		runKubepki(t, take...)
		here(t, "verify", "--root", root, "--fail-on", "warning")
		if _, err := os.Stat(pending); err == nil {
			t.Errorf("round %d: something still waits", round)
		}
		c, err := trust.ParseCertificates(readFile(t, filepath.Join(root, "etc/kubernetes/pki/apiserver.crt")))
		if err != nil || time.Until(c[0].NotAfter) > 101*24*time.Hour {
			t.Errorf("round %d: the apiserver's is not the one that came back: %v", round, err)
		}
	}
	if killed == 0 {
		t.Error("no run was killed: the test proves nothing")
	}
}

// Two who ask at once end with one key for each credential: whose request the office
// signs, it is taken in.
func TestTwoAskAtOnce(t *testing.T) {
	root := controlPlaneRoot(t, "ECDSA-P256")
	held := heldElsewhere(t, root)
	folders := []string{t.TempDir(), t.TempDir()}
	var all sync.WaitGroup
	codes := make([]int, len(folders))
	talks := make([]bytes.Buffer, len(folders))
	for i, folder := range folders {
		all.Go(func() {
			codes[i] = run(context.Background(), []string{"renew", "apiserver", "--csr-only", "--csr-dir", folder, "--root", root}, streams{in: strings.NewReader(""), out: &talks[i], err: &talks[i]})
		})
	}
	all.Wait()
	var requests []string
	for i, folder := range folders {
		data, err := os.ReadFile(filepath.Join(folder, "apiserver.csr"))
		switch {
		case codes[i] == exitDone && err == nil:
			requests = append(requests, string(data))
		case codes[i] == exitDone || err == nil:
			t.Errorf("it ends with %d, and a request was written: %v\n%s", codes[i], err == nil, &talks[i])
		}
	}
	slices.Sort(requests)
	if requests = slices.Compact(requests); len(requests) != 1 {
		t.Fatalf("%d requests were sent, want one: %s%s", len(requests), &talks[0], &talks[1])
	}
	good := slices.Index(codes, exitDone)
	back := filepath.Join(t.TempDir(), "back.pem")
	if err := os.WriteFile(back, answerRequests(t, held, folders[good], "apiserver"), 0o600); err != nil {
		t.Fatal(err)
	}
	here(t, "renew", "--yes", "--certificates", back, "--root", root)
	here(t, "verify", "--root", root, "--fail-on", "warning")
}

// What comes back may be anybody's text.
func TestWhatComesBackIsBounded(t *testing.T) {
	root := controlPlaneRoot(t, "ECDSA-P256")
	held := heldElsewhere(t, root)
	requests := t.TempDir()
	here(t, "renew", "apiserver", "--csr-only", "--csr-dir", requests, "--root", root)
	good := answerRequests(t, held, requests, "apiserver")
	ca := trust.EncodeCertificates(held["ca"].Certificate)
	before := readFile(t, filepath.Join(root, "etc/kubernetes/pki/apiserver.crt"))
	block := func(kind, body string) string {
		return fmt.Sprintf("-----BEGIN %s-----\n%s\n-----END %s-----\n", kind, body, kind)
	}
	for name, row := range map[string]struct {
		text string
		want string // what is said; empty: it is taken in
	}{
		"ten thousand copies":          {strings.Repeat(string(good), 10_000), "larger than 1048576 bytes"},
		"ten thousand empty blocks":    {strings.Repeat(block("CERTIFICATE", ""), 10_000) + string(good), "more than 1000 PEM blocks"},
		"a block without an end":       {string(good) + "-----BEGIN CERTIFICATE-----\nMIIB", "has no end"},
		"a block of junk":              {block("CERTIFICATE", "AAAA") + string(good), "line 1: "},
		"nothing":                      {"", "no certificate is in it"},
		"a request":                    {string(readFile(t, filepath.Join(requests, "apiserver.csr"))), "no certificate is in it"},
		"a container":                  {block("PKCS7", "AAAA"), "openssl pkcs7 -print_certs"},
		"the authority's own":          {string(ca), "they are authorities"},
		"a key that nobody asked for":  {string(ca) + block("PRIVATE KEY", "AAAA"), "they are authorities"},
		"the same twice, among others": {strings.ReplaceAll("some text\n"+string(good)+string(ca)+string(good)+"\nmore", "\n", "\r\n"), ""},
	} {
		var out, talk bytes.Buffer
		code := run(t.Context(), []string{"renew", "--yes", "--dry-run", "--certificates", "-", "--root", root}, streams{in: strings.NewReader(row.text), out: &out, err: &talk})
		if row.want == "" && (code != exitDone || !strings.Contains(out.String(), "apiserver renewed")) || row.want != "" && (code != exitFailed || !strings.Contains(talk.String(), row.want)) {
			t.Errorf("%s: it ends with %d: %.500s", name, code, talk.String())
		}
	}
	if !bytes.Equal(before, readFile(t, filepath.Join(root, "etc/kubernetes/pki/apiserver.crt"))) {
		t.Error("the certificate in place was changed")
	}
}

// On nodes whose files have names of their own an authority elsewhere signs as well.
func TestHardwayRenewedElsewhere(t *testing.T) {
	clock = func() time.Time { return testpki.At }
	defer func() { clock = time.Now }()
	for name, row := range map[string]struct{ form, node, file, control, ca string }{
		"the API server's pair":          {testpki.HardwayCfssl, "controller-0", "/var/lib/kubernetes/kubernetes.pem", "controller-0", "/var/lib/kubernetes/ca"},
		"the scheduler's kubeconfig":     {testpki.HardwayCfssl, "controller-0", "/var/lib/kubernetes/kube-scheduler.kubeconfig", "controller-0", "/var/lib/kubernetes/ca"},
		"a kubelet's serving pair":       {testpki.HardwayOpenssl, "node-0", "/var/lib/kubelet/kubelet.crt", "server", "/var/lib/kubernetes/ca"},
		"etcd's pair beside the other's": {testpki.HardwayCfssl, "controller-0", "/etc/etcd/kubernetes.pem", "controller-0", "/var/lib/kubernetes/ca"},
	} {
		t.Run(name, func(t *testing.T) {
			c := testpki.NewHardway(t, row.form)
			certificate, key := row.ca+".crt", row.ca+".key"
			if row.form == testpki.HardwayCfssl {
				certificate, key = row.ca+".pem", row.ca+"-key.pem"
			}
			certificates, err := trust.ParseCertificates(c.Read(row.control, certificate))
			if err != nil {
				t.Fatal(err)
			}
			signer, err := issue.ParsePrivateKey(c.Read(row.control, key))
			if err != nil {
				t.Fatal(err)
			}
			c.Remove(row.control, key)
			requests := t.TempDir()
			var out, talk bytes.Buffer
			if code := run(t.Context(), []string{"renew", row.node + ":" + row.file, "--csr-only", "--csr-dir", requests, "--root", c.Dir}, streams{in: strings.NewReader(""), out: &out, err: &talk}); code != exitDone {
				t.Fatalf("it ends with %d: %s", code, &talk)
			}
			files, err := filepath.Glob(filepath.Join(requests, "*.csr"))
			if err != nil || len(files) != 1 {
				t.Fatalf("requests are %q: %v", files, err)
			}
			r, err := issue.ParseRequest(readFile(t, files[0]))
			if err != nil {
				t.Fatal(err)
			}
			asked, err := issue.ReadRequest(r)
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := issue.Sign(issue.Template{
				Subject: r.Subject, DNSNames: r.DNSNames, Addresses: r.IPAddresses, Usages: asked.Usages, NotBefore: testpki.Made, NotAfter: testpki.At.AddDate(0, 6, 0),
			}, r.PublicKey, issue.Authority{Certificate: certificates[0], Key: signer})
			if err != nil {
				t.Fatal(err)
			}
			if code := run(t.Context(), []string{"renew", "--certificates", "-", "--yes", "--root", c.Dir}, streams{in: bytes.NewReader(trust.EncodeCertificates(leaf)), out: &out, err: &talk}); code != exitDone {
				t.Fatalf("it ends with %d: %s", code, &talk)
			}
			if !strings.HasSuffix(row.file, "kubeconfig") {
				if now, err := trust.ParseCertificates(c.Read(row.node, row.file)); err != nil || !now[0].Equal(leaf) {
					t.Errorf("what came back is not in place: %v", err)
				}
			}
		})
	}
}
