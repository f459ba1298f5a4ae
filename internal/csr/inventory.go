package csr

// Inventory holds the nodes of a cluster, and who claims which address. It is
// not safe for concurrent writing; readers may run beside each other.
type Inventory struct {
	nodes map[string]Node
}

// NewInventory makes an inventory of nodes.
func NewInventory(nodes ...Node) *Inventory {
	i := &Inventory{nodes: map[string]Node{}}
	for _, n := range nodes {
		i.Set(n)
	}
	return i
}

// Set adds a node or replaces the one of its name.
func (i *Inventory) Set(n Node) { i.nodes[n.Name] = n }

// Delete removes a node.
func (i *Inventory) Delete(name string) { delete(i.nodes, name) }

// Node returns the node of a name.
func (i *Inventory) Node(name string) (Node, bool) {
	n, ok := i.nodes[name]
	return n, ok
}
