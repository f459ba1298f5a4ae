package kubesource

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls"
)

// Issuer is an [mtls.Issuer] that asks a signer of the cluster, by a
// CertificateSigningRequest of certificates.k8s.io/v1 each time. Somebody must
// approve them. It takes the rights to create, list and watch them.
type Issuer struct {
	// Client is who asks: what signers look at.
	Client kubernetes.Interface
	// SignerName is such as kubernetes.io/kube-apiserver-client.
	SignerName string
	// Usages are what is asked for, such as digital signature and client auth.
	Usages []certificatesv1.KeyUsage
	// Expiration is how long the certificate shall live, 10 minutes at least; 0: as
	// the signer likes. A signer may give less.
	Expiration time.Duration
	// Prefix begins the names of the requests, which a random part ends; "": mtls-.
	Prefix string
}

// minExpiration is what the API accepts (k8s.io/api/certificates/v1,
// CertificateSigningRequestSpec.ExpirationSeconds).
const minExpiration = 10 * time.Minute

// Issue creates a request and waits for its certificate as long as ctx lives. The
// error names the request, and says whether it was denied, has failed, was
// removed, or is still waited for and by whom. The request stays: the cluster's
// cleaner removes it.
func (i *Issuer) Issue(ctx context.Context, request []byte) (*mtls.Issued, error) {
	o, err := i.object(request)
	if err != nil {
		return nil, err
	}
	requests := i.Client.CertificatesV1().CertificateSigningRequests()
	if o, err = requests.Create(ctx, o, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("creating a certificate signing request for signer %s: %w", i.SignerName, err)
	}
	last := &progress{}
	event, err := watchtools.UntilWithSync(ctx, last.lister(i.Client, o.Name), &certificatesv1.CertificateSigningRequest{}, nil, func(e watch.Event) (bool, error) {
		return last.see(e, o.Name, o.UID)
	})
	if err != nil {
		return nil, fmt.Errorf("certificate signing request %s for signer %s: %w", o.Name, i.SignerName, last.explain(ctx, err))
	}
	chain, err := trust.ParseCertificates(event.Object.(*certificatesv1.CertificateSigningRequest).Status.Certificate)
	if err != nil {
		return nil, fmt.Errorf("certificate signing request %s: status.certificate: %w", o.Name, err)
	}
	return &mtls.Issued{Chain: chain}, nil
}

func (i *Issuer) object(request []byte) (*certificatesv1.CertificateSigningRequest, error) {
	switch {
	case i.Client == nil:
		return nil, errors.New("kubesource.Issuer: Client is not set")
	case i.SignerName == "":
		return nil, errors.New("kubesource.Issuer: SignerName is not set")
	case len(i.Usages) == 0:
		return nil, errors.New("kubesource.Issuer: Usages is not set")
	case i.Expiration != 0 && i.Expiration < minExpiration:
		return nil, fmt.Errorf("kubesource.Issuer: Expiration is %s: the API takes %s at least", i.Expiration, minExpiration)
	}
	spec := certificatesv1.CertificateSigningRequestSpec{
		Request: pem.EncodeToMemory(&pem.Block{Type: trust.RequestType, Bytes: request}), SignerName: i.SignerName, Usages: i.Usages,
	}
	if i.Expiration != 0 {
		seconds := int32(min(i.Expiration/time.Second, math.MaxInt32))
		spec.ExpirationSeconds = &seconds
	}
	prefix := i.Prefix
	if prefix == "" {
		prefix = "mtls-"
	}
	return &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix}, Spec: spec}, nil
}

// progress is what is known of a request that is waited for.
type progress struct {
	mu       sync.Mutex
	approved bool
	err      error // why the API server cannot be asked
}

func (p *progress) lister(client kubernetes.Interface, name string) cache.ListerWatcher {
	api := client.CertificatesV1().CertificateSigningRequests()
	return &asker{
		lister: &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.FieldSelector = byName(name)
				return api.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				o.FieldSelector = byName(name)
				return api.Watch(ctx, o)
			},
		},
		failed:   p.note,
		answered: func() { p.note(nil) },
	}
}

func (p *progress) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// see tells whether a request has its certificate, or never will.
func (p *progress) see(e watch.Event, name string, uid types.UID) (bool, error) {
	o, ok := e.Object.(*certificatesv1.CertificateSigningRequest)
	switch {
	case e.Type == watch.Error:
		return false, apierrors.FromObject(e.Object)
	case !ok || o.Name != name:
		return false, nil
	case e.Type == watch.Deleted:
		return false, errors.New("was removed")
	case o.UID != uid:
		return false, errors.New("was made anew by somebody else")
	}
	for _, c := range o.Status.Conditions {
		if c.Status == corev1.ConditionFalse {
			continue
		}
		switch c.Type {
		case certificatesv1.CertificateDenied:
			return false, fmt.Errorf("was denied: %s", said(c))
		case certificatesv1.CertificateFailed:
			return false, fmt.Errorf("has failed: %s", said(c))
		case certificatesv1.CertificateApproved:
			p.mu.Lock()
			p.approved = true
			p.mu.Unlock()
		}
	}
	return len(o.Status.Certificate) > 0, nil
}

// said is what somebody wrote, of any length.
func said(c certificatesv1.CertificateSigningRequestCondition) string {
	return fmt.Sprintf("%.64q, %.256q", c.Reason, c.Message)
}

// explain says what was waited for when the time was over.
func (p *progress) explain(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.err != nil:
		return fmt.Errorf("it cannot be watched: %w: %w", p.err, ctx.Err())
	case p.approved:
		return fmt.Errorf("is approved, and its signer has not signed it: %w", ctx.Err())
	}
	return fmt.Errorf("nobody has approved it: %w", ctx.Err())
}
