package why_test

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"testing"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/why"
	"github.com/kubepki/kubepki/internal/workload"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) *metav1.Time { t := metav1.NewTime(now.Add(d)); return &t }

// world is one Certificate and all that hangs on it, as the API has it.
type world struct {
	g        why.Gathered
	c        *cmapi.Certificate
	secret   *corev1.Secret
	issuer   *cmapi.Issuer
	ca       *corev1.Secret
	request  *cmapi.CertificateRequest
	order    *cmacme.Order
	hurdle   *cmacme.Challenge
	leases   []why.Lease
	siblings []why.Sibling
}

// gathered is what a command would gather of it.
func (w *world) gathered() *why.Gathered {
	g := w.g
	g.At, g.Certificate = now, w.c
	public := func(s *corev1.Secret) why.Seen[why.Secret] {
		if s == nil {
			return why.Seen[why.Secret]{Look: why.Missing}
		}
		p := why.NewSecret(s)
		return why.Seen[why.Secret]{Look: why.Found, Object: &p}
	}
	if g.Secret.Look == "" {
		g.Secret = public(w.secret)
	}
	if g.Requests.Look == "" {
		g.Requests = why.Seen[[]cmapi.CertificateRequest]{Look: why.Found, Object: &[]cmapi.CertificateRequest{}}
		if w.request != nil {
			*g.Requests.Object = append(*g.Requests.Object, *w.request)
		}
	}
	if g.Issuer.Look == "" {
		g.Issuer.Look = why.Missing
		if w.issuer != nil {
			i := why.NewIssuer(w.issuer)
			g.Issuer = why.Seen[why.Issuer]{Look: why.Found, Object: &i}
			if i.Type == "ca" {
				g.Authority = public(w.ca)
			}
		}
	}
	g.Siblings = why.Seen[[]why.Sibling]{Look: why.Found, Object: &w.siblings}
	g.Orders = why.Seen[[]cmacme.Order]{Look: why.Found, Object: &[]cmacme.Order{}}
	g.Challenges = why.Seen[[]cmacme.Challenge]{Look: why.Found, Object: &[]cmacme.Challenge{}}
	if w.order != nil {
		g.Orders.Object = &[]cmacme.Order{*w.order}
	}
	if w.hurdle != nil {
		g.Challenges.Object = &[]cmacme.Challenge{*w.hurdle}
	}
	if g.Leases.Look == "" {
		g.Leases = why.Seen[[]why.Lease]{Look: why.Found, Object: &w.leases}
	}
	return &g
}

type pair struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

func (p pair) secret(t *testing.T, name string, ca []byte) *corev1.Secret {
	t.Helper()
	key, err := issue.EncodePrivateKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": trust.EncodeCertificates(p.certificate), "tls.key": key, "ca.crt": ca}}
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func authority(t *testing.T, end time.Duration) pair {
	t.Helper()
	key := newKey(t)
	c, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "shop's authority"}, Authority: true, NotBefore: now.Add(-1000 * time.Hour), NotAfter: now.Add(end)}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair{c, key}
}

func (p pair) leaf(t *testing.T, name string, end time.Duration) pair {
	t.Helper()
	key := newKey(t)
	c, err := issue.Sign(issue.Template{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: now.Add(-100 * time.Hour), NotAfter: now.Add(end),
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, key.Public(), issue.Authority{Certificate: p.certificate, Key: p.key})
	if err != nil {
		t.Fatal(err)
	}
	return pair{c, key}
}

func newRequest(revision int, conditions ...cmapi.CertificateRequestCondition) *cmapi.CertificateRequest {
	return &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("web-%d", revision), UID: "r", CreationTimestamp: *at(-5 * time.Minute), Annotations: map[string]string{cmapi.CertificateRequestRevisionAnnotationKey: fmt.Sprint(revision)}},
		Status:     cmapi.CertificateRequestStatus{Conditions: conditions},
	}
}

func said(kind cmapi.CertificateRequestConditionType, status cmmeta.ConditionStatus, reason, message string) cmapi.CertificateRequestCondition {
	return cmapi.CertificateRequestCondition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: at(-4 * time.Minute)}
}

var approved = said(cmapi.CertificateRequestConditionApproved, cmmeta.ConditionTrue, "cert-manager.io", "Certificate request has been approved by cert-manager.io")

func certificate() *cmapi.Certificate {
	revision := 1
	return &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "c", Generation: 1, CreationTimestamp: *at(-99 * time.Hour)},
		Spec:       cmapi.CertificateSpec{SecretName: "web-tls", DNSNames: []string{"web.example.com"}, IssuerRef: cmmeta.IssuerReference{Name: "shop-ca", Kind: "Issuer"}},
		Status: cmapi.CertificateStatus{
			Revision: &revision, NotBefore: at(-100 * time.Hour), NotAfter: at(2000 * time.Hour), RenewalTime: at(1300 * time.Hour),
			Conditions: []cmapi.CertificateCondition{{Type: cmapi.CertificateConditionReady, Status: cmmeta.ConditionTrue, Reason: "Ready", ObservedGeneration: 1, LastTransitionTime: at(-99 * time.Hour)}},
		},
	}
}

// healthy is a Certificate of a CA issuer that is ready.
func healthy(t *testing.T) *world {
	ca := authority(t, 20000*time.Hour)
	leaf := ca.leaf(t, "web.example.com", 2000*time.Hour)
	w := &world{
		c: certificate(), secret: leaf.secret(t, "web-tls", trust.EncodeCertificates(ca.certificate)), ca: ca.secret(t, "shop-ca", nil),
		issuer: &cmapi.Issuer{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop-ca", Generation: 1, CreationTimestamp: *at(-99 * time.Hour)},
			Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "shop-ca"}}},
			Status:     cmapi.IssuerStatus{Conditions: []cmapi.IssuerCondition{{Type: cmapi.IssuerConditionReady, Status: cmmeta.ConditionTrue, Reason: "KeyPairVerified", Message: "Signing CA verified", ObservedGeneration: 1}}},
		},
		request: newRequest(1, approved, said(cmapi.CertificateRequestConditionReady, cmmeta.ConditionTrue, "Issued", "Certificate fetched from issuer successfully")),
		leases:  []why.Lease{{Namespace: "kube-system", Name: "cert-manager-controller", Holder: "cert-manager-0", Renewed: now.Add(-time.Second), Duration: time.Minute}},
	}
	w.request.Status.Certificate = trust.EncodeCertificates(leaf.certificate)
	w.secret.Annotations = map[string]string{cmapi.CertificateNameKey: "web", cmapi.IssuerNameAnnotationKey: "shop-ca", cmapi.IssuerKindAnnotationKey: "Issuer"}
	return w
}

// issuing is one whose first issuance is under way since five minutes.
func issuing(t *testing.T) *world {
	w := healthy(t)
	w.secret, w.request = nil, nil
	w.c.Status = cmapi.CertificateStatus{Conditions: []cmapi.CertificateCondition{
		{Type: cmapi.CertificateConditionReady, Status: cmmeta.ConditionFalse, Reason: "DoesNotExist", Message: "Issuing certificate as Secret does not exist", ObservedGeneration: 1, LastTransitionTime: at(-5 * time.Minute)},
		{Type: cmapi.CertificateConditionIssuing, Status: cmmeta.ConditionTrue, Reason: "DoesNotExist", Message: "Issuing certificate as Secret does not exist", ObservedGeneration: 1, LastTransitionTime: at(-5 * time.Minute)},
	}}
	return w
}

// ordering is one that waits for an ACME server, which has been asked to look.
func ordering(t *testing.T) *world {
	w := issuing(t)
	w.issuer.Spec = cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{ACME: &cmacme.ACMEIssuer{}}}
	w.request = newRequest(1, approved, said(cmapi.CertificateRequestConditionReady, cmmeta.ConditionFalse, "Pending", `Waiting on certificate issuance from order shop/web-1-1: "pending"`))
	w.order = &cmacme.Order{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1-1", UID: "o", CreationTimestamp: *at(-5 * time.Minute), OwnerReferences: []metav1.OwnerReference{{UID: "r"}}}, Status: cmacme.OrderStatus{State: cmacme.Pending}}
	w.hurdle = &cmacme.Challenge{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1-1-1", OwnerReferences: []metav1.OwnerReference{{UID: "o"}}},
		Spec:   cmacme.ChallengeSpec{DNSName: "web.example.com", Type: cmacme.ACMEChallengeTypeDNS01, Token: "tok"},
		Status: cmacme.ChallengeStatus{Processing: true, Presented: true, State: cmacme.Pending}}
	return w
}

func fails(w *world, message string) {
	n := 2
	w.c.Status.Conditions[1].Status, w.c.Status.Conditions[1].Reason, w.c.Status.Conditions[1].Message = cmmeta.ConditionFalse, "Failed", "The certificate request has failed to complete and will be retried: "+message
	w.c.Status.LastFailureTime, w.c.Status.FailedIssuanceAttempts = at(-30*time.Minute), &n
	w.request = newRequest(1, approved, said(cmapi.CertificateRequestConditionReady, cmmeta.ConditionFalse, "Failed", message))
}

// TestOneBreakOneCause breaks one thing of a chain that is as it shall be, and wants
// exactly its cause.
func TestOneBreakOneCause(t *testing.T) {
	issuers := func(list ...why.IssuerName) func(*world) {
		return func(w *world) { w.issuer, w.g.Issuers = nil, list }
	}
	for name, x := range map[string]struct {
		from  func(*testing.T) *world
		spoil func(*world)
		id    string
		state why.State
		says  string // in text, fix, advice or place
	}{
		"names nobody":                            {healthy, func(w *world) { w.c.Spec.DNSNames = nil }, why.CauseSpec, why.AtRisk, "kubectl -n shop edit certificate web"},
		"is renewed before it is made":            {healthy, func(w *world) { w.c.Spec.Duration, w.c.Spec.RenewBefore = hours(2), hours(2) }, why.CauseSpec, why.AtRisk, "(spec.renewBefore)"},
		"another has the Secret":                  {issuing, func(w *world) { w.siblings = []why.Sibling{{"older", now.Add(-999 * time.Hour)}} }, why.CauseDuplicate, why.Broken, `patch certificate web --type=merge -p '{"spec":{"secretName":"web-tls"}}'`},
		"overwrites its authority":                {healthy, func(w *world) { w.c.Spec.SecretName = "shop-ca" }, why.CauseAuthoritySecret, why.AtRisk, `"secretName":"web-tls"`},
		"no issuer at all":                        {issuing, issuers(), why.CauseIssuerMissing, why.Broken, "no other that could be used"},
		"an issuer mistyped":                      {issuing, issuers(why.IssuerName{"Issuer", "shop", "shopca"}, why.IssuerName{"Issuer", "shop", "other"}), why.CauseIssuerName, why.Broken, `{"spec":{"issuerRef":{"name":"shopca"}}}`},
		"an issuer of the other kind":             {issuing, issuers(why.IssuerName{"ClusterIssuer", "", "shop-ca"}), why.CauseIssuerKind, why.Broken, `{"spec":{"issuerRef":{"kind":"ClusterIssuer"}}}`},
		"an issuer of another namespace":          {issuing, issuers(why.IssuerName{"Issuer", "bank", "shop-ca"}), why.CauseIssuerNamespace, why.Broken, "namespace bank"},
		"a group forgotten":                       {issuing, func(w *world) { w.c.Spec.IssuerRef.Kind = "AWSPCAIssuer" }, why.CauseIssuerGroup, why.Broken, "spec.issuerRef.group"},
		"an external kind that is not there":      {issuing, func(w *world) { external(w); w.g.Issuer.Look = why.NoKind }, why.CauseIssuerGroup, why.Broken, "--api-group=example.com"},
		"an issuer that says why it is not ready": {issuing, func(w *world) { notReady(w, "Failed to verify ACME account: no such host") }, why.CauseIssuerNotReady, why.Broken, "no such host"},
		"an issuer that the server lets wait":     {ordering, func(w *world) { notReady(w, "429 urn:ietf:params:acme:error:rateLimited: too many registrations") }, why.CauseRate, why.Broken, "too many"},
		"the authority's Secret is gone":          {healthy, func(w *world) { w.ca = nil }, why.CauseCAMissing, why.AtRisk, "secret/shop/shop-ca"},
		"the authority has no key":                {healthy, func(w *world) { delete(w.ca.Data, "tls.key") }, why.CauseCANoKey, why.AtRisk, "(tls.key)"},
		"the authority has another's key":         {healthy, func(w *world) { w.ca.Data["tls.key"] = w.secret.Data["tls.key"] }, why.CauseCAInvalid, why.AtRisk, "does not match"},
		"the authority is none": {issuing, func(w *world) {
			w.ca = authority(t, 9000*time.Hour).leaf(t, "leaf", 8000*time.Hour).secret(t, "shop-ca", nil)
		}, why.CauseCAInvalid, why.Broken, "CA:FALSE"},
		"the authority is over":    {issuing, func(w *world) { w.ca = authority(t, -time.Hour*3).secret(t, "shop-ca", nil) }, why.CauseCAExpired, why.Broken, "expired 3h ago"},
		"the authority ends first": {healthy, endsFirst, why.CauseCAEndsFirst, why.AtRisk, "ends in 41d"},
		"the authority ends first, and nobody renews": {healthy, func(w *world) {
			endsFirst(w)
			w.c.Status.RenewalTime, w.c.Spec.Renewal = at(900*time.Hour), &cmapi.CertificateRenewal{Policy: cmapi.CertificateRenewalPolicyDisabled}
		}, why.CauseCAEndsFirst, why.AtRisk, "ends in 41d"},
		"no controller":                            {issuing, func(w *world) { w.c.Status = cmapi.CertificateStatus{}; w.leases = nil }, why.CauseNoController, why.Broken, "kubepki controller --enable workloads"},
		"a controller that is gone":                {issuing, func(w *world) { w.c.Status = cmapi.CertificateStatus{}; w.leases[0].Renewed = now.Add(-time.Hour) }, why.CauseNoController, why.Broken, "renewed last 60m ago"},
		"a change that nobody took up":             {healthy, func(w *world) { w.c.Generation, w.leases = 2, nil }, why.CauseNoController, why.Broken, "of generation 1, and it is of 2"},
		"a controller that does not care":          {issuing, func(w *world) { w.c.Status = cmapi.CertificateStatus{} }, why.CauseIdle, why.Broken, "cert-manager-0"},
		"a renewal that nobody begins":             {healthy, func(w *world) { w.c.Status.RenewalTime = at(-time.Hour) }, why.CauseIdle, why.AtRisk, "renewal was due 60m ago"},
		"the Secret was deleted, and nobody cares": {healthy, func(w *world) { w.secret = nil }, why.CauseIdle, why.Broken, "web-tls is not there"},
		"a Secret of another Certificate":          {healthy, func(w *world) { w.secret.Annotations[cmapi.CertificateNameKey] = "gone" }, why.CauseOtherSecret, why.AtRisk, `"gone"`},
		"a Secret with another certificate":        {healthy, func(w *world) { edit(t, w) }, why.CauseEdited, why.AtRisk, "kubectl-edit wrote it 2m ago"},
		"a Secret with another key":                {healthy, func(w *world) { w.secret.Data["tls.key"] = w.ca.Data["tls.key"] }, why.CauseEdited, why.Broken, "kubepki cert renew web -n shop"},
		"over, and never renewed":                  {healthy, expired, why.CauseExpired, why.Broken, "Disabled"},
		"a key that may not be replaced":           {issuing, event("CannotRegenerateKey"), why.CauseKeyKept, why.Broken, `"rotationPolicy":"Always"`},
		"a request that the API server refuses":    {issuing, event("RequestFailed"), why.CauseRefused, why.Broken, "the message"},
		"no request":                               {issuing, func(w *world) { w.c.Status.NextPrivateKeySecretName = ptr("web-x") }, why.CauseIdle, why.Broken, "there is no CertificateRequest"},
		"the key of the request is gone": {issuing, func(w *world) {
			w.request = newRequest(1, approved)
			w.c.Status.NextPrivateKeySecretName, w.g.KeySecret.Look = ptr("web-x"), why.Missing
		}, why.CauseKeySecret, why.Broken, "secret/shop/web-x"},
		"nobody approves": {issuing, func(w *world) { w.request = newRequest(1) }, why.CauseUnapproved, why.Broken, "signers issuers.cert-manager.io/shop.shop-ca"},
		"denied": {issuing, func(w *world) {
			w.request = newRequest(1, said(cmapi.CertificateRequestConditionDenied, cmmeta.ConditionTrue, "policy.example.com", "no such name for you"))
		}, why.CauseDenied, why.Broken, "no such name for you"},
		"invalid for its signer": {issuing, func(w *world) {
			w.request = newRequest(1, said(cmapi.CertificateRequestConditionInvalidRequest, cmmeta.ConditionTrue, "Bad", "no wildcards"))
		}, why.CauseInvalid, why.Broken, "no wildcards"},
		"a renewal that was denied": {healthy, func(w *world) {
			w.c.Status.LastFailureTime = at(-10 * time.Minute)
			w.request = newRequest(2, said(cmapi.CertificateRequestConditionDenied, cmmeta.ConditionTrue, "policy.example.com", "not any more"))
		}, why.CauseDenied, why.AtRisk, "until 2026-06-01T12:50:00Z"},
		"a renewal that failed":                   {healthy, func(w *world) { w.c.Status.LastFailureTime = at(-10 * time.Minute) }, why.CauseBackoff, why.AtRisk, "failed 1 time"},
		"an external issuer that does not answer": {issuing, func(w *world) { external(w); w.request = newRequest(1, approved) }, why.CauseExternal, why.Broken, "controller of example.com does not answer"},
		"an issuer that does not sign":            {issuing, func(w *world) { w.request = newRequest(1, approved) }, why.CauseIdle, why.Broken, "nobody has signed it"},
		"an issuer that says what it waits for": {issuing, func(w *world) {
			external(w)
			w.request = newRequest(1, approved, said(cmapi.CertificateRequestConditionReady, cmmeta.ConditionFalse, "Pending", "ticket 4711 is open"))
		}, why.CausePending, why.Waiting, "ticket 4711"},
		"a failure that is waited out": {issuing, func(w *world) { fails(w, "Error signing certificate: no") }, why.CauseBackoff, why.Broken, "failed 2 times, last 30m ago: Error signing certificate: no"},
		"a failure that is waited out, beside an answer that came after it": {issuing, func(w *world) {
			fails(w, "denied")
			w.request = newRequest(1, approved, said(cmapi.CertificateRequestConditionReady, cmmeta.ConditionTrue, "Issued", "Certificate fetched from issuer successfully"))
		}, why.CauseBackoff, why.Broken, "last 30m ago: The certificate request has failed to complete and will be retried: denied"},
		"no order": {ordering, func(w *world) { w.order = nil }, why.CauseIdle, why.Broken, "nobody has made an order"},
		"an order that failed": {ordering, func(w *world) {
			w.order.Status, w.hurdle = cmacme.OrderStatus{State: cmacme.Errored, Reason: "400 malformed"}, nil
		}, why.CauseOrder, why.Broken, "400 malformed"},
		"an order that failed, and is waited out": {ordering, func(w *world) {
			fails(w, "order failed")
			w.order.Status, w.hurdle = cmacme.OrderStatus{State: cmacme.Invalid}, nil
		}, why.CauseOrder, why.Broken, "until 2026-06-01T13:30:00Z"},
		"too many certificates": {ordering, func(w *world) {
			w.order.Status = cmacme.OrderStatus{State: cmacme.Errored, Reason: "429 urn:ietf:params:acme:error:rateLimited: too many certificates already issued, retry after 2026-06-03 08:00:00 UTC: see"}
		}, why.CauseRate, why.Broken, "until 2026-06-03T08:00:00Z"},
		"a challenge in the queue": {ordering, func(w *world) { w.hurdle.Status = cmacme.ChallengeStatus{} }, why.CauseQueued, why.Waiting, "its turn"},
		"a challenge that cannot be presented": {ordering, func(w *world) {
			w.hurdle.Status = cmacme.ChallengeStatus{Processing: true, State: cmacme.Pending, Reason: "route53: AccessDenied"}
		}, why.CausePresent, why.Broken, "AccessDenied"},
		"a name that has not spread": {ordering, func(w *world) {
			w.hurdle.Status.Reason = `Waiting for DNS-01 challenge propagation: DNS record for "web.example.com" not yet propagated`
		}, why.CauseDNS, why.Waiting, "dig +short TXT _acme-challenge.web.example.com"},
		"a path that is not to be had": {ordering, func(w *world) {
			w.hurdle.Spec.Type = cmacme.ACMEChallengeTypeHTTP01
			w.hurdle.Status.Reason = "Waiting for HTTP-01 challenge propagation: wrong status code '404', expected '200'"
		}, why.CauseHTTP, why.Broken, "curl -v http://web.example.com/.well-known/acme-challenge/tok"},
		"a challenge that was not accepted": {ordering, func(w *world) {
			w.hurdle.Status = cmacme.ChallengeStatus{State: cmacme.Invalid, Reason: "403 urn:ietf:params:acme:error:caa"}
		}, why.CauseChallenge, why.Broken, "caa"},
		"a server that has not looked": {ordering, func(*world) {}, why.CauseServer, why.Waiting, "has been asked to look"},
		"a right that is missing": {issuing, func(w *world) {
			w.g.Requests = why.Seen[[]cmapi.CertificateRequest]{Look: why.Forbidden, Detail: "list certificaterequests.cert-manager.io in namespace shop"}
		}, why.CauseForbidden, why.Waiting, "give yourself the right to list certificaterequests.cert-manager.io in namespace shop"},
		"it has only begun":     {issuing, func(w *world) { w.c.Status.Conditions[1].LastTransitionTime = at(-5 * time.Second) }, why.CauseUnderWay, why.Waiting, "being issued since 5s"},
		"it was only just made": {issuing, func(w *world) { w.c.Status = cmapi.CertificateStatus{}; w.c.CreationTimestamp = *at(-5 * time.Second) }, why.CauseUnderWay, why.Waiting, "changed 5s ago"},
		"leases that may not be seen": {issuing, func(w *world) {
			w.c.Status, w.g.Leases = cmapi.CertificateStatus{}, why.Seen[[]why.Lease]{Look: why.Forbidden, Detail: "list leases in namespace kube-system"}
		}, why.CauseIdle, why.Broken, "the right to list leases"},
		"a name that a shell would read": {issuing, issuers(why.IssuerName{"Issuer", "shop", "shop-ca$'"}), why.CauseIssuerName, why.Broken, `"name":"shop-ca$'\''"`},
	} {
		t.Run(name, func(t *testing.T) {
			w := x.from(t)
			x.spoil(w)
			g := w.gathered()
			a := why.Explain(g)
			if a.Cause == nil || a.Cause.ID != x.id || a.State != x.state {
				t.Fatalf("got %s of %+v, want %s of %s", a.State, a.Cause, x.state, x.id)
			}
			all := fmt.Sprint(a.Cause.Text, "\n", a.Cause.Fix, "\n", a.Cause.Advice, "\n", a.Cause.Where)
			if a.Cause.Until != nil {
				all += "\nuntil " + a.Cause.Until.UTC().Format(time.RFC3339)
			}
			if !strings.Contains(all, x.says) {
				t.Errorf("%q is not in\n%s", x.says, all)
			}
			if a.Cause.Where == "" || a.Cause.Fix == "" && a.Cause.Advice == "" && x.id != why.CauseForbidden {
				t.Errorf("it says not where, or not what to do: %+v", a.Cause)
			}
			if len(a.Steps) < 3 || len(a.Steps) > 12 {
				t.Errorf("%d steps", len(a.Steps))
			}
			good := 0
			for _, s := range a.Steps {
				if s.Mark == why.Good {
					good++
				}
			}
			if good == len(a.Steps) {
				t.Error("every step is good, and there is a cause")
			}
		})
	}
}

// TestHealthyHasNoCause: the twin of each row above.
func TestHealthyHasNoCause(t *testing.T) {
	for name, spoil := range map[string]func(*world){
		"as it shall be":                func(*world) {},
		"the request was removed":       func(w *world) { w.request = nil },
		"a Secret that may not be seen": func(w *world) { w.g.Secret.Look = why.Forbidden },
		"an authority of a ClusterIssuer elsewhere": func(w *world) {
			w.c.Spec.IssuerRef.Kind, w.ca, w.g.AuthorityNamespace = "ClusterIssuer", nil, "cert-manager"
		},
		"a younger Certificate wants its Secret":   func(w *world) { w.siblings = []why.Sibling{{"younger", now}} },
		"a renewal that is due this minute":        func(w *world) { w.c.Status.RenewalTime = at(-time.Minute) },
		"no controller, for nothing is to be done": func(w *world) { w.leases = nil },
		"a controller that writes no generation":   func(w *world) { w.c.Generation, w.c.Status.Conditions[0].ObservedGeneration = 7, 0 },
		"an old failure":                           func(w *world) { w.c.Status.LastFailureTime = at(-90 * time.Hour) },
		"an authority that ends first, and a renewal before that": func(w *world) {
			endsFirst(w)
			w.c.Status.RenewalTime = at(900 * time.Hour)
		},
		"an authority that ends before the next does": func(w *world) { w.c.Spec.Duration = hours(25000) },
	} {
		t.Run(name, func(t *testing.T) {
			w := healthy(t)
			spoil(w)
			if a := why.Explain(w.gathered()); a.Cause != nil || a.State != why.Ready {
				t.Errorf("got %s, %+v", a.State, a.Cause)
			}
		})
	}
}

// TestWhateverIsNotSeen: there is an answer, and nothing that was not seen is called good
// or bad.
func TestWhateverIsNotSeen(t *testing.T) {
	for name, from := range map[string]func(*testing.T) *world{"healthy": healthy, "issuing": issuing, "ordering": ordering} {
		for _, look := range []why.Look{"", why.Forbidden, why.Failed, why.Missing, why.NoKind} {
			for part, drop := range map[string]func(*why.Gathered){
				"secret":     func(g *why.Gathered) { g.Secret = why.Seen[why.Secret]{Look: look, Detail: "x"} },
				"siblings":   func(g *why.Gathered) { g.Siblings = why.Seen[[]why.Sibling]{Look: look, Detail: "x"} },
				"requests":   func(g *why.Gathered) { g.Requests = why.Seen[[]cmapi.CertificateRequest]{Look: look, Detail: "x"} },
				"issuer":     func(g *why.Gathered) { g.Issuer = why.Seen[why.Issuer]{Look: look, Detail: "x"} },
				"authority":  func(g *why.Gathered) { g.Authority = why.Seen[why.Secret]{Look: look, Detail: "x"} },
				"orders":     func(g *why.Gathered) { g.Orders = why.Seen[[]cmacme.Order]{Look: look, Detail: "x"} },
				"challenges": func(g *why.Gathered) { g.Challenges = why.Seen[[]cmacme.Challenge]{Look: look, Detail: "x"} },
				"leases":     func(g *why.Gathered) { g.Leases = why.Seen[[]why.Lease]{Look: look, Detail: "x"} },
				"everything": func(g *why.Gathered) { *g = why.Gathered{At: g.At, Certificate: g.Certificate} },
			} {
				g := from(t).gathered()
				drop(g)
				a := why.Explain(g)
				if name != "healthy" && (a.Cause == nil || a.State == why.Ready) {
					t.Errorf("%s without %s (%q): %s of %+v", name, part, look, a.State, a.Cause)
				}
				unseen := look == why.Forbidden || look == why.Failed
				if unseen && name == "healthy" && a.Cause != nil {
					t.Errorf("%s without %s (%q): a cause of what was not seen: %+v", name, part, look, a.Cause)
				}
			}
		}
	}
}

// TestNoKeyIsKept: what is gathered of a Secret has no private key in it.
func TestNoKeyIsKept(t *testing.T) {
	w := healthy(t)
	text := fmt.Sprintf("%#v %+v", why.NewSecret(w.secret), why.NewSecret(w.secret).Facts)
	key, err := workload.ParseKey(w.secret.Data["tls.key"])
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "PRIVATE") || strings.Contains(text, strings.Trim(fmt.Sprintf("%d", der[40:60]), "[]")) {
		t.Error("a key is kept")
	}
}

func ptr(s string) *string { return &s }

func hours(n int) *metav1.Duration { return &metav1.Duration{Duration: time.Duration(n) * time.Hour} }

func notReady(w *world, message string) {
	w.issuer.Status.Conditions[0].Status, w.issuer.Status.Conditions[0].Message = cmmeta.ConditionFalse, message
}

func external(w *world) {
	w.c.Spec.IssuerRef = cmmeta.IssuerReference{Group: "example.com", Kind: "Broker", Name: "b"}
	w.issuer.Spec = cmapi.IssuerSpec{}
}

func expired(w *world) {
	w.c.Status.NotAfter, w.c.Status.RenewalTime = at(-time.Hour), nil
	w.c.Spec.Renewal = &cmapi.CertificateRenewal{Policy: cmapi.CertificateRenewalPolicyDisabled}
}

func event(reason string) func(*world) {
	return func(w *world) {
		w.g.Events = []why.Event{{Object: "certificate/shop/web", Type: "Warning", Reason: reason, Message: "the message", Last: now.Add(-time.Minute)}}
	}
}

// endsFirst gives an authority that ends in a thousand hours, and has signed for two.
func endsFirst(w *world) {
	key, err := workload.ParseKey(w.ca.Data["tls.key"])
	if err != nil {
		panic(err)
	}
	old, err := trust.ParseCertificates(w.ca.Data["tls.crt"])
	if err != nil {
		panic(err)
	}
	c, err := issue.SelfSign(issue.Template{Subject: old[0].Subject, Authority: true, NotBefore: old[0].NotBefore, NotAfter: now.Add(1000 * time.Hour)}, key)
	if err != nil {
		panic(err)
	}
	w.ca.Data["tls.crt"] = trust.EncodeCertificates(c)
}

// edit puts another certificate of the same key into the Secret, as kubectl edit does.
func edit(t *testing.T, w *world) {
	other := authority(t, 20000*time.Hour).leaf(t, "web.example.com", 1000*time.Hour).secret(t, "web-tls", nil)
	w.secret.Data["tls.crt"], w.secret.Data["tls.key"] = other.Data["tls.crt"], other.Data["tls.key"]
	w.secret.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl-edit", Operation: metav1.ManagedFieldsOperationUpdate, Time: at(-2 * time.Minute),
		FieldsV1: metav1.NewFieldsV1(`{"f:data":{"f:tls.crt":{},"f:tls.key":{}}}`)}}
	w.secret.UID = types.UID("s")
}
