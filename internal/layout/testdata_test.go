package layout_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// pair is a self-signed certificate and its key, in the PEM forms that occur.
type pair struct {
	key                                   crypto.Signer
	certificate                           []byte
	pkcs1, sec1, pkcs8, public, rsaPublic []byte
}

func newPair(t testing.TB, key crypto.Signer) pair {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	p := pair{key: key, certificate: block("CERTIFICATE", der)}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	p.pkcs8, p.public = block("PRIVATE KEY", pkcs8), block("PUBLIC KEY", public)
	switch k := key.(type) {
	case *rsa.PrivateKey:
		p.pkcs1 = block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k))
		p.rsaPublic = block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&k.PublicKey))
	case *ecdsa.PrivateKey:
		sec1, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		p.sec1 = block("EC PRIVATE KEY", sec1)
	}
	return p
}

func ecPair(t testing.TB) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return newPair(t, key)
}

func rsaPair(t testing.TB) pair {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return newPair(t, key)
}

func edPair(t testing.TB) pair {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return newPair(t, key)
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func derOf(text []byte) []byte {
	b, _ := pem.Decode(text)
	return b.Bytes
}

func put(t testing.TB, root, nodePath string, data []byte, mode fs.FileMode) {
	t.Helper()
	p := filepath.Join(root, nodePath)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, data, mode); err != nil {
		t.Fatal(err)
	}
}
