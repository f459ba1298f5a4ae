package csr

import (
	"net/netip"
	"slices"
)

// Inventory holds the nodes of a cluster, and who claims which name or address.
// What it answers does not depend on the order in which nodes came. It is not
// safe for concurrent writing; readers may run beside each other.
type Inventory struct {
	nodes  map[string]Node
	claims map[claim]claimants
}

// claimants are the names of the nodes that list a name or address, sorted.
// Thousands may list one, such as the address of the network's way out.
type claimants struct{ all, controlPlane []string }

// claim is a name or an address in the one form in which it is compared.
type claim struct {
	name    string // in lower case
	address netip.Addr
}

func (c claim) String() string {
	if c.address.IsValid() {
		return c.address.String()
	}
	return quote(c.name)
}

// claimOf reads an address of a Node: kubelets take a host name that is an
// address for an address (k/k pkg/kubelet/certificate/kubelet.go).
func claimOf(text string) claim {
	if ip, err := netip.ParseAddr(text); err == nil {
		return claim{address: ip.Unmap()}
	}
	return claim{name: lower(text)}
}

// NewInventory makes an inventory of nodes.
func NewInventory(nodes ...Node) *Inventory {
	i := &Inventory{nodes: map[string]Node{}, claims: map[claim]claimants{}}
	for _, n := range nodes {
		i.Set(n)
	}
	return i
}

// Set adds a node or replaces the one of its name. The node's slices may not be
// changed afterwards.
func (i *Inventory) Set(n Node) {
	i.Delete(n.Name)
	i.nodes[n.Name] = n
	for _, c := range n.claims() {
		held := i.claims[c]
		held.all = insert(held.all, n.Name)
		if n.ControlPlane {
			held.controlPlane = insert(held.controlPlane, n.Name)
		}
		i.claims[c] = held
	}
}

// Delete removes a node.
func (i *Inventory) Delete(name string) {
	n, ok := i.nodes[name]
	if !ok {
		return
	}
	delete(i.nodes, name)
	for _, c := range n.claims() {
		held := i.claims[c]
		held.all, held.controlPlane = remove(held.all, name), remove(held.controlPlane, name)
		if i.claims[c] = held; len(held.all) == 0 {
			delete(i.claims, c)
		}
	}
}

func insert(sorted []string, name string) []string {
	at, found := slices.BinarySearch(sorted, name)
	if found {
		return sorted
	}
	return slices.Insert(sorted, at, name)
}

func remove(sorted []string, name string) []string {
	if at, found := slices.BinarySearch(sorted, name); found {
		return slices.Delete(sorted, at, at+1)
	}
	return sorted
}

// Node returns the node of a name.
func (i *Inventory) Node(name string) (Node, bool) {
	n, ok := i.nodes[name]
	return n, ok
}

// lists tells whether a node of the inventory lists a name or address.
func (i *Inventory) lists(node string, c claim) bool {
	_, found := slices.BinarySearch(i.claims[c].all, node)
	return found
}

// other returns a node other than the one given that lists a name or address,
// or that has the name: a control-plane node if there is one.
func (i *Inventory) other(node string, c claim) (Node, bool) {
	named, isName := i.nodes[c.name]
	isName = isName && c.name != node
	if isName && named.ControlPlane {
		return named, true
	}
	held := i.claims[c]
	for _, sorted := range [][]string{held.controlPlane, held.all} {
		for _, name := range sorted {
			if name != node {
				return i.nodes[name], true
			}
		}
	}
	return named, isName
}

func (n Node) claims() []claim {
	all := make([]claim, 0, len(n.Names)+len(n.Addresses))
	for _, a := range n.Addresses {
		if c := claimOf(a); c.address.IsValid() {
			all = append(all, c)
		}
	}
	for _, a := range n.Names {
		if a != "" {
			all = append(all, claimOf(a))
		}
	}
	return all
}
