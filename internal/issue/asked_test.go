package issue_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/issue"
)

func newRequest(t *testing.T, r x509.CertificateRequest, key crypto.Signer) *x509.CertificateRequest {
	t.Helper()
	if key == nil {
		var err error
		if key, err = issue.GenerateKey(issue.ECDSAP256); err != nil {
			t.Fatal(err)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &r, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func extension(t *testing.T, critical bool, value any, oid ...int) pkix.Extension {
	t.Helper()
	der, ok := value.([]byte)
	if !ok {
		var err error
		if der, err = asn1.Marshal(value); err != nil {
			t.Fatal(err)
		}
	}
	return pkix.Extension{Id: oid, Critical: critical, Value: der}
}

// sans encodes GeneralNames by hand: crypto/x509 would not make bad ones.
func sans(t *testing.T, names ...asn1.RawValue) pkix.Extension {
	t.Helper()
	return extension(t, false, names, 2, 5, 29, 17)
}

func name(tag int, value string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(value)}
}

func TestReadRequestSeesAllThatIsAsked(t *testing.T) {
	uri, err := url.Parse("spiffe://example.test/web")
	if err != nil {
		t.Fatal(err)
	}
	r := newRequest(t, x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "web", Organization: []string{"dev", "ops"}},
		DNSNames: []string{"Web.example.test"}, URIs: []*url.URL{uri},
		IPAddresses: []net.IP{net.ParseIP("::ffff:10.0.0.1"), net.ParseIP("fd00::1")},
		ExtraExtensions: []pkix.Extension{
			extension(t, true, asn1.BitString{Bytes: []byte{0xa0}, BitLength: 3}, 2, 5, 29, 15),
			extension(t, false, []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 1}, {1, 3, 6, 1, 5, 5, 7, 3, 9}}, 2, 5, 29, 37),
			extension(t, true, struct{}{}, 2, 5, 29, 19), // CA:FALSE
		},
	}, nil)
	asked, err := issue.ReadRequest(r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Web.example.test"}, asked.DNSNames); diff != "" {
		t.Error(diff)
	}
	want := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}
	if diff := cmp.Diff(want, asked.Addresses, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if len(asked.URIs) != 1 || asked.URIs[0].String() != uri.String() {
		t.Errorf("URIs = %v", asked.URIs)
	}
	if asked.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment {
		t.Errorf("key usage = %b", asked.KeyUsage)
	}
	if len(asked.Usages) != 1 || asked.Usages[0] != x509.ExtKeyUsageServerAuth || len(asked.UnknownUsages) != 1 {
		t.Errorf("usages = %v and unknown %v", asked.Usages, asked.UnknownUsages)
	}
	if asked.Authority {
		t.Error("CA:FALSE was read as CA:TRUE")
	}
}

func TestCheckRefusesRequests(t *testing.T) {
	plain := pkix.Name{CommonName: "web"}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	with := func(e ...pkix.Extension) x509.CertificateRequest {
		return x509.CertificateRequest{Subject: plain, ExtraExtensions: e}
	}
	subject := func(names ...pkix.AttributeTypeAndValue) x509.CertificateRequest {
		return x509.CertificateRequest{Subject: pkix.Name{ExtraNames: names}}
	}
	cn := asn1.ObjectIdentifier{2, 5, 4, 3}
	tests := map[string]struct {
		request x509.CertificateRequest
		key     crypto.Signer
		want    string // part of the error; empty: it passes
	}{
		"a plain request passes":                      {request: x509.CertificateRequest{Subject: plain}},
		"one without a common name passes":            {request: x509.CertificateRequest{DNSNames: []string{"a.test"}}},
		"CA:TRUE":                                     {with(extension(t, true, struct{ CA bool }{true}, 2, 5, 29, 19)), nil, "CA:TRUE"},
		"CA:TRUE that is not critical":                {with(extension(t, false, struct{ CA bool }{true}, 2, 5, 29, 19)), nil, "CA:TRUE"},
		"keyCertSign":                                 {with(extension(t, true, asn1.BitString{Bytes: []byte{0x04}, BitLength: 6}, 2, 5, 29, 15)), nil, "keyCertSign"},
		"cRLSign":                                     {with(extension(t, true, asn1.BitString{Bytes: []byte{0x02}, BitLength: 7}, 2, 5, 29, 15)), nil, "cRLSign"},
		"OCSP signing":                                {with(extension(t, false, []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 9}}, 2, 5, 29, 37)), nil, "1.3.6.1.5.5.7.3.9"},
		"any usage":                                   {with(extension(t, false, []asn1.ObjectIdentifier{{2, 5, 29, 37, 0}}, 2, 5, 29, 37)), nil, "2.5.29.37.0"},
		"an e-mail address":                           {with(sans(t, name(1, "root@example.test"))), nil, "e-mail address"},
		"an otherName beside a DNS name":              {with(sans(t, name(2, "a.test"), asn1.RawValue{Class: 2, Tag: 0, IsCompound: true, Bytes: []byte{6, 1, 42}})), nil, "otherName"},
		"a registered ID":                             {with(sans(t, name(2, "a.test"), name(8, "\x2a"))), nil, "registeredID"},
		"a critical extension that nobody knows":      {with(extension(t, true, []byte{5, 0}, 1, 2, 3, 4)), nil, "1.2.3.4"},
		"an extension that is not critical passes":    {request: with(extension(t, false, []byte{5, 0}, 1, 2, 3, 4))},
		"two common names":                            {subject(pkix.AttributeTypeAndValue{Type: cn, Value: "a"}, pkix.AttributeTypeAndValue{Type: cn, Value: "b"}), nil, "two common names"},
		"the user id attribute that Kubernetes reads": {subject(pkix.AttributeTypeAndValue{Type: cn, Value: "a"}, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}, Value: "uid"}), nil, "57683.2"},
		"a common name with a line break":             {subject(pkix.AttributeTypeAndValue{Type: cn, Value: "a\nb"}), nil, "no plain text"},
		"an RSA key of 1024 bits":                     {x509.CertificateRequest{Subject: plain}, weak, "1024 bits"},
		"a key on P-224":                              {x509.CertificateRequest{Subject: plain}, p224, "P-224"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRequest(t, test.request, test.key)
			asked, err := issue.ReadRequest(r)
			if err == nil {
				err = asked.Check(r)
			}
			switch {
			case test.want == "" && err != nil:
				t.Fatalf("refused: %v", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Fatalf("error = %v, want one about %q", err, test.want)
			}
		})
	}
}

func TestReadRequestRefusesNamesThatDoNotParse(t *testing.T) {
	r := newRequest(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "web"}}, nil)
	for title, value := range map[string][]byte{
		"no sequence":        {0x04, 0x01, 0x00},
		"cut off":            {0x30, 0x05, 0x82, 0x09},
		"an address of 5":    {0x30, 0x07, 0x87, 0x05, 1, 2, 3, 4, 5},
		"an unknown kind":    {0x30, 0x03, 0x9e, 0x01, 0x41},
		"data after the end": {0x30, 0x00, 0x00},
		"a universal string": {0x30, 0x03, 0x0c, 0x01, 0x41},
	} {
		t.Run(title, func(t *testing.T) {
			bad := *r
			bad.Extensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
			if _, err := issue.ReadRequest(&bad); err == nil {
				t.Fatal("no error")
			}
		})
	}
}

func TestCheckPublicKeyRefusesSmallExponents(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if err := issue.CheckPublicKey(key.Public()); err != nil {
		t.Errorf("RSA-2048 with 65537: %v", err)
	}
	if err := issue.CheckPublicKey(&rsa.PublicKey{N: key.N, E: 3}); err == nil {
		t.Error("the exponent 3 was accepted")
	}
	if err := issue.CheckPublicKey(&rsa.PublicKey{N: new(big.Int).Lsh(key.N, 8000), E: 65537}); err == nil {
		t.Error("a key larger than TLS takes was accepted")
	}
	if err := issue.CheckPublicKey("no key"); err == nil {
		t.Error("a string was accepted as key")
	}
}
