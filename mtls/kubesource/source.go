package kubesource

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/mtls"
)

// Source is an [mtls.Source] whose certificate and bundle are objects of the
// Kubernetes API. It may be used by several goroutines.
type Source struct {
	client kubernetes.Interface
	config Config
	pair   *part[*tls.Certificate] // nil: none
	bundle *part[*mtls.Bundle]     // nil: none
	now    atomic.Pointer[mtls.Snapshot]
	ready  chan struct{}
	runs   atomic.Bool

	telling  sync.Mutex // held while one change is taken up and told of
	changing sync.Mutex // guards the parts
}

// New makes a source that has nothing until Run has seen its objects. The error
// says what of the configuration cannot be.
func New(client kubernetes.Interface, c Config) (*Source, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if c.Told == nil {
		c.Told = func(Change) {}
	}
	s := &Source{client: client, config: c, ready: make(chan struct{})}
	if c.Pair != (Secret{}) {
		s.pair = &part[*tls.Certificate]{object: c.Pair.String(), keys: []string{certificateKey, privateKey}, make: c.parsePair}
	}
	if c.Bundle.kind != kindNone {
		s.bundle = &part[*mtls.Bundle]{object: c.Bundle.String(), keys: []string{c.Bundle.key}, make: c.Bundle.parse}
	}
	return s, nil
}

// Run watches the objects until ctx ends, and returns nil then. It returns an
// error where it runs already. An API server that is away is waited for.
func (s *Source) Run(ctx context.Context) error {
	if !s.runs.CompareAndSwap(false, true) {
		return errors.New("kubesource.Source runs already")
	}
	defer s.runs.Store(false)
	var all sync.WaitGroup
	for _, w := range s.watches() {
		all.Go(func() { w.run(ctx, s) })
	}
	all.Wait()
	return nil
}

// watches are one for each object: a Secret that is both pair and bundle is
// watched once, so that both change at once.
func (s *Source) watches() []*objectWatch {
	var all []*objectWatch
	pair, bundle := s.config.Pair, s.config.Bundle
	if s.pair != nil {
		all = append(all, &objectWatch{feed: secretFeed(s.client, pair.Namespace, pair.Name), parts: []changing{s.pair}})
	}
	switch {
	case s.bundle == nil:
	case s.pair != nil && bundle.kind == kindSecret && pair == Secret{bundle.namespace, bundle.name}:
		all[0].parts = append(all[0].parts, s.bundle)
	default:
		all = append(all, &objectWatch{feed: bundle.feed(s.client), parts: []changing{s.bundle}})
	}
	return all
}

// Snapshot returns the newest of what was good. It is an error until all that
// the configuration names was seen and was good once, and says what is missing.
func (s *Source) Snapshot() (*mtls.Snapshot, error) {
	if now := s.now.Load(); now != nil {
		return now, nil
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.pair != nil && !s.pair.found {
		return nil, s.pair.missing()
	}
	if s.bundle != nil && !s.bundle.found {
		return nil, s.bundle.missing()
	}
	return s.now.Load(), nil
}

// WaitReady waits until there is a first Snapshot, while Run runs. The error is
// that of ctx, with what is missing.
func (s *Source) WaitReady(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
		if _, err := s.Snapshot(); err != nil {
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		return nil
	}
}

// Status tells how the objects fare. Failing is of what is there: while the API
// server is away, AsOf stays behind. A watch on which nothing happens shows its
// life to AsOf once a minute.
func (s *Source) Status() mtls.Status {
	s.changing.Lock()
	defer s.changing.Unlock()
	switch {
	case s.bundle == nil:
		return s.pair.status
	case s.pair == nil:
		return s.bundle.status
	}
	a, b := s.pair.status, s.bundle.status
	a.Taken, a.Refused, a.Failing = a.Taken+b.Taken, a.Refused+b.Refused, a.Failing || b.Failing
	if b.AsOf.Before(a.AsOf) {
		a.AsOf = b.AsOf
	}
	return a
}

// event has parts take note of something, shows what they are then, and tells.
func (s *Source) event(parts []changing, note func(changing) *Change) {
	s.telling.Lock()
	defer s.telling.Unlock()
	var changes []*Change
	s.changing.Lock()
	for _, p := range parts {
		changes = append(changes, note(p))
	}
	s.publish()
	s.changing.Unlock() // before telling: whoever is told may ask us
	for _, c := range changes {
		if c != nil {
			s.config.Told(*c)
		}
	}
}

// publish shows the parts when each is there; s.changing is held.
func (s *Source) publish() {
	var now mtls.Snapshot
	if s.pair != nil {
		if !s.pair.found {
			return
		}
		now.Certificate = s.pair.value
	}
	if s.bundle != nil {
		if !s.bundle.found {
			return
		}
		now.Bundle = s.bundle.value
	}
	last := s.now.Load()
	if last != nil && *last == now {
		return
	}
	s.now.Store(&now)
	if last == nil {
		close(s.ready)
	}
}
