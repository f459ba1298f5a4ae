package kube

import (
	"crypto/sha256"
	"crypto/x509"
	"slices"

	"github.com/kubepki/kubepki/internal/csr"
)

// Keys remembers for which common names public keys have been certified. It is
// not safe for concurrent writing.
type Keys map[[sha256.Size]byte][]string

// Add remembers the key of a request that was approved, and of no other: what
// is merely asked for proves nothing.
func (k Keys) Add(r csr.Request) {
	if r.State != csr.Approved && r.State != csr.Issued {
		return
	}
	sum, ok := csr.KeySum(r.PEM)
	if !ok {
		return
	}
	if asked, err := csr.Read(r.PEM); err == nil && asked != nil {
		k.add(sum, asked.CommonName)
	}
}

// AddAuthority remembers the key of an authority.
func (k Keys) AddAuthority(c *x509.Certificate) {
	k.add(sha256.Sum256(c.RawSubjectPublicKeyInfo), csr.OfAuthority)
}

func (k Keys) add(sum [sha256.Size]byte, name string) {
	if !slices.Contains(k[sum], name) {
		k[sum] = append(k[sum], name)
	}
}

// Of is a [csr.Keys].
func (k Keys) Of(sum [sha256.Size]byte) []string { return k[sum] }
