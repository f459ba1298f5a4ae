package workload_test

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/cert-manager/cert-manager/pkg/util/pki"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/kubepki/kubepki/internal/workload"
)

// drawSpec draws a spec that cert-manager's admission lets through.
func drawSpec(t *rapid.T) *cmapi.CertificateSpec {
	text := rapid.SampledFrom([]string{"a", "Shop", "Çelik", "x,y", "a+b=c", "0", "very long " + string(bytes.Repeat([]byte("x"), 40)), `"quoted"`})
	texts := func(label string) []string { return rapid.SliceOfN(text, 0, 3).Draw(t, label) }
	list := func(label string, of ...string) []string {
		return rapid.SliceOfN(rapid.SampledFrom(of), 0, 3).Draw(t, label)
	}
	spec := &cmapi.CertificateSpec{
		SecretName:     "tls",
		DNSNames:       list("dns", "a.example.com", "*.b.example.com", "LOCALHOST", "under_score.svc", "x.svc.cluster.local."),
		IPAddresses:    list("ips", "10.0.0.1", "::1", "2001:db8::1", "::ffff:10.0.0.2"),
		URIs:           list("uris", "spiffe://cluster.local/ns/a/sa/b", "https://example.com/a?b=c#d", "urn:uuid:1", "HTTPS://Example.com/%7e"),
		EmailAddresses: list("emails", "a@example.com", "B.c@d.org"),
		IsCA:           rapid.Bool().Draw(t, "isCA"),
		IssuerRef: cmmeta.IssuerReference{Name: "ca", Kind: rapid.SampledFrom([]string{"", "Issuer", "ClusterIssuer"}).Draw(t, "kind"),
			Group: rapid.SampledFrom([]string{"", "cert-manager.io", "example.com"}).Draw(t, "group")},
		PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
	}
	spec.Usages = append(spec.Usages, rapid.SliceOfN(rapid.SampledFrom([]cmapi.KeyUsage{
		cmapi.UsageSigning, cmapi.UsageDigitalSignature, cmapi.UsageContentCommitment, cmapi.UsageKeyEncipherment, cmapi.UsageKeyAgreement,
		cmapi.UsageDataEncipherment, cmapi.UsageCertSign, cmapi.UsageCRLSign, cmapi.UsageEncipherOnly, cmapi.UsageDecipherOnly, cmapi.UsageAny,
		cmapi.UsageServerAuth, cmapi.UsageClientAuth, cmapi.UsageCodeSigning, cmapi.UsageEmailProtection, cmapi.UsageSMIME, cmapi.UsageIPsecEndSystem,
		cmapi.UsageIPsecTunnel, cmapi.UsageIPsecUser, cmapi.UsageTimestamping, cmapi.UsageOCSPSigning, cmapi.UsageMicrosoftSGC, cmapi.UsageNetscapeSGC,
	}), 0, 6).Draw(t, "usages")...)
	if rapid.Bool().Draw(t, "others") {
		spec.OtherNames = []cmapi.OtherName{{OID: "1.3.6.1.4.1.311.20.2.3", UTF8Value: text.Draw(t, "upn")}}
	}
	if rapid.Bool().Draw(t, "duration") {
		spec.Duration = &metav1.Duration{Duration: rapid.SampledFrom([]time.Duration{time.Hour, workload.DefaultDuration, 1000 * time.Hour}).Draw(t, "life")}
	}
	if rapid.IntRange(0, 4).Draw(t, "encode") == 0 {
		spec.EncodeUsagesInRequest = new(bool)
	}
	switch rapid.IntRange(0, 3).Draw(t, "subject") {
	case 0:
		spec.LiteralSubject = rapid.SampledFrom([]string{
			"CN=foo,OU=bar,O=baz", "CN=a+O=b,DC=example,DC=com", `CN=Mu\C3\BCller\, J.,2.5.4.4=X`, "CN=host,CN=Users,DC=ad", "UID=u,ST=s,STREET=t,L=l,SERIALNUMBER=1,C=DE,CN=z",
		}).Draw(t, "literal")
	case 1:
		spec.CommonName = text.Draw(t, "cn")
	case 2:
		spec.CommonName = text.Draw(t, "cn")
		spec.Subject = &cmapi.X509Subject{Organizations: texts("o"), Countries: texts("c"), OrganizationalUnits: texts("ou"), Localities: texts("l"),
			Provinces: texts("st"), StreetAddresses: texts("street"), PostalCodes: texts("postal"), SerialNumber: text.Draw(t, "serial")}
	}
	if spec.IsCA && rapid.Bool().Draw(t, "constraints") {
		item := func(label string) *cmapi.NameConstraintItem {
			return &cmapi.NameConstraintItem{DNSDomains: list(label+"dns", "example.com", ".svc"), IPRanges: list(label+"ip", "10.1.2.3/8", "2001:db8::/32"),
				EmailAddresses: list(label+"email", "example.com", "a@b.org"), URIDomains: list(label+"uri", ".example.com")}
		}
		spec.NameConstraints = &cmapi.NameConstraints{Critical: rapid.Bool().Draw(t, "critical"), Permitted: item("p"), Excluded: item("e")}
	}
	if spec.LiteralSubject+spec.CommonName == "" && len(spec.DNSNames)+len(spec.IPAddresses)+len(spec.URIs)+len(spec.EmailAddresses)+len(spec.OtherNames) == 0 {
		spec.DNSNames = []string{"fallback"}
	}
	return spec
}

var sharedKey, _ = workload.NewKey(&cmapi.CertificateSpec{PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm}})

func theirRequest(spec *cmapi.CertificateSpec) (*x509.CertificateRequest, error) {
	r, err := pki.GenerateCSR(&cmapi.Certificate{Spec: *spec}, pki.WithNameConstraints(true), pki.WithOtherNames(true), pki.WithUseLiteralSubject(true))
	if err != nil {
		return nil, err
	}
	der, err := pki.EncodeCSR(r, sharedKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificateRequest(der)
}

// requestObject is the CertificateRequest that upstream makes of a spec.
func requestObject(spec *cmapi.CertificateSpec, request []byte) *cmapi.CertificateRequest {
	return &cmapi.CertificateRequest{Spec: cmapi.CertificateRequestSpec{Request: request, Duration: spec.Duration, IsCA: spec.IsCA, Usages: spec.Usages, IssuerRef: spec.IssuerRef}}
}

func TestOurRequestIsUpstreamsToTheByte(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := drawSpec(t)
		theirs, err := theirRequest(spec)
		if err != nil {
			t.Fatalf("upstream refuses the spec: %v", err)
		}
		text, err := workload.Request(spec, sharedKey)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := pki.DecodeX509CertificateRequestBytes(text)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ours.RawSubject, theirs.RawSubject) || ours.SignatureAlgorithm != theirs.SignatureAlgorithm {
			t.Fatalf("subject %x, upstream's %x", ours.RawSubject, theirs.RawSubject)
		}
		for i := range max(len(ours.Extensions), len(theirs.Extensions)) {
			if i >= len(ours.Extensions) || i >= len(theirs.Extensions) || fmt.Sprint(ours.Extensions[i]) != fmt.Sprint(theirs.Extensions[i]) {
				t.Fatalf("extensions\n%v\nupstream's\n%v", ours.Extensions, theirs.Extensions)
			}
		}
		asked, err := workload.Read(requestObject(spec, text))
		if err != nil {
			t.Fatalf("our own request is refused: %v", err)
		}
		wish, _ := workload.WishOf(spec)
		if asked.Digest() != wish.Digest() || len(workload.Differences(wish, &asked.Wish)) > 0 {
			t.Fatalf("the request does not fit the spec it is of: %v", workload.Differences(wish, &asked.Wish))
		}
		recalled, public, err := workload.Recall(requestObject(spec, text))
		if err != nil || recalled.Digest() != wish.Digest() || workload.KeyID(public) != workload.KeyID(sharedKey.Public()) {
			t.Fatalf("it is recalled as something else: %v", err)
		}
	})
}

// Upstream compares URIs as texts before and after a parser, and so never is content
// with some: those are left out here.
func TestDifferencesAreUpstreams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		asked, spec := drawSpec(t), drawSpec(t)
		if rapid.Bool().Draw(t, "same but for a little") {
			other := spec
			copied := *asked
			spec = &copied
			switch rapid.IntRange(0, 6).Draw(t, "which") {
			case 0:
				spec.DNSNames = other.DNSNames
			case 1:
				spec.IPAddresses = other.IPAddresses
			case 2:
				spec.EmailAddresses = slices.Concat(asked.EmailAddresses, other.EmailAddresses)
			case 3:
				spec.Usages = other.Usages
			case 4:
				spec.IssuerRef = other.IssuerRef
			case 5:
				spec.OtherNames = other.OtherNames
			case 6:
				spec.Duration = other.Duration
			}
		}
		for _, s := range []*cmapi.CertificateSpec{asked, spec} {
			s.URIs = slices.DeleteFunc(slices.Clone(s.URIs), func(u string) bool { return u[0] == 'H' })
			if s.LiteralSubject+s.CommonName == "" && len(s.DNSNames)+len(s.IPAddresses)+len(s.URIs)+len(s.EmailAddresses)+len(s.OtherNames) == 0 {
				s.DNSNames = []string{"fallback"}
			}
		}
		text, err := workload.Request(asked, sharedKey)
		if err != nil {
			t.Fatal(err)
		}
		object := requestObject(asked, text)
		theirs, err := pki.RequestMatchesSpec(object, *spec)
		if err != nil {
			t.Fatal(err)
		}
		read, err := workload.Read(object)
		if err != nil {
			t.Fatal(err)
		}
		wish, err := workload.WishOf(spec)
		if err != nil {
			t.Fatal(err)
		}
		ours := workload.Differences(wish, &read.Wish)
		if wish.Digest() == read.Digest() && len(ours) > 0 {
			t.Fatalf("one digest, and the differences %v", ours)
		}
		// Where it names usages differently that mean the same, we see no difference; name
		// constraints are compared by us alone.
		ours = slices.DeleteFunc(ours, func(f string) bool { return f == "spec.nameConstraints" })
		if !slices.Contains(ours, "spec.usages") {
			theirs = slices.DeleteFunc(theirs, func(f string) bool { return f == "spec.usages" && sameUsages(t, asked, spec) })
		}
		if fmt.Sprint(ours) != fmt.Sprint(theirs) {
			t.Fatalf("differences %v, upstream's %v", ours, theirs)
		}
	})
}

func sameUsages(t *rapid.T, a, b *cmapi.CertificateSpec) bool {
	usage, extended, err := pki.KeyUsagesForCertificateOrCertificateRequest(a.Usages, false)
	other, otherExtended, err2 := pki.KeyUsagesForCertificateOrCertificateRequest(b.Usages, false)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	slices.Sort(extended)
	slices.Sort(otherExtended)
	// An authority signs certificates whether that is named or not.
	if a.IsCA && b.IsCA {
		usage, other = usage|x509.KeyUsageCertSign, other|x509.KeyUsageCertSign
	}
	return usage == other && slices.Equal(slices.Compact(extended), slices.Compact(otherExtended))
}
