package issue_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func generate(t testing.TB, a issue.Algorithm) crypto.Signer {
	t.Helper()
	key, err := issue.GenerateKey(a)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func root(t testing.TB, change ...func(*issue.Template)) issue.Authority {
	t.Helper()
	template := issue.Template{Subject: pkix.Name{CommonName: "root"}, Authority: true, NotBefore: now.Add(-issue.Backdate), NotAfter: now.Add(time.Hour)}
	for _, f := range change {
		f(&template)
	}
	key := generate(t, issue.ECDSAP256)
	c, err := issue.SelfSign(template, key)
	if err != nil {
		t.Fatal(err)
	}
	return issue.Authority{Certificate: c, Key: key}
}

func leafTemplate() issue.Template {
	return issue.Template{
		Subject: pkix.Name{CommonName: "leaf", Organization: []string{"a", "b"}}, DNSNames: []string{"leaf.example.test"},
		Addresses: []net.IP{net.ParseIP("10.0.0.1")}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore: now.Add(-issue.Backdate), NotAfter: now.Add(30 * time.Minute),
	}
}

func TestKeysOfEachAlgorithm(t *testing.T) {
	types := map[issue.Algorithm]string{
		issue.RSA2048: "RSA PRIVATE KEY", issue.RSA3072: "RSA PRIVATE KEY", issue.RSA4096: "RSA PRIVATE KEY",
		issue.ECDSAP256: "EC PRIVATE KEY", issue.ECDSAP384: "EC PRIVATE KEY", issue.Ed25519: "PRIVATE KEY",
	}
	for _, a := range issue.Algorithms() {
		if testing.Short() && a == issue.RSA4096 {
			continue
		}
		key := generate(t, a)
		if got := issue.AlgorithmOf(key.Public()); got != a {
			t.Errorf("%s makes a key of %s", a, got)
		}
		data, err := issue.EncodePrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if block, _ := pem.Decode(data); block == nil || block.Type != types[a] {
			t.Errorf("%s is not written as %s", a, types[a])
		}
		back, err := issue.ParsePrivateKey(append([]byte("# text before\r\n"), data...))
		if err != nil || !trust.SameKey(back.Public(), key.Public()) {
			t.Errorf("%s is not read back: %v", a, err)
		}
		public, err := issue.EncodePublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		blocks, err := trust.Blocks(public)
		if err != nil {
			t.Fatal(err)
		}
		if k, err := issue.ParsePublicKeyBlock(blocks[0]); err != nil || !trust.SameKey(k, key.Public()) {
			t.Errorf("the public key of %s is not read back: %v", a, err)
		}
		usage := x509.KeyUsageDigitalSignature
		if strings.HasPrefix(string(a), "RSA") {
			usage |= x509.KeyUsageKeyEncipherment
		}
		c, err := issue.Sign(leafTemplate(), key.Public(), root(t))
		if err != nil {
			t.Fatal(err)
		}
		if c.KeyUsage != usage {
			t.Errorf("%s: key usage %b, want %b", a, c.KeyUsage, usage)
		}
	}
}

func TestAlgorithmNames(t *testing.T) {
	for name, want := range map[string]issue.Algorithm{"": issue.RSA2048, "ecdsa-p256": issue.ECDSAP256, "ED25519": issue.Ed25519} {
		if got, err := issue.ParseAlgorithm(name); err != nil || got != want {
			t.Errorf("%q: %s, %v", name, got, err)
		}
	}
	_, err := issue.ParseAlgorithm("RSA-1024")
	if err == nil || !strings.Contains(err.Error(), "RSA-2048") {
		t.Errorf("got %v, want the known algorithms", err)
	}
	if _, err := issue.GenerateKey("RSA-1024"); err == nil {
		t.Error("a key of RSA-1024 was made")
	}
}

func TestPrivateKeysThatAreRefused(t *testing.T) {
	data, err := issue.EncodePrivateKey(generate(t, issue.ECDSAP256))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	spoil := func(change func(*pem.Block)) []byte {
		b := pem.Block{Type: block.Type, Bytes: bytes.Clone(block.Bytes)}
		change(&b)
		return pem.EncodeToMemory(&b)
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":         {nil, "no private key"},
		"another type":    {spoil(func(b *pem.Block) { b.Type = "RSA PRIVATE KEY" }), "line 1: RSA PRIVATE KEY block does not parse"},
		"cut":             {spoil(func(b *pem.Block) { b.Bytes = b.Bytes[:20] }), "does not parse as a private key"},
		"encrypted PKCS8": {spoil(func(b *pem.Block) { b.Type = "ENCRYPTED PRIVATE KEY" }), "is encrypted"},
		"encrypted PEM":   {spoil(func(b *pem.Block) { b.Headers = map[string]string{"DEK-Info": "AES", "Proc-Type": "4,ENCRYPTED"} }), "is encrypted"},
		"DSA":             {spoil(func(b *pem.Block) { b.Type = "DSA PRIVATE KEY" }), "are not read by Kubernetes"},
	} {
		_, err := issue.ParsePrivateKey(c.data)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	if _, err := issue.ParsePrivateKey([]byte("x")); !errors.Is(err, issue.ErrNoPrivateKey) {
		t.Errorf("got %v, want ErrNoPrivateKey", err)
	}
}

func TestSignedCertificatesHoldWhatWasAsked(t *testing.T) {
	a := root(t)
	key := generate(t, issue.Ed25519)
	template := leafTemplate()
	template.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.test", Path: "/a"}}
	template.Serial = big.NewInt(7)
	c, err := issue.Sign(template, key.Public(), a)
	if err != nil {
		t.Fatal(err)
	}
	if err := issue.CheckAnswer(template, key.Public(), c); err != nil {
		t.Error(err)
	}
	if err := c.CheckSignatureFrom(a.Certificate); err != nil {
		t.Error(err)
	}
	if c.IsCA || !c.BasicConstraintsValid || c.SerialNumber.Int64() != 7 || len(c.URIs) != 1 || !bytes.Equal(c.AuthorityKeyId, a.Certificate.SubjectKeyId) {
		t.Errorf("certificate %+v", c)
	}
	zero := 0
	below, err := issue.Sign(issue.Template{Subject: pkix.Name{CommonName: "below"}, Authority: true, PathLength: &zero,
		NotBefore: now, NotAfter: now.Add(time.Minute)}, key.Public(), a)
	if err != nil {
		t.Fatal(err)
	}
	if !below.IsCA || below.MaxPathLen != 0 || !below.MaxPathLenZero || below.KeyUsage&x509.KeyUsageCertSign == 0 {
		t.Errorf("intermediate %+v", below)
	}
}

func TestALeafNeverOutlivesItsAuthority(t *testing.T) {
	a := root(t)
	template := leafTemplate()
	template.NotAfter = now.Add(100 * time.Hour)
	c, err := issue.Sign(template, generate(t, issue.Ed25519).Public(), a)
	if err != nil || !c.NotAfter.Equal(a.Certificate.NotAfter) {
		t.Errorf("ends at %s, its authority at %s: %v", c.NotAfter, a.Certificate.NotAfter, err)
	}
}

func TestSerialsAreRandomAndPositive(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		n, err := issue.NewSerial()
		if err != nil || n.Sign() <= 0 || n.BitLen() > 63 || seen[n.String()] {
			t.Fatalf("serial %s: %v", n, err)
		}
		seen[n.String()] = true
	}
}

func TestSigningIsRefused(t *testing.T) {
	good, key := root(t), generate(t, issue.Ed25519)
	leaf, err := issue.Sign(leafTemplate(), key.Public(), good)
	if err != nil {
		t.Fatal(err)
	}
	backwards, nameless, zero := leafTemplate(), leafTemplate(), leafTemplate()
	backwards.NotAfter = backwards.NotBefore
	nameless.Subject, nameless.DNSNames, nameless.Addresses = pkix.Name{}, nil, nil
	zero.Serial = new(big.Int)
	for want, c := range map[string]struct {
		template  issue.Template
		authority issue.Authority
	}{
		"is not at hand":        {leafTemplate(), issue.Authority{Certificate: good.Certificate}},
		"is not an authority":   {leafTemplate(), issue.Authority{Certificate: leaf, Key: key}},
		"does not belong":       {leafTemplate(), issue.Authority{Certificate: good.Certificate, Key: key}},
		"expired at 2026-06-01": {leafTemplate(), root(t, func(e *issue.Template) { e.NotAfter = now.Add(-time.Second) })},
		"before it starts":      {backwards, good},
		"needs a common name":   {nameless, good},
		"is not positive":       {zero, good},
	} {
		_, err := issue.Sign(c.template, key.Public(), c.authority)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestRequestsCarryUsages(t *testing.T) {
	for _, a := range []issue.Algorithm{issue.RSA2048, issue.ECDSAP384, issue.Ed25519} {
		key := generate(t, a)
		r, err := issue.Request(leafTemplate(), key)
		if err != nil {
			t.Fatal(err)
		}
		back, err := issue.ParseRequest(issue.EncodeRequest(r))
		if err != nil {
			t.Fatal(err)
		}
		usages, unknown, err := issue.RequestedUsages(back)
		if err != nil || len(unknown) > 0 || len(usages) != 2 || usages[0] != x509.ExtKeyUsageServerAuth {
			t.Errorf("%s: usages %v, unknown %v, error %v", a, usages, unknown, err)
		}
		if back.Subject.CommonName != "leaf" || len(back.DNSNames) != 1 || len(back.IPAddresses) != 1 || !trust.SameKey(back.PublicKey, key.Public()) {
			t.Errorf("%s: request %+v", a, back)
		}
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	r, err := issue.Request(leafTemplate(), generate(t, issue.Ed25519))
	if err != nil {
		t.Fatal(err)
	}
	good := issue.EncodeRequest(r)
	forged := bytes.Clone(r.Raw)
	forged[len(forged)-1] ^= 1
	for want, data := range map[string][]byte{
		"not exactly one PEM block":   append(bytes.Clone(good), good...),
		"not signed by its own key":   pem.EncodeToMemory(&pem.Block{Type: trust.RequestType, Bytes: forged}),
		"line 1":                      pem.EncodeToMemory(&pem.Block{Type: trust.RequestType, Bytes: []byte("x")}),
		"block has no end":            good[:len(good)/2],
		"of type CERTIFICATE REQUEST": pem.EncodeToMemory(&pem.Block{Type: trust.CertificateType, Bytes: r.Raw}),
		"larger than":                 bytes.Repeat([]byte("x"), trust.MaxPEM+1),
	} {
		if _, err := issue.ParseRequest(data); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	template := leafTemplate()
	template.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	if _, err := issue.Request(template, generate(t, issue.Ed25519)); err == nil {
		t.Error("a usage foreign to TLS was requested")
	}
}

func TestAnswersThatAreRefused(t *testing.T) {
	a, key := root(t), generate(t, issue.Ed25519)
	for want, change := range map[string]func(*issue.Template){
		`common name is "x", asked was "leaf"`:    func(e *issue.Template) { e.Subject.CommonName = "x" },
		"organizations are":                       func(e *issue.Template) { e.Subject.Organization = []string{"a", "b", "system:masters"} },
		"is an authority":                         func(e *issue.Template) { e.Authority = true },
		`DNS name "leaf.example.test" is missing`: func(e *issue.Template) { e.DNSNames = nil },
		"IP address 10.0.0.1 is missing":          func(e *issue.Template) { e.Addresses = nil },
		"extended usage clientAuth is missing":    func(e *issue.Template) { e.Usages = e.Usages[:1] },
	} {
		template := leafTemplate()
		change(&template)
		c, err := issue.Sign(template, key.Public(), a)
		if err != nil {
			t.Fatal(err)
		}
		if err := issue.CheckAnswer(leafTemplate(), key.Public(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	more := leafTemplate()
	more.DNSNames = append(more.DNSNames, "more.example.test")
	more.Subject.Organization = []string{"b", "a"}
	c, err := issue.Sign(more, key.Public(), a)
	if err != nil {
		t.Fatal(err)
	}
	if err := issue.CheckAnswer(leafTemplate(), key.Public(), c); err != nil {
		t.Errorf("more names are the signer's business: %v", err)
	}
	if err := issue.CheckAnswer(leafTemplate(), generate(t, issue.Ed25519).Public(), c); err == nil {
		t.Error("a certificate for another key passed")
	}
}

func TestAnAnswerMustBeAllowedToSignHandshakes(t *testing.T) {
	a, key := root(t), generate(t, issue.RSA2048)
	for usage, ok := range map[x509.KeyUsage]bool{
		0:                             true, // not restricted
		x509.KeyUsageDigitalSignature: true,
		x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment: true,
		x509.KeyUsageKeyEncipherment:                                 false,
	} {
		template := leafTemplate()
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: template.Subject, DNSNames: template.DNSNames, IPAddresses: template.Addresses,
			NotBefore: now, NotAfter: now.Add(time.Hour), KeyUsage: usage, ExtKeyUsage: template.Usages,
		}, a.Certificate, key.Public(), a.Key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		err = issue.CheckAnswer(template, key.Public(), c)
		if ok != (err == nil) || err != nil && !strings.Contains(err.Error(), "key usage digitalSignature is missing") {
			t.Errorf("key usage %b: %v", usage, err)
		}
	}
}

// FuzzParseRequest holds that what is read can be written and is read again.
func FuzzParseRequest(f *testing.F) {
	r, err := issue.Request(leafTemplate(), generate(f, issue.Ed25519))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(issue.EncodeRequest(r))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := issue.ParseRequest(data)
		if err != nil {
			return
		}
		second, err := issue.ParseRequest(issue.EncodeRequest(first))
		if err != nil || !bytes.Equal(first.Raw, second.Raw) {
			t.Fatalf("read again: %v", err)
		}
		_, _, _ = issue.RequestedUsages(first) // must not panic
	})
}

// FuzzParsePrivateKey holds that what is read can be written and is read again.
func FuzzParsePrivateKey(f *testing.F) {
	for _, a := range []issue.Algorithm{issue.ECDSAP256, issue.Ed25519, issue.RSA2048} {
		data, err := issue.EncodePrivateKey(generate(f, a))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := issue.ParsePrivateKey(data)
		if err != nil {
			return
		}
		again, err := issue.EncodePrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		back, err := issue.ParsePrivateKey(again)
		if err != nil || !trust.SameKey(back.Public(), key.Public()) {
			t.Fatalf("read again: %v", err)
		}
	})
}
