package certmanager

import (
	"context"
	"maps"
	"slices"
	"sync"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
)

// watched is an object that is watched by its name.
type watched struct {
	schema.GroupVersionResource
	types.NamespacedName
}

var (
	secretResource      = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	certificateResource = cmapi.SchemeGroupVersion.WithResource(certificates)
)

// namedWatches follows objects by their names, for as long as somebody wants them, and
// tells those who want one that it has changed. It is safe for concurrent use.
type namedWatches[K comparable] struct {
	client metadata.Interface
	told   func(K)
	// seen, if not nil, hears first which version an object has; 0: it is not there, or
	// nobody wants it any more.
	seen func(watched, uint64)
	// most bounds how many objects are followed; 0: nothing does. Those beyond it are not,
	// until others end.
	most int

	mu      sync.Mutex
	ctx     context.Context // nil before start
	running map[watched]*namedWatch[K]
	wanted  map[K][]watched
	ended   sync.WaitGroup
}

// namedWatch is an object that is followed, and for whom.
type namedWatch[K comparable] struct {
	stop context.CancelFunc
	of   map[K]struct{}
}

func newNamedWatches[K comparable](client metadata.Interface, told func(K)) *namedWatches[K] {
	return &namedWatches[K]{client: client, told: told, running: map[watched]*namedWatch[K]{}, wanted: map[K][]watched{}}
}

// start lets watches run until the context ends.
func (n *namedWatches[K]) start(ctx context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ctx = ctx
}

// wait returns when no watch runs any more.
func (n *namedWatches[K]) wait() { n.ended.Wait() }

// want adds an object to those that somebody wants.
func (n *namedWatches[K]) want(who K, w watched) {
	n.mu.Lock()
	list := n.wanted[who]
	n.mu.Unlock()
	if !slices.Contains(list, w) {
		n.set(who, append([]watched{w}, list...))
	}
}

// set says which objects somebody wants, in the place of those of before. It tells whether
// all of them are followed.
func (n *namedWatches[K]) set(who K, list []watched) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.wanted[who]
	if n.ctx == nil || n.ctx.Err() != nil || sameWatched(before, list) {
		return true
	}
	if len(list) == 0 {
		delete(n.wanted, who)
	} else {
		n.wanted[who] = list
	}
	all := true
	for _, w := range list {
		all = n.follow(w, who) && all
	}
	for _, w := range before {
		if !slices.Contains(list, w) {
			n.leave(w, who)
		}
	}
	return all
}

// follow starts a watch, or joins those who have it; false: there are too many. The lock
// is held.
func (n *namedWatches[K]) follow(w watched, who K) bool {
	if running := n.running[w]; running != nil {
		running.of[who] = struct{}{}
		return true
	}
	if n.most > 0 && len(n.running) >= n.most {
		return false
	}
	ctx, stop := context.WithCancel(n.ctx)
	n.running[w] = &namedWatch[K]{stop, map[K]struct{}{who: {}}}
	n.ended.Go(func() {
		watchMetadata(ctx, n.client, w.GroupVersionResource, w.Namespace, named(w.Name), &oneSecret{touched: func(v string) { n.touched(w, version(v)) }})
	})
	return true
}

// leave ends a watch that nobody wants any more. The lock is held.
func (n *namedWatches[K]) leave(w watched, who K) {
	running := n.running[w]
	if running == nil {
		return
	}
	if delete(running.of, who); len(running.of) > 0 {
		return
	}
	running.stop()
	delete(n.running, w)
	if n.seen != nil {
		n.seen(w, 0)
	}
}

// touched tells those who want an object that it has changed.
func (n *namedWatches[K]) touched(w watched, v uint64) {
	n.mu.Lock()
	running := n.running[w]
	var who []K
	if running != nil {
		who = slices.Collect(maps.Keys(running.of))
		if n.seen != nil {
			n.seen(w, v)
		}
	}
	n.mu.Unlock()
	for _, key := range who {
		n.told(key)
	}
}

// sameWatched tells whether two lists of watched objects have the same members.
func sameWatched(a, b []watched) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(w watched) bool { return !slices.Contains(b, w) })
}
