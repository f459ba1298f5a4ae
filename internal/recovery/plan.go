package recovery

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// Certified is an authority with the certificate that its files shall hold.
type Certified struct {
	Authority
	New  *x509.Certificate
	Item *renew.Item // what was made; nil where another file had it already
}

// Left is what cannot be made anew here.
type Left struct {
	Name, Node string
	Place      trust.Place
	Reason     error // it may have a Hint
}

// ID is the name with its node's before it.
func (l Left) ID() string {
	if l.Node == "" {
		return l.Name
	}
	return l.Node + "/" + l.Name
}

// Recovery is what is to be done.
type Recovery struct {
	Authorities []Certified
	// Exchanges are the dead certificates of authorities with what takes their place,
	// Places the files and fields in which that is done.
	Exchanges []Exchange
	Places    []trust.Place
	// Nodes and Graph are the nodes as they are with the authorities' certificates
	// exchanged, Before what is found on them then.
	Nodes  []trust.Node
	Graph  *trust.Graph
	Before *check.Result
	// Items are the credentials that are made anew, by the authorities of Graph.
	Items []*renew.Item
	Left  []Left
}

// Keys returns the private key that was read at a place, nil when there is none.
type Keys func(trust.Place) crypto.Signer

// Plan says what brings a cluster back. The certificates of authorities are made
// already, for the others are planned by them; all else is only planned. What cannot
// be done is in Left, and keeps nothing else from being done.
func Plan(ctx context.Context, nodes []trust.Node, keys Keys, o Options) (*Recovery, error) {
	r := &Recovery{Nodes: nodes, Graph: catalog.Wire(nodes)}
	state := Look(r.Graph, o)
	if err := r.authorities(ctx, state, keys, o); err != nil {
		return nil, err
	}
	r.exchange(state, o)
	r.Before = check.Run(r.Graph, check.Options{At: o.At})
	places := state.People
	for _, cred := range r.Graph.Credentials {
		m := r.Graph.Material(cred.Certificate)
		if r.isUser(cred.Node) && !o.Users {
			if m.OK() && slices.ContainsFunc(m.Certificates, o.dead) {
				r.Left = append(r.Left, Left{Name: cred.Name, Node: cred.Node, Place: cred.Certificate, Reason: errUser})
			}
			continue
		}
		over := m.OK() && len(m.Certificates) > 0 && (o.All || slices.ContainsFunc(m.Certificates, o.dead))
		// Where a cluster is brought back, so is what somebody has removed meanwhile: a
		// kubelet without its pair does not even start.
		gone := m != nil && m.State == trust.Missing && (o.All || state.Dead())
		if over || gone {
			places = append(places, cred.Certificate.File())
		}
	}
	items, refused := renew.Each(r.Graph, r.Before.Findings, places, renew.Options{At: o.At, Keys: keys, ReuseKey: o.ReuseKey, Kubeconfigs: o.Kubeconfigs, Users: o.Users})
	r.Items = items
	for _, x := range refused {
		var why *renew.Refusal
		if errors.As(x.Reason, &why) && why.Help == renew.RecoverHelp { // which is what is under way
			x.Reason = &renew.Refusal{What: why.What, Reason: why.Reason, Help: "bring its authority back first: it is left, too"}
		}
		r.Left = append(r.Left, Left{Name: x.Name, Node: x.Node, Place: x.Certificate, Reason: x.Reason})
	}
	return r, nil
}

// errUser is why a user's kubeconfig beside the nodes is left.
var errUser = &renew.Refusal{What: "users", Reason: "it is a user's own", Help: "with --users it is made anew too; then hand it out anew"}

// isUser tells that a node stands for the folder of users' kubeconfigs.
func (r *Recovery) isUser(name string) bool {
	return slices.ContainsFunc(r.Nodes, func(n trust.Node) bool { return n.Name == name && n.Layout == catalog.LayoutUsers })
}

// authorities certifies each dead authority again, those above before those below.
func (r *Recovery) authorities(ctx context.Context, s *State, keys Keys, o Options) error {
	waiting := slices.Clone(s.Authorities)
	for len(waiting) > 0 {
		i := slices.IndexFunc(waiting, func(a Authority) bool {
			return a.Above == nil || !slices.ContainsFunc(waiting, func(w Authority) bool { return w.Dead.Equal(a.Above) })
		})
		if i < 0 {
			return errors.New("the authorities sign each other in a circle")
		}
		a := waiting[i]
		waiting = slices.Delete(waiting, i, i+1)
		c := Certified{Authority: a, New: a.Good}
		if c.New == nil {
			item, made, err := r.certify(ctx, a, keys, o)
			if err != nil {
				r.Left = append(r.Left, Left{Name: a.Name, Node: a.Files[0].Node, Place: a.Files[0].Certificate, Reason: err})
				continue
			}
			c.Item, c.New = item, made
		}
		r.Authorities = append(r.Authorities, c)
		r.put(pairs(r.Nodes, c.New, o))
	}
	return nil
}

// certify makes the certificate of an authority, on the first node where its key is.
func (r *Recovery) certify(ctx context.Context, a Authority, keys Keys, o Options) (*renew.Item, *x509.Certificate, error) {
	var why error
	findings := check.Run(r.Graph, check.Options{At: o.At}).Findings
	for _, f := range a.Files {
		target := f.Certificate.Path
		if f.Node != "" {
			target = f.Node + ":" + target
		}
		items, err := renew.Plan(alone(r.Graph, f.Certificate, a.Dead), findings, []string{target}, renew.Options{At: o.At, Keys: keys})
		if err != nil || len(items) != 1 || items[0].Kind != renew.Authority {
			if why == nil || keys(f.Key) != nil {
				why = err
			}
			continue
		}
		made, err := items[0].Make(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", items[0].ID(), err)
		}
		if !same(made.Chain[0], a.Dead) || !bytes.Equal(made.Chain[0].SubjectKeyId, a.Dead.SubjectKeyId) && len(a.Dead.SubjectKeyId) > 0 {
			return nil, nil, fmt.Errorf("%s: the new certificate is not of the same name, key and key id", items[0].ID())
		}
		// What it says of copies does not hold: they are exchanged.
		items[0].Warnings = slices.DeleteFunc(items[0].Warnings, func(w string) bool { return strings.HasPrefix(w, renew.KeptWarning) })
		return items[0], made.Chain[0], nil
	}
	return nil, nil, why
}

// alone is a graph in which a file holds one certificate and no other: a bundle of a
// rotation has several, of which the one that is over is meant.
func alone(g *trust.Graph, at trust.Place, c *x509.Certificate) *trust.Graph {
	m := g.Material(at)
	if m == nil || len(m.Certificates) == 1 {
		return g
	}
	one, out := *m, *g
	one.Certificates = []*x509.Certificate{c}
	out.Materials = maps.Clone(g.Materials)
	out.Materials[at] = &one
	return &out
}

// pairs are the dead certificates of the nodes that a new one of the same authority
// takes the place of.
func pairs(nodes []trust.Node, made *x509.Certificate, o Options) []Exchange {
	var all []Exchange
	for i := range nodes {
		for _, m := range nodes[i].Materials {
			for _, c := range m.Certificates {
				if o.dead(c) && same(c, made) && exchangeOf(c.Raw, all) == nil {
					all = append(all, Exchange{c, made})
				}
			}
		}
	}
	return all
}

// put notes exchanges and makes them in the bundles and authorities of the nodes.
func (r *Recovery) put(all []Exchange) {
	if len(all) == 0 {
		return
	}
	r.Exchanges = append(r.Exchanges, all...)
	r.Nodes = slices.Clone(r.Nodes)
	for i := range r.Nodes {
		n := &r.Nodes[i]
		n.Materials = slices.Clone(n.Materials)
		for j, m := range n.Materials {
			if m.OK() && isTrust(m) && !isDistribution(n) {
				if n.Materials[j] = exchanged(m, all); n.Materials[j] != m && !slices.Contains(r.Places, m.Place) {
					r.Places = append(r.Places, m.Place)
				}
			}
		}
	}
	r.Graph = catalog.Wire(r.Nodes)
}

// isTrust tells whether a material of a file says whom somebody trusts, or who signs.
func isTrust(m *trust.Material) bool {
	return !m.Place.InAPI() && (m.Role == trust.RoleBundle || m.Role == trust.RoleAuthority)
}

func exchanged(m *trust.Material, all []Exchange) *trust.Material {
	var certificates []*x509.Certificate
	changed := false
	for _, c := range m.Certificates {
		if x := exchangeOf(c.Raw, all); x != nil {
			c, changed = x.New, true
		}
		if !slices.ContainsFunc(certificates, c.Equal) {
			certificates = append(certificates, c)
		}
	}
	if !changed {
		return m
	}
	out := *m
	out.Certificates = certificates
	return &out
}

// exchange adds the copies of authorities that live.
func (r *Recovery) exchange(s *State, o Options) {
	for _, at := range s.Copies {
		for _, c := range r.materialOf(at) {
			if !o.dead(c) || exchangeOf(c.Raw, r.Exchanges) != nil {
				continue
			}
			if g := good(r.Graph, c, o); g != nil {
				r.put([]Exchange{{c, g}})
			}
		}
	}
}

func (r *Recovery) materialOf(p trust.Place) []*x509.Certificate {
	if m := r.Graph.Material(p); m != nil {
		return m.Certificates
	}
	return nil
}
