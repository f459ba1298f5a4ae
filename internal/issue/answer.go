package issue

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// CheckAnswer compares a certificate, signed elsewhere, with what was asked
// for. It returns the first difference that would break the certificate's
// role: another key, another subject, a missing name or usage, a key usage
// without digitalSignature, which every TLS handshake with ephemeral keys needs
// (RFC 8446 section 4.4.2.2), or an authority where a leaf was asked for. More
// names or a shorter life are the signer's business and pass.
func CheckAnswer(t Template, public crypto.PublicKey, c *x509.Certificate) error {
	switch {
	case !trust.SameKey(public, c.PublicKey):
		return fmt.Errorf("certificate %q was not issued for the key at hand", c.Subject)
	case c.Subject.CommonName != t.Subject.CommonName:
		return fmt.Errorf("common name is %q, asked was %q", c.Subject.CommonName, t.Subject.CommonName)
	case !sameSet(c.Subject.Organization, t.Subject.Organization):
		return fmt.Errorf("organizations are %q, asked were %q", c.Subject.Organization, t.Subject.Organization)
	case c.IsCA && !t.Authority:
		return fmt.Errorf("certificate %q is an authority (CA:TRUE), asked was a leaf", c.Subject)
	case !t.Authority && c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return fmt.Errorf("key usage digitalSignature is missing from the certificate %q", c.Subject)
	}
	for _, n := range t.DNSNames {
		if !slices.ContainsFunc(c.DNSNames, func(m string) bool { return strings.EqualFold(m, n) }) {
			return fmt.Errorf("DNS name %q is missing from the certificate", n)
		}
	}
	for _, a := range t.Addresses {
		if !slices.ContainsFunc(c.IPAddresses, func(b net.IP) bool { return a.Equal(b) }) {
			return fmt.Errorf("IP address %s is missing from the certificate", a)
		}
	}
	for _, u := range t.Usages {
		if !slices.Contains(c.ExtKeyUsage, u) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
			return fmt.Errorf("extended usage %s is missing from the certificate", UsageName(u))
		}
	}
	return nil
}

// UsageName returns the name of an extended usage as RFC 5280 section 4.2.1.12
// spells it.
func UsageName(u x509.ExtKeyUsage) string {
	switch u {
	case x509.ExtKeyUsageServerAuth:
		return "serverAuth"
	case x509.ExtKeyUsageClientAuth:
		return "clientAuth"
	case x509.ExtKeyUsageAny:
		return "anyExtendedKeyUsage"
	}
	return fmt.Sprintf("usage %d", u)
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}
