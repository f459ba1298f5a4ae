package controller

import (
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
)

// nodes keeps the inventory as the watch of the Nodes tells. It may be used by
// several goroutines.
type nodes struct {
	changed func(name string) // called without the lock, for each change
	synced  chan struct{}
	once    sync.Once

	mu        sync.RWMutex
	known     map[string]csr.Node
	inventory *csr.Inventory
}

func newNodes(changed func(name string)) *nodes {
	return &nodes{changed: changed, synced: make(chan struct{}), known: map[string]csr.Node{}, inventory: csr.NewInventory()}
}

// read lets f read the inventory.
func (n *nodes) read(f func(*csr.Inventory)) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	f(n.inventory)
}

// readLive is read after a node has been read from the API server itself: ok
// tells that there is one.
func (n *nodes) readLive(name string, node csr.Node, ok bool, f func(*csr.Inventory)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ok {
		n.known[name] = node
		n.inventory.Set(node)
	} else {
		delete(n.known, name)
		n.inventory.Delete(name)
	}
	f(n.inventory)
}

// set takes note of a node as it is.
func (n *nodes) set(node csr.Node) {
	n.mu.Lock()
	old, ok := n.known[node.Name]
	same := ok && sameNode(old, node)
	if !same {
		n.known[node.Name] = node
		n.inventory.Set(node)
	}
	n.mu.Unlock()
	if !same {
		n.changed(node.Name)
	}
}

// unset takes note that there is no such node.
func (n *nodes) unset(name string) {
	n.mu.Lock()
	_, ok := n.known[name]
	if ok {
		delete(n.known, name)
		n.inventory.Delete(name)
	}
	n.mu.Unlock()
	if ok {
		n.changed(name)
	}
}

func sameNode(a, b csr.Node) bool {
	return a.UID == b.UID && a.ControlPlane == b.ControlPlane && a.Ready == b.Ready && a.Deleting == b.Deleting &&
		slices.Equal(a.Names, b.Names) && slices.Equal(a.Addresses, b.Addresses)
}

// The rest is cache.ReflectorStore.

func (n *nodes) Add(o any) error {
	node, ok := o.(*corev1.Node)
	if !ok {
		return fmt.Errorf("the watch of the nodes gave a %T", o)
	}
	n.set(kube.Node(node))
	return nil
}

func (n *nodes) Update(o any) error { return n.Add(o) }

func (n *nodes) Delete(o any) error {
	if node, ok := o.(*corev1.Node); ok {
		n.unset(node.Name)
	}
	return nil
}

func (n *nodes) Replace(all []any, _ string) error {
	there := make(map[string]bool, len(all))
	for _, o := range all {
		if node, ok := o.(*corev1.Node); ok {
			there[node.Name] = true
			n.set(kube.Node(node))
		}
	}
	n.mu.RLock()
	var gone []string
	for name := range n.known {
		if !there[name] {
			gone = append(gone, name)
		}
	}
	n.mu.RUnlock()
	for _, name := range gone {
		n.unset(name)
	}
	n.once.Do(func() { close(n.synced) })
	return nil
}

func (n *nodes) Resync() error { return nil }

// Transformer makes the list that the reflector collects at first a small one.
func (n *nodes) Transformer() cache.TransformFunc {
	return func(o any) (any, error) {
		if node, ok := o.(*corev1.Node); ok {
			return lightNode(node), nil
		}
		return o, nil
	}
}

// lightNode is a node with what [kube.Node] reads of it.
func lightNode(o *corev1.Node) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion, Labels: o.Labels, DeletionTimestamp: o.DeletionTimestamp,
		},
		Status: corev1.NodeStatus{Addresses: o.Status.Addresses, Conditions: o.Status.Conditions},
	}
}
