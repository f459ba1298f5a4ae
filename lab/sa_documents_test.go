//go:build linux

package lab_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/token"
)

// moreKeys are flags of an API server that verifies with a key of each kind.
func (w *west) moreKeys(t *testing.T) []string {
	t.Helper()
	var flags []string
	for i, key := range everyKey(t) {
		data, err := issue.EncodePublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("sa-%d.pub", i)
		write(t, w.pki(name), string(data))
		flags = append(flags, "--service-account-key-file=/etc/kubernetes/pki/"+name)
	}
	return flags
}

func everyKey(t *testing.T) []crypto.PublicKey {
	t.Helper()
	var all []crypto.PublicKey
	for _, bits := range []int{2048, 3072, 4096} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, key.Public())
	}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, key.Public())
	}
	return all
}

// testDocuments: west's own documents are what its API server has.
func (w *west) testDocuments(t *testing.T, jwksURI string) {
	args := []string{"sa", "serve", "--out=" + t.TempDir(), "--issuer=" + westAudience, "--key=" + w.pki("sa.pub"), "-o=json"}
	if jwksURI != "" {
		args = append(args, "--jwks-uri="+jwksURI)
		more, err := filepath.Glob(w.pki("sa-*.pub"))
		if err != nil || len(more) != 6 {
			t.Fatal(more, err)
		}
		for _, name := range more {
			args = append(args, "--key="+name)
		}
	}
	var made struct {
		Documents []struct{ Path, ContentType, CacheControl string }
	}
	if err := json.Unmarshal([]byte(run(t, "kubepki", args...).stdout), &made); err != nil || len(made.Documents) != 2 {
		t.Fatal(made, err)
	}
	for i, path := range []string{token.JWKSPath, token.DiscoveryPath} {
		ours := made.Documents[i]
		theirs, header := w.get(t, path)
		if header.Get("Content-Type") != ours.ContentType || header.Get("Cache-Control") != ours.CacheControl {
			t.Errorf("%s: ours %+v, theirs %v", path, ours, header)
		}
		data := string(read(t, ours.Path))
		if path == token.DiscoveryPath && jwksURI == "" {
			data, theirs = withoutURI(t, data), withoutURI(t, theirs) // made of an address
		}
		if diff := cmp.Diff(theirs, data); diff != "" {
			t.Errorf("%s: - kube-apiserver, + kubepki:\n%s", path, diff)
		}
	}
}

func (w *west) get(t *testing.T, path string) (string, http.Header) {
	t.Helper()
	client, err := rest.HTTPClientFor(w.admin)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Get(w.admin.Host + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Status, err)
	}
	return string(data), answer.Header
}

// withoutURI are the other fields of the metadata.
func withoutURI(t *testing.T, text string) string {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	if all["jwks_uri"] == "" {
		t.Error("no jwks_uri")
	}
	delete(all, "jwks_uri")
	data, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
