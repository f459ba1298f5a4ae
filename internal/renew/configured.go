package renew

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// entry is what the configuration, or without one the catalog, wants of a
// credential's role; the zero Entry where neither knows one of this name.
func (p *planner) entry(cred *trust.Credential) catalog.Entry {
	for _, e := range p.wantedOf(cred.Node).entries {
		if e.Name == cred.Name && (e.Kind == catalog.KindLeaf || e.Kind == catalog.KindKubeconfig && e.Path == p.conf(cred)) {
			return e
		}
	}
	return catalog.Entry{}
}

// configured is the configuration of a node; nil where none is given.
func (p *planner) configured(node string) *catalog.Cluster { return p.wantedOf(node).configured }

// wantedOf is what is wanted of a node, found out once.
func (p *planner) wantedOf(node string) nodeEntries {
	w, known := p.entries[node]
	if known {
		return w
	}
	n := p.node(node)
	c := p.guessed(n)
	if p.Configured != nil {
		if w.configured, w.err = p.fromConfiguration(n); w.configured != nil {
			c = w.configured
		}
	}
	if nodes, err := c.Entries(); err == nil && len(nodes) > 0 {
		at := 0
		if len(c.Workers) > 0 {
			at = len(nodes) - 1 // behind the control planes, which it dials
		}
		w.entries = nodes[at].Entries
	}
	p.entries[node] = w
	return w
}

// guessed is the cluster as the flags of a node's components tell it.
func (p *planner) guessed(n *trust.Node) *catalog.Cluster {
	c := &catalog.Cluster{
		CertificatesDir: catalog.DefaultCertificatesDir, ServiceSubnet: catalog.DefaultServiceSubnet, DNSDomain: catalog.DefaultDNSDomain, KubeProxy: true,
		KubeletAuthority: p.hasAuthority(n.Name, catalog.KubeletCA), Validity: catalog.DefaultValidity, CAValidity: catalog.DefaultCAValidity,
		ControlPlanes: []catalog.ControlPlane{{Name: p.nodeName(n), Address: p.advertised(n), BindPort: catalog.DefaultBindPort}},
	}
	if a := apiserver(n); a != nil {
		if v, ok := a.Flag("service-cluster-ip-range"); ok {
			c.ServiceSubnet = v
		}
		if v, _ := a.Flag("service-account-issuer"); strings.HasPrefix(v, "https://kubernetes.default.svc.") {
			c.DNSDomain = strings.TrimPrefix(v, "https://kubernetes.default.svc.")
		}
	}
	return c
}

// fromConfiguration is the configuration with this node alone in it. One that names a
// single control plane, as kubeadm's does, holds for each node that runs one: name and
// address are the node's own then.
func (p *planner) fromConfiguration(n *trust.Node) (*catalog.Cluster, error) {
	name, address := p.nodeName(n), p.advertised(n)
	given, err := p.Configured(n.Name, name, address)
	if err != nil || given == nil {
		return nil, err
	}
	c := *given
	c.KubeProxy, c.KubeletAuthority = true, c.KubeletAuthority || p.hasAuthority(n.Name, catalog.KubeletCA)
	is := func(other string) bool {
		return strings.EqualFold(other, name) || n.Name != "" && strings.EqualFold(other, n.Name)
	}
	if i := slices.IndexFunc(given.ControlPlanes, func(o catalog.ControlPlane) bool { return is(o.Name) }); i >= 0 {
		c.ControlPlanes, c.Workers = given.ControlPlanes[i:i+1], nil
		return &c, nil
	}
	if i := slices.IndexFunc(given.EtcdMembers, func(o catalog.EtcdMember) bool { return is(o.Name) }); i >= 0 {
		c.ControlPlanes, c.Workers, c.EtcdMembers = nil, nil, given.EtcdMembers[i:i+1]
		return &c, nil
	}
	if apiserver(n) == nil {
		return p.asWorker(&c, given, name, is), nil
	}
	if len(given.ControlPlanes) != 1 {
		return nil, &Refusal{name, "the configuration names no such node", "add it to controlPlanes, or give the configuration of this node"}
	}
	own := given.ControlPlanes[0]
	if name != "" {
		own.Name = name
	}
	if address.IsValid() {
		own.Address = address
	}
	c.ControlPlanes, c.Workers = []catalog.ControlPlane{own}, nil
	return &c, nil
}

// asWorker is the configuration of a node that runs no API server: entries of control
// planes do not concern it.
func (p *planner) asWorker(c, given *catalog.Cluster, name string, is func(string) bool) *catalog.Cluster {
	worker := catalog.Worker{Name: name}
	if i := slices.IndexFunc(given.Workers, func(o catalog.Worker) bool { return is(o.Name) }); i >= 0 {
		worker = given.Workers[i]
	}
	c.Workers, c.EtcdMembers = []catalog.Worker{worker}, nil
	return c
}

// advertised is the address of the node's apiserver; the zero Addr when unknown.
func (p *planner) advertised(n *trust.Node) netip.Addr {
	if a := apiserver(n); a != nil {
		if v, ok := a.Flag("advertise-address"); ok {
			addr, _ := netip.ParseAddr(v)
			return addr
		}
	}
	for _, name := range []string{"scheduler.conf", "controller-manager.conf"} {
		if addr := addressIn(p.serverOf(n.Name, name)); addr.IsValid() && !addr.IsLoopback() {
			return addr
		}
	}
	return netip.Addr{}
}

// conf is the path of the kubeconfig that a credential is of.
func (p *planner) conf(cred *trust.Credential) string {
	if k := p.kubeconfigOf(cred); k != nil {
		return k.Place.Path
	}
	return cred.Certificate.Path
}

func (p *planner) hasAuthority(node, name string) bool {
	return slices.ContainsFunc(p.authorities[node], func(a trust.Authority) bool { return a.Name == name })
}

// nodeName is the node's, as the files or, without them, its kubelet's identity
// tell it.
func (p *planner) nodeName(n *trust.Node) string {
	if n.NodeName != "" {
		return n.NodeName
	}
	for _, cred := range p.credentials[n.Name] {
		if leaf := p.g.Material(cred.Certificate).Leaf(); cred.Name == "kubelet.conf" && leaf != nil {
			if name, ok := strings.CutPrefix(leaf.Subject.CommonName, nodePrefix); ok {
				return name
			}
		}
	}
	return ""
}

const nodePrefix = "system:node:"

// serverOf is the URL that a kubeconfig of a node dials, empty when it is not known.
func (p *planner) serverOf(node, name string) string {
	n := p.nodes[node]
	for i := range n.Kubeconfigs {
		if k := &n.Kubeconfigs[i]; path.Base(k.Place.Path) == name && isURL(k.Server) {
			return k.Server
		}
	}
	return ""
}

// refusedByConfiguration tells why the configuration cannot be that of a node.
func (p *planner) refusedByConfiguration(i *Item) error {
	if err := p.wantedOf(i.Node).err; err != nil {
		return fmt.Errorf("%s: %w", i.ID(), err)
	}
	return nil
}
