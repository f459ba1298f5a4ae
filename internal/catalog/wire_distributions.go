package catalog

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// design is what the distribution of a node arranges, nil where it has none.
func design(n *trust.Node) *Distribution { return distributions[n.Layout] }

// supervisorLinks are those to what distributions put beside the API server.
func (w *wirer) supervisorLinks() {
	w.each(Supervisor, func(n *trust.Node, c *trust.Component) {
		l := trust.Link{Number: 16, Caller: "joining node", Callee: c.ID(), Server: w.supervisorHalf(n, c)}
		if d := design(n); d != nil && d.Fronted {
			l.Number, l.Caller = 4, "any client"
		}
		w.link(l)
	})
	w.each(ControlAPI, func(n *trust.Node, c *trust.Component) {
		serving := w.credential(ControlAPI, n, c, "tls-cert-file", "tls-private-key-file", server)
		w.link(trust.Link{Number: 16, Caller: "joining controller", Callee: c.ID(), Server: &trust.ServerHalf{Credential: serving, Bundle: w.ownAuthority(n, ControlAPI, ClusterCA)}})
	})
}

func (w *wirer) supervisorHalf(n *trust.Node, c *trust.Component) *trust.ServerHalf {
	var names []string
	w.each(APIServer, func(m *trust.Node, apiserver *trust.Component) {
		if m == n {
			names = w.apiserverReached(n, apiserver)
		}
	})
	return &trust.ServerHalf{Credential: w.supervisorCredential(n, c), Bundle: w.ownAuthority(n, Supervisor, ""), Names: names}
}

// Fields of the Secret in which k3s and RKE2 cache the supervisor's certificate
// (rancher/dynamiclistener storage/file).
const (
	DynamicCertificate = "data[tls.crt]"
	DynamicKey         = "data[tls.key]"
)

func (w *wirer) supervisorCredential(n *trust.Node, c *trust.Component) *trust.Credential {
	at := file(n, c, "dynamic-cert")
	if w.g.Material(at) != nil { // it is no such Secret
		return w.credentialAt(Supervisor, n.Name, at, trust.Place{}, server)
	}
	return w.credentialAt(Supervisor, n.Name, at.In(DynamicCertificate), at.In(DynamicKey), server)
}

// shownTo is what a caller on node n is shown who dials the apiserver of node m
// as its kubeconfig says.
func (w *wirer) shownTo(n *trust.Node, k *trust.Kubeconfig, m *trust.Node, callee *trust.Component) *trust.Credential {
	d := design(m)
	host, port, _ := serverOf(k)
	front, _ := callee.Flag("advertise-port")
	if d == nil || !d.Fronted || n == m && isLoopback(host) && port != front {
		return w.servingTo(m, callee, k)
	}
	for i := range m.Components {
		if m.Components[i].Name == Supervisor {
			return w.supervisorCredential(m, &m.Components[i])
		}
	}
	return nil
}

// loopbackServed tells whether something of the cluster serves the API on a port
// of a node's loopback address. Without a distribution any may be a load balancer.
func (w *wirer) loopbackServed(n *trust.Node, port string) bool {
	d := design(n)
	if d == nil || slices.Contains(d.Ports, port) {
		return true
	}
	served := false
	w.each(APIServer, func(_ *trust.Node, c *trust.Component) {
		for _, flag := range []string{"secure-port", "advertise-port"} {
			v, _ := c.Flag(flag)
			served = served || v == port
		}
	})
	return served
}

// balanced tells whether loopback leads to a load balancer on a node.
func balanced(n *trust.Node) bool {
	d := design(n)
	return d != nil && d.Balanced && !hasComponent(n, APIServer)
}

// partWant is whom the API server must take a distribution's own client for.
func partWant(n *trust.Node, component string) (trust.Identity, bool) {
	d := design(n)
	if d == nil {
		return trust.Identity{}, false
	}
	for _, p := range slices.Concat(d.Server, d.Node) {
		if p.Name == component && p.Want.User != "" {
			return p.Want, true
		}
	}
	return trust.Identity{}, false
}

// ownClientLinks are link 9 of the clients that only a distribution has.
func (w *wirer) ownClientLinks() {
	for i := range w.g.Nodes {
		n := &w.g.Nodes[i]
		for j := range n.Components {
			c := &n.Components[j]
			if want, ok := partWant(n, c.Name); ok {
				w.kubeconfigLink(9, c, n, file(n, c, "kubeconfig"), want)
			}
		}
	}
}

// nodeName is the name of a distribution's node, as far as two of its
// credentials agree: the kubelet's two certificates, and those of the apiserver
// and of the kubelet, which hold it beside other names.
func (w *wirer) nodeName(n *trust.Node) string {
	votes := map[string]int{}
	add := func(name string) {
		if name != "" {
			votes[name]++
		}
	}
	if k := w.kubeconfigOf(n, Kubelet); k != nil {
		add(w.nodeNamed(k.Certificate))
	}
	if d := design(n); d.Name != LayoutMicroK8s { // there it is one certificate
		for i := range n.Components {
			if c := &n.Components[i]; c.Name == Kubelet {
				add(w.nodeNamed(file(n, c, "tls-cert-file")))
			}
		}
	}
	best, most := "", 1
	for _, name := range slices.Sorted(maps.Keys(votes)) {
		count := votes[name]
		if name == n.Name {
			count++
		}
		for _, component := range []string{APIServer, Kubelet} {
			if w.holds(n, component, name) {
				count++
			}
		}
		if count > most {
			best, most = name, count
		}
	}
	return best
}

func (w *wirer) nodeNamed(at trust.Place) string {
	leaf := w.g.Material(at).Leaf()
	if leaf == nil {
		return ""
	}
	return strings.TrimPrefix(leaf.Subject.CommonName, "system:node:")
}

// holds tells whether the certificate that a component serves has a name.
func (w *wirer) holds(n *trust.Node, component, name string) bool {
	for i := range n.Components {
		if c := &n.Components[i]; c.Name == component {
			leaf := w.g.Material(file(n, c, "tls-cert-file")).Leaf()
			return leaf != nil && slices.Contains(leaf.DNSNames, name)
		}
	}
	return false
}

// DataOf is the data folder of a distribution's node, as its authorities tell.
func DataOf(n *trust.Node) string {
	d := design(n)
	if d == nil {
		return ""
	}
	for _, a := range n.Authorities {
		for _, known := range slices.Concat(d.Authorities, d.NodeAuthorities) {
			if rest, ok := strings.CutSuffix(a.Certificate, "/"+known.File); ok {
				return path.Clean(rest)
			}
		}
	}
	return d.Data
}
