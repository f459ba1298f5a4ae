package workload

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cert-manager/cert-manager/pkg/apis/certmanager"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
)

// Wish is what a Certificate or a CertificateRequest asks for, with all defaults filled
// in. Wishes that come to the same certificate have the same [Wish.Digest]. A Wish is
// not changed once it is made and is safe for concurrent use.
type Wish struct {
	RawSubject               []byte // DER
	DNSNames, EmailAddresses []string
	IPAddresses              []net.IP
	URIs                     []*url.URL
	OtherNames               []cmapi.OtherName // UTF-8 texts alone
	KeyUsage                 x509.KeyUsage
	ExtKeyUsage              []x509.ExtKeyUsage // as they are written, also twice
	IsCA                     bool
	NameConstraints          *NameConstraints // nil for none
	Duration                 time.Duration
	Issuer                   cmmeta.IssuerReference // with kind and group

	literal       bool // of spec.literalSubject: compared byte for byte
	durationNamed bool // not by default
	names         *names
}

// WishOf reads the wish of a Certificate. The error names the field of a spec that no
// certificate can fulfil. What one could, and cert-manager's admission refuses all the
// same, is for [Admit].
func WishOf(spec *cmapi.CertificateSpec) (*Wish, error) {
	subject, err := subjectOf(spec)
	if err != nil {
		return nil, err
	}
	n, err := namesOf(spec)
	if err != nil {
		return nil, err
	}
	rdns, err := parseSubject(subject)
	if err != nil {
		return nil, fmt.Errorf("spec.subject: %w", err)
	}
	if n.empty() && strings.Join(commonNames(rdns), "") == "" {
		return nil, errors.New("spec: at least one of commonName (from the commonName field or from a literalSubject), dnsNames, emailAddresses, " +
			"ipAddresses, otherNames, or uris must be set")
	}
	w := &Wish{RawSubject: subject, IsCA: spec.IsCA, literal: spec.LiteralSubject != ""}
	if w.NameConstraints, err = constraintsOf(spec); err != nil {
		return nil, err
	}
	if err := w.setNames(n); err != nil {
		return nil, fmt.Errorf("spec.uris%w", err)
	}
	if w.KeyUsage, w.ExtKeyUsage, err = Usages(spec.Usages, spec.IsCA); err != nil {
		return nil, err
	}
	if _, _, err := keyShape(spec); err != nil {
		return nil, err
	}
	w.Duration = DefaultDuration
	if spec.Duration != nil {
		w.Duration, w.durationNamed = spec.Duration.Duration, true
	}
	return w, w.setIssuer(spec.IssuerRef)
}

func (w *Wish) setNames(n *names) error {
	w.names = n
	w.DNSNames, w.EmailAddresses, w.IPAddresses, w.OtherNames = n.dns, n.emails, n.addresses, n.others
	var err error
	w.URIs, err = parseURIs(n.uris)
	return err
}

func (w *Wish) setIssuer(ref cmmeta.IssuerReference) error {
	if w.Duration <= 0 {
		return fmt.Errorf("spec.duration: %s is no life for a certificate", w.Duration)
	}
	if ref.Name == "" {
		return errors.New("spec.issuerRef.name: is empty")
	}
	w.Issuer = IssuerOf(ref)
	return nil
}

// IssuerOf returns a reference with the kind and group that it stands for where it
// names none: Issuer and cert-manager.io.
func IssuerOf(ref cmmeta.IssuerReference) cmmeta.IssuerReference {
	if ref.Kind == "" {
		ref.Kind = cmapi.IssuerKind
	}
	if ref.Group == "" {
		ref.Group = certmanager.GroupName
	}
	return ref
}

// CommonNames returns all common names of the subject, in the order of DER. Where there
// are several, programs differ in which they show: who decides by names looks at all.
func (w *Wish) CommonNames() []string {
	rdns, err := parseSubject(w.RawSubject)
	if err != nil {
		return nil
	}
	return commonNames(rdns)
}

// Subject returns the subject as crypto/x509 reads it.
func (w *Wish) Subject() pkix.Name {
	var name pkix.Name
	if rdns, err := parseSubject(w.RawSubject); err == nil {
		name.FillFromRDNSequence(&rdns)
	}
	return name
}

// Digest is the same for wishes that come to the same certificate: the order of names
// and usages does not count.
func (w *Wish) Digest() [32]byte {
	h := sha256.New()
	hashTexts(h, string(w.RawSubject))
	hashTexts(h, sorted(w.DNSNames)...)
	hashTexts(h, sorted(w.EmailAddresses)...)
	hashTexts(h, addressTexts(w.IPAddresses)...)
	hashTexts(h, uriTexts(w.URIs)...)
	hashTexts(h, otherTexts(w.OtherNames)...)
	usages := slices.Sorted(slices.Values(w.ExtKeyUsage))
	hashTexts(h, fmt.Sprint(w.KeyUsage), fmt.Sprint(slices.Compact(usages)), fmt.Sprint(w.IsCA), fmt.Sprint(int64(w.Duration)))
	hashTexts(h, w.NameConstraints.text())
	hashTexts(h, w.Issuer.Name, w.Issuer.Kind, w.Issuer.Group)
	return [32]byte(h.Sum(nil))
}

// hashTexts writes a list so that no other list gives the same bytes.
func hashTexts(h hash.Hash, texts ...string) {
	n := binary.BigEndian.AppendUint64(nil, uint64(len(texts)))
	for _, t := range texts {
		n = append(binary.BigEndian.AppendUint64(n, uint64(len(t))), t...)
	}
	h.Write(n)
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }

func addressTexts(list []net.IP) []string {
	texts := make([]string, 0, len(list))
	for _, ip := range list {
		texts = append(texts, string(ip.To16()))
	}
	slices.Sort(texts)
	return texts
}

func uriTexts(list []*url.URL) []string {
	texts := make([]string, 0, len(list))
	for _, u := range list {
		texts = append(texts, u.String())
	}
	slices.Sort(texts)
	return texts
}

func otherTexts(list []cmapi.OtherName) []string {
	texts := make([]string, 0, len(list))
	for _, o := range list {
		texts = append(texts, o.OID+"="+o.UTF8Value)
	}
	slices.Sort(texts)
	return texts
}

func (n *NameConstraints) text() string {
	if n == nil {
		return ""
	}
	side := func(s NameSet) string {
		ranges := make([]string, 0, len(s.IPRanges))
		for _, r := range s.IPRanges {
			ranges = append(ranges, r.String())
		}
		return fmt.Sprintf("%q %q %q %q", sorted(s.DNSDomains), sorted(ranges), sorted(s.EmailAddresses), sorted(s.URIDomains))
	}
	return fmt.Sprint(n.Critical, side(n.Permitted), side(n.Excluded))
}

// Differences names the fields in which what a request asks for (b) is not what a
// Certificate wishes (a), as cert-manager's RequestMatchesSpec names and orders them.
// Like there a duration that either does not name is no difference, and other names
// count only where the Certificate has any. It is empty where the request fits; the
// same digest always means that it does. Beyond upstream, name constraints count.
func Differences(a, b *Wish) []string {
	var fields []string
	differ := func(field string, different bool) {
		if different {
			fields = append(fields, field)
		}
	}
	differ("spec.ipAddresses", !slices.Equal(addressTexts(a.IPAddresses), addressTexts(b.IPAddresses)))
	differ("spec.uris", !slices.Equal(uriTexts(a.URIs), uriTexts(b.URIs)))
	differ("spec.emailAddresses", !slices.Equal(sorted(a.EmailAddresses), sorted(b.EmailAddresses)))
	differ("spec.dnsNames", !slices.Equal(sorted(a.DNSNames), sorted(b.DNSNames)))
	differ("spec.otherNames", len(a.OtherNames) > 0 && !slices.Equal(otherTexts(a.OtherNames), otherTexts(b.OtherNames)))
	fields = append(fields, subjectDifferences(a, b)...)
	differ("spec.isCA", a.IsCA != b.IsCA)
	differ("spec.usages", a.KeyUsage&^x509.KeyUsageCertSign != b.KeyUsage&^x509.KeyUsageCertSign || a.signsCertificates() != b.signsCertificates() ||
		!slices.Equal(usageSet(a.ExtKeyUsage), usageSet(b.ExtKeyUsage)))
	differ("spec.duration", a.durationNamed && b.durationNamed && a.Duration != b.Duration)
	differ("spec.issuerRef", a.Issuer != b.Issuer)
	differ("spec.nameConstraints", a.NameConstraints.text() != b.NameConstraints.text())
	return fields
}

// signsCertificates tells of the usage itself, where it does not just follow from IsCA.
func (w *Wish) signsCertificates() bool { return !w.IsCA && w.KeyUsage&x509.KeyUsageCertSign != 0 }

func usageSet(list []x509.ExtKeyUsage) []x509.ExtKeyUsage {
	return slices.Compact(slices.Sorted(slices.Values(list)))
}

func subjectDifferences(a, b *Wish) []string {
	if bytes.Equal(a.RawSubject, b.RawSubject) {
		return nil
	}
	if a.literal {
		return []string{"spec.literalSubject"}
	}
	x, y := a.Subject(), b.Subject()
	var fields []string
	if x.CommonName != y.CommonName {
		fields = append(fields, "spec.commonName")
	}
	if x.SerialNumber != y.SerialNumber {
		fields = append(fields, "spec.subject.serialNumber")
	}
	for _, l := range []struct {
		field string
		x, y  []string
	}{
		{"organizations", x.Organization, y.Organization},
		{"countries", x.Country, y.Country},
		{"localities", x.Locality, y.Locality},
		{"organizationalUnits", x.OrganizationalUnit, y.OrganizationalUnit},
		{"postCodes", x.PostalCode, y.PostalCode}, // upstream's word for postalCodes
		{"provinces", x.Province, y.Province},
		{"streetAddresses", x.StreetAddress, y.StreetAddress},
	} {
		if !slices.Equal(sorted(l.x), sorted(l.y)) {
			fields = append(fields, "spec.subject."+l.field)
		}
	}
	return fields
}
