package policy_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/policy"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

const workloadHead = "apiVersion: kubepki.dev/v1alpha1\nkind: WorkloadPolicy\n"

// services lets namespaces have the names of their own services.
const services = `maxDuration: 2160h
rules:
- name: services
  issuers: [{kind: ClusterIssuer, name: internal}]
  namespaces: [shop, "team-*"]
  approve: >-
    dnsNames.all(n, n.endsWith("." + request.namespace + ".svc")) && size(dnsNames) > 0
- name: authorities
  issuers: [{kind: ClusterIssuer, name: "root*"}]
  namespaces: [shop]
  allowCA: true
  maxDuration: 87600h
  approve: subject.commonName.startsWith(request.namespace + "-")
- name: external
  issuers: [{group: example.com, kind: Vault, name: web}]
  namespaces: ["*"]
  deny: '"admin.shop.svc" in dnsNames'
  approve: dnsNames.all(n, n.endsWith(".svc"))
`

// petition is a request before it is signed by its key.
type petition struct {
	workload.Petition
	object cmapi.CertificateRequest
	csr    x509.CertificateRequest
}

var petitionKey crypto.Signer

// healthy asks for what the first rule approves.
func healthy() *petition {
	return &petition{
		Petition: workload.Petition{Namespace: "shop", Name: "web-1", Certificate: "web"},
		object: cmapi.CertificateRequest{Spec: cmapi.CertificateRequestSpec{
			IssuerRef: cmmeta.IssuerReference{Kind: "ClusterIssuer", Name: "internal"}, Usages: []cmapi.KeyUsage{"digital signature", "server auth"},
		}},
		csr: x509.CertificateRequest{DNSNames: []string{"web.shop.svc"}},
	}
}

func (p *petition) asked(t testing.TB) *workload.Asked {
	t.Helper()
	if petitionKey == nil {
		key, err := issue.GenerateKey(issue.ECDSAP256)
		if err != nil {
			t.Fatal(err)
		}
		petitionKey = key
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &p.csr, petitionKey)
	if err != nil {
		t.Fatal(err)
	}
	p.object.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: trust.RequestType, Bytes: der})
	asked, err := workload.Read(&p.object)
	if err != nil {
		t.Fatal(err)
	}
	return asked
}

func workloadPolicy(t testing.TB, text string) *workload.Policy {
	t.Helper()
	p, err := policy.ParseWorkload([]byte(workloadHead + text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func hours(n int) *metav1.Duration { return &metav1.Duration{Duration: time.Duration(n) * time.Hour} }

func TestWhatAPolicyApproves(t *testing.T) {
	otherName := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte("\x30\x1d\x82\x0cweb.shop.svc\xa0\x0d\x06\x03\x2a\x03\x04\xa0\x06\x0c\x04root")}
	for _, row := range []struct {
		name   string
		policy string // added to services
		change func(*petition)
		want   workload.Outcome
		id     string
	}{
		{"the names of one's own services", "", func(*petition) {}, workload.Approves, workload.RuleApproves},
		{"a namespace by a pattern", "", func(p *petition) {
			p.Namespace, p.csr.DNSNames = "team-a", []string{"a.team-a.svc"}
		}, workload.Approves, workload.RuleApproves},
		{"a common name that is one of the names", "", func(p *petition) { p.csr.Subject.CommonName = "web.shop.svc" }, workload.Approves, workload.RuleApproves},
		{"a longest life", "", func(p *petition) { p.object.Spec.Duration = hours(2160) }, workload.Approves, workload.RuleApproves},
		{"an authority where a rule allows one, for the time that the rule allows", "", func(p *petition) {
			p.object.Spec.IssuerRef.Name, p.object.Spec.IsCA, p.object.Spec.Duration = "root-a", true, hours(80000)
			p.object.Spec.Usages = []cmapi.KeyUsage{"cert sign", "crl sign", "digital signature"}
			p.csr = x509.CertificateRequest{Subject: pkix.Name{CommonName: "shop-ca"}}
		}, workload.Approves, workload.RuleApproves},
		{"an Issuer of one's own namespace that no rule is for", "", func(p *petition) {
			p.object.Spec.IssuerRef = cmmeta.IssuerReference{Name: "mine"}
			p.csr.DNSNames = []string{"anything.example.com"}
		}, workload.Approves, workload.OwnIssuer},
		{"an external issuer that a rule names", "", func(p *petition) {
			p.object.Spec.IssuerRef = cmmeta.IssuerReference{Group: "example.com", Kind: "Vault", Name: "web"}
		}, workload.Approves, workload.RuleApproves},

		{"a namespace that no rule names", "", func(p *petition) { p.Namespace = "other" }, workload.Waits, workload.NamespaceUnnamed},
		{"a namespace that begins with one that a rule names", "", func(p *petition) {
			p.Namespace, p.csr.DNSNames = "shop-evil", []string{"a.shop-evil.svc"}
		}, workload.Waits, workload.NamespaceUnnamed},
		{"a ClusterIssuer that no rule names", "", func(p *petition) { p.object.Spec.IssuerRef.Name = "other" }, workload.Waits, workload.NamespaceUnnamed},
		{"an external issuer that no rule names", "otherwise: Deny\n", func(p *petition) {
			p.object.Spec.IssuerRef = cmmeta.IssuerReference{Group: "example.org", Kind: "Vault", Name: "web"}
		}, workload.Waits, workload.NamespaceUnnamed},
		{"another group's issuer with the name and kind of one that a rule names", "", func(p *petition) {
			p.object.Spec.IssuerRef.Group = "example.com"
		}, workload.Waits, workload.NamespaceUnnamed},
		{"a foreign name", "", func(p *petition) { p.csr.DNSNames = []string{"web.bank.svc"} }, workload.Waits, workload.NothingApproves},
		{"a foreign name beside one's own", "", func(p *petition) { p.csr.DNSNames = append(p.csr.DNSNames, "web.bank.svc") }, workload.Waits, workload.NothingApproves},
		{"a foreign name, where what is not approved is denied", "otherwise: Deny\n", func(p *petition) { p.csr.DNSNames = []string{"web.bank.svc"} }, workload.Denies, workload.NothingApproves},
		{"an unnamed namespace, where what is not approved is denied", "otherwise: Deny\n", func(p *petition) { p.Namespace = "other" }, workload.Denies, workload.NamespaceUnnamed},

		{"a common name of which the rule does not speak", "", func(p *petition) { p.csr.Subject.CommonName = "system:admin" }, workload.Waits, workload.NotSeen},
		{"an organization of which the rule does not speak", "", func(p *petition) { p.csr.Subject.Organization = []string{"system:masters"} }, workload.Waits, workload.NotSeen},
		{"a unit of which the rule does not speak", "", func(p *petition) { p.csr.Subject.OrganizationalUnit = []string{"a"} }, workload.Waits, workload.NotSeen},
		{"a country of which the rule does not speak", "", func(p *petition) { p.csr.Subject.Country = []string{"DE"} }, workload.Waits, workload.NotSeen},
		{"a URI of which the rule does not speak", "", func(p *petition) {
			p.csr.URIs = []*url.URL{{Scheme: "spiffe", Host: "bank", Path: "/pay"}}
		}, workload.Waits, workload.NotSeen},
		{"an address of which the rule does not speak", "", func(p *petition) { p.csr.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }, workload.Waits, workload.NotSeen},
		{"a mail address of which the rule does not speak", "", func(p *petition) { p.csr.EmailAddresses = []string{"a@bank.test"} }, workload.Waits, workload.NotSeen},
		{"another name of which the rule does not speak", "", func(p *petition) {
			p.csr.DNSNames, p.csr.ExtraExtensions = nil, []pkix.Extension{otherName}
		}, workload.Waits, workload.NotSeen},
		{"a usage of which the rule does not speak", "", func(p *petition) {
			p.object.Spec.Usages = append(p.object.Spec.Usages, "ocsp signing")
		}, workload.Waits, workload.NotSeen},
		{"two common names", "", func(p *petition) {
			p.csr.RawSubject = subject(t, pkix.RelativeDistinguishedNameSET{commonName("web.shop.svc")}, pkix.RelativeDistinguishedNameSET{commonName("bank")})
		}, workload.Waits, workload.NotSeen},
		{"two common names, where what is not approved is denied", "otherwise: Deny\n", func(p *petition) {
			p.csr.RawSubject = subject(t, pkix.RelativeDistinguishedNameSET{commonName("web.shop.svc"), commonName("bank")})
		}, workload.Denies, workload.NotSeen},

		{"an authority without permission", "", func(p *petition) { p.object.Spec.IsCA = true }, workload.Denies, workload.CANotAllowed},
		{"an authority by its usages alone", "", func(p *petition) {
			p.object.Spec.Usages = append(p.object.Spec.Usages, "cert sign")
		}, workload.Denies, workload.CANotAllowed},
		{"an authority of an Issuer of one's own namespace", "", func(p *petition) {
			p.object.Spec.IssuerRef, p.object.Spec.IsCA = cmmeta.IssuerReference{Name: "mine"}, true
		}, workload.Denies, workload.CANotAllowed},
		{"a life that is too long", "", func(p *petition) { p.object.Spec.Duration = hours(2161) }, workload.Denies, workload.DurationTooLong},
		{"a life that is too long for the rule too", "", func(p *petition) {
			p.object.Spec.IssuerRef.Name, p.object.Spec.Duration = "root-a", hours(87601)
		}, workload.Denies, workload.DurationTooLong},
		{"a subject in an encoding that programs read differently", "", func(p *petition) {
			v := asn1.RawValue{Tag: asn1.TagT61String, Bytes: []byte("web.shop.svc")}
			p.csr.RawSubject = subject(t, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: v}})
		}, workload.Denies, workload.ForeignEncoding},
		{"a common name with a byte that ends texts", "", func(p *petition) {
			v := asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte("web.shop.svc\x00.bank")}
			p.csr.RawSubject = subject(t, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: v}})
		}, workload.Denies, workload.ForeignEncoding},
		{"what a rule denies, though it approves it too", "", func(p *petition) {
			p.object.Spec.IssuerRef = cmmeta.IssuerReference{Group: "example.com", Kind: "Vault", Name: "web"}
			p.csr.DNSNames = []string{"admin.shop.svc"}
		}, workload.Denies, workload.RuleDenies},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := healthy()
			row.change(p)
			got := workloadPolicy(t, row.policy+services).Decide(p.Petition, p.asked(t))
			if got.Outcome != row.want || got.ID != row.id {
				t.Errorf("got %+v, want %v %s", got, row.want, row.id)
			}
		})
	}
}

func commonName(v string) pkix.AttributeTypeAndValue {
	return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: v}
}

func subject(t *testing.T, sets ...pkix.RelativeDistinguishedNameSET) []byte {
	t.Helper()
	der, err := asn1.Marshal(pkix.RDNSequence(sets))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestAnErrorOfARuleDecidesNothing(t *testing.T) {
	const rule = "otherwise: Deny\nrules:\n- name: a\n  issuers: [{kind: ClusterIssuer, name: internal}]\n  namespaces: [shop]\n"
	const other = "- name: b\n  issuers: [{kind: ClusterIssuer, name: internal}]\n  namespaces: [shop]\n  approve: 'dnsNames == [\"web.shop.svc\"]'\n"
	for name, row := range map[string]struct {
		policy string
		want   workload.Outcome
		id     string
	}{
		"approve":                               {"  approve: 'dnsNames[1] == \"a\"'\n", workload.Waits, workload.RuleFailed},
		"approve, and another rule approves":    {"  approve: 'dnsNames[1] == \"a\"'\n" + other, workload.Approves, workload.RuleApproves},
		"deny, though another rule approves":    {"  deny: 'dnsNames[1] == \"a\"'\n" + other, workload.Waits, workload.RuleFailed},
		"no error, and another rule approves":   {"  deny: 'dnsNames[0] == \"a\"'\n" + other, workload.Approves, workload.RuleApproves},
		"no error, and nothing that approves":   {"  approve: 'dnsNames[0] == \"a\"'\n", workload.Denies, workload.NothingApproves},
		"too long a calculation":                {"  approve: '" + endless + "'\n", workload.Waits, workload.RuleFailed},
		"too long a calculation before another": {"  approve: '" + endless + "'\n" + other, workload.Approves, workload.RuleApproves},
	} {
		t.Run(name, func(t *testing.T) {
			p := healthy()
			got := workloadPolicy(t, rule+row.policy).Decide(p.Petition, p.asked(t))
			if got.Outcome != row.want || got.ID != row.id {
				t.Errorf("got %+v, want %v %s", got, row.want, row.id)
			}
		})
	}
}

// endless is within the size of an expression, and not within its cost.
var endless = func() string {
	digits := "[0,1,2,3,4,5,6,7,8,9]"
	text := "size(dnsNames) > 1000"
	for _, v := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		text = digits + ".exists(" + v + ", " + text + ")"
	}
	return text
}()

func TestLimitsHoldWhoeverHasApproved(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*petition)
		ok     bool
	}{
		"what is allowed":                           {func(*petition) {}, true},
		"a foreign name: who approved has seen it":  {func(p *petition) { p.csr.DNSNames = []string{"web.bank.svc"} }, true},
		"an authority":                              {func(p *petition) { p.object.Spec.IsCA = true }, false},
		"too long a life":                           {func(p *petition) { p.object.Spec.Duration = hours(9000) }, false},
		"the default life where there is no longer": {func(p *petition) { p.object.Spec.Duration = nil }, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := healthy()
			row.change(p)
			if err := workloadPolicy(t, services).Limit("shop", p.asked(t)); (err == nil) != row.ok {
				t.Errorf("got %v", err)
			}
			if err := (*workload.Policy)(nil).Limit("shop", p.asked(t)); err != nil {
				t.Errorf("without a policy: %v", err)
			}
		})
	}
}

func TestARequestOfNoNamespaceIsOnlyWithinRulesForAll(t *testing.T) {
	const rule = "rules: [{name: a, issuers: [{kind: ClusterIssuer, name: internal}], namespaces: [%s], allowCA: true, deny: \"false\"}]\n"
	for namespaces, ok := range map[string]bool{`"*"`: true, `"team-*", shop`: false} {
		p := healthy()
		p.object.Spec.IsCA = true
		if err := workloadPolicy(t, strings.Replace(rule, "%s", namespaces, 1)).Limit("", p.asked(t)); (err == nil) != ok {
			t.Errorf("%s: %v", namespaces, err)
		}
	}
}

func TestWorkloadPoliciesThatAreRefused(t *testing.T) {
	rule := func(change ...string) string {
		text := "rules:\n- name: a\n  issuers: [{kind: ClusterIssuer, name: internal}]\n  namespaces: [shop]\n  approve: \"true\"\n"
		return strings.NewReplacer(change...).Replace(text)
	}
	if _, err := policy.ParseWorkload([]byte(workloadHead + rule())); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.ParseWorkload([]byte(workloadHead + "trustRequesters: true\n" + rule(`"true"`, `request.username == "a"`))); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct{ text, want string }{
		"another kind":                         {strings.Replace(workloadHead, "Workload", "Signing", 1) + rule(), "wanted are"},
		"a field that is not known":            {workloadHead + "maxLife: 1h\n", "maxLife"},
		"a field of a rule that is not known":  {workloadHead + rule("approve", "aprove"), "aprove"},
		"an otherwise that is not known":       {workloadHead + "otherwise: Approve\n", "otherwise"},
		"a life that is none":                  {workloadHead + "maxDuration: 90d\n", "maxDuration"},
		"a rule without issuers":               {workloadHead + rule("[{kind: ClusterIssuer, name: internal}]", "[]"), "rules[0].issuers"},
		"a rule without namespaces":            {workloadHead + rule("[shop]", "[]"), "rules[0].namespaces"},
		"a pattern that is none":               {workloadHead + rule("[shop]", `["a["]`), "rules[0].namespaces[0]"},
		"an issuer without a kind":             {workloadHead + rule("kind: ClusterIssuer, ", ""), "rules[0].issuers[0].kind"},
		"an issuer of a kind that is not":      {workloadHead + rule("ClusterIssuer", "Clusterissuer"), "rules[0].issuers[0].kind"},
		"an issuer without a name":             {workloadHead + rule(", name: internal", ""), "rules[0].issuers[0].name"},
		"an empty expression":                  {workloadHead + rule(`"true"`, `" "`), "rules[0].approve"},
		"an expression that is no truth":       {workloadHead + rule(`"true"`, "dnsNames"), "list(string)"},
		"a variable that is not known":         {workloadHead + rule(`"true"`, "names == []"), "names"},
		"two rules of one name":                {workloadHead + rule() + strings.TrimPrefix(rule(), "rules:\n"), "another rule"},
		"a requester whom nobody has verified": {workloadHead + rule(`"true"`, `request.username == "a"`), "trustRequesters"},
		"groups that nobody has verified":      {workloadHead + rule(`"true"`, "request.groups == []"), "trustRequesters"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := policy.ParseWorkload([]byte(row.text))
			if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, row.want)
			}
		})
	}
}

func TestThePageOfTheWorkloadPolicy(t *testing.T) {
	data, err := os.ReadFile("../../docs/workload-policy.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(page, -1)
	if len(blocks) == 0 {
		t.Fatal("no example")
	}
	p, err := policy.ParseWorkload([]byte(blocks[0][1]))
	if err != nil {
		t.Fatal(err)
	}
	q := healthy()
	if got := p.Decide(q.Petition, q.asked(t)); got.Outcome != workload.Approves {
		t.Errorf("the example says %+v", got)
	}
	q.csr.DNSNames = []string{"web.bank.svc"}
	if got := p.Decide(q.Petition, q.asked(t)); got.Outcome == workload.Approves {
		t.Errorf("the example says %+v", got)
	}
	_, table, _ := strings.Cut(page, "| variable | type | holds |")
	table, _, _ = strings.Cut(table, "\n\n")
	variables := regexp.MustCompile("(?m)^\\| `([a-zA-Z.]+)` \\| ([A-Za-z_.() ,]+) \\|").FindAllStringSubmatch(table, -1)
	if len(variables) != 23 {
		t.Fatalf("%d variables", len(variables))
	}
	const rule = "trustRequesters: true\nrules: [{name: a, issuers: [{kind: Issuer, name: a}], namespaces: [a], approve: "
	for _, v := range variables {
		if _, err := policy.ParseWorkload([]byte(workloadHead + rule + v[1] + "}]")); v[2] != "bool" && (err == nil || !strings.Contains(err.Error(), "is of type "+v[2]+":")) {
			t.Errorf("%s is not a %s: %v", v[1], v[2], err)
		}
	}
	for _, id := range []string{
		workload.RuleApproves, workload.OwnIssuer, workload.RuleDenies, workload.CANotAllowed, workload.DurationTooLong, workload.ForeignEncoding,
		workload.NothingApproves, workload.NamespaceUnnamed, workload.NotSeen, workload.RuleFailed,
	} {
		if !slices.Contains(regexp.MustCompile("`[a-z-]+`").FindAllString(page, -1), "`"+id+"`") {
			t.Errorf("the page does not tell of %s", id)
		}
	}
}
