package renew

import (
	"crypto/x509"
	"slices"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// index answers in constant time what a plan asks of a graph for each credential: of
// a thousand nodes, what is searched for each would be searched a million times.
type index struct {
	nodes       map[string]*trust.Node
	kubeconfigs map[trust.Place]*trust.Kubeconfig // by their file
	naming      map[trust.Place]*trust.Kubeconfig // by the certificate that they name
	credentials map[string][]*trust.Credential    // by node
	authorities map[string][]trust.Authority      // by node
	named       map[string][]trust.Authority      // by name
	withKey     []trust.Authority                 // whose key is at hand
	servers     map[*trust.Credential][]*trust.ServerHalf
	wanted      map[*trust.Credential][]trust.Identity
	findings    map[trust.Place][]*check.Finding // by node and path
	apiservers  []*x509.Certificate              // what apiservers show, chains included
	entries     map[string]nodeEntries           // by node
	judgement   *trust.Judgement
}

// nodeEntries are what the catalog, or the configuration, wants of a node.
type nodeEntries struct {
	entries    []catalog.Entry
	configured *catalog.Cluster // nil where no configuration is given
	err        error
}

func newIndex(g *trust.Graph, findings []check.Finding, o Options) *index {
	x := &index{
		nodes: map[string]*trust.Node{}, kubeconfigs: map[trust.Place]*trust.Kubeconfig{}, naming: map[trust.Place]*trust.Kubeconfig{},
		credentials: map[string][]*trust.Credential{}, authorities: map[string][]trust.Authority{}, named: map[string][]trust.Authority{},
		servers: map[*trust.Credential][]*trust.ServerHalf{}, wanted: map[*trust.Credential][]trust.Identity{},
		findings: map[trust.Place][]*check.Finding{}, entries: map[string]nodeEntries{}, judgement: trust.NewJudgement(g, o.At),
	}
	for i := range g.Nodes {
		x.addNode(&g.Nodes[i])
	}
	for _, a := range g.Authorities {
		x.authorities[a.Node] = append(x.authorities[a.Node], a)
		x.named[a.Name] = append(x.named[a.Name], a)
		if o.Keys(a.Key) != nil {
			x.withKey = append(x.withKey, a)
		}
	}
	for _, c := range g.Credentials {
		x.credentials[c.Node] = append(x.credentials[c.Node], c)
		if m := g.Material(c.Certificate); c.Name == "apiserver" && m.OK() {
			x.apiservers = append(x.apiservers, m.Certificates...)
		}
	}
	for i := range g.Links {
		if h := g.Links[i].Server; h != nil && h.Credential != nil {
			x.servers[h.Credential] = append(x.servers[h.Credential], h)
		}
		if h := g.Links[i].Client; h != nil && h.Credential != nil {
			x.wanted[h.Credential] = append(x.wanted[h.Credential], h.Want)
		}
	}
	for i := range findings {
		f := &findings[i]
		for _, file := range append(slices.Clone(f.Paths), f.Path) {
			at := trust.Place{Node: f.Node, Path: file}
			if list := x.findings[at]; len(list) == 0 || list[len(list)-1] != f {
				x.findings[at] = append(list, f)
			}
		}
	}
	return x
}

func (x *index) addNode(n *trust.Node) {
	if x.nodes[n.Name] != nil {
		return
	}
	x.nodes[n.Name] = n
	for i := range n.Kubeconfigs {
		k := &n.Kubeconfigs[i]
		if x.kubeconfigs[k.Place] == nil {
			x.kubeconfigs[k.Place] = k
		}
		if !k.Certificate.IsZero() && x.naming[k.Certificate] == nil {
			x.naming[k.Certificate] = k
		}
	}
}
