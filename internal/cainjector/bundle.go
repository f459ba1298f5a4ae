package cainjector

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// The bounds of a bundle. An authority that renews itself each hour would otherwise leave
// one certificate an hour in each object until they end.
const (
	mostGiven = 100 // certificates of a source
	mostKept  = 20  // certificates that the source does not name any more
)

// Given are the certificates of a ca.crt that are to be believed: those that have not
// ended. One that holds anything else, or none, is an error.
func Given(ca []byte, now time.Time) ([]*x509.Certificate, error) {
	all, err := trust.ParseCertificates(ca)
	if err != nil {
		return nil, err
	}
	if len(all) > mostGiven {
		return nil, fmt.Errorf("%d certificates, more than %d", len(all), mostGiven)
	}
	if all = living(all, now); len(all) == 0 {
		return nil, fmt.Errorf("each certificate has ended")
	}
	return all, nil
}

// living are the certificates that have not ended, each once.
func living(all []*x509.Certificate, now time.Time) []*x509.Certificate {
	var left []*x509.Certificate
	for _, c := range all {
		if !now.After(c.NotAfter) && !slices.ContainsFunc(left, c.Equal) {
			left = append(left, c)
		}
	}
	return left
}

// Bundle is what belongs into a caBundle that has been there: what is given; and, with
// keep, what was there before it and has not ended, for the server may present a
// certificate of the old authority for a while. What is no bundle is replaced.
func Bundle(there []byte, given []*x509.Certificate, keep bool, now time.Time) []byte {
	if !keep {
		return trust.EncodeCertificates(given...)
	}
	before, err := trust.ParseCertificates(there)
	if err != nil {
		return trust.EncodeCertificates(given...)
	}
	before = newest(living(before, now), given)
	for _, c := range given {
		if !slices.ContainsFunc(before, c.Equal) {
			before = append(before, c)
		}
	}
	return trust.EncodeCertificates(before...)
}

// newest leaves the newest of the certificates that are not given any more, in their order.
func newest(before, given []*x509.Certificate) []*x509.Certificate {
	old := slices.DeleteFunc(slices.Clone(before), func(c *x509.Certificate) bool { return slices.ContainsFunc(given, c.Equal) })
	if len(old) <= mostKept {
		return before
	}
	slices.SortStableFunc(old, func(a, b *x509.Certificate) int {
		return cmp.Or(b.NotBefore.Compare(a.NotBefore), bytes.Compare(a.Raw, b.Raw))
	})
	dropped := old[mostKept:]
	return slices.DeleteFunc(before, func(c *x509.Certificate) bool { return slices.ContainsFunc(dropped, c.Equal) })
}
