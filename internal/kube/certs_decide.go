package kube

import (
	"context"
	"fmt"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/retry"
)

// Requests reads the CertificateRequests of a namespace, "" for all of them, that a
// selector of labels takes ("": all), and for which keep is true; nil: all.
func (c *Certs) Requests(ctx context.Context, namespace, selector string, keep func(*cmapi.CertificateRequest) bool) ([]cmapi.CertificateRequest, error) {
	return listAll(ctx, c, requestsResource, namespace, metav1.ListOptions{LabelSelector: selector}, keep)
}

// DecidedOf is the condition by which somebody has approved or denied a request; nil:
// nobody has.
func DecidedOf(r *cmapi.CertificateRequest) *cmapi.CertificateRequestCondition {
	for i := range r.Status.Conditions {
		c := &r.Status.Conditions[i]
		if (c.Type == cmapi.CertificateRequestConditionApproved || c.Type == cmapi.CertificateRequestConditionDenied) && c.Status == cmmeta.ConditionTrue {
			return c
		}
	}
	return nil
}

// IsOpen tells whether a request can still be decided on: nobody has, and it has not ended.
func IsOpen(r *cmapi.CertificateRequest) bool {
	return DecidedOf(r) == nil && EndedOf(r) == nil && len(r.Status.Certificate) == 0
}

// EndedOf is the condition by which a request has ended without a certificate, but for a
// denial; nil: it has not.
func EndedOf(r *cmapi.CertificateRequest) *cmapi.CertificateRequestCondition {
	for i := range r.Status.Conditions {
		c := &r.Status.Conditions[i]
		if c.Type == cmapi.CertificateRequestConditionInvalidRequest && c.Status == cmmeta.ConditionTrue ||
			c.Type == cmapi.CertificateRequestConditionReady && c.Reason == cmapi.CertificateRequestReasonFailed {
			return c
		}
	}
	return nil
}

// Decision is an approval or a denial, as the condition has it.
type Decision struct {
	Deny            bool
	Reason, Message string
	DryRun          bool // the API server judges it, and keeps nothing
}

// DecidedError tells that a request cannot be decided on any more.
type DecidedError struct {
	Name string
	By   cmapi.CertificateRequestCondition // the condition that says so
}

// Error says who decided, and what was said.
func (e *DecidedError) Error() string {
	did := map[cmapi.CertificateRequestConditionType]string{
		cmapi.CertificateRequestConditionApproved: "is approved already", cmapi.CertificateRequestConditionDenied: "is denied already",
	}[e.By.Type]
	if did == "" {
		did = "has ended"
	}
	text := fmt.Sprintf("CertificateRequest %s %s: %s", e.Name, did, e.By.Reason)
	if e.By.Message != "" {
		text += ": " + shortened(e.By.Message)
	}
	return text
}

// Decide approves or denies a request, if it is the one that was read: known by its UID,
// and asking for the same. Another writer is waited for; one who has decided meanwhile is
// a [*DecidedError].
func (c *Certs) Decide(ctx context.Context, r *cmapi.CertificateRequest, d Decision) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		// As it is, with fields of other versions than ours: the whole status is written.
		have, err := c.objects.Resource(requestsResource).Namespace(r.Namespace).Get(ctx, r.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		o, err := typed[cmapi.CertificateRequest](have)
		if err != nil {
			return err
		}
		if o.UID != r.UID || !equality.Semantic.DeepEqual(o.Spec, r.Spec) {
			return apierrors.NewNotFound(requestsResource.GroupResource(), r.Name)
		}
		if err := Undecided(o); err != nil {
			return err
		}
		if err := addDecision(have, d); err != nil {
			return err
		}
		options := metav1.UpdateOptions{FieldManager: certsManager}
		if d.DryRun {
			options.DryRun = []string{metav1.DryRunAll}
		}
		_, err = c.objects.Resource(requestsResource).Namespace(r.Namespace).UpdateStatus(ctx, have, options)
		return err
	})
}

// Undecided returns an error, a [*DecidedError], where a request cannot be decided on any
// more: somebody has, or it has ended.
func Undecided(r *cmapi.CertificateRequest) error {
	if by := DecidedOf(r); by != nil {
		return &DecidedError{r.Name, *by}
	}
	if by := EndedOf(r); by != nil {
		return &DecidedError{r.Name, *by}
	}
	return nil
}

func addDecision(have *unstructured.Unstructured, d Decision) error {
	now := metav1.NewTime(time.Now())
	c := cmapi.CertificateRequestCondition{
		Type: cmapi.CertificateRequestConditionApproved, Status: cmmeta.ConditionTrue, Reason: d.Reason, Message: d.Message, LastTransitionTime: &now,
	}
	if d.Deny {
		c.Type = cmapi.CertificateRequestConditionDenied
	}
	condition, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&c)
	if err != nil {
		return err
	}
	before, _, err := unstructured.NestedSlice(have.Object, "status", "conditions")
	if err != nil {
		return err
	}
	var conditions []any
	for _, one := range before {
		if m, ok := one.(map[string]any); !ok || m["type"] != string(c.Type) { // one that says False
			conditions = append(conditions, one)
		}
	}
	return unstructured.SetNestedSlice(have.Object, append(conditions, condition), "status", "conditions")
}
