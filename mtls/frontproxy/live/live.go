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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
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
	held error             // why what is there was not taken up; nil: it was
	lost bool              // the API could not be asked
}

// New returns a source that has nothing until [Source.Run] runs. client
// must be allowed to list and watch the ConfigMap, as it is by kube-system's role
// extension-apiserver-authentication-reader.
//
// told, which may be nil, hears of each change: with nil when it was taken up, with
// the reason when it was not. It hears of each time that the API cannot be asked,
// and when it answers again, how the ConfigMap is. It may be called by two
// goroutines at once, and should return soon.
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

// WaitReady waits until there are settings, while Run runs. The error is that of
// ctx, with what is missing.
func (s *Source) WaitReady(ctx context.Context) error {
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
	informer := cache.NewSharedIndexInformer(s.asker(), &corev1.ConfigMap{}, 0, nil)
	handled, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    s.take,
		UpdateFunc: func(_, now any) { s.take(now) },
		DeleteFunc: func(any) { s.refuse(errors.New(object+" was deleted"), true) },
	})
	if err == nil {
		err = informer.SetWatchErrorHandlerWithContext(func(context.Context, *cache.Reflector, error) {}) // the asker has told
	}
	if err != nil {
		s.refuse(err, true) // of an informer that has not begun there is none
		return
	}
	var missing sync.WaitGroup
	missing.Go(func() {
		select {
		case <-ctx.Done():
		case <-handled.HasSyncedChecker().Done():
			if len(informer.GetStore().ListKeys()) == 0 {
				s.refuse(errors.New(object+" does not exist"), true)
			}
		}
	})
	informer.RunWithContext(ctx)
	missing.Wait()
}

// asker lists and watches the ConfigMap, and tells when that fails: a reflector
// itself says nothing as long as connections are refused
// (k8s.io/client-go/tools/cache/reflector.go, isWatchErrorRetriable).
func (s *Source) asker() cache.ListerWatcher {
	api := s.client.CoreV1().ConfigMaps(frontproxy.ConfigMapNamespace)
	one := fields.OneTermEqualSelector(metav1.ObjectNameField, frontproxy.ConfigMapName).String()
	return listFirst{&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = one
			list, err := api.List(ctx, o)
			s.asked(ctx, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = one
			w, err := api.Watch(ctx, o)
			s.asked(ctx, err)
			return w, err
		},
	}}
}

// listFirst has the reflector list, and then watch: no API server refuses that
// (k8s.io/client-go/util/watchlist).
type listFirst struct{ *cache.ListWatch }

func (listFirst) IsWatchListSemanticsUnSupported() bool { return true }

// asked tells why the API could not be asked. That a watch begins too far in the
// past is mended by the list that follows.
func (s *Source) asked(ctx context.Context, err error) {
	switch {
	case err == nil:
		s.answered()
	case ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err):
	default:
		s.refuse(fmt.Errorf("%s: the API server could not be asked: %w", object, err), false)
	}
}

// answered tells, after a time in which the API could not be asked, that what was
// known is so again. The first time it is for take to tell.
func (s *Source) answered() {
	s.mu.Lock()
	again, held := s.lost && s.now != nil, s.held
	s.lost = false
	s.mu.Unlock()
	if again {
		s.told(held)
	}
}

func (s *Source) take(now any) {
	config, ok := now.(*corev1.ConfigMap)
	if !ok || config.Name != frontproxy.ConfigMapName {
		return
	}
	s.mu.Lock()
	same := s.now != nil && maps.Equal(s.data, config.Data)
	mended := same && s.held != nil
	if same {
		s.held = nil
	}
	s.mu.Unlock()
	if mended {
		s.told(nil)
	}
	if same {
		return // the same pointer, by which connections are remembered
	}
	settings, err := frontproxy.ParseSettings(config.Data)
	if err != nil {
		s.refuse(fmt.Errorf("%s: %w", object, err), true)
		return
	}
	s.mu.Lock()
	first := s.now == nil
	s.now, s.data, s.err, s.held = settings, config.Data, nil, nil
	s.mu.Unlock()
	if first {
		close(s.ready)
	}
	s.told(nil)
}

// refuse keeps what there is: for what is in the ConfigMap, or because nobody can
// say what is.
func (s *Source) refuse(err error, seen bool) {
	s.mu.Lock()
	if s.now == nil {
		s.err = err
	}
	if seen {
		s.held = err
	} else {
		s.lost = true
	}
	s.mu.Unlock()
	s.told(err)
}
