package certmanager

import (
	"fmt"
	"iter"
	"maps"
	"sync"
	"time"
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// kept is what is kept of an object.
type kept[T any] struct {
	version uint64
	value   *T
	ours    time.Time // when this process wrote it, until a watch has told of it
}

// store is what is kept of the objects of one kind, in the place of an informer's
// cache. It is fed by a reflector, and by the writes of this process: what is older than
// what is known is the echo of what was before. It is safe for concurrent use. What is
// in it is shared and must not be changed.
type store[T any] struct {
	// reduce makes what is kept of an object, which belongs to it from then on.
	reduce func(any) (*T, error)
	// index keeps indexes up to date; the lock is held. before and after may be nil.
	index func(key types.NamespacedName, before, after *T)
	// told hears of changes, without the lock. before and after may be nil.
	told func(key types.NamespacedName, before, after *T)

	mu     sync.RWMutex
	all    map[types.NamespacedName]kept[T]
	seen   uint64 // the newest version that the watch has told of
	synced chan struct{}
	once   sync.Once
}

func newStore[T any](reduce func(any) (*T, error)) *store[T] {
	ignore := func(types.NamespacedName, *T, *T) {}
	return &store[T]{reduce: reduce, index: ignore, told: ignore, all: map[types.NamespacedName]kept[T]{}, synced: make(chan struct{})}
}

// reduced is what a reflector's own list holds of an object.
type reduced[T any] struct {
	metav1.ObjectMeta // names and version alone
	value             *T
}

// GetObjectKind and DeepCopyObject let it be in a list of the API.
func (*reduced[T]) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject returns what it is called on: nobody changes it.
func (r *reduced[T]) DeepCopyObject() runtime.Object { return r }

// Transformer makes the list that the reflector collects at first a small one.
func (s *store[T]) Transformer() cache.TransformFunc {
	return func(o any) (any, error) { return s.shrink(o) }
}

func (s *store[T]) shrink(o any) (*reduced[T], error) {
	if r, ok := o.(*reduced[T]); ok {
		return r, nil
	}
	m, ok := o.(metav1.Object)
	if !ok {
		return nil, fmt.Errorf("a watch gave a %T", o)
	}
	r := &reduced[T]{ObjectMeta: metav1.ObjectMeta{Namespace: same(m.GetNamespace()), Name: m.GetName(), ResourceVersion: m.GetResourceVersion()}}
	var err error
	r.value, err = s.reduce(o)
	return r, err
}

// same returns a string that many objects have in common, once.
func same(s string) string { return unique.Make(s).Value() }

func (r *reduced[T]) key() types.NamespacedName {
	return types.NamespacedName{Namespace: r.Namespace, Name: r.Name}
}

// Add takes note of an object that is there.
func (s *store[T]) Add(o any) error {
	m, ok := o.(metav1.Object)
	if ok && s.echo(m) {
		return nil // before it is looked into
	}
	r, err := s.shrink(o)
	if err != nil {
		return err
	}
	key, v := r.key(), version(r.ResourceVersion)
	s.mu.Lock()
	s.seen = max(s.seen, v)
	before := s.all[key]
	if before.value != nil && v != 0 && v <= before.version {
		if v == before.version { // written by this process, while this was looked into
			before.ours = time.Time{}
			s.all[key] = before
		}
		s.mu.Unlock()
		return nil
	}
	s.set(key, kept[T]{version: v, value: r.value})
	s.mu.Unlock()
	s.told(key, before.value, r.value)
	return nil
}

// echo tells whether an object is what is known already, or older.
func (s *store[T]) echo(m metav1.Object) bool {
	key, v := types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}, version(m.GetResourceVersion())
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.all[key]
	if !ok || v == 0 || v > k.version {
		return false // it is seen when it is in its place
	}
	s.seen = max(s.seen, v)
	if v == k.version {
		k.ours = time.Time{}
		s.all[key] = k
	}
	return true
}

// Update is Add.
func (s *store[T]) Update(o any) error { return s.Add(o) }

// Delete takes note that an object is gone.
func (s *store[T]) Delete(o any) error {
	m, ok := o.(metav1.Object)
	if !ok {
		return fmt.Errorf("a watch gave a %T", o)
	}
	key, v := types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}, version(m.GetResourceVersion())
	s.mu.Lock()
	s.seen = max(s.seen, v)
	before, ok := s.all[key]
	if !ok || v != 0 && v < before.version {
		s.mu.Unlock()
		return nil
	}
	s.set(key, kept[T]{})
	s.mu.Unlock()
	s.told(key, before.value, nil)
	return nil
}

// writePatience is how long a write of ours is believed that no list shows.
const writePatience = time.Minute

// Replace takes note of all that there is.
func (s *store[T]) Replace(all []any, listed string) error {
	list := make([]*reduced[T], 0, len(all))
	for _, o := range all {
		r, err := s.shrink(o)
		if err != nil {
			return err
		}
		list = append(list, r)
	}
	type change struct {
		key           types.NamespacedName
		before, after *T
	}
	var changes []change
	s.mu.Lock()
	s.seen = version(listed)
	there := make(map[types.NamespacedName]bool, len(list))
	for _, r := range list {
		key, v, before := r.key(), version(r.ResourceVersion), s.all[r.key()]
		there[key] = true
		if before.value != nil && (v == before.version || s.newer(before)) {
			continue
		}
		s.set(key, kept[T]{version: v, value: r.value})
		changes = append(changes, change{key, before.value, r.value})
	}
	for key, k := range s.all {
		if !there[key] && !s.newer(k) {
			s.set(key, kept[T]{})
			changes = append(changes, change{key, k.value, nil})
		}
	}
	s.mu.Unlock()
	for _, c := range changes {
		s.told(c.key, c.before, c.after)
	}
	s.once.Do(func() { close(s.synced) })
	return nil
}

// newer tells whether something is a write of ours that a list does not show yet.
func (s *store[T]) newer(k kept[T]) bool {
	return !k.ours.IsZero() && k.version > s.seen && time.Since(k.ours) < writePatience
}

// Resync does nothing: whoever waits has a time of its own.
func (s *store[T]) Resync() error { return nil }

// set changes an entry; a value of nil removes it. The lock is held.
func (s *store[T]) set(key types.NamespacedName, k kept[T]) {
	s.index(key, s.all[key].value, k.value)
	if k.value == nil {
		delete(s.all, key)
		return
	}
	s.all[key] = k
}

// wrote takes note of what this process has written.
func (s *store[T]) wrote(key types.NamespacedName, v uint64, value *T) {
	key.Namespace = same(key.Namespace)
	s.mu.Lock()
	// What the watch has told of up to this version is this write, or what came after.
	if v <= s.seen {
		s.mu.Unlock()
		return
	}
	before := s.all[key].value
	s.set(key, kept[T]{version: v, value: value, ours: time.Now()})
	s.mu.Unlock()
	s.told(key, before, value)
}

// removed takes note of what this process has removed.
func (s *store[T]) removed(key types.NamespacedName) {
	s.mu.Lock()
	before := s.all[key].value
	if before != nil {
		s.set(key, kept[T]{})
	}
	s.mu.Unlock()
	if before != nil {
		s.told(key, before, nil)
	}
}

// get returns what is kept of an object, and its version; nil: it is not there.
func (s *store[T]) get(key types.NamespacedName) (*T, uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k := s.all[key]
	return k.value, k.version
}

// each yields a copy of what is there now.
func (s *store[T]) each() iter.Seq2[types.NamespacedName, kept[T]] {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.All(maps.Clone(s.all))
}

func (s *store[T]) len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.all)
}

func (s *store[T]) isSynced() bool {
	select {
	case <-s.synced:
		return true
	default:
		return false
	}
}
