package approve_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/kubepki/kubepki/lab/internal/approve"
)

// lookup knows two nodes.
func lookup(name string) ([]netip.Addr, bool) {
	addresses, ok := map[string][]netip.Addr{
		"w1": {netip.MustParseAddr("10.99.0.21"), netip.MustParseAddr("fd99::21")},
		"w2": {netip.MustParseAddr("10.99.0.22")},
	}[name]
	return addresses, ok
}

// asked is a request that a row changes: the template before it is signed, its
// encoding, and the object.
type asked struct {
	key      crypto.Signer
	template x509.CertificateRequest
	der      func([]byte) []byte
	pem      func([]byte) []byte
	object   func(*certificatesv1.CertificateSigningRequestSpec)
}

func ecdsaKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// ask makes what the kubelet of w1 asks for, changed by a row.
func ask(t *testing.T, change func(*asked)) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	a := &asked{
		key: ecdsaKey(t, elliptic.P256()),
		template: x509.CertificateRequest{
			Subject:     pkix.Name{Organization: []string{"system:nodes"}, CommonName: "system:node:w1"},
			DNSNames:    []string{"w1"},
			IPAddresses: []net.IP{net.ParseIP("10.99.0.21"), net.ParseIP("fd99::21")},
		},
		der:    func(b []byte) []byte { return b },
		pem:    func(b []byte) []byte { return b },
		object: func(*certificatesv1.CertificateSigningRequestSpec) {},
	}
	change(a)
	der, err := x509.CreateCertificateRequest(rand.Reader, &a.template, a.key)
	if err != nil {
		t.Fatal(err)
	}
	csr := &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{
		Request:    a.pem(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: a.der(der)})),
		SignerName: certificatesv1.KubeletServingSignerName,
		Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth},
		Username:   "system:node:w1",
		Groups:     []string{"system:nodes", "system:authenticated"},
	}}
	a.object(&csr.Spec)
	return csr
}

// names is a subject alternative name with general names as they are.
func names(t *testing.T, all ...asn1.RawValue) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}
}

func general(tag int, value string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(value)}
}

// only replaces all names of a template.
func only(extension pkix.Extension) func(*asked) {
	return func(a *asked) {
		a.template.DNSNames, a.template.IPAddresses = nil, nil
		a.template.ExtraExtensions = []pkix.Extension{extension}
	}
}

func dns(names ...string) func(*asked) {
	return func(a *asked) { a.template.DNSNames = names }
}

func addresses(all ...string) func(*asked) {
	return func(a *asked) {
		a.template.IPAddresses = nil
		for _, s := range all {
			a.template.IPAddresses = append(a.template.IPAddresses, net.ParseIP(s))
		}
	}
}

func subject(name pkix.Name) func(*asked) {
	return func(a *asked) { a.template.Subject = name }
}

func object(f func(*certificatesv1.CertificateSigningRequestSpec)) func(*asked) {
	return func(a *asked) { a.object = f }
}

// relative are names one after the other, each in a set of its own.
func relative(t *testing.T, kind asn1.ObjectIdentifier, values ...any) func(*asked) {
	t.Helper()
	sequence := pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "system:nodes"}}}
	for _, v := range values {
		sequence = append(sequence, pkix.RelativeDistinguishedNameSET{{Type: kind, Value: v}})
	}
	raw, err := asn1.Marshal(sequence)
	if err != nil {
		t.Fatal(err)
	}
	return func(a *asked) { a.template.RawSubject = raw }
}

func TestApproved(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*asked){
		"as a kubelet asks":                 func(*asked) {},
		"with the name alone":               addresses(),
		"with an address alone":             func(a *asked) { dns()(a); addresses("10.99.0.21")(a) },
		"with an RSA key":                   func(a *asked) { a.key = rsaKey },
		"with an Ed25519 key":               func(a *asked) { a.key = edKey },
		"with a P-384 key":                  func(a *asked) { a.key = ecdsaKey(t, elliptic.P384()) },
		"with a line feed after the block":  func(a *asked) { a.pem = func(b []byte) []byte { return append(b, '\n') } },
		"with usages in another order":      object(func(s *certificatesv1.CertificateSigningRequestSpec) { slices.Reverse(s.Usages) }),
		"with a usage that is given twice":  object(func(s *certificatesv1.CertificateSigningRequestSpec) { s.Usages = append(s.Usages, s.Usages...) }),
		"with an RSA key and key agreement": func(a *asked) { a.key = rsaKey; a.object = usages(certificatesv1.UsageKeyEncipherment) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := approve.Judge(ask(t, change), lookup); err != nil {
				t.Error(err)
			}
		})
	}
}

func usages(more ...certificatesv1.KeyUsage) func(*certificatesv1.CertificateSigningRequestSpec) {
	return func(s *certificatesv1.CertificateSigningRequestSpec) { s.Usages = append(s.Usages, more...) }
}

func TestLeftAlone(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	commonName := asn1.ObjectIdentifier{2, 5, 4, 3}
	organization := asn1.ObjectIdentifier{2, 5, 4, 10}
	node := pkix.Name{Organization: []string{"system:nodes"}, CommonName: "system:node:w1"}
	ten := string(net.ParseIP("10.99.0.21").To4())
	for name, row := range map[string]struct {
		change func(*asked)
		reason string
	}{
		// Who asks, and for what.
		"of another signer": {object(func(s *certificatesv1.CertificateSigningRequestSpec) {
			s.SignerName = "kubernetes.io/kube-apiserver-client"
		}), "spec.signerName"},
		"by a bootstrap token": {object(func(s *certificatesv1.CertificateSigningRequestSpec) { s.Username = "system:bootstrap:abcdef" }), "spec.username"},
		"by an administrator":  {object(func(s *certificatesv1.CertificateSigningRequestSpec) { s.Username = "kubernetes-admin" }), "spec.username"},
		"by a service account": {object(func(s *certificatesv1.CertificateSigningRequestSpec) {
			s.Username = "system:serviceaccount:kube-system:w1"
		}), "spec.username"},
		"by another node":                        {object(func(s *certificatesv1.CertificateSigningRequestSpec) { s.Username = "system:node:w2" }), "subject"},
		"by a node that is not there":            {object(func(s *certificatesv1.CertificateSigningRequestSpec) { s.Username = "system:node:w9" }), "no node of the lab"},
		"by a node without a name":               {object(func(s *certificatesv1.CertificateSigningRequestSpec) { s.Username = "system:node:" }), "no node of the lab"},
		"by a node whose name begins alike":      {object(func(s *certificatesv1.CertificateSigningRequestSpec) { s.Username = "system:node:w" }), "no node of the lab"},
		"by a node outside of the group":         {object(func(s *certificatesv1.CertificateSigningRequestSpec) { s.Groups = []string{"system:authenticated"} }), "spec.groups"},
		"for a client":                           {object(usages(certificatesv1.UsageClientAuth)), "spec.usages"},
		"for any usage":                          {object(usages(certificatesv1.UsageAny)), "spec.usages"},
		"for signing certificates":               {object(usages(certificatesv1.UsageCertSign)), "spec.usages"},
		"for key encipherment with an ECDSA key": {object(usages(certificatesv1.UsageKeyEncipherment)), "spec.usages"},
		"for no usage":                           {object(func(s *certificatesv1.CertificateSigningRequestSpec) { s.Usages = nil }), "spec.usages"},
		"for a client instead":                   {object(func(s *certificatesv1.CertificateSigningRequestSpec) { s.Usages[1] = certificatesv1.UsageClientAuth }), "spec.usages"},
		"without a request":                      {object(func(s *certificatesv1.CertificateSigningRequestSpec) { s.Request = nil }), "spec.request"},
		// The subject.
		"with a second organization":           {subject(pkix.Name{Organization: []string{"system:nodes", "system:masters"}, CommonName: "system:node:w1"}), "subject"},
		"with another organization":            {subject(pkix.Name{Organization: []string{"system:masters"}, CommonName: "system:node:w1"}), "subject"},
		"without an organization":              {subject(pkix.Name{CommonName: "system:node:w1"}), "subject"},
		"with a unit":                          {subject(pkix.Name{Organization: node.Organization, OrganizationalUnit: []string{"x"}, CommonName: node.CommonName}), "subject"},
		"with a serial number":                 {subject(pkix.Name{Organization: node.Organization, SerialNumber: "1", CommonName: node.CommonName}), "subject"},
		"in the name of another node":          {subject(pkix.Name{Organization: node.Organization, CommonName: "system:node:w2"}), "subject"},
		"in a name of power":                   {subject(pkix.Name{Organization: node.Organization, CommonName: "kubernetes-admin"}), "subject"},
		"in an empty name":                     {subject(pkix.Name{Organization: node.Organization}), "subject"},
		"in a name that looks alike":           {subject(pkix.Name{Organization: node.Organization, CommonName: "system:node:ԝ1"}), "subject"},
		"in a name that leads elsewhere":       {subject(pkix.Name{Organization: node.Organization, CommonName: "system:node:../w1"}), "subject"},
		"in capitals":                          {subject(pkix.Name{Organization: node.Organization, CommonName: "system:node:W1"}), "subject"},
		"with two common names, its own last":  {relative(t, commonName, "system:node:w2", "system:node:w1"), "subject"},
		"with two common names, its own first": {relative(t, commonName, "system:node:w1", "system:node:w2"), "subject"},
		"with two organizations in two sets":   {relative(t, organization, "system:masters"), "subject"},
		"with a string of another type":        {relative(t, commonName, asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte("system:node:w1")}), "subject"},
		// The names.
		"without names":                        {func(a *asked) { dns()(a); addresses()(a) }, "extensions"},
		"with an empty list of names":          {only(names(t)), "empty"},
		"with the name of another node":        {dns("w1", "w2"), "DNS name"},
		"with the API server's name":           {dns("kubernetes.default.svc"), "DNS name"},
		"with the API server's name, rooted":   {dns("kubernetes.default.svc."), "DNS name"},
		"with localhost":                       {dns("w1", "localhost"), "DNS name"},
		"with a wildcard":                      {dns("*"), "DNS name"},
		"with a wildcard of the cluster":       {dns("*.cluster.local"), "DNS name"},
		"with its name in capitals":            {dns("W1"), "DNS name"},
		"with its name, rooted":                {dns("w1."), "DNS name"},
		"with a blank in a name":               {dns("w1 "), "DNS name"},
		"with a zero byte in a name":           {dns("w1\x00.evil"), "DNS name"},
		"with an empty DNS name":               {only(names(t, general(2, ""))), "spec.request"},
		"with its address as a DNS name":       {dns("10.99.0.21"), "DNS name"},
		"with the address of another node":     {addresses("10.99.0.21", "10.99.0.22"), "address"},
		"with the API server's address":        {addresses("10.99.0.11"), "address"},
		"with the service's address":           {addresses("10.96.0.1"), "address"},
		"with the loopback address":            {addresses("127.0.0.1"), "address"},
		"with the unspecified address":         {addresses("0.0.0.0"), "address"},
		"with its address in the form of IPv6": {only(names(t, general(7, string(net.ParseIP("10.99.0.21").To16())))), "address"},
		"with an address of five bytes":        {only(names(t, general(7, "12345"))), "spec.request"},
		"with an address and its mask":         {only(names(t, general(7, ten+"\xff\xff\xff\xff"))), "spec.request"},
		"with an e-mail address":               {func(a *asked) { a.template.EmailAddresses = []string{"w1@example.com"} }, "kind 1"},
		"with a URI":                           {func(a *asked) { a.template.URIs = []*url.URL{{Scheme: "spiffe", Host: "w1"}} }, "kind 6"},
		"with another kind of name":            {only(names(t, general(2, "w1"), asn1.RawValue{Class: 2, Tag: 0, IsCompound: true, Bytes: []byte{6, 1, 42, 0xa0, 3, 12, 1, 'x'}})), "kind 0"},
		"with a registered ID":                 {only(names(t, general(2, "w1"), general(8, "\x2a\x03"))), "kind 8"},
		"with a name of a universal class":     {only(names(t, asn1.RawValue{Class: asn1.ClassUniversal, Tag: 2, Bytes: []byte("w1")})), "spec.request"},
		"with bytes after the names":           {only(func() pkix.Extension { e := names(t, general(2, "w1")); e.Value = append(e.Value, 0); return e }()), "spec.request"},
		// Other extensions.
		"that wants to be an authority": {func(a *asked) {
			a.template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}
		}, "extensions"},
		"that brings its own key usage": {func(a *asked) {
			a.template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: []byte{3, 2, 1, 6}}}
		}, "extensions"},
		"with an extension that nobody knows": {func(a *asked) {
			a.template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}}}
		}, "extensions"},
		// The encoding.
		"with something before the block": {func(a *asked) { a.pem = func(b []byte) []byte { return append([]byte("hello\n"), b...) } }, "does not begin"},
		"with something after the block":  {func(a *asked) { a.pem = func(b []byte) []byte { return append(b, "hello\n"...) } }, "after its PEM block"},
		"with a second block":             {func(a *asked) { a.pem = func(b []byte) []byte { return append(b, b...) } }, "after its PEM block"},
		"with a header in the block": {func(a *asked) {
			a.pem = func(b []byte) []byte { return bytes.Replace(b, []byte("-----\n"), []byte("-----\nA: b\n\n"), 1) }
		}, "headers"},
		"with a certificate for a request": {func(a *asked) {
			a.pem = func(b []byte) []byte {
				return bytes.ReplaceAll(b, []byte("CERTIFICATE REQUEST"), []byte("CERTIFICATE"))
			}
		}, "does not begin"},
		"with bytes after the request": {func(a *asked) { a.der = func(b []byte) []byte { return append(b, 0) } }, "spec.request"},
		"that is cut short":            {func(a *asked) { a.der = func(b []byte) []byte { return b[:len(b)-9] } }, "spec.request"},
		"that is very long": {func(a *asked) {
			a.pem = func(b []byte) []byte { return append(b, bytes.Repeat([]byte("\n"), 1<<20)...) }
		}, "bytes are more than"},
		// The key.
		"with a signature of another key": {func(a *asked) { a.der = func(b []byte) []byte { b[len(b)-1] ^= 1; return b } }, "spec.request"},
		"with a weak RSA key":             {func(a *asked) { a.key = weak }, "weak"},
		"with a key on P-224":             {func(a *asked) { a.key = ecdsaKey(t, elliptic.P224()) }, "weak"},
	} {
		t.Run(name, func(t *testing.T) {
			err := approve.Judge(ask(t, row.change), lookup)
			if err == nil {
				t.Fatal("it would be approved")
			}
			if !strings.Contains(err.Error(), row.reason) || strings.Contains(err.Error(), "\n") {
				t.Errorf("the reason is %q; want one line about %q", err, row.reason)
			}
		})
	}
}
