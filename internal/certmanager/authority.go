package certmanager

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/kubepki/kubepki/internal/workload"
)

// authorities are the keys and certificates that issuers sign with, of the Secrets that
// they name. A Secret is read when it is first asked for, and again after it has changed:
// those that are labelled as of a certificate are watched with them, any other by its
// name.
type authorities struct {
	client  kubernetes.Interface
	changed func(secret types.NamespacedName)

	mu      sync.Mutex
	ctx     context.Context // of the watches; nil before start
	running sync.WaitGroup
	known   map[types.NamespacedName]*authorityEntry
}

type authorityEntry struct {
	reading   sync.Mutex // one reads at a time
	touched   uint64     // counts changes of the Secret; guarded by authorities.mu
	read      uint64     // touched when it was read; guarded by authorities.mu
	authority *workload.Authority
	err       error
	stop      context.CancelFunc // of the watch by name, nil where there is none
}

func newAuthorities(client kubernetes.Interface, changed func(types.NamespacedName)) *authorities {
	return &authorities{client: client, changed: changed, known: map[types.NamespacedName]*authorityEntry{}}
}

// start lets watches run until the context ends.
func (a *authorities) start(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ctx = ctx
}

// wait returns when no watch runs any more.
func (a *authorities) wait() { a.running.Wait() }

// errInvalid tells that a Secret holds no authority.
var errInvalid = errors.New("invalid data")

// get returns the authority that a Secret holds. An error is of the API server, or
// wraps errInvalid.
func (a *authorities) get(ctx context.Context, key types.NamespacedName) (*workload.Authority, error) {
	e := a.entry(key)
	e.reading.Lock()
	defer e.reading.Unlock()
	a.mu.Lock()
	touched, fresh := e.touched, e.read == e.touched
	a.mu.Unlock()
	if fresh {
		return e.authority, e.err
	}
	secret, err := a.client.CoreV1().Secrets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	a.follow(key, e, err == nil && secret.Labels[cmapi.PartOfCertManagerControllerLabelKey] == "true")
	if err != nil {
		return nil, err
	}
	e.authority, e.err = workload.AuthorityOf(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey], secret.Data[cmmeta.TLSCAKey])
	if e.err != nil {
		e.err = fmt.Errorf("%w: %w", errInvalid, e.err)
	}
	a.mu.Lock()
	e.read = touched
	a.mu.Unlock()
	return e.authority, e.err
}

func (a *authorities) entry(key types.NamespacedName) *authorityEntry {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.known[key]
	if e == nil {
		e = &authorityEntry{touched: 1}
		a.known[key] = e
	}
	return e
}

// follow watches a Secret by its name, but for one that is watched already.
func (a *authorities) follow(key types.NamespacedName, e *authorityEntry, watched bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case watched && e.stop != nil:
		e.stop()
		e.stop = nil
	case !watched && e.stop == nil && a.ctx != nil:
		ctx, stop := context.WithCancel(a.ctx)
		e.stop = stop
		a.running.Go(func() {
			watch(ctx, a.client.CoreV1().RESTClient(), "secrets", key.Namespace, named(key.Name), &corev1.Secret{}, &oneSecret{touched: func(string) { a.touched(key) }})
		})
	}
}

// touched takes note that a Secret has changed.
func (a *authorities) touched(key types.NamespacedName) {
	a.mu.Lock()
	e := a.known[key]
	if e != nil {
		e.touched++
	}
	a.mu.Unlock()
	if e != nil {
		a.changed(key)
	}
}

// forget drops what no issuer names any more.
func (a *authorities) forget(named func(types.NamespacedName) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, e := range a.known {
		if named(key) {
			continue
		}
		if e.stop != nil {
			e.stop()
		}
		delete(a.known, key)
	}
}

// oneSecret is the store of a reflector that follows one Secret: nothing is kept.
type oneSecret struct {
	touched func(version string) // ""; it is not there
	last    string               // version
	// known says that last is what was seen. The first word counts also where there is no
	// Secret: it may have gone since it was read.
	known bool
}

func (s *oneSecret) note(version string) {
	if !s.known || version != s.last {
		s.known, s.last = true, version
		s.touched(version)
	}
}

// Transformer leaves the data out.
func (s *oneSecret) Transformer() cache.TransformFunc {
	return func(o any) (any, error) {
		m, ok := o.(metav1.Object)
		if !ok {
			return nil, fmt.Errorf("a watch gave a %T", o)
		}
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: m.GetNamespace(), Name: m.GetName(), ResourceVersion: m.GetResourceVersion()}}, nil
	}
}

func (s *oneSecret) Add(o any) error {
	if m, ok := o.(metav1.Object); ok {
		s.note(m.GetResourceVersion())
	}
	return nil
}

func (s *oneSecret) Update(o any) error { return s.Add(o) }

func (s *oneSecret) Delete(any) error {
	s.note("")
	return nil
}

func (s *oneSecret) Replace(list []any, _ string) error {
	if len(list) == 0 {
		s.note("")
		return nil
	}
	return s.Add(list[0])
}

func (s *oneSecret) Resync() error { return nil }

// now is the time as certificates have it.
func now() time.Time { return time.Now() }
