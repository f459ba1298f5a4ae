package certmanager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/kubepki/kubepki/internal/acmeissuer"
	"github.com/kubepki/kubepki/internal/workload"
)

// DefaultWorkers is how many Certificates are in work at the same time: enough to keep
// an API server busy that takes some milliseconds for a write.
const DefaultWorkers = 32

// Options are the settings of [Controller].
type Options struct {
	Client *Client
	// Issuers sign, by the field of the issuer's spec that they serve, such as "acme",
	// beside those that are always there: "ca" and "selfSigned".
	Issuers map[string]Issuer
	// ACME asks ACME servers for issuers with spec.acme; nil: others do.
	ACME *acmeissuer.Orders
	// RenewalInfo says that ACME servers are asked when certificates shall be renewed.
	RenewalInfo bool
	// Approver decides on requests; nil: others do.
	Approver Approver
	// Guard is asked before anything is signed, also where another has approved it: what
	// it denies fails, and what it leaves undecided waits. nil: an approval is enough.
	Guard Approver
	// SigningRequests says that CertificateSigningRequests of Kubernetes are signed too.
	SigningRequests bool
	// Ours tells whether an issuer, named from a namespace, is served by this process;
	// nil: all are.
	Ours func(ref cmmeta.IssuerReference, namespace string) bool
	// ClusterNamespace has the Secrets that ClusterIssuers name.
	ClusterNamespace string
	// Rollover says how issuers with spec.ca are carried over to another CA, and Publish
	// writes ClusterTrustBundles for them; nil: none are written.
	Rollover Rollover
	Publish  PublishBundle
	// Limits bound the times that Certificates name; the zero value is cert-manager's.
	Limits workload.Limits
	// OwnerReference says that the Secrets of Certificates go with them.
	OwnerReference bool
	// FirstBackoff and LastBackoff bound the wait after a failed issuance; 0: cert-manager's
	// hour, and 32 hours.
	FirstBackoff, LastBackoff time.Duration
	Workers                   int // 0: DefaultWorkers
	Log                       *slog.Logger
	Metrics                   *Metrics
	Events                    Events // nil: none
}

// Controller serves Certificates, CertificateRequests and issuers. One process works at
// a time; a second one would do no harm but double the work.
type Controller struct {
	Options
	*stores
	signing     *store[signingFacts] // CertificateSigningRequests; empty where they are not signed
	authorities *authorities
	rollovers   *rollovers
	signers     map[string]Issuer
	acme        *acmeIssuer // nil: none
	passwords   *passwords  // of keystores
	renewals    *renewalInfo
	inHand      keySet // requests that the loop of Certificates works on

	certificateQueue workqueue.TypedRateLimitingInterface[types.NamespacedName]
	requestQueue     workqueue.TypedRateLimitingInterface[types.NamespacedName]
	signingQueue     workqueue.TypedRateLimitingInterface[types.NamespacedName]
	issuerQueue      workqueue.TypedRateLimitingInterface[issuerKey]
}

// New makes a controller.
func New(o Options) *Controller {
	o.Workers = cmp.Or(o.Workers, DefaultWorkers)
	o.Limits = cmp.Or(o.Limits, workload.Upstream)
	o.FirstBackoff, o.LastBackoff = cmp.Or(o.FirstBackoff, workload.FirstBackoff), cmp.Or(o.LastBackoff, workload.LastBackoff)
	if o.Ours == nil {
		o.Ours = func(cmmeta.IssuerReference, string) bool { return true }
	}
	if o.Events == nil {
		o.Events = noEvents{}
	}
	c := &Controller{
		Options: o, stores: newStores(), signers: map[string]Issuer{},
		certificateQueue: newFairQueue(), requestQueue: newFairQueue(), signingQueue: newQueue[types.NamespacedName](), issuerQueue: newQueue[issuerKey](),
	}
	c.renewals = newRenewalInfo()
	c.passwords = newPasswords(o.Client.Metadata, c.certificateQueue.Add)
	c.authorities = newAuthorities(o.Client.Kube, c.authorityChanged)
	c.rollovers = &rollovers{
		settings: o.Rollover, client: o.Client.Kube, stores: c.stores, authorities: c.authorities, cluster: o.ClusterNamespace,
		log: o.Log, publish: o.Publish, events: o.Events, changed: c.wakeCertificates, known: map[issuerKey]*rolloverOf{}, backoff: o.FirstBackoff,
		ours: func(issuer cmapi.GenericIssuer) bool { return o.Ours(refOf(issuer), issuer.GetNamespace()) },
	}
	c.signers["ca"], c.signers["selfSigned"] = &caIssuer{c.authorities, c.rollovers, o.ClusterNamespace}, &selfSignedIssuer{o.Client.Kube}
	if o.ACME != nil {
		c.acme = newACMEIssuer(o.ACME, c)
		c.signers["acme"] = c.acme
	}
	for kind, i := range o.Issuers {
		c.signers[kind] = i
	}
	c.certificates.told, c.requests.told, c.secrets.told = c.certificateTold, c.requestTold, c.secretTold
	c.signing = newStore(reduceSigning)
	c.signing.told = c.signingTold
	c.issuers.told, c.clusterIssuers.told = issuerTold[cmapi.Issuer](c), issuerTold[cmapi.ClusterIssuer](c)
	return c
}

// Something that fails is tried again after these times.
const (
	retryFirst = 100 * time.Millisecond
	retryLast  = time.Minute
)

func newQueue[K comparable]() workqueue.TypedRateLimitingInterface[K] {
	return workqueue.NewTypedRateLimitingQueue(newLimits[K]())
}

func newLimits[K comparable]() workqueue.TypedRateLimiter[K] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[K](retryFirst, retryLast)
}

// Synced tells whether all that there is has been seen.
func (c *Controller) Synced() bool { return c.synced() }

// Run works until the context ends, and finishes what it has begun.
func (c *Controller) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { c.watch(ctx, c.Client) })
	if c.SigningRequests {
		running.Go(func() {
			watch(ctx, c.Client.Kube.CertificatesV1().RESTClient(), signingRequests, "", all, &certificatesv1.CertificateSigningRequest{}, c.signing)
		})
	}
	c.authorities.start(ctx)
	c.passwords.named.start(ctx)
	if c.await(ctx) {
		c.Log.Info("workloads: working", "workers", c.Workers, "certificates", c.certificates.len(), "requests", c.requests.len(), "secrets", c.secrets.len())
		work(ctx, &running, c.Workers, c.certificateQueue, c.Log, "certificate", c.handleCertificate)
		work(ctx, &running, max(1, c.Workers/2), c.requestQueue, c.Log, "request", c.handleRequest)
		work(ctx, &running, max(1, c.Workers/8), c.signingQueue, c.Log, "signingRequest", c.handleSigning)
		work(ctx, &running, max(1, c.Workers/8), c.issuerQueue, c.Log, "issuer", c.handleIssuer)
		if c.acme != nil {
			running.Go(func() { c.acme.sweep(ctx) })
			work(ctx, &running, renewalInfoWorkers, c.renewals.queue, c.Log, "renewalInfo", c.handleRenewalInfo)
		}
	}
	<-ctx.Done()
	c.certificateQueue.ShutDown()
	c.requestQueue.ShutDown()
	c.signingQueue.ShutDown()
	c.issuerQueue.ShutDown()
	c.renewals.queue.ShutDown()
	running.Wait()
	c.authorities.wait()
	c.passwords.named.wait()
	return nil
}

// patience is how long the work on one object may take.
const patience = time.Minute

// work starts workers on a queue.
func work[K comparable](ctx context.Context, running *sync.WaitGroup, n int, queue workqueue.TypedRateLimitingInterface[K], log *slog.Logger, what string, handle func(context.Context, K) error) {
	one := func(key K) {
		defer queue.Done(key)
		if ctx.Err() != nil {
			return
		}
		// What has been begun is finished, also when the process is to end.
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		switch err := handle(limited, key); {
		case err == nil:
			queue.Forget(key)
		case retryQuietly(err):
			queue.AddRateLimited(key)
		default:
			log.Warn("workloads: tried again later", what, fmt.Sprint(key), "error", err.Error())
			queue.AddRateLimited(key)
		}
	}
	for range n {
		running.Go(func() {
			for {
				key, down := queue.Get()
				if down {
					return
				}
				one(key)
			}
		})
	}
}

// errAgain says that something has changed meanwhile and is to be looked at again.
var errAgain = errors.New("it has changed meanwhile")

func (c *Controller) certificateTold(key types.NamespacedName, before, after *cmapi.Certificate) {
	c.certificateQueue.Add(key)
	if after == nil && passwordSecrets(before) != nil {
		c.passwords.follow(key, nil)
	}
	// Whoever names the same Secret may have become the one that writes it.
	if was := secretOf(before); before != nil && was != secretOf(after) {
		for _, name := range c.namingSecret(was) {
			c.certificateQueue.Add(types.NamespacedName{Namespace: key.Namespace, Name: name})
		}
	}
}

func (c *Controller) requestTold(key types.NamespacedName, before, after *workload.RequestFacts) {
	for _, f := range []*workload.RequestFacts{before, after} {
		if f != nil && f.Owner != "" {
			c.certificateQueue.Add(types.NamespacedName{Namespace: key.Namespace, Name: f.Certificate})
		}
	}
	if after != nil && c.wantsRequest(after) {
		c.requestQueue.Add(key)
	}
}

func (c *Controller) secretTold(key types.NamespacedName, before, after *secretKept) {
	for _, name := range c.namingSecret(key) {
		c.certificateQueue.Add(types.NamespacedName{Namespace: key.Namespace, Name: name})
	}
	for _, k := range []*secretKept{before, after} {
		if k != nil && k.nextKeyOf != "" {
			of := types.NamespacedName{Namespace: key.Namespace, Name: k.nextKeyName}
			c.certificateQueue.Add(of)
			for _, r := range c.requestsOf(of, k.nextKeyOf) { // whose key this is, seen after them
				if c.wantsRequest(r) {
					c.requestQueue.Add(types.NamespacedName{Namespace: key.Namespace, Name: r.Name})
				}
			}
		}
	}
	c.authorities.touched(key)
	if after != nil && after.Type == recordType { // a user has changed it, or its issuer is gone
		if issuer, ok := c.rollovers.recordOf(key); ok {
			c.issuerQueue.Add(issuer)
		}
	}
}

// issuerTold hears of changes of issuers: they are verified, and whoever waits for them
// is looked at again.
func issuerTold[T any](c *Controller) func(types.NamespacedName, *T, *T) {
	return func(key types.NamespacedName, before, after *T) {
		k := issuerKey{key.Namespace, key.Name}
		c.issuerQueue.Add(k)
		if before != nil && after != nil {
			// What else its status says, such as how far a rollover is, nobody waits for.
			was, wasIssuer := any(before).(cmapi.GenericIssuer)
			is, isIssuer := any(after).(cmapi.GenericIssuer)
			if wasIssuer && isIssuer && was.GetUID() == is.GetUID() && was.GetGeneration() == is.GetGeneration() && isReady(was) == isReady(is) {
				return
			}
			if isIssuer && is.GetSpec().CA != nil && isReady(is) { // before that nothing was asked of its Certificates
				c.wakeCertificates(k)
			}
		}
		c.wakeRequests(k)
		c.wakeSigning(k)
	}
}

// wakeRequests looks again at the open requests that name an issuer.
func (c *Controller) wakeRequests(k issuerKey) {
	for key, r := range c.requests.each() {
		if at, ok := issuerOf(r.value.Issuer, key.Namespace); ok && at == k && c.wantsRequest(r.value) {
			c.requestQueue.Add(key)
		}
	}
}

// wakeRate is how many Certificates are looked at in a second when the bundle of their
// issuer has changed.
const wakeRate = 200

// wakeCertificates looks again at the Certificates that name an issuer, a few at a time:
// each may come to be written.
func (c *Controller) wakeCertificates(k issuerKey) {
	n := 0
	for key, o := range c.certificates.each() {
		if at, ok := issuerOf(o.value.Spec.IssuerRef, key.Namespace); ok && at == k {
			c.certificateQueue.AddAfter(key, time.Duration(n)*time.Second/wakeRate)
			n++
		}
	}
	if issuer := c.issuer(k); issuer != nil && issuer.GetSpec().CA != nil {
		secret := c.rollovers.authorityAt(issuer) // of its root there are readers too
		for _, name := range c.namingSecret(secret) {
			c.certificateQueue.Add(types.NamespacedName{Namespace: secret.Namespace, Name: name})
		}
	}
}

// authorityChanged verifies the issuers that name a Secret.
func (c *Controller) authorityChanged(secret types.NamespacedName) {
	for _, issuer := range c.issuersOf(secret) {
		c.issuerQueue.Add(keyOf(issuer))
	}
}

// issuersOf are the issuers that name a Secret.
func (c *Controller) issuersOf(secret types.NamespacedName) []cmapi.GenericIssuer {
	var all []cmapi.GenericIssuer
	for key, i := range c.issuers.each() {
		if i.value.Spec.CA != nil && secret == (types.NamespacedName{Namespace: key.Namespace, Name: i.value.Spec.CA.SecretName}) {
			all = append(all, i.value)
		}
	}
	for _, i := range c.clusterIssuers.each() {
		if i.value.Spec.CA != nil && secret == (types.NamespacedName{Namespace: c.ClusterNamespace, Name: i.value.Spec.CA.SecretName}) {
			all = append(all, i.value)
		}
	}
	return all
}

// keySet is a set of objects. It is safe for concurrent use.
type keySet struct{ m sync.Map }

func (s *keySet) add(key types.NamespacedName)      { s.m.Store(key, true) }
func (s *keySet) remove(key types.NamespacedName)   { s.m.Delete(key) }
func (s *keySet) has(key types.NamespacedName) bool { _, ok := s.m.Load(key); return ok }
