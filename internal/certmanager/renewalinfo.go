package certmanager

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

// renewalInfo asks ACME servers when they wish certificates to be renewed. It has a queue
// of its own: a server that does not answer holds nothing else up.
type renewalInfo struct {
	queue    workqueue.TypedRateLimitingInterface[types.NamespacedName]
	patience time.Duration // for one question
	pause    time.Duration // after a failure

	mu    sync.Mutex
	quiet map[types.UID]time.Time // issuers that are left alone, and until when
}

// How renewal information is asked for.
const (
	renewalInfoWorkers  = 4
	renewalInfoPatience = 15 * time.Second
	// quietAfterFailure and quietWithout are how long a server is left alone that has not
	// answered, and one that offers no such information.
	quietAfterFailure = time.Minute
	quietWithout      = 6 * time.Hour
)

func newRenewalInfo() *renewalInfo {
	return &renewalInfo{queue: newQueue[types.NamespacedName](), patience: renewalInfoPatience, pause: quietAfterFailure, quiet: map[types.UID]time.Time{}}
}

func (r *renewalInfo) hush(issuer types.UID, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for other, end := range r.quiet {
		if end.Before(now()) {
			delete(r.quiet, other)
		}
	}
	r.quiet[issuer] = until
}

func (r *renewalInfo) quietUntil(issuer types.UID) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.quiet[issuer]
}

// acmeIssuerOf returns the issuer of a Certificate that is issued, where its server may be
// asked for renewal information; nil: it may not.
func (c *Controller) acmeIssuerOf(key types.NamespacedName, o *cmapi.Certificate, secret *workload.SecretFacts) cmapi.GenericIssuer {
	if c.acme == nil || !c.RenewalInfo || secret == nil || !secret.NotAfter.After(now()) || workload.IssuerOf(secret.Issuer) != workload.IssuerOf(o.Spec.IssuerRef) {
		return nil
	}
	at, ok := issuerOf(o.Spec.IssuerRef, key.Namespace)
	if !ok {
		return nil
	}
	issuer := c.issuer(at)
	if issuer == nil || issuer.GetDeletionTimestamp() != nil || issuer.GetSpec().ACME == nil {
		return nil
	}
	return issuer
}

// askLater has the server of a Certificate asked, when that is due, whose certificate is
// there and is not being made anew.
func (c *Controller) askLater(it *item, v workload.Verdict) {
	if v.Action != workload.Rest && v.Action != workload.Mend || !it.state.Owner {
		return
	}
	if c.acmeIssuerOf(it.key, it.seen, it.state.Secret) != nil {
		c.renewals.queue.AddAfter(it.key, workload.AskAgain(&v.Status, it.state.Secret).Sub(now()))
	}
}

// handleRenewalInfo asks the server of a Certificate, and writes what it has said.
func (c *Controller) handleRenewalInfo(ctx context.Context, key types.NamespacedName) error {
	o, v := c.certificates.get(key)
	if o == nil || o.DeletionTimestamp != nil || !c.Ours(o.Spec.IssuerRef, key.Namespace) {
		return nil
	}
	k, _ := c.secrets.get(secretOf(o))
	if _, under := workload.Issuing(&o.Status); under || k == nil {
		return nil
	}
	issuer := c.acmeIssuerOf(key, o, &k.SecretFacts)
	if issuer == nil {
		return nil
	}
	if !isReady(issuer) {
		c.renewals.queue.AddAfter(key, c.renewals.pause)
		return nil
	}
	if due := latest(workload.AskAgain(&o.Status, &k.SecretFacts), c.renewals.quietUntil(issuer.GetUID())); due.After(now()) {
		c.renewals.queue.AddAfter(key, due.Sub(now()))
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, c.renewals.patience)
	defer cancel()
	info, ok, err := c.acme.orders.RenewalInfo(asking, issuer, func() (*x509.Certificate, error) { return c.leafOf(asking, o, &k.SecretFacts) })
	it := &item{key: key, seen: o, version: v, status: o.Status}
	switch {
	case err != nil:
		c.renewals.hush(issuer.GetUID(), now().Add(c.renewals.pause))
		c.Events.Tell(it.object(), true, "ARIError", fmt.Sprintf("Could not fetch ACME Renewal Information: %v", err))
		return c.writeStatus(ctx, it, workload.Informed(o, &k.SecretFacts, workload.RenewalInfo{}, err.Error(), now()))
	case !ok:
		c.renewals.hush(issuer.GetUID(), now().Add(quietWithout))
		c.renewals.queue.AddAfter(key, quietWithout)
		status := *o.Status.DeepCopy()
		status.ACME = nil
		return c.writeStatus(ctx, it, status)
	}
	return c.writeStatus(ctx, it, workload.Informed(o, &k.SecretFacts, info, "", now()))
}

// errOther tells that a Secret holds another certificate than the one that was seen.
var errOther = errors.New("the certificate in the Secret has changed")

// leafOf reads the certificate of a Certificate.
func (c *Controller) leafOf(ctx context.Context, o *cmapi.Certificate, seen *workload.SecretFacts) (*x509.Certificate, error) {
	secret, err := c.readSecret(ctx, secretOf(o))
	if err != nil || secret == nil {
		return nil, errOther // who may read the status need not read what the API server says of Secrets
	}
	chain, err := trust.ParseCertificates(secret.Data[corev1.TLSCertKey])
	if err != nil || len(chain) == 0 || !chain[0].NotAfter.Equal(seen.NotAfter) {
		return nil, errOther
	}
	return chain[0], nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
