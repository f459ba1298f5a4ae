package saserver_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/saserver"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/token"
)

func TestDocumentsAreWhereTheirURLsSay(t *testing.T) {
	set := setOf(t, newSigner(t).Key())
	rows := map[string]struct {
		issuer, jwksURI string
		keys, discovery string // paths
		problem         string
	}{
		"a host":                         {"https://a.test", "", "/openid/v1/jwks", "/.well-known/openid-configuration", ""},
		"a host, with a slash":           {"https://a.test/", "", "/openid/v1/jwks", "/.well-known/openid-configuration", ""},
		"a path":                         {"https://a.test/x/y", "", "/x/y/openid/v1/jwks", "/x/y/.well-known/openid-configuration", ""},
		"keys elsewhere":                 {"https://a.test/x", "https://b.test:8443/keys.json", "/keys.json", "/x/.well-known/openid-configuration", ""},
		"no https":                       {"http://a.test", "", "", "", "is not a URL like https://"},
		"no URL":                         {"kubernetes/serviceaccount", "", "", "", "is not a URL like https://"},
		"a query":                        {"https://a.test?x", "", "", "", "query or fragment"},
		"a path that climbs":             {"https://a.test/../etc", "", "", "", "no path that a file can have"},
		"a path that climbs, escaped":    {"https://a.test/%2e%2e/etc", "", "", "", "no path that a file can have"},
		"a path with an escaped slash":   {"https://a.test/x%2fy", "", "", "", "no path that a file can have"},
		"a path with an empty part":      {"https://a.test/x//y", "", "", "", "no path that a file can have"},
		"keys without https":             {"https://a.test", "http://a.test/keys", "", "", "is not a URL like https://"},
		"keys at no path":                {"https://a.test", "https://a.test", "", "", "no path that a file can have"},
		"keys at a folder":               {"https://a.test", "https://a.test/keys/", "", "", "no path that a file can have"},
		"keys with a query":              {"https://a.test", "https://a.test/keys?v=1", "", "", "no path that a file can have"},
		"keys in the place of the other": {"https://a.test", "https://b.test/.well-known/openid-configuration", "", "", "at one path"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			keys, discovery, err := saserver.Publication{Issuer: row.issuer, JWKSURI: row.jwksURI}.Documents(set)
			if row.problem != "" {
				if err == nil || !strings.Contains(err.Error(), row.problem) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || keys.Path != row.keys || discovery.Path != row.discovery {
				t.Fatalf("%s, %s, %v", keys.Path, discovery.Path, err)
			}
			parsed, err := token.ParseDiscovery(discovery.Data)
			if err != nil || parsed.Issuer != row.issuer || parsed.JWKSURI != keys.URL || token.DiscoveryURL(row.issuer) != discovery.URL {
				t.Errorf("%s, %v", discovery.Data, err)
			}
		})
	}
}

func TestHostsThatOthersCannotReach(t *testing.T) {
	for text, want := range map[string]string{
		"https://kubernetes.default.svc":                   "kubernetes.default.svc",
		"https://kubernetes.default.svc.cluster.local":     "kubernetes.default.svc.cluster.local",
		"https://Kubernetes.Default.SVC.Cluster.Local.:44": "Kubernetes.Default.SVC.Cluster.Local.",
		"https://kubernetes.default.svc.east.example.com":  "kubernetes.default.svc.east.example.com",
		"https://etcd-0.etcd.kube-system.svc/x":            "etcd-0.etcd.kube-system.svc",
		"https://oidc.cluster.local":                       "oidc.cluster.local",
		"https://localhost:8443/x":                         "localhost",
		"https://east.localhost":                           "east.localhost",
		"https://127.0.0.1":                                "127.0.0.1",
		"https://[::1]:8443":                               "::1",
		"https://tokens.example.com/kubernetes.svc":        "",
		"https://svc.example.com":                          "",
		"https://svc":                                      "",
		"https://tokens.svc.example":                       "", // no Service has two labels
		"https://my-cluster.local":                         "",
		"https://10.0.0.1":                                 "",
		"kubernetes/serviceaccount":                        "",
		"kubernetes.default.svc":                           "",
		"https://%zz":                                      "",
		"":                                                 "",
	} {
		if got := saserver.InsideHost(text); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func setOf(t testing.TB, all ...token.Key) *token.KeySet {
	t.Helper()
	set, err := token.NewKeySet(all...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// Whatever file of keys is given, nothing of a private key is in the documents.
func TestPrivateKeysAreNotPublished(t *testing.T) {
	for _, a := range []issue.Algorithm{issue.RSA2048, issue.ECDSAP256, issue.ECDSAP384} {
		private := tlstest.Key(t, a)
		data, err := issue.EncodePrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		all, err := token.ParseKeys(data)
		if err != nil {
			t.Fatal(err)
		}
		keys, discovery, err := saserver.Publication{Issuer: issuer}.Documents(setOf(t, all...))
		if err != nil {
			t.Fatal(err)
		}
		var set struct{ Keys []map[string]any }
		if err := json.Unmarshal(keys.Data, &set); err != nil || len(set.Keys) != 1 {
			t.Fatalf("%s: %v", keys.Data, err)
		}
		for member := range set.Keys[0] {
			if !strings.Contains(" use kty kid alg n e crv x y ", " "+member+" ") {
				t.Errorf("%s: %s is published", a, member)
			}
		}
		for _, secret := range secretsOf(t, private) {
			if bytes.Contains(keys.Data, []byte(base64.RawURLEncoding.EncodeToString(secret))) || bytes.Contains(discovery.Data, secret) {
				t.Errorf("%s: a secret is published", a)
			}
		}
	}
}

func secretsOf(t testing.TB, private any) [][]byte {
	t.Helper()
	switch k := private.(type) {
	case *rsa.PrivateKey:
		return [][]byte{k.D.Bytes(), k.Primes[0].Bytes(), k.Primes[1].Bytes()}
	case *ecdsa.PrivateKey:
		secret, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return [][]byte{secret}
	}
	t.Fatalf("a key of type %T", private)
	return nil
}

func newPublisher(t testing.TB, k token.KeySource, p saserver.Publication) *saserver.Publisher {
	t.Helper()
	s, err := saserver.NewPublisher(t.Context(), k, p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(h http.Handler, method, path, tag string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	if tag != "" {
		r.Header.Set("If-None-Match", tag)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestDocumentsAreServed(t *testing.T) {
	var k keys
	k.set(t, newSigner(t).Key())
	p := newPublisher(t, &k, saserver.Publication{Issuer: issuer, JWKSURI: "https://keys.example.test/east.json"})
	rows := map[string]struct {
		method, path string
		status       int
		mediaType    string
	}{
		"the metadata": {"GET", "/east/.well-known/openid-configuration", 200, "application/json"},
		"the metadata, where API servers have it": {"GET", "/.well-known/openid-configuration", 200, "application/json"},
		"the keys":                                    {"GET", "/east.json", 200, "application/jwk-set+json"},
		"the keys, where API servers have them":       {"GET", "/openid/v1/jwks", 200, "application/jwk-set+json"},
		"the head of the keys":                        {"HEAD", "/openid/v1/jwks", 200, "application/jwk-set+json"},
		"something else":                              {"GET", "/", 404, ""},
		"something that only becomes one of them":     {"GET", "/openid/v1/../v1/jwks", 404, ""},
		"something written":                           {"POST", "/openid/v1/jwks", 405, ""},
		"something removed":                           {"DELETE", "/.well-known/openid-configuration", 405, ""},
		"something written where nothing is, as well": {"POST", "/", 404, ""},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			got := get(p, row.method, row.path, "")
			if got.Code != row.status || (got.Code == 200 && row.method == "GET") != (got.Body.Len() > 0 && got.Code == 200) {
				t.Fatalf("%d, %d bytes", got.Code, got.Body.Len())
			}
			if row.status != 200 {
				return
			}
			if got.Header().Get("Content-Type") != row.mediaType || got.Header().Get("Cache-Control") != "public, max-age=3600" {
				t.Errorf("%v", got.Header())
			}
			again := get(p, row.method, row.path, got.Header().Get("ETag"))
			if again.Code != http.StatusNotModified || again.Body.Len() > 0 {
				t.Errorf("asked for what has changed: %d", again.Code)
			}
		})
	}
}

func TestDocumentsFollowTheKeys(t *testing.T) {
	var k keys
	one, two := newSigner(t).Key(), newSigner(t).Key()
	k.set(t, one)
	p := newPublisher(t, &k, saserver.Publication{Issuer: issuer})
	before := get(p, "GET", token.JWKSPath, "")
	k.set(t, one, two)
	after := get(p, "GET", token.JWKSPath, before.Header().Get("ETag"))
	all, err := token.ParseKeys(after.Body.Bytes())
	if err != nil || len(all) != 2 {
		t.Fatalf("%d %s: %v", after.Code, after.Body, err)
	}
	if diff := cmp.Diff([]string{one.ID, two.ID}, []string{all[0].ID, all[1].ID}); diff != "" {
		t.Error(diff)
	}
}

func TestDocumentsInThePlaceOfReviews(t *testing.T) {
	set := setOf(t, newSigner(t).Key())
	_, err := saserver.NewPublisher(context.Background(), set, saserver.Publication{Issuer: issuer, JWKSURI: "https://a.test" + saserver.ReviewPath})
	if err == nil || !strings.Contains(err.Error(), "that of token reviews") {
		t.Errorf("got %v", err)
	}
}
