package acmeissuer

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/letsencrypt/pebble/v2/ca"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

func now() metav1.Time { return metav1.NewTime(time.Now()) }

// bench is a cluster, DNS and an ACME server, and what speaks to them.
type bench struct {
	kube   *kubeServer
	dns    *dnsServer
	server *acmeServer
	port   int // where HTTP-01 is answered

	orders *Orders
	events []string
	tokens atomic.Pointer[Tokens]
	issuer *cmapi.Issuer
	key    crypto.Signer
}

// newBench makes one with an issuer whose account is not registered yet.
func newBench(t *testing.T, start func(*testing.T, pebbleSettings) *acmeServer, s pebbleSettings) *bench {
	t.Helper()
	b := &bench{kube: newKubeServer(t), dns: newDNSServer(t, "example.test.", "other.test.")}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.port = l.Addr().(*net.TCPAddr).Port
	// What answers outlives a process that ends in a test, as a load balancer does.
	front := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b.tokens.Load().ServeHTTP(w, r) })}
	go func() { _ = front.Serve(l) }()
	t.Cleanup(func() { _ = front.Close() })
	s.httpPort, s.dns = b.port, b.dns.address
	b.server = start(t, s)
	b.issuer = &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "le", Namespace: "shop", UID: "issuer-1", Generation: 1}}
	b.issuer.Spec.ACME = &cmacme.ACMEIssuer{
		Server: b.server.url, CABundle: b.server.caBundle, Email: "ops@example.test", PrivateKey: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "account"}},
		Solvers: []cmacme.ACMEChallengeSolver{{HTTP01: &cmacme.ACMEChallengeSolverHTTP01{Ingress: &cmacme.ACMEChallengeSolverHTTP01Ingress{IngressClassName: new("nginx")}}}},
	}
	if b.key, err = issue.GenerateKey(issue.ECDSAP256); err != nil {
		t.Fatal(err)
	}
	b.restart(t)
	// A key that is there, and quickly made; "made" is one that is not.
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	text, err := issue.EncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.orders.Client.Kube.CoreV1().Secrets("shop").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "account", Namespace: "shop"}, Data: map[string][]byte{"tls.key": text},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// restart begins with nothing in memory, as another process does.
func (b *bench) restart(t *testing.T) {
	t.Helper()
	client, err := NewClient(b.kube.config)
	if err != nil {
		t.Fatal(err)
	}
	b.orders = New(client, Settings{
		ClusterNamespace: "kubepki", UserAgent: "kubepki/test", Now: time.Now,
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, Port: int32(b.port), Nameservers: []string{b.dns.address},
	})
	b.orders.Event = func(object runtime.Object, _ bool, reason, message string) {
		b.events = append(b.events, fmt.Sprintf("%T %s: %s", object, reason, message))
	}
	s := b.orders.Solvers
	b.tokens.Store(s.Tokens)
	s.Poll, s.dnsPort = 20*time.Millisecond, b.dns.port
	s.dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port)))
	}
}

// verify registers the account, and writes what came of it into the issuer.
func (b *bench) verify(t *testing.T) Standing {
	t.Helper()
	s, err := b.orders.Accounts.Verify(t.Context(), b.issuer)
	b.issuer.Status.ACME, b.issuer.Status.Conditions = &s.Status, []cmapi.IssuerCondition{s.Condition}
	t.Logf("issuer: %s %s: %s (%v)", s.Condition.Status, s.Condition.Reason, s.Condition.Message, err)
	return s
}

// mustVerify is verify, of an issuer that must become ready.
func (b *bench) mustVerify(t *testing.T) {
	t.Helper()
	if s := b.verify(t); s.Condition.Status != cmmeta.ConditionTrue || s.Status.URI == "" {
		t.Fatalf("the issuer is not ready: %+v", s)
	}
}

func (b *bench) asking(t *testing.T, name string, dnsNames ...string) *cmapi.CertificateRequest {
	t.Helper()
	r, err := issue.Request(issue.Template{Subject: pkix.Name{CommonName: dnsNames[0]}, DNSNames: dnsNames}, b.key)
	if err != nil {
		t.Fatal(err)
	}
	return &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", UID: types.UID("uid-of-" + name)},
		Spec:       cmapi.CertificateRequestSpec{Request: issue.EncodeRequest(r), IssuerRef: cmmeta.IssuerReference{Name: "le", Kind: "Issuer"}},
	}
}

// run takes a request to its end.
func (b *bench) run(t *testing.T, cr *cmapi.CertificateRequest) Answer {
	t.Helper()
	var last Answer
	waitFor(t, "an answer to "+cr.Name, func() bool {
		a, err := b.orders.Step(t.Context(), cr, b.issuer)
		if err != nil {
			t.Logf("step: %v", err)
			return false
		}
		if a.Message != last.Message {
			t.Logf("step: %s %s: %s (again in %s)", a.Verdict, a.Reason, a.Message, a.Again)
		}
		last = a
		return a.Verdict != Pending
	})
	return last
}

// mustIssue takes a request to a certificate that its users would accept.
func (b *bench) mustIssue(t *testing.T, cr *cmapi.CertificateRequest, names ...string) []*x509.Certificate {
	t.Helper()
	a := b.run(t, cr)
	if a.Verdict != Issued {
		t.Fatalf("%s: %s", a.Verdict, a.Message)
	}
	chain, err := trust.ParseCertificates(a.Chain)
	if err != nil || len(chain) < 2 {
		t.Fatalf("a chain of %d: %v", len(chain), err)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(b.server.root(t))
	between.AddCert(chain[1])
	for _, name := range names {
		if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: strings.Replace(name, "*", "any", 1), Roots: roots, Intermediates: between}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !trust.SameKey(chain[0].PublicKey, b.key.Public()) {
		t.Error("the certificate is for another key")
	}
	return chain
}

// nothingLeft wants nothing to remain of challenges.
func (b *bench) nothingLeft(t *testing.T) {
	t.Helper()
	for _, resource := range []string{"challenges", "services", "endpointslices", "ingresses", "httproutes"} {
		if left := b.kube.names(resource); len(left) > 0 {
			t.Errorf("%s are left: %v", resource, left)
		}
	}
	if left := b.dns.texts(); len(left) > 0 {
		t.Errorf("TXT records are left: %v", left)
	}
}

func (b *bench) order(t *testing.T, cr *cmapi.CertificateRequest) *cmacme.Order {
	t.Helper()
	r, err := readRequest(cr.Spec.Request)
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := orderOf(cr, r, b.issuer.Spec.ACME, "")
	if err != nil {
		t.Fatal(err)
	}
	o, err := b.orders.Client.orders("shop").Get(t.Context(), wanted.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// find is what a controller knows of issuers.
func (b *bench) find(cmmeta.IssuerReference, string) (cmapi.GenericIssuer, bool) {
	return b.issuer, true
}

// useDNS has the issuer prove names by dynamic updates, in another algorithm each time.
func (b *bench) useDNS(t *testing.T, algorithm string) {
	t.Helper()
	_, err := b.orders.Client.Kube.CoreV1().Secrets("shop").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "tsig", Namespace: "shop"}, Data: map[string][]byte{"key": []byte(tsigSecret)},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.issuer.Spec.ACME.Solvers = []cmacme.ACMEChallengeSolver{{DNS01: &cmacme.ACMEChallengeSolverDNS01{CNAMEStrategy: cmacme.FollowStrategy, RFC2136: &cmacme.ACMEIssuerDNS01ProviderRFC2136{
		Nameserver: b.dns.address, TSIGKeyName: "acme-key", TSIGAlgorithm: algorithm,
		TSIGSecret: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "tsig"}, Key: "key"},
	}}}}
}

func TestPebbleIssuesForNamesThatAreProvedByHTTP(t *testing.T) {
	b := newBench(t, pebbleProcess, pebbleSettings{})
	b.issuer.Spec.ACME.PrivateKey.Name = "made"
	b.mustVerify(t)
	secret, err := b.orders.Client.Kube.CoreV1().Secrets("shop").Get(t.Context(), "made", metav1.GetOptions{})
	if err != nil || !strings.Contains(string(secret.Data["tls.key"]), "RSA PRIVATE KEY") {
		t.Errorf("the account's key was not made in a form that cert-manager reads: %v", err)
	}
	cr := b.asking(t, "web-1", "a.example.test", "b.example.test")
	b.mustIssue(t, cr, "a.example.test", "b.example.test")
	b.nothingLeft(t)
	o := b.order(t, cr)
	if o.Status.State != cmacme.Valid || o.Status.URL == "" || o.Status.FinalizeURL == "" || len(o.Status.Authorizations) != 2 || len(o.Status.Certificate) == 0 || o.Status.Reason != "" {
		t.Errorf("the order's status is %+v", o.Status)
	}
	if b.issuer.Status.ACME.LastRegisteredEmail != "ops@example.test" || b.issuer.Status.ACME.LastPrivateKeyHash == "" {
		t.Errorf("the issuer's status is %+v", b.issuer.Status.ACME)
	}
	all := strings.Join(b.events, "\n")
	for _, want := range []string{"*v1.Order Created: Created Challenge", "*v1.Challenge Presented: ", `*v1.Challenge DomainVerified: Domain "b.example.test" verified`, "*v1.Order Complete: "} {
		if !strings.Contains(all, want) {
			t.Errorf("no event %q among\n%s", want, all)
		}
	}
}

func TestWhatWasProvedNeedsNoOtherProof(t *testing.T) {
	b := newBench(t, pebbleInProcess, pebbleSettings{reuse: true})
	b.mustVerify(t)
	b.mustIssue(t, b.asking(t, "r-1", "r.example.test"), "r.example.test")
	b.kube.writes, b.events = nil, nil
	cr := b.asking(t, "r-2", "r.example.test")
	b.mustIssue(t, cr, "r.example.test")
	if writes := strings.Join(b.kube.writes, " "); strings.Contains(writes, "challenges") {
		t.Errorf("challenges were made: %s", writes)
	}
	t.Logf("%d writes: %v", len(b.kube.writes), b.kube.writes)
}

func TestPebbleIssuesForNamesThatAreProvedByDynamicUpdates(t *testing.T) {
	b := newBench(t, pebbleProcess, pebbleSettings{})
	b.dns.cname["_acme-challenge.www.example.test."] = "www.other.test."
	b.useDNS(t, "HMACSHA512")
	b.mustVerify(t)
	names := []string{"example.test", "*.example.test", "www.example.test"}
	b.mustIssue(t, b.asking(t, "dns-1", names...), names...)
	if n := b.dns.count(); n != 6 {
		t.Errorf("%d updates were made for three records that were written and removed", n)
	}
	b.nothingLeft(t)
}

func TestPebbleBindsExternalAccounts(t *testing.T) {
	const key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	b := newBench(t, pebbleProcess, pebbleSettings{eab: map[string]string{"kid-1": key}})
	if s := b.verify(t); s.Condition.Reason != registrationFailed || !strings.Contains(s.Condition.Message, "externalAccountRequired") {
		t.Errorf("without a binding: %+v", s.Condition)
	}
	b.issuer.Spec.ACME.ExternalAccountBinding = &cmacme.ACMEExternalAccountBinding{KeyID: "kid-1", Key: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "eab"}, Key: "mac"}}
	if s := b.verify(t); s.Condition.Reason != registrationFailed || !strings.Contains(s.Condition.Message, `"eab" not found`) {
		t.Errorf("without the Secret: %+v", s.Condition)
	}
	write := func(text string) {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "eab", Namespace: "shop"}, Data: map[string][]byte{"mac": []byte(text)}}
		api := b.orders.Client.Kube.CoreV1().Secrets("shop")
		if _, err := api.Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
			if _, err := api.Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("b10lLJs8l1GPIzsLP0s6pMt8O0XVGnfTaCeROxQM0BIt2XrJMDHJZBM5NuQmQJQH")
	if s := b.verify(t); s.Condition.Status != cmmeta.ConditionFalse || strings.Contains(s.Condition.Message, "b10lLJs8") {
		t.Errorf("with another key: %+v", s.Condition)
	}
	// As some servers' web pages hand it out: padded, and with a line feed.
	raw, _ := base64.RawURLEncoding.DecodeString(key)
	write(base64.StdEncoding.EncodeToString(raw) + "\n")
	b.mustVerify(t)
}

func TestANameThatLeadsElsewhereFailsItsRequestAndSaysWhy(t *testing.T) {
	b := newBench(t, pebbleInProcess, pebbleSettings{})
	b.issuer.Spec.ACME.Solvers[0].WaitInsteadOfSelfCheck = &metav1.Duration{}
	b.dns.a["lost.example.test."] = "127.0.0.2"
	b.mustVerify(t)
	cr := b.asking(t, "lost-1", "lost.example.test")
	a := b.run(t, cr)
	if a.Verdict != Failed || a.Reason != orderFailed || !strings.Contains(a.Message, "lost.example.test was not proved by HTTP-01") {
		t.Errorf("%s %s: %s", a.Verdict, a.Reason, a.Message)
	}
	o := b.order(t, cr)
	if o.Status.State != cmacme.Invalid || o.Status.FailureTime == nil {
		t.Errorf("the order's status is %+v", o.Status)
	}
	// The challenge stays to be read, and nothing else.
	if left := b.kube.names("challenges"); len(left) != 1 {
		t.Errorf("challenges: %v", left)
	}
	if left := slices.Concat(b.kube.names("services"), b.kube.names("ingresses"), b.kube.names("endpointslices")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	// Its good twin: the self-check sees it before the server does, and waits.
	b.issuer.Spec.ACME.Solvers[0].WaitInsteadOfSelfCheck = nil
	b.orders.Solvers.dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}
	}
	cr = b.asking(t, "lost-2", "lost.example.test")
	for range 3 {
		if a, err := b.orders.Step(t.Context(), cr, b.issuer); err != nil || a.Verdict != Pending || !strings.Contains(a.Message, "Waiting for HTTP-01 challenge propagation") {
			t.Errorf("%+v %v", a, err)
		}
	}
}

func TestARecordThatDoesNotAppearIsWaitedForAndNotShownToTheServer(t *testing.T) {
	b := newBench(t, pebbleInProcess, pebbleSettings{})
	b.useDNS(t, "") // HMAC-MD5
	b.mustVerify(t)
	b.dns.setMute(true)
	cr := b.asking(t, "slow-1", "slow.example.test")
	for range 3 {
		a, err := b.orders.Step(t.Context(), cr, b.issuer)
		if err != nil || a.Verdict != Pending || !strings.Contains(a.Message, "does not have the TXT record of _acme-challenge.slow.example.test. yet") {
			t.Fatalf("%+v %v", a, err)
		}
	}
	// Somebody sees the fault, and mends it by hand: the order goes on from there.
	c, err := b.orders.Client.challenges("shop").Get(t.Context(), b.kube.names("challenges")[0], metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.dns.mu.Lock()
	b.dns.mute = false
	b.dns.txt["_acme-challenge.slow.example.test."] = []string{c.Spec.Key}
	b.dns.mu.Unlock()
	b.mustIssue(t, cr, "slow.example.test")
	b.nothingLeft(t)
}

func TestEachWriteMayBeTheLastOfItsProcess(t *testing.T) {
	b := newBench(t, pebbleInProcess, pebbleSettings{})
	b.useDNS(t, "HMACSHA256")
	b.issuer.Spec.ACME.Solvers = append(b.issuer.Spec.ACME.Solvers, cmacme.ACMEChallengeSolver{
		Selector: &cmacme.CertificateDNSNameSelector{DNSNames: []string{"web.example.test"}},
		HTTP01:   &cmacme.ACMEChallengeSolverHTTP01{GatewayHTTPRoute: gatewaySolver()},
	})
	b.mustVerify(t)
	// One order is passed on from process to process, each of which does one write more.
	// Those of two and three writes end at other acts beside the API.
	for writes := 1; writes <= 3; writes++ {
		cr := b.asking(t, "killed-"+strconv.Itoa(writes), "web.example.test", "dns.example.test")
		lives, issued := 0, false
		for b.kube.live(writes); !issued && lives < 60; {
			a, err := b.orders.Step(t.Context(), cr, b.issuer)
			switch {
			case b.kube.isDead():
				lives++
				b.kube.live(writes)
				b.restart(t)
			case err != nil:
				t.Fatal(err)
			case a.Verdict == Failed:
				t.Fatal(a.Message)
			case a.Verdict == Pending:
				time.Sleep(10 * time.Millisecond)
			}
			issued = a.Verdict == Issued
		}
		b.kube.live(0)
		t.Logf("%d processes of %d writes", lives, writes)
		if lives < 15/writes {
			t.Errorf("%d processes have ended: the test does not end them", lives)
		}
		b.mustIssue(t, cr, "web.example.test", "dns.example.test")
		if err := b.orders.Sweep(t.Context(), b.find); err != nil {
			t.Error(err)
		}
		b.nothingLeft(t)
	}
}

func TestAnAccountIsRegisteredAnewWhereTheServerDoesNotKnowIt(t *testing.T) {
	settings := pebbleSettings{address: freePort(t)}
	b := newBench(t, pebbleInProcess, settings)
	b.mustVerify(t)
	first := b.issuer.Status.ACME.URI

	// The same server, with nothing in its memory.
	b.server.stop()
	settings.httpPort, settings.dns = b.port, b.dns.address
	b.server = pebbleInProcess(t, settings)
	cr := b.asking(t, "lost-1", "lost.example.test")
	a, err := b.orders.Step(t.Context(), cr, b.issuer)
	if err != nil || a.Verdict != Pending || !a.Reverify {
		t.Fatalf("%+v %v", a, err)
	}
	b.mustVerify(t)
	if b.issuer.Status.ACME.URI == first {
		t.Error("the account is the one that the server does not know")
	}
	b.mustIssue(t, cr, "lost.example.test")

	// Another server, which the issuer names from now on.
	settings.address = ""
	b.server = pebbleInProcess(t, settings)
	b.issuer.Spec.ACME.Server, b.issuer.Generation = b.server.url, 2
	cr = b.asking(t, "moved-1", "moved.example.test")
	if a, err := b.orders.Step(t.Context(), cr, b.issuer); err != nil || !a.Reverify {
		t.Fatalf("%+v %v", a, err)
	}
	b.mustVerify(t)
	if !sameHost(b.issuer.Status.ACME.URI, b.server.url) {
		t.Errorf("the account is still %s", b.issuer.Status.ACME.URI)
	}
	b.mustIssue(t, cr, "moved.example.test")

	// And after a restart nobody is asked for what is known.
	b.restart(t)
	b.server.stop()
	b.mustVerify(t)
}

func TestTheChainThatAnIssuerPrefersIsTaken(t *testing.T) {
	b := newBench(t, pebbleInProcess, pebbleSettings{roots: 2})
	b.mustVerify(t)
	first := b.mustIssue(t, b.asking(t, "chain-1", "c.example.test"), "c.example.test")
	var other string
	for _, c := range b.alternates(t, "chain-1", "c.example.test") {
		if name := c[len(c)-1].Issuer.CommonName; name != first[len(first)-1].Issuer.CommonName {
			other = name
		}
	}
	if other == "" {
		t.Fatal("the server offers one chain alone")
	}
	b.issuer.Spec.ACME.PreferredChain = other
	a := b.run(t, b.asking(t, "chain-2", "c.example.test"))
	chain, err := trust.ParseCertificates(a.Chain)
	if err != nil || chain[len(chain)-1].Issuer.CommonName != other {
		t.Errorf("the chain ends at %q, %q was preferred: %v", chain[len(chain)-1].Issuer, other, err)
	}
}

// alternates returns all chains that the server has for an order.
func (b *bench) alternates(t *testing.T, name string, dnsNames ...string) [][]*x509.Certificate {
	t.Helper()
	s, err := b.orders.Accounts.sessionFor(t.Context(), b.issuer)
	if err != nil {
		t.Fatal(err)
	}
	o := b.order(t, b.asking(t, name, dnsNames...))
	got, err := s.client.GetOrder(t.Context(), s.account, acmeOrder(o.Status.URL))
	if err != nil {
		t.Fatal(err)
	}
	chains, err := s.client.GetCertificateChain(t.Context(), s.account, got.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]*x509.Certificate
	for _, c := range chains {
		parsed, err := trust.ParseCertificates(c.ChainPEM)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, parsed)
	}
	return all
}

func TestProfilesAndRenewalInformationAreSpoken(t *testing.T) {
	var replaces atomic.Int32
	var replaced atomic.Bool
	b := newBench(t, pebbleInProcess, pebbleSettings{
		profiles: map[string]ca.Profile{"default": {Description: "the default"}, "short": {Description: "six days", ValidityPeriod: 518400}},
		middleware: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/order-plz" && strings.Contains(bodyOf(r), `"replaces"`) {
					replaces.Add(1)
					if replaced.Load() {
						w.Header().Set("Content-Type", "application/problem+json")
						w.WriteHeader(http.StatusConflict)
						_, _ = w.Write([]byte(`{"type":"urn:ietf:params:acme:error:alreadyReplaced","detail":"replaced","status":409}`))
						return
					}
				}
				next.ServeHTTP(w, r)
			})
		},
	})
	b.issuer.Spec.ACME.Profile = "short"
	b.mustVerify(t)
	first := b.mustIssue(t, b.asking(t, "p-1", "p.example.test"), "p.example.test")
	if life := first[0].NotAfter.Sub(first[0].NotBefore); life > 7*24*time.Hour {
		t.Errorf("the profile of six days gave %s", life)
	}
	info, ok, err := b.orders.RenewalInfo(t.Context(), b.issuer, func() (*x509.Certificate, error) { return first[0], nil })
	if err != nil || !ok || !info.Start.Before(info.End) || info.End.After(first[0].NotAfter) || info.RetryAfter <= 0 {
		t.Errorf("renewal information: %+v, %t %v", info, ok, err)
	}
	b.orders.Replaced = func(context.Context, *cmapi.CertificateRequest) *x509.Certificate { return first[0] }
	b.mustIssue(t, b.asking(t, "p-2", "p.example.test"), "p.example.test")
	if replaces.Load() != 1 {
		t.Errorf("%d orders said what they replace, not one", replaces.Load())
	}
	// A second order that replaces the same is refused, and placed again without saying
	// so. (Pebble itself would race with its own marks.)
	replaced.Store(true)
	b.mustIssue(t, b.asking(t, "p-3", "p.example.test"), "p.example.test")

	b.issuer.Spec.ACME.Profile = "none"
	if a := b.run(t, b.asking(t, "p-4", "p.example.test")); a.Verdict != Failed || !strings.Contains(a.Message, `no profile "none"`) {
		t.Errorf("%+v", a)
	}
}

func TestALimitOfRateIsWaitedForAsTheServerSays(t *testing.T) {
	var limited atomic.Bool
	b := newBench(t, pebbleInProcess, pebbleSettings{middleware: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !limited.Load() || r.URL.Path != "/order-plz" {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Retry-After", "120")
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = w.Write([]byte(`{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many certificates","status":429}`))
		})
	}})
	b.mustVerify(t)
	limited.Store(true)
	cr := b.asking(t, "many-1", "many.example.test")
	a, err := b.orders.Step(t.Context(), cr, b.issuer)
	if err != nil || a.Verdict != Pending || a.Again != 2*time.Minute || !strings.Contains(a.Message, "too many certificates") {
		t.Errorf("%+v %v", a, err)
	}
	if o := b.order(t, cr); !strings.Contains(o.Status.Reason, "too many certificates") || o.Status.State != "" {
		t.Errorf("the order's status is %+v", o.Status)
	}
	limited.Store(false)
	b.mustIssue(t, cr, "many.example.test")
}

// TestAnOrderThatNeverEndsIsAskedForNowAndThen: a server at which an order is being worked
// on for ever costs a request or two each time, after a wait.
func TestAnOrderThatNeverEndsIsAskedForNowAndThen(t *testing.T) {
	var endless atomic.Bool
	var requests atomic.Int32
	b := newBench(t, pebbleInProcess, pebbleSettings{middleware: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			if !endless.Load() || !strings.HasPrefix(r.URL.Path, "/my-order/") && !strings.HasPrefix(r.URL.Path, "/finalize-order/") {
				next.ServeHTTP(w, r)
				return
			}
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			for key, values := range answer.Header() {
				w.Header()[key] = values
			}
			w.Header().Del("Content-Length")
			w.Header().Set("Retry-After", "31536000")
			w.WriteHeader(answer.Code)
			_, _ = w.Write(regexp.MustCompile(`"status":\s*"valid"`).ReplaceAll(answer.Body.Bytes(), []byte(`"status":"processing"`)))
		})
	}})
	b.mustVerify(t)
	endless.Store(true)
	cr := b.asking(t, "endless-1", "endless.example.test")
	processing := func() bool { return b.order(t, cr).Status.State == cmacme.Processing }
	waitFor(t, "the order is being worked on", func() bool {
		a, err := b.orders.Step(t.Context(), cr, b.issuer)
		if err != nil || a.Verdict != Pending {
			t.Logf("%+v %v", a, err)
		}
		return err == nil && a.Verdict == Pending && processing()
	})
	for range 10 {
		before := requests.Load()
		a, err := b.orders.Step(t.Context(), cr, b.issuer)
		if n := requests.Load() - before; err != nil || a.Verdict != Pending || a.Again < time.Second || a.Again > longestWait || n > 3 {
			t.Fatalf("%d requests, %+v %v", n, a, err)
		}
	}
	endless.Store(false)
	b.mustIssue(t, cr, "endless.example.test")
}

func TestACertificateThatSomebodyPutIntoAnOrderIsNotHandedOn(t *testing.T) {
	b := newBench(t, pebbleInProcess, pebbleSettings{})
	b.mustVerify(t)
	b.mustIssue(t, b.asking(t, "f-1", "f.example.test"), "f.example.test")
	// The order of this name holds a certificate for another key now.
	var err error
	if b.key, err = issue.GenerateKey(issue.ECDSAP256); err != nil {
		t.Fatal(err)
	}
	if a := b.run(t, b.asking(t, "f-1", "f.example.test")); a.Verdict != Failed || a.Chain != nil || !strings.Contains(a.Message, "for another key") {
		t.Errorf("%+v", a)
	}
}

func TestTheNextProcessAnswersForTheOneThatPresented(t *testing.T) {
	b := newBench(t, pebbleInProcess, pebbleSettings{})
	b.mustVerify(t)
	refuse := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: net.ErrClosed}
	}
	b.orders.Solvers.dial = refuse
	cr := b.asking(t, "next-1", "next.example.test")
	if a, err := b.orders.Step(t.Context(), cr, b.issuer); err != nil || a.Verdict != Pending {
		t.Fatalf("%+v %v", a, err)
	}
	api := b.orders.Client.challenges("shop")
	c, err := api.Get(t.Context(), b.kube.names("challenges")[0], metav1.GetOptions{})
	if err != nil || !c.Status.Presented {
		t.Fatalf("%+v %v", c.Status, err)
	}
	b.restart(t)
	ask := func(token string) string {
		r := httptest.NewRequest(http.MethodGet, "http://next.example.test"+wellKnown+token, nil)
		w := httptest.NewRecorder()
		b.orders.Solvers.Tokens.ServeHTTP(w, r)
		return strconv.Itoa(w.Code) + " " + w.Body.String()
	}
	if got := ask(c.Spec.Token); got != "200 "+c.Spec.Key {
		t.Errorf("a token of the process before: %s", got)
	}
	if got := ask("none"); !strings.HasPrefix(got, "404") {
		t.Errorf("a token of nobody: %s", got)
	}
	// The server was told, and this process has another address: it must be reached.
	c.Status.State = cmacme.Processing
	if _, err := api.UpdateStatus(t.Context(), c, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	b.orders.Solvers.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.77")}
	if a, err := b.orders.Step(t.Context(), cr, b.issuer); err != nil || a.Verdict != Pending {
		t.Fatalf("%+v %v", a, err)
	}
	slice, err := b.orders.Client.Kube.DiscoveryV1().EndpointSlices("shop").Get(t.Context(), routeName(c)+"-ipv4", metav1.GetOptions{})
	if err != nil || !slices.Equal(slice.Endpoints[0].Addresses, []string{"192.0.2.77"}) {
		t.Errorf("%+v %v", slice, err)
	}
}
