package diagram

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// A picture with more than this cannot be read, nor be laid out in a second:
// then nodes are told apart by less.
const (
	maxGroups = 12
	maxArrows = 110
)

// detail is by how much nodes are told apart.
type detail int

const (
	byAll        detail = iota // components, links, authorities, findings
	byHealth                   // components, and whether something is broken
	byComponents               // components alone
	byNothing                  // all are alike
)

// group sorts the nodes into groups of those that are alike, and says of each
// node in which it is.
func (b *builder) group(d detail) {
	b.detail = d
	facts := b.facts(d)
	b.d.Groups, b.groupOf = nil, map[string]int{}
	known := map[string]int{}
	for i := range b.g.Nodes {
		n := &b.g.Nodes[i]
		if n.Layout == layoutUsers {
			continue
		}
		of := facts[n.Name]
		slices.Sort(of)
		key := strings.Join(slices.Compact(of), "\x00")
		at, ok := known[key]
		if !ok {
			at = len(b.d.Groups)
			known[key] = at
			b.d.Groups = append(b.d.Groups, Group{})
		}
		g := &b.d.Groups[at]
		g.Nodes = append(g.Nodes, n.Name)
		b.groupOf[n.Name] = at
	}
	for i := range b.d.Groups {
		g := &b.d.Groups[i]
		g.Title = NodesTitle(g.Nodes)
		if len(g.Nodes) == 1 && g.Nodes[0] == "" {
			g.Title = b.unnamed()
		}
	}
}

// unnamed is the title of the single node that nobody named.
func (b *builder) unnamed() string {
	for i := range b.g.Nodes {
		if n := &b.g.Nodes[i]; n.Name == "" && n.NodeName != "" {
			return n.NodeName
		}
	}
	return "this node"
}

// facts are, of each node, the texts by which it is told from others.
func (b *builder) facts(d detail) map[string][]string {
	facts := map[string][]string{}
	if d == byNothing {
		return facts
	}
	add := func(node, format string, args ...any) {
		facts[node] = append(facts[node], fmt.Sprintf(format, args...))
	}
	for i := range b.g.Nodes {
		n := &b.g.Nodes[i]
		for _, c := range n.Components {
			add(n.Name, "component %s", c.Name)
		}
	}
	if d == byComponents {
		return facts
	}
	for i := range b.r.Links {
		l := &b.r.Links[i]
		client, server := b.half(i, "client"), b.half(i, "server")
		callerNode, caller := trust.SplitID(l.Caller)
		calleeNode, callee := trust.SplitID(l.Callee)
		if d == byHealth {
			if !l.OK() {
				add(callerNode, "broken")
				add(calleeNode, "broken")
			}
			continue
		}
		states := stateKey(client) + stateKey(server)
		add(callerNode, "calls %d %s %s %s", l.Number, caller, states, authorityKey(client))
		add(calleeNode, "is called %d %s %s %s", l.Number, callee, states, authorityKey(server))
	}
	if d == byAll {
		for i := range b.r.Findings {
			if f := &b.r.Findings[i]; f.Severity != check.Info {
				for _, p := range f.Places() {
					add(p.Node, "finding %s", f.ID)
				}
			}
		}
	}
	return facts
}

func stateKey(h *Half) string {
	if h == nil {
		return "-"
	}
	return string(h.State) + " "
}

func authorityKey(h *Half) string {
	if h == nil {
		return ""
	}
	return h.Authority
}
