package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/podcert"
	"github.com/kubepki/kubepki/internal/signer"
	"github.com/kubepki/kubepki/internal/trust"
)

// PodCertificates answers the PodCertificateRequests of one signer. Its user
// needs the rights of deploy/podcerts-rbac.yaml. One such loop does the work;
// several do no harm, for the API server takes the first answer.
type PodCertificates struct {
	Client kubernetes.Interface
	Source signer.Source
	Policy podcert.Policy
	// Version is v1 or v1beta1 of certificates.k8s.io; "": the newest that the API
	// server serves.
	Version string
	// Workers is how many requests are answered at a time; 0: 8.
	Workers int
	// Log gets a line for each decision.
	Log *slog.Logger
	// Decided, if not nil, is told of each decision, by several goroutines.
	Decided func(podcert.Review)
}

const (
	podCertificates = "podcertificaterequests"
	// A request that cannot be answered is looked at again after these times.
	podRetryFirst = 200 * time.Millisecond
	podRetryLast  = time.Minute
	// servedRetry is when an API server is asked again what it serves.
	servedRetry = 10 * time.Second
)

// errVersionGone tells that the API server serves the version no more.
var errVersionGone = errors.New("the API server has ceased to serve the version")

// Run answers requests until ctx ends, and returns when nothing runs any more.
// While the API server is away, or serves no PodCertificateRequests, it waits.
// An error tells that the policy cannot be.
func (c *PodCertificates) Run(ctx context.Context) error {
	if err := c.Policy.Validate(); err != nil {
		return fmt.Errorf("pod certificates: %w", err)
	}
	for ctx.Err() == nil {
		version, err := c.version(ctx)
		if err == nil {
			c.Log.Info("pod certificates: requests are watched", "signer", c.Policy.SignerName, "version", version)
			err = c.run(ctx, newPodCertificateAPI(c.Client, version))
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end was asked for
		}
		c.Log.Warn("pod certificates: requests cannot be watched; it will be tried again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(servedRetry):
		}
	}
	return nil
}

func (c *PodCertificates) version(ctx context.Context) (string, error) {
	if c.Version != "" {
		return c.Version, nil
	}
	return servedVersion(ctx, c.Client.Discovery(), podCertificates)
}

// run answers requests in one version until ctx ends or the version is gone.
func (c *PodCertificates) run(ctx context.Context, api podCertificateAPI) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	l := &podLoop{PodCertificates: c, api: api, informer: api.informer(c.Policy.SignerName)}
	l.queue = newPodQueue()
	if err := l.watch(stop); err != nil {
		return err
	}
	var running sync.WaitGroup
	running.Go(func() { l.informer.RunWithContext(ctx) })
	for range cmp.Or(c.Workers, 8) {
		running.Go(func() {
			for l.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	l.queue.ShutDown()
	running.Wait()
	return context.Cause(ctx)
}

// podLoop is PodCertificates at work in one version of the API.
type podLoop struct {
	*PodCertificates
	api      podCertificateAPI
	informer cache.SharedIndexInformer
	queue    workqueue.TypedRateLimitingInterface[string]
}

// watch fills the queue with what is not answered.
func (l *podLoop) watch(stop context.CancelCauseFunc) error {
	enqueue := func(o any) {
		if r, ok := o.(*podRequest); ok && !r.answered {
			l.queue.Add(r.ObjectMeta.Namespace + "/" + r.ObjectMeta.Name)
		}
	}
	_, err := l.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: enqueue, UpdateFunc: func(_, o any) { enqueue(o) },
	})
	return errors.Join(err, l.informer.SetTransform(newPodRequest),
		l.informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, r *cache.Reflector, err error) {
			if apierrors.IsNotFound(err) {
				stop(errVersionGone)
				return
			}
			cache.DefaultWatchErrorHandler(ctx, r, err)
		}))
}

// next answers a request of the queue, and tells whether there may be more.
func (l *podLoop) next(ctx context.Context) bool {
	key, stopped := l.queue.Get()
	if stopped {
		return false
	}
	defer l.queue.Done(key)
	err := l.handle(ctx, key)
	switch {
	case ctx.Err() != nil:
	case err == nil, apierrors.IsNotFound(err), apierrors.IsConflict(err):
		// It is gone, or has changed: the watch tells.
		l.queue.Forget(key)
	case errors.Is(err, errUndecided):
		l.queue.AddRateLimited(key)
	default:
		l.Log.Warn("pod certificate request could not be answered; it will be tried again", "request", key, "error", err)
		l.queue.AddRateLimited(key)
	}
	return true
}

// errUndecided tells that a request has been looked at, and shall be again.
var errUndecided = errors.New("undecided")

// handle decides on a request as it was last seen, and writes the answer.
func (l *podLoop) handle(ctx context.Context, key string) error {
	o, exists, err := l.informer.GetStore().GetByKey(key)
	if err != nil || !exists {
		return err
	}
	r, ok := o.(*podRequest)
	if !ok || r.answered {
		return nil
	}
	if r, err = l.withKey(ctx, r); err != nil {
		return err
	}
	authority, err := l.Source.Authority()
	if err != nil {
		return fmt.Errorf("the authority: %w", err)
	}
	facts, err := podCertificateFacts(ctx, l.Client, r.Request)
	if err != nil {
		return err
	}
	facts.AuthorityKey = authority.Certificate.PublicKey
	review := podcert.Decide(r.Request, facts, l.Policy)
	if review.Verdict == podcert.Undecided {
		l.decided(r, review, nil)
		return errUndecided
	}
	var certificate *podcert.Certificate
	if review.Verdict == podcert.Issue {
		if certificate, err = podcert.Sign(r.Request, l.Policy, authority, time.Now()); err != nil {
			return err
		}
		if err := l.given(ctx, authority, certificate); err != nil {
			return err
		}
	}
	if err := l.api.answer(ctx, r, podStatus(review, certificate, metav1.Now())); err != nil {
		return err
	}
	l.decided(r, review, certificate)
	return nil
}

// given lets a source take note of a certificate before anybody has it, where it wants to:
// one whose authority changes keeps the old one trusted as long as something of it lives.
func (l *podLoop) given(ctx context.Context, by issue.Authority, c *podcert.Certificate) error {
	noting, ok := l.Source.(interface {
		Given(context.Context, issue.Authority, time.Time) error
	})
	if !ok {
		return nil
	}
	return noting.Given(ctx, by, c.Leaf.NotAfter)
}

// withKey reads a request by v1beta1 when v1 does not show its key.
func (l *podLoop) withKey(ctx context.Context, r *podRequest) (*podRequest, error) {
	if len(r.PKCS10) > 0 || len(r.PublicKey) > 0 {
		return r, nil
	}
	full, err := newPodCertificateAPI(l.Client, certificatesv1beta1.SchemeGroupVersion.Version).get(ctx, r.ObjectMeta.Namespace, r.ObjectMeta.Name)
	if apierrors.IsNotFound(err) {
		return r, nil // v1beta1 is not served, or the request is gone
	}
	return full, err
}

// decided writes the log. What is tried again is told of once, not each time.
func (l *podLoop) decided(r *podRequest, review podcert.Review, c *podcert.Certificate) {
	level := slog.LevelInfo
	if review.Verdict == podcert.Undecided && l.queue.NumRequeues(r.ObjectMeta.Namespace+"/"+r.ObjectMeta.Name) > 0 {
		level = slog.LevelDebug
	}
	attributes := []any{
		"verdict", review.Verdict, "reason", review.ID, "namespace", r.ObjectMeta.Namespace, "request", r.ObjectMeta.Name,
		"pod", r.Pod.Name, "podUID", r.Pod.UID, "serviceAccount", r.ServiceAccount.Name, "node", r.Node.Name,
	}
	if c != nil {
		attributes = append(attributes, "uri", c.Leaf.URIs[0].String(), "serial", trust.SerialText(c.Leaf.SerialNumber), "notAfter", c.Leaf.NotAfter)
	}
	l.Log.Log(context.Background(), level, "pod certificate request", attributes...)
	if l.Decided != nil {
		l.Decided(review)
	}
}
