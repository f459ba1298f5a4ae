package workload

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// Authority signs for a CA issuer: a key, its certificate, and those above it as far as
// the Secret of the issuer has them. [AuthorityOf] makes it; it is not changed and is
// safe for concurrent use, as far as the key is.
type Authority struct {
	Key crypto.Signer
	// Chain begins with the certificate that signs; each signed the one before. Its last
	// is the root, or the topmost that the Secret has.
	Chain []*x509.Certificate
	// Beside are the authorities in ca.crt that are not of the chain, of one that did not
	// sign itself: what whoever signed it publishes while it changes its own.
	Beside []*x509.Certificate

	above, top []byte // in PEM: what follows each leaf in tls.crt, and ca.crt
}

// AuthorityOf reads the Secret of a CA issuer: tls.crt, tls.key and, where there is one,
// ca.crt. The first certificate of tls.crt signs; the others of tls.crt must all belong
// to its chain, in any order, as upstream wants it. Of ca.crt only what continues
// the chain counts, so that it may hold the anchors of a rollover beside.
func AuthorityOf(tlsCRT, tlsKey, caCRT []byte) (*Authority, error) {
	key, err := ParseKey(tlsKey)
	if err != nil {
		return nil, fmt.Errorf("tls.key: %w", err)
	}
	own, err := trust.ParseCertificates(tlsCRT)
	if err != nil {
		return nil, fmt.Errorf("tls.crt: %w", err)
	}
	var anchors []*x509.Certificate
	if len(caCRT) > 0 {
		if anchors, err = trust.ParseCertificates(caCRT); err != nil {
			return nil, fmt.Errorf("ca.crt: %w", err)
		}
	}
	a := &Authority{Key: key, Chain: own[:1:1]}
	rest := unlike(own[0], own[1:])
	for top := own[0]; !selfSigned(top); {
		next := signerOf(top, rest)
		if next == nil {
			if next = signerOf(top, anchors); next == nil {
				break
			}
		}
		if a.holds(next) { // two that signed each other
			break
		}
		a.Chain, rest, top = append(a.Chain, next), unlike(next, rest), next
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("tls.crt: certificate %q does not belong to the chain of %q, the first", rest[0].Subject, own[0].Subject)
	}
	if err := a.usable(own[0].NotBefore); err != nil {
		return nil, err
	}
	if !selfSigned(own[0]) {
		a.Beside = a.beside(anchors)
	}
	a.above, a.top = a.texts()
	return a, nil
}

// maxBeside is how many authorities beside the chain are taken: a file with all that
// somebody trusts is no change of one.
const maxBeside = 8

func (a *Authority) beside(anchors []*x509.Certificate) []*x509.Certificate {
	var all []*x509.Certificate
	for _, c := range anchors {
		if c.IsCA && !a.holds(c) {
			all = append(all, c)
		}
	}
	if len(all) > maxBeside {
		return nil
	}
	return all
}

func (a *Authority) holds(c *x509.Certificate) bool { return len(unlike(c, a.Chain)) < len(a.Chain) }

func unlike(c *x509.Certificate, list []*x509.Certificate) []*x509.Certificate {
	var others []*x509.Certificate
	for _, o := range list {
		if !o.Equal(c) {
			others = append(others, o)
		}
	}
	return others
}

func signerOf(c *x509.Certificate, list []*x509.Certificate) *x509.Certificate {
	for _, above := range list {
		if bytes.Equal(c.RawIssuer, above.RawSubject) && trust.SignedBy(c, above) {
			return above
		}
	}
	return nil
}

func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && trust.SignedBy(c, c)
}

// usable tells why the authority can sign nothing at a time, whatever is asked for.
func (a *Authority) usable(at time.Time) error {
	if len(a.Chain) == 0 {
		return errors.New("the authority has no certificate")
	}
	if err := (issue.Authority{Certificate: a.Chain[0], Key: a.Key}).Usable(at); err != nil {
		return err
	}
	for _, c := range a.Chain[1:] {
		if at.After(c.NotAfter) {
			return fmt.Errorf("authority %q, above %q, expired at %s", c.Subject, a.Chain[0].Subject, c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// NotAfter is the earliest end of the chain: no certificate lives longer.
func (a *Authority) NotAfter() time.Time {
	end := a.Chain[0].NotAfter
	for _, c := range a.Chain[1:] {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

// texts returns what upstream writes for leaves of this authority: in tls.crt, after the
// leaf, all above it but a self-signed root; in ca.crt the topmost.
func (a *Authority) texts() (above, top []byte) {
	var list []*x509.Certificate
	for _, c := range a.Chain {
		if !selfSigned(c) {
			list = append(list, c)
		}
	}
	return trust.EncodeCertificates(list...), trust.EncodeCertificates(a.Chain[len(a.Chain)-1])
}
