package certmanager

import (
	"context"
	"fmt"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/internal/workload"
)

// selfSignedIssuer has certificates sign themselves: Issuers with spec.selfSigned. The
// key of a request that is not of this process is in the Secret that it names.
type selfSignedIssuer struct{ client kubernetes.Interface }

// AtOnce is true: the key is at hand.
func (*selfSignedIssuer) AtOnce() bool { return true }

// Verify tells that there is nothing to verify.
func (*selfSignedIssuer) Verify(context.Context, cmapi.GenericIssuer) (Health, error) {
	return Health{Ready: true, Reason: "IsReady"}, nil
}

// keyAgain is when a key that was not there is looked for again: soon where somebody has
// just asked, and at last every half minute.
func keyAgain(r *cmapi.CertificateRequest) time.Duration {
	return min(max(now().Sub(r.CreationTimestamp.Time)/4, time.Second), 30*time.Second)
}

// reasonNoKey is of a request whose key is not where its annotation says.
const reasonNoKey = "MissingSecret"

// Sign signs with the request's own key.
func (i *selfSignedIssuer) Sign(ctx context.Context, order Order) (Answer, error) {
	key := order.Key
	if key == nil {
		name := order.Request.Annotations[cmapi.CertificateRequestPrivateKeyAnnotationKey]
		if name == "" {
			return Answer{Failed: true, Reason: "MissingAnnotation", Message: fmt.Sprintf("Annotation %q missing or reference empty: secret name missing", cmapi.CertificateRequestPrivateKeyAnnotationKey)}, nil
		}
		secret, err := i.client.CoreV1().Secrets(order.Request.Namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return Answer{Reason: reasonNoKey, Message: fmt.Sprintf("Referenced secret %s/%s not found: %v", order.Request.Namespace, name, err), Again: keyAgain(order.Request)}, nil
		}
		if err != nil {
			return Answer{}, err
		}
		if key, err = workload.ParseKey(secret.Data[corev1.TLSPrivateKeyKey]); err != nil {
			return Answer{Reason: "ErrorParsingKey", Message: fmt.Sprintf("Failed to get key %q referenced in annotation %q: %v", name, cmapi.CertificateRequestPrivateKeyAnnotationKey, err), Again: keyAgain(order.Request)}, nil
		}
	}
	if workload.KeyID(key.Public()) != workload.KeyID(order.Asked.Public) {
		return Answer{Failed: true, Reason: "ErrorKeyMatch", Message: "Error generating certificate template: CSR not signed by referenced private key"}, nil
	}
	issued, err := workload.SignSelf(order.Asked, key, order.Issuer.GetSpec().SelfSigned, now())
	if err != nil {
		return Answer{Failed: true, Reason: "ErrorSigning", Message: fmt.Sprintf("Error signing certificate: %v", err)}, nil
	}
	return Answer{Issued: issued}, nil
}
