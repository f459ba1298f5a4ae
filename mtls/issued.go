package mtls

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// checkIssued tells why a chain that was issued is not what was asked for, or cannot be
// shown. More names than asked are the signer's business.
func checkIssued(chain []*x509.Certificate, asked *x509.CertificateRequest, usage x509.ExtKeyUsage) error {
	if len(chain) == 0 || len(chain) > longestChain || slices.Contains(chain, nil) {
		return fmt.Errorf("the chain has %d certificates, or an empty one: it must have 1 to %d", len(chain), longestChain)
	}
	leaf, now := chain[0], time.Now()
	switch {
	case !trust.SameKey(leaf.PublicKey, asked.PublicKey):
		return fmt.Errorf("the certificate %s is not for the key of the request", shortName(leaf))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate %s is good only from %s on: compare the clocks", shortName(leaf), leaf.NotBefore.UTC().Format(time.RFC3339))
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate %s expired at %s", shortName(leaf), leaf.NotAfter.UTC().Format(time.RFC3339))
	case leaf.IsCA:
		return fmt.Errorf("the certificate %s is an authority's", shortName(leaf))
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return fmt.Errorf("the certificate %s lacks the key usage digitalSignature", shortName(leaf))
	case !goodFor(leaf, usage):
		return fmt.Errorf("the certificate %s is for something else: its extended key usages lack %s", shortName(leaf), usage)
	}
	for i, below := range chain[:len(chain)-1] {
		if !trust.SignedBy(below, chain[i+1]) {
			return fmt.Errorf("certificate %d of the chain is not signed by the next one", i+1)
		}
	}
	return checkNames(asked, leaf)
}

// checkNames tells which name of a request is missing from a certificate.
func checkNames(asked *x509.CertificateRequest, c *x509.Certificate) error {
	missing := func(what, name string) error {
		return fmt.Errorf("the certificate lacks the %s %s that was asked for", what, short(name))
	}
	if cn := asked.Subject.CommonName; cn != "" && cn != c.Subject.CommonName {
		return missing("common name", cn)
	}
	for _, o := range asked.Subject.Organization {
		if !slices.Contains(c.Subject.Organization, o) {
			return missing("organization", o)
		}
	}
	for _, n := range asked.DNSNames {
		if !slices.ContainsFunc(c.DNSNames, func(m string) bool { return strings.EqualFold(m, n) }) {
			return missing("DNS name", n)
		}
	}
	for _, a := range asked.IPAddresses {
		if !slices.ContainsFunc(c.IPAddresses, func(b net.IP) bool { return b.Equal(a) }) {
			return missing("IP address", a.String())
		}
	}
	for _, u := range asked.URIs {
		if !slices.ContainsFunc(c.URIs, func(v *url.URL) bool { return v.String() == u.String() }) {
			return missing("URI", u.String())
		}
	}
	for _, e := range asked.EmailAddresses {
		if !slices.Contains(c.EmailAddresses, e) {
			return missing("e-mail address", e)
		}
	}
	return nil
}
