package workload

import (
	"fmt"
	"slices"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Texts of conditions, as cert-manager writes them.
const (
	ReasonReady    = "Ready"
	MessageReady   = "Certificate is up to date and has not expired"
	MessageIssued  = "The certificate has been successfully issued"
	messageFailed  = "The certificate request has failed to complete and will be retried: "
	reasonRenewing = "Renewing"

	// ReasonInvalidSpec is of a spec for which nothing is issued; its message in the
	// condition Ready begins with MessageInvalidSpec.
	ReasonInvalidSpec  = "InvalidSpec"
	MessageInvalidSpec = "Nothing is issued for this spec: "
	// ReasonRequestNotWritten and ReasonSecretNotWritten tell that the API server does not
	// take the CertificateRequest or the Secret (a quota, a webhook, a right that is missing,
	// a namespace that is being removed), or that the Secret cannot be made, as without the
	// password of a keystore.
	ReasonRequestNotWritten = "RequestNotWritten"
	ReasonSecretNotWritten  = "SecretNotWritten"

	reasonWindow = "WindowError"
)

// Condition returns a condition of a Certificate, nil where it has none.
func Condition(s *cmapi.CertificateStatus, kind cmapi.CertificateConditionType) *cmapi.CertificateCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == kind {
			return &s.Conditions[i]
		}
	}
	return nil
}

// SetCondition sets a condition of a Certificate. The time of the last transition stays
// where the status of the condition does.
func SetCondition(s *cmapi.CertificateStatus, kind cmapi.CertificateConditionType, generation int64, status cmmeta.ConditionStatus, reason, message string, now time.Time) {
	at := metav1.NewTime(now)
	c := cmapi.CertificateCondition{
		Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: &at, ObservedGeneration: generation,
	}
	if old := Condition(s, kind); old != nil {
		if old.Status == status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		*old = c
		return
	}
	s.Conditions = append(s.Conditions, c)
}

// RemoveCondition removes a condition of a Certificate.
func RemoveCondition(s *cmapi.CertificateStatus, kind cmapi.CertificateConditionType) {
	s.Conditions = slices.DeleteFunc(s.Conditions, func(c cmapi.CertificateCondition) bool { return c.Type == kind })
}

// Issuing tells whether an issuance is under way, and since when.
func Issuing(s *cmapi.CertificateStatus) (time.Time, bool) {
	c := Condition(s, cmapi.CertificateConditionIssuing)
	if c == nil || c.Status != cmmeta.ConditionTrue {
		return time.Time{}, false
	}
	if c.LastTransitionTime == nil {
		return time.Time{}, true
	}
	return c.LastTransitionTime.Time, true
}

// settle brings the condition Ready and the times of a status up to date with the
// Secret. problem is why the Certificate is not ready, nil where it is.
func settle(s *cmapi.CertificateStatus, o *cmapi.Certificate, secret *SecretFacts, problem *Problem, now time.Time) {
	ready, reason, message := cmmeta.ConditionTrue, ReasonReady, MessageReady
	if problem == nil {
		problem = ExpiredProblem(secret, now)
	}
	if problem != nil {
		ready, reason, message = cmmeta.ConditionFalse, problem.Reason, problem.Message
	}
	s.NotBefore, s.NotAfter, s.RenewalTime = nil, nil, nil
	if secret.NotAfter.IsZero() {
		s.ACME = nil // what a server said was of a certificate
	}
	if !secret.NotAfter.IsZero() {
		notBefore, notAfter := metav1.NewTime(secret.NotBefore), metav1.NewTime(secret.NotAfter)
		s.NotBefore, s.NotAfter = &notBefore, &notAfter
		renewal, _, err := renewalTime(o, s, secret)
		if err != nil {
			ready, reason, message = cmmeta.ConditionFalse, reasonWindow, fmt.Sprintf("Could not calculate renewal time: %v", err)
		}
		if !renewal.IsZero() {
			at := metav1.NewTime(renewal)
			s.RenewalTime = &at
		}
	}
	SetCondition(s, cmapi.CertificateConditionReady, o.Generation, ready, reason, message, now)
}

// Settled is the status of a Certificate after a certificate of a revision has been
// stored in its Secret.
func Settled(o *cmapi.Certificate, secret *SecretFacts, revision int, now time.Time) cmapi.CertificateStatus {
	s := *o.Status.DeepCopy()
	s.Revision = &revision
	RemoveCondition(&s, cmapi.CertificateConditionIssuing)
	s.FailedIssuanceAttempts, s.LastFailureTime, s.NextPrivateKeySecretName = nil, nil, nil
	s.ACME = nil // it was said of the certificate before
	settle(&s, o, secret, nil, now)
	return s
}

// Failed is the status of a Certificate after its issuance has failed.
func Failed(o *cmapi.Certificate, s cmapi.CertificateStatus, reason, message string, now time.Time) cmapi.CertificateStatus {
	s = *s.DeepCopy()
	at := metav1.NewTime(now)
	attempts := 1
	if n := s.FailedIssuanceAttempts; n != nil && *n > 0 {
		attempts += *n
	}
	s.LastFailureTime, s.FailedIssuanceAttempts, s.NextPrivateKeySecretName = &at, &attempts, nil
	SetCondition(&s, cmapi.CertificateConditionIssuing, o.Generation, cmmeta.ConditionFalse, reason, messageFailed+message, now)
	return s
}

// Begun is the status of a Certificate whose issuance takes its time: its key waits in
// a Secret.
func Begun(o *cmapi.Certificate, s cmapi.CertificateStatus, reason, message, nextKey string, now time.Time) cmapi.CertificateStatus {
	s = *s.DeepCopy()
	if _, under := Issuing(&s); !under {
		SetCondition(&s, cmapi.CertificateConditionIssuing, o.Generation, cmmeta.ConditionTrue, reason, message, now)
	}
	s.NextPrivateKeySecretName = &nextKey
	return s
}

// Usable tells why the authority can sign nothing at a time, whatever is asked for.
func (a *Authority) Usable(at time.Time) error { return a.usable(at) }
