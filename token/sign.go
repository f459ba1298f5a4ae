package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/cryptosigner"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Signer signs tokens with one key. It may be used by several goroutines, if
// that key may.
type Signer struct {
	key Key
	// plain makes headers as Kubernetes does, typed as its external signers do.
	plain, typed jose.Signer
}

// NewSigner returns a signer with a private key, which may be held elsewhere: of
// the kinds that [NewKey] takes. Tokens name the key by the id that Kubernetes
// derives.
func NewSigner(private crypto.Signer) (*Signer, error) {
	k, err := NewKey(private.Public())
	if err != nil {
		return nil, err
	}
	var key any = private
	switch private.(type) {
	case *rsa.PrivateKey, *ecdsa.PrivateKey:
	default:
		key = cryptosigner.Opaque(private)
	}
	with := jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.Algorithm()), Key: jose.JSONWebKey{Key: key, KeyID: k.ID}}
	plain, err := jose.NewSigner(with, nil)
	if err != nil {
		return nil, fmt.Errorf("a signer of tokens: %w", err)
	}
	typed, err := jose.NewSigner(with, new(jose.SignerOptions).WithType("JWT"))
	if err != nil {
		return nil, fmt.Errorf("a signer of tokens: %w", err)
	}
	return &Signer{k, plain, typed}, nil
}

// Key returns the key that verifies what the signer signs.
func (s *Signer) Key() Key { return s.key }

// Sign makes a token, byte for byte the one that Kubernetes makes of the claims
// (k8s.io/kubernetes/pkg/serviceaccount/jwt.go, GenerateToken). The subject is
// that of the service account; what Claims.Subject says is not used. Claims that
// no verifier would accept, at whatever time, are an error: a [*RefusedError].
// The result is a secret.
func (s *Signer) Sign(c Claims) (string, error) {
	c.Subject = c.username()
	w := wireOf(&c)
	j := judgement{config: &Config{Issuers: []string{c.Issuer}}, claims: &c, wire: &w}
	if j.signable(); len(j.reasons) > 0 {
		return "", &RefusedError{j.reasons}
	}
	payload, err := json.Marshal(w, jsontext.EscapeForHTML(true), jsontext.EscapeForJS(true), json.Deterministic(true))
	if err != nil {
		return "", errors.New("the claims hold text that is not UTF-8")
	}
	signed, err := s.plain.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("signing the token: %w", err)
	}
	return signed.CompactSerialize()
}

// SignPayload signs a payload that somebody else made, which is given and taken
// as the second part of a token (unpadded, strict base64url), and returns the
// first part and the third: Kubernetes' external signer does that
// (k8s.io/externaljwt). The header has typ JWT, as is wanted there. The payload
// is signed as it is: what it says is for the caller to judge.
func (s *Signer) SignPayload(payload string) (header, signature string, err error) {
	data, err := decodeBase64("payload", payload)
	if err != nil {
		return "", "", err
	}
	signed, err := s.typed.Sign(data)
	if err != nil {
		return "", "", fmt.Errorf("signing the payload: %w", err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		return "", "", err
	}
	header, rest, _ := strings.Cut(text, ".")
	_, signature, _ = strings.Cut(rest, ".")
	return header, signature, nil
}
