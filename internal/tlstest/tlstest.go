// Package tlstest is for tests alone: authorities, the credentials below them, and
// the bundles and files of both, as package mtls and those above it read them.
package tlstest

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/mtls"
)

// Panics stands for the t that an example has not: what fails panics. It knows
// Helper and Fatal, which is what this package calls.
var Panics testing.TB = panics{}

type panics struct{ testing.TB }

func (panics) Helper()           {}
func (panics) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// Key makes a private key.
func Key(t testing.TB, a issue.Algorithm) crypto.Signer {
	t.Helper()
	key, err := issue.GenerateKey(a)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Authority makes a root with a key of P-256 that lives a year from now on.
func Authority(t testing.TB, name string) issue.Authority {
	t.Helper()
	return Certify(t, name, Key(t, issue.ECDSAP256))
}

// Certify makes an authority of a key, as [Authority] does; with above it is not a
// root, but below that one.
func Certify(t testing.TB, name string, key crypto.Signer, above ...issue.Authority) issue.Authority {
	t.Helper()
	template := issue.Template{Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: time.Now().Add(-issue.Backdate), NotAfter: time.Now().AddDate(1, 0, 0)}
	var c *x509.Certificate
	var err error
	if len(above) > 0 {
		c, err = issue.Sign(template, key.Public(), above[0])
	} else {
		c, err = issue.SelfSign(template, key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return issue.Authority{Certificate: c, Key: key}
}

// Leaf makes a credential with a key of its authority's kind. It has a common name
// and lives an hour from now on; what else it is, and is not, the changes say.
func Leaf(t testing.TB, a issue.Authority, name string, changes ...func(*issue.Template)) *tls.Certificate {
	t.Helper()
	key := Key(t, issue.AlgorithmOf(a.Key.Public()))
	template := issue.Template{Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-issue.Backdate), NotAfter: time.Now().Add(time.Hour)}
	for _, change := range changes {
		change(&template)
	}
	c, err := issue.Sign(template, key.Public(), a)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

// For makes a leaf good for some uses alone.
func For(usages ...x509.ExtKeyUsage) func(*issue.Template) {
	return func(x *issue.Template) { x.Usages = usages }
}

// At gives a leaf some DNS names and IP addresses, and no others.
func At(names ...string) func(*issue.Template) {
	return func(x *issue.Template) {
		x.DNSNames, x.Addresses = nil, nil
		for _, name := range names {
			if ip := net.ParseIP(name); ip != nil {
				x.Addresses = append(x.Addresses, ip)
			} else {
				x.DNSNames = append(x.DNSNames, name)
			}
		}
	}
}

// In puts a leaf's subject into organizations, which are a user's groups.
func In(groups ...string) func(*issue.Template) {
	return func(x *issue.Template) { x.Subject.Organization = groups }
}

// Expired lets a leaf have ended an hour ago.
func Expired(x *issue.Template) {
	x.NotBefore, x.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
}

// Bundle trusts some authorities.
func Bundle(t testing.TB, all ...issue.Authority) *mtls.Bundle {
	t.Helper()
	b, err := mtls.NewBundle(anchors(all)...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Snapshot shows a certificate, which may be nil, and has a bundle of some
// authorities, or none.
func Snapshot(t testing.TB, show *tls.Certificate, trusted ...issue.Authority) *mtls.Snapshot {
	t.Helper()
	s := &mtls.Snapshot{Certificate: show}
	if len(trusted) > 0 {
		s.Bundle = Bundle(t, trusted...)
	}
	return s
}

func anchors(all []issue.Authority) []*x509.Certificate {
	var certificates []*x509.Certificate
	for _, a := range all {
		certificates = append(certificates, a.Certificate)
	}
	return certificates
}
