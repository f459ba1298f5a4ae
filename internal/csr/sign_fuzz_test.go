package csr_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// FuzzSign puts any bytes for the subject and the alternative names into a
// request, and any usages into its object: either the request is to blame, for
// good, or there is a certificate, which says what crypto/x509 shows of the
// request, and grants no more.
func FuzzSign(f *testing.F) {
	key := newKey(f, issue.ECDSAP256)
	ca := newAuthority(f, signedAt.Add(1000*time.Hour), "lower")
	subject := func(n pkix.Name) []byte {
		der, err := asn1.Marshal(n.ToRDNSequence())
		if err != nil {
			f.Fatal(err)
		}
		return der
	}
	node := subject(nodeSubject())
	f.Add(node, []byte{}, "digital signature,client auth", int32(0), uint8(1))
	f.Add(node, []byte("\x30\x04\x82\x02n1"), "digital signature,server auth", int32(600), uint8(2))
	f.Add(node, []byte("\x30\x06\x87\x04\x0a\x00\x00\x01"), "digital signature,server auth,key encipherment", int32(1<<30), uint8(2))
	f.Add(subject(pkix.Name{CommonName: "jane", Organization: []string{"a", "b"}, Locality: []string{"x"}}), []byte("\x30\x08\x81\x06j@a.b."), "client auth", int32(-1), uint8(0))
	f.Add(subject(pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: cn, Value: "a"}, {Type: userUID, Value: "1"}}}), []byte("\x30\x0e\xa0\x0c\x06\x03\x2a\x03\x04\xa0\x05\x0c\x03abc"), "any,s/mime,cert sign", int32(1), uint8(3))
	signers := []string{csr.KubeAPIServerClientSigner, csr.KubeAPIServerClientKubeletSigner, csr.KubeletServingSigner, csr.LegacyUnknownSigner, "example.test/x"}
	f.Fuzz(func(t *testing.T, subject, names []byte, usages string, seconds int32, signer uint8) {
		template := &x509.CertificateRequest{RawSubject: subject}
		if len(names) > 0 {
			template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: names}}
		}
		der, err := x509.CreateCertificateRequest(nil, template, key)
		if err != nil {
			return
		}
		r := csr.Request{SignerName: signers[int(signer)%len(signers)], Usages: strings.Split(usages, ","), PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})}
		if seconds != 0 {
			r.ExpirationSeconds = &seconds
		}
		data, err := csr.Sign(r, ca, 24*time.Hour, signedAt)
		if err != nil {
			if !errors.As(err, new(*csr.UnsignableError)) {
				t.Fatalf("it would be tried for ever: %v", err)
			}
			return
		}
		asked, err := x509.ParseCertificateRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := trust.ParseCertificates(data)
		if err != nil {
			t.Fatal(err)
		}
		checkGranted(t, chain, asked, ca)
	})
}

func checkGranted(t *testing.T, chain []*x509.Certificate, asked *x509.CertificateRequest, ca issue.Authority) {
	t.Helper()
	c := chain[0]
	known := func(n pkix.Name) pkix.Name { n.Names, n.ExtraNames = nil, nil; return n }
	switch {
	case len(chain) != 2 || c.CheckSignatureFrom(ca.Certificate) != nil:
		t.Errorf("a chain of %d, or another signer", len(chain))
	case c.IsCA || c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		t.Error("it may sign")
	case !cmp.Equal(known(c.Subject), known(asked.Subject)):
		t.Errorf("subject %v, asked %v", c.Subject, asked.Subject)
	case !slices.Equal(c.DNSNames, asked.DNSNames) || !slices.Equal(c.EmailAddresses, asked.EmailAddresses) || len(c.URIs) != len(asked.URIs):
		t.Errorf("names %q, asked %q", c.DNSNames, asked.DNSNames)
	case len(c.IPAddresses) != len(asked.IPAddresses):
		t.Errorf("addresses %s, asked %s", c.IPAddresses, asked.IPAddresses)
	case c.NotAfter.After(signedAt.Add(24*time.Hour)) || !c.NotBefore.Equal(signedAt.Add(-issue.Backdate)):
		t.Errorf("from %s until %s", c.NotBefore, c.NotAfter)
	case len(c.UnhandledCriticalExtensions) > 0:
		t.Errorf("unknown extensions %v", c.UnhandledCriticalExtensions)
	}
	for _, n := range c.Subject.Names {
		if len(n.Type) != 4 || !n.Type[:3].Equal(cn[:3]) {
			t.Errorf("attribute %s was granted", n.Type)
		}
	}
}
