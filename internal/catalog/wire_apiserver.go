package catalog

import (
	"crypto/x509"
	"encoding/csv"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// apiserverLinks are links 4, 13 and 17: what any client asks of an apiserver.
func (w *wirer) apiserverLinks() {
	w.each(APIServer, func(n *trust.Node, c *trust.Component) {
		reached := w.byServing(n, c, w.apiserverReached(n, c))
		w.link(trust.Link{Number: 4, Caller: "any client", Callee: c.ID(),
			Server: &trust.ServerHalf{Credential: reached[0].credential, Bundle: w.clientsAuthority(n, c), Names: reached[0].names}})
		w.sniLinks(n, c, reached)
		w.link(trust.Link{Number: 13, Caller: c.ID(), Callee: "extension apiserver",
			Client: &trust.ClientHalf{
				Credential: w.credential("front-proxy-client", n, c, "proxy-client-cert-file", "proxy-client-key-file", client),
				Bundle:     w.bundle(n, c, "requestheader-client-ca-file", true),
				Want:       trust.Identity{Names: AllowedNames(c)},
			}})
		w.bundle(n, c, "client-ca-file", true)
	})
	// kube-root-ca.crt, which every pod trusts, is the controller-manager's --root-ca-file.
	w.each(ControllerManager, func(n *trust.Node, c *trust.Component) {
		root := w.bundle(n, c, "root-ca-file", false)
		if root == nil {
			return
		}
		w.each(APIServer, func(m *trust.Node, callee *trust.Component) {
			if m != n {
				return
			}
			for _, s := range w.byServing(m, callee, w.serviceNames(m, callee)) {
				w.link(trust.Link{Number: 17, Caller: "pod", Callee: callee.ID(), Server: &trust.ServerHalf{Credential: s.credential, Bundle: root, Names: s.names}})
			}
		})
	})
}

// clientsAuthority is whom clients of an apiserver trust: the cluster's own
// authority, or what pods are given where that signed the serving certificate and
// the cluster's own did not, as where a public authority signs for servers.
func (w *wirer) clientsAuthority(n *trust.Node, c *trust.Component) *trust.Bundle {
	own := w.ownAuthority(n, "apiserver", ClusterCA)
	served := w.g.Material(file(n, c, "tls-cert-file"))
	if own == nil || served.Leaf() == nil || w.signedBy(served, own.Anchors) {
		return own
	}
	for i := range n.Components {
		m := &n.Components[i]
		if root := file(n, m, "root-ca-file"); m.Name == ControllerManager && !m.Source.IsZero() && w.signedBy(served, root) {
			return w.bundleAt(root, own.Setting, false)
		}
	}
	return own
}

// signedBy tells whether a certificate, or what stands behind it in its file, is
// signed by one of a bundle.
func (w *wirer) signedBy(m *trust.Material, bundle trust.Place) bool {
	b := w.g.Material(bundle)
	return b.OK() && slices.ContainsFunc(m.Certificates, func(x *x509.Certificate) bool {
		return slices.ContainsFunc(b.Certificates, func(a *x509.Certificate) bool { return x.CheckSignatureFrom(a) == nil })
	})
}

func (w *wirer) serving(n *trust.Node, c *trust.Component) *trust.Credential {
	return w.credential("apiserver", n, c, "tls-cert-file", "tls-private-key-file", server)
}

// AllowedNames are the common names that an apiserver's --requestheader-allowed-names
// lets in, as it compares them: blanks and empty names count. Nothing when every name
// is let in.
func AllowedNames(c *trust.Component) []string {
	var out []string
	for _, v := range c.Flags["requestheader-allowed-names"] {
		if v == "" {
			continue
		}
		// pflag reads such a flag as a line of CSV.
		names, err := csv.NewReader(strings.NewReader(v)).Read()
		if err != nil {
			names = strings.Split(v, ",")
		}
		out = append(out, names...)
	}
	return out
}

// list splits a flag's comma-separated values; nil when it is empty or not set.
func list(c *trust.Component, flag string) []string {
	var out []string
	for _, v := range c.Flags[flag] {
		for s := range strings.SplitSeq(v, ",") {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
	}
	return out
}

// serviceNames are what pods dial: the service "kubernetes", by its names and
// its first address. The cluster's domain is known from the issuer of tokens,
// as kubeadm sets it.
func (w *wirer) serviceNames(n *trust.Node, c *trust.Component) []string {
	names := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	if issuer, _ := c.Flag("service-account-issuer"); strings.HasPrefix(issuer, "https://kubernetes.default.svc.") && !c.Setting("service-account-issuer").IsZero() && w.fitsDomain(n, c, strings.TrimPrefix(issuer, "https://")) {
		names = append(names, strings.TrimPrefix(issuer, "https://"))
	}
	if c.Setting("service-account-issuer").IsZero() && w.noFullName(n, c) {
		names = append(names, "kubernetes.default.svc."+DefaultDNSDomain)
	}
	subnets, _ := c.Flag("service-cluster-ip-range")
	if a, err := ServiceAddress(subnets); err == nil && (!c.Setting("service-cluster-ip-range").IsZero() || w.noServiceAddress(n, c)) {
		names = append(names, a.String())
	}
	return names
}

// fitsDomain tells whether an issuer's name is the service's in the cluster's domain,
// and not one that was chosen otherwise: the certificate holds it, or none of the kind.
func (w *wirer) fitsDomain(n *trust.Node, c *trust.Component, name string) bool {
	leaf := w.g.Material(file(n, c, "tls-cert-file")).Leaf()
	return leaf == nil || leaf.VerifyHostname(name) == nil || w.noFullName(n, c)
}

// noFullName tells whether the certificate holds the service's name in no
// domain at all. Without a manifest the domain is a guess, so that any is believed.
func (w *wirer) noFullName(n *trust.Node, c *trust.Component) bool {
	leaf := w.g.Material(file(n, c, "tls-cert-file")).Leaf()
	return leaf != nil && !slices.ContainsFunc(leaf.DNSNames, func(s string) bool {
		return strings.HasPrefix(strings.ToLower(s), "kubernetes.default.svc.")
	})
}

// noServiceAddress tells whether the certificate holds no address that could be
// the service's. Without a manifest the subnet is a guess, so that any address
// is believed that is not known for something else.
func (w *wirer) noServiceAddress(n *trust.Node, c *trust.Component) bool {
	leaf := w.g.Material(file(n, c, "tls-cert-file")).Leaf()
	if leaf == nil {
		return false
	}
	for _, ip := range leaf.IPAddresses {
		a, _ := netip.AddrFromSlice(ip)
		host := a.Unmap().String()
		known := a.Unmap().IsLoopback() || host == w.advertised(n, c)
		for e := range w.endpoints {
			h, _ := SplitHostPort(e)
			known = known || h == host
		}
		if !known {
			return false
		}
	}
	return true
}

// learnNodeNames completes the names of nodes without manifests: kubeadm gives
// the kubelet's identity and both certificates of etcd the node's name. Two of
// them that agree are believed, one alone is not.
func (w *wirer) learnNodeNames() {
	namesAreNodes := false
	for i := range w.g.Nodes {
		n := &w.g.Nodes[i]
		if n.NodeName != "" {
			namesAreNodes = namesAreNodes || n.NodeName == n.Name
			continue
		}
		if design(n) != nil {
			n.NodeName = w.nodeName(n)
			namesAreNodes = namesAreNodes || n.Name != "" && n.NodeName == n.Name
			continue
		}
		votes := map[string]int{}
		vote := func(p trust.Place, prefix string) {
			if leaf := w.g.Material(p).Leaf(); leaf != nil {
				if name, ok := strings.CutPrefix(leaf.Subject.CommonName, prefix); ok && name != "" {
					votes[name]++
				}
			}
		}
		if k := w.kubeconfigOf(n, Kubelet); k != nil {
			vote(k.Certificate, "system:node:")
			namesAreNodes = namesAreNodes || n.Name != "" && votes[n.Name] > 0
		}
		dir := certificatesDir(n)
		if layoutOf(n).Name != LayoutKubeadm {
			n.NodeName = w.servedName(n, votes)
			namesAreNodes = namesAreNodes || n.NodeName != ""
			continue // elsewhere the two often are one certificate, or have a name of their own
		}
		vote(trust.Place{Node: n.Name, Path: dir + "/etcd/server.crt"}, "")
		vote(trust.Place{Node: n.Name, Path: dir + "/etcd/peer.crt"}, "")
		for name, times := range votes {
			if times > 1 {
				n.NodeName = name
			}
		}
	}
	// Once one node is called by the name of its kubelet, the names that the
	// nodes were given are node names.
	for i := range w.g.Nodes {
		if n := &w.g.Nodes[i]; namesAreNodes && n.NodeName == "" {
			n.NodeName = n.Name
		}
	}
}

// servedName is the name by which the kubelet's serving certificate knows the
// node: that of its own identity before that which the node was given here; empty
// when the certificate holds neither.
func (w *wirer) servedName(n *trust.Node, identity map[string]int) string {
	for _, name := range append(slices.Sorted(maps.Keys(identity)), n.Name) {
		if name != "" && w.holds(n, Kubelet, name) {
			return name
		}
	}
	return ""
}

// apiserverReached are the names at which an apiserver is configured to be
// reached: service, advertise address, node name and endpoints.
func (w *wirer) apiserverReached(n *trust.Node, c *trust.Component) []string {
	var names []string
	if a := w.advertised(n, c); a != "" {
		names = append(names, a)
	}
	if n.NodeName != "" && layoutOf(n).NodeNames {
		names = append(names, n.NodeName)
	}
	names = append(names, list(c, "tls-san")...)
	for e := range w.endpoints {
		host, _ := SplitHostPort(e)
		if !w.otherNodes(n, host) {
			names = append(names, host)
		}
	}
	slices.Sort(names)
	return unique(append(w.serviceNames(n, c), names...))
}

// otherNodes tells whether a host is the advertise address of another node.
func (w *wirer) otherNodes(n *trust.Node, host string) bool {
	found := false
	w.each(APIServer, func(m *trust.Node, c *trust.Component) {
		found = found || m != n && w.advertised(m, c) == host
	})
	return found
}

// advertised is the address at which an apiserver says that it is: its flag,
// or, without a manifest, what its own node's controller-manager and scheduler
// both dial.
func (w *wirer) advertised(n *trust.Node, c *trust.Component) string {
	if v, ok := c.Flag("advertise-address"); ok {
		return canonicalHost(v)
	}
	var dialled []string
	for _, name := range []string{ControllerManager, Scheduler} {
		if k := w.kubeconfigOf(n, name); k != nil {
			if host, _, ok := serverOf(k); ok {
				dialled = append(dialled, host)
			}
		}
	}
	if len(dialled) == 2 && dialled[0] == dialled[1] {
		if a, err := netip.ParseAddr(dialled[0]); err == nil && !a.IsLoopback() {
			return dialled[0]
		}
	}
	return ""
}

func (w *wirer) kubeconfigOf(n *trust.Node, component string) *trust.Kubeconfig {
	for i := range n.Components {
		c := &n.Components[i]
		if c.Name == component {
			return kubeconfigAt(n, file(n, c, "kubeconfig"))
		}
	}
	return nil
}

func kubeconfigAt(n *trust.Node, p trust.Place) *trust.Kubeconfig {
	for i := range n.Kubeconfigs {
		if n.Kubeconfigs[i].Place == p {
			return &n.Kubeconfigs[i]
		}
	}
	return nil
}

// serverOf returns host and port of the URL that a kubeconfig dials.
func serverOf(k *trust.Kubeconfig) (host, port string, ok bool) {
	u, err := url.Parse(k.Server)
	if err != nil || u.Hostname() == "" {
		return "", "", false
	}
	port = u.Port()
	if port == "" {
		port = "443"
	}
	return canonicalHost(u.Hostname()), port, true
}

// canonicalHost brings the forms of one name or address together: capitals, a dot at
// the end, the many forms of IPv6. crypto/x509 takes any of them.
func canonicalHost(host string) string {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().WithZone("").String()
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// learnEndpoints finds the host:port pairs at which the control plane is
// configured to be reached: each apiserver's own address, and what at least
// two kubeconfigs dial, one of them of a control-plane node. A single
// kubeconfig that stands alone is not believed.
func (w *wirer) learnEndpoints() {
	w.endpoints = map[string]bool{}
	dialled, onControlPlane := map[string]int{}, map[string]bool{}
	for i := range w.g.Nodes {
		n := &w.g.Nodes[i]
		for j := range n.Kubeconfigs {
			host, port, ok := serverOf(&n.Kubeconfigs[j])
			if !ok || n.Kubeconfigs[j].Remote {
				continue
			}
			e := joinHostPort(host, port)
			dialled[e]++
			onControlPlane[e] = onControlPlane[e] || hasComponent(n, APIServer)
		}
	}
	ports := map[string]string{} // of the addresses that manifests tell
	w.each(APIServer, func(_ *trust.Node, c *trust.Component) {
		if v, ok := c.Flag("advertise-address"); ok && !c.Source.IsZero() {
			ports[canonicalHost(v)] = flagOr(c, "secure-port", strconv.Itoa(DefaultBindPort))
		}
	})
	for e, times := range dialled {
		host, port := SplitHostPort(e)
		if known := ports[host]; times > 1 && onControlPlane[e] && (known == "" || known == port) {
			w.endpoints[e] = true
		}
	}
	w.each(APIServer, func(n *trust.Node, c *trust.Component) {
		if v, ok := c.Flag("advertise-address"); ok && !c.Setting("advertise-address").IsZero() {
			port, ok := c.Flag("secure-port")
			if v, set := c.Flag("advertise-port"); set {
				port, ok = v, true
			}
			if !ok {
				port = "6443"
			}
			w.endpoints[joinHostPort(canonicalHost(v), port)] = true
		}
	})
}
