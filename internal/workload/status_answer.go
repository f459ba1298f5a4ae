package workload

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"

	"github.com/kubepki/kubepki/internal/trust"
)

// maxAnswer bounds what an issuer may answer, in bytes of PEM.
const maxAnswer = 128 << 10

// AnswerProblem tells why the certificate of an answered request is of no use for a
// key; "": it is good.
func AnswerProblem(chain []byte, public crypto.PublicKey, now time.Time) string {
	if len(chain) > maxAnswer {
		return fmt.Sprintf("Issuer returned an invalid certificate: it has %d bytes, more than %d", len(chain), maxAnswer)
	}
	certificates, err := trust.ParseCertificates(chain)
	if err == nil && len(certificates) == 0 {
		err = errors.New("there is none")
	}
	switch {
	case err != nil:
		return fmt.Sprintf("Issuer returned an invalid certificate: failed to decode: %v", err)
	case !trust.SameKey(certificates[0].PublicKey, public):
		return "Issuer returned a certificate with a public key that does not match the CSR. This usually indicates a misconfigured issuer."
	case now.After(certificates[0].NotAfter):
		return fmt.Sprintf("Issuer returned an already expired certificate (notAfter: %s). This usually indicates an expired CA certificate in the issuer.",
			certificates[0].NotAfter.Format(time.RFC3339))
	}
	return ""
}

// temporarySerial marks temporary certificates, as cert-manager's are marked.
const temporarySerial = 0x1234567890

// Temporary makes a certificate that nobody trusts, for servers that would not start
// without one. It is signed by a key that is thrown away.
func Temporary(spec *cmapi.CertificateSpec, key crypto.Signer, now time.Time) (Content, error) {
	w, err := WishOf(spec)
	if err != nil {
		return Content{}, err
	}
	thrown, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Content{}, err
	}
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: "cert-manager.local"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(temporarySerial), RawSubject: w.RawSubject, DNSNames: w.DNSNames, IPAddresses: w.IPAddresses, URIs: w.URIs,
		EmailAddresses: w.EmailAddresses, KeyUsage: w.KeyUsage, ExtKeyUsage: w.ExtKeyUsage, BasicConstraintsValid: true,
		NotBefore: now, NotAfter: now.Add(w.Duration),
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), thrown)
	if err != nil {
		return Content{}, fmt.Errorf("making a temporary certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return Content{}, err
	}
	encoded, err := EncodeKey(key, spec)
	if err != nil {
		return Content{}, err
	}
	return Content{Key: encoded, Chain: trust.EncodeCertificates(leaf), Made: now}, nil
}
