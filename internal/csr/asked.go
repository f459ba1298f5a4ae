package csr

import "net/netip"

// Asked is what the PEM of a request asks for, as far as a rule can see it.
type Asked struct {
	CommonName          string   // "" where there is none
	Organizations       []string // in the order of the request
	OrganizationalUnits []string
	DNSNames            []string // as they are written
	EmailAddresses      []string
	URIs                []string
	IPAddresses         []netip.Addr // IPv4 in IPv6 is unmapped
	Key                 Key
}

// Key is a public key.
type Key struct {
	Kind string // "RSA", "ECDSA" or "Ed25519"; "" for any other
	Bits int    // of the modulus or of the curve; 256 for Ed25519
	// Sum is the SHA-256 sum of the SubjectPublicKeyInfo in DER.
	Sum [32]byte
}

// Read returns what the PEM of a request asks for. It judges nothing but
// whether it can be read; the error says why it cannot.
func Read(pem []byte) (*Asked, error) { return nil, nil }

// KeySum returns the SHA-256 sum of the SubjectPublicKeyInfo of a request, by
// which [Keys] are asked. It costs little: nothing is verified.
func KeySum(pem []byte) (sum [32]byte, ok bool) { return sum, false }
