package controller

import (
	"fmt"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/kubepki/kubepki/internal/csr"
)

// requests feeds the ledger with what the watch of the requests tells: it is
// the store of a reflector, and holds nothing itself.
type requests struct {
	ledger *ledger
	wants  func(signer string, state csr.State) bool
	synced chan struct{}
	once   sync.Once
}

func newRequests(l *ledger, wants func(string, csr.State) bool) *requests {
	return &requests{ledger: l, wants: wants, synced: make(chan struct{})}
}

// sight makes a sighting of what a reflector gives: an object, or what
// [requests.Transformer] has made of it.
func (r *requests) sight(o any) (*sighting, error) {
	switch o := o.(type) {
	case *sighting:
		return o, nil
	case *certificatesv1.CertificateSigningRequest:
		return see(o, r.wants), nil
	}
	return nil, fmt.Errorf("the watch of the requests gave a %T", o)
}

func (r *requests) Add(o any) error {
	if request, ok := o.(*certificatesv1.CertificateSigningRequest); ok && r.ledger.knows(request) {
		return nil // before it is parsed
	}
	s, err := r.sight(o)
	if err != nil {
		return err
	}
	r.ledger.observe(s, time.Now())
	return nil
}

func (r *requests) Update(o any) error { return r.Add(o) }

func (r *requests) Delete(o any) error {
	if request, ok := o.(*certificatesv1.CertificateSigningRequest); ok {
		r.ledger.remove(request.Name, request.UID)
	}
	return nil
}

func (r *requests) Replace(all []any, _ string) error {
	list := make([]*sighting, 0, len(all))
	for _, o := range all {
		s, err := r.sight(o)
		if err != nil {
			return err
		}
		list = append(list, s)
	}
	r.ledger.replace(list, time.Now())
	r.once.Do(func() { close(r.synced) })
	return nil
}

func (r *requests) Resync() error { return nil }

// Transformer makes the list that the reflector collects at first a small one.
func (r *requests) Transformer() cache.TransformFunc {
	return func(o any) (any, error) { return r.sight(o) }
}
