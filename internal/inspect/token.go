package inspect

import (
	"errors"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// maxToken bounds a token; Kubernetes' own are below 2 KiB.
const maxToken = 64 << 10

// tokenAlgorithms are those of public keys. Who verifies a token of another
// kind has its secret, so no component of Kubernetes does.
var tokenAlgorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512, jose.PS256, jose.PS384, jose.PS512, jose.EdDSA,
}

// Token is what the header and the claims of a JSON Web Token say. Nothing of
// it is verified.
type Token struct {
	Algorithm string     `json:"algorithm"`
	KeyID     string     `json:"keyID"` // kid; empty in tokens of old
	Subject   string     `json:"subject,omitempty"`
	Issuer    string     `json:"issuer,omitempty"`
	Audiences []string   `json:"audiences,omitempty"`
	IssuedAt  *time.Time `json:"issuedAt,omitempty"`
	NotBefore *time.Time `json:"notBefore,omitempty"`
	Expires   *time.Time `json:"expires,omitempty"`
	// WarnAfter is when the kubelet should have replaced the token.
	WarnAfter *time.Time `json:"warnAfter,omitempty"`
	// Legacy tells of a token of a Secret, as Kubernetes made them before
	// 1.24: for no audience, and without an end.
	Legacy         bool       `json:"legacy,omitempty"`
	Namespace      string     `json:"namespace,omitempty"`
	ServiceAccount *Reference `json:"serviceAccount,omitempty"`
	// BoundTo are the objects with which the token dies: a pod, node or secret.
	BoundTo []Reference `json:"boundTo,omitempty"`
}

// Reference names an object of the cluster.
type Reference struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	UID  string `json:"uid,omitempty"`
}

// kubernetesClaims are the private claims of service-account tokens
// (k/k pkg/serviceaccount/claims.go and legacy.go).
type kubernetesClaims struct {
	Bound struct {
		Namespace      string       `json:"namespace"`
		ServiceAccount *objectClaim `json:"serviceaccount"`
		Pod            *objectClaim `json:"pod"`
		Node           *objectClaim `json:"node"`
		Secret         *objectClaim `json:"secret"`
		WarnAfter      *int64       `json:"warnafter"`
	} `json:"kubernetes.io"`
	Namespace string `json:"kubernetes.io/serviceaccount/namespace"`
	Name      string `json:"kubernetes.io/serviceaccount/service-account.name"`
	UID       string `json:"kubernetes.io/serviceaccount/service-account.uid"`
	Secret    string `json:"kubernetes.io/serviceaccount/secret.name"`
}

type objectClaim struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// looksLikeToken tells whether a text is three parts of base64url with dots
// between them, the first of which begins a JSON object.
func looksLikeToken(text string) bool {
	return len(text) <= maxToken && strings.HasPrefix(text, "eyJ") && strings.Count(text, ".") == 2 &&
		!strings.ContainsFunc(text, func(r rune) bool {
			return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.')
		})
}

// readToken never returns an error of the parser, which may quote the token.
func readToken(text string) (*Token, error) {
	parsed, err := jwt.ParseSigned(text, tokenAlgorithms)
	if errors.As(err, new(*jose.ErrUnexpectedSignatureAlgorithm)) {
		return nil, errors.New("a token that is not signed with a public key's algorithm: no component accepts it")
	}
	if err != nil || len(parsed.Headers) != 1 {
		return nil, errors.New("looks like a token (JWT), but does not parse as one")
	}
	var claims jwt.Claims
	var own kubernetesClaims
	if err := parsed.UnsafeClaimsWithoutVerification(&claims, &own); err != nil {
		return nil, errors.New("the claims of the token do not parse")
	}
	t := &Token{
		Algorithm: parsed.Headers[0].Algorithm, KeyID: parsed.Headers[0].KeyID,
		Subject: claims.Subject, Issuer: claims.Issuer, Audiences: claims.Audience,
	}
	t.own(&own)
	for _, d := range []struct {
		name string
		from *jwt.NumericDate
		to   **time.Time
	}{{"iat", claims.IssuedAt, &t.IssuedAt}, {"nbf", claims.NotBefore, &t.NotBefore}, {"exp", claims.Expiry, &t.Expires}, {"kubernetes.io.warnafter", (*jwt.NumericDate)(own.Bound.WarnAfter), &t.WarnAfter}} {
		if *d.to, err = date(d.name, d.from); err != nil {
			return nil, err
		}
	}
	t.Legacy = t.Expires == nil && own.Name != ""
	return t, nil
}

// date refuses times that no calendar has, which would not encode.
func date(claim string, d *jwt.NumericDate) (*time.Time, error) {
	if d == nil {
		return nil, nil
	}
	at := d.Time().UTC()
	if *d < 0 || at.Year() > 9999 || at.Year() < 0 {
		return nil, errors.New("the claim " + claim + " of the token is no time")
	}
	return &at, nil
}

func (t *Token) own(c *kubernetesClaims) {
	if c.Name != "" {
		t.Namespace, t.ServiceAccount = c.Namespace, &Reference{Kind: "ServiceAccount", Name: c.Name, UID: c.UID}
		if c.Secret != "" {
			t.BoundTo = append(t.BoundTo, Reference{Kind: "Secret", Name: c.Secret})
		}
	}
	if a := c.Bound.ServiceAccount; a != nil {
		t.Namespace, t.ServiceAccount = c.Bound.Namespace, &Reference{Kind: "ServiceAccount", Name: a.Name, UID: a.UID}
	}
	for _, o := range []struct {
		kind  string
		claim *objectClaim
	}{{"Pod", c.Bound.Pod}, {"Node", c.Bound.Node}, {"Secret", c.Bound.Secret}} {
		if o.claim != nil {
			t.BoundTo = append(t.BoundTo, Reference{Kind: o.kind, Name: o.claim.Name, UID: o.claim.UID})
		}
	}
}
