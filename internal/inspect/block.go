package inspect

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// describeBlock describes one PEM block by its type.
func describeBlock(b trust.Block) Part {
	at := fmt.Sprintf("line %d: ", b.Line)
	switch {
	case b.Type == trust.CertificateType || b.Type == "X509 CERTIFICATE" || b.Type == "TRUSTED CERTIFICATE":
		return certificatePart(b.DER, at)
	case b.Type == trust.RequestType || b.Type == "NEW CERTIFICATE REQUEST":
		return requestPart(b.DER, at)
	case issue.IsPrivateKey(b):
		return privateKeyPart(b)
	case b.Type == trust.PublicKeyType || b.Type == trust.RSAPublicKeyType:
		key, err := issue.ParsePublicKeyBlock(b)
		if err != nil {
			return Part{Kind: KindPublicKey, Problem: err.Error()}
		}
		return Part{Kind: KindPublicKey, Key: NewKey(key)}
	case b.Type == "PKCS7":
		return Part{Kind: KindOther, Note: "PKCS7 block: no component reads it; convert it with openssl pkcs7 -print_certs"}
	}
	return Part{Kind: KindOther, Note: plain(b.Type) + " block"}
}

func certificatePart(der []byte, at string) Part {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Part{Kind: KindCertificate, Problem: at + "the certificate does not parse: " + err.Error()}
	}
	return Part{Kind: KindCertificate, Certificate: NewCertificate(c), parsed: c}
}

func requestPart(der []byte, at string) Part {
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return Part{Kind: KindRequest, Problem: at + "the request does not parse: " + err.Error()}
	}
	d, err := newRequest(r)
	if err != nil {
		return Part{Kind: KindRequest, Problem: at + err.Error()}
	}
	return Part{Kind: KindRequest, Request: d}
}

func privateKeyPart(b trust.Block) Part {
	if b.Encrypted {
		return Part{Kind: KindPrivateKey, Key: &Key{Encrypted: true}, Note: "encrypted: no component of Kubernetes can read it"}
	}
	key, err := issue.ParsePrivateKeyBlock(b)
	if err != nil {
		return Part{Kind: KindPrivateKey, Problem: err.Error()}
	}
	return Part{Kind: KindPrivateKey, Key: NewKey(key.Public())}
}

// der describes a DER value: one or several certificates, or one request or key.
func (d *describer) der(field string, data []byte) error {
	if certificates, err := x509.ParseCertificates(data); err == nil && len(certificates) > 0 {
		for _, c := range certificates {
			if err := d.add(Part{Kind: KindCertificate, Field: field, Certificate: NewCertificate(c), parsed: c}); err != nil {
				return err
			}
		}
		return nil
	}
	p, err := derPart(data)
	if err != nil {
		return err
	}
	p.Field = field
	return d.add(p)
}

var errDER = errors.New("is DER, but neither a certificate, a request nor a key")

func derPart(data []byte) (Part, error) {
	var outer asn1.RawValue
	if rest, err := asn1.Unmarshal(data, &outer); err != nil || len(rest) > 0 {
		return Part{}, ErrUnknown
	}
	if r, err := x509.ParseCertificateRequest(data); err == nil {
		return requestPart(r.Raw, ""), nil
	}
	for _, kind := range []string{trust.RSAKeyType, trust.ECKeyType, trust.PrivateKeyType} {
		if key, err := issue.ParsePrivateKeyBlock(trust.Block{Type: kind, DER: data}); err == nil {
			return Part{Kind: KindPrivateKey, Key: NewKey(key.Public())}, nil
		}
	}
	for _, kind := range []string{trust.PublicKeyType, trust.RSAPublicKeyType} {
		if key, err := issue.ParsePublicKeyBlock(trust.Block{Type: kind, DER: data}); err == nil {
			return Part{Kind: KindPublicKey, Key: NewKey(key)}, nil
		}
	}
	return Part{}, foreignDER(data)
}

// foreignDER names containers of keys and certificates that Kubernetes does
// not use.
func foreignDER(data []byte) error {
	var pfx struct {
		Version int
		Content struct {
			Type asn1.ObjectIdentifier
		}
	}
	var container struct{ Type asn1.ObjectIdentifier }
	// Both have more fields, which encoding/asn1 passes over in a SEQUENCE.
	if _, err := asn1.Unmarshal(data, &pfx); err == nil && pfx.Version == 3 {
		return errors.New("is a PKCS#12 keystore, which no component reads: convert it with openssl pkcs12")
	}
	if _, err := asn1.Unmarshal(data, &container); err == nil && container.Type.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}) {
		return errors.New("is PKCS#7, which no component reads: convert it with openssl pkcs7 -inform DER -print_certs")
	}
	return errDER
}
