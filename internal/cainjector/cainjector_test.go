package cainjector_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/cainjector"
	"github.com/kubepki/kubepki/internal/trust"
)

var at = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

// anchor is a certificate that begins some days from at and lives a hundred.
func anchor(t *testing.T, name string, days int) *x509.Certificate {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	begin := at.AddDate(0, 0, days)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: begin, NotAfter: begin.AddDate(0, 0, 100),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func names(t *testing.T, bundle []byte) string {
	t.Helper()
	all, err := trust.ParseCertificates(bundle)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, c := range all {
		list = append(list, c.Subject.CommonName)
	}
	return strings.Join(list, " ")
}

func TestSourceOf(t *testing.T) {
	const secret, certificate, server = "cert-manager.io/inject-ca-from-secret", "cert-manager.io/inject-ca-from", "cert-manager.io/inject-apiserver-ca"
	for what, test := range map[string]struct {
		annotations map[string]string
		want        string // of the source, or of the error
	}{
		"no annotation":                         {map[string]string{"a": "b"}, "nothing"},
		"a Certificate":                         {map[string]string{certificate: "ns/web"}, "Certificate ns/web"},
		"a Secret":                              {map[string]string{secret: "ns/web"}, "Secret ns/web"},
		"the API server":                        {map[string]string{server: "true"}, "the API server's authority"},
		"the API server, but not quite":         {map[string]string{server: "yes"}, "nothing"},
		"a Secret comes before all others":      {map[string]string{secret: "ns/s", certificate: "ns/c", server: "true"}, "Secret ns/s"},
		"a Certificate comes before the server": {map[string]string{certificate: "ns/c", server: "true"}, "Certificate ns/c"},
		"a wrong one is not passed over":        {map[string]string{secret: "s", certificate: "ns/c"}, `"s" is not of the form NAMESPACE/NAME`},
		"no namespace":                          {map[string]string{certificate: "/web"}, "not of the form"},
		"no name":                               {map[string]string{certificate: "ns/"}, "not of the form"},
		"a path":                                {map[string]string{certificate: "ns/../secrets/x"}, "not of the form"},
		"a long one is cut":                     {map[string]string{certificate: strings.Repeat("x", 5000)}, "x…\" is not"},
	} {
		t.Run(what, func(t *testing.T) {
			s, err := cainjector.SourceOf(test.annotations)
			got := s.String()
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, test.want) || len(got) > 300 {
				t.Errorf("%s", got)
			}
		})
	}
}

func TestTake(t *testing.T) {
	direct, err := cainjector.SourceOf(map[string]string{"cert-manager.io/inject-ca-from-secret": "ns/web"})
	if err != nil {
		t.Fatal(err)
	}
	of, err := cainjector.SourceOf(map[string]string{"cert-manager.io/inject-ca-from": "ns/web"})
	if err != nil {
		t.Fatal(err)
	}
	allow, name := map[string]string{"cert-manager.io/allow-direct-injection": "true"}, map[string]string{"cert-manager.io/certificate-name": "web"}
	for what, test := range map[string]struct {
		source      cainjector.Source
		annotations map[string]string
		data        map[string][]byte
		bad         string
	}{
		"a Secret that allows it":                {direct, allow, map[string][]byte{"ca.crt": []byte("x")}, ""},
		"a Secret that does not allow it":        {direct, name, map[string][]byte{"ca.crt": []byte("x")}, "does not allow it"},
		"a Secret that allows it in other words": {direct, map[string]string{"cert-manager.io/allow-direct-injection": "yes"}, map[string][]byte{"ca.crt": []byte("x")}, "does not allow it"},
		"a Secret of the Certificate":            {of, name, map[string][]byte{"ca.crt": []byte("x")}, ""},
		"a Secret of another Certificate":        {of, map[string]string{"cert-manager.io/certificate-name": "other"}, map[string][]byte{"ca.crt": []byte("x")}, "is not of Certificate ns/web"},
		"a Secret of none, that allows it":       {of, allow, map[string][]byte{"ca.crt": []byte("x")}, "is not of Certificate ns/web"},
		"a Secret without ca.crt":                {of, name, map[string][]byte{"tls.crt": []byte("x")}, "ca.crt is empty or not there"},
		"a Secret with an empty ca.crt":          {direct, allow, map[string][]byte{"ca.crt": {}}, "ca.crt is empty or not there"},
	} {
		t.Run(what, func(t *testing.T) {
			ca, err := test.source.Take(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s", Annotations: test.annotations}, Data: test.data})
			if test.bad == "" && (err != nil || string(ca) != "x") || test.bad != "" && (err == nil || !strings.Contains(err.Error(), test.bad)) {
				t.Errorf("%q, %v", ca, err)
			}
		})
	}
}

func TestGiven(t *testing.T) {
	good, ended := anchor(t, "good", -1), anchor(t, "ended", -200)
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")})
	many := bytes.Repeat(trust.EncodeCertificates(good), 101)
	for what, test := range map[string]struct {
		ca   []byte
		want int
	}{
		"one":                    {trust.EncodeCertificates(good), 1},
		"old and new":            {trust.EncodeCertificates(good, anchor(t, "new", 0)), 2},
		"one twice":              {trust.EncodeCertificates(good, good), 1},
		"one that has ended too": {trust.EncodeCertificates(ended, good), 1},
		"only one that has ended, which nobody would believe": {trust.EncodeCertificates(ended), 0},
		"no certificate":                     {[]byte("nothing"), 0},
		"nothing":                            {nil, 0},
		"a key beside it":                    {append(trust.EncodeCertificates(good), key...), 0},
		"a spoiled certificate":              {append(trust.EncodeCertificates(good), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})...), 0},
		"more than there can be authorities": {many, 0},
	} {
		t.Run(what, func(t *testing.T) {
			given, err := cainjector.Given(test.ca, at)
			if len(given) != test.want || (err == nil) != (test.want > 0) {
				t.Errorf("%d certificates, %v", len(given), err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Error("the error tells the key")
			}
		})
	}
}

func TestBundle(t *testing.T) {
	old, next, ended := anchor(t, "old", -50), anchor(t, "next", -1), anchor(t, "ended", -200)
	text := trust.EncodeCertificates
	for what, test := range map[string]struct {
		there []byte
		given []*x509.Certificate
		keep  bool
		want  string
	}{
		"an empty field":                            {nil, []*x509.Certificate{old}, true, "old"},
		"what is right":                             {text(old), []*x509.Certificate{old}, true, "old"},
		"the next authority: the old one stays":     {text(old), []*x509.Certificate{next}, true, "old next"},
		"the next authority, and nothing else":      {text(old), []*x509.Certificate{next}, false, "next"},
		"a rollover that gives both":                {text(old), []*x509.Certificate{old, next}, true, "old next"},
		"the order of what is there stays":          {text(next, old), []*x509.Certificate{old, next}, true, "next old"},
		"what has ended goes":                       {text(ended, old), []*x509.Certificate{old}, true, "old"},
		"what is no bundle is replaced":             {[]byte("Cg=="), []*x509.Certificate{old}, true, "old"},
		"a key that somebody put there is replaced": {append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY"}), text(next)...), []*x509.Certificate{old}, true, "old"},
		"words around the blocks go":                {append([]byte("# my authority\n"), text(old)...), []*x509.Certificate{old}, true, "old"},
	} {
		t.Run(what, func(t *testing.T) {
			bundle := cainjector.Bundle(test.there, test.given, test.keep, at)
			if got := names(t, bundle); got != test.want {
				t.Errorf("it has %s", got)
			}
			if again := cainjector.Bundle(bundle, test.given, test.keep, at); !bytes.Equal(again, bundle) {
				t.Error("a second look would write again")
			}
			// cert-manager's own injector appends what is given to what is there, and drops what
			// has ended: it must find nothing to do, whichever way ours went.
			if again := cainjector.Bundle(bundle, test.given, true, at); !bytes.Equal(again, bundle) {
				t.Error("cert-manager's injector would write again")
			}
		})
	}
}

func TestABundleOfAnAuthorityThatRenewsItselfEachDayIsBounded(t *testing.T) {
	var bundle []byte
	for day := range 60 {
		bundle = cainjector.Bundle(bundle, []*x509.Certificate{anchor(t, fmt.Sprint(day-59), day-59)}, true, at)
	}
	all := strings.Fields(names(t, bundle))
	if len(all) != 21 || all[0] != "-20" || all[20] != "0" {
		t.Errorf("it has %d: %s", len(all), all)
	}
}

func TestPatch(t *testing.T) {
	kinds := map[string]*cainjector.Kind{}
	for _, k := range cainjector.Kinds() {
		kinds[k.Kind] = k
	}
	const meta = `"metadata":{"name":"x","resourceVersion":"7","labels":{"a":"b"}}`
	const head = `{"apiVersion":"%s","kind":"%s","metadata":{"name":"x","resourceVersion":"7"},`
	for what, test := range map[string]struct {
		kind, object, want string // want: after head; "": no patch; else the error's text
		bad                string
	}{
		"each webhook, and of it the bundle alone": {"ValidatingWebhookConfiguration",
			`{` + meta + `,"webhooks":[{"name":"a","clientConfig":{"service":{"name":"s"}},"rules":[{}]},{"name":"b","clientConfig":{"caBundle":"Y2E="}}]}`,
			`"webhooks":[{"name":"a","clientConfig":{"caBundle":"Y2E="}},{"name":"b","clientConfig":{"caBundle":"Y2E="}}]}`, ""},
		"webhooks that are right": {"MutatingWebhookConfiguration", `{` + meta + `,"webhooks":[{"name":"a","clientConfig":{"caBundle":"Y2E="}}]}`, "", ""},
		"no webhook":              {"MutatingWebhookConfiguration", `{` + meta + `}`, "", ""},
		"an APIService": {"APIService", `{` + meta + `,"spec":{"group":"g","service":{"name":"s"}}}`,
			`"spec":{"caBundle":"Y2E="}}`, ""},
		"an APIService of the API server itself": {"APIService", `{` + meta + `,"spec":{"group":"g"}}`, "", ""},
		"an APIService that is not verified":     {"APIService", `{` + meta + `,"spec":{"service":{"name":"s"},"insecureSkipTLSVerify":true}}`, "", "insecureSkipTLSVerify"},
		"a conversion by webhook": {"CustomResourceDefinition", `{` + meta + `,"spec":{"scope":"Cluster","conversion":{"strategy":"Webhook","webhook":{"clientConfig":{"caBundle":"b2xk"},"conversionReviewVersions":["v1"]}}}}`,
			`"spec":{"conversion":{"webhook":{"clientConfig":{"caBundle":"Y2E="}}}}}`, ""},
		"no conversion":                {"CustomResourceDefinition", `{` + meta + `,"spec":{"conversion":{"strategy":"None"}}}`, "", ""},
		"something that is no object":  {"CustomResourceDefinition", `[]`, "", "answer"},
		"a bundle that is not base64":  {"MutatingWebhookConfiguration", `{` + meta + `,"webhooks":[{"name":"a","clientConfig":{"caBundle":"!"}}]}`, "", "answer"},
		"a CRD without any conversion": {"CustomResourceDefinition", `{` + meta + `,"spec":{}}`, "", ""},
	} {
		t.Run(what, func(t *testing.T) {
			k := kinds[test.kind]
			patch, err := k.Patch([]byte(test.object), func([]byte) []byte { return []byte("ca") })
			if test.bad != "" {
				if err == nil || !strings.Contains(err.Error(), test.bad) || patch != nil {
					t.Errorf("%s, %v", patch, err)
				}
				return
			}
			want := ""
			if test.want != "" {
				want = fmt.Sprintf(head, k.Group+"/"+k.Version, k.Kind) + test.want
			}
			if err != nil || string(patch) != want {
				t.Errorf("got  %s, %v\nwant %s", patch, err, want)
			}
			if patch != nil && !json.Valid(patch) {
				t.Error("it is no JSON")
			}
		})
	}
}
