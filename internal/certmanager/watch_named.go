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
type namedWatches struct {
	client metadata.Interface
	told   func(injectKey)

	mu      sync.Mutex
	ctx     context.Context // nil before start
	running map[watched]context.CancelFunc
	wanted  map[injectKey][]watched
	ended   sync.WaitGroup
}

func newNamedWatches(client metadata.Interface, told func(injectKey)) *namedWatches {
	return &namedWatches{client: client, told: told, running: map[watched]context.CancelFunc{}, wanted: map[injectKey][]watched{}}
}

// start lets watches run until the context ends.
func (n *namedWatches) start(ctx context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ctx = ctx
}

// wait returns when no watch runs any more.
func (n *namedWatches) wait() { n.ended.Wait() }

// want adds an object to those that somebody wants.
func (n *namedWatches) want(who injectKey, w watched) {
	n.mu.Lock()
	list := n.wanted[who]
	n.mu.Unlock()
	if !slices.Contains(list, w) {
		n.set(who, append([]watched{w}, list...))
	}
}

// set says which objects somebody wants, in the place of those of before.
func (n *namedWatches) set(who injectKey, list []watched) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx == nil || n.ctx.Err() != nil || sameWatched(n.wanted[who], list) {
		return
	}
	if len(list) == 0 {
		delete(n.wanted, who)
	} else {
		n.wanted[who] = list
	}
	for _, w := range list {
		if n.running[w] == nil {
			n.follow(w)
		}
	}
	for _, w := range unused(n.running, n.wanted) {
		n.running[w]()
		delete(n.running, w)
	}
}

// follow starts a watch. The lock is held.
func (n *namedWatches) follow(w watched) {
	ctx, stop := context.WithCancel(n.ctx)
	n.running[w] = stop
	n.ended.Go(func() {
		watchMetadata(ctx, n.client, w.GroupVersionResource, w.Namespace, named(w.Name), &oneSecret{touched: func() { n.touched(w) }})
	})
}

// touched tells those who want an object that it has changed.
func (n *namedWatches) touched(w watched) {
	n.mu.Lock()
	var who []injectKey
	for key, list := range n.wanted {
		if slices.Contains(list, w) {
			who = append(who, key)
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

// unused are the watched objects that nobody wants any more.
func unused(running map[watched]context.CancelFunc, wanted map[injectKey][]watched) []watched {
	used := map[watched]bool{}
	for _, list := range wanted {
		for _, w := range list {
			used[w] = true
		}
	}
	return slices.DeleteFunc(slices.Collect(maps.Keys(running)), func(w watched) bool { return used[w] })
}
