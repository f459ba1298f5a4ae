package tlstest

import (
	"crypto"
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls"
)

// PEM is a file that trusts some authorities.
func PEM(all ...issue.Authority) []byte { return trust.EncodeCertificates(anchors(all)...) }

// KeyPEM is the file of a credential's key.
func KeyPEM(t testing.TB, c *tls.Certificate) []byte {
	t.Helper()
	data, err := issue.EncodePrivateKey(c.PrivateKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Files are NAME.crt, NAME.key and ca.crt of a folder. None is made.
func Files(dir, name string) mtls.Files {
	return mtls.Files{Certificate: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key"), Bundle: filepath.Join(dir, "ca.crt")}
}

// Put writes a file in place, as programs do that know no better.
func Put(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// PutPair writes the certificate and then the key of a credential.
func PutPair(t testing.TB, f mtls.Files, c *tls.Certificate) {
	t.Helper()
	Put(t, f.Certificate, trust.EncodeCertificates(c.Leaf))
	Put(t, f.Key, KeyPEM(t, c))
}
