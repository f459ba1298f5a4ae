package layout_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

const rowOfContexts = `# ours
apiVersion: v1
kind: Config
current-context: a
preferences: {}
clusters:
- name: c
  cluster: {server: "https://a:6443", certificate-authority-data: b2xkQ0E=, proxy-url: "http://p"}
- name: d
  cluster: {server: "https://d"}
contexts:
- {name: a, context: {cluster: c, user: u, namespace: ns}}
- {name: b, context: {cluster: d, user: v}}
users:
- name: u
  user: {client-certificate-data: b2xkQ2VydA==, client-key-data: b2xkS2V5} # of the night
- name: v
  user: {token: secret}
`

func TestSetCredentialChangesNothingElse(t *testing.T) {
	c := layout.EmbeddedCredential{Certificate: []byte("new cert"), Key: []byte("new key"), CA: []byte("new ca"), Server: "https://a:6443"}
	rows := []struct {
		name, in  string
		keeps     []string
		wantError string
	}{
		{name: "comments, other contexts and fields stay", in: rowOfContexts, keeps: []string{"# ours", "# of the night", "token: secret", "namespace: ns", "proxy-url", "name: b"}},
		{name: "a field that is not there is added", in: strings.Replace(rowOfContexts, "client-certificate-data: b2xkQ2VydA==, ", "", 1), keeps: []string{"token: secret", "namespace: ns", "proxy-url"}},
		{name: "files give way to what is embedded", in: strings.Replace(rowOfContexts, "client-certificate-data: b2xkQ2VydA==, client-key-data: b2xkS2V5", "client-certificate: /a, client-key: /b", 1), keeps: []string{"token: secret"}},
		{name: "a URL that was none is mended", in: strings.Replace(rowOfContexts, `"https://a:6443"`, `"a:6443"`, 1), keeps: []string{"https://a:6443", "# ours"}},
		{name: "no YAML", in: "a: [", wantError: "YAML"},
		{name: "no context", in: strings.Replace(rowOfContexts, "current-context: a", "current-context: x", 1), wantError: "current-context"},
		{name: "no such user", in: strings.Replace(rowOfContexts, "user: u,", "user: nobody,", 1), wantError: "names no cluster or no user"},
		{name: "another field is broken", in: strings.Replace(rowOfContexts, "kind: Config", "kind: Pod", 1), wantError: "kind"},
		{name: "too large", in: strings.Repeat("#", layout.MaxFile+1), wantError: "1 MiB"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			got, err := layout.SetCredential([]byte(r.in), c)
			if r.wantError != "" {
				if err == nil || !strings.Contains(err.Error(), r.wantError) {
					t.Fatalf("want an error of %q, got %v", r.wantError, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			is, err := layout.ReadCredential(got, "")
			if err != nil || string(is.Certificate.Data) != "new cert" || string(is.Key.Data) != "new key" || string(is.CA.Data) != "new ca" || is.Server != c.Server {
				t.Errorf("%v %+v in\n%s", err, is, got)
			}
			for _, k := range r.keeps {
				if !strings.Contains(string(got), k) {
					t.Errorf("%q is gone:\n%s", k, got)
				}
			}
		})
	}
	kept, err := layout.SetCredential([]byte(rowOfContexts), layout.EmbeddedCredential{Certificate: []byte("x"), Key: []byte("y"), Server: "https://a:6443"})
	if k, _, _ := layout.ParseKubeconfig(trust.Place{}, kept); err != nil || k.State != trust.Present || !strings.Contains(string(kept), "b2xkQ0E=") {
		t.Errorf("without a CA the cluster's stays: %v\n%s", err, kept)
	}
}

func TestReplacePrivateClosesAFile(t *testing.T) {
	for mode, want := range map[os.FileMode]os.FileMode{0o644: 0o600, 0o640: 0o600, 0o400: 0o400, 0o600: 0o600} {
		root := t.TempDir()
		file := filepath.Join(root, "a.key")
		if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		tx, err := layout.Begin(root)
		if err != nil {
			t.Fatal(err)
		}
		if err := tx.ReplacePrivate("/a.key", []byte("old"), []byte("new")); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(file)
		if data, _ := os.ReadFile(file); err != nil || info.Mode().Perm() != want || string(data) != "new" {
			t.Errorf("of mode %o: %v %q, want %o", mode, info.Mode().Perm(), data, want)
		}
	}
}
