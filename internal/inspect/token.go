package inspect

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/token"
)

// maxToken bounds a token; Kubernetes' own are below 2 KiB.
const maxToken = 64 << 10

// tokenAlgorithms are those of public keys. Who verifies a token of another
// kind has its secret, so no component of Kubernetes does.
var tokenAlgorithms = []string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA"}

// Token is what the header and the claims of a JSON Web Token say. Nothing of
// it is verified.
type Token struct {
	Algorithm string     `json:"algorithm"`
	KeyID     string     `json:"keyID"` // kid; empty in tokens of old
	Subject   string     `json:"subject,omitempty"`
	Issuer    string     `json:"issuer,omitempty"`
	Audiences []string   `json:"audiences,omitempty"`
	ID        string     `json:"id,omitempty"` // jti
	IssuedAt  *time.Time `json:"issuedAt,omitempty"`
	NotBefore *time.Time `json:"notBefore,omitempty"`
	Expires   *time.Time `json:"expires,omitempty"`
	// WarnAfter is when the kubelet should have replaced the token.
	WarnAfter *time.Time `json:"warnAfter,omitempty"`
	// Legacy tells of a token of a Secret, as Kubernetes made them before
	// 1.24: for no audience and, mostly, without an end.
	Legacy         bool       `json:"legacy,omitempty"`
	Namespace      string     `json:"namespace,omitempty"`
	ServiceAccount *Reference `json:"serviceAccount,omitempty"`
	// BoundTo are the objects with which the token dies: a pod, whose node may
	// stand beside it, a node, a secret, or the configuration of webhooks.
	BoundTo      []Reference         `json:"boundTo,omitempty"`
	Attestations map[string][]string `json:"attestations,omitempty"`

	faults []token.Reason // for which nobody accepts it
}

// Reference names an object of the cluster.
type Reference struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	UID  string `json:"uid,omitempty"`
}

// looksLikeToken tells whether a text is three parts of base64url with dots
// between them, the first of which begins a JSON object.
func looksLikeToken(text string) bool {
	return len(text) <= maxToken && strings.HasPrefix(text, "eyJ") && strings.Count(text, ".") == 2 &&
		!strings.ContainsFunc(text, func(r rune) bool {
			return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.')
		})
}

// readToken is ReadToken for tokens that some component could accept.
func readToken(text string) (*Token, error) {
	t, err := ReadToken(text)
	if err == nil && !slices.Contains(tokenAlgorithms, t.Algorithm) {
		return nil, errors.New("a token that is not signed with a public key's algorithm: no component accepts it")
	}
	return t, err
}

// ReadToken tells what a token says, as strictly as it is read where it is
// verified, and verifies nothing. The error never quotes the token.
func ReadToken(text string) (*Token, error) {
	u, err := token.Parse(text)
	if err != nil {
		return nil, errors.New("looks like a token (JWT), but is none: " + strings.TrimPrefix(err.Error(), "token refused: "))
	}
	c := &u.Claims
	t := &Token{
		Algorithm: u.Algorithm, KeyID: u.KeyID, Subject: c.Subject, Issuer: c.Issuer, Audiences: c.Audiences, ID: c.ID,
		Legacy: c.Legacy, Namespace: c.Namespace, Attestations: c.Attestations, faults: u.Faults(),
	}
	if c.ServiceAccount.Name != "" {
		t.ServiceAccount = &Reference{Kind: "ServiceAccount", Name: c.ServiceAccount.Name, UID: c.ServiceAccount.UID}
	}
	for _, k := range token.BoundKinds() {
		if o := k.Of(c); o != nil {
			t.BoundTo = append(t.BoundTo, Reference{Kind: k.Kind, Name: o.Name, UID: o.UID})
		}
	}
	t.IssuedAt, t.NotBefore, t.Expires, t.WarnAfter = date(c.IssuedAt), date(c.NotBefore), date(c.Expires), date(c.WarnAfter)
	return t, nil
}

// lastDate is the last time that can be encoded.
var lastDate = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// date takes what is after that for the last date.
func date(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	if at = at.UTC(); at.After(lastDate) {
		at = lastDate
	}
	return &at
}
