package kubesign

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// Asked is an item that a signer of the API is asked for. Its methods are for one
// goroutine.
type Asked struct {
	*renew.Item
	Signer  string
	Request *x509.CertificateRequest
	// Object is the request as the API has it, once it was sent.
	Object *certificatesv1.CertificateSigningRequest
	// State is what the request was seen in last; Reason says why it will give nothing.
	State  csr.State
	Reason string
	Chain  []*x509.Certificate // what the signer gave, the leaf first
}

// ForeignError tells that a request of the API has the name of ours and asks for
// something else.
type ForeignError struct{ Name string }

// Error names the request.
func (e *ForeignError) Error() string {
	return fmt.Sprintf("request %s of the cluster is somebody else's", e.Name)
}

// Hint says what to do.
func (e *ForeignError) Hint() string {
	return fmt.Sprintf("kubectl delete csr %s, and run the same command again", e.Name)
}

// object is the request as the API takes it. It is named by what is asked for: another run with
// the same key and request finds it again.
func (i *Asked) object() *certificatesv1.CertificateSigningRequest {
	digest := sha256.Sum256(append([]byte(i.Signer+"\x00"), i.Request.Raw...))
	o := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "kubepki-renew-" + hex.EncodeToString(digest[:12])},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: issue.EncodeRequest(i.Request), SignerName: i.Signer,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature},
		},
	}
	if _, ok := i.Request.PublicKey.(*rsa.PublicKey); ok {
		o.Spec.Usages = append(o.Spec.Usages, certificatesv1.UsageKeyEncipherment)
	}
	for _, u := range i.Usages {
		o.Spec.Usages = append(o.Spec.Usages, map[x509.ExtKeyUsage]certificatesv1.KeyUsage{x509.ExtKeyUsageServerAuth: certificatesv1.UsageServerAuth, x509.ExtKeyUsageClientAuth: certificatesv1.UsageClientAuth}[u])
	}
	// The least that the API takes are ten minutes.
	seconds := int32(min(max((i.Life()-issue.Backdate)/time.Second, 600), math.MaxInt32))
	o.Spec.ExpirationSeconds = &seconds
	return o
}

// Rehearse has the API server judge the request, and keep nothing.
func (i *Asked) Rehearse(ctx context.Context, client kubernetes.Interface) error {
	_, err := kube.CreateRequest(ctx, client, i.object(), true)
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// Send makes the request, or finds that of an earlier run: then it tells so. An error
// is the API server's, or a [*ForeignError].
func (i *Asked) Send(ctx context.Context, client kubernetes.Interface) (again bool, err error) {
	want := i.object()
	made, err := kube.CreateRequest(ctx, client, want, false)
	if apierrors.IsAlreadyExists(err) {
		again = true
		made, err = kube.Object(ctx, client, want.Name)
		if err == nil && (!bytes.Equal(made.Spec.Request, want.Spec.Request) || made.Spec.SignerName != want.Spec.SignerName || !slices.Equal(made.Spec.Usages, want.Spec.Usages)) {
			err = &ForeignError{want.Name}
		}
	}
	if err != nil {
		return again, err
	}
	i.Object, i.State = made, kube.Request(made).State
	return again, nil
}

// Approve approves the request that was sent; by is the part of kubepki that does. One
// that somebody else has judged meanwhile is no error: the waiting tells.
func (i *Asked) Approve(ctx context.Context, client kubernetes.Interface, by string) error {
	_, err := kube.SetApproval(ctx, client, kube.Request(i.Object), kube.Approval{
		Type: certificatesv1.CertificateApproved, Reason: "KubepkiApprove", Message: "This CSR was approved by kubepki " + by + ".",
	})
	if errors.As(err, new(*kube.StateError)) {
		return nil
	}
	return err
}

// Await waits for one certificate, and notes what has become of the request.
func (i *Asked) Await(ctx context.Context, client kubernetes.Interface) {
	issued, last, err := kube.AwaitIssued(ctx, client, i.Object.Name, i.Object.UID)
	i.State = last
	var settled *kube.StateError
	switch {
	case errors.As(err, &settled):
		i.State = settled.State
		i.Reason = fmt.Sprintf("request %s is %s: %s", i.Object.Name, strings.ToLower(string(settled.State)), i.because(ctx, client))
	case ctx.Err() != nil:
	case err != nil:
		i.Reason = fmt.Sprintf("request %s: %v", i.Object.Name, err)
	default:
		if i.Chain, err = trust.ParseCertificates(issued); err != nil {
			i.Reason = fmt.Sprintf("request %s: what the signer gave: %v", i.Object.Name, err)
		}
	}
}

// because is what who denied a request, or could not sign it, says.
func (i *Asked) because(ctx context.Context, client kubernetes.Interface) string {
	o, err := kube.Object(ctx, client, i.Object.Name)
	if err == nil {
		for _, c := range o.Status.Conditions {
			if (c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed) && c.Message != "" {
				return c.Message
			}
		}
	}
	return "no reason is given"
}

// Needs says what a request still needs, by the state it was seen in last.
func (i *Asked) Needs() string {
	if i.State == csr.Approved {
		return fmt.Sprintf("request %s is approved, and nobody has signed it: see that a signer of %s runs; the same command goes on with it", i.Object.Name, i.Signer)
	}
	return fmt.Sprintf("request %s needs an approval (kubepki csr approve %s), then the same command goes on with it", i.Object.Name, i.Object.Name)
}

// Prove shows a client certificate to the API server, which must take its bearer for
// whom it is for: one in which nobody believes must not replace one that works.
//
// spec says how the API server is reached.
func Prove(ctx context.Context, spec layout.KubeconfigSpec, i *renew.Item, made renew.Made) (err error) {
	spec.Cluster, spec.User = "proof", "proof"
	spec.Certificate = trust.EncodeCertificates(made.Chain...)
	if spec.Key, err = issue.EncodePrivateKey(made.Key); err != nil {
		return err
	}
	data, err := layout.EncodeKubeconfig(spec)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	user, groups, err := kube.WhoAmI(limited, data)
	if err != nil {
		return fmt.Errorf("the API server does not take the new certificate: %w", err)
	}
	missing := slices.DeleteFunc(slices.Clone(i.Subject.Organization), func(g string) bool { return slices.Contains(groups, g) })
	if user != i.Subject.CommonName || len(missing) > 0 {
		return fmt.Errorf("the API server takes the new certificate for user %q in %q, wanted is %q in %q", user, groups, i.Subject.CommonName, i.Subject.Organization)
	}
	return nil
}
