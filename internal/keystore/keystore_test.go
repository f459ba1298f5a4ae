package keystore_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crypto/ecdsa"
	"crypto/elliptic"

	jks "github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/kubepki/kubepki/internal/keystore"
)

var password = []byte("changeit")

func newEntry(t *testing.T) keystore.Entry {
	t.Helper()
	issue := func(serial int64, parent *x509.Certificate, signer crypto.Signer) (*x509.Certificate, crypto.Signer) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{SerialNumber: big.NewInt(serial).String()}, NotAfter: time.Now().Add(time.Hour),
			IsCA: true, BasicConstraintsValid: true}
		if parent == nil {
			parent, signer = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		c, _ = x509.ParseCertificate(der)
		return c, key
	}
	root, rootKey := issue(1, nil, nil)
	middle, middleKey := issue(2, root, rootKey)
	leaf, key := issue(3, middle, middleKey)
	other, _ := issue(4, nil, nil)
	return keystore.Entry{Key: key, Chain: []*x509.Certificate{leaf, middle}, CAs: []*x509.Certificate{root, other}}
}

func TestPKCS12OpensAgain(t *testing.T) {
	e := newEntry(t)
	for _, p := range []keystore.Profile{"", "LegacyRC2", "LegacyDES", "Modern2023", "Modern2026"} {
		t.Run("profile "+string(p), func(t *testing.T) {
			file, err := keystore.PKCS12(e, p, password)
			if err != nil {
				t.Fatal(err)
			}
			key, leaf, others, err := pkcs12.DecodeChain(file, string(password))
			if err != nil {
				t.Fatal(err)
			}
			if !e.Key.Public().(*ecdsa.PublicKey).Equal(key.(crypto.Signer).Public()) || !leaf.Equal(e.Chain[0]) || len(others) != 3 || !others[0].Equal(e.Chain[1]) || !others[1].Equal(e.CAs[0]) {
				t.Errorf("it holds another key, or %d certificates", len(others))
			}
			trusted, err := keystore.PKCS12Trust(e.CAs, p, password)
			if err != nil {
				t.Fatal(err)
			}
			if cas, err := pkcs12.DecodeTrustStore(trusted, string(password)); err != nil || len(cas) != 2 || !cas[1].Equal(e.CAs[1]) {
				t.Errorf("truststore: %d certificates, %v", len(cas), err)
			}
			if _, _, _, err := pkcs12.DecodeChain(file, "another"); err == nil {
				t.Error("it opens with another password")
			}
		})
	}
	if _, err := keystore.PKCS12(e, "Modern1999", password); err == nil || !strings.Contains(err.Error(), "Modern1999") {
		t.Errorf("an unknown profile: %v", err)
	}
}

func TestOpenSSLReadsPKCS12(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	e := newEntry(t)
	for profile, legacy := range map[keystore.Profile]bool{"LegacyDES": true, "Modern2023": false} {
		file, err := keystore.PKCS12(e, profile, password)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "keystore.p12")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"pkcs12", "-in", path, "-passin", "stdin", "-nodes"}
		if legacy {
			args = append(args, "-legacy")
		}
		command := exec.Command(openssl, args...)
		command.Stdin = bytes.NewReader(append(password, '\n'))
		out, err := command.CombinedOutput()
		if got := strings.Count(string(out), "BEGIN CERTIFICATE"); err != nil || got != 4 || strings.Count(string(out), "BEGIN PRIVATE KEY") != 1 {
			t.Errorf("%s: %d certificates, %v", profile, got, err)
		}
	}
}

func TestJKSOpensAgain(t *testing.T) {
	e := newEntry(t)
	made := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	file, err := keystore.JKS(e, "shop", password, made)
	if err != nil {
		t.Fatal(err)
	}
	store := jks.New()
	if err := store.Load(bytes.NewReader(file), password); err != nil {
		t.Fatal(err)
	}
	entry, err := store.GetPrivateKeyEntry("shop", password)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(entry.PrivateKey)
	if err != nil || !e.Key.Public().(*ecdsa.PublicKey).Equal(key.(crypto.Signer).Public()) {
		t.Errorf("another key: %v", err)
	}
	if len(entry.CertificateChain) != 2 || !bytes.Equal(entry.CertificateChain[1].Content, e.Chain[1].Raw) || !entry.CreationTime.Equal(made) {
		t.Errorf("%d certificates of %s", len(entry.CertificateChain), entry.CreationTime)
	}
	for i, alias := range []string{"ca", "ca-1"} {
		c, err := store.GetTrustedCertificateEntry(alias)
		if err != nil || !bytes.Equal(c.Certificate.Content, e.CAs[i].Raw) {
			t.Errorf("%s: %v", alias, err)
		}
	}
	trusted, err := keystore.JKSTrust(e.CAs, password, made)
	if err != nil {
		t.Fatal(err)
	}
	store = jks.New()
	if err := store.Load(bytes.NewReader(trusted), password); err != nil || len(store.Aliases()) != 2 {
		t.Errorf("truststore: %v, %v", store.Aliases(), err)
	}
	other := jks.New()
	if other.Load(bytes.NewReader(file), []byte("another")) == nil {
		t.Error("it opens with another password")
	}
}

func TestAnAliasOfATrustedCertificateIsRefused(t *testing.T) {
	e := newEntry(t)
	for alias, good := range map[string]bool{"ca": false, "CA-1": false, "ca-2": true, "certificate": true} {
		if _, err := keystore.JKS(e, alias, password, time.Now()); (err == nil) != good {
			t.Errorf("%s: %v", alias, err)
		}
	}
	e.CAs = nil
	if _, err := keystore.JKS(e, "ca", password, time.Now()); err != nil {
		t.Errorf("without trusted certificates: %v", err)
	}
}
