package bundle

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// ParseAnchors reads certificates that shall become anchors: at least one, each of
// them an authority that verifies something at a time, and nothing beside them. The
// error names the line and the reason. Of a private key nothing is repeated.
func ParseAnchors(data []byte, at time.Time) ([]*x509.Certificate, error) {
	t, err := Parse(data)
	if err != nil {
		return nil, err
	}
	if len(t.Others) > 0 {
		return nil, fmt.Errorf("line %d: %s where an authority's certificate is expected", t.Others[0].Line, t.Others[0].Why)
	}
	if len(t.Anchors) == 0 {
		return nil, fmt.Errorf("holds no PEM block of type CERTIFICATE")
	}
	for _, a := range t.Anchors {
		if why := NotAnchor(a.Certificate, at); why != "" {
			return nil, fmt.Errorf("line %d: certificate %q %s", a.Line, a.Subject, why)
		}
	}
	return t.Certificates(), nil
}

// NotAnchor tells why a certificate cannot serve as an anchor at a time, empty when
// it can: crypto/x509 would verify nothing with it.
func NotAnchor(c *x509.Certificate, at time.Time) string {
	switch {
	case c.Version < 3 || !c.BasicConstraintsValid:
		return "does not say that it is an authority (basic constraints): it is no anchor"
	case !c.IsCA:
		return "is a leaf, not an authority: whoever trusts it trusts nobody"
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return "is an authority that may not sign certificates (key usage)"
	case refusedKey(c):
		return "has a key that TLS refuses"
	case at.After(c.NotAfter):
		return "expired on " + c.NotAfter.UTC().Format(time.RFC3339) + ": it verifies nothing"
	case at.Before(c.NotBefore):
		return "begins on " + c.NotBefore.UTC().Format(time.RFC3339) + ": it verifies nothing yet"
	}
	return ""
}

func refusedKey(c *x509.Certificate) bool {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() < 1024
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P224()
	}
	return false
}

// Recertified tells that two certificates are of one authority and yet not the
// same: its name and key, certified again. What one verifies the other does, but
// for dates and constraints.
func Recertified(a, b *x509.Certificate) bool {
	return !a.Equal(b) && bytes.Equal(a.RawSubject, b.RawSubject) && trust.SameKey(a.PublicKey, b.PublicKey)
}

// Difference is what tells two bundles apart, as sets.
type Difference struct {
	OnlyA, OnlyB []*x509.Certificate // in the order of their bundle, each once
	// Again pairs those of OnlyA and OnlyB that are re-certified.
	Again [][2]*x509.Certificate
	// Reordered tells that the sets are the same and the order is not.
	Reordered bool
}

// Same tells that both hold the same anchors.
func (d Difference) Same() bool { return len(d.OnlyA)+len(d.OnlyB) == 0 }

// Diff compares two bundles. How often one holds an anchor does not matter.
func Diff(a, b []*x509.Certificate) Difference {
	a, b = unique(a), unique(b)
	d := Difference{OnlyA: missing(a, b), OnlyB: missing(b, a)}
	for _, x := range d.OnlyA {
		for _, y := range d.OnlyB {
			if Recertified(x, y) {
				d.Again = append(d.Again, [2]*x509.Certificate{x, y})
			}
		}
	}
	d.Reordered = d.Same() && !slices.EqualFunc(a, b, (*x509.Certificate).Equal)
	return d
}

// missing are those of a that b does not hold.
func missing(a, b []*x509.Certificate) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(a), func(c *x509.Certificate) bool { return slices.ContainsFunc(b, c.Equal) })
}

func unique(all []*x509.Certificate) []*x509.Certificate {
	var each []*x509.Certificate
	for _, c := range all {
		if !slices.ContainsFunc(each, c.Equal) {
			each = append(each, c)
		}
	}
	return each
}

// Pruned is what [Text.Prune] took out.
type Pruned struct {
	Expired   []*x509.Certificate // each once
	Duplicate []*x509.Certificate // as often as they went
	// Kept are expired ones that stay: they are needed, or all there is.
	Kept []*x509.Certificate
}

// Empty tells that nothing went.
func (p Pruned) Empty() bool { return len(p.Expired)+len(p.Duplicate) == 0 }

// Prune returns the text without second copies of an anchor, and without those that
// expired before a time, unless they are needed. At least one anchor stays: where
// all expired it is the one that did so last.
func (t *Text) Prune(at time.Time, needed func(*x509.Certificate) bool) (*Text, Pruned) {
	var p Pruned
	expired := func(c *x509.Certificate) bool { return at.After(c.NotAfter) }
	spared := -1
	if !slices.ContainsFunc(t.Anchors, func(a Anchor) bool { return !expired(a.Certificate) }) {
		for i, a := range t.Anchors {
			if spared < 0 || a.NotAfter.After(t.Anchors[spared].NotAfter) {
				spared = i
			}
		}
	}
	gone := map[int]bool{}
	for i, a := range t.Anchors {
		first := slices.IndexFunc(t.Anchors, func(b Anchor) bool { return b.Equal(a.Certificate) })
		switch {
		case first < i:
			gone[i] = true
			if !gone[first] {
				p.Duplicate = append(p.Duplicate, a.Certificate)
			}
		case !expired(a.Certificate):
		case i == spared || needed(a.Certificate):
			p.Kept = append(p.Kept, a.Certificate)
		default:
			gone[i] = true
			p.Expired = append(p.Expired, a.Certificate)
		}
	}
	if len(gone) == 0 {
		return t, p
	}
	return t.without(func(i int) bool { return gone[i] }), p
}
