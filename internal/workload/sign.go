package workload

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// Issued is a certificate as the status of a CertificateRequest has it.
type Issued struct {
	Chain, CA []byte // PEM: what becomes tls.crt and ca.crt
	Leaf      *x509.Certificate
}

// Sign answers a request in the place of a CA issuer. The certificate ends with the
// first that ends of the authority's chain, if not before, and begins with the last
// that begins. What was signed is verified before it is given away, so that the name
// constraints and path lengths of the authority hold. The keys of the chain are not
// certified: who serves with the key of an authority has it where it does not belong. An
// error about the authority is that of [Authority], and another one is about what was
// asked.
func Sign(a *Asked, ca *Authority, spec *cmapi.CAIssuer, now time.Time) (*Issued, error) {
	if err := ca.usable(now); err != nil {
		return nil, err
	}
	if err := ca.roomFor(a); err != nil {
		return nil, err
	}
	for _, c := range ca.Chain {
		if trust.SameKey(a.Public, c.PublicKey) {
			return nil, fmt.Errorf("the request is of the key of authority %q, which is certified from above alone", c.Subject)
		}
	}
	t, err := a.template(now)
	if err != nil {
		return nil, err
	}
	for _, c := range ca.Chain {
		if c.NotBefore.After(now) {
			return nil, fmt.Errorf("authority %q is not valid before %s", c.Subject, c.NotBefore.UTC().Format(time.RFC3339))
		}
		if t.NotBefore.Before(c.NotBefore) {
			t.NotBefore = c.NotBefore
		}
	}
	if end := ca.NotAfter(); t.NotAfter.After(end) {
		t.NotAfter = end
	}
	if !t.NotAfter.After(now) {
		return nil, fmt.Errorf("the certificate would end at %s, which is no later than now", t.NotAfter.UTC().Format(time.RFC3339))
	}
	if spec != nil {
		t.CRLDistributionPoints, t.OCSPServer, t.IssuingCertificateURL = spec.CRLDistributionPoints, spec.OCSPServers, spec.IssuingCertificateURLs
	}
	leaf, err := create(t, ca.Chain[0], a.Public, ca.Key)
	if err != nil {
		return nil, err
	}
	if err := ca.verify(leaf, now); err != nil {
		return nil, fmt.Errorf("authority %q may not sign this: %w", ca.Chain[0].Subject, err)
	}
	above, top := ca.above, ca.top
	if top == nil {
		above, top = ca.texts()
	}
	return &Issued{Leaf: leaf, Chain: append(trust.EncodeCertificates(leaf), above...), CA: top}, nil
}

// SignSelf answers a request in the place of a SelfSigned issuer, with the key of the
// request itself. tls.crt and ca.crt are both the certificate. Its issuer is its
// subject: where that is empty, which RFC 5280 forbids, upstream warns and so should
// the caller ([Issued].Leaf has the subject).
func SignSelf(a *Asked, key crypto.Signer, spec *cmapi.SelfSignedIssuer, now time.Time) (*Issued, error) {
	if !trust.SameKey(a.Public, key.Public()) {
		return nil, errors.New("the request is not of the key that is to sign it")
	}
	t, err := a.template(now)
	if err != nil {
		return nil, err
	}
	if spec != nil {
		t.CRLDistributionPoints = spec.CRLDistributionPoints
	}
	leaf, err := create(t, t, a.Public, key)
	if err != nil {
		return nil, err
	}
	text := trust.EncodeCertificates(leaf)
	return &Issued{Chain: text, CA: text, Leaf: leaf}, nil
}

func (a *Asked) template(now time.Time) (*x509.Certificate, error) {
	serial, err := issue.NewLongSerial()
	if err != nil {
		return nil, err
	}
	// As upstream: it begins now, and has the whole life that was asked for before it.
	begin := now.Truncate(time.Second)
	t := &x509.Certificate{
		SerialNumber: serial, RawSubject: a.RawSubject, PublicKey: a.Public,
		NotBefore: begin, NotAfter: begin.Add(a.Duration),
		KeyUsage: a.KeyUsage, ExtKeyUsage: a.ExtKeyUsage,
		BasicConstraintsValid: true, IsCA: a.IsCA,
	}
	if a.IsCA && a.PathLength != nil {
		t.MaxPathLen, t.MaxPathLenZero = *a.PathLength, *a.PathLength == 0
	}
	if a.sans != nil && !a.names.empty() {
		t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: oidSAN, Critical: bytes.Equal(a.RawSubject, emptySubject), Value: a.sans.Value})
	}
	if a.constraints != nil {
		t.ExtraExtensions = append(t.ExtraExtensions, *a.constraints)
	}
	return t, nil
}

func create(t, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	t.SignatureAlgorithm = signatureAlgorithm(key.Public())
	der, err := x509.CreateCertificate(rand.Reader, t, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return x509.ParseCertificate(der)
}

// roomFor tells whether an authority that is asked for could have leaves: verifiers count
// it only once it has some, and refuse those.
func (a *Authority) roomFor(asked *Asked) error {
	for i, c := range a.Chain {
		if bounded := c.MaxPathLen > 0 || c.MaxPathLen == 0 && c.MaxPathLenZero; asked.IsCA && bounded && i+1 > c.MaxPathLen {
			return fmt.Errorf("authority %q may have %d authorities below it, and this would be number %d", c.Subject, c.MaxPathLen, i+1)
		}
	}
	return nil
}

// verify judges a leaf as somebody who trusts the topmost certificate does.
func (a *Authority) verify(leaf *x509.Certificate, now time.Time) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(a.Chain[len(a.Chain)-1])
	for _, c := range a.Chain[:len(a.Chain)-1] {
		between.AddCert(c)
	}
	judged := *leaf
	// crypto/x509 leaves critical names to the caller where it knows none of their
	// kinds: those are texts of otherName, which Read has read.
	judged.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(leaf.UnhandledCriticalExtensions), oidSAN.Equal)
	_, err := judged.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}
