package csr

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
	"unicode"

	"github.com/kubepki/kubepki/internal/issue"
)

// signable is a request that may be signed: what it asks for, but its life.
type signable struct {
	request  *x509.CertificateRequest
	template issue.Template
}

func readSignable(r Request) (*signable, error) {
	c, err := issue.ParseRequest(r.PEM)
	if err != nil {
		return nil, unsignable("%s", err)
	}
	if err := signerAccepts(r.SignerName, c, r.Usages); err != nil {
		return nil, err
	}
	keyUsage, extended, err := signedUsages(r.Usages)
	if err != nil {
		return nil, err
	}
	if err := issue.CheckPublicKey(c.PublicKey); err != nil {
		return nil, unsignable("%s", err)
	}
	name, raw, err := signedSubject(c)
	if err != nil {
		return nil, err
	}
	t := issue.Template{
		Subject: name, RawSubject: raw, KeyUsage: &keyUsage, Usages: extended,
		DNSNames: c.DNSNames, Addresses: c.IPAddresses, URIs: c.URIs, Emails: c.EmailAddresses,
	}
	if name.CommonName == "" && len(t.DNSNames)+len(t.Addresses)+len(t.URIs)+len(t.Emails) == 0 {
		return nil, unsignable("the request has neither a common name nor an alternative name")
	}
	return &signable{c, t}, nil
}

// nameSET is an RDN as it is encoded (RFC 5280 section
// 4.1.2.4); the end of its name makes encoding/asn1 read a SET.
type nameSET []struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// signedSubject returns the subject that the certificate shall have, and its bytes
// where they can be taken over as they are: when they hold nothing but
// attributes that pkix.Name knows, encoded as RFC 5280 section 4.1.2.4 wants
// it. Otherwise raw is nil, and the subject is written anew from the attributes
// known, as kube-controller-manager always does: what it would drop (such as
// the user's UID, 1.3.6.1.4.1.57683.2) no approver has seen.
func signedSubject(c *x509.CertificateRequest) (name pkix.Name, raw []byte, err error) {
	var sequence []nameSET
	if rest, err := asn1.Unmarshal(c.RawSubject, &sequence); err != nil || len(rest) > 0 {
		return name, nil, unsignable("the subject of the request does not parse")
	}
	raw = c.RawSubject
	commonNames := 0
	for _, rdn := range sequence {
		if len(rdn) == 0 {
			raw = nil
		}
		for _, a := range rdn {
			if !isKnownAttribute(a.Type) || a.Value.Class != asn1.ClassUniversal ||
				a.Value.Tag != asn1.TagPrintableString && a.Value.Tag != asn1.TagUTF8String {
				raw = nil
			}
			if a.Type.Equal(commonNameType) {
				commonNames++
			}
		}
	}
	if commonNames > 1 {
		return name, nil, unsignable("the subject of the request has %d common names", commonNames)
	}
	for _, n := range c.Subject.Names {
		text, isText := n.Value.(string)
		if isKnownAttribute(n.Type) && (!isText || strings.ContainsFunc(text, unicode.IsControl)) {
			return name, nil, unsignable("the subject of the request has an attribute %s that is no plain text", n.Type)
		}
	}
	return c.Subject, raw, nil
}

var (
	commonNameType = asn1.ObjectIdentifier{2, 5, 4, 3}
	// knownAttributes are those that crypto/x509/pkix.Name has fields for: the
	// last numbers below 2.5.4.
	knownAttributes = []int{3, 5, 6, 7, 8, 9, 10, 11, 17}
)

func isKnownAttribute(o asn1.ObjectIdentifier) bool {
	return len(o) == 4 && o[:3].Equal(commonNameType[:3]) && slices.Contains(knownAttributes, o[3])
}
