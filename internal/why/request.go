package why

import (
	"fmt"
	"strings"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/workload"
)

// Reasons of Events on a Certificate (cert-manager
// pkg/controller/certificates/{requestmanager,keymanager}).
const (
	eventRequestFailed = "RequestFailed"
	eventCannotReplace = "CannotRegenerateKey"
)

// requests looks at the request of an issuance that is under way or has failed.
func (t *teller) requests() *Cause {
	if t.atRest() || t.Requests.Look != Found {
		return nil
	}
	if !t.next() {
		return t.unasked()
	}
	r := t.request
	where := t.id("certificaterequest", r.Name)
	age := t.At.Sub(r.CreationTimestamp.Time)
	if c := requestCondition(r, cmapi.CertificateRequestConditionDenied); c != nil && c.Status == cmmeta.ConditionTrue {
		return &Cause{ID: CauseDenied, Where: where, Text: fmt.Sprintf("the request was denied: %s (%s)", orText(c.Message, "nothing says why"), c.Reason), Fix: t.renew(),
			Advice: "have the policy allow it, or wish for what it allows; then ask anew"}
	}
	if c := requestCondition(r, cmapi.CertificateRequestConditionInvalidRequest); c != nil && c.Status == cmmeta.ConditionTrue {
		return &Cause{ID: CauseInvalid, Where: where, Text: fmt.Sprintf("the signer finds the request invalid: %s (%s)", orText(c.Message, "nothing says why"), c.Reason), Fix: t.edit()}
	}
	if c := t.keySecret(where); c != nil {
		return c
	}
	if c := requestCondition(r, cmapi.CertificateRequestConditionApproved); c == nil || c.Status != cmmeta.ConditionTrue {
		if age < grace {
			return nil
		}
		return &Cause{ID: CauseUnapproved, Where: where, Text: fmt.Sprintf("the request waits for an approval since %s, and nobody has approved or denied it", roughly(age)),
			Fix:    command("kubepki", "cert", "approve", r.Name, "-n", t.o.Namespace),
			Advice: "to have it done by itself: an approver that serves " + t.issuerRef.Kind + " " + t.issuerRef.Name + " must run, and may \"approve\" on signers " + workload.SignerName(t.issuerRef, t.o.Namespace)}
	}
	return t.signing(where)
}

// unasked tells why an issuance has no request.
func (t *teller) unasked() *Cause {
	if !t.issuing {
		return nil
	}
	since := timeOf(t.issuingNow.LastTransitionTime)
	if e := t.event(eventCannotReplace, since); e != nil {
		return &Cause{ID: CauseKeyKept, Where: t.certificateID + " (spec.privateKey.rotationPolicy)", Text: "the key in the Secret is not as spec.privateKey wishes, and rotationPolicy Never forbids another",
			Fix: t.kubectl("patch", "certificate", t.o.Name, "--type=merge", "-p", `{"spec":{"privateKey":{"rotationPolicy":"Always"}}}`)}
	}
	if e := t.event(eventRequestFailed, since); e != nil {
		return &Cause{ID: CauseRefused, Where: t.certificateID, Text: "the API server refuses the request: " + e.Message,
			Advice: "a policy of admission or the controller's own rights forbid it"}
	}
	if t.At.Sub(since) < grace {
		return nil
	}
	return t.idle(t.certificateID, "it is to be issued since "+roughly(t.At.Sub(since))+", and there is no CertificateRequest")
}

// keySecret tells whether the key that was made for an issuance is gone.
func (t *teller) keySecret(where string) *Cause {
	name := t.o.Status.NextPrivateKeySecretName
	if name == nil || !t.issuing || t.KeySecret.Look != Missing || t.At.Sub(timeOf(t.issuingNow.LastTransitionTime)) < grace {
		return nil
	}
	return &Cause{ID: CauseKeySecret, Where: t.id("secret", *name), Text: fmt.Sprintf("the Secret %s with the key of the request is gone: what is signed for it would fit no key", *name),
		Fix: t.kubectl("delete", "certificaterequest", strings.TrimPrefix(where, t.id("certificaterequest", ""))), Advice: "the controller makes a new key and asks anew"}
}

// signing tells why an approved request is not signed.
func (t *teller) signing(where string) *Cause {
	r := t.request
	ready := requestCondition(r, cmapi.CertificateRequestConditionReady)
	age := t.At.Sub(r.CreationTimestamp.Time)
	if approved := requestCondition(r, cmapi.CertificateRequestConditionApproved); approved.LastTransitionTime != nil {
		age = t.At.Sub(approved.LastTransitionTime.Time)
	}
	switch {
	case ready == nil && age < grace:
		return nil
	case ready == nil && !t.ownGroup():
		return &Cause{ID: CauseExternal, Where: where, Text: fmt.Sprintf("the request is approved since %s, and the controller of %s does not answer", roughly(age), t.issuerRef.Group),
			Fix: t.describeIssuer(), Advice: "see that the external issuer's controller runs, and may read CertificateRequests"}
	case ready == nil:
		return t.idle(where, fmt.Sprintf("the request is approved since %s, and nobody has signed it", roughly(age)))
	}
	if t.isACME() || t.order() != nil {
		if c := t.acme(where); c != nil {
			return c
		}
	}
	if ready.Reason == cmapi.CertificateRequestReasonPending && age >= grace {
		return &Cause{ID: CausePending, Where: where, Text: "the issuer has not signed the request yet: " + orText(ready.Message, "nothing says why"), Fix: t.kubectl("describe", "certificaterequest", r.Name)}
	}
	if ready.Reason == cmapi.CertificateRequestReasonIssued && t.issuing && age >= grace {
		return t.idle(where, fmt.Sprintf("the request has its certificate since %s, and nobody has put it into the Secret", roughly(t.At.Sub(timeOf(ready.LastTransitionTime)))))
	}
	return nil
}

func (t *teller) isACME() bool { return t.Issuer.Object != nil && t.Issuer.Object.Type == "acme" }
