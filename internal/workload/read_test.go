package workload_test

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
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/cert-manager/cert-manager/pkg/util/pki"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/kubepki/kubepki/internal/workload"
)

// extension makes one of a value in ASN.1.
func extension(critical bool, value any, oid ...int) pkix.Extension {
	der, err := asn1.Marshal(value)
	if err != nil {
		panic(err)
	}
	return pkix.Extension{Id: oid, Critical: critical, Value: der}
}

func general(tag int, value string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(value)}
}

func explicit(tag int, value []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: true, Bytes: value}
}

func sans(names ...asn1.RawValue) pkix.Extension { return extension(false, names, 2, 5, 29, 17) }

func upn(value ...byte) asn1.RawValue {
	oid, _ := asn1.Marshal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3})
	explicitValue, _ := asn1.Marshal(explicit(0, value))
	return explicit(0, append(oid, explicitValue...))
}

func basic(ca bool, pathLength int) pkix.Extension {
	return extension(true, struct {
		CA         bool `asn1:"optional"`
		PathLength int  `asn1:"optional,default:-1"`
	}{ca, pathLength}, 2, 5, 29, 19)
}

func usage(bits byte, length int) pkix.Extension {
	return extension(true, asn1.BitString{Bytes: []byte{bits}, BitLength: length}, 2, 5, 29, 15)
}

func extended(oids ...asn1.ObjectIdentifier) pkix.Extension {
	return extension(false, oids, 2, 5, 29, 37)
}

var serverAuth, mystery = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 99}

func makeRequest(t testing.TB, key crypto.Signer, r x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &r, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestARequestThatWasChangedIsRefused(t *testing.T) {
	r := &cmapi.CertificateRequest{Spec: cmapi.CertificateRequestSpec{IssuerRef: cmmeta.IssuerReference{Name: "i"},
		Request: makeRequest(t, sharedKey, x509.CertificateRequest{Subject: pkix.Name{CommonName: "a"}})}}
	for _, generation := range []int64{0, 1} {
		r.Generation = generation
		if _, err := workload.Read(r); err != nil {
			t.Errorf("generation %d: %v", generation, err)
		}
	}
	r.Generation = 2
	if _, err := workload.Read(r); err == nil || !strings.Contains(err.Error(), "was changed after the request was made") {
		t.Errorf("generation 2: %v", err)
	}
}

func TestHostileRequestsAreRefused(t *testing.T) {
	weak, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	t.Setenv("GODEBUG", "rsa1024min=0")
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	type spec = cmapi.CertificateRequestSpec
	with := func(extensions ...pkix.Extension) x509.CertificateRequest {
		return x509.CertificateRequest{Subject: pkix.Name{CommonName: "a"}, ExtraExtensions: extensions}
	}
	good := makeRequest(t, sharedKey, with())
	tests := []struct {
		name    string
		request []byte
		spec    spec
		want    string // "" for a good one
	}{
		{"a plain request is taken", good, spec{}, ""},
		{"text around the block is taken", slices.Concat([]byte("Certificate Request:\n"), good, []byte("\nbye\n")), spec{}, ""},
		{"lines may end as on Windows", bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")), spec{}, ""},
		{"the old label of a block is taken", bytes.ReplaceAll(good, []byte("CERTIFICATE REQ"), []byte("NEW CERTIFICATE REQ")), spec{}, ""},
		{"nothing", nil, spec{}, "not exactly one PEM block"},
		{"a second block", slices.Concat(good, good), spec{}, "not exactly one PEM block"},
		{"a certificate's label", bytes.ReplaceAll(good, []byte("CERTIFICATE REQUEST"), []byte("CERTIFICATE")), spec{}, "not exactly one PEM block"},
		{"no end", good[:len(good)-20], spec{}, "has no end"},
		{"more than the bound", append(bytes.Clone(good), bytes.Repeat([]byte("x"), workload.MaxRequest)...), spec{}, "bytes, more than"},
		{"begin lines that made decoders quadratic", bytes.Repeat([]byte("-----BEGIN \n-----END \n"), 4000), spec{}, "not exactly one PEM block"},
		{"DER with something behind", reblock(good, func(der []byte) []byte { return append(der, 0) }), spec{}, "trailing data"},
		{"a signature that is not of the key", reblock(good, func(der []byte) []byte { der[len(der)-1] ^= 1; return der }), spec{}, "not signed by its own key"},
		{"RSA with 1024 bits", makeRequest(t, small, with()), spec{}, "1024 bits is too weak"},
		{"a key on P-224", makeRequest(t, weak, with()), spec{}, "P-224 is too weak"},

		{"isCA with basic constraints that say the same", makeRequest(t, sharedKey, with(basic(true, -1))), spec{IsCA: true}, ""},
		{"CA:TRUE without isCA", makeRequest(t, sharedKey, with(basic(true, -1))), spec{}, "CA:true, and spec.isCA is false"},
		{"CA:FALSE with isCA", makeRequest(t, sharedKey, with(basic(false, -1))), spec{IsCA: true}, "CA:false, and spec.isCA is true"},
		{"CA:FALSE without isCA", makeRequest(t, sharedKey, with(basic(false, -1))), spec{}, ""},
		{"the usages by default", makeRequest(t, sharedKey, with(usage(0xa0, 3))), spec{}, ""},
		{"cert sign without isCA", makeRequest(t, sharedKey, with(usage(0xa4, 6))), spec{}, `"cert sign"`},
		{"cert sign with isCA", makeRequest(t, sharedKey, with(usage(0xa4, 6))), spec{IsCA: true}, ""},
		{"server auth that spec.usages has not", makeRequest(t, sharedKey, with(usage(0xa0, 3), extended(serverAuth))), spec{}, `"server auth"`},
		{"server auth that spec.usages has", makeRequest(t, sharedKey, with(usage(0x80, 1), extended(serverAuth))), spec{Usages: []cmapi.KeyUsage{"digital signature", "server auth"}}, ""},
		{"an extended usage without a name", makeRequest(t, sharedKey, with(usage(0x80, 1), extended(serverAuth, mystery))),
			spec{Usages: []cmapi.KeyUsage{"digital signature", "server auth"}}, mystery.String()},
		{"a usage that is none", good, spec{Usages: []cmapi.KeyUsage{"root"}}, `spec.usages[0]: "root" is no usage`},

		{"names of all kinds that a Certificate has", makeRequest(t, sharedKey, with(sans(general(2, "a.b"), general(1, "a@b"), general(6, "spiffe://x/y"), general(7, "\x0a\x00\x00\x01"), upn(12, 1, 'u')))), spec{}, ""},
		{"a directory name", makeRequest(t, sharedKey, with(sans(general(2, "a.b"), explicit(4, []byte{0x30, 0})))), spec{}, "kind directoryName"},
		{"a registered ID", makeRequest(t, sharedKey, with(sans(general(2, "a.b"), general(8, "\x2a\x03")))), spec{}, "kind registeredID"},
		{"an otherName that is no text", makeRequest(t, sharedKey, with(sans(upn(2, 1, 5)))), spec{}, "no UTF-8 text"},
		{"an otherName with something behind", makeRequest(t, sharedKey, with(sans(upn(12, 1, 'u', 12, 1, 'v')))), spec{}, "no UTF-8 text"},
		{"an empty DNS name", makeRequest(t, sharedKey, with(sans(general(2, "")))), spec{}, "is empty"},
		{"a DNS name with NUL", makeRequest(t, sharedKey, with(sans(general(2, "a\x00.evil")))), spec{}, "not printable ASCII"},
		{"a DNS name with a space", makeRequest(t, sharedKey, with(sans(general(2, "a b")))), spec{}, "has a space"},
		{"an address of five bytes", makeRequest(t, sharedKey, with(sans(general(7, "12345")))), spec{}, "IP address of length 5"},
		{"no name at all", makeRequest(t, sharedKey, x509.CertificateRequest{}), spec{}, "names nobody"},
		{"names alone", makeRequest(t, sharedKey, x509.CertificateRequest{DNSNames: []string{"a"}}), spec{}, ""},

		{"name constraints of an authority", makeRequest(t, sharedKey, with(constraints(false))), spec{IsCA: true}, ""},
		{"name constraints of a leaf", makeRequest(t, sharedKey, with(constraints(false))), spec{}, "only an authority has"},
		{"name constraints with a minimum", makeRequest(t, sharedKey, with(constraints(true))), spec{IsCA: true}, "minimum or maximum"},
		{"an unknown extension is left out", makeRequest(t, sharedKey, with(extension(false, 1, 1, 2, 3))), spec{}, ""},
		{"an unknown critical extension", makeRequest(t, sharedKey, with(extension(true, 1, 1, 2, 3))), spec{}, "critical extension 1.2.3"},

		{"a life of nothing", good, spec{Duration: &metav1.Duration{}}, "spec.duration"},
		{"a life before its begin", good, spec{Duration: &metav1.Duration{Duration: -time.Hour}}, "spec.duration"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.spec.Request = tt.request
			tt.spec.IssuerRef = cmmeta.IssuerReference{Name: "ca"}
			_, err := workload.Read(&cmapi.CertificateRequest{Spec: tt.spec})
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func constraints(minimum bool) pkix.Extension {
	subtree := []asn1.RawValue{general(2, "example.com")}
	if minimum {
		subtree = append(subtree, general(0, "\x01"))
	}
	der, _ := asn1.Marshal(subtree)
	side, _ := asn1.Marshal(explicit(0, der))
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: true, Value: append([]byte{0x30, byte(len(side))}, side...)}
}

func reblock(text []byte, change func([]byte) []byte) []byte {
	b, _ := pem.Decode(text)
	b.Bytes = change(bytes.Clone(b.Bytes))
	return pem.EncodeToMemory(b)
}

func TestLongListsOfNamesAreTaken(t *testing.T) {
	spec := &cmapi.CertificateSpec{IssuerRef: cmmeta.IssuerReference{Name: "ca"}}
	for i := range 1500 { // 36,500 bytes of PEM, upstream's bound, are some 700 of these
		spec.DNSNames = append(spec.DNSNames, fmt.Sprintf("tenant-%04d.shop.example.com", i))
	}
	text, err := workload.Request(spec, sharedKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := workload.Read(requestObject(spec, text)); err != nil {
		t.Fatalf("%d bytes: %v", len(text), err)
	}
}

// A key of a million bits takes seconds to verify with: it is refused before.
func TestAHugeKeyCostsNothing(t *testing.T) {
	n := new(rsa.PublicKey)
	n.N, n.E = bigOdd(700_000), 65537
	spki, err := x509.MarshalPKIXPublicKey(n)
	if err != nil {
		t.Fatal(err)
	}
	good, _ := pem.Decode(makeRequest(t, sharedKey, x509.CertificateRequest{Subject: pkix.Name{CommonName: "a"}}))
	var outer struct {
		Info      asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	var info struct {
		Version          int
		Subject, Key, At asn1.RawValue
	}
	if _, err := asn1.Unmarshal(good.Bytes, &outer); err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(outer.Info.FullBytes, &info); err != nil {
		t.Fatal(err)
	}
	info.Key = asn1.RawValue{FullBytes: spki}
	outer.Info.FullBytes, _ = asn1.Marshal(info)
	outer.Algorithm = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue}
	outer.Signature = asn1.BitString{Bytes: make([]byte, 700_000/8), BitLength: 700_000}
	outer.Signature.Bytes = outer.Signature.Bytes[:8]
	outer.Signature.BitLength = 64
	der, _ := asn1.Marshal(outer)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	if len(text) > workload.MaxRequest {
		t.Fatalf("%d bytes do not get as far as the key", len(text))
	}
	begin := time.Now()
	_, err = workload.Read(&cmapi.CertificateRequest{Spec: cmapi.CertificateRequestSpec{Request: text, IssuerRef: cmmeta.IssuerReference{Name: "ca"}}})
	if err == nil || !strings.Contains(err.Error(), "larger than TLS takes") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it took %s", took)
	}
}

// The oracles are crypto/x509 and upstream's own reader: what Read takes they take, its
// names are theirs and none is missing, and upstream makes a template of it with the
// same usages. And what Read takes can be signed, and verifies.
func FuzzRead(f *testing.F) {
	ca := newAuthority(f, "fuzz")
	add := func(r x509.CertificateRequest) {
		b, _ := pem.Decode(makeRequest(f, sharedKey, r))
		f.Add(b.Bytes, r.Subject.CommonName == "ca")
	}
	add(x509.CertificateRequest{Subject: pkix.Name{CommonName: "a"}, DNSNames: []string{"a.b"}, IPAddresses: []net.IP{{10, 0, 0, 1}}})
	add(x509.CertificateRequest{Subject: pkix.Name{CommonName: "ca"}, ExtraExtensions: []pkix.Extension{basic(true, 0), constraints(false), usage(0xa4, 6)}})
	add(x509.CertificateRequest{ExtraExtensions: []pkix.Extension{sans(general(2, "a"), upn(12, 1, 'u')), usage(0xa0, 3)}})
	f.Fuzz(func(t *testing.T, der []byte, isCA bool) {
		der = resign(der)
		object := &cmapi.CertificateRequest{Spec: cmapi.CertificateRequestSpec{
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), IsCA: isCA, IssuerRef: cmmeta.IssuerReference{Name: "ca"}}}
		if err := agreesWithOracles(object, ca); err != nil {
			t.Fatal(err)
		}
	})
}

// agreesWithOracles returns how what Read takes differs from what they see.
func agreesWithOracles(object *cmapi.CertificateRequest, ca *workload.Authority) error {
	if asked, err := workload.Read(object); err == nil {
		return compareAsked(asked, object, ca)
	}
	return nil
}

func compareAsked(asked *workload.Asked, object *cmapi.CertificateRequest, ca *workload.Authority) error {
	r, err := pki.DecodeX509CertificateRequestBytes(object.Spec.Request)
	if err != nil {
		return err
	}
	if !slices.Equal(r.DNSNames, asked.DNSNames) || !slices.Equal(r.EmailAddresses, asked.EmailAddresses) ||
		fmt.Sprint(r.URIs) != fmt.Sprint(asked.URIs) || fmt.Sprint(r.IPAddresses) != fmt.Sprint(asked.IPAddresses) {
		return fmt.Errorf("names %v, crypto/x509's %v %v %v %v", asked.Wish, r.DNSNames, r.EmailAddresses, r.URIs, r.IPAddresses)
	}
	template, err := pki.CertificateTemplateFromCertificateRequest(object)
	if err != nil {
		return fmt.Errorf("upstream refuses it: %w", err)
	}
	if template.KeyUsage != asked.KeyUsage || !slices.Equal(template.ExtKeyUsage, asked.ExtKeyUsage) || template.IsCA != asked.IsCA || len(template.UnknownExtKeyUsage) > 0 {
		return fmt.Errorf("usages %v %v, upstream's %v %v", asked.KeyUsage, asked.ExtKeyUsage, template.KeyUsage, template.ExtKeyUsage)
	}
	issued, err := workload.Sign(asked, ca, nil, time.Now())
	if err == nil && (issued.Leaf.IsCA != object.Spec.IsCA || issued.Leaf.NotAfter.After(ca.NotAfter())) {
		return fmt.Errorf("signed a certificate with CA:%t that ends at %s", issued.Leaf.IsCA, issued.Leaf.NotAfter)
	}
	return nil
}

// Requests whose extensions and whose object's fields are drawn each for themselves:
// some fit, most contradict each other.
func TestWhatReadTakesTheOraclesTake(t *testing.T) {
	ca := newAuthority(t, "ca")
	taken, refused := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		extensions := []pkix.Extension{}
		for _, one := range [][]pkix.Extension{
			{basic(true, -1), basic(false, -1), basic(true, 0)},
			{usage(0xa0, 3), usage(0x80, 1), usage(0xa4, 6), usage(0x84, 6)},
			{extended(serverAuth), extended(serverAuth, mystery), extended(mystery)},
			{sans(general(2, "a.b")), sans(general(2, "a.b"), general(2, "")), sans(upn(12, 1, 'u')), sans(general(6, "urn:a"), general(8, "\x2a\x03")), sans(general(7, "\x0a\x00\x00\x01"))},
			{constraints(false), constraints(true)},
			{extension(false, 1, 1, 2, 3), extension(true, 1, 1, 2, 3)},
		} {
			if i := rapid.IntRange(-2, len(one)-1).Draw(rt, "extension"); i >= 0 {
				extensions = append(extensions, one[i])
			}
		}
		object := &cmapi.CertificateRequest{Spec: cmapi.CertificateRequestSpec{IsCA: rapid.Bool().Draw(rt, "isCA"), IssuerRef: cmmeta.IssuerReference{Name: "ca"}}}
		object.Spec.Usages = rapid.SampledFrom([][]cmapi.KeyUsage{nil, {"digital signature"}, {"digital signature", "server auth"}, {"digital signature", "cert sign"}}).Draw(rt, "usages")
		object.Spec.Request = makeRequest(t, sharedKey, x509.CertificateRequest{Subject: pkix.Name{CommonName: rapid.SampledFrom([]string{"", "a"}).Draw(rt, "cn")}, ExtraExtensions: extensions})
		if _, err := workload.Read(object); err != nil {
			refused++
		} else {
			taken++
		}
		if err := agreesWithOracles(object, ca); err != nil {
			rt.Fatal(err)
		}
	})
	if taken == 0 || refused == 0 {
		t.Errorf("%d taken, %d refused: nothing was compared", taken, refused)
	}
}

// resign makes the signature good, so that what is fuzzed gets as far as it can.
func resign(der []byte) []byte {
	var outer struct {
		Info      asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return der
	}
	hash := crypto.SHA256.New()
	hash.Write(outer.Info.FullBytes)
	signature, err := sharedKey.Sign(rand.Reader, hash.Sum(nil), crypto.SHA256)
	if err != nil {
		return der
	}
	outer.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	if again, err := asn1.Marshal(outer); err == nil {
		return again
	}
	return der
}

// A request that was answered before, by whoever took more than we do, is not judged anew.
func TestWhatReadRefusesIsStillRecalled(t *testing.T) {
	object := &cmapi.CertificateRequest{Spec: cmapi.CertificateRequestSpec{IssuerRef: cmmeta.IssuerReference{Name: "ca"},
		Request: makeRequest(t, sharedKey, x509.CertificateRequest{ExtraExtensions: []pkix.Extension{sans(general(2, "a.b"), general(8, "\x2a\x03")), extension(true, 1, 1, 2, 3)}})}}
	if _, err := workload.Read(object); err == nil {
		t.Error("Read takes it")
	}
	w, public, err := workload.Recall(object)
	if err != nil || !slices.Equal(w.DNSNames, []string{"a.b"}) || workload.KeyID(public) != workload.KeyID(sharedKey.Public()) {
		t.Errorf("recalled as %v, %v", w, err)
	}
	object.Spec.Request = object.Spec.Request[:40]
	if _, _, err := workload.Recall(object); err == nil {
		t.Error("half a request is recalled")
	}
}
