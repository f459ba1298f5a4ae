package recovery

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// Options of [Look] and [Plan].
type Options struct {
	At time.Time
	// Early tells that certificates which have not begun are as bad as those that are
	// over: the clock is right, and whoever made them had a wrong one.
	Early bool
	// All stands for every credential, over or not.
	All bool
	// ReuseKey keeps the keys of credentials.
	ReuseKey bool
	// Kubeconfigs are files of people, read as others of their node, that are made anew
	// too where they are over.
	Kubeconfigs []trust.Place
	// Users tells that users' kubeconfigs beside the nodes are made anew too.
	Users bool
}

// dead tells whether a certificate does not count.
func (o Options) dead(c *x509.Certificate) bool {
	return o.At.After(c.NotAfter) || o.Early && o.At.Before(c.NotBefore)
}

// Authority is one authority, by its name and key, whose certificate is dead.
type Authority struct {
	Name  string            // as the graph has it: ca, etcd-ca
	Files []trust.Authority // of the nodes whose file holds dead certificates of it alone, in their order
	Dead  *x509.Certificate // the one that ended last
	Good  *x509.Certificate // of the same name and key, from another file of the nodes; nil: it must be made
	Above *x509.Certificate // that signed Dead, where that is another one of the nodes; nil: nobody
}

// State is what time has done to a cluster.
type State struct {
	Authorities []Authority
	// Credentials show a dead certificate, in the order of the graph.
	Credentials []*trust.Credential
	// People are kubeconfigs of people that show a dead certificate.
	People []trust.Place
	// Copies are bundles that hold of some authority dead certificates alone.
	Copies []trust.Place
	// Early are the places of certificates that have not begun.
	Early []trust.Place
	// Alive counts the credentials that show what is valid.
	Alive int
}

// Dead tells that there is something to recover.
func (s *State) Dead() bool {
	return len(s.Authorities)+len(s.Credentials)+len(s.People)+len(s.Copies) > 0
}

// Look says what time has done to the cluster of a graph.
func Look(g *trust.Graph, o Options) *State {
	s := &State{}
	for i := range g.Authorities {
		s.authority(g, &g.Authorities[i], o)
	}
	for i := range s.Authorities {
		a := &s.Authorities[i]
		a.Good, a.Above = good(g, a.Dead, o), above(s.Authorities, a)
	}
	for _, cred := range g.Credentials {
		m := g.Material(cred.Certificate)
		if !m.OK() || len(m.Certificates) == 0 {
			continue
		}
		if slices.ContainsFunc(m.Certificates, o.dead) {
			s.Credentials = append(s.Credentials, cred)
		} else {
			s.Alive++
		}
	}
	s.people(g, o)
	s.copies(g, o)
	s.early(g, o)
	return s
}

func (s *State) people(g *trust.Graph, o Options) {
	for i := range g.Nodes {
		for _, k := range g.Nodes[i].Kubeconfigs {
			if m := g.Material(k.Certificate); slices.Contains(o.Kubeconfigs, k.Place) && m.OK() && slices.ContainsFunc(m.Certificates, o.dead) {
				s.People = append(s.People, k.Place)
			}
		}
	}
}

// same tells whether two certificates are of one authority: its name and key.
func same(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubject, b.RawSubject) && trust.SameKey(a.PublicKey, b.PublicKey)
}

// authority notes one of the graph whose file holds no living certificate of the
// authority that it is.
func (s *State) authority(g *trust.Graph, a *trust.Authority, o Options) {
	m := g.Material(a.Certificate)
	if !m.OK() || a.Certificate.InAPI() {
		return
	}
	for _, c := range m.Certificates {
		if !o.dead(c) || twin(m, c, o) != nil || !needed(g, a, c, o) {
			continue
		}
		i := slices.IndexFunc(s.Authorities, func(known Authority) bool { return same(known.Dead, c) })
		if i < 0 {
			i = len(s.Authorities)
			s.Authorities = append(s.Authorities, Authority{Name: a.Name, Dead: c})
		}
		known := &s.Authorities[i]
		if c.NotAfter.After(known.Dead.NotAfter) {
			known.Dead = c
		}
		if !slices.ContainsFunc(known.Files, func(f trust.Authority) bool { return f.Certificate == a.Certificate }) {
			known.Files = append(known.Files, *a)
		}
	}
}

// needed tells whether anything rests on a dead certificate of an authority's file: it
// is alone there, or has the authority's key, or signed what lives. The old one that a
// rotation has left beside the new one is none of these.
func needed(g *trust.Graph, a *trust.Authority, c *x509.Certificate, o Options) bool {
	m := g.Material(a.Certificate)
	if !slices.ContainsFunc(m.Certificates, func(x *x509.Certificate) bool { return !o.dead(x) }) {
		return true
	}
	if key := g.Material(a.Key); key != nil && slices.ContainsFunc(key.Keys, func(k crypto.PublicKey) bool { return trust.SameKey(k, c.PublicKey) }) {
		return true
	}
	return slices.ContainsFunc(g.Credentials, func(cred *trust.Credential) bool {
		leaf := g.Material(cred.Certificate).Leaf()
		return cred.Node == a.Node && leaf != nil && !o.dead(leaf) && trust.SignedBy(leaf, c)
	})
}

// twin is a living certificate of a material that is of the same authority.
func twin(m *trust.Material, c *x509.Certificate, o Options) *x509.Certificate {
	for _, t := range m.Certificates {
		if same(t, c) && !o.dead(t) && t.IsCA {
			return t
		}
	}
	return nil
}

// good is the living certificate of an authority that some file of an authority
// holds, the one that ends last; nil where there is none.
func good(g *trust.Graph, dead *x509.Certificate, o Options) *x509.Certificate {
	var best *x509.Certificate
	for _, a := range g.Authorities {
		m := g.Material(a.Certificate)
		if !m.OK() || a.Certificate.InAPI() {
			continue
		}
		if t := twin(m, dead, o); t != nil && (best == nil || t.NotAfter.After(best.NotAfter)) && proper(t, dead) {
			best = t
		}
	}
	return best
}

// proper tells whether a certificate is what the authority itself, or the one above
// it, made of it: anybody can write a name and a key into one.
func proper(t, dead *x509.Certificate) bool {
	if !bytes.Equal(t.RawIssuer, dead.RawIssuer) {
		return false
	}
	return !bytes.Equal(t.RawIssuer, t.RawSubject) || trust.SignedWith(t, t.PublicKey)
}

// above is the dead authority that signed another one.
func above(all []Authority, a *Authority) *x509.Certificate {
	for _, o := range all {
		if !same(o.Dead, a.Dead) && trust.SignedBy(a.Dead, o.Dead) {
			return o.Dead
		}
	}
	return nil
}

// copies finds the bundles that trust an authority by dead certificates alone.
func (s *State) copies(g *trust.Graph, o Options) {
	for i := range g.Nodes {
		if isDistribution(&g.Nodes[i]) {
			continue
		}
		for _, m := range g.Nodes[i].Materials {
			switch {
			case !m.OK(), !isTrust(m):
				continue
			case s.isFile(m.Place), !slices.ContainsFunc(m.Certificates, func(c *x509.Certificate) bool { return s.exchangeable(g, m, c, o) }):
				continue
			}
			s.Copies = append(s.Copies, m.Place)
		}
	}
}

// isDistribution tells whether what stands on a node is made and kept by a program that
// would write over what is put there.
func isDistribution(n *trust.Node) bool { return catalog.DistributionNamed(n.Layout) != nil }

func (s *State) isFile(p trust.Place) bool {
	return slices.ContainsFunc(s.Authorities, func(a Authority) bool {
		return slices.ContainsFunc(a.Files, func(f trust.Authority) bool { return f.Certificate == p })
	})
}

// exchangeable tells whether a certificate of a bundle is dead, no living one of its
// authority is beside it, and the authority is known here.
func (s *State) exchangeable(g *trust.Graph, m *trust.Material, c *x509.Certificate, o Options) bool {
	if !o.dead(c) || twin(m, c, o) != nil {
		return false
	}
	return good(g, c, o) != nil || slices.ContainsFunc(s.Authorities, func(a Authority) bool { return same(a.Dead, c) })
}

func (s *State) early(g *trust.Graph, o Options) {
	for i := range g.Nodes {
		for _, m := range g.Nodes[i].Materials {
			if !m.Place.InAPI() && slices.ContainsFunc(m.Certificates, func(c *x509.Certificate) bool { return o.At.Before(c.NotBefore) }) {
				s.Early = append(s.Early, m.Place)
			}
		}
	}
}
