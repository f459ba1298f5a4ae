package approve

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/certificates/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const (
	workers    = 4
	retryFirst = 100 * time.Millisecond
	retryLast  = 10 * time.Second
)

// approver works through a queue of requests by name.
type approver struct {
	client kubernetes.Interface
	lister listers.CertificateSigningRequestLister
	lookup Lookup
	log    *slog.Logger
	queue  workqueue.TypedRateLimitingInterface[string]
}

// Run approves requests until ctx ends, and returns when it has stopped. It
// needs a client that may list, watch and approve for the signer
// kubernetes.io/kubelet-serving. While the API server is away it waits; an error
// tells that it could not begin.
func Run(ctx context.Context, client kubernetes.Interface, lookup Lookup, log *slog.Logger) error {
	// Requests of other signers are not even read.
	only := informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.signerName", certificatesv1.KubeletServingSignerName).String()
	})
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, only)
	requests := factory.Certificates().V1().CertificateSigningRequests()
	a := &approver{
		client: client, lister: requests.Lister(), lookup: lookup, log: log,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryFirst, retryLast)),
	}
	_, err := requests.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { a.enqueue(o) },
		UpdateFunc: func(_, o any) { a.enqueue(o) },
	})
	if err != nil {
		return fmt.Errorf("watch certificate signing requests: %w", err)
	}
	factory.Start(ctx.Done())
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for a.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	a.queue.ShutDown()
	running.Wait()
	factory.Shutdown()
	return nil
}

func (a *approver) enqueue(o any) {
	if csr, ok := o.(*certificatesv1.CertificateSigningRequest); ok && pending(csr) {
		a.queue.Add(csr.Name)
	}
}

// pending tells that nobody has judged the request.
func pending(csr *certificatesv1.CertificateSigningRequest) bool {
	return len(csr.Status.Conditions) == 0 && len(csr.Status.Certificate) == 0
}

// next handles a request of the queue, and tells whether there may be more.
func (a *approver) next(ctx context.Context) bool {
	name, stop := a.queue.Get()
	if stop {
		return false
	}
	defer a.queue.Done(name)
	err := a.handle(ctx, name)
	switch {
	case err == nil:
		a.queue.Forget(name)
	case apierrors.IsConflict(err) || apierrors.IsNotFound(err):
		// It has changed, or is gone: the watch will tell.
		a.queue.Forget(name)
	default:
		a.log.Warn("a serving certificate could not be approved; it will be tried again", "csr", name, "error", err)
		a.queue.AddRateLimited(name)
	}
	return true
}

// handle judges a request as it is now. The resource version makes sure that it
// is the one which is approved, and no other that has taken its name.
func (a *approver) handle(ctx context.Context, name string) error {
	csr, err := a.lister.Get(name)
	if err != nil || !pending(csr) {
		return err
	}
	if err := Judge(csr, a.lookup); err != nil {
		a.log.Warn("a request for a serving certificate was left alone", "csr", name, "user", csr.Spec.Username, "reason", err)
		return nil
	}
	csr = csr.DeepCopy()
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue,
		Reason: "KubepkiLab", Message: "the requester is the node, and the names are its own",
	})
	_, err = a.client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, name, csr, metav1.UpdateOptions{})
	if err == nil {
		a.log.Info("a serving certificate was approved", "csr", name, "user", csr.Spec.Username)
	}
	return err
}
