package report

import (
	"cmp"
	"crypto/x509"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/inspect"
	"github.com/kubepki/kubepki/internal/trust"
)

// Inventory is the answer of `kubepki show` for the nodes of one cluster.
type Inventory struct {
	APIVersion  string            `json:"apiVersion"`
	Kind        string            `json:"kind"`
	Name        string            `json:"name,omitempty"` // folder, when several clusters are shown
	At          time.Time         `json:"at"`
	Nodes       []VerifiedNode    `json:"nodes"`
	Authorities []KnownAuthority  `json:"authorities"`
	Credentials []KnownCredential `json:"credentials"`
	// SigningKeys are the keys that sign service-account tokens.
	SigningKeys []SigningKey `json:"signingKeys,omitempty"`
	// NotSeen are sources that were not in what was given.
	NotSeen []Unseen `json:"notSeen,omitempty"`
}

// KnownAuthority is one authority, however many nodes have its certificate.
type KnownAuthority struct {
	Name string `json:"name"`
	// Authority names the authority above, empty for a root.
	Authority string           `json:"authority,omitempty"`
	Places    []AuthorityPlace `json:"places"`
	*inspect.Certificate
	parsed *trust.Material
}

// AuthorityPlace is one copy of an authority's certificate.
type AuthorityPlace struct {
	Node  string `json:"node,omitempty"`
	Path  string `json:"path"`
	Field string `json:"field,omitempty"` // of a kubeconfig
	// Key is the path of its private key, when that is at hand.
	Key string `json:"key,omitempty"`
	// KeyProblem says why the key that stands there could not be read.
	KeyProblem string `json:"keyProblem,omitempty"`
}

// KnownCredential is what one component shows.
type KnownCredential struct {
	Name  string `json:"name"`
	Node  string `json:"node,omitempty"`
	Path  string `json:"path"`
	Field string `json:"field,omitempty"` // of a kubeconfig
	// Problem says why the certificate cannot be shown: then the fields of the
	// certificate are absent.
	Problem string `json:"problem,omitempty"`
	*inspect.Certificate
	Authority string `json:"authority,omitempty"` // name of the signer, empty when unknown
	UsedBy    []Use  `json:"usedBy"`
	parsed    *x509.Certificate
	absent    bool // it is not in what was given
}

// Use is one side of a link on which a credential is shown.
type Use struct {
	Link      int    `json:"link"`
	Component string `json:"component"` // who shows it
	Side      string `json:"side"`      // client or server
	Peer      string `json:"peer"`      // to whom
}

// SigningKey is a key that signs service-account tokens.
type SigningKey struct {
	Node            string   `json:"node,omitempty"`
	Path            string   `json:"path"`
	Problem         string   `json:"problem,omitempty"`
	KeyAlgorithm    string   `json:"keyAlgorithm,omitempty"`
	PublicKeySHA256 string   `json:"publicKeySHA256,omitempty"`
	UsedBy          []string `json:"usedBy"` // components that sign with it
}

// Unseen is a source that was not in what was given.
type Unseen struct {
	Node   string `json:"node,omitempty"`
	Path   string `json:"path"`
	Reason string `json:"reason"`
	Denied bool   `json:"denied,omitempty"` // for lack of rights
}

// NewInventory lists what a graph holds: authorities in the order of the
// catalogue, credentials by node and then in that order.
func NewInventory(g *trust.Graph, at time.Time) *Inventory {
	v := &Inventory{
		APIVersion: APIVersion, Kind: "Inventory", At: at.UTC().Truncate(time.Second),
		Nodes: []VerifiedNode{}, Authorities: []KnownAuthority{}, Credentials: []KnownCredential{},
	}
	for _, n := range g.Nodes {
		if n.Layout != layoutUsers { // users are no node
			v.Nodes = append(v.Nodes, VerifiedNode{Name: n.Name, Layout: n.Layout})
		}
		for _, s := range n.NotSeen {
			v.NotSeen = append(v.NotSeen, Unseen{Node: s.Place.Node, Path: s.Place.Path, Reason: s.Reason, Denied: s.Denied})
		}
	}
	v.addAuthorities(g)
	v.addCredentials(g)
	v.nameParents()
	v.addSigningKeys(g)
	v.sort(g)
	return v
}

// addAuthorities joins the copies of each authority's certificate.
func (v *Inventory) addAuthorities(g *trust.Graph) {
	for _, a := range g.Authorities {
		m := g.Material(a.Certificate)
		if !m.OK() || m.Leaf() == nil {
			if m != nil || g.Material(a.Key) != nil {
				v.Credentials = append(v.Credentials, KnownCredential{
					Name: a.Name, Node: a.Node, Path: a.Certificate.Path, Problem: problemOf(m), UsedBy: []Use{}, absent: absent(m),
				})
			}
			continue
		}
		at := AuthorityPlace{Node: a.Node, Path: a.Certificate.Path}
		switch k := g.Material(a.Key); {
		case k.OK() && k.HasPrivateKey:
			at.Key = a.Key.Path
		case k != nil && k.State != trust.Missing && k.State != trust.NotGiven:
			at.KeyProblem = problemOf(k)
		}
		known := v.authority(a.Name, a.Node, m)
		known.Places = append(known.Places, at)
	}
}

// authority returns the authority of a material's first certificate, added
// when it is new. Two of one name are told apart by the node.
func (v *Inventory) authority(name, node string, m *trust.Material) *KnownAuthority {
	for i := range v.Authorities {
		if v.Authorities[i].parsed.Leaf().Equal(m.Leaf()) {
			return &v.Authorities[i]
		}
	}
	if slices.ContainsFunc(v.Authorities, func(a KnownAuthority) bool { return a.Name == name }) {
		name += " of " + node
	}
	v.Authorities = append(v.Authorities, KnownAuthority{Name: name, Certificate: inspect.NewCertificate(m.Leaf()), parsed: m})
	return &v.Authorities[len(v.Authorities)-1]
}

func problemOf(m *trust.Material) string {
	if m == nil {
		return "is not in what was given"
	}
	return cmp.Or(m.Reason, string(m.State))
}

func absent(m *trust.Material) bool { return m == nil || m.State == trust.NotGiven }

func (v *Inventory) addCredentials(g *trust.Graph) {
	for _, c := range g.Credentials {
		k := KnownCredential{Name: c.Name, Node: c.Node, Path: c.Certificate.Path, Field: c.Certificate.Field, UsedBy: usesOf(g, c)}
		m := g.Material(c.Certificate)
		if !m.OK() || m.Leaf() == nil {
			k.Problem, k.absent = problemOf(m), absent(m)
		} else {
			k.parsed, k.Certificate = m.Leaf(), inspect.NewCertificate(m.Leaf())
			k.Authority = v.signerOf(g, m)
		}
		v.Credentials = append(v.Credentials, k)
	}
}

// signerOf names the authority that signed a certificate. One that has no file
// of its own in what was given is taken from a bundle or chain, under its
// subject's name.
func (v *Inventory) signerOf(g *trust.Graph, m *trust.Material) string {
	leaf := m.Leaf()
	if trust.SignedBy(leaf, leaf) {
		return ""
	}
	for _, a := range v.Authorities {
		if trust.SignedBy(leaf, a.parsed.Leaf()) {
			return a.Name
		}
	}
	for _, p := range placesOf(g) {
		from := g.Materials[p]
		for _, c := range from.Certificates {
			if c.IsCA && trust.SignedBy(leaf, c) {
				a := v.authority(c.Subject.String(), p.Node, &trust.Material{Place: p, State: trust.Present, Certificates: from.Certificates[slices.Index(from.Certificates, c):]})
				a.Places = append(a.Places, AuthorityPlace{Node: p.Node, Path: p.Path, Field: p.Field})
				return a.Name
			}
		}
	}
	return ""
}

func placesOf(g *trust.Graph) []trust.Place {
	var places []trust.Place
	for p := range g.Materials {
		places = append(places, p)
	}
	slices.SortFunc(places, trust.Place.Compare)
	return places
}

// nameParents tells of each authority which one is above it.
func (v *Inventory) nameParents() {
	for i := range v.Authorities {
		c := v.Authorities[i].parsed.Leaf()
		for j := range v.Authorities {
			above := v.Authorities[j].parsed.Leaf()
			if i != j && !trust.SignedBy(c, c) && trust.SignedBy(c, above) {
				v.Authorities[i].Authority = v.Authorities[j].Name
				break
			}
		}
	}
}

func usesOf(g *trust.Graph, c *trust.Credential) []Use {
	uses := []Use{}
	add := func(u Use) {
		if !slices.Contains(uses, u) {
			uses = append(uses, u)
		}
	}
	for i := range g.Links {
		l := &g.Links[i]
		if l.Server != nil && l.Server.Credential == c {
			add(Use{Link: l.Number, Component: l.Callee, Side: "server", Peer: l.Caller})
		}
		if l.Client != nil && l.Client.Credential == c {
			add(Use{Link: l.Number, Component: l.Caller, Side: "client", Peer: l.Callee})
		}
	}
	return uses
}

// addSigningKeys lists the keys of link 12, each with who signs with it.
func (v *Inventory) addSigningKeys(g *trust.Graph) {
	for i := range g.Links {
		l := &g.Links[i]
		if l.Signing == nil || l.Signing.Key.IsZero() {
			continue
		}
		at := l.Signing.Key
		i := slices.IndexFunc(v.SigningKeys, func(k SigningKey) bool { return k.Node == at.Node && k.Path == at.Path })
		if i < 0 {
			k := SigningKey{Node: at.Node, Path: at.Path}
			if m := g.Material(at); m.OK() && len(m.Keys) > 0 {
				described := inspect.NewKey(m.Keys[0])
				k.KeyAlgorithm, k.PublicKeySHA256 = described.Algorithm, described.PublicKeySHA256
			} else {
				k.Problem = problemOf(m)
			}
			v.SigningKeys, i = append(v.SigningKeys, k), len(v.SigningKeys)
		}
		if !slices.Contains(v.SigningKeys[i].UsedBy, l.Caller) {
			v.SigningKeys[i].UsedBy = append(v.SigningKeys[i].UsedBy, l.Caller)
		}
	}
}

// order is that of kubeadm's list of certificates and kubeconfigs
// (k/k cmd/kubeadm/app/phases/certs/certlist.go, phases/kubeconfig).
var order = []string{
	catalog.RootCA, catalog.ClusterCA, "apiserver", "apiserver-kubelet-client", catalog.FrontProxyCA, "front-proxy-client",
	catalog.EtcdCA, "etcd-server", "etcd-peer", "etcd-healthcheck-client", "apiserver-etcd-client", catalog.KubeletCA, "kubelet-server",
	"admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf", "kube-proxy.conf", "server", "client",
}

func byName(a, b string) int {
	rank := func(name string) int {
		if i := slices.Index(order, name); i >= 0 {
			return i
		}
		return len(order)
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
}

func (v *Inventory) sort(g *trust.Graph) {
	slices.SortStableFunc(v.Authorities, func(a, b KnownAuthority) int { return byName(a.Name, b.Name) })
	node := func(name string) int {
		return slices.IndexFunc(g.Nodes, func(n trust.Node) bool { return n.Name == name })
	}
	slices.SortStableFunc(v.Credentials, func(a, b KnownCredential) int {
		return cmp.Or(cmp.Compare(node(a.Node), node(b.Node)), byName(a.Name, b.Name), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Field, b.Field))
	})
}

// Certificates returns the certificates of the inventory: authorities, then
// credentials, without their chains.
func (v *Inventory) Certificates() []*x509.Certificate {
	var all []*x509.Certificate
	for _, a := range v.Authorities {
		all = append(all, a.parsed.Leaf())
	}
	for _, c := range v.Credentials {
		if c.parsed != nil {
			all = append(all, c.parsed)
		}
	}
	return all
}
