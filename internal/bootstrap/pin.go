package bootstrap

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Pin is the SHA-256 hash of the SubjectPublicKeyInfo (RFC 5280, section
// 4.1.2.7) of an authority, in DER: what kubeadm calls
// discovery-token-ca-cert-hash. It outlives a renewal with the same key.
type Pin [sha256.Size]byte

const pinPrefix = "sha256:"

// ParsePin reads sha256:HEX, in any case, as kubeadm does
// (cmd/kubeadm/app/util/pubkeypin).
func ParsePin(text string) (Pin, error) {
	var p Pin
	format, value, found := strings.Cut(text, ":")
	if !found || !strings.EqualFold(format+":", pinPrefix) {
		return p, fmt.Errorf("%q is not of the form sha256:HEX", text)
	}
	hash, err := hex.DecodeString(value)
	if err != nil || len(hash) != len(p) {
		return p, fmt.Errorf("%q does not have the 64 hexadecimal digits of a SHA-256 hash", text)
	}
	return Pin(hash), nil
}

// PinOf returns the pin of a certificate's key.
func PinOf(c *x509.Certificate) Pin { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// Pins returns the pin of each certificate, each key once, in order.
func Pins(certificates []*x509.Certificate) []Pin {
	var all []Pin
	for _, c := range certificates {
		if p := PinOf(c); !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

// String returns sha256:hex.
func (p Pin) String() string { return pinPrefix + hex.EncodeToString(p[:]) }
