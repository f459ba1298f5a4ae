package testpki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// Ageing says how [Age] fakes the age of credentials.
type Ageing struct {
	// Leaves and Authorities are how much older they become; less than nothing:
	// younger.
	Leaves, Authorities time.Duration
	// Files is how much older the files become, as the disk shows it.
	Files time.Duration
	// Only limits it to files whose path has one of these texts in it.
	Only []string
}

// Age fakes the age of the credentials below node roots: each certificate is signed
// anew, with its own name, key and serial number, by the key that signed it, which must
// be below one of the roots, and with its dates moved. The same certificate stays the
// same wherever it stands.
func Age(roots []string, a Ageing) error {
	g := &ager{Ageing: a, made: map[string]*x509.Certificate{}}
	for _, keysOnly := range []bool{true, false} {
		for _, root := range roots {
			folders := agedFolders
			if base := filepath.Base(root); base == catalog.AuthoritiesDir || base == catalog.UsersDir {
				folders = []string{"."} // beside the node roots
			}
			for _, folder := range folders {
				if err := g.walk(root, folder, keysOnly); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
		}
	}
	return nil
}

// agedFolders hold the credentials of a node, in each layout that tests make.
var agedFolders = []string{"etc/kubernetes", "etc/etcd", "var/lib/kubelet", "var/lib/kubernetes", "var/lib/kube-proxy", "root"}

func (g *ager) walk(root, folder string, keysOnly bool) error {
	return filepath.WalkDir(filepath.Join(root, folder), func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{"pods", "plugins", "kubepki-backup"}, d.Name()):
			return fs.SkipDir
		case d.IsDir():
			return g.touch(file)
		case !d.Type().IsRegular():
			return nil
		}
		return g.file(file, keysOnly)
	})
}

type ager struct {
	Ageing
	keys []crypto.Signer
	made map[string]*x509.Certificate
}

func (g *ager) file(file string, keysOnly bool) error {
	text, err := os.ReadFile(file)
	if err != nil || len(text) > trust.MaxPEM {
		return err
	}
	if keysOnly {
		if key, err := issue.ParsePrivateKey(text); err == nil {
			g.keys = append(g.keys, key)
		}
		return nil
	}
	if !g.concerns(file) {
		return nil
	}
	aged, err := g.text(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if string(aged) != string(text) {
		if err := os.WriteFile(file, aged, 0o600); err != nil { // a file that is there keeps its mode
			return err
		}
	}
	return g.touch(file)
}

// touch makes a file or folder as old as it shall be.
func (g *ager) touch(file string) error {
	if g.Files == 0 {
		return nil
	}
	then := time.Now().Add(-g.Files)
	return os.Chtimes(file, then, then)
}

func (g *ager) concerns(file string) bool {
	for _, part := range g.Only {
		if strings.Contains(file, part) {
			return true
		}
	}
	return len(g.Only) == 0
}

var embedded = regexp.MustCompile(`((?:certificate-authority|client-certificate)-data: )(\S+)`)

func (g *ager) text(text []byte) ([]byte, error) {
	var errs []error
	text = embedded.ReplaceAllFunc(text, func(field []byte) []byte {
		parts := embedded.FindSubmatch(field)
		data, err := base64.StdEncoding.DecodeString(string(parts[2]))
		if err == nil {
			data, err = g.pem(data)
		}
		errs = append(errs, err)
		return append(parts[1], base64.StdEncoding.EncodeToString(data)...)
	})
	text, err := g.pem(text)
	return text, errors.Join(append(errs, err)...)
}

var certificateBlock = regexp.MustCompile(`(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?`)

func (g *ager) pem(text []byte) ([]byte, error) {
	var errs []error
	text = certificateBlock.ReplaceAllFunc(text, func(block []byte) []byte {
		b, _ := pem.Decode(block)
		if b == nil {
			return block
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err == nil {
			c, err = g.certificate(c)
		}
		if err != nil {
			errs = append(errs, err)
			return block
		}
		return trust.EncodeCertificates(c)
	})
	return text, errors.Join(errs...)
}

func (g *ager) certificate(old *x509.Certificate) (*x509.Certificate, error) {
	by := g.Leaves
	if old.IsCA {
		by = g.Authorities
	}
	if by == 0 {
		return old, nil
	}
	if c := g.made[string(old.Raw)]; c != nil {
		return c, nil
	}
	for _, key := range g.keys {
		if !trust.SignedWith(old, key.Public()) {
			continue
		}
		t := *old
		t.NotBefore, t.NotAfter, t.SignatureAlgorithm = old.NotBefore.Add(-by), old.NotAfter.Add(-by), 0
		der, err := x509.CreateCertificate(rand.Reader, &t, &x509.Certificate{RawSubject: old.RawIssuer, SubjectKeyId: old.AuthorityKeyId, PublicKey: key.Public()}, old.PublicKey, key)
		if err != nil {
			return nil, err
		}
		c, err := x509.ParseCertificate(der)
		g.made[string(old.Raw)] = c
		return c, err
	}
	return nil, fmt.Errorf("the key that signed %s is below no root", old.Subject)
}
