package workload_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/cert-manager/cert-manager/pkg/util/pki"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/workload"
)

func TestSpecsThatNobodyCanFulfil(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*cmapi.CertificateSpec)
		want   string // "" for a good one
	}{
		{"a plain one", func(*cmapi.CertificateSpec) {}, ""},
		{"no name", func(s *cmapi.CertificateSpec) { s.DNSNames = nil }, "at least one of commonName"},
		{"organizations are no name", func(s *cmapi.CertificateSpec) {
			s.DNSNames, s.Subject = nil, &cmapi.X509Subject{Organizations: []string{"a"}}
		}, "at least one of commonName"},
		{"a common name of 64 bytes", func(s *cmapi.CertificateSpec) { s.CommonName = strings.Repeat("a", 64) }, ""},
		{"a common name of 65", func(s *cmapi.CertificateSpec) { s.CommonName = strings.Repeat("a", 65) }, "65 bytes long"},
		{"a literal subject", func(s *cmapi.CertificateSpec) { s.LiteralSubject = "CN=a,O=b" }, ""},
		{"attributes in small letters", func(s *cmapi.CertificateSpec) { s.LiteralSubject = "cn=a,o=b" }, ""},
		{"a literal subject and a common name", func(s *cmapi.CertificateSpec) { s.LiteralSubject, s.CommonName = "CN=a", "a" }, "spec.literalSubject: not together"},
		{"an attribute that nobody knows", func(s *cmapi.CertificateSpec) { s.LiteralSubject = "FOO=a" }, `attribute "FOO" is not known`},
		{"a literal subject that is no name", func(s *cmapi.CertificateSpec) { s.LiteralSubject = "hello" }, "RFC 4514"},
		{"an address with a zone", func(s *cmapi.CertificateSpec) { s.IPAddresses = []string{"10.0.0.1", "fe80::1%eth0"} }, `spec.ipAddresses[1]: "fe80::1%eth0"`},
		{"an empty DNS name", func(s *cmapi.CertificateSpec) { s.DNSNames = []string{""} }, "spec.dnsNames[0]: is empty"},
		{"a DNS name with umlauts", func(s *cmapi.CertificateSpec) { s.DNSNames = []string{"bücher.example"} }, "punycode"},
		{"a URI that is none", func(s *cmapi.CertificateSpec) { s.URIs = []string{"http://[::1"} }, "spec.uris[0]"},
		{"an object identifier that is none", func(s *cmapi.CertificateSpec) { s.OtherNames = []cmapi.OtherName{{OID: "9.9", UTF8Value: "a"}} }, "spec.otherNames[0].oid"},
		{"an empty other name", func(s *cmapi.CertificateSpec) { s.OtherNames = []cmapi.OtherName{{OID: "1.2.3"}} }, "spec.otherNames[0].utf8Value"},
		{"a usage that is none", func(s *cmapi.CertificateSpec) { s.Usages = []cmapi.KeyUsage{"server auth", "root"} }, `spec.usages[1]: "root"`},
		{"name constraints of a leaf", func(s *cmapi.CertificateSpec) { s.NameConstraints = &cmapi.NameConstraints{} }, "set spec.isCA"},
		{"a range that is none", func(s *cmapi.CertificateSpec) {
			s.IsCA, s.NameConstraints = true, &cmapi.NameConstraints{Excluded: &cmapi.NameConstraintItem{IPRanges: []string{"10.0.0.1"}}}
		}, "spec.nameConstraints.excluded.ipRanges[0]"},
		{"a life of nothing", func(s *cmapi.CertificateSpec) { s.Duration = &metav1.Duration{} }, "spec.duration"},
		{"no issuer", func(s *cmapi.CertificateSpec) { s.IssuerRef.Name = "" }, "spec.issuerRef.name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := &cmapi.CertificateSpec{DNSNames: []string{"a"}, IssuerRef: cmmeta.IssuerReference{Name: "ca"}}
			tt.change(spec)
			_, err := workload.WishOf(spec)
			if _, requestErr := workload.Request(spec, sharedKey); fmt.Sprint(requestErr) != fmt.Sprint(err) {
				t.Errorf("the wish says %v, the request %v", err, requestErr)
			}
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestEqualWishesHaveEqualDigests(t *testing.T) {
	life := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	base := cmapi.CertificateSpec{CommonName: "a", DNSNames: []string{"a", "b"}, IssuerRef: cmmeta.IssuerReference{Name: "ca"},
		Subject: &cmapi.X509Subject{Organizations: []string{"x", "y"}}}
	digest := func(s cmapi.CertificateSpec) [32]byte {
		w, err := workload.WishOf(&s)
		if err != nil {
			t.Fatal(err)
		}
		return w.Digest()
	}
	for name, tt := range map[string]struct {
		change func(*cmapi.CertificateSpec)
		equal  bool
	}{
		"names in another order":         {func(s *cmapi.CertificateSpec) { s.DNSNames = []string{"b", "a"} }, true},
		"organizations in another order": {func(s *cmapi.CertificateSpec) { s.Subject = &cmapi.X509Subject{Organizations: []string{"y", "x"}} }, true},
		"the defaults written out": {func(s *cmapi.CertificateSpec) {
			s.Usages, s.Duration = []cmapi.KeyUsage{"key encipherment", "digital signature"}, life(2160*time.Hour)
			s.IssuerRef.Kind, s.IssuerRef.Group = "Issuer", "cert-manager.io"
		}, true},
		"what is not in the certificate": {func(s *cmapi.CertificateSpec) { s.SecretName, s.RenewBefore = "other", life(time.Hour) }, true},
		"one name twice":                 {func(s *cmapi.CertificateSpec) { s.DNSNames = []string{"a", "b", "b"} }, false},
		"a name moved to another kind":   {func(s *cmapi.CertificateSpec) { s.DNSNames, s.EmailAddresses = []string{"a"}, []string{"b"} }, false},
		"a name cut in another place":    {func(s *cmapi.CertificateSpec) { s.DNSNames = []string{"ab"} }, false},
		"another life":                   {func(s *cmapi.CertificateSpec) { s.Duration = life(time.Hour) }, false},
		"another common name":            {func(s *cmapi.CertificateSpec) { s.CommonName = "A" }, false},
		"an authority":                   {func(s *cmapi.CertificateSpec) { s.IsCA = true }, false},
		"another kind of issuer":         {func(s *cmapi.CertificateSpec) { s.IssuerRef.Kind = "ClusterIssuer" }, false},
		"one more usage":                 {func(s *cmapi.CertificateSpec) { s.Usages = append(cmapi.DefaultKeyUsages(), "server auth") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			changed := *base.DeepCopy()
			tt.change(&changed)
			if equal := digest(base) == digest(changed); equal != tt.equal {
				t.Errorf("equal: %t", equal)
			}
		})
	}
}

func TestAChangedNameConstraintIsADifference(t *testing.T) {
	spec := cmapi.CertificateSpec{CommonName: "a", IsCA: true, IssuerRef: cmmeta.IssuerReference{Name: "ca"}}
	bounded := *spec.DeepCopy()
	bounded.NameConstraints = &cmapi.NameConstraints{Permitted: &cmapi.NameConstraintItem{DNSDomains: []string{"example.com"}}}
	a, _ := workload.WishOf(&bounded)
	b, _ := workload.WishOf(&spec)
	if got := workload.Differences(a, b); !slices.Equal(got, []string{"spec.nameConstraints"}) {
		t.Error(got)
	}
}

// The common names of a name of a directory: programs differ in which one they show.
func TestAllCommonNamesAreSeen(t *testing.T) {
	w, err := workload.WishOf(&cmapi.CertificateSpec{LiteralSubject: "CN=host,CN=Users,DC=example", IssuerRef: cmmeta.IssuerReference{Name: "ca"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := w.CommonNames(); !slices.Equal(got, []string{"Users", "host"}) {
		t.Error(got)
	}
}

func TestKeysAreAsTheSpecWishes(t *testing.T) {
	for _, p := range []*cmapi.CertificatePrivateKey{
		nil, {Encoding: cmapi.PKCS8}, {Algorithm: cmapi.RSAKeyAlgorithm, Size: 3072, Encoding: cmapi.PKCS1},
		{Algorithm: cmapi.ECDSAKeyAlgorithm}, {Algorithm: cmapi.ECDSAKeyAlgorithm, Size: 384, Encoding: cmapi.PKCS8}, {Algorithm: cmapi.ECDSAKeyAlgorithm, Size: 521},
		{Algorithm: cmapi.Ed25519KeyAlgorithm}, {Algorithm: cmapi.Ed25519KeyAlgorithm, Encoding: cmapi.PKCS8},
	} {
		t.Run(fmt.Sprint(p), func(t *testing.T) {
			spec := &cmapi.CertificateSpec{PrivateKey: p}
			key, err := workload.NewKey(spec)
			if err != nil {
				t.Fatal(err)
			}
			if fields := pki.PrivateKeyMatchesSpec(key, *spec); len(fields) > 0 {
				t.Errorf("upstream misses %v", fields)
			}
			if fields := workload.KeyProblems(key.Public(), spec); len(fields) > 0 {
				t.Errorf("we miss %v", fields)
			}
			text, err := workload.EncodeKey(key, spec)
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := pki.EncodePrivateKey(key, encodingOf(p))
			if err != nil || string(theirs) != string(text) {
				t.Errorf("upstream encodes it in another way: %v", err)
			}
			again, err := workload.ParseKey(text)
			if err != nil || workload.KeyID(again.Public()) != workload.KeyID(key.Public()) {
				t.Errorf("it does not parse again: %v", err)
			}
		})
	}
	for _, p := range []cmapi.CertificatePrivateKey{
		{Size: 1024}, {Size: 16384}, {Algorithm: cmapi.ECDSAKeyAlgorithm, Size: 224}, {Algorithm: "DSA"},
	} {
		if _, err := workload.NewKey(&cmapi.CertificateSpec{PrivateKey: &p}); err == nil || !strings.HasPrefix(err.Error(), "spec.privateKey.") {
			t.Errorf("%v: %v", p, err)
		}
	}
}

func encodingOf(p *cmapi.CertificatePrivateKey) cmapi.PrivateKeyEncoding {
	if p == nil {
		return ""
	}
	return p.Encoding
}

func TestKeysThatAreRefused(t *testing.T) {
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{0x30, 0}})
	secret := "c2VjcmV0IHNlY3JldCBzZWNyZXQ="
	for name, text := range map[string]string{
		"nothing": "", "a certificate": string(certificate), "rubbish": "-----BEGIN PRIVATE KEY-----\n" + secret + "\n-----END PRIVATE KEY-----\n",
		"too much": strings.Repeat("x", 20<<10),
	} {
		if _, err := workload.ParseKey([]byte(text)); err == nil || strings.Contains(err.Error(), secret[:8]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if usage, extended, err := workload.Usages(nil, true); err != nil || usage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment|x509.KeyUsageCertSign || extended != nil {
		t.Errorf("the usages of an authority by default are %v %v, %v", usage, extended, err)
	}
}
