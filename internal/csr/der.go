package csr

import (
	"crypto/x509"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// raw is what a request holds, as it is written: crypto/x509 keeps the last of
// several common names, and drops attributes and kinds of names that it does
// not know.
type raw struct {
	subject    [][]attribute // RDNs
	key        []byte        // SubjectPublicKeyInfo
	attributes []string      // OIDs other than extensionRequest
	extensions []extension
	names      []generalName
	hasNames   bool // there is a subjectAltName
}

type attribute struct {
	oid   string
	tag   asn1.Tag
	value string
}

// isText tells whether the value is a string that everybody reads alike.
func (a attribute) isText() bool {
	switch a.tag {
	case asn1.UTF8String:
		return utf8.ValidString(a.value) && !strings.ContainsFunc(a.value, func(r rune) bool { return !unicode.IsPrint(r) })
	case asn1.PrintableString:
		return !strings.ContainsFunc(a.value, func(r rune) bool { return !isPrintable(r) })
	}
	return false
}

// isPrintable tells whether a PrintableString may hold a character (X.680 table 10).
func isPrintable(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" '()+,-./:=?", r)
}

type extension struct {
	oid   string
	value []byte
}

// generalName is a GeneralName (RFC 5280 section 4.2.1.6): kind is its tag.
type generalName struct {
	kind  int
	value string
}

const (
	emailName = 1
	dnsName   = 2
	uriName   = 6
	ipName    = 7
)

// nameKinds are the kinds of GeneralName by tag, and whether a kind is constructed.
var nameKinds = [...]struct {
	name        string
	constructed bool
}{{"otherName", true}, {"e-mail address", false}, {"DNS name", false}, {"x400Address", true}, {"directoryName", true},
	{"ediPartyName", true}, {"URI", false}, {"IP address", false}, {"registeredID", false}}

const (
	oidCommonName         = "2.5.4.3"
	oidOrganization       = "2.5.4.10"
	oidOrganizationalUnit = "2.5.4.11"
	oidExtensionRequest   = "1.2.840.113549.1.9.14"
	oidSubjectAltName     = "2.5.29.17"
)

// walk reads a CertificationRequest (RFC 2986 section 4). It takes DER alone,
// and nothing may be left over anywhere.
func walk(der []byte) (*raw, *fault) {
	malformed := faulty(derMalformed, "the request is not a PKCS#10 request in DER")
	s := cryptobyte.String(der)
	var outer, info, algorithm, name, attributes cryptobyte.String
	var signature []byte
	var version int
	r := &raw{}
	switch {
	case !s.ReadASN1(&outer, asn1.SEQUENCE):
		return nil, malformed
	case !s.Empty():
		return nil, faulty(derTrailing, "there is data after the request in the PEM block")
	case !outer.ReadASN1(&info, asn1.SEQUENCE) || !outer.ReadASN1(&algorithm, asn1.SEQUENCE) || !outer.ReadASN1BitStringAsBytes(&signature):
		return nil, malformed
	case !isAlgorithm(algorithm):
		// encoding/asn1 would ignore what follows the parameters.
		return nil, faulty(derMalformed, "the algorithm of the request's signature is malformed")
	case !outer.Empty():
		return nil, faulty(derTrailing, "there is data after the signature of the request")
	case !info.ReadASN1Integer(&version) || version != 0 || !info.ReadASN1(&name, asn1.SEQUENCE):
		return nil, malformed
	case !info.ReadASN1Element((*cryptobyte.String)(&r.key), asn1.SEQUENCE):
		return nil, malformed
	case !info.ReadASN1(&attributes, asn1.Tag(0).ContextSpecific().Constructed()):
		return nil, malformed
	case !info.Empty():
		return nil, faulty(derTrailing, "there is data after the attributes of the request")
	}
	if !r.readSubject(name) {
		return nil, faulty(derMalformed, "the subject of the request is malformed")
	}
	if !r.readAttributes(attributes) {
		return nil, faulty(derMalformed, "the attributes or extensions of the request are malformed")
	}
	return r, nil
}

// isAlgorithm tells whether the content of an AlgorithmIdentifier is an object
// identifier and the parameters that belong to it: none (RFC 5758 section 3.2,
// RFC 8410 section 3), NULL (RFC 4055 section 5), or those of RSASSA-PSS, whose
// content crypto/x509 judges, and which for SHA-2 have one size in DER. Whatever
// else could stand there nobody would look at.
func isAlgorithm(s cryptobyte.String) bool {
	const pss, sizeOfPSS = "1.2.840.113549.1.1.10", 54
	var oid string
	var parameters cryptobyte.String
	var tag asn1.Tag
	if !readOID(&s, &oid) {
		return false
	}
	if s.Empty() {
		return oid != pss
	}
	if !s.ReadAnyASN1Element(&parameters, &tag) || !s.Empty() {
		return false
	}
	switch {
	case oid == pss:
		return tag == asn1.SEQUENCE && len(parameters) == sizeOfPSS
	case strings.HasPrefix(oid, "1.2.840.113549.1.1."):
		return tag == asn1.NULL && len(parameters) == 2
	}
	return false
}

func (r *raw) readSubject(s cryptobyte.String) bool {
	for !s.Empty() {
		var set cryptobyte.String
		var rdn []attribute
		if !s.ReadASN1(&set, asn1.SET) || set.Empty() {
			return false
		}
		for !set.Empty() {
			var pair, value cryptobyte.String
			var a attribute
			if !set.ReadASN1(&pair, asn1.SEQUENCE) || !readOID(&pair, &a.oid) || !pair.ReadAnyASN1(&value, &a.tag) || !pair.Empty() {
				return false
			}
			a.value = string(value)
			rdn = append(rdn, a)
		}
		r.subject = append(r.subject, rdn)
	}
	return true
}

// readAttributes takes the extensions out of the one attribute that may hold
// them; two such attributes would let readers differ.
func (r *raw) readAttributes(s cryptobyte.String) bool {
	seen := map[string]bool{}
	for !s.Empty() {
		var pair, values, list cryptobyte.String
		var oid string
		if !s.ReadASN1(&pair, asn1.SEQUENCE) || !readOID(&pair, &oid) || !pair.ReadASN1(&values, asn1.SET) || !pair.Empty() || seen[oid] {
			return false
		}
		seen[oid] = true
		if oid != oidExtensionRequest {
			r.attributes = append(r.attributes, oid)
			continue
		}
		if !values.ReadASN1(&list, asn1.SEQUENCE) || !values.Empty() || list.Empty() || !r.readExtensions(list) {
			return false
		}
	}
	return true
}

func (r *raw) readExtensions(s cryptobyte.String) bool {
	seen := map[string]bool{}
	for !s.Empty() {
		var one, value cryptobyte.String
		var e extension
		if !s.ReadASN1(&one, asn1.SEQUENCE) || !readOID(&one, &e.oid) || seen[e.oid] {
			return false
		}
		seen[e.oid] = true
		if one.PeekASN1Tag(asn1.BOOLEAN) {
			// FALSE is the default, which DER leaves out.
			var critical bool
			if !one.ReadASN1Boolean(&critical) || !critical {
				return false
			}
		}
		if !one.ReadASN1(&value, asn1.OCTET_STRING) || !one.Empty() {
			return false
		}
		e.value = value
		r.extensions = append(r.extensions, e)
		if e.oid == oidSubjectAltName && !r.readNames(value) {
			return false
		}
	}
	return true
}

func (r *raw) readNames(s cryptobyte.String) bool {
	var list cryptobyte.String
	if !s.ReadASN1(&list, asn1.SEQUENCE) || !s.Empty() || list.Empty() {
		return false
	}
	r.hasNames = true
	for !list.Empty() {
		var value cryptobyte.String
		var tag asn1.Tag
		if !list.ReadAnyASN1(&value, &tag) {
			return false
		}
		kind := int(tag & 0x1f)
		if kind >= len(nameKinds) {
			return false
		}
		want := asn1.Tag(kind).ContextSpecific()
		if nameKinds[kind].constructed {
			want = want.Constructed()
		}
		if tag != want || kind == ipName && len(value) != 4 && len(value) != 16 {
			return false
		}
		r.names = append(r.names, generalName{kind, string(value)})
	}
	return true
}

// readOID reads an object identifier of any size as dotted text.
func readOID(s *cryptobyte.String, text *string) bool {
	var der cryptobyte.String
	var oid x509.OID
	if !s.ReadASN1(&der, asn1.OBJECT_IDENTIFIER) || oid.UnmarshalBinary(der) != nil {
		return false
	}
	*text = oid.String()
	return true
}
