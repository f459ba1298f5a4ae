package mtls

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// ParsePair reads a certificate, the leaf first, and its private key from PEM, for
// [Snapshot]. It refuses what a [FileSource] does not take up: a key that is not
// the certificate's, a certificate that has expired, and one that is not good for
// usage ([x509.ExtKeyUsageAny], the zero value: for whatever it says). The error
// names the line and shows nothing of the key.
func ParsePair(certificate, key []byte, usage x509.ExtKeyUsage) (*tls.Certificate, error) {
	return parsePair(named{"the certificate's PEM", certificate}, named{"the key's PEM", key}, usage)
}

// named is PEM, and where it is from.
type named struct {
	name string
	pem  []byte
}

func parsePair(certificate, key named, usage x509.ExtKeyUsage) (*tls.Certificate, error) {
	private, err := issue.ParsePrivateKey(key.pem)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key.name, err)
	}
	pair, err := parseChain(certificate.pem)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certificate.name, err)
	}
	pair.PrivateKey = private
	switch leaf := pair.Leaf; {
	case checkPair(pair) != nil:
		return nil, fmt.Errorf("%s: the first certificate, %q, does not belong to the key in %s", certificate.name, leaf.Subject, key.name)
	case time.Now().After(leaf.NotAfter):
		return nil, fmt.Errorf("%s: the certificate %q expired at %s", certificate.name, leaf.Subject, leaf.NotAfter.UTC().Format(time.RFC3339))
	case !goodFor(leaf, usage):
		return nil, fmt.Errorf("%s: the certificate %q is for something else: its extended key usages lack %s", certificate.name, leaf.Subject, usage)
	}
	return pair, nil
}

// succession is what certificate was taken up last. It is used by one goroutine at a
// time.
type succession struct{ last *x509.Certificate }

// next takes a certificate up, but not one that is good only later while the last is
// good now: the clock of who signed it is ahead, and each client would refuse it.
func (s *succession) next(pair *tls.Certificate, err error) (*tls.Certificate, error) {
	if err != nil {
		return nil, err
	}
	leaf, now := pair.Leaf, time.Now()
	if last := s.last; last != nil && now.Before(leaf.NotBefore) && !now.Before(last.NotBefore) && !now.After(last.NotAfter) {
		return nil, fmt.Errorf("the certificate %q is good only from %s on: until then the one before is shown; compare the clocks", leaf.Subject, leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	s.last = leaf
	return pair, nil
}

// checkPair tells what is wrong with a certificate that is to be shown.
func checkPair(c *tls.Certificate) error {
	key, ok := c.PrivateKey.(crypto.Signer)
	switch {
	case c.Leaf == nil || len(c.Certificate) == 0 || !bytes.Equal(c.Leaf.Raw, c.Certificate[0]):
		return errors.New("the first certificate and Leaf are not the same")
	case !ok:
		return errors.New("the private key cannot sign")
	case !trust.SameKey(c.Leaf.PublicKey, key.Public()):
		return fmt.Errorf("the first certificate, %q, does not belong to the key", c.Leaf.Subject)
	}
	return nil
}

// withLeaf is a certificate with Leaf, in a copy where that was not set and can be.
func withLeaf(c *tls.Certificate) *tls.Certificate {
	if c == nil || c.Leaf != nil || len(c.Certificate) == 0 {
		return c
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		return c
	}
	known := *c
	known.Leaf = leaf
	return &known
}

// goodFor tells whether a certificate may be shown for something: one that names
// no usage may for all.
func goodFor(c *x509.Certificate, usage x509.ExtKeyUsage) bool {
	named := func(u x509.ExtKeyUsage) bool { return slices.Contains(c.ExtKeyUsage, u) }
	return usage == x509.ExtKeyUsageAny || len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 || named(usage) || named(x509.ExtKeyUsageAny)
}

// parseChain reads the certificates of a file in which their key may stand too.
func parseChain(data []byte) (*tls.Certificate, error) {
	blocks, err := trust.Blocks(data)
	if err != nil {
		return nil, err
	}
	var pair tls.Certificate
	for _, b := range blocks {
		switch {
		case issue.IsPrivateKey(b) || b.Type == trust.ECParametersType:
			continue
		case b.Type != trust.CertificateType:
			return nil, fmt.Errorf("line %d: %s block where a CERTIFICATE is expected", b.Line, b.Type)
		}
		c, err := x509.ParseCertificate(b.DER)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", b.Line, err)
		}
		if pair.Leaf == nil {
			pair.Leaf = c
		}
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	if pair.Leaf == nil {
		return nil, errors.New("no PEM block of type CERTIFICATE")
	}
	return &pair, nil
}
