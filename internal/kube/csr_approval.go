package kube

import (
	"context"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"github.com/kubepki/kubepki/internal/csr"
)

// Approval is a decision that is to be written on a request.
type Approval struct {
	// Type is Approved or Denied.
	Type certificatesv1.RequestConditionType
	// Reason is one word in CamelCase, Message a sentence. Who asked reads both.
	Reason, Message string
	// DryRun has the API server judge the decision and not keep it.
	DryRun bool
}

// StateError says that a request cannot be approved or denied any more.
type StateError struct {
	Name  string
	State csr.State
}

// Error names the request and what has become of it.
func (e *StateError) Error() string {
	return fmt.Sprintf("certificate signing request %q is %s already", e.Name, lower[e.State])
}

var lower = map[csr.State]string{
	csr.Pending: "pending", csr.Approved: "approved", csr.Denied: "denied", csr.Failed: "failed", csr.Issued: "issued",
}

// SetApproval writes a decision on the request that was judged, and not on
// another of its name: the UID must be the same, and what a request asks for
// never changes. A conflict with another writer is tried again. It returns false
// where the request has the same decision already, and a [StateError] where it
// has another.
func SetApproval(ctx context.Context, client kubernetes.Interface, judged csr.Request, a Approval) (bool, error) {
	requests := client.CertificatesV1().CertificateSigningRequests()
	changed := false
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		o, err := requests.Get(ctx, judged.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if string(o.UID) != judged.UID {
			return fmt.Errorf("certificate signing request %q is not the one that was judged: it was made anew", judged.Name)
		}
		if has(o, a.Type) {
			return nil
		}
		if s := state(&o.Status); s != csr.Pending {
			return &StateError{Name: o.Name, State: s}
		}
		o.Status.Conditions = append(o.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: a.Type, Status: corev1.ConditionTrue, Reason: a.Reason, Message: a.Message,
		})
		options := metav1.UpdateOptions{FieldManager: "kubepki"}
		if a.DryRun {
			options.DryRun = []string{metav1.DryRunAll}
		}
		_, err = requests.UpdateApproval(ctx, o.Name, o, options)
		changed = err == nil
		return err
	})
	return changed, err
}

func has(o *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(o.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == t })
}
