package workload

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
)

// Seen is all that a request asks for, as rules see it.
type Seen struct {
	CommonName                         string
	Organizations, OrganizationalUnits []string
	// OtherAttributes are those of the subject beside, such as 2.5.4.6=DE.
	OtherAttributes []string
	DNSNames        []string
	EmailAddresses  []string
	IPAddresses     []string // canonical; IPv4 never as IPv6
	URIs            []string
	OtherNames      []string // such as 1.3.6.1.4.1.311.20.2.3=alice@example.test
	Usages          []string // by the names of the API, each once, also where the request relies on the default
	Duration        time.Duration
	IsCA            bool
	KeyKind         string // RSA, ECDSA or Ed25519
	KeyBits         int
	Issuer          cmmeta.IssuerReference
}

// Variables of rules, as expressions name them, that must be spoken of where a request
// has something there.
const (
	VarCommonName          = "subject.commonName"
	VarOrganizations       = "subject.organizations"
	VarOrganizationalUnits = "subject.organizationalUnits"
	VarOtherAttributes     = "subject.others"
	VarDNSNames            = "dnsNames"
	VarEmailAddresses      = "emailAddresses"
	VarIPAddresses         = "ipAddresses"
	VarURIs                = "uris"
	VarOtherNames          = "otherNames"
	VarUsages              = "request.usages"
)

// ordinary are the usages of servers and clients, which a rule need not speak of.
var ordinary = []string{"digital signature", "key encipherment", "server auth", "client auth"}

// unspoken names what a request has of which a rule does not speak; "": nothing. A
// common name that is one of the other names too says nothing new.
func (s *Seen) unspoken(speaks []string) string {
	names := slices.Concat(s.DNSNames, s.EmailAddresses, s.IPAddresses, s.URIs)
	for _, part := range []struct {
		variable string
		present  bool
	}{
		{VarCommonName, s.CommonName != "" && !slices.Contains(names, s.CommonName)},
		{VarOrganizations, len(s.Organizations) > 0},
		{VarOrganizationalUnits, len(s.OrganizationalUnits) > 0},
		{VarOtherAttributes, len(s.OtherAttributes) > 0},
		{VarDNSNames, len(s.DNSNames) > 0},
		{VarEmailAddresses, len(s.EmailAddresses) > 0},
		{VarIPAddresses, len(s.IPAddresses) > 0},
		{VarURIs, len(s.URIs) > 0},
		{VarOtherNames, len(s.OtherNames) > 0},
		{VarUsages, slices.ContainsFunc(s.Usages, func(u string) bool {
			return !slices.Contains(ordinary, u) && (!s.IsCA || u != "cert sign" && u != "crl sign")
		})},
	} {
		if part.present && !slices.Contains(speaks, part.variable) {
			return part.variable
		}
	}
	return ""
}

// Seen returns what rules see of a request. An error says that it has something that
// they cannot see.
func (a *Asked) Seen() (*Seen, error) {
	rdns, err := parseSubject(a.RawSubject)
	if err != nil {
		return nil, err
	}
	s := &Seen{
		DNSNames: a.DNSNames, EmailAddresses: a.EmailAddresses, Usages: usageTexts(a.KeyUsage, a.ExtKeyUsage),
		Duration: a.Duration, IsCA: a.IsCA, Issuer: a.Issuer,
	}
	if n := commonNames(rdns); len(n) > 1 {
		return nil, errors.New("the subject has several common names, of which programs see one")
	} else if len(n) == 1 {
		s.CommonName = n[0]
	}
	for _, set := range rdns {
		for _, attribute := range set {
			text := fmt.Sprint(attribute.Value)
			switch {
			case attribute.Type.Equal(oidCommonName):
			case attribute.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 10}):
				s.Organizations = append(s.Organizations, text)
			case attribute.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 11}):
				s.OrganizationalUnits = append(s.OrganizationalUnits, text)
			default:
				s.OtherAttributes = append(s.OtherAttributes, attribute.Type.String()+"="+text)
			}
		}
	}
	for _, ip := range a.IPAddresses {
		s.IPAddresses = append(s.IPAddresses, ip.String())
	}
	s.URIs = a.names.uris // as they are written, and will be in the certificate
	s.OtherNames = otherTexts(a.OtherNames)
	s.KeyKind, s.KeyBits = keyText(a.Public)
	return s, nil
}

func keyText(public any) (kind string, bits int) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return "RSA", k.N.BitLen()
	case *ecdsa.PublicKey:
		return "ECDSA", k.Curve.Params().BitSize
	case ed25519.PublicKey:
		return "Ed25519", 8 * len(k)
	}
	return fmt.Sprintf("%T", public), 0
}

// usageTexts are the names of usages, each once.
func usageTexts(usage x509.KeyUsage, extended []x509.ExtKeyUsage) []string {
	var names []string
	left := usage
	for _, k := range keyUsages {
		if left&k.usage != 0 {
			names, left = append(names, string(k.name)), left&^k.usage
		}
	}
	for _, u := range usageSet(extended) {
		for _, e := range extKeyUsages {
			if e.usage == u {
				names = append(names, string(e.name))
				break
			}
		}
	}
	return names
}

// checkEncoding refuses texts of a subject that programs read differently: with control
// characters, and in other encodings than PrintableString and UTF8String, but for
// IA5String where attributes are of that (RFC 4519: domain components; RFC 2985: email
// addresses).
func checkEncoding(subject []byte) error {
	type attributeSET []struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	var rdns []attributeSET
	if rest, err := asn1.Unmarshal(subject, &rdns); err != nil || len(rest) > 0 {
		return errors.New("the subject does not parse")
	}
	for _, set := range rdns {
		for _, attribute := range set {
			v := attribute.Value
			ia5 := v.Tag == asn1.TagIA5String && (attribute.Type.Equal(oidDomainComponent) || attribute.Type.Equal(oidEmailAddress))
			if v.Class != asn1.ClassUniversal || v.Tag != asn1.TagPrintableString && v.Tag != asn1.TagUTF8String && !ia5 {
				return fmt.Errorf("attribute %s of the subject is neither PrintableString nor UTF8String", attribute.Type)
			}
			if !utf8.Valid(v.Bytes) || strings.ContainsFunc(string(v.Bytes), unicode.IsControl) {
				return fmt.Errorf("attribute %s of the subject has control characters, or is not UTF-8", attribute.Type)
			}
		}
	}
	return nil
}

var (
	oidDomainComponent = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
	oidEmailAddress    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
)
