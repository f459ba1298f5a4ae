package workload

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// MaxRequest is how many bytes of PEM [Read] takes: room for some 3,000 names, above
// cert-manager's 36,500, whose first bound (CVE-2024-12401) was too small for its users.
const MaxRequest = 128 << 10

// Asked is what a CertificateRequest asks for, once it was found fit to be decided on
// and signed.
type Asked struct {
	Wish
	Public crypto.PublicKey
	// PathLength bounds the authorities below one that is asked for; nil: unbounded.
	PathLength *int

	sans, constraints *pkix.Extension
}

// Read reads a CertificateRequest of anybody. It refuses:
//   - more than [MaxRequest] bytes; anything but one PEM block of a request;
//   - a key that is too weak or too large to be certified, or a request not signed by it;
//     signatures with MD5 and SHA-1;
//   - a request that contradicts the fields of its object, by which others approved it:
//     basic constraints unlike isCA, usages unlike usages (where the request has any);
//   - what those fields cannot say, so that nobody could have seen it: extended usages
//     without a name, alternative names of other kinds, name constraints of a leaf or
//     with a minimum and maximum;
//   - one whose spec was changed after it was made, for that is after others saw it:
//     upstream's admission forbids it, and without that only metadata.generation tells;
//   - names that are empty or have spaces or control characters; no name at all;
//   - critical extensions that are not known. Others are left out of the certificate.
//
// An error is final: the same object gives it again.
func Read(cr *cmapi.CertificateRequest) (*Asked, error) {
	if cr.Generation > 1 {
		return nil, fmt.Errorf("spec: was changed after the request was made (metadata.generation is %d), so that nobody knows which was approved: make a new request", cr.Generation)
	}
	r, err := parseRequest(cr.Spec.Request)
	if err != nil {
		return nil, fmt.Errorf("spec.request: %w", err)
	}
	a, err := askedBy(cr, r)
	if err != nil {
		return nil, err
	}
	if err := a.readExtensions(r); err != nil {
		return nil, fmt.Errorf("spec.request: %w", err)
	}
	return a, nil
}

// Recall reads the wish and key of a request that was answered before, to compare it
// with its Certificate: without a judgement and without verifying its signature,
// which is most of the time that [Read] takes. What it returns is not to be signed.
func Recall(cr *cmapi.CertificateRequest) (*Wish, crypto.PublicKey, error) {
	r, err := decodeRequest(cr.Spec.Request)
	if err != nil {
		return nil, nil, fmt.Errorf("spec.request: %w", err)
	}
	a, err := askedBy(cr, r)
	if err != nil {
		return nil, nil, err
	}
	n := &names{dns: r.DNSNames, emails: r.EmailAddresses, addresses: r.IPAddresses}
	for _, u := range r.URIs {
		n.uris = append(n.uris, u.String())
	}
	for _, e := range r.Extensions {
		switch {
		case e.Id.Equal(oidSAN):
			if all, err := parseNames(e.Value); err == nil {
				n = all
			}
		case e.Id.Equal(oidNameConstraints):
			if bounds, err := parseConstraints(e); err == nil {
				a.NameConstraints = bounds
			}
		}
	}
	if err := a.setNames(n); err != nil {
		return nil, nil, fmt.Errorf("spec.request: the alternative name of a URI %w", err)
	}
	return &a.Wish, r.PublicKey, nil
}

// askedBy takes what the fields of the object say.
func askedBy(cr *cmapi.CertificateRequest, r *x509.CertificateRequest) (*Asked, error) {
	a := &Asked{Public: r.PublicKey}
	a.RawSubject, a.IsCA = r.RawSubject, cr.Spec.IsCA
	var err error
	if a.KeyUsage, a.ExtKeyUsage, err = Usages(cr.Spec.Usages, cr.Spec.IsCA); err != nil {
		return nil, err
	}
	a.Duration = DefaultDuration
	if cr.Spec.Duration != nil {
		a.Duration, a.durationNamed = cr.Spec.Duration.Duration, true
	}
	return a, a.setIssuer(cr.Spec.IssuerRef)
}

// parseRequest looks at the key before it verifies with it: with a key of a million
// bits that would take seconds.
func parseRequest(data []byte) (*x509.CertificateRequest, error) {
	r, err := decodeRequest(data)
	if err != nil {
		return nil, err
	}
	if err := issue.CheckPublicKey(r.PublicKey); err != nil {
		return nil, err
	}
	switch r.SignatureAlgorithm {
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.MD5WithRSA, x509.MD2WithRSA, x509.DSAWithSHA1:
		return nil, fmt.Errorf("signed with %s, which is broken: make it anew with SHA-256", r.SignatureAlgorithm)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("not signed by its own key: %w", err)
	}
	return r, nil
}

func decodeRequest(data []byte) (*x509.CertificateRequest, error) {
	if len(data) > MaxRequest {
		return nil, fmt.Errorf("%d bytes, more than %d", len(data), MaxRequest)
	}
	blocks, err := trust.Blocks(data)
	if err != nil {
		return nil, err
	}
	if len(blocks) != 1 || blocks[0].Type != trust.RequestType && blocks[0].Type != "NEW CERTIFICATE REQUEST" {
		return nil, errors.New("not exactly one PEM block of type CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(blocks[0].DER)
}

func (a *Asked) readExtensions(r *x509.CertificateRequest) error {
	found := requestExtensions{names: &names{}}
	for _, e := range r.Extensions {
		if err := found.read(e); err != nil {
			return err
		}
	}
	if err := a.setNames(found.names); err != nil {
		return fmt.Errorf("the alternative name of a URI %w", err)
	}
	rdns, err := parseSubject(a.RawSubject)
	if err != nil {
		return err
	}
	if found.names.empty() && len(rdns) == 0 {
		return errors.New("names nobody: neither a subject nor an alternative name")
	}
	a.sans, a.constraints, a.NameConstraints = found.sans, found.constraints, found.bounds
	if found.hasUsages && (found.usage != a.KeyUsage || !slices.Equal(found.extended, a.ExtKeyUsage)) {
		return fmt.Errorf("asks for the usages %s, and spec.usages (with isCA: %t) for %s",
			usageNames(found.usage, found.extended), a.IsCA, usageNames(a.KeyUsage, a.ExtKeyUsage))
	}
	if found.hasBasic && found.isCA != a.IsCA {
		return fmt.Errorf("asks with basic constraints for CA:%t, and spec.isCA is %t", found.isCA, a.IsCA)
	}
	if a.IsCA {
		a.PathLength = found.pathLength
	}
	if a.NameConstraints != nil && !a.IsCA {
		return errors.New("asks for name constraints, which only an authority has, and spec.isCA is false")
	}
	return nil
}

// requestExtensions is what the extensions of a request say.
type requestExtensions struct {
	names               *names
	sans, constraints   *pkix.Extension
	bounds              *NameConstraints
	hasUsages, hasBasic bool
	usage               x509.KeyUsage
	extended            []x509.ExtKeyUsage
	isCA                bool
	pathLength          *int
}

func (x *requestExtensions) read(e pkix.Extension) error {
	var err error
	switch {
	case e.Id.Equal(oidSAN):
		x.sans = &e
		x.names, err = parseNames(e.Value)
	case e.Id.Equal(oidKeyUsage):
		x.hasUsages = true
		x.usage, err = parseKeyUsage(e.Value)
	case e.Id.Equal(oidExtKeyUsage):
		x.hasUsages = true
		x.extended, err = parseExtKeyUsage(e.Value)
	case e.Id.Equal(oidBasicConstraints):
		x.hasBasic = true
		x.isCA, x.pathLength, err = parseBasicConstraints(e.Value)
	case e.Id.Equal(oidNameConstraints):
		x.constraints = &e
		x.bounds, err = parseConstraints(e)
	case e.Critical:
		err = fmt.Errorf("asks for the critical extension %s, which is not known", e.Id)
	}
	return err
}

func parseBasicConstraints(der []byte) (bool, *int, error) {
	var c struct {
		CA         bool `asn1:"optional"`
		PathLength int  `asn1:"optional,default:-1"`
	}
	rest, err := asn1.Unmarshal(der, &c)
	if err != nil || len(rest) > 0 || c.PathLength < -1 {
		return false, nil, errors.New("the basic constraints do not parse")
	}
	if c.PathLength < 0 {
		return c.CA, nil, nil
	}
	return c.CA, &c.PathLength, nil
}
