package kube

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"github.com/kubepki/kubepki/internal/csr"
)

// SetCertificate writes the certificate of a request, in PEM with its chain, on
// the request that it was made for: the UID must be the same. A conflict with
// another writer is tried again. It returns a [StateError] where the request is
// not approved any more or has its certificate.
func SetCertificate(ctx context.Context, client kubernetes.Interface, signed csr.Request, certificate []byte) error {
	requests := client.CertificatesV1().CertificateSigningRequests()
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		o, err := requests.Get(ctx, signed.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if string(o.UID) != signed.UID {
			return fmt.Errorf("certificate signing request %q is not the one that was signed: it was made anew", signed.Name)
		}
		if s := state(&o.Status); s != csr.Approved {
			return &StateError{Name: o.Name, State: s}
		}
		o.Status.Certificate = certificate
		_, err = requests.UpdateStatus(ctx, o, metav1.UpdateOptions{FieldManager: "kubepki"})
		return err
	})
}
