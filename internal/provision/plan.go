package provision

import (
	"crypto"
	"crypto/x509"
	"math/big"
	"path"
	"path/filepath"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
)

// Options says what to provision and where.
type Options struct {
	Cluster *catalog.Cluster
	// Dir is the root of the one node, or with PerNode the folder that holds
	// one root per node under its name.
	Dir     string
	PerNode bool
	// CSROnly makes requests where the authority's key is not at hand.
	CSROnly bool
	// Service asks for the service layout instead: an authority and the pairs of
	// a client and a server, directly in Dir. Of Cluster the algorithm and the
	// validities count.
	Service   *Service
	Manifests bool // write the static-pod manifests too
	DryRun    bool // read only; Apply is refused
	Now       time.Time
}

// Action says what becomes of an entry.
type Action string

// The actions of a plan.
const (
	Made      Action = "made"      // something is written for it
	Kept      Action = "kept"      // complete, stays as it is
	Requested Action = "requested" // a key and a request stand or will stand there
	TakenIn   Action = "taken-in"  // a certificate that was signed elsewhere completes it
	Awaited   Action = "awaited"   // the certificate of an authority elsewhere is still to come
)

// KindManifest is the kind of an entry that is a static-pod manifest.
const KindManifest catalog.Kind = "manifest"

// Entry is one line of a plan.
type Entry struct {
	Name   string
	Path   string // absolute on the node; without extension where there are several files
	Action Action
}

// Node is the part of a plan that concerns one root.
type Node struct {
	Name    string // empty: a single node, or a folder beside the nodes
	Root    string // on this machine
	Entries []Entry
}

// Planned is a plan that has been made and can be applied once.
type Planned struct {
	Nodes    []Node
	Warnings []string

	options     Options
	tx          *layout.Transaction
	slots       []*slot
	authorities map[string]*authority
	signing     *signing
	lacking     []string // certificates of authorities that requests wait for
}

// slot is one entry at one place.
type slot struct {
	node   string
	prefix string // root of the node below Options.Dir: "" or "/cp1"
	entry  catalog.Entry
	action Action
	have   present
	pair   pair
	data   []byte   // of a manifest
	serial *big.Int // of the certificate to be made; nil: random
}

// pair is a key and its certificate, at hand or to be made.
type pair struct {
	key     crypto.Signer
	makeKey bool
	// chain is the content of the certificate file: the certificate first.
	chain []*x509.Certificate
	// sign tells that the certificate is to be made, request that a request is.
	sign, request bool
}

// Plan reads what is there and decides. Unless Options.DryRun is set it holds
// a lock on Options.Dir until Apply or Close. An error that is a [*Refusal]
// names the file that stands in the way.
func Plan(o Options) (*Planned, error) {
	p := &Planned{options: o, authorities: map[string]*authority{}}
	if err := p.refuseOtherLayouts(); err != nil {
		return nil, err
	}
	if !o.DryRun {
		tx, err := layout.Begin(o.Dir)
		if err != nil {
			return nil, explain(err)
		}
		p.tx = tx
	}
	if err := p.decide(); err != nil {
		return nil, closeWith(p, err)
	}
	p.describe()
	return p, nil
}

func closeWith(p *Planned, err error) error {
	if p.tx == nil {
		return err
	}
	if undo := p.tx.Rollback(); undo != nil {
		return &Refusal{Cause: err.Error() + "; undoing it failed: " + undo.Error(), Help: "run it again once the disk can be written: it removes what is left"}
	}
	p.tx = nil
	return err
}

// Close gives up a plan that is not applied.
func (p *Planned) Close() error { return closeWith(p, nil) }

// Pending counts the files that Apply would write.
func (p *Planned) Pending() int { return len(p.files()) }

func (p *Planned) decide() error {
	if err := p.lay(); err != nil {
		return err
	}
	for _, s := range p.slots {
		if err := p.read(s); err != nil {
			return err
		}
	}
	if err := p.resolveAuthorities(); err != nil {
		return err
	}
	if err := p.resolveSigningKey(); err != nil {
		return err
	}
	if err := p.decideLeaves(); err != nil {
		return err
	}
	p.warn()
	if p.options.Service != nil {
		return p.decideSerial()
	}
	return p.decideManifests()
}

// lay lists all slots: node by node, then the folders beside the nodes.
func (p *Planned) lay() error {
	c := p.options.Cluster
	if p.options.Service != nil {
		p.layService()
		return nil
	}
	nodes, err := c.Entries()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		prefix := ""
		if p.options.PerNode {
			prefix = "/" + n.Node
		}
		for _, e := range n.Entries {
			if p.options.PerNode && e.Name == catalog.RootCA {
				e.NoKey = true // no node may sign below the root
			}
			p.slots = append(p.slots, &slot{node: n.Node, prefix: prefix, entry: e})
		}
	}
	for _, u := range c.Users {
		e := c.UserEntry(u)
		s := &slot{entry: e}
		if p.options.PerNode {
			s.entry.Path = path.Join("/", catalog.UsersDir, e.Name)
		} else {
			s.node = nodes[0].Node
			s.entry.Path = path.Join(catalog.KubernetesDir, catalog.UsersDir, e.Name)
		}
		p.slots = append(p.slots, s)
	}
	p.layAuthorities()
	return nil
}

// layAuthorities gives a place beside the nodes to the keys that no node may hold.
func (p *Planned) layAuthorities() {
	if !p.options.PerNode {
		return
	}
	var order []string
	held := map[string]bool{}
	for _, s := range p.slots {
		if s.entry.Kind != catalog.KindAuthority {
			continue
		}
		if _, known := held[s.entry.Name]; !known {
			order = append(order, s.entry.Name)
		}
		held[s.entry.Name] = held[s.entry.Name] || !s.entry.NoKey
	}
	for _, name := range order {
		if e := p.options.Cluster.Authority(name); !held[name] && e.SameAs == "" {
			e.Path = path.Join("/", catalog.AuthoritiesDir, name)
			p.slots = append(p.slots, &slot{entry: e})
		}
	}
}

// host returns the path on this machine of a path on the slot's node.
func (p *Planned) host(s *slot, nodePath string) string {
	return filepath.Join(p.options.Dir, filepath.FromSlash(s.prefix+nodePath))
}

// describe fills Nodes from the slots.
func (p *Planned) describe() {
	for _, s := range p.slots {
		if len(p.Nodes) == 0 || p.Nodes[len(p.Nodes)-1].Name != s.node {
			p.Nodes = append(p.Nodes, Node{Name: s.node, Root: p.host(s, "/")})
		}
		n := &p.Nodes[len(p.Nodes)-1]
		n.Entries = append(n.Entries, Entry{Name: s.entry.Name, Path: s.entry.Path, Action: s.action})
	}
}

// algorithm is what new keys are made with.
func (p *Planned) algorithm() issue.Algorithm { return issue.Algorithm(p.options.Cluster.Algorithm) }
