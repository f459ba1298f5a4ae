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
	Facts unique.Handle[Facts]
}

// Facts are what is kept of a certificate. They are comparable.
type Facts struct {
	Issuer, Subject unique.Handle[Name]
	Serial          string // decimal, clipped
	Print           [8]byte
	From, Until     int64 // NotBefore and NotAfter, in seconds of Unix time
	Authority       bool
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
func Of(c *x509.Certificate) unique.Handle[Facts] {
	sum := sha256.Sum256(c.Raw)
	f := Facts{
		Issuer: name(c.Issuer), Subject: name(c.Subject), From: c.NotBefore.Unix(), Until: c.NotAfter.Unix(),
		Authority: c.IsCA && c.BasicConstraintsValid,
	}
	if c.SerialNumber != nil {
		f.Serial = clip(c.SerialNumber.String())
	}
	copy(f.Print[:], sum[:])
	return unique.Make(f)
}

func name(n pkix.Name) unique.Handle[Name] {
	first := func(values []string) string {
		if len(values) == 0 {
			return ""
		}
		return clip(values[0])
	}
	return unique.Make(Name{C: first(n.Country), ST: first(n.Province), L: first(n.Locality), O: first(n.Organization), OU: first(n.OrganizationalUnit), CN: clip(n.CommonName)})
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
