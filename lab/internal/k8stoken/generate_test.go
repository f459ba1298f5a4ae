package k8stoken_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/lab/internal/k8stoken"
	"github.com/kubepki/kubepki/token"
)

// What package token signs is byte for byte what Kubernetes signs, header and
// payload, in every form; RSA signatures too, which are always the same.
func TestTokensAreTheSameBytes(t *testing.T) {
	withWebhooks(t)
	now := time.Now()
	base := token.Claims{
		Issuer: tokentest.Issuer, Audiences: []string{tokentest.Issuer}, Expires: now.Add(time.Hour), IssuedAt: now,
		Namespace: "apps", ServiceAccount: token.Ref{Name: "robot", UID: "c3"},
	}
	for name, change := range map[string]func(*token.Claims){
		"of nothing but a service account": func(*token.Claims) {},
		"for several audiences":            func(c *token.Claims) { c.Audiences = []string{"b", "a", `<&>"\` + "\u2028é"} },
		"of a pod":                         func(c *token.Claims) { c.Pod = &token.Ref{Name: "robot-7d9f", UID: "b2"} },
		"of a pod with its node": func(c *token.Claims) {
			c.Pod, c.Node = &token.Ref{Name: "robot-7d9f", UID: "b2"}, &token.Ref{Name: "worker-1", UID: "a1"}
		},
		"of a pod whose node is gone": func(c *token.Claims) {
			c.Pod, c.Node = &token.Ref{Name: "robot-7d9f", UID: "b2"}, &token.Ref{Name: "worker-1"}
		},
		"whose end was put off": func(c *token.Claims) {
			c.Pod, c.Expires, c.WarnAfter = &token.Ref{Name: "robot-7d9f", UID: "b2"}, now.Add(365*24*time.Hour), now.Add(3607*time.Second)
		},
		"of a node":   func(c *token.Claims) { c.Node = &token.Ref{Name: "worker-1", UID: "a1"} },
		"of a secret": func(c *token.Claims) { c.Secret = &token.Ref{Name: "robot-token", UID: "d4"} },
		"of a validating webhook": func(c *token.Claims) {
			c.ValidatingWebhookConfiguration, c.Attestations = &token.Ref{Name: "policy.example.com", UID: "e5"}, map[string][]string{token.APIGroupsAttestation: {"*"}}
		},
		"of a mutating webhook": func(c *token.Claims) {
			c.MutatingWebhookConfiguration, c.Attestations = &token.Ref{Name: "policy.example.com", UID: "e5"}, map[string][]string{token.APIGroupsAttestation: {"apps"}}
		},
		"of a Secret of old": func(c *token.Claims) {
			*c = token.Claims{Issuer: token.LegacyIssuer, Legacy: true, Namespace: "apps", ServiceAccount: token.Ref{Name: "robot", UID: "c3"}, Secret: &token.Ref{Name: "robot-token"}}
		},
	} {
		for _, key := range []string{tokentest.RSA, tokentest.P256, tokentest.P384, tokentest.P521} {
			t.Run(name+", "+key, func(t *testing.T) {
				c := base
				change(&c)
				public, private, err := k8stoken.Claims(c)
				if err != nil {
					t.Fatal(err)
				}
				generate, err := k8stoken.Generator(c.Issuer, tokentest.Key(key))
				if err != nil {
					t.Fatal(err)
				}
				theirs, err := generate(public, private)
				if err != nil {
					t.Fatal(err)
				}
				u, err := token.Parse(theirs)
				if err != nil {
					t.Fatal(err)
				}
				s, err := token.NewSigner(tokentest.Key(key))
				if err != nil {
					t.Fatal(err)
				}
				ours, err := s.Sign(u.Claims)
				if err != nil {
					t.Fatal(err)
				}
				if key != tokentest.RSA { // ECDSA signatures are random
					theirs, ours = theirs[:strings.LastIndex(theirs, ".")], ours[:strings.LastIndex(ours, ".")]
				}
				if ours != theirs {
					t.Errorf("\n%s is not\n%s", ours, theirs)
				}
				c.Subject, c.ID = "system:serviceaccount:apps:robot", u.Claims.ID
				if u.Claims.User().Username != c.Subject || u.Claims.Legacy != c.Legacy || (c.ID == "") != c.Legacy {
					t.Errorf("read as %+v", u.Claims)
				}
			})
		}
	}
}
