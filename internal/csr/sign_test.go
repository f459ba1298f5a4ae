package csr_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

var signedAt = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func newKey(t testing.TB, a issue.Algorithm) crypto.Signer {
	t.Helper()
	key, err := issue.GenerateKey(a)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newAuthority makes a root that ends at a time, and below it as many
// intermediates as names are given.
func newAuthority(t testing.TB, end time.Time, below ...string) issue.Authority {
	t.Helper()
	template := issue.Template{Subject: pkix.Name{CommonName: "root"}, Authority: true, NotBefore: signedAt.Add(-time.Hour), NotAfter: end}
	key := newKey(t, issue.ECDSAP256)
	c, err := issue.SelfSign(template, key)
	if err != nil {
		t.Fatal(err)
	}
	a := issue.Authority{Certificate: c, Key: key}
	for _, name := range below {
		template.Subject.CommonName = name
		key = newKey(t, issue.ECDSAP256)
		if c, err = issue.Sign(template, key.Public(), a); err != nil {
			t.Fatal(err)
		}
		a = issue.Authority{Certificate: c, Key: key, Chain: append([]*x509.Certificate{c}, a.Chain...)}
	}
	return a
}

func requestPEM(t testing.TB, r *x509.CertificateRequest, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func nodeSubject() pkix.Name {
	return pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}
}

func clientRequest(t testing.TB, change ...func(*csr.Request)) csr.Request {
	t.Helper()
	r := csr.Request{
		Name: "csr-1", SignerName: csr.KubeAPIServerClientKubeletSigner, Usages: []string{"digital signature", "client auth"},
		PEM: requestPEM(t, &x509.CertificateRequest{Subject: nodeSubject()}, newKey(t, issue.ECDSAP256)),
	}
	for _, f := range change {
		f(&r)
	}
	return r
}

func sign(t testing.TB, r csr.Request, a issue.Authority, maximum time.Duration) []*x509.Certificate {
	t.Helper()
	data, err := csr.Sign(r, a, maximum, signedAt)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := trust.ParseCertificates(data)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

func TestLifeIsTheShortestOfWishPolicyAndAuthority(t *testing.T) {
	const day = 24 * time.Hour
	seconds := func(d time.Duration) *int32 { s := int32(d / time.Second); return &s }
	rows := map[string]struct {
		asked   *int32
		maximum time.Duration
		end     time.Duration // of the authority
		want    time.Duration // from now
	}{
		"nothing asked is all that the policy gives, less what it is backdated": {nil, 365 * day, 3650 * day, 365*day - issue.Backdate},
		"a wish below the policy is granted":                                    {seconds(30 * day), 365 * day, 3650 * day, 30*day - issue.Backdate},
		"a wish above the policy is shortened":                                  {seconds(800 * day), 365 * day, 3650 * day, 365*day - issue.Backdate},
		"eight hours are not short":                                             {seconds(8 * time.Hour), 365 * day, 3650 * day, 8*time.Hour - issue.Backdate},
		"a short life is not shortened by backdating":                           {seconds(8*time.Hour - time.Second), 365 * day, 3650 * day, 8*time.Hour - time.Second},
		"ten minutes is the least":                                              {seconds(time.Second), 365 * day, 3650 * day, 10 * time.Minute},
		"a negative wish is one for the least":                                  {seconds(-time.Hour), 365 * day, 3650 * day, 10 * time.Minute},
		"a policy of less than ten minutes holds":                               {seconds(time.Second), time.Minute, 3650 * day, time.Minute},
		"no certificate outlives its authority":                                 {nil, 365 * day, 5 * day, 5 * day},
		"an authority about to end":                                             {seconds(day), 365 * day, time.Second, time.Second},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			r := clientRequest(t, func(r *csr.Request) { r.ExpirationSeconds = row.asked })
			c := sign(t, r, newAuthority(t, signedAt.Add(row.end)), row.maximum)[0]
			if got := c.NotAfter.Sub(signedAt); got != row.want {
				t.Errorf("ends after %s, want %s", got, row.want)
			}
			if got := signedAt.Sub(c.NotBefore); got != 5*time.Minute {
				t.Errorf("backdated by %s", got)
			}
		})
	}
}

func TestNoCertificateOutlivesAnAuthorityAboveItsOwn(t *testing.T) {
	root := newAuthority(t, signedAt.Add(time.Hour))
	key := newKey(t, issue.ECDSAP256)
	long := &x509.Certificate{
		SerialNumber: root.Certificate.SerialNumber, Subject: pkix.Name{CommonName: "long"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: signedAt.Add(-time.Hour), NotAfter: signedAt.Add(48 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	sub := func(public crypto.PublicKey, parent issue.Authority, end time.Duration) *x509.Certificate {
		long.NotAfter = signedAt.Add(end)
		der, err := x509.CreateCertificate(rand.Reader, long, parent.Certificate, public, parent.Key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	middleKey := newKey(t, issue.ECDSAP256)
	middle := sub(middleKey.Public(), root, 30*time.Minute)
	low := sub(key.Public(), issue.Authority{Certificate: middle, Key: middleKey}, 48*time.Hour)
	a := issue.Authority{Certificate: low, Key: key, Chain: []*x509.Certificate{low, middle}}
	if got := sign(t, clientRequest(t), a, 24*time.Hour)[0].NotAfter.Sub(signedAt); got != 30*time.Minute {
		t.Errorf("ends after %s, its chain after 30m", got)
	}
}

func TestCertificateOfAKubelet(t *testing.T) {
	key := newKey(t, issue.ECDSAP256)
	a := newAuthority(t, signedAt.Add(1000*time.Hour))
	r := csr.Request{SignerName: csr.KubeletServingSigner, Usages: []string{"server auth", "digital signature"}, PEM: requestPEM(t, &x509.CertificateRequest{
		Subject: nodeSubject(), DNSNames: []string{"N1", "n1.example.test"}, IPAddresses: []net.IP{net.ParseIP("10.0.0.1"), net.ParseIP("fd00::1")},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}, // CA:TRUE
			{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 1, 6}},          // keyCertSign, cRLSign
			{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: []byte{5, 0}},
		},
	}, key)}
	c := sign(t, r, a, 24*time.Hour)[0]
	switch {
	case c.IsCA || !c.BasicConstraintsValid:
		t.Error("it is an authority, or does not say that it is none")
	case c.KeyUsage != x509.KeyUsageDigitalSignature || !cmp.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}):
		t.Errorf("usages %b %v", c.KeyUsage, c.ExtKeyUsage)
	case !cmp.Equal(c.DNSNames, []string{"N1", "n1.example.test"}) || len(c.IPAddresses) != 2:
		t.Errorf("names %q %q", c.DNSNames, c.IPAddresses)
	case len(c.Extensions) != 5: // key usage, extended usage, constraints, authority's key id, names
		t.Errorf("extensions %v", c.Extensions)
	case !bytes.Equal(c.AuthorityKeyId, a.Certificate.SubjectKeyId) || len(c.AuthorityKeyId) == 0:
		t.Errorf("authority key id %x", c.AuthorityKeyId)
	case !trust.SameKey(c.PublicKey, key.Public()):
		t.Error("it is for another key")
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.Certificate)
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, DNSName: "n1", CurrentTime: signedAt}); err != nil {
		t.Error(err)
	}
}

func TestChainOfAnIntermediateVerifiesAgainstTheRoot(t *testing.T) {
	a := newAuthority(t, signedAt.Add(1000*time.Hour), "upper", "lower")
	chain := sign(t, clientRequest(t), a, time.Hour)
	if len(chain) != 3 || chain[1].Subject.CommonName != "lower" || chain[2].Subject.CommonName != "upper" {
		t.Fatalf("chain of %d", len(chain))
	}
	for _, anchor := range chain[1:] {
		roots, between := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(anchor)
		for _, c := range chain[1:] {
			between.AddCert(c)
		}
		if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: signedAt, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("below %s: %v", anchor.Subject, err)
		}
	}
	if root := newAuthority(t, signedAt.Add(time.Hour)); len(sign(t, clientRequest(t), root, time.Hour)) != 1 {
		t.Error("a root was appended")
	}
}

func TestSerialsAreLongPositiveAndDiffer(t *testing.T) {
	a, seen, long := newAuthority(t, signedAt.Add(1000*time.Hour)), map[string]bool{}, 0
	r := clientRequest(t)
	for range 64 {
		c := sign(t, r, a, time.Hour)[0]
		serial := c.SerialNumber
		if serial.Sign() <= 0 || len(serial.Bytes()) > 20 || serial.BitLen() > 159 {
			t.Fatalf("serial %x", serial)
		}
		if serial.BitLen() > 128 {
			long++
		}
		seen[serial.String()] = true
	}
	if len(seen) != 64 || long < 60 {
		t.Errorf("%d serials differ, %d are above 128 bits", len(seen), long)
	}
}

// derSubject returns a subject in DER with each attribute in an RDN of its own.
func derSubject(t *testing.T, attributes ...any) []byte {
	t.Helper()
	type attribute struct {
		Type  asn1.ObjectIdentifier
		Value any
	}
	type setSET []attribute
	var sequence []setSET
	for i := 0; i < len(attributes); i += 2 {
		sequence = append(sequence, setSET{{attributes[i].(asn1.ObjectIdentifier), attributes[i+1]}})
	}
	der, err := asn1.Marshal(sequence)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

var (
	cn, o    = asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.ObjectIdentifier{2, 5, 4, 10}
	userUID  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2} // k/k AllowParsingUserUIDFromCertAuth
	utf8     = func(s string) asn1.RawValue { return asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(s)} }
	teletext = func(s string) asn1.RawValue { return asn1.RawValue{Tag: asn1.TagT61String, Bytes: []byte(s)} }
)

func TestSubjectIsThatOfTheRequest(t *testing.T) {
	rows := map[string]struct {
		subject  []byte
		verbatim bool
		want     string
	}{
		"UTF8String, name before groups": {derSubject(t, cn, utf8("jane"), o, utf8("dev"), o, utf8("ops")), true, "CN=jane,O=dev+O=ops"},
		"PrintableString":                {derSubject(t, o, "dev", cn, "jane"), true, "CN=jane,O=dev"},
		"a UID of the user is dropped":   {derSubject(t, cn, utf8("jane"), userUID, utf8("1234")), false, "CN=jane"},
		"an e-mail address is dropped":   {derSubject(t, cn, utf8("jane"), asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, utf8("j@example.test")), false, "CN=jane"},
		"a string of an old type is written as UTF8String or PrintableString": {derSubject(t, cn, teletext("jane"), o, utf8("dev")), false, "CN=jane,O=dev"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			r := csr.Request{SignerName: csr.KubeAPIServerClientSigner, Usages: []string{"client auth"},
				PEM: requestPEM(t, &x509.CertificateRequest{RawSubject: row.subject}, newKey(t, issue.ECDSAP256))}
			c := sign(t, r, newAuthority(t, signedAt.Add(1000*time.Hour)), time.Hour)[0]
			if bytes.Equal(c.RawSubject, row.subject) != row.verbatim {
				t.Errorf("verbatim is not %v: %x", row.verbatim, c.RawSubject)
			}
			if got := c.Subject.String(); got != row.want {
				t.Errorf("subject %s, want %s", got, row.want)
			}
			if c.KeyUsage != 0 {
				t.Errorf("key usage %b, asked was none", c.KeyUsage)
			}
		})
	}
}

func TestRequestsThatNobodyMaySign(t *testing.T) {
	key := newKey(t, issue.ECDSAP256)
	ca := newAuthority(t, signedAt.Add(1000*time.Hour))
	with := func(r x509.CertificateRequest) func(*csr.Request) {
		return func(o *csr.Request) { o.PEM = requestPEM(t, &r, key) }
	}
	usages := func(u ...string) func(*csr.Request) { return func(o *csr.Request) { o.Usages = u } }
	signer := func(s string, u ...string) func(*csr.Request) {
		return func(o *csr.Request) { o.SignerName, o.Usages = s, u }
	}
	serving := signer(csr.KubeletServingSigner, "digital signature", "server auth")
	legacy := signer(csr.LegacyUnknownSigner, "client auth")
	uri := []*url.URL{{Scheme: "spiffe", Host: "example.test"}}
	weak, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]struct {
		change []func(*csr.Request)
		want   string
	}{
		"no PEM":                                    {[]func(*csr.Request){func(r *csr.Request) { r.PEM = []byte("x") }}, "not exactly one PEM block"},
		"two requests":                              {[]func(*csr.Request){func(r *csr.Request) { r.PEM = append(r.PEM, r.PEM...) }}, "not exactly one PEM block"},
		"a bad signature":                           {[]func(*csr.Request){func(r *csr.Request) { r.PEM = tampered(t, r.PEM) }}, "not signed by its own key"},
		"not in node group":                         {[]func(*csr.Request){with(x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:n1", Organization: []string{"x"}}})}, "organization"},
		"a second group":                            {[]func(*csr.Request){with(x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes", "system:masters"}}})}, "organization"},
		"not a node":                                {[]func(*csr.Request){with(x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane", Organization: []string{"system:nodes"}}})}, "common name"},
		"a kubelet's client with a DNS name":        {[]func(*csr.Request){with(x509.CertificateRequest{Subject: nodeSubject(), DNSNames: []string{"n1"}})}, "subject alternative names"},
		"a kubelet's client with an address":        {[]func(*csr.Request){with(x509.CertificateRequest{Subject: nodeSubject(), IPAddresses: []net.IP{{10, 0, 0, 1}}})}, "subject alternative names"},
		"a kubelet's client that may serve":         {[]func(*csr.Request){usages("digital signature", "client auth", "server auth")}, "usages"},
		"a kubelet's client without a usage":        {[]func(*csr.Request){usages("client auth")}, "usages"},
		"a kubelet's server without names":          {[]func(*csr.Request){serving}, "DNS name or an IP address"},
		"a kubelet's server with a URI":             {[]func(*csr.Request){serving, with(x509.CertificateRequest{Subject: nodeSubject(), DNSNames: []string{"n1"}, URIs: uri})}, "URIs"},
		"a kubelet's server with mail":              {[]func(*csr.Request){serving, with(x509.CertificateRequest{Subject: nodeSubject(), DNSNames: []string{"n1"}, EmailAddresses: []string{"a@b.test"}})}, "e-mail"},
		"a client of the API server that may serve": {[]func(*csr.Request){signer(csr.KubeAPIServerClientSigner, "client auth", "server auth")}, `"server auth"`},
		"a client of the API server that is none":   {[]func(*csr.Request){signer(csr.KubeAPIServerClientSigner, "digital signature")}, `"client auth" is missing`},
		"the right to sign":                         {[]func(*csr.Request){signer(csr.LegacyUnknownSigner, "cert sign")}, "authorities alone"},
		"the right to revoke":                       {[]func(*csr.Request){signer("example.test/any", "crl sign")}, "authorities alone"},
		"a usage unknown":                           {[]func(*csr.Request){signer(csr.LegacyUnknownSigner, "flying")}, "not known"},
		"two common names":                          {[]func(*csr.Request){legacy, with(x509.CertificateRequest{RawSubject: derSubject(t, cn, utf8("a"), cn, utf8("b"))})}, "2 common names"},
		"a NUL":                                     {[]func(*csr.Request){legacy, with(x509.CertificateRequest{RawSubject: derSubject(t, cn, utf8("a\x00b"))})}, "no plain text"},
		"a number for a name":                       {[]func(*csr.Request){legacy, with(x509.CertificateRequest{RawSubject: derSubject(t, cn, 7)})}, "no plain text"},
		"nobody":                                    {[]func(*csr.Request){legacy, with(x509.CertificateRequest{})}, "neither a common name"},
		"a weak curve":                              {[]func(*csr.Request){legacy, func(r *csr.Request) { r.PEM = requestPEM(t, &x509.CertificateRequest{Subject: nodeSubject()}, weak) }}, "P-224"},
		"a short key":                               {[]func(*csr.Request){legacy, func(r *csr.Request) { r.PEM = requestPEM(t, &x509.CertificateRequest{Subject: nodeSubject()}, small) }}, "1024 bits"},
		"the authority's own":                       {[]func(*csr.Request){func(r *csr.Request) { r.PEM = requestPEM(t, &x509.CertificateRequest{Subject: nodeSubject()}, ca.Key) }}, "key of the authority"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			_, err := csr.Sign(clientRequest(t, row.change...), ca, time.Hour, signedAt)
			if !errors.As(err, new(*csr.UnsignableError)) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want an UnsignableError with %q", err, row.want)
			}
		})
	}
	if _, err := csr.Sign(clientRequest(t), ca, time.Hour, signedAt); err != nil {
		t.Errorf("the good twin: %v", err)
	}
}

// tampered changes the last byte of the signature.
func tampered(t *testing.T, data []byte) []byte {
	t.Helper()
	b, _ := pem.Decode(data)
	b.Bytes[len(b.Bytes)-1] ^= 1
	return pem.EncodeToMemory(b)
}

func TestWhatMayPassIsNotBlamedOnTheRequest(t *testing.T) {
	good := newAuthority(t, signedAt.Add(1000*time.Hour))
	rows := map[string]struct {
		authority issue.Authority
		maximum   time.Duration
	}{
		"an expired authority":        {newAuthority(t, signedAt), time.Hour},
		"no authority":                {issue.Authority{}, time.Hour},
		"the key of another":          {issue.Authority{Certificate: good.Certificate, Key: newKey(t, issue.ECDSAP256)}, time.Hour},
		"no life":                     {good, 0},
		"a key that fails to respond": {issue.Authority{Certificate: good.Certificate, Key: broken{good.Key}}, time.Hour},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			_, err := csr.Sign(clientRequest(t), row.authority, row.maximum, signedAt)
			if err == nil || errors.As(err, new(*csr.UnsignableError)) {
				t.Errorf("got %v", err)
			}
		})
	}
}

type broken struct{ crypto.Signer }

func (broken) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("no answer")
}

func BenchmarkSign(b *testing.B) {
	for _, algorithm := range []issue.Algorithm{issue.ECDSAP256, issue.RSA2048} {
		b.Run(string(algorithm), func(b *testing.B) {
			key := newKey(b, algorithm)
			c, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "ca"}, Authority: true, NotBefore: signedAt, NotAfter: signedAt.Add(1000 * time.Hour)}, key)
			if err != nil {
				b.Fatal(err)
			}
			r := clientRequest(b)
			for b.Loop() {
				if _, err := csr.Sign(r, issue.Authority{Certificate: c, Key: key}, time.Hour, signedAt); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
