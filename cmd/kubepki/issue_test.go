package main

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
)

// FuzzRequest signs what a request of any form is granted, and looks at the
// certificate: it never signs others, never has a wildcard, a second common
// name or an identity of Kubernetes' own, and holds nothing that was not
// asked for.
func FuzzRequest(f *testing.F) {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		f.Fatal(err)
	}
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	root, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "ca"}, Authority: true, NotBefore: now, NotAfter: now.AddDate(1, 0, 0)}, key)
	if err != nil {
		f.Fatal(err)
	}
	authority := issue.Authority{Certificate: root, Key: key}
	extension := func(der []byte, oid ...int) pkix.Extension { return pkix.Extension{Id: oid, Value: der} }
	for _, r := range []x509.CertificateRequest{
		{Subject: pkix.Name{CommonName: "web", Organization: []string{"dev"}}, DNSNames: []string{"a.test"}},
		{Subject: pkix.Name{CommonName: "web", Organization: []string{"system:masters"}}},
		{Subject: pkix.Name{CommonName: "system:node:w1", Organization: []string{"system:nodes"}}},
		{Subject: pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "a"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "b"}}}},
		{DNSNames: []string{"*.test", "A.test"}, EmailAddresses: []string{"a@b"}},
		{Subject: pkix.Name{CommonName: "x"}, ExtraExtensions: []pkix.Extension{extension([]byte{0x30, 3, 1, 1, 0xff}, 2, 5, 29, 19), extension([]byte{3, 2, 1, 6}, 2, 5, 29, 15)}},
	} {
		der, err := x509.CreateCertificateRequest(rand.Reader, &r, key)
		if err != nil {
			f.Fatal(err)
		}
		for _, role := range []string{"", "server", "client", "peer", "user", "node"} {
			f.Add(der, role)
		}
	}
	f.Fuzz(func(t *testing.T, der []byte, role string) {
		r, err := x509.ParseCertificateRequest(der)
		if err != nil {
			return
		}
		asked, err := issue.ReadRequest(r)
		if err != nil || asked.Check(r) != nil {
			return
		}
		flags := identityFlags{role: role}
		w, err := flags.want("w1", asked)
		if err != nil {
			return
		}
		c, err := issue.Sign(w.template(now, time.Hour), r.PublicKey, authority)
		if err != nil {
			return
		}
		judgeGranted(t, role, r, c)
	})
}

func judgeGranted(t *testing.T, role string, r *x509.CertificateRequest, c *x509.Certificate) {
	t.Helper()
	if c.IsCA || c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 || len(c.UnknownExtKeyUsage) > 0 || len(c.EmailAddresses) > 0 {
		t.Errorf("the certificate may do more than a leaf: %+v", c)
	}
	for _, u := range c.ExtKeyUsage {
		if u != x509.ExtKeyUsageServerAuth && u != x509.ExtKeyUsageClientAuth {
			t.Errorf("usage %d was granted", u)
		}
	}
	commonNames := 0
	for _, n := range c.Subject.Names {
		if n.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 3}) {
			commonNames++
		}
	}
	if commonNames > 1 {
		t.Error("two common names were granted")
	}
	for _, text := range append(c.Subject.Organization, c.Subject.CommonName) {
		if strings.HasPrefix(text, "system:") && !(role == "node" && (text == "system:nodes" || text == "system:node:w1")) {
			t.Errorf("the identity %q was granted for role %q", text, role)
		}
	}
	for _, d := range c.DNSNames {
		asked := slices.ContainsFunc(r.DNSNames, func(a string) bool { return strings.EqualFold(a, d) })
		if !asked || strings.Contains(d, "*") {
			t.Errorf("the name %q was granted, asked was %q", d, r.DNSNames)
		}
	}
	for _, a := range c.IPAddresses {
		if !slices.ContainsFunc(r.IPAddresses, a.Equal) {
			t.Errorf("the address %s was granted, asked was %v", a, r.IPAddresses)
		}
	}
}

func TestParseNamesSortsByKind(t *testing.T) {
	n, err := parseNames([]string{"Web.Example.test", "::ffff:10.0.0.1", "fd00::1", "*.example.test", "spiffe://example.test/a"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(n.all(), " "), "web.example.test *.example.test 10.0.0.1 fd00::1 spiffe://example.test/a"; got != want {
		t.Errorf("names = %q, want %q", got, want)
	}
	for _, bad := range []string{"a_b!", "a.test.", "-a", "fe80::1%eth0", "https://", "spiffe://t/a?q", "spiffe://t:1/a", "spiffe://t/", "://x", "a@b", ""} {
		if n, err := parseNames([]string{bad}); err == nil {
			t.Errorf("%q was taken as %q", bad, n.all())
		}
	}
}
