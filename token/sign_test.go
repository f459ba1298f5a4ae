package token_test

import (
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
)

var start = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// robot are good claims, of a token of a pod.
func robot() token.Claims {
	return token.Claims{
		Issuer: tokentest.Issuer, Audiences: []string{tokentest.Issuer, "vault"}, ID: "4f3c7a52-6f0e-4f0f-9d7e-2b1c5a0d7e11",
		Expires: start.Add(time.Hour), NotBefore: start, IssuedAt: start, WarnAfter: start.Add(50 * time.Minute),
		Namespace: "apps", ServiceAccount: token.Ref{Name: "robot", UID: "c3"},
		Pod: &token.Ref{Name: "robot-7d9f", UID: "b2"}, Node: &token.Ref{Name: "worker-1", UID: "a1"},
	}
}

func legacyRobot() token.Claims {
	return token.Claims{Issuer: token.LegacyIssuer, Legacy: true, Namespace: "apps", ServiceAccount: token.Ref{Name: "robot", UID: "c3"}, Secret: &token.Ref{Name: "robot-token"}}
}

func signer(t testing.TB, name string) *token.Signer {
	t.Helper()
	s, err := token.NewSigner(tokentest.Key(name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// elsewhere is a key that is held by something else, which sees digests alone.
type elsewhere struct{ crypto.Signer }

func (e elsewhere) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return e.Signer.Sign(rand.Reader, digest, opts)
}

func TestWhatIsSignedVerifies(t *testing.T) {
	for _, name := range tokentest.Listed() {
		for held, key := range map[string]crypto.Signer{"here": tokentest.Key(name), "elsewhere": elsewhere{tokentest.Key(name)}} {
			t.Run(name+" held "+held, func(t *testing.T) {
				s, err := token.NewSigner(key)
				if err != nil {
					t.Fatal(err)
				}
				set, err := token.NewKeySet(s.Key())
				if err != nil {
					t.Fatal(err)
				}
				v, err := token.NewVerifier(token.Config{Keys: set, Issuers: []string{tokentest.Issuer}, Legacy: true, Now: func() time.Time { return start }})
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range []token.Claims{robot(), legacyRobot()} {
					text, err := s.Sign(c)
					if err != nil {
						t.Fatal(err)
					}
					got, err := v.Verify(t.Context(), text)
					if err != nil {
						t.Fatal(err)
					}
					c.Subject = "system:serviceaccount:apps:robot"
					if diff := cmp.Diff(c, got.Claims, cmp.Comparer(time.Time.Equal)); diff != "" {
						t.Errorf("claims (-signed +verified):\n%s", diff)
					}
				}
			})
		}
	}
}

// Nobody is given a token that no verifier would ever accept.
func TestSignRefusesWhatNobodyAccepts(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*token.Claims)
		want   token.ReasonID
	}{
		"no issuer":                       {func(c *token.Claims) { c.Issuer = "" }, token.IssuerUnknown},
		"no audience":                     {func(c *token.Claims) { c.Audiences = nil }, token.AudienceMismatch},
		"an empty audience":               {func(c *token.Claims) { c.Audiences = []string{""} }, token.AudienceMismatch},
		"no end":                          {func(c *token.Claims) { c.Expires = time.Time{} }, token.ExpiryMissing},
		"an end before its beginning":     {func(c *token.Claims) { c.Expires = c.NotBefore.Add(-time.Second) }, token.TimeInvalid},
		"no namespace":                    {func(c *token.Claims) { c.Namespace = "" }, token.ClaimMissing},
		"a namespace that is none":        {func(c *token.Claims) { c.Namespace = "Apps" }, token.NameInvalid},
		"no uid":                          {func(c *token.Claims) { c.ServiceAccount.UID = "" }, token.ClaimMissing},
		"a pod without a uid":             {func(c *token.Claims) { c.Pod.UID = "" }, token.ClaimMissing},
		"a webhook without attestation":   {func(c *token.Claims) { c.MutatingWebhookConfiguration = &token.Ref{Name: "x", UID: "y"} }, token.AttestationAbsent},
		"a Secret's under another issuer": {func(c *token.Claims) { *c = legacyRobot(); c.Issuer = tokentest.Issuer }, token.IssuerUnknown},
		"a Secret's without a Secret":     {func(c *token.Claims) { *c = legacyRobot(); c.Secret = nil }, token.ClaimMissing},
	} {
		t.Run(name, func(t *testing.T) {
			c := robot()
			row.change(&c)
			text, err := signer(t, tokentest.P256).Sign(c)
			var refused *token.RefusedError
			if text != "" || !errors.As(err, &refused) || !refused.Has(row.want) {
				t.Errorf("signed %q, %v; want %s", text, err, row.want)
			}
		})
	}
	c := robot()
	c.ID = "\xff"
	if _, err := signer(t, tokentest.P256).Sign(c); err == nil {
		t.Error("text that is not UTF-8 is signed")
	}
}

func TestPayloadsAreSignedAsTheyAre(t *testing.T) {
	for _, name := range []string{tokentest.RSA, tokentest.P256, tokentest.P521} {
		s := signer(t, name)
		payload := tokentest.Encode(tokentest.Payload(start).Text())
		header, signature, err := s.SignPayload(payload)
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := base64.RawURLEncoding.DecodeString(header)
		if want := `{"alg":"` + s.Key().Algorithm() + `","kid":"` + s.Key().ID + `","typ":"JWT"}`; err != nil || string(decoded) != want {
			t.Errorf("the header is %s, want %s", decoded, want)
		}
		c := tokentest.Case{}
		v, err := token.NewVerifier(c.Config(func() time.Time { return start }))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(t.Context(), header+"."+payload+"."+signature); err != nil {
			t.Error(err)
		}
		for _, bad := range []string{payload + "=", payload + "\n", payload[:len(payload)-1] + "+", strings.Repeat("A", 5)} {
			if _, _, err := s.SignPayload(bad); err == nil {
				t.Errorf("%q is signed", bad)
			}
		}
	}
}

func TestKeysThatSignNoTokens(t *testing.T) {
	for _, name := range []string{tokentest.Ed25519, tokentest.Weak} {
		if _, err := token.NewSigner(tokentest.Key(name)); err == nil {
			t.Errorf("%s signs tokens", name)
		}
	}
}
