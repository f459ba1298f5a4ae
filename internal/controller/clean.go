package controller

import (
	"context"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	certificates "k8s.io/client-go/kubernetes/typed/certificates/v1"

	"github.com/kubepki/kubepki/internal/csr"
)

// How long requests stay, as in k/k pkg/controller/certificates/cleaner.
const (
	cleanEvery   = time.Minute
	keepSettled  = time.Hour      // issued, denied or failed
	keepWaiting  = 24 * time.Hour // pending, or approved and not issued
	cleanWorkers = 4
)

// Cleaner removes old requests. It is a [Loop], and knows what the loop knows
// that it belongs to.
type Cleaner struct {
	csr     *CSR
	api     certificates.CertificateSigningRequestInterface
	log     *slog.Logger
	metrics *Metrics
}

// NewCleaner makes the cleaner that belongs to a loop.
func NewCleaner(c *CSR) *Cleaner {
	return &Cleaner{csr: c, api: c.api, log: c.Log, metrics: c.Metrics}
}

// Run looks each minute until the context ends.
func (c *Cleaner) Run(ctx context.Context) error {
	if !c.csr.waitForFacts(ctx) {
		return nil
	}
	ticker := time.NewTicker(cleanEvery)
	defer ticker.Stop()
	for {
		c.clean(ctx, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// old is a request that is to be removed.
type old struct {
	name  string
	uid   types.UID
	state csr.State
}

// clean removes what is old, a few at a time.
func (c *Cleaner) clean(ctx context.Context, now time.Time) {
	all := c.csr.ledger.old(now)
	next := make(chan old)
	var workers sync.WaitGroup
	for range min(cleanWorkers, len(all)) {
		workers.Go(func() {
			for o := range next {
				c.remove(ctx, o)
			}
		})
	}
	for _, o := range all {
		if ctx.Err() != nil {
			break
		}
		next <- o
	}
	close(next)
	workers.Wait()
}

func (c *Cleaner) remove(ctx context.Context, o old) {
	// By its UID: the name may be another's by now.
	err := c.api.Delete(ctx, o.name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(o.uid))})
	switch {
	case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
	case err != nil && ctx.Err() == nil:
		c.log.Warn("not removed", "name", o.name, "uid", string(o.uid), "error", err.Error())
	case err == nil:
		c.metrics.cleaned.WithLabelValues(string(o.state)).Inc()
	}
}

// old lists what may be removed.
func (l *ledger) old(now time.Time) []old {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []old
	for name, e := range l.entries {
		if e.isOld(now) {
			all = append(all, old{name, e.uid, e.state})
		}
	}
	return all
}

// isOld tells whether a request may be removed. What is not known is no reason.
func (e *entry) isOld(now time.Time) bool {
	age := now.Sub(time.Unix(e.since, 0))
	known := e.since != 0
	switch e.state {
	case csr.Pending, csr.Approved:
		return known && age > keepWaiting
	case csr.Issued:
		return known && age > keepSettled || e.ends != 0 && now.After(time.Unix(e.ends, 0))
	}
	return known && age > keepSettled
}
