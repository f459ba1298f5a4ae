package kubesource

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// objectWatch keeps parts as their objects are.
type objectWatch struct {
	feed  feed
	parts []changing
}

// run watches until ctx ends.
func (w *objectWatch) run(ctx context.Context, s *Source) {
	alive := func() { s.event(w.parts, changing.alive) }
	store := &store{
		read:    w.feed.read,
		all:     map[string]content{},
		changed: func(all []content) { s.event(w.parts, func(p changing) *Change { return p.take(all) }) },
		alive:   alive,
	}
	asked := &asker{lister: w.feed.lister, answered: alive, failed: func(err error) {
		if ctx.Err() == nil {
			s.event(w.parts, func(p changing) *Change { return p.lost(err) })
		}
	}}
	options := cache.ReflectorOptions{Name: "mtls/kubesource", TypeDescription: w.feed.object}
	cache.NewReflectorWithOptions(asked, nil, store, options).RunWithContext(ctx)
}

// asker asks for objects, and tells how it went: a reflector only logs it.
type asker struct {
	lister   cache.ListerWatcherWithContext
	failed   func(error)
	answered func()
}

// IsWatchListSemanticsUnSupported has the reflector list first, which is how the
// version is found that an API server serves (k8s.io/client-go/util/watchlist).
func (*asker) IsWatchListSemanticsUnSupported() bool { return true }

func (a *asker) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	list, err := a.lister.ListWithContext(ctx, o)
	if err != nil {
		a.failed(err)
	}
	return list, err
}

func (a *asker) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	w, err := a.lister.WatchWithContext(ctx, o)
	if err != nil {
		a.failed(err)
		return nil, err
	}
	a.answered()
	return w, nil
}

// List is for cache.ListerWatcher, and is not called.
func (a *asker) List(o metav1.ListOptions) (runtime.Object, error) {
	return a.ListWithContext(context.Background(), o)
}

// Watch is as List.
func (a *asker) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return a.WatchWithContext(context.Background(), o)
}

// store is what a reflector fills.
type store struct {
	read    func(any) (content, bool)
	changed func([]content)
	alive   func()

	mu     sync.Mutex
	all    map[string]content // by name
	listed bool
}

func (s *store) put(object any) bool {
	c, ok := s.read(object)
	if !ok {
		// An object that is none of ours any more, as its labels have changed.
		if m, err := meta.Accessor(object); err == nil {
			_, had := s.all[m.GetName()]
			delete(s.all, m.GetName())
			return had
		}
		return false
	}
	if reflect.DeepEqual(s.all[c.name], c) {
		return false
	}
	s.all[c.name] = c
	return true
}

// tell gives all objects in the order of their names; s.mu is held, so that
// nothing older is told after it.
func (s *store) tell(is bool) {
	if !is {
		s.alive()
		return
	}
	all := slices.SortedFunc(maps.Values(s.all), func(a, b content) int { return strings.Compare(a.name, b.name) })
	s.changed(all)
}

// Add is for cache.ReflectorStore.
func (s *store) Add(object any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell(s.put(object))
	return nil
}

// Update is for cache.ReflectorStore.
func (s *store) Update(object any) error { return s.Add(object) }

// Delete is for cache.ReflectorStore.
func (s *store) Delete(object any) error {
	m, err := meta.Accessor(object)
	if err != nil {
		return errors.New("an object without a name was deleted")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, had := s.all[m.GetName()]
	delete(s.all, m.GetName())
	s.tell(had)
	return nil
}

// Replace is for cache.ReflectorStore.
func (s *store) Replace(objects []any, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.all
	s.all = make(map[string]content, len(objects))
	for _, o := range objects {
		s.put(o)
	}
	is := !s.listed || !reflect.DeepEqual(before, s.all)
	s.listed = true
	s.tell(is)
	return nil
}

// Resync is for cache.ReflectorStore.
func (s *store) Resync() error { return nil }

// UpdateResourceVersion is called for each event, bookmarks too
// (cache.ResourceVersionUpdater).
func (s *store) UpdateResourceVersion(string) { s.alive() }
