package testpki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// Path returns where a file of a node stands on this machine. Names that do
// not begin with a slash are below /etc/kubernetes.
func (c *Cluster) Path(node, name string) string {
	if !strings.HasPrefix(name, "/") {
		name = "/etc/kubernetes/" + name
	}
	return filepath.Join(c.Dir, node, name)
}

func (c *Cluster) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// Read returns the content of a file.
func (c *Cluster) Read(node, name string) []byte {
	c.t.Helper()
	data, err := os.ReadFile(c.Path(node, name))
	c.check(err)
	return data
}

// Write replaces the content of a file and keeps its mode.
func (c *Cluster) Write(node, name string, data []byte) {
	c.t.Helper()
	mode := fs.FileMode(0o600)
	if info, err := os.Stat(c.Path(node, name)); err == nil {
		mode = info.Mode().Perm()
	}
	c.check(os.MkdirAll(filepath.Dir(c.Path(node, name)), 0o755))
	c.check(os.WriteFile(c.Path(node, name), data, mode))
}

// Remove removes a file or folder.
func (c *Cluster) Remove(node, name string) {
	c.t.Helper()
	c.check(os.RemoveAll(c.Path(node, name)))
}

// Chmod sets the mode of a file or folder.
func (c *Cluster) Chmod(node, name string, mode fs.FileMode) {
	c.t.Helper()
	c.check(os.Chmod(c.Path(node, name), mode))
}

// Copy copies a file over another, within or between nodes.
func (c *Cluster) Copy(fromNode, from, toNode, to string) {
	c.t.Helper()
	c.Write(toNode, to, c.Read(fromNode, from))
}

// Edit replaces a text in a file, which must be there.
func (c *Cluster) Edit(node, name, old, new string) {
	c.t.Helper()
	text := string(c.Read(node, name))
	if !strings.Contains(text, old) {
		c.t.Fatalf("%s does not contain %q", name, old)
	}
	c.Write(node, name, []byte(strings.ReplaceAll(text, old, new)))
}

// Authority reads an authority by the name of its files below pki.
func (c *Cluster) Authority(node, name string) issue.Authority {
	c.t.Helper()
	certs, err := trust.ParseCertificates(c.Read(node, "pki/"+name+".crt"))
	c.check(err)
	key, err := issue.ParsePrivateKey(c.Read(node, "pki/"+name+".key"))
	c.check(err)
	return issue.Authority{Certificate: certs[0], Key: key}
}

// Change edits the template of a certificate before it is signed anew.
type Change func(*x509.Certificate)

// Reissue signs a leaf below pki anew, with the same key and after a change.
func (c *Cluster) Reissue(node, name, authority string, change Change) {
	c.t.Helper()
	certs, err := trust.ParseCertificates(c.Read(node, "pki/"+name+".crt"))
	c.check(err)
	signed := c.resign(certs[0], certs[0].PublicKey, c.Authority(node, authority), change)
	c.Write(node, "pki/"+name+".crt", trust.EncodeCertificates(append([]*x509.Certificate{signed}, certs[1:]...)...))
}

// ReissueConf signs the client certificate of a kubeconfig anew.
func (c *Cluster) ReissueConf(node, conf, authority string, change Change) {
	c.t.Helper()
	old := c.confField(node, conf, "client-certificate-data: ")
	certs, err := trust.ParseCertificates(c.decode(old))
	c.check(err)
	signed := c.resign(certs[0], certs[0].PublicKey, c.Authority(node, authority), change)
	c.Edit(node, conf, old, base64.StdEncoding.EncodeToString(trust.EncodeCertificates(append([]*x509.Certificate{signed}, certs[1:]...)...)))
}

// SetConfCA replaces the authority that a kubeconfig trusts.
func (c *Cluster) SetConfCA(node, conf string, authority []byte) {
	c.t.Helper()
	c.Edit(node, conf, c.confField(node, conf, "certificate-authority-data: "), base64.StdEncoding.EncodeToString(authority))
}

func (c *Cluster) confField(node, conf, field string) string {
	c.t.Helper()
	_, rest, ok := strings.Cut(string(c.Read(node, conf)), field)
	if !ok {
		c.t.Fatalf("%s has no %s", conf, field)
	}
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

func (c *Cluster) decode(s string) []byte {
	c.t.Helper()
	data, err := base64.StdEncoding.DecodeString(s)
	c.check(err)
	return data
}

func (c *Cluster) resign(old *x509.Certificate, public crypto.PublicKey, a issue.Authority, change Change) *x509.Certificate {
	c.t.Helper()
	t := &x509.Certificate{
		SerialNumber: c.serial(), Subject: old.Subject, DNSNames: old.DNSNames, IPAddresses: old.IPAddresses,
		NotBefore: old.NotBefore, NotAfter: old.NotAfter, KeyUsage: old.KeyUsage, ExtKeyUsage: old.ExtKeyUsage,
		BasicConstraintsValid: true, IsCA: old.IsCA,
	}
	if change != nil {
		change(t)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.Certificate, public, a.Key)
	c.check(err)
	signed, err := x509.ParseCertificate(der)
	c.check(err)
	return signed
}

func (c *Cluster) serial() *big.Int {
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	c.check(err)
	return n
}

// Recreate makes an authority of the same name anew, with another key.
func (c *Cluster) Recreate(node, name string) issue.Authority {
	c.t.Helper()
	old := c.Authority(node, name)
	key, err := issue.GenerateKey(issue.ECDSAP256)
	c.check(err)
	return c.putAuthority(node, name, key, old.Certificate.Subject, Made.AddDate(10, 0, 0), nil)
}

// Resign signs an authority's own certificate anew with its own key.
func (c *Cluster) Resign(node, name string, change Change) issue.Authority {
	c.t.Helper()
	old := c.Authority(node, name)
	return c.putAuthority(node, name, old.Key, old.Certificate.Subject, old.Certificate.NotAfter, change)
}

func (c *Cluster) putAuthority(node, name string, key crypto.Signer, subject pkix.Name, end time.Time, change Change) issue.Authority {
	c.t.Helper()
	t := &x509.Certificate{
		SerialNumber: c.serial(), Subject: subject, NotBefore: Made.Add(-issue.Backdate), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	if change != nil {
		change(t)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	c.check(err)
	cert, err := x509.ParseCertificate(der)
	c.check(err)
	text, err := issue.EncodePrivateKey(key)
	c.check(err)
	c.Write(node, "pki/"+name+".crt", trust.EncodeCertificates(cert))
	c.Write(node, "pki/"+name+".key", text)
	return issue.Authority{Certificate: cert, Key: key}
}

// writeAuthority signs an authority's certificate for a key that is written.
func (c *Cluster) writeAuthority(node, cert string, key crypto.Signer, commonName string) issue.Authority {
	c.t.Helper()
	t := &x509.Certificate{
		SerialNumber: c.serial(), Subject: pkix.Name{CommonName: commonName}, NotBefore: Made.Add(-issue.Backdate), NotAfter: Made.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	c.check(err)
	signed, err := x509.ParseCertificate(der)
	c.check(err)
	c.Write(node, cert, trust.EncodeCertificates(signed))
	return issue.Authority{Certificate: signed, Key: key}
}

// NewKey replaces a private key file by a fresh key of an algorithm.
func (c *Cluster) NewKey(node, name string, a issue.Algorithm) crypto.Signer {
	c.t.Helper()
	key, err := issue.GenerateKey(a)
	c.check(err)
	text, err := issue.EncodePrivateKey(key)
	c.check(err)
	c.Write(node, name, text)
	return key
}

// ConfCA returns the authority that a kubeconfig trusts, in PEM form.
func (c *Cluster) ConfCA(node, conf string) []byte {
	c.t.Helper()
	return c.decode(c.confField(node, conf, "certificate-authority-data: "))
}

// Alter flips the last byte of a certificate, which is in its signature.
func (c *Cluster) Alter(node, name string) {
	c.t.Helper()
	block, _ := pem.Decode(c.Read(node, name))
	block.Bytes[len(block.Bytes)-1] ^= 1
	c.Write(node, name, pem.EncodeToMemory(block))
}

// SelfMade replaces a pair, named by its absolute path without extension, by one
// that signed itself, as a kubelet makes it.
func (c *Cluster) SelfMade(node, stem string) {
	c.t.Helper()
	key := c.NewKey(node, stem+".key", issue.ECDSAP256)
	cert, err := issue.SelfSign(issue.Template{
		Subject: pkix.Name{CommonName: node + "@1"}, DNSNames: []string{node},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: Made, NotAfter: Made.AddDate(1, 0, 0),
	}, key)
	c.check(err)
	c.Write(node, stem+".crt", trust.EncodeCertificates(cert))
}

// Rename makes an authority anew under another name, with its own key.
func (c *Cluster) Rename(node, name, commonName string) {
	c.t.Helper()
	old := c.Authority(node, name)
	c.putAuthority(node, name, old.Key, pkix.Name{CommonName: commonName}, old.Certificate.NotAfter, nil)
}

// WeakKey gives a leaf below pki an RSA key of 1024 bits and a certificate for it.
func (c *Cluster) WeakKey(node, name, authority string) {
	c.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	c.check(err)
	c.rekey(node, name, authority, key)
}

// CurveKey gives a leaf below pki a key on P-224 and a certificate for it.
func (c *Cluster) CurveKey(node, name, authority string) {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	c.check(err)
	c.rekey(node, name, authority, key)
}

func (c *Cluster) rekey(node, name, authority string, key crypto.Signer) {
	c.t.Helper()
	certs, err := trust.ParseCertificates(c.Read(node, "pki/"+name+".crt"))
	c.check(err)
	text, err := issue.EncodePrivateKey(key)
	c.check(err)
	c.Write(node, "pki/"+name+".key", text)
	c.Write(node, "pki/"+name+".crt", trust.EncodeCertificates(c.resign(certs[0], key.Public(), c.Authority(node, authority), nil)))
}
