package token_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
)

// FuzzParse takes apart any text. What parses is what go-jose and encoding/json
// read too, and is written back as it was. What Kubernetes' own code says of the
// same texts is asked in lab/.
func FuzzParse(f *testing.F) {
	for _, c := range tokentest.Cases(time.Now()) {
		if len(c.Token) < 10_000 {
			f.Add(c.Token)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := token.Parse(text)
		if err != nil {
			if !errors.As(err, new(*token.RefusedError)) {
				t.Fatalf("no refusal: %v", err)
			}
			return
		}
		if strings.ContainsAny(text, " \r\n\t=+/") || strings.Count(text, ".") != 2 {
			t.Fatalf("%q is no strict compact form", text)
		}
		all := []jose.SignatureAlgorithm{jose.SignatureAlgorithm(u.Algorithm)}
		s, err := jose.ParseSignedCompact(text, all)
		if err != nil {
			return // go-jose parses more of the header
		}
		if got := s.Signatures[0].Header; got.KeyID != u.KeyID || got.Algorithm != u.Algorithm {
			t.Fatalf("header %q %q, go-jose says %q %q", u.Algorithm, u.KeyID, got.Algorithm, got.KeyID)
		}
		// A map tells upper case from lower, which a struct would not.
		var claims map[string]json.RawMessage
		var subject string
		if err := json.Unmarshal(s.UnsafePayloadWithoutVerification(), &claims); err != nil {
			t.Fatalf("encoding/json does not read it: %v", err)
		}
		if sub, ok := claims["sub"]; ok && json.Unmarshal(sub, &subject) != nil || subject != u.Claims.Subject {
			t.Fatalf("sub %q, encoding/json says %q", u.Claims.Subject, subject)
		}
	})
}

// FuzzKeys reads any file of keys: what is read is of use, and is read again from
// the set that publishes it.
func FuzzKeys(f *testing.F) {
	for _, name := range append(tokentest.Listed(), tokentest.Weak, tokentest.Ed25519) {
		f.Add(pemOf(f, name))
		if j, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: tokentest.Key(name).Public(), KeyID: name}}}); err == nil {
			f.Add(j)
		}
	}
	f.Add([]byte(`{"issuer":"https://a.example","jwks_uri":"https://a.example/keys"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if d, err := token.ParseDiscovery(data); err == nil && (!strings.HasPrefix(strings.ToLower(d.JWKSURI), "https://") || d.Issuer == "") {
			t.Fatalf("discovery %+v", d)
		}
		keys, err := token.ParseKeys(data)
		if err != nil {
			return
		}
		set, err := token.NewKeySet(keys...)
		if err != nil {
			t.Fatalf("keys that make no set: %v", err)
		}
		published, err := set.JWKS()
		if err != nil {
			t.Fatal(err)
		}
		again, err := token.ParseKeys(published)
		if err != nil || len(again) != len(set.All()) {
			t.Fatalf("%d keys, published %d: %v", len(set.All()), len(again), err)
		}
	})
}
