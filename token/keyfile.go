package token

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// ParseKeys reads the keys of a file: PEM blocks of public keys, private keys,
// of which the public half is taken, and certificates; or, when it is JSON, a
// JSON Web Key Set (RFC 7517 section 5) or a single key of one.
//
// In PEM each key must be of use, for whoever names a file means all of it; the
// error names the line. In a key set keys of other kinds and uses are left out,
// as RFC 7517 wants it; one without any key of use is [ErrNoKeys]. The result is
// never empty without an error.
func ParseKeys(data []byte) ([]Key, error) {
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '{' {
		return parseJWKS(trimmed)
	}
	blocks, err := trust.Blocks(data)
	if err != nil {
		return nil, err
	}
	var keys []Key
	for _, b := range blocks {
		if b.Type == trust.ECParametersType {
			continue
		}
		public, err := publicKey(b)
		if err != nil {
			return nil, err
		}
		k, err := NewKey(public)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", b.Line, err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no PEM block of a key or certificate in it, and it is no JSON Web Key Set")
	}
	return keys, nil
}

func publicKey(b trust.Block) (crypto.PublicKey, error) {
	switch {
	case b.Type == trust.CertificateType:
		c, err := x509.ParseCertificate(b.DER)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", b.Line, err)
		}
		return c.PublicKey, nil
	case issue.IsPrivateKey(b):
		private, err := issue.ParsePrivateKeyBlock(b)
		if err != nil {
			return nil, err
		}
		return private.Public(), nil
	}
	return issue.ParsePublicKeyBlock(b)
}

// parseJWKS takes the keys of a set one by one, so that one that is of no use
// here does not spoil the others.
func parseJWKS(data []byte) ([]Key, error) {
	if len(data) > trust.MaxPEM {
		return nil, fmt.Errorf("larger than %d bytes: not the keys of a cluster", trust.MaxPEM)
	}
	if problem := bounded(data, maxKeyCommas); problem != "" {
		return nil, errors.New("the JSON " + problem)
	}
	var set struct {
		Keys []jsontext.Value `json:"keys"`
		Kty  string           `json:"kty"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, errors.New("no JSON Web Key Set: " + withoutContent(err))
	}
	switch {
	case set.Kty != "" && set.Keys != nil:
		return nil, errors.New("the JSON is a key (kty) and a set of them (keys) at once")
	case set.Kty != "":
		set.Keys = []jsontext.Value{data}
	case set.Keys == nil:
		return nil, errors.New("the JSON has no keys: it is no JSON Web Key Set (RFC 7517 section 5)")
	}
	var keys []Key
	for _, one := range set.Keys {
		if k, ok := parseJWK(one); ok {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: none of the %d keys of the set is of a kind that verifies tokens of Kubernetes: RSA of 2048 to 4096 bits, P-256, P-384 or P-521, and for use as sig", ErrNoKeys, len(set.Keys))
	}
	return keys, nil
}

// parseJWK keeps the id that the set gives: who publishes keys says how tokens
// name them.
func parseJWK(data []byte) (Key, bool) {
	var j jose.JSONWebKey
	if j.UnmarshalJSON(data) != nil {
		return Key{}, false
	}
	var more struct {
		Operations []string `json:"key_ops"` // RFC 7517 section 4.3
	}
	if json.Unmarshal(data, &more) != nil || (more.Operations != nil && !slices.Contains(more.Operations, "verify")) {
		return Key{}, false
	}
	public := j.Public()
	k, err := NewKey(public.Key)
	if err != nil || (j.Use != "" && j.Use != "sig") || (j.Algorithm != "" && j.Algorithm != k.Algorithm()) || len(j.KeyID) > maxKeyID {
		return Key{}, false
	}
	if j.KeyID != "" {
		k.ID = j.KeyID
	}
	return k, true
}
