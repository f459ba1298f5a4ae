package workload_test

import (
	"fmt"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/kubepki/kubepki/internal/workload"
)

// made is when the certificate of a healthy state was issued, and today a day later.
var (
	made  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	today = made.Add(24 * time.Hour)
)

// cluster are the objects of a Certificate, before they are a State.
type cluster struct {
	certificate *cmapi.Certificate
	secret      *corev1.Secret // nil: none
	requests    []*cmapi.CertificateRequest
	duplicate   bool // another Certificate writes the Secret
}

// healthy is a Certificate whose certificate was issued at made, as everything is then.
func healthy(t *testing.T) *cluster {
	t.Helper()
	o := &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-web", Generation: 1},
		Spec: cmapi.CertificateSpec{
			SecretName: "web-tls", DNSNames: []string{"web.shop.svc"}, IssuerRef: cmmeta.IssuerReference{Name: "self"},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
		},
	}
	key, err := workload.NewKey(&o.Spec)
	if err != nil {
		t.Fatal(err)
	}
	text, err := workload.Request(&o.Spec, key)
	if err != nil {
		t.Fatal(err)
	}
	r := &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-1", UID: "uid-web-1", CreationTimestamp: metav1.NewTime(made),
			Annotations:     map[string]string{cmapi.CertificateRequestRevisionAnnotationKey: "1"},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(o, cmapi.SchemeGroupVersion.WithKind("Certificate"))},
		},
		Spec: cmapi.CertificateRequestSpec{IssuerRef: o.Spec.IssuerRef, Request: text},
	}
	asked, err := workload.Read(r)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := workload.SignSelf(asked, key, &cmapi.SelfSignedIssuer{}, made)
	if err != nil {
		t.Fatal(err)
	}
	r.Status.Certificate, r.Status.CA = issued.Chain, issued.CA
	workload.SetRequestCondition(&r.Status, cmapi.CertificateRequestConditionApproved, cmmeta.ConditionTrue, "x", "x", made)
	workload.SetRequestCondition(&r.Status, cmapi.CertificateRequestConditionReady, cmmeta.ConditionTrue, cmapi.CertificateRequestReasonIssued, "x", made)
	encoded, err := workload.EncodeKey(key, &o.Spec)
	if err != nil {
		t.Fatal(err)
	}
	configuration, err := workload.SecretOf(o, workload.Content{Key: encoded, Chain: issued.Chain, CA: issued.CA, Name: o.Name, Issuer: o.Spec.IssuerRef}, workload.Passwords{}, "", false)
	if err != nil {
		t.Fatal(err)
	}
	secret := applied(t, configuration)
	facts := workload.FactsOf(secret)
	o.Status = workload.Settled(o, &facts, 1, made)
	return &cluster{certificate: o, secret: secret, requests: []*cmapi.CertificateRequest{r}}
}

// next is a request of revision 2, for the same key, with a condition Ready.
func (c *cluster) next(reason string, at time.Time) *cmapi.CertificateRequest {
	r := c.requests[0].DeepCopy()
	r.Name, r.UID, r.Status = "web-2", "uid-web-2", cmapi.CertificateRequestStatus{}
	r.Annotations[cmapi.CertificateRequestRevisionAnnotationKey] = "2"
	status := cmmeta.ConditionFalse
	if reason == cmapi.CertificateRequestReasonIssued {
		status = cmmeta.ConditionTrue
	}
	if reason != "" {
		workload.SetRequestCondition(&r.Status, cmapi.CertificateRequestConditionReady, status, reason, "because", at)
	}
	if reason == cmapi.CertificateRequestReasonFailed {
		r.Status.FailureTime = ptr.To(metav1.NewTime(at))
	}
	c.requests = append(c.requests, r)
	return r
}

func (c *cluster) issuing(since time.Time) {
	workload.SetCondition(&c.certificate.Status, cmapi.CertificateConditionIssuing, 1, cmmeta.ConditionTrue, "ManuallyTriggered", "by hand", since)
}

// failed has an issuance failed some times, at a time.
func (c *cluster) failed(times int, at time.Time) {
	for range times {
		c.certificate.Status = workload.Failed(c.certificate, c.certificate.Status, "Failed", "because", at)
	}
}

func (c *cluster) state(t *testing.T) workload.State {
	t.Helper()
	wish, err := workload.WishOf(&c.certificate.Spec)
	s := workload.State{
		Certificate: c.certificate, Owner: !c.duplicate, Secret: &workload.SecretFacts{}, Invalid: err,
		FirstBackoff: time.Hour, LastBackoff: 32 * time.Hour,
	}
	if err == nil {
		s.Digest, s.Refused = wish.Digest(), workload.Admit(&c.certificate.Spec, workload.Upstream)
	}
	if c.secret != nil {
		facts := workload.FactsOf(c.secret)
		s.Secret = &facts
	}
	for _, r := range c.requests {
		s.Requests = append(s.Requests, workload.FactsOfRequest(r))
	}
	if suspect := s.Suspect(); suspect != nil {
		for _, r := range c.requests {
			if r.Name == suspect.Name {
				was, _, err := workload.Recall(r)
				if err != nil {
					t.Fatal(err)
				}
				s.Differs = workload.Differences(was, wish)
			}
		}
	}
	return s
}

func TestDecide(t *testing.T) {
	renewal := made.Add(60 * 24 * time.Hour)
	rows := map[string]struct {
		change  func(*cluster)
		at      time.Time // today where it is zero
		want    workload.Action
		reason  string
		surplus string

		revision int
	}{
		"a certificate that is as it shall be is left": {want: workload.Rest},
		"a Secret that is gone":                        {change: func(c *cluster) { c.secret = nil }, want: workload.Issue, reason: "DoesNotExist"},
		"a Secret without a key":                       {change: func(c *cluster) { delete(c.secret.Data, "tls.key") }, want: workload.Issue, reason: "MissingData"},
		"a Secret whose certificate is none":           {change: func(c *cluster) { c.secret.Data["tls.crt"] = []byte("x") }, want: workload.Issue, reason: "InvalidCertificate"},
		"a Secret of another issuer":                   {change: func(c *cluster) { c.certificate.Spec.IssuerRef.Name = "other" }, want: workload.Issue, reason: "IncorrectIssuer"},
		"another name":                                 {change: func(c *cluster) { c.certificate.Spec.DNSNames[0] = "shop.svc" }, want: workload.Issue, reason: "RequestChanged"},
		"another name, and the request is gone": {change: func(c *cluster) {
			c.certificate.Spec.DNSNames[0], c.requests = "shop.svc", nil
		}, want: workload.Issue, reason: "SecretMismatch"},
		"the request is gone, and nothing else has changed": {change: func(c *cluster) { c.requests = nil }, want: workload.Rest},
		"another algorithm":                     {change: func(c *cluster) { c.certificate.Spec.PrivateKey.Algorithm = "Ed25519" }, want: workload.Issue, reason: "SecretMismatch"},
		"another Certificate writes the Secret": {change: func(c *cluster) { c.duplicate, c.secret = true, nil }, want: workload.Rest},
		"a template that the Secret does not show": {change: func(c *cluster) {
			c.certificate.Spec.SecretTemplate = &cmapi.CertificateSecretTemplate{Labels: map[string]string{"a": "b"}}
		}, want: workload.Mend, reason: "SecretTemplateMismatch"},

		"a day before the renewal may be": {at: renewal.Add(-25 * time.Hour), want: workload.Rest},
		"at the renewal":                  {at: renewal, want: workload.Issue, reason: "Renewing"},
		"after its end":                   {at: made.Add(91 * 24 * time.Hour), want: workload.Issue, reason: "Renewing"},
		"at the renewal, with a policy that says never": {change: func(c *cluster) {
			c.certificate.Spec.Renewal = &cmapi.CertificateRenewal{Policy: cmapi.CertificateRenewalPolicyDisabled}
		}, at: renewal, want: workload.Rest},
		"to be renewed before it was made, a moment after it was made": {change: func(c *cluster) {
			c.certificate.Spec.RenewBefore = &metav1.Duration{Duration: 90*24*time.Hour - time.Second}
		}, at: made.Add(time.Minute), want: workload.Rest},

		"cmctl renew":                                          {change: func(c *cluster) { c.issuing(today) }, want: workload.Ask, reason: "ManuallyTriggered"},
		"an issuance whose request waits":                      {change: func(c *cluster) { c.issuing(made); c.next("Pending", made) }, want: workload.Await, reason: "ManuallyTriggered"},
		"an issuance whose request nobody has looked at":       {change: func(c *cluster) { c.issuing(made); c.next("", made) }, want: workload.Await, reason: "ManuallyTriggered"},
		"an issuance whose request is answered":                {change: func(c *cluster) { c.issuing(made); c.next("Issued", made) }, want: workload.Store, reason: "ManuallyTriggered"},
		"an issuance whose request has failed":                 {change: func(c *cluster) { c.issuing(made); c.next("Failed", today) }, want: workload.Fail, reason: "Failed"},
		"an issuance whose request failed before it was begun": {change: func(c *cluster) { c.issuing(today); c.next("Failed", made) }, want: workload.Ask, reason: "ManuallyTriggered", surplus: "[web-2]"},
		"an issuance whose request was denied, and answered all the same": {change: func(c *cluster) {
			c.issuing(made)
			workload.SetRequestCondition(&c.next("Issued", made).Status, cmapi.CertificateRequestConditionDenied, cmmeta.ConditionTrue, "Policy", "no", made)
		}, want: workload.Fail, reason: "Policy"},
		"an issuance whose request is invalid": {change: func(c *cluster) {
			c.issuing(made)
			workload.SetRequestCondition(&c.next("Pending", made).Status, cmapi.CertificateRequestConditionInvalidRequest, cmmeta.ConditionTrue, "Bad", "no", made)
		}, want: workload.Fail, reason: "Bad"},
		"an issuance whose spec has changed": {change: func(c *cluster) {
			c.issuing(made)
			c.next("Pending", made)
			c.certificate.Spec.DNSNames[0] = "shop.svc"
		}, want: workload.Ask, reason: "ManuallyTriggered", surplus: "[web-2]"},
		"an issuance with two requests": {change: func(c *cluster) {
			c.issuing(made)
			c.next("Pending", made)
			c.next("Pending", made).Name = "web-2b"
		}, want: workload.Await, reason: "ManuallyTriggered", surplus: "[web-2b]"},
		"what a process left that ended": {change: func(c *cluster) { c.secret = nil; c.next("", made) }, want: workload.Issue, reason: "DoesNotExist", surplus: "[web-2]"},

		"an hour has not passed since it failed":                 {change: func(c *cluster) { c.secret = nil; c.next("Failed", today); c.failed(1, today.Add(-59*time.Minute)) }, want: workload.Rest},
		"an hour has passed since it failed":                     {change: func(c *cluster) { c.secret = nil; c.next("Failed", today); c.failed(1, today.Add(-61*time.Minute)) }, want: workload.Issue, reason: "DoesNotExist", surplus: "[web-2]"},
		"an hour has passed since it failed for the second time": {change: func(c *cluster) { c.secret = nil; c.next("Failed", today); c.failed(2, today.Add(-61*time.Minute)) }, want: workload.Rest},
		"it has just failed, and the spec has changed since": {change: func(c *cluster) {
			c.secret = nil
			c.next("Failed", today)
			c.failed(1, today)
			c.certificate.Spec.DNSNames[0] = "shop.svc"
		}, want: workload.Issue, reason: "DoesNotExist", surplus: "[web-2]"},
		"it has just failed without a request, and the spec has changed since": {change: func(c *cluster) {
			c.secret = nil
			c.failed(1, today)
			c.certificate.Generation++
		}, want: workload.Issue, reason: "DoesNotExist"},

		"a spec that can never be, and no certificate": {change: func(c *cluster) {
			c.secret, c.requests, c.certificate.Spec.DNSNames = nil, nil, nil
		}, want: workload.Issue, reason: "InvalidSpec"},
		"a spec that can never be any more": {change: func(c *cluster) { c.certificate.Spec.DNSNames = nil }, want: workload.Issue, reason: "InvalidSpec"},
		"a spec that admission refuses, and no certificate": {change: func(c *cluster) {
			c.secret, c.requests, c.certificate.Spec.Duration = nil, nil, lasting(time.Minute)
		}, want: workload.Issue, reason: "InvalidSpec"},
		"a spec that admission refuses, after another one": {change: func(c *cluster) {
			c.certificate.Spec.EmailAddresses = []string{"A <a@b>"}
		}, want: workload.Issue, reason: "InvalidSpec"},
		"a spec that admission refuses, and has been issued as it stands": {change: func(c *cluster) {
			c.certificate.Spec.RenewBefore = lasting(time.Minute)
		}, want: workload.Rest},
		"the same, when it is due": {change: func(c *cluster) {
			c.certificate.Spec.RenewBefore = lasting(time.Minute)
		}, at: made.Add(90*24*time.Hour - time.Minute), want: workload.Issue, reason: "Renewing"},
		"the same, when its Secret is gone": {change: func(c *cluster) {
			c.certificate.Spec.RenewBefore, c.secret = lasting(time.Minute), nil
		}, want: workload.Issue, reason: "DoesNotExist"},
		"the same, and the request is gone": {change: func(c *cluster) {
			c.certificate.Spec.RenewBefore, c.requests = lasting(time.Minute), nil
		}, want: workload.Rest},
		"an hour has not passed since the API server did not take the Secret, but a minute": {change: func(c *cluster) {
			c.secret = nil
			c.next("Issued", today)
			c.certificate.Status = workload.Failed(c.certificate, c.certificate.Status, workload.ReasonSecretNotWritten, "quota", today.Add(-61*time.Second))
		}, want: workload.Issue, reason: "DoesNotExist", surplus: "[web-2]"},
		"a minute has not passed since": {change: func(c *cluster) {
			c.secret = nil
			c.next("Issued", today)
			c.certificate.Status = workload.Failed(c.certificate, c.certificate.Status, workload.ReasonSecretNotWritten, "quota", today.Add(-59*time.Second))
		}, want: workload.Rest},

		"a process ended before it could write that there is a new certificate": {change: func(c *cluster) {
			c.next("Issued", made).Status.Certificate = c.requests[0].Status.Certificate
		}, want: workload.Rest, revision: 2},
		"an answer that is not in the Secret, for an issuance that nobody has begun": {change: func(c *cluster) {
			c.next("Issued", made)
		}, want: workload.Rest, revision: 1},

		"more requests than the history may hold": {change: func(c *cluster) {
			c.next("Issued", made)
			facts := workload.FactsOf(c.secret)
			c.certificate.Status = workload.Settled(c.certificate, &facts, 2, made)
		}, want: workload.Rest, surplus: "[web-1]"},
		"a longer history": {change: func(c *cluster) {
			c.next("Issued", made)
			facts := workload.FactsOf(c.secret)
			c.certificate.Status = workload.Settled(c.certificate, &facts, 2, made)
			c.certificate.Spec.RevisionHistoryLimit = ptr.To[int32](2)
		}, want: workload.Rest},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			c := healthy(t)
			if row.change != nil {
				row.change(c)
			}
			at := row.at
			if at.IsZero() {
				at = today
			}
			v := workload.Decide(c.state(t), at)
			if v.Action != row.want || v.Action != workload.Rest && v.Reason != row.reason {
				t.Errorf("got action %d, %s %q, want %d, %s", v.Action, v.Reason, v.Message, row.want, row.reason)
			}
			var surplus []string
			for _, r := range v.Surplus {
				surplus = append(surplus, r.Name)
			}
			if got := fmt.Sprint(surplus); got != row.surplus && !(got == "[]" && row.surplus == "") {
				t.Errorf("surplus are %s, want %s", got, row.surplus)
			}
			if row.revision != 0 && *v.Status.Revision != row.revision {
				t.Errorf("the revision is %d, want %d", *v.Status.Revision, row.revision)
			}
			if v.Action == workload.Rest && !v.Again.After(at) && !c.noWait() && row.revision != 2 {
				t.Errorf("it is looked at again at %s, which is not after %s", v.Again, at)
			}
		})
	}
}

// noWait tells whether nothing will come by itself.
func (c *cluster) noWait() bool { return c.certificate.Spec.Renewal != nil }

func TestWhatIsInOrderHasTheStatusThatItHas(t *testing.T) {
	c := healthy(t)
	for _, at := range []time.Time{today, today.Add(30 * 24 * time.Hour)} {
		if v := workload.Decide(c.state(t), at); !equality.Semantic.DeepEqual(v.Status, c.certificate.Status) {
			t.Errorf("the status would become %+v, from %+v", v.Status, c.certificate.Status)
		}
	}
	v := workload.Decide(c.state(t), made.Add(91*24*time.Hour))
	if ready := workload.Condition(&v.Status, cmapi.CertificateConditionReady); ready.Status != cmmeta.ConditionFalse || ready.Reason != "Expired" {
		t.Errorf("after its end it is %+v", ready)
	}
}

func TestASpecThatIsRefusedIsSaidAndTakenBack(t *testing.T) {
	c := healthy(t)
	good := c.certificate.Spec.DNSNames
	c.certificate.Spec.DNSNames = nil
	c.certificate.Generation++
	v := workload.Decide(c.state(t), today)
	ready := workload.Condition(&v.Status, cmapi.CertificateConditionReady)
	if ready.Status != cmmeta.ConditionFalse || ready.Reason != workload.ReasonInvalidSpec || ready.Message != workload.MessageInvalidSpec+"spec: at least one of commonName (from the commonName field or from a literalSubject), dnsNames, emailAddresses, ipAddresses, otherNames, or uris must be set" {
		t.Errorf("ready is %+v", ready)
	}
	c.certificate.Status = workload.Failed(c.certificate, v.Status, v.Reason, v.Message, today)
	if v := workload.Decide(c.state(t), today.Add(time.Minute)); v.Action != workload.Rest {
		t.Errorf("it is tried again at once: %d", v.Action)
	}
	c.certificate.Spec.DNSNames = good
	c.certificate.Generation++
	v = workload.Decide(c.state(t), today.Add(time.Minute))
	ready = workload.Condition(&v.Status, cmapi.CertificateConditionReady)
	if v.Action != workload.Rest || ready.Status != cmmeta.ConditionTrue || v.Status.LastFailureTime != nil || workload.Condition(&v.Status, cmapi.CertificateConditionIssuing) != nil {
		t.Errorf("after the spec was put back: %d, %+v", v.Action, v.Status)
	}

	// Of a spec that is refused and renewed all the same people hear once.
	c = healthy(t)
	c.certificate.Spec.RenewBefore = lasting(time.Minute)
	c.certificate.Generation++
	if v = workload.Decide(c.state(t), today); v.WarningReason != workload.ReasonInvalidSpec || v.Warning == "" {
		t.Errorf("the warning is %q %q", v.WarningReason, v.Warning)
	}
	c.certificate.Status = v.Status
	if v = workload.Decide(c.state(t), today); v.Warning != "" {
		t.Errorf("and again: %q", v.Warning)
	}
}
