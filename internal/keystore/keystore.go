// Package keystore makes the keystores that Java and others read: JKS and PKCS#12, of a
// key with its chain, or of trusted certificates alone.
package keystore

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	jks "github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"
)

// Entry is what a keystore holds: a key with its chain, the leaf first, and trusted
// certificates, of which there may be none.
type Entry struct {
	Key        crypto.Signer
	Chain, CAs []*x509.Certificate
}

// Profile names the algorithms of a PKCS#12 file, as spec.keystores.pkcs12.profile.
type Profile string

// encoders has upstream's profiles; the empty one is LegacyRC2, which every Java reads.
var encoders = map[Profile]*pkcs12.Encoder{
	"": pkcs12.LegacyRC2, "LegacyRC2": pkcs12.LegacyRC2, "LegacyDES": pkcs12.LegacyDES,
	"Modern2023": pkcs12.Modern2023, "Modern2026": pkcs12.Modern2026,
}

func encoderOf(p Profile) (*pkcs12.Encoder, error) {
	e, ok := encoders[p]
	if !ok {
		return nil, fmt.Errorf("profile %q is none of LegacyRC2, LegacyDES, Modern2023 and Modern2026", p)
	}
	return e, nil
}

// PKCS12 returns a PKCS#12 file with a key, its chain and the trusted certificates.
func PKCS12(e Entry, p Profile, password []byte) ([]byte, error) {
	encoder, err := encoderOf(p)
	if err != nil {
		return nil, err
	}
	if len(e.Chain) == 0 {
		return nil, errors.New("no certificate for the key")
	}
	others := append(e.Chain[1:len(e.Chain):len(e.Chain)], e.CAs...)
	return encoder.Encode(e.Key, e.Chain[0], others, string(password))
}

// PKCS12Trust returns a PKCS#12 file with trusted certificates, as Java reads it.
func PKCS12Trust(cas []*x509.Certificate, p Profile, password []byte) ([]byte, error) {
	encoder, err := encoderOf(p)
	if err != nil {
		return nil, err
	}
	return encoder.EncodeTrustStore(cas, string(password))
}

// JKS returns a Java keystore: the key and its chain by the alias, the trusted
// certificates as ca, ca-1, … The password protects both the store and the key.
func JKS(e Entry, alias string, password []byte, made time.Time) ([]byte, error) {
	if len(e.Chain) == 0 {
		return nil, errors.New("no certificate for the key")
	}
	for i := range e.CAs {
		if strings.EqualFold(alias, caAlias(i)) {
			return nil, fmt.Errorf("alias %q is that of a trusted certificate, which would take the place of the key", alias)
		}
	}
	key, err := x509.MarshalPKCS8PrivateKey(e.Key)
	if err != nil {
		return nil, fmt.Errorf("encoding private key: %w", err)
	}
	store := jks.New()
	entry := jks.PrivateKeyEntry{CreationTime: made, PrivateKey: key}
	for _, c := range e.Chain {
		entry.CertificateChain = append(entry.CertificateChain, certificate(c))
	}
	if err := store.SetPrivateKeyEntry(alias, entry, password); err != nil {
		return nil, err
	}
	return finish(store, e.CAs, password, made)
}

// JKSTrust returns a Java keystore with trusted certificates: ca, ca-1, …
func JKSTrust(cas []*x509.Certificate, password []byte, made time.Time) ([]byte, error) {
	return finish(jks.New(), cas, password, made)
}

func finish(store jks.KeyStore, cas []*x509.Certificate, password []byte, made time.Time) ([]byte, error) {
	for i, c := range cas {
		if err := store.SetTrustedCertificateEntry(caAlias(i), jks.TrustedCertificateEntry{CreationTime: made, Certificate: certificate(c)}); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	err := store.Store(&b, password)
	return b.Bytes(), err
}

func certificate(c *x509.Certificate) jks.Certificate {
	return jks.Certificate{Type: "X509", Content: c.Raw}
}

func caAlias(i int) string {
	if i == 0 {
		return "ca"
	}
	return fmt.Sprintf("ca-%d", i)
}
