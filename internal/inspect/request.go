package inspect

import (
	"crypto/x509"

	"github.com/kubepki/kubepki/internal/issue"
)

// Request is what a certificate request asks for.
type Request struct {
	Subject string `json:"subject"` // RFC 2253
	Names
	// OtherNames are the kinds of alternative names that are not in Names.
	OtherNames      []string `json:"otherNames,omitempty"`
	KeyUsages       []string `json:"keyUsages,omitempty"`
	Usages          []string `json:"usages,omitempty"`
	IsAuthority     bool     `json:"isAuthority,omitempty"` // asks for basicConstraints CA:TRUE
	OtherExtensions []string `json:"otherExtensions,omitempty"`
	KeyAlgorithm    string   `json:"keyAlgorithm"`
	PublicKeySHA256 string   `json:"publicKeySHA256"`
	// SignatureValid tells that the request is signed by its own key.
	SignatureValid bool `json:"signatureValid"`
	// Refused says why kubepki issue would not sign it, empty when it would.
	Refused string `json:"refused,omitempty"`
}

func newRequest(r *x509.CertificateRequest) (*Request, error) {
	asked, err := issue.ReadRequest(r)
	if err != nil {
		return nil, err
	}
	d := &Request{
		Subject: r.Subject.String(),
		Names:   Names{DNSNames: asked.DNSNames, URIs: uris(asked.URIs), EmailAddresses: r.EmailAddresses},
		Usages:  requestedUsages(asked), KeyUsages: keyUsages(asked.KeyUsage), IsAuthority: asked.Authority,
		KeyAlgorithm: keyAlgorithm(r.PublicKey), PublicKeySHA256: hash(r.RawSubjectPublicKeyInfo),
		SignatureValid: r.CheckSignature() == nil,
	}
	for _, a := range asked.Addresses {
		d.IPAddresses = append(d.IPAddresses, a.String())
	}
	for _, kind := range asked.OtherNames {
		if kind != "e-mail address" {
			d.OtherNames = append(d.OtherNames, kind)
		}
	}
	for _, e := range asked.OtherExtensions {
		d.OtherExtensions = append(d.OtherExtensions, e.Id.String())
	}
	if err := asked.Check(r); err != nil {
		d.Refused = err.Error()
	}
	return d, nil
}

func requestedUsages(asked *issue.Asked) []string {
	var all []string
	for _, u := range asked.Usages {
		all = append(all, issue.UsageName(u))
	}
	for _, oid := range asked.UnknownUsages {
		all = append(all, oid.String())
	}
	return all
}
