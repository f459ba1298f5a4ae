package workload

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"

	"github.com/kubepki/kubepki/internal/trust"
)

var signatureAlgorithms = map[cmapi.SignatureAlgorithm]x509.SignatureAlgorithm{
	cmapi.SHA256WithRSA: x509.SHA256WithRSA, cmapi.SHA384WithRSA: x509.SHA384WithRSA, cmapi.SHA512WithRSA: x509.SHA512WithRSA,
	cmapi.ECDSAWithSHA256: x509.ECDSAWithSHA256, cmapi.ECDSAWithSHA384: x509.ECDSAWithSHA384, cmapi.ECDSAWithSHA512: x509.ECDSAWithSHA512,
	cmapi.PureEd25519: x509.PureEd25519,
}

// Request makes the certificate request of a Certificate for a key, in PEM, with the
// extensions that upstream's has by default: no basic constraints, which the field isCA
// of a CertificateRequest says already.
func Request(spec *cmapi.CertificateSpec, key crypto.Signer) ([]byte, error) {
	w, err := WishOf(spec)
	if err != nil {
		return nil, err
	}
	extensions, err := w.extensions(spec.EncodeUsagesInRequest == nil || *spec.EncodeUsagesInRequest)
	if err != nil {
		return nil, err
	}
	algorithm := signatureAlgorithm(key.Public())
	if spec.SignatureAlgorithm != "" {
		var ok bool
		if algorithm, ok = signatureAlgorithms[spec.SignatureAlgorithm]; !ok {
			return nil, fmt.Errorf("spec.signatureAlgorithm: %q is not known", spec.SignatureAlgorithm)
		}
	}
	r := &x509.CertificateRequest{RawSubject: w.RawSubject, ExtraExtensions: extensions, SignatureAlgorithm: algorithm}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	// What crypto/x509 does not read back nobody else could sign.
	if _, err := x509.ParseCertificateRequest(der); err != nil {
		return nil, fmt.Errorf("spec: no request can be made of it: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: trust.RequestType, Bytes: der}), nil
}

func (w *Wish) extensions(usages bool) ([]pkix.Extension, error) {
	var extensions []pkix.Extension
	if !w.names.empty() {
		e, err := w.names.extension(bytes.Equal(w.RawSubject, emptySubject))
		if err != nil {
			return nil, err
		}
		extensions = append(extensions, e)
	}
	if usages {
		list, err := usageExtensions(w.KeyUsage, w.ExtKeyUsage)
		if err != nil {
			return nil, err
		}
		extensions = append(extensions, list...)
	}
	if w.NameConstraints != nil {
		e, err := w.NameConstraints.extension()
		if err != nil {
			return nil, err
		}
		extensions = append(extensions, e)
	}
	return extensions, nil
}

// signatureAlgorithm is the hash that upstream takes with a key: SHA-384 from 3072 bits
// of RSA on, SHA-512 from 4096; for all others crypto/x509 chooses the same itself.
func signatureAlgorithm(public crypto.PublicKey) x509.SignatureAlgorithm {
	k, ok := public.(*rsa.PublicKey)
	switch {
	case !ok:
		return x509.UnknownSignatureAlgorithm
	case k.Size()*8 >= 4096:
		return x509.SHA512WithRSA
	case k.Size()*8 >= 3072:
		return x509.SHA384WithRSA
	}
	return x509.SHA256WithRSA
}
