package acmeissuer

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/google/go-cmp/cmp"
	"github.com/mholt/acmez/v3/acme"
	networkingv1 "k8s.io/api/networking/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"
)

func gatewaySolver() *cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute {
	return &cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute{ParentRefs: []gwapi.ParentReference{{Name: "front"}}}
}

func acmeOrder(url string) acme.Order { return acme.Order{Location: url} }

// bodyOf returns the payload of a signed request, which can be read again.
func bodyOf(r *http.Request) string {
	data, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(data))
	var signed struct{ Payload string }
	_ = json.Unmarshal(data, &signed)
	payload, _ := base64.RawURLEncoding.DecodeString(signed.Payload)
	return string(payload)
}

func TestNamesAreThoseThatCertManagerGives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefix := rapid.StringMatching(`[a-z0-9]([-.a-z0-9]{0,80}[a-z0-9])?`).Draw(t, "prefix")
		spec := cmacme.OrderSpec{
			CommonName: rapid.String().Draw(t, "cn"), DNSNames: rapid.SliceOf(rapid.String()).Draw(t, "names"),
			IssuerRef: cmmeta.IssuerReference{Name: rapid.String().Draw(t, "issuer"), Kind: "ClusterIssuer"},
		}
		got, err := nameWithHash(prefix, spec)
		want, err2 := apiutil.ComputeName(prefix, &spec)
		if got != want || err != nil || err2 != nil {
			t.Fatalf("%q is %q to cert-manager: %v %v", got, want, err, err2)
		}
	})
}

// named is a solver that is known by the name of its ingress.
func named(name string, selector *cmacme.CertificateDNSNameSelector) cmacme.ACMEChallengeSolver {
	return cmacme.ACMEChallengeSolver{Selector: selector, HTTP01: &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{Name: name}}}
}

func dnsNamed(name string, selector *cmacme.CertificateDNSNameSelector) cmacme.ACMEChallengeSolver {
	return cmacme.ACMEChallengeSolver{Selector: selector, DNS01: &cmacme.ACMEChallengeSolverDNS01{RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{Nameserver: name}}}
}

func TestTheSolverThatNamesANameMostCloselyIsPicked(t *testing.T) {
	both := []cmacme.ACMEChallenge{{Type: "dns-01", Token: "d"}, {Type: "http-01", Token: "h"}, {Type: "tls-alpn-01"}}
	dnsAlone := both[:1]
	zone := func(zones ...string) *cmacme.CertificateDNSNameSelector {
		return &cmacme.CertificateDNSNameSelector{DNSZones: zones}
	}
	labelled := func(pairs ...string) *cmacme.CertificateDNSNameSelector {
		s := &cmacme.CertificateDNSNameSelector{MatchLabels: map[string]string{}}
		for _, p := range pairs {
			s.MatchLabels[p] = "yes"
		}
		return s
	}
	exact := &cmacme.CertificateDNSNameSelector{DNSNames: []string{"www.example.com"}}
	for name, c := range map[string]struct {
		name    string
		offered []cmacme.ACMEChallenge
		solvers []cmacme.ACMEChallengeSolver
		want    string
	}{
		"the first of those that are for every name":    {"a.com", both, []cmacme.ACMEChallengeSolver{named("1", nil), named("2", nil)}, "1"},
		"an empty selector is no closer than none":      {"a.com", both, []cmacme.ACMEChallengeSolver{named("1", nil), named("2", labelled())}, "1"},
		"a zone before none":                            {"www.example.com", both, []cmacme.ACMEChallengeSolver{named("1", nil), named("2", zone("example.com"))}, "2"},
		"the longer zone":                               {"www.sys.example.com", both, []cmacme.ACMEChallengeSolver{named("1", zone("example.com")), named("2", zone("sys.example.com", "com"))}, "2"},
		"a zone is of whole labels":                     {"notexample.com", both, []cmacme.ACMEChallengeSolver{named("1", zone("example.com"))}, ""},
		"the zone's own name is in it":                  {"example.com", both, []cmacme.ACMEChallengeSolver{named("1", zone("example.com"))}, "1"},
		"the very name before any zone":                 {"www.example.com", both, []cmacme.ACMEChallengeSolver{named("1", zone("www.example.com")), named("2", exact)}, "2"},
		"a wildcard is not the name below it":           {"*.example.com", both, []cmacme.ACMEChallengeSolver{named("1", &cmacme.CertificateDNSNameSelector{DNSNames: []string{"example.com"}})}, ""},
		"more labels before fewer":                      {"a.com", both, []cmacme.ACMEChallengeSolver{named("1", labelled("x")), named("2", labelled("x", "y"))}, "2"},
		"labels that the order lacks":                   {"a.com", both, []cmacme.ACMEChallengeSolver{named("1", labelled("z"))}, ""},
		"a zone before any labels":                      {"a.com", both, []cmacme.ACMEChallengeSolver{named("1", labelled("x", "y")), named("2", zone("a.com"))}, "2"},
		"what the server does not offer is not chosen":  {"*.a.com", dnsAlone, []cmacme.ACMEChallengeSolver{named("1", zone("a.com")), dnsNamed("2", nil)}, "2"},
		"nothing where the server offers none of these": {"a.com", both[2:], []cmacme.ACMEChallengeSolver{named("1", nil), dnsNamed("2", nil)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, challenge := pick(c.name, c.offered, c.solvers, map[string]string{"x": "yes", "y": "yes"})
			have, token := "", ""
			switch {
			case got == nil:
			case got.HTTP01 != nil:
				have, token = got.HTTP01.Ingress.Name, "h"
			default:
				have, token = got.DNS01.RFC2136.Nameserver, "d"
			}
			if have != c.want || got != nil && challenge.Token != token {
				t.Errorf("%q was picked, not %q, for %+v", have, c.want, challenge)
			}
		})
	}
}

func TestAnnotationsChooseAnotherIngressOrGateway(t *testing.T) {
	order := func(pairs ...string) *cmacme.Order {
		o := &cmacme.Order{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Annotations: map[string]string{}}}
		for i := 0; i < len(pairs); i += 2 {
			o.Annotations["acme.cert-manager.io/http01-"+pairs[i]] = pairs[i+1]
		}
		return o
	}
	s := named("old", nil)
	if err := override(&s, order("override-ingress-ingressclassname", "blue")); err != nil || s.HTTP01.Ingress.Name != "" || *s.HTTP01.Ingress.IngressClassName != "blue" {
		t.Errorf("%+v %v", s.HTTP01.Ingress, err)
	}
	if err := override(&s, order("override-ingress-name", "a", "override-ingress-class", "b")); err == nil {
		t.Error("two that exclude each other were taken")
	}
	s = cmacme.ACMEChallengeSolver{HTTP01: &cmacme.ACMEChallengeSolverHTTP01{GatewayHTTPRoute: &cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute{}}}
	if err := override(&s, order()); err == nil {
		t.Error("a route without parents was taken")
	}
	if err := override(&s, order("parentrefname", "front", "parentrefkind", "Gateway")); err != nil || len(s.HTTP01.GatewayHTTPRoute.ParentRefs) != 1 || *s.HTTP01.GatewayHTTPRoute.ParentRefs[0].Namespace != "shop" {
		t.Errorf("%+v %v", s.HTTP01.GatewayHTTPRoute, err)
	}
}

func TestWhatAnOrderNeedsFollowsFromItsStatus(t *testing.T) {
	placed := cmacme.OrderStatus{URL: "u", FinalizeURL: "f", State: cmacme.Pending, Authorizations: []cmacme.ACMEAuthorization{{URL: "a", Identifier: "n"}}}
	with := func(change func(*cmacme.OrderStatus)) cmacme.OrderStatus {
		s := *placed.DeepCopy()
		change(&s)
		return s
	}
	for name, c := range map[string]struct {
		status cmacme.OrderStatus
		want   act
	}{
		"nothing is there yet":                       {cmacme.OrderStatus{}, placeOrder},
		"it was placed":                              {placed, proveNames},
		"an authorization was not read":              {with(func(s *cmacme.OrderStatus) { s.Authorizations[0].Identifier = "" }), readAuthorizations},
		"cert-manager stopped before it had read it": {with(func(s *cmacme.OrderStatus) { s.FinalizeURL = "" }), askOrder},
		"all is proved":                              {with(func(s *cmacme.OrderStatus) { s.State = cmacme.Ready }), finalize},
		"the server is at work":                      {with(func(s *cmacme.OrderStatus) { s.State = cmacme.Processing }), askOrder},
		"the certificate is ready":                   {with(func(s *cmacme.OrderStatus) { s.State = cmacme.Valid }), fetchCertificate},
		"the certificate is there":                   {with(func(s *cmacme.OrderStatus) { s.State, s.Certificate = cmacme.Valid, []byte("c") }), finish},
		"a certificate does not help a failed one":   {with(func(s *cmacme.OrderStatus) { s.State, s.Certificate = cmacme.Invalid, []byte("c") }), giveUp},
		"it has expired":                             {with(func(s *cmacme.OrderStatus) { s.State = cmacme.Expired }), giveUp},
	} {
		t.Run(name, func(t *testing.T) {
			if got := nextOfOrder(&cmacme.Order{Status: c.status}); got != c.want {
				t.Errorf("%d, not %d", got, c.want)
			}
		})
	}
}

func TestWhatAChallengeNeedsFollowsFromItsStatus(t *testing.T) {
	at := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	waiting := func(seconds int, c cmacme.Challenge) cmacme.Challenge {
		c.Spec.Solver.WaitInsteadOfSelfCheck = &metav1.Duration{Duration: time.Duration(seconds) * time.Second}
		return c
	}
	presented := cmacme.Challenge{Status: cmacme.ChallengeStatus{State: cmacme.Pending, Processing: true, Presented: true, PresentedAt: new(metav1.NewTime(at.Add(-10 * time.Second)))}}
	old := *presented.DeepCopy()
	old.Status.PresentedAt = nil
	held := func(state cmacme.State) cmacme.Challenge {
		return cmacme.Challenge{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{cmacme.ACMEDomainQualifiedFinalizer}}, Status: cmacme.ChallengeStatus{State: state}}
	}
	deleted := held(cmacme.Pending)
	deleted.DeletionTimestamp = new(metav1.NewTime(at))
	for name, c := range map[string]struct {
		challenge cmacme.Challenge
		want      step
		wait      time.Duration
	}{
		"it is new":                             {cmacme.Challenge{}, present, 0},
		"it was presented":                      {presented, check, 0},
		"a wait that is not over":               {waiting(30, presented), pause, 20 * time.Second},
		"a wait that is over":                   {waiting(10, presented), accept, 0},
		"a wait of nothing":                     {waiting(0, presented), accept, 0},
		"a wait whose beginning nobody noted":   {waiting(0, old), present, 0},
		"the server was told":                   {cmacme.Challenge{Status: cmacme.ChallengeStatus{State: cmacme.Processing, Presented: true}}, askChallenge, 0},
		"it is proved":                          {held(cmacme.Valid), cleanUp, 0},
		"it failed":                             {held(cmacme.Invalid), cleanUp, 0},
		"it is deleted before its time":         {deleted, cleanUp, 0},
		"it is proved and cleaned up":           {cmacme.Challenge{Status: cmacme.ChallengeStatus{State: cmacme.Valid}}, nothing, 0},
		"its finalizer is gone, its mark stays": {cmacme.Challenge{Status: cmacme.ChallengeStatus{State: cmacme.Errored, Processing: true}}, cleanUp, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got, wait := nextOfChallenge(&c.challenge, at); got != c.want || wait != c.wait {
				t.Errorf("%d in %s, not %d in %s", got, wait, c.want, c.wait)
			}
		})
	}
}

func TestTokensAreAnsweredUnderTheirNameAlone(t *testing.T) {
	var tokens Tokens
	tokens.put("tok", "www.example.com", "tok.thumb")
	tokens.put("ip6", "2001:db8::1", "ip6.thumb")
	for name, c := range map[string]struct {
		method, host, path string
		code               int
		body               string
	}{
		"the name":                   {"GET", "www.example.com", wellKnown + "tok", 200, "tok.thumb"},
		"the name with a port":       {"GET", "WWW.example.com:8089", wellKnown + "tok", 200, "tok.thumb"},
		"an address":                 {"GET", "[2001:db8::1]", wellKnown + "ip6", 200, "ip6.thumb"},
		"another name":               {"GET", "example.com", wellKnown + "tok", 404, ""},
		"another token":              {"GET", "www.example.com", wellKnown + "tok2", 404, ""},
		"another path":               {"GET", "www.example.com", "/tok", 404, ""},
		"a path that goes on":        {"GET", "www.example.com", wellKnown + "tok/x", 404, ""},
		"another method":             {"POST", "www.example.com", wellKnown + "tok", 404, ""},
		"a load balancer that looks": {"GET", "10.0.0.1:8089", "/healthz", 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, "http://placeholder"+c.path, nil)
			r.Host = c.host
			w := httptest.NewRecorder()
			tokens.ServeHTTP(w, r)
			if w.Code != c.code || c.code == 200 && w.Body.String() != c.body {
				t.Errorf("HTTP %d %q", w.Code, w.Body)
			}
		})
	}
	tokens.remove("tok")
	if tokens.has("tok") {
		t.Error("a token that was removed is answered")
	}
}

func TestNothingButProblemsOfACMEIsRepeated(t *testing.T) {
	problem := acme.Problem{Type: "urn:ietf:params:acme:error:rejectedIdentifier", Status: 403, Detail: "forbidden by policy"}
	for name, c := range map[string]struct {
		err     error
		want    string
		lasting bool
	}{
		"a problem":                        {fmt.Errorf("attempt 1: %w", problem), "403 urn:ietf:params:acme:error:rejectedIdentifier: forbidden by policy", true},
		"a problem of somebody else":       {acme.Problem{Type: "about:blank", Status: 403, Detail: "INTERNAL"}, "no problem document", false},
		"a page":                           {errors.New("HTTP 401: INTERNAL x509: INTERNAL"), "no problem document", false},
		"a page that the library repeats":  {errors.New("HTTP 500: JSON-decoding problem details: (raw='INTERNAL')"), "no problem document", false},
		"a limit, which passes":            {acme.Problem{Type: acme.ProblemTypeRateLimited, Status: 429, Detail: "slow"}, "slow", false},
		"trouble of the server's":          {acme.Problem{Type: acme.ProblemTypeServerInternal, Status: 500, Detail: "oops"}, "oops", false},
		"a problem with more than a line":  {acme.Problem{Type: acme.ProblemTypeMalformed, Status: 400, Detail: strings.Repeat("é", 2000)}, "é…", true},
		"what this package itself refuses": {told("spec is wrong"), "spec is wrong", true},
	} {
		t.Run(name, func(t *testing.T) {
			got := say(c.err)
			if !strings.Contains(got, c.want) || strings.Contains(got, "INTERNAL") || len(got) > maxMessage+len("…") || lasting(c.err) != c.lasting {
				t.Errorf("%.200q, lasting: %t", got, lasting(c.err))
			}
		})
	}
}

func TestAPathInAnIngressOfOthersComesAndGoesAlone(t *testing.T) {
	backend := func(name string) networkingv1.HTTPIngressPath {
		return networkingv1.HTTPIngressPath{Path: "/", Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: name}}}
	}
	rule := func(host string, paths ...networkingv1.HTTPIngressPath) networkingv1.IngressRule {
		r := networkingv1.IngressRule{Host: host}
		if len(paths) > 0 {
			r.HTTP = &networkingv1.HTTPIngressRuleValue{Paths: paths}
		}
		return r
	}
	for name, rules := range map[string][]networkingv1.IngressRule{
		"with rules of the host and of another": {rule("other.test", backend("o")), rule("a.test", backend("a"))},
		"with none of the host":                 {rule("other.test", backend("o"))},
		"with no rules":                         nil,
	} {
		t.Run(name, func(t *testing.T) {
			i := &networkingv1.Ingress{Spec: networkingv1.IngressSpec{Rules: rules}}
			before := i.DeepCopy()
			c := &cmacme.Challenge{Spec: cmacme.ChallengeSpec{DNSName: "a.test", Token: "tok"}}
			addPath(i, hostRule(c), pathTo(c, "solver"))
			once := i.DeepCopy()
			addPath(i, hostRule(c), pathTo(c, "solver"))
			if diff := cmp.Diff(once, i); diff != "" {
				t.Errorf("a second time changes it:\n%s", diff)
			}
			found := false
			for _, r := range i.Spec.Rules {
				found = found || r.Host == "a.test" && r.HTTP.Paths[0].Path == wellKnown+"tok"
			}
			if !found {
				t.Error("the path is not the first of its host")
			}
			removePath(i, hostRule(c), wellKnown+"tok")
			if len(before.Spec.Rules) != len(i.Spec.Rules) {
				t.Errorf("%d rules remain of %d", len(i.Spec.Rules), len(before.Spec.Rules))
			}
			for n := range i.Spec.Rules {
				if diff := cmp.Diff(before.Spec.Rules[n], i.Spec.Rules[n]); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestRequestsThatACMECannotAnswerFailAtOnce(t *testing.T) {
	b := newBench(t, func(*testing.T, pebbleSettings) *acmeServer { return &acmeServer{url: "https://127.0.0.1:1/dir"} }, pebbleSettings{})
	good := b.asking(t, "good", "a.example.test")
	long := b.asking(t, "long", "a.example.test")
	long.Spec.Request = bytes.Repeat([]byte("-----BEGIN CERTIFICATE REQUEST-----\n"), 4000)
	twice := b.asking(t, "twice", "a.example.test")
	twice.Spec.Request = append(twice.Spec.Request, good.Spec.Request...)
	for name, c := range map[string]struct {
		cr     *cmapi.CertificateRequest
		reason string
	}{
		"a text that is crafted to take long": {long, badRequest},
		"two requests":                        {twice, badRequest},
		"none":                                {&cmapi.CertificateRequest{}, badRequest},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := b.orders.Step(t.Context(), c.cr, b.issuer)
			if err != nil || a.Verdict != Failed || a.Reason != c.reason || len(b.kube.names("orders")) > 0 {
				t.Errorf("%+v %v", a, err)
			}
		})
	}
	if a, err := b.orders.Step(t.Context(), good, b.issuer); err != nil || a.Verdict != Pending || !a.Reverify {
		t.Errorf("the good one: %+v %v", a, err)
	}
}

// http01 is one solver of HTTP-01.
func http01(h cmacme.ACMEChallengeSolverHTTP01) []cmacme.ACMEChallengeSolver {
	return []cmacme.ACMEChallengeSolver{{HTTP01: &h}}
}

func TestIssuersThatCannotWorkSayWhatToMend(t *testing.T) {
	b := newBench(t, func(*testing.T, pebbleSettings) *acmeServer { return &acmeServer{url: "https://127.0.0.1:1/dir"} }, pebbleSettings{})
	for name, c := range map[string]struct {
		change          func(*cmacme.ACMEIssuer)
		reason, message string
	}{
		"plain HTTP":                {func(a *cmacme.ACMEIssuer) { a.Server = "http://acme.test/dir" }, invalidURL, "spec.acme.server"},
		"no name of the Secret":     {func(a *cmacme.ACMEIssuer) { a.PrivateKey.Name = "" }, invalidConfig, "privateKeySecretRef"},
		"two kinds of trust":        {func(a *cmacme.ACMEIssuer) { a.SkipTLSVerify, a.CABundle = true, []byte("x") }, invalidConfig, "exclude each other"},
		"neither ingress nor route": {func(a *cmacme.ACMEIssuer) { a.Solvers = http01(cmacme.ACMEChallengeSolverHTTP01{}) }, invalidSolver, "solvers[0].http01 needs one of"},
		"a class and a name": {func(a *cmacme.ACMEIssuer) {
			a.Solvers = http01(cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{Name: "shop", IngressClassName: new("nginx")}})
		}, invalidSolver, "exclude each other"},
		"a class that is none": {func(a *cmacme.ACMEIssuer) {
			a.Solvers = http01(cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{IngressClassName: new("azure/application-gateway")}})
		}, invalidSolver, "the older field class"},
		"a Service of another type": {func(a *cmacme.ACMEIssuer) {
			a.Solvers = http01(cmacme.ACMEChallengeSolverHTTP01{GatewayHTTPRoute: &cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute{ServiceType: "LoadBalancer"}})
		}, invalidSolver, "serviceType"},
		"a bundle that is none":    {func(a *cmacme.ACMEIssuer) { a.CABundle = []byte("x") }, registrationFailed, "spec.acme.caBundle"},
		"a solver that is nothing": {func(a *cmacme.ACMEIssuer) { a.Solvers = []cmacme.ACMEChallengeSolver{{}} }, invalidSolver, "solvers[0]"},
		"a TSIG Secret that is not there": {func(a *cmacme.ACMEIssuer) {
			a.Solvers = []cmacme.ACMEChallengeSolver{dnsNamed("ns", nil)}
			a.Solvers[0].DNS01.RFC2136.TSIGSecret = cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "tsig"}, Key: "key"}
		}, invalidSolver, `"tsig" not found`},
		"a server that is not there": {func(*cmacme.ACMEIssuer) {}, registrationFailed, "no connection to the server"},
	} {
		t.Run(name, func(t *testing.T) {
			issuer := b.issuer.DeepCopy()
			issuer.Spec.ACME.CABundle = nil
			c.change(issuer.Spec.ACME)
			s, _ := b.orders.Accounts.Verify(t.Context(), issuer)
			if s.Condition.Status != cmmeta.ConditionFalse || s.Condition.Reason != c.reason || !strings.Contains(s.Condition.Message, c.message) {
				t.Errorf("%+v", s.Condition)
			}
		})
	}
	t.Run("a key that may not be made", func(t *testing.T) {
		issuer := b.issuer.DeepCopy()
		issuer.Spec.ACME.PrivateKey.Name, issuer.Spec.ACME.DisableAccountKeyGeneration = "mine", true
		if s, err := b.orders.Accounts.Verify(t.Context(), issuer); err == nil || s.Condition.Reason != verificationFailed {
			t.Errorf("%+v %v", s.Condition, err)
		}
	})
}

func TestASolverOfACloudIsSaidToBeNone(t *testing.T) {
	b := newBench(t, pebbleInProcess, pebbleSettings{})
	b.issuer.Spec.ACME.SkipTLSVerify, b.issuer.Spec.ACME.CABundle = true, nil
	b.issuer.Spec.ACME.Solvers = []cmacme.ACMEChallengeSolver{{DNS01: &cmacme.ACMEChallengeSolverDNS01{Route53: &cmacme.ACMEIssuerDNS01ProviderRoute53{}}}}
	s := b.verify(t)
	if !strings.Contains(s.Condition.Message, "INSECURE") || !strings.Contains(strings.Join(s.Warnings, " "), "dns01.route53 is not supported by this controller") {
		t.Errorf("%+v", s)
	}
	cr := b.asking(t, "cloud", "a.example.test")
	a, err := b.orders.Step(t.Context(), cr, b.issuer)
	if err != nil || a.Verdict != Pending || !strings.Contains(a.Message, "dns01.route53 is not supported by this controller") {
		t.Errorf("%+v %v", a, err)
	}
	// The issuer is mended, and the order goes on with another challenge.
	b.issuer.Spec.ACME.Solvers = []cmacme.ACMEChallengeSolver{named("", nil)}
	b.mustIssue(t, cr, "a.example.test")
	b.nothingLeft(t)
}

func TestACallOfAWebhookIsAsCertManagerMakesIt(t *testing.T) {
	b := newBench(t, pebbleInProcess, pebbleSettings{})
	b.issuer.Spec.ACME.Solvers = []cmacme.ACMEChallengeSolver{{DNS01: &cmacme.ACMEChallengeSolverDNS01{Webhook: &cmacme.ACMEIssuerDNS01ProviderWebhook{
		GroupName: "acme.corp.test", SolverName: "corp-dns", Config: &apiextensionsv1.JSON{Raw: []byte(`{"zone":"z"}`)},
	}}}}
	refuse := true
	b.kube.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/apis/acme.corp.test/v1alpha1/corp-dns" {
			return false
		}
		var p payload
		_ = json.NewDecoder(r.Body).Decode(&p)
		p.Response = &payloadResponse{UID: p.Request.UID, Success: !refuse, Result: &metav1.Status{Message: "the zone is locked"}}
		if p.APIVersion != "webhook.acme.cert-manager.io/v1alpha1" || p.Request.Type != "dns-01" || p.Request.ResolvedZone != "example.test." || string(p.Request.Config) != `{"zone":"z"}` || p.Request.ResourceNamespace != "shop" {
			t.Errorf("%+v", p.Request)
		}
		if !refuse {
			b.dns.mu.Lock()
			b.dns.txt[p.Request.ResolvedFQDN] = map[string][]string{"Present": {p.Request.Key}}[p.Request.Action]
			b.dns.mu.Unlock()
		}
		p.Request = nil
		_ = json.NewEncoder(w).Encode(p)
		return true
	}
	b.mustVerify(t)
	cr := b.asking(t, "hook", "a.example.test")
	if a, err := b.orders.Step(t.Context(), cr, b.issuer); err != nil || a.Verdict != Pending || !strings.Contains(a.Message, "the zone is locked") {
		t.Errorf("%+v %v", a, err)
	}
	refuse = false
	b.mustIssue(t, cr, "a.example.test")
	b.nothingLeft(t)
}

func TestWhoWritesChallengesDoesNotUseAClusterIssuersCredentials(t *testing.T) {
	b := newBench(t, pebbleInProcess, pebbleSettings{})
	b.useDNS(t, "HMACSHA256")
	b.mustVerify(t)
	b.dns.setMute(true)
	cr := b.asking(t, "written", "a.example.test")
	if _, err := b.orders.Step(t.Context(), cr, b.issuer); err != nil {
		t.Fatal(err)
	}
	api := b.orders.Client.challenges("shop")
	c, err := api.Get(t.Context(), b.kube.names("challenges")[0], metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.Spec.DNSName = "bank.example.test"
	if c, err = api.Update(t.Context(), c, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	updates := b.dns.count()
	if a, err := b.orders.Step(t.Context(), cr, b.issuer); err != nil || a.Verdict != Pending || !strings.Contains(a.Message, "is not as the order wants it") || b.dns.count() != updates {
		t.Errorf("%+v %v", a, err)
	}
	// Of a ClusterIssuer whose solver is another, nothing is cleaned up either.
	foreign := c.DeepCopy()
	foreign.Spec.IssuerRef.Kind = cmapi.ClusterIssuerKind
	foreign.Spec.Solver.DNS01.RFC2136.Nameserver = "192.0.2.9"
	if mayCleanUp(foreign, b.issuer) || mayCleanUp(foreign, nil) {
		t.Error("a foreign solver may be used")
	}
	foreign.Spec.Solver = b.issuer.Spec.ACME.Solvers[0]
	if !mayCleanUp(foreign, b.issuer) || !mayCleanUp(c, nil) {
		t.Error("its own solver may not be used")
	}
}

func TestServersThatAreNoneOfACMEAreBounded(t *testing.T) {
	directory := `{"newNonce":"%[1]s/n","newAccount":"%[1]s/a","newOrder":"%[1]s/o"}`
	var answer func(w http.ResponseWriter, r *http.Request, base string)
	tries := 0
	var server *httptest.Server
	server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r, server.URL) }))
	t.Cleanup(server.Close)
	b := newBench(t, func(*testing.T, pebbleSettings) *acmeServer { return &acmeServer{url: server.URL + "/dir"} }, pebbleSettings{})
	b.issuer.Spec.ACME.SkipTLSVerify = true
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request, base string)
		want   string
	}{
		"a page without end": {func(w http.ResponseWriter, _ *http.Request, _ string) {
			for {
				if _, err := w.Write(bytes.Repeat([]byte("INTERNAL"), 1000)); err != nil {
					return
				}
			}
		}, "no problem document"},
		"a directory of plain HTTP": {func(w http.ResponseWriter, _ *http.Request, base string) {
			_, _ = fmt.Fprintf(w, directory, strings.Replace(base, "https", "http", 1))
		}, "no problem document"},
		"a way elsewhere": {func(w http.ResponseWriter, r *http.Request, _ string) {
			http.Redirect(w, r, "http://127.0.0.1:1/INTERNAL", http.StatusFound)
		}, "no problem document"},
		"an account without end": {func(w http.ResponseWriter, r *http.Request, base string) {
			switch r.URL.Path {
			case "/dir":
				_, _ = fmt.Fprintf(w, directory, base)
			case "/n":
				w.Header().Set("Replay-Nonce", "n")
			default:
				w.Header().Set("Content-Type", "application/json")
				for {
					if _, err := w.Write(bytes.Repeat([]byte(" "), 10000)); err != nil {
						return
					}
				}
			}
		}, "no problem document"},
		"nonces that never please": {func(w http.ResponseWriter, r *http.Request, base string) {
			w.Header().Set("Replay-Nonce", "n")
			if r.URL.Path == "/dir" {
				_, _ = fmt.Fprintf(w, directory, base)
				return
			}
			if r.URL.Path == "/n" {
				return
			}
			if tries++; tries > 20 {
				t.Error("it is asked without end")
			}
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"type":"urn:ietf:params:acme:error:badNonce","detail":"not that one","status":400}`))
		}, "not that one"},
		"nonces that never come": {func(w http.ResponseWriter, r *http.Request, base string) {
			if r.URL.Path == "/dir" {
				_, _ = fmt.Fprintf(w, directory, base)
			} else if tries++; tries > 20 {
				t.Error("it is asked without end")
			}
		}, "no problem document"},
	} {
		t.Run(name, func(t *testing.T) {
			answer, tries = c.answer, 0
			s := b.verify(t)
			if s.Condition.Status != cmmeta.ConditionFalse || !strings.Contains(s.Condition.Message, c.want) || strings.Contains(s.Condition.Message, "INTERNAL") {
				t.Errorf("%+v", s.Condition)
			}
		})
	}
}
