package token_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
)

// That the documents are those of a real kube-apiserver is tested in lab/.
func TestDocuments(t *testing.T) {
	set := setOf(t, tokentest.P521, tokentest.RSA, tokentest.P256, tokentest.RSA4096)
	d, err := set.Discovery(tokentest.Issuer, "")
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"issuer":"https://kubernetes.default.svc.cluster.local","jwks_uri":"https://kubernetes.default.svc.cluster.local/openid/v1/jwks","response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256","ES512","RS256"]}`
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Error(diff)
	}
	back, err := token.ParseDiscovery(data)
	if diff := cmp.Diff(d, back); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}

	jwks, err := set.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := token.ParseKeys(jwks)
	if diff := cmp.Diff(set.All(), keys); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, private := range []string{`"d"`, `"p"`, `"q"`, `"k"`} {
		if strings.Contains(string(jwks), private+":") {
			t.Errorf("the set holds %s", private)
		}
	}
}

func TestIssuersThatCannotBePublished(t *testing.T) {
	set := setOf(t, tokentest.RSA)
	for _, row := range [][2]string{
		{"http://issuer.example.com", ""}, {"kubernetes/serviceaccount", ""}, {"", ""}, {"https://", ""}, {"https://a.example?x=1", ""}, {"https://a.example?", ""},
		{"https://a.example#x", ""}, {"https://u:p@a.example", ""}, {"https://a.example", "http://a.example/keys"}, {"https://a.example", "keys"}, {"https://a.example", "https://u:p@a.example"},
	} {
		if _, err := set.Discovery(row[0], row[1]); err == nil || strings.Contains(err.Error(), "u:p") {
			t.Errorf("issuer %q, keys %q: %v", row[0], row[1], err)
		}
	}
	for issuer, want := range map[string]string{
		"https://a.example": "https://a.example/.well-known/openid-configuration", "https://a.example/": "https://a.example/.well-known/openid-configuration",
		"https://a.example/b/c": "https://a.example/b/c/.well-known/openid-configuration",
	} {
		if got := token.DiscoveryURL(issuer); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
