package renew

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"net/url"
	"slices"

	"github.com/kubepki/kubepki/internal/trust"
)

var alternativeNames = asn1.ObjectIdentifier{2, 5, 29, 17}

// rebuilt are the extensions that every certificate gets anew.
var rebuilt = []asn1.ObjectIdentifier{{2, 5, 29, 14}, {2, 5, 29, 15}, alternativeNames, {2, 5, 29, 19}, {2, 5, 29, 35}, {2, 5, 29, 37}}

// ofAuthority are the extensions that tell of who signed, not of who was signed: they
// are kept as long as that is the same.
var ofAuthority = []asn1.ObjectIdentifier{
	{2, 5, 29, 18},                  // names of the issuer
	{2, 5, 29, 31},                  // where its revocation lists are
	{2, 5, 29, 46},                  // and their newest parts
	{1, 3, 6, 1, 5, 5, 7, 1, 1},     // where its certificate is, and who answers for it
	{1, 3, 6, 1, 5, 5, 7, 1, 11},    // where it keeps what
	{1, 3, 6, 1, 4, 1, 311, 21, 1},  // the version of its certificate
	{1, 3, 6, 1, 4, 1, 311, 21, 10}, // its policies for applications
}

// ofOne are the extensions that hold for one certificate alone, or for authorities.
var ofOne = []asn1.ObjectIdentifier{
	{2, 5, 29, 16},                     // the time in which its key may sign
	{2, 5, 29, 30},                     // what an authority may sign
	{2, 5, 29, 36},                     // and under which policies
	{2, 5, 29, 54},                     // and for how many below it
	{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, // in which logs it is
	{1, 3, 6, 1, 4, 1, 11129, 2, 4, 3}, // that it is for the logs alone
}

// keepExtensions takes over what the old certificate has beyond what every one gets
// anew: extensions that are not critical and tell of its owner, and names of kinds
// that Go does not read. What is left out is said.
func (p *planner) keepExtensions(i *Item) error {
	if i.Old == nil {
		return nil
	}
	same := i.signer.Certificate != nil && p.judgement.SignedBy(i.Old, i.signer.Certificate)
	for _, e := range i.Old.Extensions {
		is := func(list []asn1.ObjectIdentifier) bool { return slices.ContainsFunc(list, e.Id.Equal) }
		why := ""
		switch {
		case is(rebuilt):
			continue
		case is(ofOne):
			why = "it is of that certificate alone"
		case e.Critical:
			why = "it is critical, and no component of Kubernetes knows it"
		case is(ofAuthority) && !same:
			why = "it tells of another authority"
		}
		if why != "" {
			i.Warnings = append(i.Warnings, fmt.Sprintf("the extension %s of the old certificate is not kept: %s", e.Id, why))
			continue
		}
		i.extensions = append(i.extensions, e)
	}
	if err := i.keepOtherNames(); err != nil {
		return err
	}
	if !same && len(i.extensions) > 0 {
		i.Warnings = append(i.Warnings, "extensions and names of other kinds are kept of an old certificate that its authority has not signed: see that they are yours")
	}
	return nil
}

// Kinds of names (RFC 5280, GeneralName) that Go reads, by their tags.
var knownNames = []int{1, 2, 6, 7}

// keepOtherNames makes the extension of names itself where the old certificate has
// names of other kinds: user principal names, names of folders.
func (i *Item) keepOtherNames() error {
	at := slices.IndexFunc(i.Old.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(alternativeNames) })
	if at < 0 {
		return nil
	}
	var was []asn1.RawValue
	if rest, err := asn1.Unmarshal(i.Old.Extensions[at].Value, &was); err != nil || len(rest) > 0 {
		return nil //nolint:nilerr // then Go would not have parsed the certificate
	}
	others := slices.DeleteFunc(was, func(n asn1.RawValue) bool { return slices.Contains(knownNames, n.Tag) })
	if len(others) == 0 {
		return nil
	}
	all, err := generalNames(i.DNSNames, i.Emails, i.Addresses, i.URIs)
	if err != nil {
		return fmt.Errorf("%s: %w", i.ID(), err)
	}
	der, err := asn1.Marshal(append(all, others...))
	if err != nil {
		return fmt.Errorf("%s: %w", i.ID(), err)
	}
	empty := len(i.Subject.ToRDNSequence()) == 0 && len(i.rawSubject) <= 2
	i.extensions = append(i.extensions, pkix.Extension{Id: alternativeNames, Critical: empty, Value: der})
	return nil
}

// generalNames are names as crypto/x509 writes them.
func generalNames(dns, emails []string, addresses []net.IP, uris []*url.URL) ([]asn1.RawValue, error) {
	var all []asn1.RawValue
	add := func(tag int, value []byte) {
		all = append(all, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: value})
	}
	for _, text := range []struct {
		tag    int
		values []string
	}{{2, dns}, {1, emails}} {
		for _, v := range text.values {
			if !ascii(v) {
				return nil, fmt.Errorf("the name %q is not of ASCII letters", v)
			}
			add(text.tag, []byte(v))
		}
	}
	for _, a := range addresses {
		if v4 := a.To4(); v4 != nil {
			a = v4
		}
		add(7, a)
	}
	for _, u := range uris {
		if !ascii(u.String()) {
			return nil, fmt.Errorf("the name %q is not of ASCII letters", u)
		}
		add(6, []byte(u.String()))
	}
	return all, nil
}

func ascii(s string) bool {
	return !slices.ContainsFunc([]byte(s), func(b byte) bool { return b > 0x7f })
}

// trustNow gives a kubeconfig that names the credential's file the anchors of now,
// where it holds others.
func (p *planner) trustNow(i *Item, k *trust.Kubeconfig) error {
	if err := p.anchors(i, k); err != nil {
		return err
	}
	m := p.g.Material(k.CA)
	if m.OK() && sameCertificates(m.Certificates, i.Anchors) {
		i.Anchors = nil
		return nil
	}
	i.Conf = k.Place
	return nil
}
