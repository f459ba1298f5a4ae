// Package brief holds what is kept of certificates where there may be tens of
// thousands of them: who, by whom, from when to when, and where. What many have in
// common, as all of one authority have their issuer and all Secrets of one issuer
// its ca.crt, is held once.
package brief

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"time"
	"unique"

	"github.com/kubepki/kubepki/internal/trust"
)

// Certificate is one certificate at one place.
type Certificate struct {
	Place trust.Place
	Index int // among the certificates of its place, from 0
	Facts Held
}

// Held are the facts of one certificate. Those of authorities, which stand at many
// places, are held once; those of others are mostly of one place, and what finds equal
// ones again would be larger than they are.
type Held struct {
	shared unique.Handle[Facts]
	own    *Facts // nil: they are shared
}

// Value returns the facts. It must not be called on a zero Held.
func (h Held) Value() Facts {
	if h.own != nil {
		return *h.own
	}
	return h.shared.Value()
}

// Equal tells whether the facts are the same.
func (h Held) Equal(o Held) bool { return h == o || h.Value() == o.Value() }

// Facts are what is kept of a certificate. They are comparable.
type Facts struct {
	Issuer, Subject HeldName
	Serial          string // decimal, clipped
	Print           [8]byte
	From, Until     int64 // NotBefore and NotAfter, in seconds of Unix time
	Authority       bool
}

// HeldName is a name of which all but the CN is held once.
type HeldName struct {
	cn   string
	rest unique.Handle[Name]
}

// Value returns the name. It must not be called on a zero HeldName.
func (h HeldName) Value() Name {
	n := h.rest.Value()
	n.CN = h.cn
	return n
}

// Name has the first value of each attribute of a distinguished name, as valid UTF-8
// and clipped; "": none.
type Name struct{ C, ST, L, O, OU, CN string }

// maxText is how many bytes of one attribute, or of a serial number, are kept.
const maxText = 256

// New keeps what matters of a certificate at a place.
func New(p trust.Place, index int, c *x509.Certificate) Certificate {
	return Certificate{Place: p, Index: index, Facts: Of(c)}
}

// Of keeps what matters of a certificate.
func Of(c *x509.Certificate) Held {
	sum := sha256.Sum256(c.Raw)
	f := Facts{
		Issuer: name(c.Issuer, true), Subject: name(c.Subject, false), From: c.NotBefore.Unix(), Until: c.NotAfter.Unix(),
		Authority: c.IsCA && c.BasicConstraintsValid,
	}
	if c.SerialNumber != nil {
		f.Serial = clip(c.SerialNumber.String())
	}
	copy(f.Print[:], sum[:])
	if f.Authority {
		return Held{shared: unique.Make(f)}
	}
	return Held{own: &f}
}

// name is a name as it is kept; many tells that others have the same.
func name(n pkix.Name, many bool) HeldName {
	first := func(values []string) string {
		if len(values) == 0 {
			return ""
		}
		return clip(values[0])
	}
	cn := clip(n.CommonName)
	if many {
		cn = unique.Make(cn).Value()
	}
	return HeldName{cn, unique.Make(Name{C: first(n.Country), ST: first(n.Province), L: first(n.Locality), O: first(n.Organization), OU: first(n.OrganizationalUnit)})}
}

// clip bounds a foreign text. The result does not keep the rest in memory.
func clip(text string) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= maxText {
		return strings.Clone(text)
	}
	const end = "…"
	return strings.ToValidUTF8(text[:maxText-len(end)], "") + end
}

// NotBefore is when it begins.
func (f *Facts) NotBefore() time.Time { return time.Unix(f.From, 0).UTC() }

// NotAfter is when it ends.
func (f *Facts) NotAfter() time.Time { return time.Unix(f.Until, 0).UTC() }
