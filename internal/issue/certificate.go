package issue

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// Backdate is how far before its making a certificate's life starts, so that
// machines whose clocks are behind accept it; as kubeadm's CertificateBackdate.
const Backdate = 5 * time.Minute

// Template says what a certificate or request shall hold.
type Template struct {
	Subject pkix.Name
	// RawSubject is the subject in DER, for a certificate that shall hold it byte
	// for byte; Subject must say the same. nil: Subject alone counts.
	RawSubject []byte
	DNSNames   []string
	Addresses  []net.IP
	URIs       []*url.URL
	Emails     []string
	Usages     []x509.ExtKeyUsage // none for an authority
	// KeyUsage is the key usage, 0 for none; nil: what fits the key.
	KeyUsage  *x509.KeyUsage
	Authority bool
	// PathLength bounds the authorities below an authority; nil: unbounded.
	PathLength *int
	NotBefore  time.Time
	NotAfter   time.Time
	// Serial is the serial number, positive; nil: a random one.
	Serial *big.Int
	// SubjectKeyID is that of an authority which is certified again: what it
	// signed names it. nil: made of the key.
	SubjectKeyID []byte
	// Extensions are written as they are, beside those that the other fields make; one
	// of subjectAltName (2.5.29.17) stands in the place of the names.
	Extensions []pkix.Extension
}

// Authority is a certificate that signs, with its key.
type Authority struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
	// Chain holds the authorities that a leaf must carry, Certificate first, to
	// verify against the topmost anchor, without that anchor itself; none where
	// Certificate is the anchor ([ChainOf]).
	Chain []*x509.Certificate
}

// SelfSign makes the certificate of a root authority from its key.
func SelfSign(t Template, key crypto.Signer) (*x509.Certificate, error) {
	c, err := t.certificate(key.Public())
	if err != nil {
		return nil, err
	}
	return create(c, c, key.Public(), key)
}

// Sign makes a certificate for a public key. It refuses an authority that is
// no authority or that has expired at the start of the new life, and it never
// lets the new certificate outlive the authority.
func Sign(t Template, public crypto.PublicKey, a Authority) (*x509.Certificate, error) {
	if err := a.Usable(t.NotBefore.Add(Backdate)); err != nil {
		return nil, err
	}
	c, err := t.certificate(public)
	if err != nil {
		return nil, err
	}
	if c.NotAfter.After(a.Certificate.NotAfter) {
		c.NotAfter = a.Certificate.NotAfter
	}
	return create(c, a.Certificate, public, a.Key)
}

// Usable tells why an authority cannot sign at a time: it lacks its key or has
// another's, may not sign, or has expired.
func (a Authority) Usable(at time.Time) error {
	c := a.Certificate
	switch {
	case a.Key == nil:
		return fmt.Errorf("the key of authority %q is not at hand", c.Subject)
	case !c.IsCA || !c.BasicConstraintsValid:
		return fmt.Errorf("certificate %q is not an authority (basicConstraints CA is not set)", c.Subject)
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("certificate %q may not sign certificates (keyCertSign is not set)", c.Subject)
	case at.After(c.NotAfter):
		return fmt.Errorf("authority %q expired at %s", c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
	case !trust.SameKey(c.PublicKey, a.Key.Public()):
		return fmt.Errorf("the key does not belong to authority %q", c.Subject)
	}
	return nil
}

func create(c, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("signing certificate %q: %w", c.Subject, err)
	}
	return x509.ParseCertificate(der)
}

func (t Template) certificate(public crypto.PublicKey) (*x509.Certificate, error) {
	if t.Subject.CommonName == "" && len(t.DNSNames)+len(t.Addresses)+len(t.URIs)+len(t.Emails) == 0 {
		return nil, errors.New("a certificate needs a common name or a subject alternative name")
	}
	if !t.NotAfter.After(t.NotBefore) {
		return nil, fmt.Errorf("certificate %q would end at %s, before it starts", t.Subject, t.NotAfter.UTC().Format(time.RFC3339))
	}
	serial, err := t.serial()
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               t.Subject,
		RawSubject:            t.RawSubject,
		DNSNames:              t.DNSNames,
		IPAddresses:           t.Addresses,
		URIs:                  t.URIs,
		EmailAddresses:        t.Emails,
		NotBefore:             t.NotBefore,
		NotAfter:              t.NotAfter,
		KeyUsage:              keyUsage(public, t.Authority),
		ExtKeyUsage:           t.Usages,
		BasicConstraintsValid: true,
		IsCA:                  t.Authority,
		SubjectKeyId:          t.SubjectKeyID,
		ExtraExtensions:       t.Extensions,
	}
	if t.KeyUsage != nil {
		c.KeyUsage = *t.KeyUsage
	}
	if t.Authority && t.PathLength != nil {
		c.MaxPathLen, c.MaxPathLenZero = *t.PathLength, *t.PathLength == 0
	}
	return c, nil
}

// keyUsage follows RFC 5280 section 4.2.1.3: keyEncipherment says that the key
// encrypts keys, which only RSA can.
func keyUsage(public crypto.PublicKey, authority bool) x509.KeyUsage {
	usage := x509.KeyUsageDigitalSignature
	if _, ok := public.(*rsa.PublicKey); ok {
		usage |= x509.KeyUsageKeyEncipherment
	}
	if authority {
		usage |= x509.KeyUsageCertSign
	}
	return usage
}

func (t Template) serial() (*big.Int, error) {
	if t.Serial == nil {
		return NewSerial()
	}
	if t.Serial.Sign() <= 0 {
		return nil, fmt.Errorf("serial number %s is not positive", t.Serial)
	}
	return t.Serial, nil
}

// NewSerial returns a random positive serial of 63 bits, as kubeadm makes it:
// unique within an authority (RFC 5280 section 4.1.2.2).
func NewSerial() (*big.Int, error) {
	limit := new(big.Int).SetInt64(1<<63 - 2)
	n, err := rand.Int(rand.Reader, limit)
	if err != nil {
		return nil, fmt.Errorf("drawing a serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

// NewLongSerial returns a random positive serial of 159 bits, the most that 20
// octets hold (RFC 5280 section 4.1.2.2): for authorities that number more
// certificates than anybody counts.
func NewLongSerial() (*big.Int, error) {
	limit := new(big.Int).Lsh(big.NewInt(1), 159)
	n, err := rand.Int(rand.Reader, limit.Sub(limit, big.NewInt(1)))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

// Request makes a certificate request for a key, with the extended usages that
// the certificate shall have: an authority elsewhere otherwise would not know.
func Request(t Template, key crypto.Signer) (*x509.CertificateRequest, error) {
	extensions, err := requestExtensions(t, key.Public())
	if err != nil {
		return nil, err
	}
	r := &x509.CertificateRequest{
		Subject: t.Subject, RawSubject: t.RawSubject, DNSNames: t.DNSNames, IPAddresses: t.Addresses, URIs: t.URIs, EmailAddresses: t.Emails,
		ExtraExtensions: extensions,
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	if err != nil {
		return nil, fmt.Errorf("making request %q: %w", t.Subject, err)
	}
	return x509.ParseCertificateRequest(der)
}

// EncodeRequest returns the PEM form of a request.
func EncodeRequest(r *x509.CertificateRequest) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: trust.RequestType, Bytes: r.Raw})
}

// ParseRequest parses the one request of a PEM text and checks its signature.
func ParseRequest(data []byte) (*x509.CertificateRequest, error) {
	blocks, err := trust.Blocks(data)
	if err != nil {
		return nil, err
	}
	if len(blocks) != 1 || (blocks[0].Type != trust.RequestType && blocks[0].Type != "NEW CERTIFICATE REQUEST") {
		return nil, errors.New("not exactly one PEM block of type CERTIFICATE REQUEST")
	}
	r, err := x509.ParseCertificateRequest(blocks[0].DER)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", blocks[0].Line, err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the request is not signed by its own key: %w", err)
	}
	return r, nil
}

var (
	oidKeyUsage    = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidUsage       = map[x509.ExtKeyUsage]asn1.ObjectIdentifier{
		x509.ExtKeyUsageServerAuth: {1, 3, 6, 1, 5, 5, 7, 3, 1},
		x509.ExtKeyUsageClientAuth: {1, 3, 6, 1, 5, 5, 7, 3, 2},
	}
)

func requestExtensions(t Template, public crypto.PublicKey) ([]pkix.Extension, error) {
	usage := []byte{0x80}
	bits := 1
	if _, ok := public.(*rsa.PublicKey); ok {
		usage, bits = []byte{0xa0}, 3
	}
	der, err := asn1.Marshal(asn1.BitString{Bytes: usage, BitLength: bits})
	if err != nil {
		return nil, fmt.Errorf("encoding key usage: %w", err)
	}
	extensions := []pkix.Extension{{Id: oidKeyUsage, Critical: true, Value: der}}
	var oids []asn1.ObjectIdentifier
	for _, u := range t.Usages {
		oid, ok := oidUsage[u]
		if !ok {
			return nil, fmt.Errorf("extended usage %d cannot be requested", u)
		}
		oids = append(oids, oid)
	}
	if len(oids) == 0 {
		return extensions, nil
	}
	if der, err = asn1.Marshal(oids); err != nil {
		return nil, fmt.Errorf("encoding extended key usage: %w", err)
	}
	return append(extensions, pkix.Extension{Id: oidExtKeyUsage, Value: der}), nil
}

// RequestedUsages returns the extended usages that a request asks for: only
// serverAuth and clientAuth are known, others are returned in unknown.
func RequestedUsages(r *x509.CertificateRequest) (usages []x509.ExtKeyUsage, unknown []asn1.ObjectIdentifier, err error) {
	for _, e := range r.Extensions {
		if !e.Id.Equal(oidExtKeyUsage) {
			continue
		}
		var oids []asn1.ObjectIdentifier
		if rest, err := asn1.Unmarshal(e.Value, &oids); err != nil || len(rest) > 0 {
			return nil, nil, errors.New("the request's extended key usage does not parse")
		}
		for _, oid := range oids {
			switch {
			case oid.Equal(oidUsage[x509.ExtKeyUsageServerAuth]):
				usages = append(usages, x509.ExtKeyUsageServerAuth)
			case oid.Equal(oidUsage[x509.ExtKeyUsageClientAuth]):
				usages = append(usages, x509.ExtKeyUsageClientAuth)
			default:
				unknown = append(unknown, oid)
			}
		}
	}
	return usages, unknown, nil
}
