package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	certificates "k8s.io/client-go/kubernetes/typed/certificates/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/signer"
)

// DefaultWorkers is how many requests are in work at the same time: enough to
// keep an API server busy that takes some milliseconds for a write.
const DefaultWorkers = 16

// CSROptions are the settings of [CSR].
type CSROptions struct {
	// Client reaches the API server; its configuration had better say protobuf
	// and have no limits of its own.
	Client kubernetes.Interface
	// Approve are the names of the signers whose requests are decided.
	Approve []string
	// Sources sign, by the name of the signer whose approved requests they sign.
	Sources map[string]signer.Source
	Policy  csr.Policy
	// Cluster returns what no node may claim, as far as it is known now; false
	// where it is not yet known: nothing is decided then.
	Cluster func() (csr.Cluster, bool)
	// Resolve asks DNS, where the policy wants that: no addresses and no error
	// say that the name does not exist.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	Workers int // 0: DefaultWorkers
	// Authorities are keys of authorities beside those of Sources, as the SHA-256
	// sum of the SubjectPublicKeyInfo in DER.
	Authorities [][32]byte
	// Decide is [csr.Decide] where it is nil.
	Decide   func(csr.Request, csr.Facts, csr.Policy) csr.Review
	Log      *slog.Logger
	Metrics  *Metrics
	Events   Events       // nil: none
	Issuance *IssuanceLog // nil: none
}

// CSR approves, denies and signs the requests of certificates.k8s.io. It is a
// [Loop].
type CSR struct {
	CSROptions
	approve  map[string]bool
	api      certificates.CertificateSigningRequestInterface
	ledger   *ledger
	requests *requests
	nodes    *nodes
	access   *access
	alike    alike
	failures atomic.Int32 // of the API server in a row
}

// NewCSR makes the loop.
func NewCSR(o CSROptions) *CSR {
	if o.Workers <= 0 {
		o.Workers = DefaultWorkers
	}
	if o.Decide == nil {
		o.Decide = csr.Decide
	}
	c := &CSR{CSROptions: o, approve: map[string]bool{}, api: o.Client.CertificatesV1().CertificateSigningRequests()}
	for _, name := range o.Approve {
		c.approve[name] = true
	}
	c.ledger = newLedger(o.Workers)
	c.requests = newRequests(c.ledger, c.wants)
	c.nodes = newNodes(c.ledger.nodeChanged)
	c.access = newAccess(o.Client.AuthorizationV1().SubjectAccessReviews(), o.Metrics)
	return c
}

// wants tells whether something is to be done on a request.
func (c *CSR) wants(signerName string, state csr.State) bool {
	switch state {
	case csr.Pending:
		return c.approve[signerName]
	case csr.Approved:
		return c.Sources[signerName] != nil
	}
	return false
}

// Synced tells whether the loop has seen all that there is.
func (c *CSR) Synced() bool { return closed(c.requests.synced) && closed(c.nodes.synced) }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Run works until the context ends, and finishes what it has begun.
func (c *CSR) Run(ctx context.Context) error {
	go c.reflector("certificatesigningrequests", c.Client.CertificatesV1().RESTClient(), &certificatesv1.CertificateSigningRequest{}, c.requests).RunWithContext(ctx)
	if len(c.approve) > 0 {
		go c.reflector("nodes", c.Client.CoreV1().RESTClient(), &corev1.Node{}, c.nodes).RunWithContext(ctx)
	} else {
		close(c.nodes.synced)
	}
	if !c.waitForFacts(ctx) {
		return nil
	}
	c.Log.Info("working", "workers", c.Workers, "known", c.ledger.depths().known)
	go c.ledger.run(ctx)
	context.AfterFunc(ctx, c.ledger.shut)
	var workers sync.WaitGroup
	for range c.Workers {
		workers.Go(func() { c.work(ctx) })
	}
	workers.Wait()
	return nil
}

// waitForFacts waits for the first lists, and for the facts about the cluster.
func (c *CSR) waitForFacts(ctx context.Context) bool {
	for _, synced := range []<-chan struct{}{c.requests.synced, c.nodes.synced} {
		select {
		case <-ctx.Done():
			return false
		case <-synced:
		}
	}
	for _, known := c.Cluster(); !known; _, known = c.Cluster() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(100 * time.Millisecond):
		}
	}
	return true
}

// The watch comes back sooner than client-go would have it: nodes wait.
const (
	watchRetryFirst = 200 * time.Millisecond
	watchRetryLast  = 5 * time.Second
)

func (c *CSR) reflector(resource string, client rest.Interface, kind any, store cache.ReflectorStore) *cache.Reflector {
	watch := cache.NewListWatchFromClient(client, resource, "", fields.Everything())
	return cache.NewReflectorWithOptions(watch, kind, store, cache.ReflectorOptions{
		Name:    "kubepki/" + resource,
		Backoff: &wait.Backoff{Duration: watchRetryFirst, Cap: watchRetryLast, Steps: 30, Factor: 2, Jitter: 0.5},
	})
}

// patience is how long the work on one request may take.
const patience = 30 * time.Second

func (c *CSR) work(ctx context.Context) {
	for {
		it, body, ok := c.ledger.take()
		if !ok {
			return
		}
		// What has been begun is finished, also when the process is to end.
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		came, err := c.handle(limited, it, body)
		cancel()
		if err != nil {
			came = c.failed(it, err)
		} else {
			c.failures.Store(0)
		}
		c.ledger.done(it, came, time.Now())
	}
}

// stepError tells which step failed; of errors.
type stepError struct {
	step string
	error
}

func (e *stepError) Unwrap() error { return e.error }

// atServer tells whether a step asks the API server, and nobody else.
func atServer(step string) bool {
	return slices.Contains([]string{"read", "access", "approve", "deny", "publish"}, step)
}

// failed notes what could not be done. Where the API server does not answer
// all workers wait a little.
func (c *CSR) failed(it *item, err error) outcome {
	step := "other"
	if e, ok := errors.AsType[*stepError](err); ok {
		step = e.step
	}
	c.Metrics.errors.WithLabelValues(step).Inc()
	if atServer(step) && noAnswer(err) {
		n := min(int(c.failures.Add(1)), 20)
		c.ledger.pause(backoff(firstFailure, 2*time.Second, n))
	}
	c.Log.Warn("tried again later", "name", it.name, "uid", string(it.uid), "step", step, "error", fmt.Sprint(err))
	return failed
}
