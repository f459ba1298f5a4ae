package workload

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"unicode/utf8"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
)

var (
	oidSAN              = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidNameConstraints  = asn1.ObjectIdentifier{2, 5, 29, 30}
)

// Tags of GeneralName (RFC 5280 section 4.2.1.6).
const (
	tagOther = 0
	tagEmail = 1
	tagDNS   = 2
	tagURI   = 6
	tagIP    = 7
)

var otherKinds = map[int]string{3: "x400Address", 4: "directoryName", 5: "ediPartyName", 8: "registeredID"}

// names are the subject alternative names of a wish. URIs are as they are written:
// what net/url makes of them is not always the same text.
type names struct {
	dns, emails, uris []string
	addresses         []net.IP
	others            []cmapi.OtherName
}

func (n *names) empty() bool {
	return len(n.dns)+len(n.emails)+len(n.uris)+len(n.addresses)+len(n.others) == 0
}

// otherName is OtherName of RFC 5280, whose value is [0] EXPLICIT.
type otherName struct {
	ID    asn1.ObjectIdentifier
	Value asn1.RawValue
}

func namesOf(spec *cmapi.CertificateSpec) (*names, error) {
	n := &names{dns: spec.DNSNames, emails: spec.EmailAddresses, uris: spec.URIs}
	for i, text := range spec.IPAddresses {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return nil, fmt.Errorf("spec.ipAddresses[%d]: %q is no IP address", i, text)
		}
		n.addresses = append(n.addresses, a.AsSlice())
	}
	for i, o := range spec.OtherNames {
		oid, err := parseOID(o.OID)
		if err != nil {
			return nil, fmt.Errorf("spec.otherNames[%d].oid: %w", i, err)
		}
		if o.UTF8Value == "" || !utf8.ValidString(o.UTF8Value) {
			return nil, fmt.Errorf("spec.otherNames[%d].utf8Value: must be UTF-8 text, and not empty", i)
		}
		n.others = append(n.others, cmapi.OtherName{OID: oid.String(), UTF8Value: o.UTF8Value})
	}
	for _, f := range []struct {
		field string
		list  []string
	}{{"dnsNames", n.dns}, {"emailAddresses", n.emails}, {"uris", n.uris}} {
		for i, text := range f.list {
			if err := checkNameText(text); err != nil {
				return nil, fmt.Errorf("spec.%s[%d]: %w", f.field, i, err)
			}
		}
	}
	return n, nil
}

// checkNameText refuses what no name holds, and what makes one name look like
// another: nothing at all, spaces, control characters, all beyond ASCII (an IA5String).
func checkNameText(text string) error {
	if text == "" {
		return errors.New("is empty")
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return fmt.Errorf("%q has a space, or what is not printable ASCII: internationalised names are written in punycode", text)
	}
	return nil
}

// extension encodes the names, in upstream's order. It is critical where there is no
// subject (RFC 5280 section 4.2.1.6).
func (n *names) extension(critical bool) (pkix.Extension, error) {
	var list []asn1.RawValue
	text := func(tag int, values []string) {
		for _, v := range values {
			list = append(list, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(v)})
		}
	}
	text(tagDNS, n.dns)
	text(tagEmail, n.emails)
	for _, ip := range n.addresses {
		if four := ip.To4(); four != nil {
			ip = four
		}
		list = append(list, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tagIP, Bytes: ip})
	}
	text(tagURI, n.uris)
	for _, o := range n.others {
		der, err := encodeOtherName(o)
		if err != nil {
			return pkix.Extension{}, fmt.Errorf("spec.otherNames: %w", err)
		}
		list = append(list, asn1.RawValue{FullBytes: der})
	}
	der, err := asn1.Marshal(list)
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("encoding the alternative names: %w", err)
	}
	return pkix.Extension{Id: oidSAN, Critical: critical, Value: der}, nil
}

func encodeOtherName(o cmapi.OtherName) ([]byte, error) {
	oid, err := parseOID(o.OID)
	if err != nil {
		return nil, err
	}
	value, err := asn1.MarshalWithParams(o.UTF8Value, "utf8")
	if err != nil {
		return nil, err
	}
	explicit := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: value}
	return asn1.MarshalWithParams(otherName{ID: oid, Value: explicit}, "tag:0")
}

// parseNames reads an extension of alternative names, and refuses kinds of names that
// a Certificate cannot wish: who approves by what they see would not see those.
func parseNames(der []byte) (*names, error) {
	malformed := errors.New("the alternative names do not parse")
	var list asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &list); err != nil || len(rest) > 0 || !list.IsCompound || list.Tag != asn1.TagSequence || list.Class != asn1.ClassUniversal {
		return nil, malformed
	}
	n := &names{}
	for rest := list.Bytes; len(rest) > 0; {
		var v asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &v); err != nil || v.Class != asn1.ClassContextSpecific {
			return nil, malformed
		}
		if err := n.add(v); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *names) add(v asn1.RawValue) error {
	text := string(v.Bytes)
	switch v.Tag {
	case tagDNS, tagEmail, tagURI:
		if v.IsCompound {
			return errors.New("the alternative names do not parse")
		}
		if err := checkNameText(text); err != nil {
			return fmt.Errorf("an alternative name %w", err)
		}
		switch v.Tag {
		case tagDNS:
			n.dns = append(n.dns, text)
		case tagEmail:
			n.emails = append(n.emails, text)
		default:
			n.uris = append(n.uris, text)
		}
	case tagIP:
		if v.IsCompound || len(v.Bytes) != net.IPv4len && len(v.Bytes) != net.IPv6len {
			return fmt.Errorf("an alternative name is an IP address of %d bytes", len(v.Bytes))
		}
		n.addresses = append(n.addresses, net.IP(v.Bytes))
	case tagOther:
		o, err := parseOtherName(v.FullBytes)
		if err != nil {
			return err
		}
		n.others = append(n.others, o)
	default:
		kind, ok := otherKinds[v.Tag]
		if !ok {
			kind = fmt.Sprintf("[%d]", v.Tag)
		}
		return fmt.Errorf("an alternative name is of kind %s, which a Certificate cannot ask for and who approves would not see", kind)
	}
	return nil
}

func parseOtherName(der []byte) (cmapi.OtherName, error) {
	var o otherName
	var value asn1.RawValue
	_, err := asn1.UnmarshalWithParams(der, &o, "tag:0")
	if err != nil || o.Value.Class != asn1.ClassContextSpecific || o.Value.Tag != 0 || !o.Value.IsCompound {
		return cmapi.OtherName{}, errors.New("an alternative name of kind otherName does not parse")
	}
	rest, err := asn1.Unmarshal(o.Value.Bytes, &value)
	if err != nil || len(rest) > 0 || value.Class != asn1.ClassUniversal || value.Tag != asn1.TagUTF8String || !utf8.Valid(value.Bytes) || len(value.Bytes) == 0 {
		return cmapi.OtherName{}, fmt.Errorf("the otherName %s is no UTF-8 text, which alone a Certificate can ask for", o.ID)
	}
	name := cmapi.OtherName{OID: o.ID.String(), UTF8Value: string(value.Bytes)}
	// encoding/asn1 passes over what follows the value within the sequence.
	if again, err := encodeOtherName(name); err != nil || string(again) != string(der) {
		return cmapi.OtherName{}, fmt.Errorf("the otherName %s holds more than its text, or is not in DER", o.ID)
	}
	return name, nil
}

func parseURIs(texts []string) ([]*url.URL, error) {
	var uris []*url.URL
	for i, text := range texts {
		u, err := url.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %q is no URI", i, text)
		}
		uris = append(uris, u)
	}
	return uris, nil
}
