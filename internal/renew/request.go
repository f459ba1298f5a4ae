package renew

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// anchorSet is what somebody verifies a certificate by.
type anchorSet struct {
	who     string // for people
	anchors []*x509.Certificate
}

// signElsewhere notes the authority that is to sign, whose key nobody needs here,
// and all that will verify what it signs.
func (p *planner) signElsewhere(i *Item, cred *trust.Credential, a trust.Authority) error {
	file := p.g.Material(a.Certificate).Certificates
	at := max(0, slices.IndexFunc(file, func(c *x509.Certificate) bool { return i.Old != nil && trust.SignedBy(i.Old, c) }))
	if end := file[at].NotAfter; p.At.After(end) {
		return &Refusal{i.ID(), fmt.Sprintf("its authority %s expired at %s: nothing that it signs is of use", a.Certificate, end.UTC().Format(time.RFC3339)),
			"have the authority's own certificate renewed first, with its key, by whoever holds that, and put it there"}
	}
	i.Issuer = a.Certificate
	i.signer = issue.Authority{Certificate: file[at], Chain: issue.ChainOf(file[at:])}
	i.anchors = []anchorSet{{a.Certificate.String(), file}}
	for _, l := range p.g.Links {
		for _, b := range []*trust.Bundle{bundleOfServer(l.Server, cred), bundleOfClient(l.Client, cred)} {
			known := func(s anchorSet) bool { return s.who == b.Anchors.String() }
			if b != nil && p.g.Material(b.Anchors).OK() && !slices.ContainsFunc(i.anchors[1:], known) {
				i.anchors = append(i.anchors, anchorSet{b.Anchors.String(), p.g.AnchorsOf(b)})
			}
		}
	}
	return nil
}

// bundleOfServer is what a caller judges a credential by; nil when it does not.
func bundleOfServer(h *trust.ServerHalf, cred *trust.Credential) *trust.Bundle {
	if h == nil || h.Credential != cred {
		return nil
	}
	return h.Bundle
}

func bundleOfClient(h *trust.ClientHalf, cred *trust.Credential) *trust.Bundle {
	if h == nil || h.Credential != cred {
		return nil
	}
	return h.Bundle
}

// Life is how long the certificate shall be valid.
func (i *Item) Life() time.Duration { return i.NotAfter.Sub(i.NotBefore) }

// Request makes a request for the certificate, with all of the item's subject and
// names, and with the usages, key usage and extended: kubeadm's requests have none,
// and an authority must be told what a certificate is for.
func (i *Item) Request(key crypto.Signer) (*x509.CertificateRequest, error) {
	return issue.Request(i.Template(), key)
}

// PlainRequest makes a request that holds subject and names alone: for
// certificates.k8s.io, where the object tells the usages.
func (i *Item) PlainRequest(key crypto.Signer) (*x509.CertificateRequest, error) {
	t := i.Template()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: t.Subject, RawSubject: t.RawSubject, DNSNames: t.DNSNames, IPAddresses: t.Addresses, URIs: t.URIs, EmailAddresses: t.Emails,
	}, key)
	if err != nil {
		return nil, fmt.Errorf("making request %q: %w", t.Subject, err)
	}
	return x509.ParseCertificateRequest(der)
}

// SameRequest tells whether two requests ask for the same, with the same key.
func SameRequest(a, b *x509.CertificateRequest) bool {
	// The information that is signed, without the signature, which may be another each time.
	return string(a.RawTBSCertificateRequest) == string(b.RawTBSCertificateRequest)
}

// Names are the alternative names that the certificate shall hold.
func (i *Item) Names() []string { return append([]string{}, i.allNames()...) }

// KeyUsages are the names of the key usages that fit a key (RFC 5280 section 4.2.1.3).
func (i *Item) KeyUsages(public crypto.PublicKey) []string {
	if _, ok := public.(*rsa.PublicKey); ok {
		return []string{"digitalSignature", "keyEncipherment"}
	}
	return []string{"digitalSignature"}
}
