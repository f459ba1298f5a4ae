package catalog

import (
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// callers are the components that reach the apiserver by kubeconfig.
var callers = []struct {
	component  string
	number     int
	credential string
	want       trust.Identity
}{
	{ControllerManager, 5, "controller-manager.conf", trust.Identity{Named: true, User: "system:kube-controller-manager"}},
	{Scheduler, 6, "scheduler.conf", trust.Identity{Named: true, User: "system:kube-scheduler"}},
	{KubeProxy, 7, "kube-proxy.conf", trust.Identity{User: "system:kube-proxy"}},
	{Kubelet, 8, "kubelet.conf", trust.Identity{Named: true, Prefix: "system:node:", Group: "system:nodes"}},
	{Admin, 9, "admin.conf", trust.Identity{Named: true}},
	{SuperAdmin, 9, "super-admin.conf", trust.Identity{Named: true, Group: "system:masters"}},
}

// kubeconfigLinks are links 5 to 9 and 16.
func (w *wirer) kubeconfigLinks() {
	for _, caller := range callers {
		w.each(caller.component, func(n *trust.Node, c *trust.Component) {
			at := file(n, c, "kubeconfig")
			want := caller.want
			if caller.component == Kubelet && n.NodeName != "" {
				want.User = want.Prefix + n.NodeName
			}
			w.kubeconfigLink(caller.number, c, n, at, want)
		})
	}
	w.each(Kubelet, func(n *trust.Node, c *trust.Component) {
		if at := file(n, c, "bootstrap-kubeconfig"); !at.IsZero() {
			w.kubeconfigLink(16, c, n, at, trust.Identity{})
		}
	})
	w.ownClientLinks()
	// Kubeconfigs beside the known ones are users'.
	for i := range w.g.Nodes {
		n := &w.g.Nodes[i]
		for j := range n.Kubeconfigs {
			k := &n.Kubeconfigs[j]
			if !k.Remote && !w.named(n, k.Place) {
				user := &trust.Component{Node: n.Name, Name: "user " + strings.TrimSuffix(path.Base(k.Place.Path), ".conf")}
				w.kubeconfigLink(9, user, n, k.Place, trust.Identity{Named: true})
			}
		}
	}
}

// judgeKubeconfigs marks the kubeconfigs of components that parse and yet
// cannot work: client-go would dial nobody, show nothing, or trust the
// authorities of the machine.
func (w *wirer) judgeKubeconfigs() {
	for i := range w.g.Nodes {
		n := &w.g.Nodes[i]
		n.Kubeconfigs = slices.Clone(n.Kubeconfigs)
		for j := range n.Kubeconfigs {
			k := &n.Kubeconfigs[j]
			if k.State != trust.Present || !k.Remote && !w.named(n, k.Place) {
				continue
			}
			if field, reason := kubeconfigFault(k); reason != "" {
				k.State, k.Field, k.Reason = trust.Malformed, field, field+" "+reason
			}
		}
	}
}

func kubeconfigFault(k *trust.Kubeconfig) (field, reason string) {
	user, cluster := "users["+k.User+"].user", "clusters["+k.Cluster+"].cluster"
	u, err := url.Parse(k.Server)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return cluster + ".server", "is no URL of the form https://HOST:PORT"
	case k.Certificate.IsZero() && !k.Key.IsZero():
		return user + ".client-certificate-data", "is not set, while there is a client key"
	case k.Remote: // a webhook may ask for no credential
		return "", ""
	case k.Certificate.IsZero() && !k.HasToken:
		return user, "holds neither a client certificate nor a token: its bearer is anonymous"
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil && u.Scheme == "https" && k.CA.IsZero() && !k.Insecure {
		return cluster + ".certificate-authority-data", "is not set, so that only the machine's own authorities are trusted"
	}
	return "", ""
}

// named tells whether a flag of some component names the kubeconfig.
func (w *wirer) named(n *trust.Node, at trust.Place) bool {
	for i := range n.Components {
		for _, u := range flagUses[n.Components[i].Name] {
			if u.Role == RoleKubeconfig && file(n, &n.Components[i], u.Flag) == at {
				return true
			}
		}
	}
	return false
}

func (w *wirer) kubeconfigLink(number int, caller *trust.Component, n *trust.Node, at trust.Place, want trust.Identity) {
	k := kubeconfigAt(n, at)
	if k == nil || k.State != trust.Present {
		if k != nil {
			w.brokenKubeconfig(number, caller, k)
		}
		return
	}
	var shown *trust.Credential
	if !k.Certificate.IsZero() {
		shown = w.credentialAt(path.Base(at.Path), n.Name, k.Certificate, k.Key, client)
	}
	bundle := w.kubeconfigBundle(k)
	found := false
	w.each(APIServer, func(m *trust.Node, callee *trust.Component) {
		if !w.dials(n, k, m, callee) {
			return
		}
		found = true
		l := trust.Link{Number: number, Caller: caller.ID(), Callee: callee.ID(), Server: &trust.ServerHalf{
			Credential: w.shownTo(n, k, m, callee), Bundle: bundle, Names: dialledNames(k), Dialled: w.endpoint(n, k), Unverified: k.Insecure || strings.HasPrefix(k.Server, "http:"),
		}}
		if shown != nil {
			l.Client = &trust.ClientHalf{Credential: shown, Bundle: w.bundle(m, callee, "client-ca-file", true), Want: want}
		}
		w.link(l)
	})
	if !found {
		l := trust.Link{Number: number, Caller: caller.ID(), Callee: "kube-apiserver elsewhere", Server: &trust.ServerHalf{Bundle: bundle, Dialled: w.endpoint(n, k)}}
		if shown != nil {
			l.Client = &trust.ClientHalf{Credential: shown, Bundle: w.ownAuthority(n, Clients, ClusterCA), Want: want}
		}
		w.link(l)
	}
}

// brokenKubeconfig keeps the link of a kubeconfig that cannot be read, so that
// its absence is seen in the table.
func (w *wirer) brokenKubeconfig(number int, caller *trust.Component, k *trust.Kubeconfig) {
	w.brokenKubeconfigTo(number, caller, k, "kube-apiserver")
}

func (w *wirer) brokenKubeconfigTo(number int, caller *trust.Component, k *trust.Kubeconfig, callee string) {
	if k.State == trust.NotGiven || k.State == trust.Denied {
		w.link(trust.Link{Number: number, Caller: caller.ID(), Callee: callee, Client: &trust.ClientHalf{}})
		return
	}
	// The material of the whole file is absent, which both halves then are.
	missing := &trust.Material{Place: k.Place, Role: trust.RoleCertificate, State: k.State, Reason: k.Reason}
	w.g.Materials[k.Place] = missing
	shown := w.credentialAt(path.Base(k.Place.Path), k.Place.Node, k.Place, trust.Place{}, client)
	w.link(trust.Link{Number: number, Caller: caller.ID(), Callee: callee, Client: &trust.ClientHalf{Credential: shown}})
}

func (w *wirer) kubeconfigBundle(k *trust.Kubeconfig) *trust.Bundle {
	if k.CA.IsZero() {
		return nil
	}
	setting := k.CA
	if k.CA.File() != k.Place {
		setting = k.Place.In("clusters[" + k.Cluster + "].cluster.certificate-authority")
	}
	return w.bundleAt(k.CA, setting, false)
}

// servingTo is what an apiserver shows to who dials as a kubeconfig says.
func (w *wirer) servingTo(n *trust.Node, c *trust.Component, k *trust.Kubeconfig) *trust.Credential {
	for _, name := range dialledNames(k) {
		return w.servingAt(n, c, name)
	}
	return w.serving(n, c)
}

func dialledNames(k *trust.Kubeconfig) []string {
	if k.ServerName != "" {
		return []string{k.ServerName}
	}
	if host, _, ok := serverOf(k); ok {
		return []string{host}
	}
	return nil
}

// endpoint tells where a kubeconfig dials, and whether anything serves there.
func (w *wirer) endpoint(n *trust.Node, k *trust.Kubeconfig) *trust.Endpoint {
	host, port, ok := serverOf(k)
	if !ok {
		return nil
	}
	if k.ServerName != "" {
		return &trust.Endpoint{Setting: k.Place.In("clusters[" + k.Cluster + "].cluster.tls-server-name"), Host: k.ServerName, Port: port,
			Served: w.servedByName(k.ServerName, "")}
	}
	e := &trust.Endpoint{Setting: k.Place.In("clusters[" + k.Cluster + "].cluster.server"), Host: host, Port: port}
	e.Served = len(w.endpoints) == 0 && !(isLoopback(host) && design(n) != nil) || w.endpoints[joinHostPort(host, port)] || isLoopback(host) && w.loopbackServed(n, port) || w.servedByName(host, port)
	return e
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// servedByName tells whether an apiserver's certificate holds the host, and no
// configured endpoint of the same host has another port (if one is given).
func (w *wirer) servedByName(host, port string) bool {
	for e := range w.endpoints {
		if h, p := SplitHostPort(e); port != "" && h == host && p != port {
			return false
		}
	}
	found := false
	w.each(APIServer, func(n *trust.Node, c *trust.Component) {
		m := w.g.Material(file(n, c, "tls-cert-file"))
		found = found || m.Leaf() != nil && m.Leaf().VerifyHostname(host) == nil
	})
	return found
}

// dials tells whether a kubeconfig of node n leads to the apiserver of node m:
// by its own address, by loopback, or by an endpoint that is nobody's own.
func (w *wirer) dials(n *trust.Node, k *trust.Kubeconfig, m *trust.Node, apiserver *trust.Component) bool {
	host, _, ok := serverOf(k)
	if !ok {
		return false
	}
	if isLoopback(host) {
		return n == m || balanced(n)
	}
	if w.advertised(m, apiserver) == host {
		return true
	}
	owned := false
	w.each(APIServer, func(o *trust.Node, c *trust.Component) { owned = owned || w.advertised(o, c) == host })
	return !owned
}
