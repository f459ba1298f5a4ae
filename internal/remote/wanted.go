package remote

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/url"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/renew"
)

// wantedOf is a certificate for a public key as a node is asked to sign it.
func wantedOf(t issue.Template, public crypto.PublicKey) (WantedLeaf, error) {
	w := WantedLeaf{Subject: t.RawSubject, DNSNames: t.DNSNames, Emails: t.Emails, NotBefore: t.NotBefore, NotAfter: t.NotAfter}
	var err error
	if w.PublicKey, err = x509.MarshalPKIXPublicKey(public); err != nil {
		return w, err
	}
	if w.Subject == nil {
		if w.Subject, err = asn1.Marshal(t.Subject.ToRDNSequence()); err != nil {
			return w, err
		}
	}
	for _, a := range t.Addresses {
		w.Addresses = append(w.Addresses, a.String())
	}
	for _, u := range t.URIs {
		w.URIs = append(w.URIs, u.String())
	}
	for _, u := range t.Usages {
		w.Usages = append(w.Usages, int(u))
	}
	for _, e := range t.Extensions {
		w.Extensions = append(w.Extensions, WantedExtension{e.Id, e.Critical, e.Value})
	}
	return w, nil
}

// template is the certificate that is wanted, which is never an authority's.
func (w *WantedLeaf) template() (issue.Template, crypto.PublicKey, error) {
	t := issue.Template{RawSubject: w.Subject, DNSNames: w.DNSNames, Emails: w.Emails, NotBefore: w.NotBefore, NotAfter: w.NotAfter}
	public, err := x509.ParsePKIXPublicKey(w.PublicKey)
	if err == nil {
		err = issue.CheckPublicKey(public)
	}
	if err != nil {
		return t, nil, err
	}
	var subject pkix.RDNSequence
	if rest, err := asn1.Unmarshal(w.Subject, &subject); err != nil || len(rest) > 0 {
		return t, nil, errors.New("the subject does not parse")
	}
	t.Subject.FillFromRDNSequence(&subject)
	for _, a := range w.Addresses {
		ip := net.ParseIP(a)
		if ip == nil {
			return t, nil, fmt.Errorf("%q is no address", a)
		}
		t.Addresses = append(t.Addresses, ip)
	}
	for _, text := range w.URIs {
		u, err := url.Parse(text)
		if err != nil {
			return t, nil, fmt.Errorf("%q is no URI", text)
		}
		t.URIs = append(t.URIs, u)
	}
	for _, u := range w.Usages {
		usage := x509.ExtKeyUsage(u)
		if usage != x509.ExtKeyUsageServerAuth && usage != x509.ExtKeyUsageClientAuth {
			return t, nil, fmt.Errorf("%s is granted to nobody", issue.UsageName(usage))
		}
		t.Usages = append(t.Usages, usage)
	}
	for _, e := range w.Extensions {
		extension := pkix.Extension{Id: e.ID, Critical: e.Critical, Value: e.Value}
		if !renew.Keeps(extension) {
			return t, nil, fmt.Errorf("the extension %s is granted to nobody", e.ID)
		}
		t.Extensions = append(t.Extensions, extension)
	}
	return t, public, nil
}
