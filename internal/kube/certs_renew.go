package kube

import (
	"context"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

// The condition that cmctl renew sets (cert-manager/cmctl pkg/renew), by which
// controllers begin an issuance.
const (
	reasonManual  = "ManuallyTriggered"
	messageManual = "Certificate re-issuance manually triggered"
)

// IsIssuing tells whether an issuance of a Certificate is under way.
func IsIssuing(o *cmapi.Certificate) bool {
	for _, c := range o.Status.Conditions {
		if c.Type == cmapi.CertificateConditionIssuing {
			return c.Status == cmmeta.ConditionTrue
		}
	}
	return false
}

// TriggerRenewal has a Certificate issued anew: it sets its condition Issuing. It
// returns false where that was set already. Another writer is waited for; a Certificate
// that was made anew under its name since is an error.
func (c *Certs) TriggerRenewal(ctx context.Context, o *cmapi.Certificate, dryRun bool) (bool, error) {
	changed := false
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		// As it is, with fields of other versions than ours: the whole status is written.
		have, err := c.objects.Resource(certificatesResource).Namespace(o.Namespace).Get(ctx, o.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if o.UID != "" && have.GetUID() != o.UID {
			return apierrors.NewNotFound(certificatesResource.GroupResource(), o.Name)
		}
		if changed, err = setIssuing(have); err != nil || !changed {
			return err
		}
		options := metav1.UpdateOptions{FieldManager: certsManager}
		if dryRun {
			options.DryRun = []string{metav1.DryRunAll}
		}
		_, err = c.objects.Resource(certificatesResource).Namespace(o.Namespace).UpdateStatus(ctx, have, options)
		return err
	})
	return changed && err == nil, err
}

// setIssuing sets the condition, and tells whether it was not set before.
func setIssuing(have *unstructured.Unstructured) (bool, error) {
	o, err := typed[cmapi.Certificate](have)
	if err != nil || IsIssuing(o) {
		return false, err
	}
	now := metav1.NewTime(time.Now())
	issuing, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&cmapi.CertificateCondition{
		Type: cmapi.CertificateConditionIssuing, Status: cmmeta.ConditionTrue, Reason: reasonManual, Message: messageManual,
		LastTransitionTime: &now, ObservedGeneration: o.Generation,
	})
	if err != nil {
		return false, err
	}
	before, _, err := unstructured.NestedSlice(have.Object, "status", "conditions")
	if err != nil {
		return false, err
	}
	conditions := []any{issuing}
	for _, c := range before {
		if m, ok := c.(map[string]any); !ok || m["type"] != string(cmapi.CertificateConditionIssuing) {
			conditions = append(conditions, c)
		}
	}
	return true, unstructured.SetNestedSlice(have.Object, conditions, "status", "conditions")
}

// Settled tells how a Certificate stands.
type Settled struct {
	Ready, Issuing bool
	// Failed says why the last issuance failed; "" where it did not.
	Failed string
}

// SettledOf judges a Certificate by its conditions, if they are of its spec as it is.
func SettledOf(o *cmapi.Certificate) Settled {
	var s Settled
	for _, c := range o.Status.Conditions {
		current := c.ObservedGeneration == 0 || c.ObservedGeneration >= o.Generation
		switch {
		case c.Type == cmapi.CertificateConditionReady:
			s.Ready = c.Status == cmmeta.ConditionTrue && current
		case c.Type == cmapi.CertificateConditionIssuing && c.Status == cmmeta.ConditionTrue:
			s.Issuing = true
		case c.Type == cmapi.CertificateConditionIssuing && o.Status.LastFailureTime != nil && current:
			s.Failed = c.Message
		}
	}
	return s
}

// AwaitCertificate looks again and again until done is true, and hands each new state to
// it. It ends with the context's error, or when the Certificate is gone.
func (c *Certs) AwaitCertificate(ctx context.Context, namespace, name string, uid types.UID, done func(*cmapi.Certificate) bool) error {
	var pace Pace
	for {
		o, err := c.Certificate(ctx, namespace, name)
		switch {
		case err == nil && uid != "" && o.UID != uid:
			return apierrors.NewNotFound(certificatesResource.GroupResource(), name)
		case err == nil && done(o):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !passes(err):
			return err
		}
		if err := pace.Wait(ctx); err != nil {
			return err
		}
	}
}

// passes tells of answers that an API server gives for a while.
func passes(err error) bool {
	return apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) || apierrors.IsTimeout(err)
}
