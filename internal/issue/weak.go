package issue

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
)

// maxRSABits is the size above which crypto/tls refuses an RSA key
// (GO-2023-1987), so that a certificate for it could not be used.
const maxRSABits = 8192

// CheckPublicKey refuses a key that is too weak to be certified, or of a kind
// that Kubernetes' components do not take in TLS: RSA below 2048 bits or with
// an exponent below 65537, curves other than P-256, P-384 and P-521.
func CheckPublicKey(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *rsa.PublicKey:
		switch bits := k.N.BitLen(); {
		case bits < 2048:
			return fmt.Errorf("an RSA key of %d bits is too weak: use 2048 or more", bits)
		case bits > maxRSABits:
			return fmt.Errorf("an RSA key of %d bits is larger than TLS takes: use %d or fewer", bits, maxRSABits)
		case k.E < 65537:
			return fmt.Errorf("an RSA key with the exponent %d is too weak: use 65537", k.E)
		}
		return nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fmt.Errorf("a key on the curve %s is too weak: use P-256", k.Curve.Params().Name)
	case ed25519.PublicKey:
		return nil
	}
	return fmt.Errorf("a key of type %T is of no use in TLS: use RSA, ECDSA or Ed25519", public)
}
