package kube

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubepki/kubepki/internal/csr"
)

// Object returns the CertificateSigningRequest of a name as the API has it.
func Object(ctx context.Context, client kubernetes.Interface, name string) (*certificatesv1.CertificateSigningRequest, error) {
	return client.CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
}

// CreateRequest makes a CertificateSigningRequest, or has the API server judge
// it and keep nothing.
func CreateRequest(ctx context.Context, client kubernetes.Interface, o *certificatesv1.CertificateSigningRequest, dryRun bool) (*certificatesv1.CertificateSigningRequest, error) {
	options := metav1.CreateOptions{FieldManager: "kubepki"}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	return client.CertificatesV1().CertificateSigningRequests().Create(ctx, o, options)
}

// AwaitIssued asks for a request until it has a certificate, and returns that
// in PEM, and the state that the request was seen in last, empty where it was
// never seen. A request that was denied or that failed is a [StateError]; one that
// was removed, or that was made anew, another. An API server that is away for a
// while is waited for.
func AwaitIssued(ctx context.Context, client kubernetes.Interface, name string, uid types.UID) (issued []byte, last csr.State, err error) {
	backoff := wait.Backoff{Duration: 50 * time.Millisecond, Factor: 1.5, Jitter: 0.1, Steps: 1 << 20, Cap: 2 * time.Second}
	err = backoff.DelayFunc().Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		o, err := Object(ctx, client, name)
		switch {
		case apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
			return false, err
		case err != nil:
			return false, nil //nolint:nilerr // it is waited for
		case o.UID != uid:
			return false, fmt.Errorf("certificate signing request %q was made anew by somebody else", name)
		}
		switch last = state(&o.Status); last {
		case csr.Denied, csr.Failed:
			return false, &StateError{Name: name, State: last}
		case csr.Issued:
			issued = o.Status.Certificate
		}
		return len(issued) > 0, nil
	})
	return issued, last, err
}

// WhoAmI asks the API server of a kubeconfig (YAML) for whom it takes the bearer
// (SelfSubjectReview).
func WhoAmI(ctx context.Context, kubeconfig []byte) (user string, groups []string, err error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return "", nil, fmt.Errorf("kubeconfig: %w", err)
	}
	config.UserAgent = "kubepki"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return "", nil, fmt.Errorf("kubeconfig: %w", err)
	}
	review, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return "", nil, err
	}
	return review.Status.UserInfo.Username, review.Status.UserInfo.Groups, nil
}
