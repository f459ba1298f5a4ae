package workload_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/cert-manager/cert-manager/pkg/util/pki"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

func bigOdd(bits int) *big.Int { return new(big.Int).SetBit(big.NewInt(1), bits-1, 1) }

// link is one authority of a test.
type link struct {
	c   *x509.Certificate
	key crypto.Signer
}

// newLink makes an authority below another, or a root.
func newLink(t testing.TB, name string, above *link, change ...func(*x509.Certificate)) *link {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := issue.NewSerial()
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour)}
	for _, f := range change {
		f(template)
	}
	parent, signer := template, key
	if above != nil {
		parent, signer = above.c, above.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &link{c, key}
}

func (l *link) keyPEM(t testing.TB) []byte {
	t.Helper()
	text, err := issue.EncodePrivateKey(l.key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func newAuthority(t testing.TB, name string) *workload.Authority {
	t.Helper()
	root := newLink(t, name, nil)
	a, err := workload.AuthorityOf(trust.EncodeCertificates(root.c), root.keyPEM(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func askedOf(t testing.TB, change ...func(*cmapi.CertificateSpec)) (*workload.Asked, *cmapi.CertificateRequest) {
	t.Helper()
	spec := &cmapi.CertificateSpec{CommonName: "shop", DNSNames: []string{"shop.example.com"}, IssuerRef: cmmeta.IssuerReference{Name: "ca"}}
	for _, f := range change {
		f(spec)
	}
	text, err := workload.Request(spec, sharedKey)
	if err != nil {
		t.Fatal(err)
	}
	object := requestObject(spec, text)
	a, err := workload.Read(object)
	if err != nil {
		t.Fatal(err)
	}
	return a, object
}

func TestSignGivesWhatUpstreamGives(t *testing.T) {
	root := newLink(t, "root", nil)
	middle := newLink(t, "middle", root)
	low := newLink(t, "low", middle)
	stranger := newLink(t, "stranger", nil)
	pem := func(list ...*link) []byte {
		var text []byte
		for _, l := range list {
			text = append(text, trust.EncodeCertificates(l.c)...)
		}
		return text
	}
	for _, tt := range []struct {
		name    string
		signer  *link
		crt, ca []byte
		want    []*link // above the leaf in tls.crt
		top     *link   // ca.crt
	}{
		{"a root alone", root, pem(root), nil, nil, root},
		{"a root with itself as ca.crt", root, pem(root), pem(root), nil, root},
		{"an intermediate without anything above", low, pem(low), nil, []*link{low}, low},
		{"an intermediate with its root in ca.crt", middle, pem(middle), pem(root), []*link{middle}, root},
		{"a chain in tls.crt, root and all", low, pem(low, middle, root), nil, []*link{low, middle}, root},
		{"a chain in another order", low, pem(low, root, middle), nil, []*link{low, middle}, root},
		{"a chain without its root, and that in ca.crt", low, pem(low, middle), pem(root), []*link{low, middle}, root},
		{"a certificate twice", low, pem(low, middle, middle), pem(root, stranger), []*link{low, middle}, root},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := workload.AuthorityOf(tt.crt, tt.signer.keyPEM(t), tt.ca)
			if err != nil {
				t.Fatal(err)
			}
			asked, object := askedOf(t)
			issued, err := workload.Sign(asked, a, nil, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if want := append(trust.EncodeCertificates(issued.Leaf), pem(tt.want...)...); !bytes.Equal(issued.Chain, want) {
				t.Errorf("tls.crt is\n%s\nwant\n%s", issued.Chain, want)
			}
			if !bytes.Equal(issued.CA, pem(tt.top)) {
				t.Errorf("ca.crt is\n%s", issued.CA)
			}
			theirs := upstreamSigns(t, tt.crt, tt.ca, tt.signer.key, object)
			if got, want := issued.Chain[len(trust.EncodeCertificates(issued.Leaf)):], theirs.ChainPEM; !bytes.HasSuffix(want, got) {
				t.Errorf("above the leaf are\n%s\nupstream's tls.crt is\n%s", got, want)
			}
			if !bytes.Equal(issued.CA, theirs.CAPEM) {
				t.Errorf("ca.crt is not upstream's:\n%s", theirs.CAPEM)
			}
			compareLeaves(t, issued.Leaf, theirs.ChainPEM)
		})
	}
	if _, err := workload.AuthorityOf(pem(low, stranger), low.keyPEM(t), nil); err == nil || !strings.Contains(err.Error(), `"CN=stranger" does not belong to the chain`) {
		t.Errorf("a stranger in tls.crt: %v", err)
	}
}

func upstreamSigns(t testing.TB, crt, ca []byte, key crypto.Signer, object *cmapi.CertificateRequest) pki.PEMBundle {
	t.Helper()
	template, err := pki.CertificateTemplateFromCertificateRequest(object)
	if err != nil {
		t.Fatal(err)
	}
	certificates, err := pki.DecodeX509CertificateChainBytes(crt)
	if err != nil {
		t.Fatal(err)
	}
	if len(ca) > 0 {
		first, err := pki.DecodeX509CertificateBytes(ca)
		if err != nil {
			t.Fatal(err)
		}
		certificates = append(certificates, first)
	}
	bundle, err := pki.SignCSRTemplate(certificates, key, template)
	if err != nil {
		t.Fatal(err)
	}
	return bundle
}

// compareLeaves looks at all that is not drawn or of the hour.
func compareLeaves(t testing.TB, ours *x509.Certificate, chain []byte) {
	t.Helper()
	theirs, err := pki.DecodeX509CertificateBytes(chain)
	if err != nil {
		t.Fatal(err)
	}
	show := func(c *x509.Certificate) string {
		var extensions []string
		for _, e := range c.Extensions {
			extensions = append(extensions, fmt.Sprint(e))
		}
		slices.Sort(extensions)
		return fmt.Sprintf("%x %x %s %d %v", c.RawSubject, c.RawIssuer, c.NotAfter.Sub(c.NotBefore), c.SignatureAlgorithm, extensions)
	}
	if show(ours) != show(theirs) {
		t.Errorf("the certificate is\n%s\nupstream's\n%s", show(ours), show(theirs))
	}
	if ours.SerialNumber.BitLen() < 100 {
		t.Errorf("serial number %s", ours.SerialNumber)
	}
}

func TestTheLifeOfACertificate(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	lives := func(from, to time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(from), now.Add(to) }
	}
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name       string
		root, low  func(*x509.Certificate)
		duration   time.Duration
		begin, end time.Duration // from now
		want       string
	}{
		{"90 days, from now on", lives(-day, 1000*day), lives(-day, 900*day), 90 * day, 0, 90 * day, ""},
		{"an hour, all of it before it", lives(-day, 1000*day), lives(-day, 900*day), time.Hour, 0, time.Hour, ""},
		{"not past the authority's end", lives(-day, 1000*day), lives(-day, 9*day), 90 * day, 0, 9 * day, ""},
		{"not past the end of one above", lives(-day, 9*day), lives(-day, 900*day), 90 * day, 0, 9 * day, ""},
		{"an authority that was made a moment ago", lives(-day, 1000*day), lives(0, 900*day), 90 * day, 0, 90 * day, ""},
		{"an authority that has expired", lives(-day, 1000*day), lives(-day, -time.Minute), 90 * day, 0, 0, `authority "CN=low" expired`},
		{"one above that has", lives(-day, -time.Minute), lives(-day, 900*day), 90 * day, 0, 0, `authority "CN=root", above "CN=low", expired`},
		{"an authority that is not valid yet", lives(-day, 1000*day), lives(time.Hour, 900*day), 90 * day, 0, 0, `"CN=low" is not valid before`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := newLink(t, "root", nil, tt.root)
			low := newLink(t, "low", root, tt.low)
			a, err := workload.AuthorityOf(trust.EncodeCertificates(low.c, root.c), low.keyPEM(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			asked, _ := askedOf(t, func(s *cmapi.CertificateSpec) { s.Duration = &metav1.Duration{Duration: tt.duration} })
			issued, err := workload.Sign(asked, a, nil, now)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want one with %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if begin, end := issued.Leaf.NotBefore.Sub(now), issued.Leaf.NotAfter.Sub(now); begin != tt.begin || end != tt.end {
				t.Errorf("lives from %s to %s, want %s to %s", begin, end, tt.begin, tt.end)
			}
		})
	}
}

func TestAnAuthoritysBoundsHold(t *testing.T) {
	within := func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} }
	noneBelow := func(c *x509.Certificate) { c.MaxPathLenZero = true }
	oneBelow := func(c *x509.Certificate) { c.MaxPathLen = 1 }
	isCA := func(s *cmapi.CertificateSpec) { s.IsCA = true }
	elsewhere := func(s *cmapi.CertificateSpec) { s.CommonName, s.DNSNames = "", []string{"shop.evil.org"} }
	other := func(s *cmapi.CertificateSpec) {
		s.CommonName, s.DNSNames = "", nil
		s.OtherNames = []cmapi.OtherName{{OID: "1.3.6.1.4.1.311.20.2.3", UTF8Value: "u@d"}}
	}
	for _, tt := range []struct {
		name      string
		root, low func(*x509.Certificate)
		asked     func(*cmapi.CertificateSpec)
		want      string
	}{
		{name: "a name that the root permits", root: within, asked: func(*cmapi.CertificateSpec) {}},
		{name: "a name that the root does not permit", root: within, asked: elsewhere, want: "not permitted"},
		{name: "a name that the authority itself does not permit", low: within, asked: elsewhere, want: "not permitted"},
		{name: "an authority below one that has no bound", asked: isCA},
		{name: "an authority below one that may have none", low: noneBelow, asked: isCA, want: `"CN=low" may have 0 authorities below`},
		{name: "an authority two below one that may have one", root: oneBelow, asked: isCA, want: `"CN=root" may have 1 authorities below`},
		{name: "a leaf below one that may have no authorities", low: noneBelow, asked: func(*cmapi.CertificateSpec) {}},
		{name: "nothing but another name, in a critical extension", asked: other},
	} {
		t.Run(tt.name, func(t *testing.T) {
			keep := func(f func(*x509.Certificate)) func(*x509.Certificate) {
				if f == nil {
					return func(*x509.Certificate) {}
				}
				return f
			}
			root := newLink(t, "root", nil, keep(tt.root))
			low := newLink(t, "low", root, keep(tt.low))
			a, err := workload.AuthorityOf(trust.EncodeCertificates(low.c, root.c), low.keyPEM(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			asked, _ := askedOf(t, tt.asked)
			_, err = workload.Sign(asked, a, nil, time.Now())
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestTheKeyOfAnAuthorityIsNotCertifiedByItself(t *testing.T) {
	root := newLink(t, "root", nil)
	low := newLink(t, "low", root)
	a, err := workload.AuthorityOf(trust.EncodeCertificates(low.c, root.c), low.keyPEM(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		key crypto.Signer
		ok  bool
	}{"another key": {sharedKey, true}, "the authority's own": {low.key, false}, "that of the root": {root.key, false}} {
		spec := &cmapi.CertificateSpec{CommonName: "shop", IssuerRef: cmmeta.IssuerReference{Name: "ca"}}
		text, err := workload.Request(spec, row.key)
		if err != nil {
			t.Fatal(err)
		}
		asked, err := workload.Read(requestObject(spec, text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := workload.Sign(asked, a, nil, time.Now()); (err == nil) != row.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSecretsThatAreNoAuthority(t *testing.T) {
	root, other := newLink(t, "root", nil), newLink(t, "other", nil)
	leaf := newLink(t, "leaf", root, func(c *x509.Certificate) { c.IsCA = false })
	noSigning := newLink(t, "no-signing", nil, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	for _, tt := range []struct {
		name     string
		crt, key []byte
		want     string
	}{
		{"a leaf", trust.EncodeCertificates(leaf.c), leaf.keyPEM(t), `"CN=leaf" is not an authority`},
		{"an authority that may not sign certificates", trust.EncodeCertificates(noSigning.c), noSigning.keyPEM(t), "keyCertSign is not set"},
		{"the key of another", trust.EncodeCertificates(root.c), other.keyPEM(t), "the key does not belong"},
		{"no key", trust.EncodeCertificates(root.c), nil, "tls.key: no private key"},
		{"no certificate", nil, root.keyPEM(t), "tls.crt: no PEM block"},
		{"a key of a megabyte", trust.EncodeCertificates(root.c), bytes.Repeat([]byte("x"), 1<<20), "tls.key: the private key has"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := workload.AuthorityOf(tt.crt, tt.key, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestWhatAnIssuerAdds(t *testing.T) {
	asked, _ := askedOf(t)
	spec := &cmapi.CAIssuer{CRLDistributionPoints: []string{"http://crl"}, OCSPServers: []string{"http://ocsp"}, IssuingCertificateURLs: []string{"http://ca"}}
	issued, err := workload.Sign(asked, newAuthority(t, "ca"), spec, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(issued.Leaf.CRLDistributionPoints, issued.Leaf.OCSPServer, issued.Leaf.IssuingCertificateURL); got != "[http://crl] [http://ocsp] [http://ca]" {
		t.Error(got)
	}
	self, err := workload.SignSelf(asked, sharedKey, &cmapi.SelfSignedIssuer{CRLDistributionPoints: []string{"http://crl"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(self.Chain, self.CA) || self.Leaf.CheckSignature(self.Leaf.SignatureAlgorithm, self.Leaf.RawTBSCertificate, self.Leaf.Signature) != nil ||
		fmt.Sprint(self.Leaf.CRLDistributionPoints) != "[http://crl]" {
		t.Errorf("%s", self.Chain)
	}
	other, _ := issue.GenerateKey(issue.ECDSAP256)
	if _, err := workload.SignSelf(asked, other, nil, time.Now()); err == nil {
		t.Error("a key that is not the request's signs for itself")
	}
}

func BenchmarkSign(b *testing.B) {
	a := newAuthority(b, "ca")
	asked, object := askedOf(b)
	for b.Loop() {
		if _, err := workload.Read(object); err != nil {
			b.Fatal(err)
		}
		if _, err := workload.Sign(asked, a, nil, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRecall(b *testing.B) {
	_, object := askedOf(b)
	for b.Loop() {
		w, _, err := workload.Recall(object)
		if err != nil {
			b.Fatal(err)
		}
		w.Digest()
	}
}
