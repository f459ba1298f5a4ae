// Package live has the settings of a cluster's front proxy for package frontproxy,
// as kube-apiserver publishes them, and as they change.
package live

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	informers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/kubepki/kubepki/mtls/frontproxy"
)

// object is how errors name the ConfigMap.
const object = "configmap " + frontproxy.ConfigMapNamespace + "/" + frontproxy.ConfigMapName

// errNotRead is what there is before anything was read.
var errNotRead = errors.New(object + " was not read yet")

// Source is a [frontproxy.Source] that watches a ConfigMap. It may be used by
// several goroutines.
type Source struct {
	client kubernetes.Interface
	told   func(error)
	ready  chan struct{} // closed when there are settings

	mu   sync.Mutex
	now  *frontproxy.Settings
	data map[string]string // that now was made of
	err  error             // why there are none yet
	bad  bool              // what was seen last was refused, or is gone
}

// New returns a source that has nothing until [Source.Run] runs. client
// must be allowed to list and watch the ConfigMap, as it is by kube-system's role
// extension-apiserver-authentication-reader.
//
// told, which may be nil, hears of each change: with nil when it was taken up, or is
// mended to what it was; with the reason when it was not, and of each time that the API cannot be asked. It may
// be called by two goroutines at once, and should return soon.
func New(client kubernetes.Interface, told func(error)) *Source {
	if told == nil {
		told = func(error) {}
	}
	return &Source{client: client, told: told, ready: make(chan struct{}), err: errNotRead}
}

// Settings returns what the ConfigMap held when it was last in order: what cannot
// be read, a ConfigMap that was deleted, and an API that does not answer change
// nothing. Before the first time it returns an error that says what is missing.
func (s *Source) Settings() (*frontproxy.Settings, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		return nil, s.err
	}
	return s.now, nil
}

// Wait returns when there are settings. The error is the context's, with what was
// missing until then.
func (s *Source) Wait(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
		_, err := s.Settings()
		return errors.Join(ctx.Err(), err)
	}
}

// Run watches until the context is done. It is to be called once.
func (s *Source) Run(ctx context.Context) {
	informer := informers.NewFilteredConfigMapInformer(s.client, frontproxy.ConfigMapNamespace, 0, nil, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, frontproxy.ConfigMapName).String()
	})
	handled, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    s.take,
		UpdateFunc: func(_, now any) { s.take(now) },
		DeleteFunc: func(any) { s.broken(errors.New(object + " was deleted")) },
	})
	if err == nil {
		err = informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
			s.refuse(fmt.Errorf("%s: %w", object, err))
		})
	}
	if err != nil {
		s.refuse(err) // of an informer that has not begun there is none
		return
	}
	var missing sync.WaitGroup
	missing.Go(func() {
		select {
		case <-ctx.Done():
		case <-handled.HasSyncedChecker().Done():
			if len(informer.GetStore().ListKeys()) == 0 {
				s.refuse(errors.New(object + " does not exist"))
			}
		}
	})
	informer.RunWithContext(ctx)
	missing.Wait()
}

func (s *Source) take(now any) {
	config, ok := now.(*corev1.ConfigMap)
	if !ok || config.Name != frontproxy.ConfigMapName {
		return
	}
	s.mu.Lock()
	same, mended := s.now != nil && maps.Equal(s.data, config.Data), s.bad
	if same {
		s.bad = false
	}
	s.mu.Unlock()
	if same { // the same pointer, by which connections are remembered
		if mended {
			s.told(nil)
		}
		return
	}
	settings, err := frontproxy.ParseSettings(config.Data)
	if err != nil {
		s.broken(fmt.Errorf("%s: %w", object, err))
		return
	}
	s.mu.Lock()
	first := s.now == nil
	s.now, s.data, s.err, s.bad = settings, config.Data, nil, false
	s.mu.Unlock()
	if first {
		close(s.ready)
	}
	s.told(nil)
}

// broken is refuse for what is there, which may be mended to what it was.
func (s *Source) broken(err error) {
	s.mu.Lock()
	s.bad = true
	s.mu.Unlock()
	s.refuse(err)
}

// refuse keeps what there is.
func (s *Source) refuse(err error) {
	s.mu.Lock()
	if s.now == nil {
		s.err = err
	}
	s.mu.Unlock()
	s.told(err)
}
