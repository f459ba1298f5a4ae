package workload

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

const (
	minRSABits = 2048
	maxRSABits = 8192
	// maxKeyPEM bounds the text of a private key, in bytes: an RSA key of 16384 bits
	// has some 13,000.
	maxKeyPEM = 16 << 10
)

// keyShape is what a spec says of its key, with upstream's defaults: RSA of 2048 bits,
// and 256 bits for ECDSA.
func keyShape(spec *cmapi.CertificateSpec) (algorithm cmapi.PrivateKeyAlgorithm, size int, err error) {
	var p cmapi.CertificatePrivateKey
	if spec.PrivateKey != nil {
		p = *spec.PrivateKey
	}
	switch p.Algorithm {
	case "", cmapi.RSAKeyAlgorithm:
		if p.Size <= 0 {
			p.Size = minRSABits
		}
		if p.Size < minRSABits || p.Size > maxRSABits {
			return "", 0, fmt.Errorf("spec.privateKey.size: %d bits: an RSA key has %d to %d", p.Size, minRSABits, maxRSABits)
		}
		return cmapi.RSAKeyAlgorithm, p.Size, nil
	case cmapi.ECDSAKeyAlgorithm:
		switch p.Size {
		case 256, 384, 521:
		default:
			if p.Size > 0 {
				return "", 0, fmt.Errorf("spec.privateKey.size: %d bits: an ECDSA key has 256, 384 or 521", p.Size)
			}
			p.Size = 256
		}
		return cmapi.ECDSAKeyAlgorithm, p.Size, nil
	case cmapi.Ed25519KeyAlgorithm:
		return cmapi.Ed25519KeyAlgorithm, 0, nil
	}
	return "", 0, fmt.Errorf("spec.privateKey.algorithm: %q is none of RSA, ECDSA and Ed25519", p.Algorithm)
}

// NewKey makes the private key that a Certificate wishes. An RSA key takes tens of
// milliseconds and more; it is safe for concurrent use.
func NewKey(spec *cmapi.CertificateSpec) (crypto.Signer, error) {
	algorithm, size, err := keyShape(spec)
	if err != nil {
		return nil, err
	}
	switch algorithm {
	case cmapi.RSAKeyAlgorithm:
		return rsa.GenerateKey(rand.Reader, size)
	case cmapi.ECDSAKeyAlgorithm:
		return ecdsa.GenerateKey(map[int]elliptic.Curve{256: elliptic.P256(), 384: elliptic.P384(), 521: elliptic.P521()}[size], rand.Reader)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

// EncodeKey returns the PEM form of a key as spec.privateKey.encoding wishes it: PKCS#1,
// which for ECDSA is SEC 1 and for Ed25519 PKCS#8, or PKCS#8.
func EncodeKey(key crypto.Signer, spec *cmapi.CertificateSpec) ([]byte, error) {
	encoding := cmapi.PKCS1
	if spec.PrivateKey != nil && spec.PrivateKey.Encoding != "" {
		encoding = spec.PrivateKey.Encoding
	}
	switch encoding {
	case cmapi.PKCS1:
		return issue.EncodePrivateKey(key)
	case cmapi.PKCS8:
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("encoding private key: %w", err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: trust.PrivateKeyType, Bytes: der}), nil
	}
	return nil, fmt.Errorf("spec.privateKey.encoding: %q is neither PKCS1 nor PKCS8", encoding)
}

// ParseKey reads the private key of a Secret, of at most 16 KiB of PEM: PKCS#1, SEC 1 or
// PKCS#8, of RSA, ECDSA or Ed25519. The error says nothing of what is in it.
func ParseKey(data []byte) (crypto.Signer, error) {
	if len(data) > maxKeyPEM {
		return nil, fmt.Errorf("the private key has %d bytes of PEM, more than %d", len(data), maxKeyPEM)
	}
	key, err := issue.ParsePrivateKey(data)
	if err != nil {
		return nil, err
	}
	switch key.(type) {
	case *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
		return key, nil
	}
	return nil, fmt.Errorf("the private key is neither of RSA nor of ECDSA nor of Ed25519")
}

// KeyProblems names the fields of spec.privateKey that a key does not fulfil.
func KeyProblems(public crypto.PublicKey, spec *cmapi.CertificateSpec) []string {
	algorithm, size := keyKind(public)
	return keyProblems(algorithm, size, spec)
}

func keyProblems(algorithm cmapi.PrivateKeyAlgorithm, size int, spec *cmapi.CertificateSpec) []string {
	wanted, wantedSize, err := keyShape(spec)
	switch {
	case err != nil || algorithm != wanted:
		return []string{"spec.privateKey.algorithm"}
	case size != wantedSize && wanted != cmapi.Ed25519KeyAlgorithm:
		return []string{"spec.privateKey.size"}
	}
	return nil
}

// keyKind returns what keyShape would of the key; the empty algorithm for other keys.
func keyKind(public crypto.PublicKey) (cmapi.PrivateKeyAlgorithm, int) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return cmapi.RSAKeyAlgorithm, k.N.BitLen()
	case *ecdsa.PublicKey:
		return cmapi.ECDSAKeyAlgorithm, k.Curve.Params().BitSize
	case ed25519.PublicKey:
		return cmapi.Ed25519KeyAlgorithm, 0
	}
	return "", 0
}

// KeyID is the SHA-256 hash of a public key (PKIX): how keys are told apart without
// being kept. It is zero for a key that has no such form.
func KeyID(public crypto.PublicKey) [32]byte {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return [32]byte{}
	}
	return sha256.Sum256(der)
}

// RotatesKey tells whether each issuance makes a new key: unless
// spec.privateKey.rotationPolicy is Never, since cert-manager 1.18.
func RotatesKey(spec *cmapi.CertificateSpec) bool {
	return spec.PrivateKey == nil || spec.PrivateKey.RotationPolicy != cmapi.RotationPolicyNever
}
