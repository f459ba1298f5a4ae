package token

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Leeway is by how much clocks may differ
// (gopkg.in/go-jose/go-jose.v2/jwt, DefaultLeeway).
const Leeway = time.Minute

// algorithms are those that Kubernetes signs with; no other is ever verified.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512}

// Config says what a [Verifier] accepts.
type Config struct {
	// Keys gives the keys; needed.
	Keys KeySource
	// Issuers are the values of iss that are accepted, letter by letter
	// (--service-account-issuer of kube-apiserver). With none, legacy tokens
	// alone can be accepted.
	Issuers []string
	// APIAudiences are the audiences of the API server (--api-audiences); none:
	// Issuers.
	APIAudiences []string
	// Audiences are those that the verifier goes by: a token must be for one of
	// them. None: APIAudiences.
	Audiences []string
	// Legacy accepts the tokens of Secrets too, whose issuer is [LegacyIssuer]:
	// they are for the API server, and mostly never expire.
	Legacy bool
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Verifier judges tokens. It may be used by several goroutines.
type Verifier struct{ config Config }

// Verified is a token that was accepted.
type Verified struct {
	User User
	// Audiences are those of the token that were wanted.
	Audiences []string
	Claims    Claims
	Key       Key     // that made the signature
	keys      *KeySet // that it was found in
}

// clone returns a copy that shares nothing but the key.
func (v *Verified) clone() *Verified {
	c := *v
	c.User, c.Audiences, c.Claims = v.User.clone(), slices.Clone(v.Audiences), v.Claims.clone()
	return &c
}

// NewVerifier returns a verifier. Empty texts among issuers and audiences, and
// no source of keys, are errors.
func NewVerifier(c Config) (*Verifier, error) {
	if c.Keys == nil {
		return nil, errors.New("a verifier needs keys")
	}
	for _, list := range [][]string{c.Issuers, c.APIAudiences, c.Audiences} {
		if slices.Contains(list, "") {
			return nil, errors.New("an issuer or audience is empty")
		}
	}
	c.Issuers, c.APIAudiences, c.Audiences = slices.Clone(c.Issuers), slices.Clone(c.APIAudiences), slices.Clone(c.Audiences)
	if len(c.APIAudiences) == 0 {
		c.APIAudiences = c.Issuers
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Verifier{c}, nil
}

// Verify judges a token for the audiences of the configuration. A refusal is a
// [*RefusedError]; another error tells that the keys could not be had.
func (v *Verifier) Verify(ctx context.Context, token string) (*Verified, error) {
	return v.VerifyFor(ctx, token, nil)
}

// VerifyFor judges a token for one of some audiences, as a TokenReview asks;
// none: those of the configuration.
func (v *Verifier) VerifyFor(ctx context.Context, token string, audiences []string) (*Verified, error) {
	u, err := Parse(token)
	if err != nil {
		return nil, err
	}
	if err := v.admit(u); err != nil {
		return nil, err
	}
	set, err := v.config.Keys.Keys(ctx, u.KeyID)
	if err != nil {
		return nil, fmt.Errorf("the keys that verify tokens: %w", err)
	}
	key, err := set.signedBy(u)
	if err != nil {
		return nil, err
	}
	j := judgement{config: &v.config, claims: &u.Claims, wire: &u.wire}
	common := j.judge(audiences)
	if len(j.reasons) > 0 {
		return nil, &RefusedError{j.reasons}
	}
	return &Verified{User: u.Claims.User(), Audiences: common, Claims: u.Claims, Key: key, keys: set}, nil
}

// admit looks at what tells, before any key is asked for, that a token is not
// for this verifier: first its issuer, as Kubernetes does.
func (v *Verifier) admit(u *Unverified) error {
	iss := u.Claims.Issuer
	known := slices.Contains(v.config.Issuers, iss)
	switch {
	case iss == "":
		return refuse(IssuerUnknown, "iss is missing or empty")
	case iss != LegacyIssuer && !known:
		return refuse(IssuerUnknown, fmt.Sprintf("issuer %s is not among those that are accepted: %s", quote(iss), quoteAll(v.config.Issuers)))
	case iss == LegacyIssuer && !v.config.Legacy && (u.Claims.Legacy || !known):
		return refuse(LegacyRefused, "a token of a Secret (issuer "+LegacyIssuer+"): these are not accepted here")
	}
	switch {
	case len(u.header.Critical) > 0:
		return refuse(HeaderForbidden, "the header has crit, which no token of Kubernetes has")
	case len(u.header.Base64) > 0:
		return refuse(HeaderForbidden, "the header has b64, which no token of Kubernetes has")
	case !slices.Contains(algorithms, jose.SignatureAlgorithm(u.Algorithm)):
		return refuse(AlgorithmRefused, fmt.Sprintf("alg %s is none of RS256, ES256, ES384 and ES512", quote(u.Algorithm)))
	case !u.header.Key.harmless():
		return refuse(Malformed, "the header has a jwk that Kubernetes does not read: of another kty than RSA, EC and OKP, or with x5u")
	}
	if name := u.wire.misspelt(); name != "" {
		return refuse(Malformed, "a claim differs from "+name+" in upper and lower case alone: who ignores case takes it for that one")
	}
	return nil
}

// SignedBy returns the key of the set that made the signature of a token, whatever
// key the token names, and false when none did. Nothing else is judged.
func (s *KeySet) SignedBy(u *Unverified) (Key, bool) {
	anonymous := *u
	anonymous.KeyID = ""
	k, err := s.signedBy(&anonymous)
	return k, err == nil
}

// signedBy returns the key that made the signature.
func (s *KeySet) signedBy(u *Unverified) (Key, error) {
	named := s.named(u.KeyID)
	if len(named) == 0 {
		return Key{}, refuse(KeyUnknown, fmt.Sprintf("no key has the id %s that the token names (kid)", quote(u.KeyID)))
	}
	known, header, err := s.headers.read(u)
	if err != nil {
		return Key{}, refuse(Malformed, "the header has a parameter that is broken (RFC 7515 section 4.1)")
	}
	// The parsed header is shared: the signature goes into a copy.
	of := jose.JSONWebSignature{Signatures: []jose.Signature{*header}}
	of.Signatures[0].Signature = u.signature
	fits := false
	for _, k := range named {
		if k.Algorithm() != u.Algorithm {
			continue
		}
		fits = true
		if of.DetachedVerify(u.payload, k.Public) == nil {
			if !known {
				s.headers.remember(u, header)
			}
			return k, nil
		}
	}
	if !fits {
		return Key{}, refuse(AlgorithmMismatch, fmt.Sprintf("alg %s is not that of the key: it verifies %s", u.Algorithm, named[0].Algorithm()))
	}
	return Key{}, refuse(SignatureInvalid, "the signature is not of a key that is known here")
}
