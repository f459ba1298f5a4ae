//go:build linux

package lab_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // to tell how key identifiers were made
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// facts are what is compared of two node folders: "path" or "path#field" to
// value. A fact holds neither a key nor what is random in every run.
type facts map[string]string

// folder is a node's root folder that is being described.
type folder struct {
	root        string
	started     time.Time // when the program that made it was started
	authorities map[string]*x509.Certificate
	facts       facts
}

// describe tells everything that is comparable of etc/kubernetes below root.
func describe(t *testing.T, root string, started time.Time) facts {
	t.Helper()
	f := &folder{root: root, started: started, authorities: map[string]*x509.Certificate{}, facts: facts{}}
	base := filepath.Join(root, "etc")
	// Authorities first: certificates are described by who signed them.
	for _, pass := range []func(path string, data []byte) error{f.findAuthority, f.file} {
		err := filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			f.facts["/"+rel+"#mode"] = info.Mode().String()
			if d.IsDir() {
				return nil
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return pass("/"+rel, data)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return f.facts
}

func (f *folder) findAuthority(path string, data []byte) error {
	if filepath.Ext(path) != ".crt" {
		return nil
	}
	for _, c := range certificatesIn(data) {
		if c.IsCA {
			f.authorities[path] = c
		}
	}
	return nil
}

func (f *folder) file(path string, data []byte) error {
	switch ext := filepath.Ext(path); ext {
	case ".crt", ".key", ".pub":
		f.pem(path, data)
	case ".conf":
		return f.kubeconfig(path, data)
	case ".yaml":
		f.lines(path, data)
	default:
		return fmt.Errorf("%s: a kind of file that the comparison does not know", path)
	}
	return nil
}

// set records one field.
func (f *folder) set(place, field, format string, args ...any) {
	f.facts[place+"#"+field] = fmt.Sprintf(format, args...)
}

// pem describes the blocks of a PEM file or field.
func (f *folder) pem(place string, data []byte) {
	rest := data
	for i := 0; ; i++ {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			f.set(place, "blocks", "%d", i)
			f.set(place, "after the last block", "%q", rest)
			return
		}
		at := place
		if i > 0 {
			at = fmt.Sprintf("%s[%d]", place, i)
		}
		f.set(at, "PEM", "%s with %d headers", block.Type, len(block.Headers))
		switch block.Type {
		case "CERTIFICATE":
			f.certificate(at, block.Bytes)
		case "PUBLIC KEY":
			key, err := x509.ParsePKIXPublicKey(block.Bytes)
			f.key(at, key, err)
		default:
			private, err := privateKey(block.Bytes)
			if err != nil {
				f.key(at, nil, err)
				continue
			}
			f.key(at, private.Public(), nil)
			f.set(at, "belongs to", "%s", f.partner(place, private.Public()))
		}
	}
}

// privateKey parses a key whatever its form; the PEM type is a fact of its own.
func privateKey(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%T cannot sign", key)
	}
	return signer, nil
}

// partner names the file beside a key that holds its public half.
func (f *folder) partner(place string, public crypto.PublicKey) string {
	stem, ok := strings.CutSuffix(place, ".key")
	if !ok {
		return ""
	}
	for _, ext := range []string{".crt", ".pub"} {
		data, err := os.ReadFile(filepath.Join(f.root, stem+ext))
		if err != nil {
			continue
		}
		block, _ := pem.Decode(data)
		if block == nil {
			continue
		}
		var other crypto.PublicKey
		if certificates := certificatesIn(data); len(certificates) > 0 {
			other = certificates[0].PublicKey
		} else if other, err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
			continue
		}
		if same, ok := public.(interface{ Equal(crypto.PublicKey) bool }); ok && same.Equal(other) {
			return ext
		}
	}
	return "nothing"
}

func (f *folder) key(place string, key crypto.PublicKey, err error) {
	if err != nil {
		f.set(place, "key", "unreadable: %v", err)
		return
	}
	f.set(place, "key", "%s", keyKind(key))
}

func keyKind(key crypto.PublicKey) string {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d, exponent %d", k.N.BitLen(), k.E)
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return fmt.Sprintf("%T", key)
}

// certificate describes every field of a certificate.
func (f *folder) certificate(place string, der []byte) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		f.set(place, "certificate", "malformed: %v", err)
		return
	}
	f.set(place, "version", "%d", c.Version)
	f.set(place, "subject", "%s", name(c.RawSubject))
	f.set(place, "issuer", "%s", name(c.RawIssuer))
	f.set(place, "key", "%s", keyKind(c.PublicKey))
	f.set(place, "signature", "%s", c.SignatureAlgorithm)
	f.set(place, "signed by", "%s", f.signer(c))
	f.set(place, "serial", "positive %t, at most 63 bits %t", c.SerialNumber.Sign() > 0, c.SerialNumber.BitLen() <= 63)
	f.set(place, "notBefore", "%d", c.NotBefore.Unix()-f.started.Unix())
	f.set(place, "notAfter", "%d", c.NotAfter.Unix()-f.started.Unix())
	f.set(place, "SANs", "DNS %q, IP %v, e-mail %q, URI %v", c.DNSNames, c.IPAddresses, c.EmailAddresses, c.URIs)
	f.extensions(place, c)
}

// extensions describes each extension; those that hold key identifiers by how
// they were made, the others by their bytes.
func (f *folder) extensions(place string, c *x509.Certificate) {
	var list []string
	for _, e := range c.Extensions {
		id := e.Id.String()
		list = append(list, fmt.Sprintf("%s critical=%t", id, e.Critical))
		switch id {
		case "2.5.29.14":
			f.set(place, "subject key identifier", "%s", keyIdentifier(c))
		case "2.5.29.35":
			f.set(place, "authority key identifier", "%s", f.authorityIdentifier(c, e.Value))
		default:
			f.set(place, "extension "+id, "%s", hex.EncodeToString(e.Value))
		}
	}
	f.set(place, "extensions", "%s", strings.Join(list, ", "))
	f.set(place, "usages", "key %#b, extended %v, other %v, CA %t, path length %d", c.KeyUsage, c.ExtKeyUsage, c.UnknownExtKeyUsage, c.IsCA, c.MaxPathLen)
}

// keyIdentifier tells how a subject key identifier was made.
func keyIdentifier(c *x509.Certificate) string {
	var spki struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &spki); err != nil {
		return err.Error()
	}
	one := sha1.Sum(spki.Key.RightAlign())
	two := sha256.Sum256(spki.Key.RightAlign())
	switch {
	case bytes.Equal(c.SubjectKeyId, one[:]):
		return "SHA-1 of the key"
	case bytes.Equal(c.SubjectKeyId, two[:20]):
		return "truncated SHA-256 of the key"
	}
	return fmt.Sprintf("%d bytes, made otherwise", len(c.SubjectKeyId))
}

func (f *folder) authorityIdentifier(c *x509.Certificate, value []byte) string {
	signer := f.authorities[f.signer(c)]
	same := signer != nil && bytes.Equal(signer.SubjectKeyId, c.AuthorityKeyId)
	return fmt.Sprintf("%d bytes, the signer's %t", len(value), same)
}

// signer is the path of the authority whose key signed the certificate.
func (f *folder) signer(c *x509.Certificate) string {
	for path, authority := range f.authorities {
		if c.CheckSignatureFrom(authority) == nil {
			return path
		}
	}
	return "nobody here"
}

// name shows a distinguished name with its order and its string types.
func name(raw []byte) string {
	var rdns []asn1.RawValue
	if _, err := asn1.Unmarshal(raw, &rdns); err != nil {
		return err.Error()
	}
	var parts []string
	for _, rdn := range rdns {
		for rest := rdn.Bytes; len(rest) > 0; {
			var pair struct {
				Type  asn1.ObjectIdentifier
				Value asn1.RawValue
			}
			var err error
			if rest, err = asn1.Unmarshal(rest, &pair); err != nil {
				return err.Error()
			}
			parts = append(parts, fmt.Sprintf("%s=%q (tag %d)", pair.Type, pair.Value.Bytes, pair.Value.Tag))
		}
	}
	return strings.Join(parts, ", ")
}

// certificatesIn parses the certificates of PEM data; others are left out.
func certificatesIn(data []byte) []*x509.Certificate {
	var all []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			all = append(all, c)
		}
	}
	return all
}

// kubeconfig describes the lines of a kubeconfig and the content of its
// embedded data.
func (f *folder) kubeconfig(path string, data []byte) error {
	var shown []string
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok || !strings.HasSuffix(key, "-data") {
			shown = append(shown, line)
			continue
		}
		decoded, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return fmt.Errorf("%s: %s is no base64", path, key)
		}
		f.pem(path+"#"+key, decoded)
		shown = append(shown, strings.Replace(line, value, "DATA", 1))
	}
	f.lines(path, []byte(strings.Join(shown, "")))
	return nil
}

// lines describes a text file line by line.
func (f *folder) lines(path string, data []byte) {
	i := 0
	for line := range strings.Lines(string(data)) {
		i++
		f.set(path, fmt.Sprintf("line %03d", i), "%s", line)
	}
}
