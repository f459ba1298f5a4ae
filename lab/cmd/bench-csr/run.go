//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// clients is how many requests are made beside each other.
const clients = 32

// outcome is what one run came to.
type outcome struct {
	rate     float64 // certificates a second
	p50, p99 time.Duration
}

// parallel does something for each request, beside each other.
func parallel(ctx context.Context, requests []*certificatesv1.CertificateSigningRequest, do func(context.Context, *certificatesv1.CertificateSigningRequest) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan *certificatesv1.CertificateSigningRequest)
	var workers sync.WaitGroup
	for range clients {
		workers.Go(func() {
			for r := range queue {
				if err := do(ctx, r); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, r := range requests {
		select {
		case queue <- r:
		case <-ctx.Done():
		}
	}
	close(queue)
	workers.Wait()
	return context.Cause(ctx)
}

// runFloor measures the bare writes.
func (b *bench) runFloor(ctx context.Context, run string, count int) (outcome, error) {
	requests, err := joining(run, count)
	if err != nil {
		return outcome{}, err
	}
	started := time.Now()
	if err := parallel(ctx, requests, b.bare); err != nil {
		return outcome{}, err
	}
	return outcome{rate: float64(count) / time.Since(started).Seconds()}, nil
}

// watcher sees when each request has its certificate.
type watcher struct {
	mu     sync.Mutex
	issued map[string]time.Time
	left   int
	all    chan struct{} // closed when none is left
}

// runController measures whoever approves and signs now, from the time that it
// does: a controller that has just been started may wait for its lease.
func (b *bench) runController(ctx context.Context, run string, count int) (outcome, error) {
	if _, err := b.runOnce(ctx, run+"-first", 1); err != nil {
		return outcome{}, err
	}
	return b.runOnce(ctx, run, count)
}

func (b *bench) runOnce(ctx context.Context, run string, count int) (outcome, error) {
	requests, err := joining(run, count)
	if err != nil {
		return outcome{}, err
	}
	w, end, err := b.watch(ctx, count)
	if err != nil {
		return outcome{}, err
	}
	defer end()
	var mu sync.Mutex
	created := make(map[string]time.Time, count)
	started := time.Now()
	err = parallel(ctx, requests, func(ctx context.Context, r *certificatesv1.CertificateSigningRequest) error {
		err := b.create(ctx, r)
		mu.Lock()
		created[r.Name] = time.Now()
		mu.Unlock()
		return err
	})
	if err == nil {
		err = w.wait(ctx, count)
	}
	if err != nil {
		return outcome{}, err
	}
	return w.outcome(started, created), nil
}

// wait waits until all have their certificate. The slowest that is measured
// makes ten a second.
func (w *watcher) wait(ctx context.Context, count int) error {
	ctx, cancel := context.WithTimeout(ctx, patience+time.Duration(count)*time.Second/5)
	defer cancel()
	select {
	case <-w.all:
		return nil
	case <-ctx.Done():
		w.mu.Lock()
		defer w.mu.Unlock()
		return fmt.Errorf("%d of %d requests have no certificate: %w", w.left, count, ctx.Err())
	}
}

func (w *watcher) outcome(started time.Time, created map[string]time.Time) outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := started
	var took []time.Duration
	for name, at := range w.issued {
		if at.After(last) {
			last = at
		}
		took = append(took, at.Sub(created[name]))
	}
	slices.Sort(took)
	return outcome{float64(len(took)) / last.Sub(started).Seconds(), percentile(took, 50), percentile(took, 99)}
}

func percentile(sorted []time.Duration, p float64) time.Duration {
	i := int(math.Ceil(p/100*float64(len(sorted)))) - 1
	return sorted[max(i, 0)]
}

// watch begins to watch the requests that come from now on.
func (b *bench) watch(ctx context.Context, count int) (*watcher, func(), error) {
	all := b.admin.CertificatesV1().CertificateSigningRequests()
	now, err := all.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, nil, err
	}
	events, err := all.Watch(ctx, metav1.ListOptions{ResourceVersion: now.ResourceVersion})
	if err != nil {
		return nil, nil, err
	}
	w := &watcher{issued: make(map[string]time.Time, count), left: count, all: make(chan struct{})}
	go func() {
		for event := range events.ResultChan() {
			r, ok := event.Object.(*certificatesv1.CertificateSigningRequest)
			if ok && len(r.Status.Certificate) > 0 {
				w.saw(r.Name)
			}
		}
	}()
	return w, events.Stop, nil
}

func (w *watcher) saw(name string) {
	at := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, again := w.issued[name]; again || w.left == 0 {
		return
	}
	w.issued[name] = at
	if w.left--; w.left == 0 {
		close(w.all)
	}
}

// runSingles measures requests that come one after another.
func (b *bench) runSingles(ctx context.Context, run string, count int) (outcome, error) {
	requests, err := joining(run, count)
	if err != nil {
		return outcome{}, err
	}
	var took []time.Duration
	for _, r := range requests {
		one, end, err := b.watch(ctx, 1)
		if err != nil {
			return outcome{}, err
		}
		started := time.Now()
		if err = b.create(ctx, r); err == nil {
			err = one.wait(ctx, 1)
		}
		end()
		if err != nil {
			return outcome{}, err
		}
		if at, ok := one.issued[r.Name]; ok {
			took = append(took, at.Sub(started))
		}
	}
	if len(took) != count {
		return outcome{}, errors.New("the certificate of another request was seen")
	}
	slices.Sort(took)
	return outcome{p50: percentile(took, 50), p99: percentile(took, 99)}, nil
}
