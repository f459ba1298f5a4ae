package tokentest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"sync"
)

// The names of keys. Those from Foreign on are not among the keys of a cluster.
const (
	RSA     = "rsa"
	RSA4096 = "rsa-4096"
	P256    = "p256"
	P384    = "p384"
	P521    = "p521"
	Foreign = "foreign"       // RSA-2048
	FP256   = "foreign-p256"  // P-256
	Ed25519 = "ed25519"       // of a kind that Kubernetes does not take
	Weak    = "rsa-1024-bits" // too small
)

// Listed are the names of the keys that a cluster verifies with, in its order.
func Listed() []string { return []string{RSA, P256, P384, P521, RSA4096} }

// Key returns a private key, the same one in each call of a run.
func Key(name string) crypto.Signer { return keys()[name] }

var keys = sync.OnceValue(func() map[string]crypto.Signer {
	m := make(map[string]crypto.Signer)
	for name, bits := range map[string]int{RSA: 2048, RSA4096: 4096, Foreign: 2048, Weak: 1024} {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			panic(err)
		}
		m[name] = k
	}
	for name, curve := range map[string]elliptic.Curve{P256: elliptic.P256(), P384: elliptic.P384(), P521: elliptic.P521(), FP256: elliptic.P256()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			panic(err)
		}
		m[name] = k
	}
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	m[Ed25519] = k
	return m
})
