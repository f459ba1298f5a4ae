package kubesource

import (
	"context"
	"errors"
	"fmt"
	"sync"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// await watches a request until it has its certificate, never will have it, or
// ctx ends. An API server that is away is waited for.
func await(ctx context.Context, client kubernetes.Interface, o *certificatesv1.CertificateSigningRequest) ([]byte, error) {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	w := &awaited{of: o, stop: stop}
	api := client.CertificatesV1().CertificateSigningRequests()
	asked := &asker{
		lister: &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				options.FieldSelector = byName(o.Name)
				return api.List(ctx, options)
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				options.FieldSelector = byName(o.Name)
				return api.Watch(ctx, options)
			},
		},
		failed:   w.away,
		answered: func() { w.away(nil) },
	}
	options := cache.ReflectorOptions{Name: "mtls/kubesource", TypeDescription: "certificate signing request " + o.Name}
	cache.NewReflectorWithOptions(asked, nil, w, options).RunWithContext(watching)
	return w.outcome(ctx)
}

// awaited is a request that is waited for, as a reflector sees it. client-go's
// UntilWithSync would do, but for a goroutine that it leaves behind now and then.
type awaited struct {
	of   *certificatesv1.CertificateSigningRequest
	stop func()

	mu          sync.Mutex
	seen        bool
	approved    bool
	certificate []byte
	err         error // it will never have one
	lost        error // why the API server cannot be asked
}

func (w *awaited) away(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost = err
}

// outcome is what has become of it when the watch has ended.
func (w *awaited) outcome(ctx context.Context) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case len(w.certificate) > 0:
		return w.certificate, nil
	case w.err != nil:
		return nil, w.err
	case w.lost != nil:
		return nil, fmt.Errorf("it cannot be watched: %w: %w", w.lost, ctx.Err())
	case w.approved:
		return nil, fmt.Errorf("is approved, and its signer has not signed it: %w", ctx.Err())
	}
	return nil, fmt.Errorf("nobody has approved it: %w", ctx.Err())
}

// see notes what a request is now, and ends the watch when that will not change;
// w.mu is held.
func (w *awaited) see(o *certificatesv1.CertificateSigningRequest) {
	w.seen = true
	w.err = w.refusal(o)
	if w.err == nil {
		w.certificate = o.Status.Certificate
	}
	if w.err != nil || len(w.certificate) > 0 {
		w.stop()
	}
}

// refusal is why a request will never have a certificate; nil: it may have one.
func (w *awaited) refusal(o *certificatesv1.CertificateSigningRequest) error {
	if o.UID != w.of.UID {
		return errors.New("was made anew by somebody else")
	}
	for _, c := range o.Status.Conditions {
		if c.Status == corev1.ConditionFalse {
			continue
		}
		// What others wrote may be of any length.
		switch c.Type {
		case certificatesv1.CertificateDenied:
			return fmt.Errorf("was denied: %.64q, %.256q", c.Reason, c.Message)
		case certificatesv1.CertificateFailed:
			return fmt.Errorf("has failed: %.64q, %.256q", c.Reason, c.Message)
		case certificatesv1.CertificateApproved:
			w.approved = true
		}
	}
	return nil
}

// gone notes that it is not there; w.mu is held. A list may be older than the
// request itself, which is why it must have been seen.
func (w *awaited) gone() {
	if w.seen && len(w.certificate) == 0 && w.err == nil {
		w.err = errors.New("was removed")
		w.stop()
	}
}

// Add is for cache.ReflectorStore.
func (w *awaited) Add(object any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o, ok := object.(*certificatesv1.CertificateSigningRequest); ok && o.Name == w.of.Name {
		w.see(o)
	}
	return nil
}

// Update is for cache.ReflectorStore.
func (w *awaited) Update(object any) error { return w.Add(object) }

// Delete is for cache.ReflectorStore.
func (w *awaited) Delete(object any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o, ok := object.(*certificatesv1.CertificateSigningRequest); ok && o.Name == w.of.Name {
		w.gone()
	}
	return nil
}

// Replace is for cache.ReflectorStore.
func (w *awaited) Replace(objects []any, _ string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	there := false
	for _, object := range objects {
		if o, ok := object.(*certificatesv1.CertificateSigningRequest); ok && o.Name == w.of.Name {
			there = true
			w.see(o)
		}
	}
	if !there {
		w.gone()
	}
	return nil
}

// Resync is for cache.ReflectorStore.
func (w *awaited) Resync() error { return nil }
