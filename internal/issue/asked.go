package issue

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// Asked is what a certificate request asks for. It is read from the raw
// extensions: the parsed form of crypto/x509 hides other kinds of names, and
// keeps only the last of several common names.
type Asked struct {
	Subject   pkix.Name
	DNSNames  []string // as they are written
	Addresses []netip.Addr
	URIs      []*url.URL
	// OtherNames tells the kinds of alternative names that are none of the
	// above, such as "e-mail address" and "otherName".
	OtherNames []string
	Usages     []x509.ExtKeyUsage
	// UnknownUsages are extended usages other than serverAuth and clientAuth.
	UnknownUsages []asn1.ObjectIdentifier
	KeyUsage      x509.KeyUsage
	Authority     bool // basicConstraints CA:TRUE
	// OtherExtensions are those that have no place in the fields above.
	OtherExtensions []pkix.Extension
}

var (
	oidSAN              = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidCommonName       = asn1.ObjectIdentifier{2, 5, 4, 3}
)

// subjectAttributes are the attributes of a subject that a certificate may
// take over from a request (RFC 5280 appendix A.1).
var subjectAttributes = []asn1.ObjectIdentifier{
	oidCommonName,
	{2, 5, 4, 5},  // serialNumber
	{2, 5, 4, 6},  // countryName
	{2, 5, 4, 7},  // localityName
	{2, 5, 4, 8},  // stateOrProvinceName
	{2, 5, 4, 9},  // streetAddress
	{2, 5, 4, 10}, // organizationName
	{2, 5, 4, 11}, // organizationalUnitName
	{2, 5, 4, 17}, // postalCode
}

// ReadRequest reads what a request asks for. It decides nothing but what
// cannot be read; [Asked.Check] does.
func ReadRequest(r *x509.CertificateRequest) (*Asked, error) {
	a := &Asked{Subject: r.Subject}
	for _, e := range r.Extensions {
		if err := a.extension(e); err != nil {
			return nil, err
		}
	}
	var err error
	a.Usages, a.UnknownUsages, err = RequestedUsages(r)
	return a, err
}

func (a *Asked) extension(e pkix.Extension) error {
	switch {
	case e.Id.Equal(oidSAN):
		return a.names(e.Value)
	case e.Id.Equal(oidKeyUsage):
		var bits asn1.BitString
		if rest, err := asn1.Unmarshal(e.Value, &bits); err != nil || len(rest) > 0 {
			return errors.New("the request's key usage does not parse")
		}
		for i := range 9 {
			if bits.At(i) != 0 {
				a.KeyUsage |= 1 << uint(i)
			}
		}
	case e.Id.Equal(oidBasicConstraints):
		var constraints struct {
			CA         bool `asn1:"optional"`
			PathLength int  `asn1:"optional,default:-1"`
		}
		if rest, err := asn1.Unmarshal(e.Value, &constraints); err != nil || len(rest) > 0 {
			return errors.New("the request's basic constraints do not parse")
		}
		a.Authority = constraints.CA
	case e.Id.Equal(oidExtKeyUsage), e.Id.Equal(oidSubjectKeyID):
	default:
		a.OtherExtensions = append(a.OtherExtensions, e)
	}
	return nil
}

// kinds of GeneralName by their tag (RFC 5280 section 4.2.1.6).
var generalNames = [...]string{"otherName", "e-mail address", "DNS name", "x400Address", "directoryName", "ediPartyName", "URI", "IP address", "registeredID"}

func (a *Asked) names(der []byte) error {
	malformed := errors.New("the request's subject alternative names do not parse")
	var list asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &list); err != nil || len(rest) > 0 || !list.IsCompound || list.Tag != asn1.TagSequence || list.Class != asn1.ClassUniversal {
		return malformed
	}
	for rest := list.Bytes; len(rest) > 0; {
		var name asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &name); err != nil || name.Class != asn1.ClassContextSpecific || name.Tag >= len(generalNames) {
			return malformed
		}
		switch name.Tag {
		case 2:
			a.DNSNames = append(a.DNSNames, string(name.Bytes))
		case 6:
			u, err := url.Parse(string(name.Bytes))
			if err != nil {
				return errors.New("a URI of the request does not parse")
			}
			a.URIs = append(a.URIs, u)
		case 7:
			ip, ok := netip.AddrFromSlice(name.Bytes)
			if !ok {
				return malformed
			}
			a.Addresses = append(a.Addresses, ip.Unmap())
		default:
			a.OtherNames = append(a.OtherNames, generalNames[name.Tag])
		}
	}
	return nil
}

// Check refuses what no certificate of a component may hold: the right to
// sign, kinds of names and usages that kubepki does not know, two common
// names, and weak keys. The error says what, in terms of the request.
func (a *Asked) Check(r *x509.CertificateRequest) error {
	switch {
	case a.Authority:
		return errors.New("the request asks to become an authority (basicConstraints CA:TRUE)")
	case a.KeyUsage&x509.KeyUsageCertSign != 0:
		return errors.New("the request asks for the right to sign certificates (keyUsage keyCertSign)")
	case a.KeyUsage&x509.KeyUsageCRLSign != 0:
		return errors.New("the request asks for the right to sign revocation lists (keyUsage cRLSign)")
	case len(a.UnknownUsages) > 0:
		return fmt.Errorf("the request asks for extended usage %s: only serverAuth and clientAuth are granted", a.UnknownUsages[0])
	case len(a.OtherNames) > 0:
		return fmt.Errorf("the request asks for a subject alternative name of kind %s: only DNS names, IP addresses and URIs are granted", a.OtherNames[0])
	case r.SignatureAlgorithm == x509.SHA1WithRSA || r.SignatureAlgorithm == x509.ECDSAWithSHA1 || r.SignatureAlgorithm == x509.MD5WithRSA:
		return fmt.Errorf("the request is signed with %s, which is broken: make it anew with SHA-256", r.SignatureAlgorithm)
	}
	for _, e := range a.OtherExtensions {
		if e.Critical {
			return fmt.Errorf("the request asks for the critical extension %s, which is not known", e.Id)
		}
	}
	if err := checkSubject(a.Subject); err != nil {
		return err
	}
	return CheckPublicKey(r.PublicKey)
}

func checkSubject(subject pkix.Name) error {
	commonNames := 0
	for _, n := range subject.Names {
		known := false
		for _, o := range subjectAttributes {
			known = known || n.Type.Equal(o)
		}
		text, isText := n.Value.(string)
		switch {
		case !known:
			return fmt.Errorf("the request's subject has the attribute %s, which is not known", n.Type)
		case !isText || strings.ContainsFunc(text, isControl):
			return fmt.Errorf("the request's subject has an attribute %s that is no plain text", n.Type)
		case n.Type.Equal(oidCommonName):
			commonNames++
		}
	}
	if commonNames > 1 {
		return errors.New("the request's subject has two common names")
	}
	return nil
}

func isControl(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\uFFFD' }
