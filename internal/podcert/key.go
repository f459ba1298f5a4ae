package podcert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
)

// KeyTypes returns the kinds of keys that the API server lets into a request,
// by the names that pods give them (k8s.io/api/core/v1,
// PodCertificateProjection.keyType).
func KeyTypes() []string {
	return []string{"ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"}
}

// keyType returns the name of a key's kind in the manner of [KeyTypes], also of
// kinds that are none of these.
func keyType(public crypto.PublicKey) string {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return fmt.Sprintf("ECDSAP%d", k.Curve.Params().BitSize)
	case ed25519.PublicKey:
		return "ED25519"
	case *rsa.PublicKey:
		if k.E != 65537 {
			return fmt.Sprintf("RSA%d with exponent %d", k.N.BitLen(), k.E)
		}
		return fmt.Sprintf("RSA%d", k.N.BitLen())
	}
	return fmt.Sprintf("%T", public)
}

// errNoKey tells that a request shows no key. An API server of 1.37 leaves out
// of v1 what a kubelet of 1.35 wrote by v1beta1.
var errNoKey = errors.New("the request shows no key")

// publicKey returns the key that a request asks a certificate for.
func (r Request) publicKey() (crypto.PublicKey, error) {
	switch {
	case len(r.PKCS10) > 0:
		asked, err := x509.ParseCertificateRequest(r.PKCS10)
		if err != nil {
			return nil, fmt.Errorf("stubPKCS10Request: %w", err)
		}
		return asked.PublicKey, nil
	case len(r.PublicKey) > 0:
		public, err := x509.ParsePKIXPublicKey(r.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("pkixPublicKey: %w", err)
		}
		return public, nil
	}
	return nil, errNoKey
}

// proved tells whether the requester has shown to hold the private key. The API
// server has looked before (k/k pkg/apis/certificates/validation/validation.go).
func (r Request) proved(public crypto.PublicKey) bool {
	if len(r.PKCS10) == 0 {
		return proves(public, []byte(r.Pod.UID), r.ProofOfPossession)
	}
	asked, err := x509.ParseCertificateRequest(r.PKCS10)
	return err == nil && asked.CheckSignature() == nil
}

// proves tells whether a signature of the pod's UID is of the key, in the way
// that k8s.io/api/certificates/v1beta1 describes at proofOfPossession.
func proves(public crypto.PublicKey, uid, proof []byte) bool {
	sum := sha256.Sum256(uid)
	switch k := public.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(k, uid, proof)
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, sum[:], proof)
	case *rsa.PublicKey:
		return rsa.VerifyPSS(k, crypto.SHA256, sum[:], proof, nil) == nil
	}
	return false
}
