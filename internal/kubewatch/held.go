package kubewatch

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"unique"

	"github.com/google/uuid"

	"github.com/kubepki/kubepki/internal/agent"
	"github.com/kubepki/kubepki/internal/brief"
	"github.com/kubepki/kubepki/internal/trust"
)

// held is what is kept of the objects of one query. It is safe for concurrent use.
type held struct {
	mu      sync.Mutex
	source  agent.Source // without Bundles, Faults and Left
	objects map[string]object
	order   []string // the keys, sorted; nil: to be sorted
	hidden  map[string]bool
	size    int // certificates
	most    int
	round   uint64 // of listing
}

// object is what is kept of one object.
type object struct {
	certificates []certificate
	faults       []fault
	uid          uuid.UUID
	left         int
	round        uint64 // in which it was seen last
}

type certificate struct {
	field string
	index int
	facts brief.Held
}

type fault struct{ field, code string }

// key is the path of the places of an object.
func key(resource string, i item) string {
	if i.namespace == "" {
		return resource + "/" + i.name
	}
	return resource + "/" + i.namespace + "/" + i.name
}

// intern has a text once, as many objects have the same fields.
func intern(field string) string { return unique.Make(field).Value() }

// read takes from an object what is kept.
func read(message []byte, v values) (object, error) {
	var o object
	err := v(message, func(field string, value []byte) {
		field = intern(field)
		found, left, code := certificates(value)
		for i, facts := range found {
			o.certificates = append(o.certificates, certificate{field, i, facts})
		}
		o.left += left
		if code != "" {
			o.faults = append(o.faults, fault{field, code})
		}
	})
	o.certificates, o.faults = slices.Clip(o.certificates), slices.Clip(o.faults)
	return o, err
}

// put keeps an object in the place of what was kept of it.
func (h *held) put(key string, o object) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before, known := h.objects[key]
	h.size -= len(before.certificates)
	if room := h.most - h.size; len(o.certificates) > room {
		o.left += len(o.certificates) - max(room, 0)
		o.certificates = slices.Clip(o.certificates[:max(room, 0)])
	}
	h.size += len(o.certificates)
	o.round = h.round
	h.objects[key] = o
	if !known || changed(before, o) {
		h.order = nil
	}
}

// changed tells whether the order, or who is hidden, may be another.
func changed(a, b object) bool {
	return !slices.EqualFunc(a.certificates, b.certificates, func(x, y certificate) bool {
		return x.field == y.field && x.index == y.index && x.facts.Equal(y.facts)
	})
}

func (h *held) remove(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(key)
}

func (h *held) drop(key string) {
	h.size -= len(h.objects[key].certificates)
	delete(h.objects, key)
	h.order = nil
}

// begin starts a listing, and end removes what was not seen in it.
func (h *held) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.round++
}

func (h *held) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, o := range h.objects {
		if o.round != h.round {
			h.drop(key)
		}
	}
	if h.source.Read {
		h.source.Resyncs++
	}
	h.source.Read = true
}

// up and down note how following goes, and tell whether that is another than before.
func (h *held) up() (again bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	again = h.source.Reason != ""
	h.source.Up, h.source.Reason = true, ""
	return again
}

func (h *held) down(code, reason string) (first bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first = h.source.Reason != reason
	h.source.Up, h.source.Reason = false, reason
	h.source.Errors[code]++
	return first
}

// sorted returns the keys in their order, without those that are hidden.
func (h *held) sorted() []string {
	if h.order == nil {
		h.order = slices.SortedFunc(maps.Keys(h.objects), compareKeys)
		h.hidden = h.copies()
	}
	return h.order
}

// compareKeys orders keys, those of kube-system first: of copies the first is shown.
func compareKeys(a, b string) int {
	system := func(key string) bool { return strings.HasPrefix(key, "configmap/kube-system/") }
	switch {
	case system(a) && !system(b):
		return -1
	case system(b) && !system(a):
		return 1
	}
	return strings.Compare(a, b)
}

// rootCA ends the key of the ConfigMap that each namespace has a copy of.
const rootCA = "/kube-root-ca.crt"

// copies are the ConfigMaps kube-root-ca.crt that hold the same as one before them: a
// thousand namespaces are no thousand certificates.
func (h *held) copies() map[string]bool {
	hidden, seen := map[string]bool{}, map[string]bool{}
	for _, key := range h.order {
		o := h.objects[key]
		if !strings.HasPrefix(key, "configmap/") || !strings.HasSuffix(key, rootCA) || len(o.certificates) == 0 {
			continue
		}
		var all strings.Builder
		for _, c := range o.certificates {
			facts := c.facts.Value()
			fmt.Fprintf(&all, "%s %x ", c.field, facts.Print)
		}
		if content := all.String(); seen[content] {
			hidden[key] = true
		} else {
			seen[content] = true
		}
	}
	return hidden
}

// batch is how many objects are looked at under the lock at a time.
const batch = 64

// each calls yield with what is kept, in order, until it returns false. Nothing is
// locked meanwhile, as whoever reads may be slow.
func (h *held) each(yield func(brief.Certificate) bool) bool {
	h.mu.Lock()
	order, hidden := h.sorted(), h.hidden // which are made anew, and never changed
	h.mu.Unlock()
	var some []brief.Certificate
	for len(order) > 0 {
		n := min(batch, len(order))
		some = h.some(some[:0], order[:n], hidden)
		order = order[n:]
		for _, c := range some {
			if !yield(c) {
				return false
			}
		}
	}
	return true
}

// some appends what is kept of objects.
func (h *held) some(to []brief.Certificate, keys []string, hidden map[string]bool) []brief.Certificate {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range keys {
		if hidden[key] {
			continue
		}
		for _, c := range h.objects[key].certificates {
			to = append(to, brief.Certificate{Place: placeAt(key, c.field), Index: c.index, Facts: c.facts})
		}
	}
	return to
}

func placeAt(key, field string) trust.Place {
	return trust.Place{Node: trust.ClusterNode, Path: key, Field: field}
}

// maxFaults bounds the places of a source that are named.
const maxFaults = 200

// state is how following goes.
func (h *held) state() agent.Source {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.source
	s.Errors, s.Bundles = maps.Clone(s.Errors), len(h.objects)
	for _, key := range h.sorted() {
		o := h.objects[key]
		s.Left += o.left
		for _, f := range o.faults {
			if len(s.Faults) < maxFaults {
				s.Faults = append(s.Faults, agent.Fault{Place: placeAt(key, f.field), Code: f.code})
			}
		}
	}
	return s
}
