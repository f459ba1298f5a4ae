package token_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
)

// TestBoundKindsAreAll binds a token to an object of each kind, and finds no
// other there; what Claims can name is a kind.
func TestBoundKindsAreAll(t *testing.T) {
	signer, err := token.NewSigner(tokentest.Key(tokentest.RSA))
	if err != nil {
		t.Fatal(err)
	}
	kinds := token.BoundKinds()
	for _, k := range kinds {
		c := token.Claims{
			Issuer: tokentest.Issuer, Audiences: []string{tokentest.Issuer}, Expires: time.Now().Add(time.Hour),
			Namespace: "apps", ServiceAccount: token.Ref{Name: "robot", UID: "c3"}, Attestations: map[string][]string{token.APIGroupsAttestation: {"apps"}},
		}
		k.Bind(&c, token.Ref{Name: "a", UID: "u-1"})
		text, err := signer.Sign(c)
		if err != nil {
			t.Fatal(err)
		}
		u, err := token.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range kinds {
			var want *token.Ref
			if other.Kind == k.Kind {
				want = &token.Ref{Name: "a", UID: "u-1"}
			}
			if d := cmp.Diff(want, other.Of(&u.Claims)); d != "" {
				t.Errorf("bound to %s, the %s is (-want +got):\n%s", k.Kind, other.Kind, d)
			}
		}
	}
	fields := 0
	for f := range reflect.TypeFor[token.Claims]().Fields() {
		if f.Type == reflect.TypeFor[*token.Ref]() {
			fields++
		}
	}
	if fields != len(kinds) {
		t.Errorf("claims name %d kinds of objects, and %d are listed", fields, len(kinds))
	}
}
