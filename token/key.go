package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/go-jose/go-jose/v4"

	"github.com/kubepki/kubepki/internal/trust"
)

// Sizes in bits that RSA keys may have.
const (
	minRSABits = 2048
	maxRSABits = 4096
)

// minExponent keeps out RSA keys with which forged signatures have been
// mistaken for true ones.
const minExponent = 65537

// maxKeyID is how long a kid may be, in bytes (k8s.io/externaljwt/apis/v1).
const maxKeyID = 1024

// Key is a public key that verifies tokens.
type Key struct {
	// ID is what tokens name the key by (kid).
	ID string
	// Public is an *rsa.PublicKey of 2048 to 4096 bits, or an *ecdsa.PublicKey on
	// P-256, P-384 or P-521.
	Public crypto.PublicKey
}

// NewKey returns a key with the id that Kubernetes derives: the unpadded
// base64url of the SHA-256 of the key's SubjectPublicKeyInfo
// (k8s.io/kubernetes/pkg/serviceaccount/jwt.go, keyIDFromPublicKey). Keys of
// other kinds or sizes are an error that says which may be used.
func NewKey(public crypto.PublicKey) (Key, error) {
	if _, err := algorithmOf(public); err != nil {
		return Key{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return Key{}, fmt.Errorf("encoding the public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return Key{ID: base64.RawURLEncoding.EncodeToString(sum[:]), Public: public}, nil
}

// Algorithm returns the one algorithm that the key verifies: RS256, ES256, ES384
// or ES512, as Kubernetes assigns them; empty for a key that NewKey would refuse.
func (k Key) Algorithm() string {
	a, _ := algorithmOf(k.Public)
	return string(a)
}

// algorithmOf assigns each kind of key its one algorithm
// (k8s.io/kubernetes/pkg/serviceaccount/openidmetadata.go).
func algorithmOf(public crypto.PublicKey) (jose.SignatureAlgorithm, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		switch bits := k.N.BitLen(); {
		case bits < minRSABits || bits > maxRSABits:
			return "", fmt.Errorf("an RSA key of %d bits: use %d to %d", bits, minRSABits, maxRSABits)
		case k.E < minExponent || k.E > math.MaxInt32 || k.E%2 == 0:
			return "", fmt.Errorf("an RSA key with the exponent %d: use %d", k.E, minExponent)
		}
		return jose.RS256, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return jose.ES256, nil
		case elliptic.P384():
			return jose.ES384, nil
		case elliptic.P521():
			return jose.ES512, nil
		}
		return "", fmt.Errorf("an ECDSA key on %s: use P-256, P-384 or P-521", k.Curve.Params().Name)
	}
	return "", fmt.Errorf("a key of type %T signs no tokens of Kubernetes: use RSA or ECDSA", public)
}

// KeySource gives the keys that verify now.
type KeySource interface {
	// Keys returns the keys. The id is the kid of the token that asks, empty when
	// it has none: a source that can ask elsewhere may do so for one that it does
	// not know, and return what it knows without an error when there is none. It
	// is called for each token, by several goroutines at once, and should return
	// the same set as long as nothing has changed. The set is not nil when the
	// error is.
	Keys(ctx context.Context, id string) (*KeySet, error)
}

// KeySet is a fixed set of keys, which may be used by several goroutines. It is
// a [KeySource] itself.
type KeySet struct {
	keys    []Key
	byID    map[string][]Key
	headers headers
}

// ErrNoKeys tells that there is no key to verify with.
var ErrNoKeys = errors.New("there is no key to verify with")

// NewKeySet returns the set of some keys, in their order, each once. Two keys
// may have one id. A key of another kind than [NewKey] takes, an id that is
// empty or longer than 1024 bytes, and no key at all ([ErrNoKeys]) are errors.
func NewKeySet(keys ...Key) (*KeySet, error) {
	s := &KeySet{byID: make(map[string][]Key, len(keys))}
	for _, k := range keys {
		if _, err := algorithmOf(k.Public); err != nil {
			return nil, err
		}
		if k.ID == "" || len(k.ID) > maxKeyID {
			return nil, fmt.Errorf("the id of a key has %d bytes: it needs 1 to %d", len(k.ID), maxKeyID)
		}
		if slices.ContainsFunc(s.byID[k.ID], func(have Key) bool { return trust.SameKey(have.Public, k.Public) }) {
			continue
		}
		s.keys = append(s.keys, k)
		s.byID[k.ID] = append(s.byID[k.ID], k)
	}
	if len(s.keys) == 0 {
		return nil, ErrNoKeys
	}
	return s, nil
}

// Keys returns the set itself, so that it can be used as a [KeySource].
func (s *KeySet) Keys(context.Context, string) (*KeySet, error) { return s, nil }

// All returns the keys, in their order.
func (s *KeySet) All() []Key { return slices.Clone(s.keys) }

// named returns the keys that a token names: all when it names none
// (k8s.io/kubernetes/pkg/serviceaccount/jwt.go, GetPublicKeys).
func (s *KeySet) named(id string) []Key {
	if id == "" {
		return s.keys
	}
	return s.byID[id]
}

// Has tells whether there is a key of an id.
func (s *KeySet) Has(id string) bool { return len(s.byID[id]) > 0 }
