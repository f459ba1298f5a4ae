package remote

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// Fleet is what one run is about: nodes whose folders are here, and nodes elsewhere.
//
// Nodes that are believed are those that could sign what they like, or that the operator
// vouches for: their facts count for each other. What any other node tells counts for
// its own plan alone.
type Fleet struct {
	Local *apply.Nodes // nil: none
	Far   []*FarNode
	At    time.Time

	keys Keys // that certificates are for
	mu   sync.Mutex
}

// FarNode is a node elsewhere.
type FarNode struct {
	Standing
	Client *Client
	Told   *Told
	// Redial connects anew, to see what became of a write whose answer was lost.
	Redial func(context.Context) (*Client, error)
	// Items are what is to be renewed there, after [Fleet.Plan].
	Items []*renew.Item

	believed bool
	before   []check.Finding // of the graph that it was planned with
}

// Error is an error with what to do about it.
type Error struct {
	Err  error
	Help string
}

// Error says what is wrong.
func (e *Error) Error() string { return e.Err.Error() }

// Hint says what to do.
func (e *Error) Hint() string { return e.Help }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ControlPlane tells that the node runs a part of the control plane, as far as it says:
// only the order of nodes depends on it.
func (n *FarNode) ControlPlane() bool {
	return n.believed || slices.ContainsFunc(n.Told.Node.Components, func(c trust.Component) bool {
		return c.Name == catalog.APIServer || c.Name == catalog.Etcd
	})
}

// authorityOf returns the certificates of the cluster's authority on a node.
func authorityOf(n *trust.Node) []*x509.Certificate {
	for _, a := range n.Authorities {
		if a.Name != catalog.ClusterCA {
			continue
		}
		for _, m := range n.Materials {
			if m.OK() && m.Place == (trust.Place{Node: n.Name, Path: a.Certificate}) {
				return m.Certificates
			}
		}
	}
	return nil
}

// shared are the certificates of a whose key is among those of b.
func shared(a, b []*x509.Certificate) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(a), func(c *x509.Certificate) bool {
		return !slices.ContainsFunc(b, func(o *x509.Certificate) bool { return trust.SameKey(c.PublicKey, o.PublicKey) })
	})
}

// Believe settles whose facts count for others. An error says that nodes have different
// authorities, and nobody knows which is the cluster's.
func (f *Fleet) Believe() error {
	truth, err := f.truth()
	if err != nil {
		return err
	}
	for _, n := range f.Far {
		n.believed = n.Vouched || slices.ContainsFunc(truth, n.Holds)
	}
	return f.oneDistribution()
}

// truth is the cluster's authority, as those say whom the operator believes, or else as
// all say with one voice.
func (f *Fleet) truth() (truth []*x509.Certificate, err error) {
	from := ""
	agree := func(n *trust.Node) error {
		have := authorityOf(n)
		switch {
		case len(have) == 0:
		case truth == nil:
			truth, from = have, n.Name
		default:
			both := shared(truth, have)
			if len(both) == 0 {
				return &Error{fmt.Errorf("%s and %s have different authorities: they are not of one cluster, or one of them says what is not true", from, n.Name),
					"leave one of them out; or say who is right with --ssh-trust NAME"}
			}
			truth = both
		}
		return nil
	}
	for i := range f.local() {
		if err := agree(&f.Local.Nodes[i]); err != nil {
			return nil, err
		}
	}
	for _, n := range f.Far {
		if n.Vouched {
			if err := agree(&n.Told.Node); err != nil {
				return nil, err
			}
		}
	}
	if truth != nil {
		return truth, nil
	}
	for _, n := range f.Far {
		if err := agree(&n.Told.Node); err != nil {
			return nil, err
		}
	}
	return truth, nil
}

func (f *Fleet) local() []trust.Node {
	if f.Local == nil {
		return nil
	}
	return f.Local.Nodes
}

// oneDistribution refuses nodes of several: each has files of its own.
func (f *Fleet) oneDistribution() error {
	of, from := "", ""
	all := slices.Clone(f.local())
	for _, n := range f.Far {
		all = append(all, n.Told.Node)
	}
	for i, n := range all {
		if _, known := catalog.LayoutNamed(n.Layout); !known {
			return fmt.Errorf("%s: %q is no layout that is known here", n.Name, n.Layout)
		}
		d := catalog.DistributionOf(n.Layout)
		if i > 0 && d != of {
			return &Error{fmt.Errorf("%s is of %s, and %s of %s: they are not of one cluster", from, of, n.Name, d), "leave one of them out"}
		}
		of, from = d, n.Name
	}
	return nil
}

// facts are those that a plan for n is made of: of whom is believed, and its own.
func (f *Fleet) facts(n *FarNode) []trust.Node {
	nodes := slices.Clone(f.local())
	for _, o := range f.Far {
		if o.believed || o == n {
			nodes = append(nodes, o.Told.Node)
		}
	}
	return nodes
}

// keyring are the keys for a plan of those facts: those that are here, and the halves
// of those that are not.
func (f *Fleet) keyring(n *FarNode) map[trust.Place]crypto.Signer {
	keys := map[trust.Place]crypto.Signer{}
	if f.Local != nil {
		maps.Copy(keys, f.Local.Keys)
	}
	for _, o := range f.Far {
		if o.believed || o == n {
			for p, half := range o.Proven {
				keys[p] = &HeldKey{Place: p, Half: half}
			}
		}
	}
	return keys
}

// Options are those of [Fleet.Plan].
type Options struct {
	IDs   []string // as renew.Plan takes them; none: all, or what is due
	Nodes []string // these alone; none: all
	Due   bool     // what [renew.Due] finds, of each node
	// Wanted are what the plan of each node is made with; its At and Keys are the fleet's.
	Wanted renew.Options
}

// Planned is what [Fleet.Plan] planned beside the items of nodes elsewhere.
type Planned struct {
	Local    []*renew.Item // of the nodes whose folders are here
	Left     []renew.Left  // what is due and is not renewed
	Warnings []string
}

// Plan plans what is renewed on each node. Nothing is planned where one is refused.
func (f *Fleet) Plan(o Options) (*Planned, error) {
	p := &fleetPlan{f: f, o: o, found: map[string]bool{}}
	believed, err := p.plan(nil)
	if err != nil {
		return nil, err
	}
	made := &Planned{}
	for _, i := range believed {
		if n := f.named(i.Node); n != nil {
			n.Items = append(n.Items, i)
		} else {
			made.Local = append(made.Local, i)
		}
	}
	for _, n := range f.Far {
		if n.believed {
			continue
		}
		if n.Items, err = p.plan(n); err != nil {
			return nil, err
		}
	}
	if err := p.unknown(); err != nil {
		return nil, err
	}
	for _, n := range f.Far {
		made.Warnings = append(made.Warnings, n.odd()...)
		if err := f.may(n); err != nil {
			return nil, err
		}
		if len(n.Items) == 0 && len(o.IDs) == 0 && !o.Due && p.wants(n.Name) {
			made.Warnings = append(made.Warnings, n.Name+": there is nothing that an authority at hand could sign")
		}
	}
	made.Left = p.left
	return made, f.takeAuthorities(p.graph)
}

// odd is what may be wrong with a node or with how the operator names it.
func (n *FarNode) odd() []string {
	var all []string
	if name := n.Told.Node.NodeName; name != "" && name != n.Name {
		all = append(all, fmt.Sprintf("%s: its own files call it %q: is it the machine that was meant?", n.Name, name))
	}
	switch ahead := n.Told.Ahead; {
	case ahead < -issue.Backdate:
		all = append(all, fmt.Sprintf("%s: its clock is %s behind: what is made now is not valid there yet", n.Name, -ahead))
	case ahead > issue.Backdate:
		all = append(all, fmt.Sprintf("%s: its clock is %s ahead: certificates end earlier there", n.Name, ahead))
	}
	return all
}

func (f *Fleet) named(name string) *FarNode {
	for _, n := range f.Far {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// may judges the items of a node by its standing.
func (f *Fleet) may(n *FarNode) error {
	for _, i := range n.Items {
		if i.Kind == renew.Authority {
			return &Error{fmt.Errorf("%s: an authority is certified again on the node that has it, not from here", i.ID()), "on " + n.Name + ": kubepki renew " + i.Name}
		}
		if err := n.May(i, f.authorityName(i), f.At); err != nil {
			help := fmt.Sprintf("if that is right, --ssh-trust %s answers for it; if not, see who is on %s", n.Name, n.Name)
			if other := n.isNode(i); other != "" && other != n.Name {
				help = fmt.Sprintf("call it %s=HOST, or see which machine was meant", other)
			}
			return &Error{err, help}
		}
	}
	return nil
}

// authorityName is how those that are believed call the authority of an item.
func (f *Fleet) authorityName(i *renew.Item) string {
	for _, n := range f.facts(nil) {
		for _, a := range n.Authorities {
			if i.Issuer == (trust.Place{Node: n.Name, Path: a.Certificate}) {
				return a.Name
			}
		}
	}
	return ""
}

func (f *Fleet) takeAuthorities(g *trust.Graph) error {
	for _, a := range g.Authorities {
		if m := g.Material(a.Certificate); m.OK() {
			for _, c := range m.Certificates {
				if err := f.keys.Take("an authority", c.PublicKey); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// fleetPlan plans one graph after the other.
type fleetPlan struct {
	f     *Fleet
	o     Options
	graph *trust.Graph // of those that are believed
	found map[string]bool
	known []string
	left  []renew.Left
}

func (p *fleetPlan) wants(node string) bool {
	return len(p.o.Nodes) == 0 || slices.Contains(p.o.Nodes, node)
}

// plan plans n by itself, or with nil all that are believed.
func (p *fleetPlan) plan(n *FarNode) ([]*renew.Item, error) {
	if n != nil && !p.wants(n.Name) {
		return nil, nil
	}
	nodes := p.f.facts(n)
	if len(nodes) == 0 {
		p.graph = &trust.Graph{}
		return nil, nil
	}
	g := catalog.Wire(nodes)
	findings := check.Run(g, check.Options{At: p.f.At, Expiring: p.o.Wanted.Within}).Findings
	if n == nil {
		p.graph = g
		for _, o := range p.f.Far {
			if o.believed {
				o.before = findings
			}
		}
	} else {
		n.before = findings
	}
	for _, c := range g.Credentials {
		p.known = append(p.known, c.ID)
	}
	keys := p.f.keyring(n)
	options := p.o.Wanted
	options.At = p.f.At
	options.Keys = func(at trust.Place) crypto.Signer {
		return keys[at] // a nil interface where there is none
	}
	items, err := p.items(g, findings, n, options)
	return slices.DeleteFunc(items, func(i *renew.Item) bool {
		return n != nil && i.Node != n.Name || !p.wants(i.Node)
	}), err
}

func (p *fleetPlan) items(g *trust.Graph, findings []check.Finding, n *FarNode, o renew.Options) ([]*renew.Item, error) {
	if p.o.Due {
		items, left := renew.Due(g, findings, o)
		for _, l := range left {
			node, _, _ := strings.Cut(l.ID, "/") // or the node itself
			if p.wants(node) && (n == nil || n.Name == node) {
				p.left = append(p.left, l)
			}
		}
		return items, nil
	}
	if len(p.o.IDs) == 0 {
		items, err := renew.Plan(g, findings, nil, o)
		var refused *renew.Refusal
		if n != nil && errors.As(err, &refused) {
			return nil, nil // the warning that nothing is left there says it
		}
		return items, err
	}
	var all []*renew.Item
	for _, id := range p.o.IDs {
		for _, target := range p.targets(id, n) {
			items, err := renew.Plan(g, findings, []string{target}, o)
			if errors.As(err, new(*renew.UnknownError)) {
				continue
			}
			if err != nil {
				return nil, err
			}
			p.found[id] = true
			for _, i := range items {
				if !slices.ContainsFunc(all, func(o *renew.Item) bool { return o.ID() == i.ID() }) {
					all = append(all, i)
				}
			}
		}
	}
	return all, nil
}

// targets are what an ID means on some nodes: those that are wanted alone, so that what
// is refused on another is nothing to us.
func (p *fleetPlan) targets(id string, n *FarNode) []string {
	var names []string
	if n != nil {
		names = []string{n.Name}
	} else {
		for _, o := range p.f.facts(nil) {
			names = append(names, o.Name)
		}
	}
	var all []string
	for _, name := range names {
		own := strings.HasPrefix(id, name+"/") || strings.HasPrefix(id, name+":/")
		switch {
		case !p.wants(name):
		case own:
			all = append(all, id)
		case strings.HasPrefix(id, "/"):
			all = append(all, name+":"+id)
		case !strings.Contains(id, "/"):
			all = append(all, name+"/"+id)
		}
	}
	return all
}

// unknown is the error of IDs that name nothing anywhere.
func (p *fleetPlan) unknown() error {
	for _, id := range p.o.IDs {
		if !p.found[id] {
			slices.Sort(p.known)
			return &renew.UnknownError{Target: id, Known: slices.Compact(p.known)}
		}
	}
	return nil
}

// Facts are what a plan for n was made of, without any key.
func (f *Fleet) Facts(n *FarNode) *apply.Nodes {
	return apply.New(map[string]string{}, f.facts(n), nil)
}
