package renew

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
)

// A name is read and written without touching what is kept: its types of text, and
// attributes that stand together in one relative name. (Package asn1 tells a SET by
// the name of its type.)
type (
	attribute struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	relativeNameSET []attribute
	name            []relativeNameSET
)

var (
	commonName   = asn1.ObjectIdentifier{2, 5, 4, 3}
	organization = asn1.ObjectIdentifier{2, 5, 4, 10}
)

// keepSubject takes over all but name and groups of the old subject, in its order and
// byte for byte: the wanted groups stand where the first old one did, and so does the
// wanted name.
func (i *Item) keepSubject(old *x509.Certificate) error {
	var was name
	if rest, err := asn1.Unmarshal(old.RawSubject, &was); err != nil || len(rest) > 0 {
		return fmt.Errorf("%s: the old subject does not parse: %v", i.ID(), err)
	}
	want := map[string]name{}
	for _, part := range []struct {
		of      asn1.ObjectIdentifier
		subject pkix.Name
	}{{organization, pkix.Name{Organization: i.Subject.Organization}}, {commonName, pkix.Name{CommonName: i.Subject.CommonName}}} {
		der, err := asn1.Marshal(part.subject.ToRDNSequence())
		if err != nil {
			return fmt.Errorf("%s: %w", i.ID(), err)
		}
		var made name
		if _, err := asn1.Unmarshal(der, &made); err != nil {
			return fmt.Errorf("%s: %w", i.ID(), err)
		}
		want[part.of.String()] = made
	}
	der, err := asn1.Marshal(renamed(was, want))
	if err != nil {
		return fmt.Errorf("%s: %w", i.ID(), err)
	}
	var parsed pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &parsed); err != nil {
		return fmt.Errorf("%s: %w", i.ID(), err)
	}
	i.Subject = pkix.Name{}
	i.Subject.FillFromRDNSequence(&parsed)
	i.rawSubject = der
	return nil
}

// renamed puts what is wanted of an attribute where it stood first, or at the end.
func renamed(was name, want map[string]name) name {
	var is name
	put := func(of asn1.ObjectIdentifier) {
		is = append(is, want[of.String()]...)
		want[of.String()] = nil
	}
	for _, relative := range was {
		var kept relativeNameSET
		var gone []asn1.ObjectIdentifier
		for _, a := range relative {
			if a.Type.Equal(commonName) || a.Type.Equal(organization) {
				gone = append(gone, a.Type)
				continue
			}
			kept = append(kept, a)
		}
		if len(gone) == 0 {
			is = append(is, relative)
			continue
		}
		if len(kept) > 0 {
			is = append(is, inOrder(kept))
		}
		for _, of := range gone {
			put(of)
		}
	}
	put(organization)
	put(commonName)
	return is
}

// inOrder is the order that DER wants of a SET.
func inOrder(set relativeNameSET) relativeNameSET {
	slices.SortStableFunc(set, func(a, b attribute) int {
		x, _ := asn1.Marshal(a) // it was parsed from such bytes
		y, _ := asn1.Marshal(b)
		return bytes.Compare(x, y)
	})
	return set
}
