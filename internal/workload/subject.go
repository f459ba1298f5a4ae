package workload

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"strconv"
	"strings"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/go-ldap/ldap/v3"
)

// maxCommonName is ub-common-name (RFC 5280 appendix A.1): cert-manager's admission
// refuses longer ones, and so does OpenSSL.
const maxCommonName = 64

var emptySubject = []byte{0x30, 0}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// subjectAttributes are the names of attributes in a literal subject, as cert-manager
// knows them; others are given by their numbers.
var subjectAttributes = map[string]asn1.ObjectIdentifier{
	"C": {2, 5, 4, 6}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11}, "CN": oidCommonName, "SERIALNUMBER": {2, 5, 4, 5},
	"L": {2, 5, 4, 7}, "ST": {2, 5, 4, 8}, "STREET": {2, 5, 4, 9},
	"DC": {0, 9, 2342, 19200300, 100, 1, 25}, "UID": {0, 9, 2342, 19200300, 100, 1, 1},
}

// subjectOf returns the subject of a spec in DER.
func subjectOf(spec *cmapi.CertificateSpec) ([]byte, error) {
	if spec.LiteralSubject == "" {
		return encodeSubject(plainSubject(spec).ToRDNSequence(), "spec.subject")
	}
	if spec.CommonName != "" || spec.Subject != nil && !emptyX509Subject(spec.Subject) {
		return nil, errors.New("spec.literalSubject: not together with spec.commonName and spec.subject: write all into the one")
	}
	rdns, err := parseLiteralSubject(spec.LiteralSubject)
	if err != nil {
		return nil, fmt.Errorf("spec.literalSubject: %w", err)
	}
	return encodeSubject(rdns, "spec.literalSubject")
}

func encodeSubject(rdns pkix.RDNSequence, field string) ([]byte, error) {
	for _, name := range commonNames(rdns) {
		if len(name) > maxCommonName {
			return nil, fmt.Errorf("%s: the common name is %d bytes long: %d are the most that X.509 has; use spec.dnsNames", field, len(name), maxCommonName)
		}
	}
	der, err := asn1.Marshal(rdns)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return der, nil
}

func plainSubject(spec *cmapi.CertificateSpec) pkix.Name {
	name := pkix.Name{CommonName: spec.CommonName}
	if s := spec.Subject; s != nil {
		name.Country, name.Organization, name.OrganizationalUnit = s.Countries, s.Organizations, s.OrganizationalUnits
		name.Locality, name.Province, name.StreetAddress = s.Localities, s.Provinces, s.StreetAddresses
		name.PostalCode, name.SerialNumber = s.PostalCodes, s.SerialNumber
	}
	return name
}

func emptyX509Subject(s *cmapi.X509Subject) bool {
	return len(s.Organizations)+len(s.Countries)+len(s.OrganizationalUnits)+len(s.Localities)+
		len(s.Provinces)+len(s.StreetAddresses)+len(s.PostalCodes)+len(s.SerialNumber) == 0
}

// parseLiteralSubject reads a distinguished name in the text form of RFC 4514, which
// begins with what comes last in DER.
func parseLiteralSubject(text string) (pkix.RDNSequence, error) {
	dn, err := ldap.ParseDN(text)
	if err != nil {
		return nil, fmt.Errorf("not a distinguished name of RFC 4514: %w", err)
	}
	rdns := make(pkix.RDNSequence, 0, len(dn.RDNs))
	for i := len(dn.RDNs) - 1; i >= 0; i-- {
		var set pkix.RelativeDistinguishedNameSET
		for _, a := range dn.RDNs[i].Attributes {
			oid, ok := subjectAttributes[strings.ToUpper(a.Type)]
			if !ok {
				if oid, err = parseOID(a.Type); err != nil {
					return nil, fmt.Errorf("attribute %q is not known: give its number, as in 2.5.4.4=…", a.Type)
				}
			}
			set = append(set, pkix.AttributeTypeAndValue{Type: oid, Value: a.Value})
		}
		rdns = append(rdns, set)
	}
	return rdns, nil
}

func parseOID(text string) (asn1.ObjectIdentifier, error) {
	var oid asn1.ObjectIdentifier
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, fmt.Errorf("%q is no object identifier", text)
		}
		oid = append(oid, n)
	}
	if _, err := asn1.Marshal(oid); err != nil {
		return nil, fmt.Errorf("%q is no object identifier", text)
	}
	return oid, nil
}

func parseSubject(der []byte) (pkix.RDNSequence, error) {
	var rdns pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &rdns); err != nil || len(rest) > 0 {
		return nil, errors.New("the subject does not parse")
	}
	return rdns, nil
}

// commonNames returns all common names, first in DER first: crypto/x509 shows the last
// alone, others the first.
func commonNames(rdns pkix.RDNSequence) []string {
	var names []string
	for _, set := range rdns {
		for _, a := range set {
			if text, ok := a.Value.(string); ok && a.Type.Equal(oidCommonName) {
				names = append(names, text)
			}
		}
	}
	return names
}
