package issue

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// Algorithm names a kind of key as kubeadm does (encryptionAlgorithm in
// k/k cmd/kubeadm/app/apis/kubeadm/v1/types.go), plus Ed25519.
type Algorithm string

// The algorithms that keys can be made with.
const (
	RSA2048   Algorithm = "RSA-2048"
	RSA3072   Algorithm = "RSA-3072"
	RSA4096   Algorithm = "RSA-4096"
	ECDSAP256 Algorithm = "ECDSA-P256"
	ECDSAP384 Algorithm = "ECDSA-P384"
	Ed25519   Algorithm = "Ed25519"
)

// Algorithms lists all algorithms in the order in which help texts name them.
func Algorithms() []Algorithm {
	return []Algorithm{RSA2048, RSA3072, RSA4096, ECDSAP256, ECDSAP384, Ed25519}
}

// ParseAlgorithm reads the name of an algorithm, in any case. The empty name is
// RSA-2048, kubeadm's default. The error names all that are known.
func ParseAlgorithm(name string) (Algorithm, error) {
	if name == "" {
		return RSA2048, nil
	}
	all := Algorithms()
	i := slices.IndexFunc(all, func(a Algorithm) bool { return strings.EqualFold(string(a), name) })
	if i < 0 {
		return "", fmt.Errorf("unknown key algorithm %q: use one of %s", name, strings.Trim(fmt.Sprint(all), "[]"))
	}
	return all[i], nil
}

// GenerateKey makes a private key. It is safe for concurrent use, and an RSA
// key takes long enough (tens of milliseconds) that callers should use it so.
func GenerateKey(a Algorithm) (crypto.Signer, error) {
	switch a {
	case RSA2048, "":
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("unknown key algorithm %q", a)
}

// AlgorithmOf returns the algorithm of a public key, empty for one that
// [GenerateKey] would not make.
func AlgorithmOf(public crypto.PublicKey) Algorithm {
	switch k := public.(type) {
	case *rsa.PublicKey:
		a := Algorithm(fmt.Sprintf("RSA-%d", k.N.BitLen()))
		if slices.Contains(Algorithms(), a) {
			return a
		}
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return ECDSAP256
		case elliptic.P384():
			return ECDSAP384
		}
	case ed25519.PublicKey:
		return Ed25519
	}
	return ""
}

// EncodePrivateKey returns the PEM form of a private key as client-go's keyutil
// writes it: PKCS#1 for RSA, SEC1 for ECDSA, and PKCS#8 for Ed25519.
func EncodePrivateKey(key crypto.Signer) ([]byte, error) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return pem.EncodeToMemory(&pem.Block{Type: trust.RSAKeyType, Bytes: x509.MarshalPKCS1PrivateKey(k)}), nil
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			return nil, fmt.Errorf("encoding ECDSA key: %w", err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: trust.ECKeyType, Bytes: der}), nil
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: trust.PrivateKeyType, Bytes: der}), nil
}

// EncodePublicKey returns the PKIX PEM form of a public key, as sa.pub has it.
func EncodePublicKey(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encoding public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: trust.PublicKeyType, Bytes: der}), nil
}

// ErrNoPrivateKey tells that a PEM text holds no private key.
var ErrNoPrivateKey = errors.New("no private key in the PEM text")

// ParsePrivateKey returns the first private key of a PEM text: PKCS#1, PKCS#8
// or SEC1, after any other blocks, as client-go's keyutil reads it. The error
// names the line, never the content.
func ParsePrivateKey(data []byte) (crypto.Signer, error) {
	blocks, err := trust.Blocks(data)
	if err != nil {
		return nil, err
	}
	for _, b := range blocks {
		if IsPrivateKey(b) {
			return ParsePrivateKeyBlock(b)
		}
	}
	return nil, ErrNoPrivateKey
}

// IsPrivateKey tells whether a block is of a private key's type.
func IsPrivateKey(b trust.Block) bool {
	return strings.HasSuffix(b.Type, trust.PrivateKeyType)
}

// ParsePrivateKeyBlock parses one private key block. Encrypted keys are
// refused: no component of Kubernetes reads them. The parser's own error is
// left out on purpose, for it may quote key material.
func ParsePrivateKeyBlock(b trust.Block) (crypto.Signer, error) {
	if b.Encrypted {
		return nil, fmt.Errorf("line %d: the private key is encrypted: no component can read it, decrypt it with openssl pkey", b.Line)
	}
	var key any
	var err error
	switch b.Type {
	case trust.RSAKeyType:
		key, err = x509.ParsePKCS1PrivateKey(b.DER)
	case trust.ECKeyType:
		key, err = x509.ParseECPrivateKey(b.DER)
	case trust.PrivateKeyType:
		key, err = x509.ParsePKCS8PrivateKey(b.DER)
	default:
		return nil, fmt.Errorf("line %d: private keys of type %s are not read by Kubernetes", b.Line, b.Type)
	}
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, fmt.Errorf("line %d: %s block does not parse as a private key", b.Line, b.Type)
	}
	return signer, nil
}

// ParsePublicKeyBlock parses a PUBLIC KEY (PKIX) or RSA PUBLIC KEY (PKCS#1) block.
func ParsePublicKeyBlock(b trust.Block) (crypto.PublicKey, error) {
	var key crypto.PublicKey
	var err error
	switch b.Type {
	case trust.PublicKeyType:
		key, err = x509.ParsePKIXPublicKey(b.DER)
	case trust.RSAPublicKeyType:
		key, err = x509.ParsePKCS1PublicKey(b.DER)
	default:
		return nil, fmt.Errorf("line %d: %s block where a PUBLIC KEY is expected", b.Line, b.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", b.Line, err)
	}
	return key, nil
}
