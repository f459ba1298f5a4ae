package inspect

import (
	"crypto"
	"crypto/x509"
)

// Key is what may be said of a key.
type Key struct {
	Algorithm string `json:"algorithm,omitempty"` // such as RSA-2048; empty when encrypted
	// PublicKeySHA256 is the hash of the SubjectPublicKeyInfo, hexadecimal: the
	// same as of each certificate for this key.
	PublicKeySHA256 string `json:"publicKeySHA256,omitempty"`
	Encrypted       bool   `json:"encrypted,omitempty"`
}

// NewKey describes a public key, or the public half of a private one.
func NewKey(public crypto.PublicKey) *Key {
	k := &Key{Algorithm: keyAlgorithm(public)}
	if der, err := x509.MarshalPKIXPublicKey(public); err == nil {
		k.PublicKeySHA256 = hash(der)
	}
	return k
}
