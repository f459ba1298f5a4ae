package jwtsigner

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kubepki/kubepki/token"
)

// The bounds of [Policy.MaxLife]: what a TokenRequest may ask for
// (k8s.io/kubernetes/pkg/apis/authentication/validation), where the lower one is
// also the least that kube-apiserver takes from an external signer.
const (
	MinLife = 10 * time.Minute
	MaxLife = (1 << 32) * time.Second
)

// Policy says which tokens are signed.
type Policy struct {
	// Issuers are the values of iss, letter by letter: the first
	// --service-account-issuer of kube-apiserver, which alone it issues by.
	Issuers []string
	// MaxLife is how long a token lives at most, from its iat to its exp, in
	// whole seconds. kube-apiserver is told, and asks for no more, whatever its
	// --service-account-extend-token-expiration says
	// (k8s.io/kubernetes/pkg/controlplane/apiserver/options/options.go).
	MaxLife time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// check tells what is wrong with a policy.
func (p *Policy) check() error {
	switch {
	case len(p.Issuers) == 0 || slices.Contains(p.Issuers, ""):
		return errors.New("there is no issuer, or an empty one")
	case slices.Contains(p.Issuers, token.LegacyIssuer):
		return fmt.Errorf("%s issues the tokens of Secrets: kube-controller-manager signs those", token.LegacyIssuer)
	case p.MaxLife < MinLife || p.MaxLife > MaxLife || p.MaxLife%time.Second != 0:
		return fmt.Errorf("tokens that live up to %s: from %s to %s in whole seconds is possible", p.MaxLife, MinLife, MaxLife)
	}
	return nil
}

// Judge returns the claims of a payload that may be signed; its error says why
// it may not, and never holds the payload. The payload is the second part of a
// token, as [token.ParsePayload] has it.
//
// Times are judged loosely where that gives nobody a longer token: a call may
// have waited for this process to be started.
func (p *Policy) Judge(payload string) (*token.Claims, error) {
	c, err := token.ParsePayload(payload)
	if err != nil {
		return nil, err
	}
	now := time.Now
	if p.Now != nil {
		now = p.Now
	}
	latest := now().Add(token.Leeway)
	switch life := c.Expires.Sub(c.IssuedAt); {
	case c.Legacy:
		return nil, errors.New("the token of a Secret: kube-controller-manager signs those by a key of its own")
	case !slices.Contains(p.Issuers, c.Issuer):
		return nil, fmt.Errorf("the issuer %q is none of those that are signed for (--issuer)", clip(c.Issuer))
	case c.IssuedAt.IsZero() || c.NotBefore.IsZero():
		return nil, errors.New("iat or nbf is missing: every token of kube-apiserver has both")
	case c.IssuedAt.After(latest) || c.NotBefore.After(latest):
		return nil, errors.New("iat or nbf is to come: a token is signed when it begins")
	case !c.Expires.After(now()):
		return nil, errors.New("exp is past")
	case life > p.MaxLife:
		return nil, fmt.Errorf("it would live %s from iat to exp: %s is the most (--max-token-expiration)", life, p.MaxLife)
	}
	return c, nil
}
