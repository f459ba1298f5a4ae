package catalog

import (
	"cmp"
	"crypto/x509"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// Wire makes the trust graph of one cluster from the facts read of its nodes:
// it follows each flag and kubeconfig to the files, and pairs the callers with
// the callees that they dial. It is pure and keeps the order of the nodes.
func Wire(nodes []trust.Node) *trust.Graph {
	nodes = slices.Clone(nodes)
	w := &wirer{
		g:           &trust.Graph{Nodes: nodes, Materials: map[trust.Place]*trust.Material{}},
		credentials: map[[2]trust.Place]*trust.Credential{},
	}
	for i := range nodes {
		for _, m := range nodes[i].Materials {
			w.g.Materials[m.Place] = m
		}
	}
	w.authorities()
	w.judgeKubeconfigs()
	w.learnNodeNames()
	w.learnEndpoints()
	w.etcdLinks()
	w.apiserverLinks()
	w.kubeconfigLinks()
	w.kubeletLinks()
	w.tokenLinks()
	w.remoteLinks()
	w.metricsLinks()
	w.supervisorLinks()
	w.serviceLinks()
	w.objectLinks()
	slices.SortStableFunc(w.g.Links, func(a, b trust.Link) int { return a.Number - b.Number })
	return w.g
}

type wirer struct {
	g           *trust.Graph
	credentials map[[2]trust.Place]*trust.Credential // by the places of certificate and key
	endpoints   map[string]bool                      // host:port at which the control plane is configured to be reached
}

// each calls f for all components of a name, in the order of the nodes.
func (w *wirer) each(name string, f func(n *trust.Node, c *trust.Component)) {
	for i := range w.g.Nodes {
		n := &w.g.Nodes[i]
		for j := range n.Components {
			if n.Components[j].Name == name {
				f(n, &n.Components[j])
			}
		}
	}
}

func (w *wirer) authorities() {
	for i := range w.g.Nodes {
		n := &w.g.Nodes[i]
		if n.Objects != nil {
			continue // the API has no files
		}
		for _, a := range n.Authorities {
			at, key := trust.Place{Node: n.Name, Path: a.Certificate}, trust.Place{}
			if a.Key != "" {
				key = trust.Place{Node: n.Name, Path: a.Key}
			}
			if w.g.Material(at) == nil && w.g.Material(key) == nil {
				continue
			}
			w.g.Authorities = append(w.g.Authorities, trust.Authority{Name: a.Name, Node: n.Name, Certificate: at, Key: key, Signs: a.Signs})
		}
	}
}

// file returns the place of the file that a flag names; zero when it is not set.
func file(n *trust.Node, c *trust.Component, flag string) trust.Place {
	v, ok := c.Flag(flag)
	if !ok || !path.IsAbs(v) {
		return trust.Place{}
	}
	return trust.Place{Node: n.Name, Path: path.Clean(v)}
}

// credential returns the credential of two flags, nil when they are not set.
func (w *wirer) credential(name string, n *trust.Node, c *trust.Component, certFlag, keyFlag string, u usages) *trust.Credential {
	known := w.credentialAt(name, n.Name, file(n, c, certFlag), file(n, c, keyFlag), u)
	if at := c.Setting(keyFlag); known != nil && !at.IsZero() {
		known.KeySetting = at
	}
	return known
}

func (w *wirer) credentialAt(name, node string, certificate, key trust.Place, u usages) *trust.Credential {
	if certificate.IsZero() {
		return nil
	}
	pair := [2]trust.Place{certificate, key}
	known := w.credentials[pair]
	if known == nil {
		known = &trust.Credential{ID: name, Name: name, Node: node, Certificate: certificate, Key: key}
		if node != "" {
			known.ID = node + "/" + name
		}
		w.credentials[pair] = known
		w.g.Credentials = append(w.g.Credentials, known)
	}
	known.Server = known.Server || u&server != 0
	known.Client = known.Client || u&client != 0
	return known
}

// bundle returns the bundle of a flag, nil when the flag is not set.
func (w *wirer) bundle(n *trust.Node, c *trust.Component, flag string, ofClients bool) *trust.Bundle {
	at := file(n, c, flag)
	if at.IsZero() {
		return nil
	}
	setting := cmp.Or(c.Setting(flag), at)
	b := w.bundleAt(at, setting, ofClients)
	// etcd reads its bundles itself, and those of its clients (etcd
	// client/pkg/tlsutil/tlsutil.go): each block is a certificate to it.
	b.Headed = b.Headed || c.Name == Etcd || c.Name == Etcdctl || flag == "etcd-cafile"
	return b
}

func (w *wirer) bundleAt(anchors, setting trust.Place, ofClients bool) *trust.Bundle {
	for _, b := range w.g.Bundles {
		if b.Anchors == anchors && b.Setting == setting && b.Client == ofClients {
			return b
		}
	}
	b := &trust.Bundle{Anchors: anchors, Setting: setting, Client: ofClients}
	w.g.Bundles = append(w.g.Bundles, b)
	return b
}

func (w *wirer) link(l trust.Link) { w.g.Links = append(w.g.Links, l) }

// etcdLinks are links 1, 2, 3 and 15.
func (w *wirer) etcdLinks() {
	members := 0
	w.each(Etcd, func(*trust.Node, *trust.Component) { members++ })
	w.each(Etcd, func(n *trust.Node, callee *trust.Component) {
		serving := w.credential("etcd-server", n, callee, "cert-file", "key-file", etcdUsages(callee, "client-cert-file"))
		peer := w.credential("etcd-peer", n, callee, "peer-cert-file", "peer-key-file", etcdUsages(callee, "peer-client-cert-file"))
		w.credential("etcd-client", n, callee, "client-cert-file", "client-key-file", client)
		w.each(Etcd, func(m *trust.Node, caller *trust.Component) {
			// A single member dials nobody: its pair is judged by itself, as
			// the next member will judge it.
			if m == n && members > 1 {
				return
			}
			shown := w.peerClient(m, caller)
			w.link(trust.Link{Number: 1, Caller: caller.ID(), Callee: callee.ID(),
				Server: &trust.ServerHalf{Credential: peer, Bundle: w.bundle(m, caller, "peer-trusted-ca-file", true), Names: w.memberHosts(n, callee, "initial-advertise-peer-urls")},
				Client: &trust.ClientHalf{Credential: shown, Bundle: w.bundle(n, callee, "peer-trusted-ca-file", true)}})
		})
		w.link(trust.Link{Number: 2, Caller: "any client", Callee: callee.ID(),
			Server: &trust.ServerHalf{Credential: serving, Bundle: w.ownAuthority(n, "etcd-server", EtcdCA), Names: w.etcdNames(n, callee)}})
		w.each(APIServer, func(m *trust.Node, caller *trust.Component) {
			names, dials := dialledEtcd(m, caller, n, callee)
			if !dials {
				return
			}
			w.link(trust.Link{Number: 3, Caller: caller.ID(), Callee: callee.ID(),
				Server: &trust.ServerHalf{Credential: serving, Bundle: w.bundle(m, caller, "etcd-cafile", false), Names: names},
				Client: &trust.ClientHalf{Credential: w.credential("apiserver-etcd-client", m, caller, "etcd-certfile", "etcd-keyfile", client), Bundle: w.bundle(n, callee, "trusted-ca-file", true)}})
		})
		w.each(Etcdctl, func(m *trust.Node, caller *trust.Component) {
			if m != n {
				return
			}
			w.link(trust.Link{Number: 15, Caller: caller.ID(), Callee: callee.ID(),
				Server: &trust.ServerHalf{Credential: serving, Bundle: w.bundle(m, caller, "cacert", false), Names: loopbackOf(callee)},
				Client: &trust.ClientHalf{Credential: w.credential("etcd-healthcheck-client", m, caller, "cert", "key", client), Bundle: w.bundle(n, callee, "trusted-ca-file", true)}})
		})
	})
	if members == 0 {
		w.etcdElsewhere()
	}
}

// etcdUsages are those of a pair that etcd serves with, and shows as a client too
// unless it has another for that.
func etcdUsages(c *trust.Component, other string) usages {
	if v, _ := c.Flag(other); v != "" {
		return server
	}
	return server | client
}

// peerClient is what a member shows to others: its pair for that, where it has one
// (etcd client/pkg/transport/listener.go), else the one that it serves.
func (w *wirer) peerClient(n *trust.Node, c *trust.Component) *trust.Credential {
	if cred := w.credential("etcd-peer-client", n, c, "peer-client-cert-file", "peer-client-key-file", client); cred != nil {
		return cred
	}
	return w.credential("etcd-peer", n, c, "peer-cert-file", "peer-key-file", server|client)
}

// etcdElsewhere is link 3 to an etcd whose nodes were not given.
func (w *wirer) etcdElsewhere() {
	w.each(APIServer, func(n *trust.Node, c *trust.Component) {
		cred := w.credential("apiserver-etcd-client", n, c, "etcd-certfile", "etcd-keyfile", client)
		if cred == nil {
			return
		}
		w.link(trust.Link{Number: 3, Caller: c.ID(), Callee: "etcd elsewhere", Server: &trust.ServerHalf{},
			Client: &trust.ClientHalf{Credential: cred}})
		w.bundle(n, c, "etcd-cafile", false)
	})
}

// ownAuthority is the bundle of a careful client: the own file of the authority
// that, as the layout says, signs credentials of a name, or else of the
// authority of a name; or, during a rotation, what holds more and is given to
// clients.
func (w *wirer) ownAuthority(n *trust.Node, signs, name string) *trust.Bundle {
	for _, fits := range []func(trust.Authority) bool{
		func(a trust.Authority) bool { return slices.Contains(a.Signs, signs) },
		func(a trust.Authority) bool { return a.Name == name },
	} {
		for _, a := range w.g.Authorities {
			if a.Node == n.Name && fits(a) {
				b := w.bundleAt(w.given(n, a), a.Certificate, false)
				b.Headed = name == EtcdCA
				return b
			}
		}
	}
	return nil
}

// given is the file of an authority that its clients are given: its own, or one
// that holds more.
func (w *wirer) given(n *trust.Node, a trust.Authority) trust.Place {
	for i := range n.Components {
		c := &n.Components[i]
		flag := map[string]string{ControllerManager + ClusterCA: "root-ca-file", Etcd + EtcdCA: "trusted-ca-file"}[c.Name+a.Name]
		if flag == "" || c.Source.IsZero() {
			continue
		}
		if given := file(n, c, flag); given != a.Certificate && w.holdsAll(given, a.Certificate) {
			return given
		}
	}
	return a.Certificate
}

// holdsAll tells whether a bundle holds every key of another, and more.
func (w *wirer) holdsAll(bundle, other trust.Place) bool {
	all, some := w.g.Material(bundle), w.g.Material(other)
	if !all.OK() || !some.OK() || len(some.Certificates) == 0 || len(all.Certificates) <= len(some.Certificates) {
		return false
	}
	return !slices.ContainsFunc(some.Certificates, func(x *x509.Certificate) bool {
		return !slices.ContainsFunc(all.Certificates, func(y *x509.Certificate) bool { return trust.SameKey(x.PublicKey, y.PublicKey) })
	})
}

// etcdNames are the names at which an etcd member is configured to be reached.
func (w *wirer) etcdNames(n *trust.Node, c *trust.Component) []string {
	return unique(append(w.memberHosts(n, c, "advertise-client-urls"), hosts(c, "listen-client-urls")...))
}

// memberHosts are the hosts of a flag, or, without a manifest, the advertise
// address of the node's apiserver, at which kubeadm lets its member listen.
func (w *wirer) memberHosts(n *trust.Node, c *trust.Component, flag string) []string {
	if _, set := c.Flag(flag); set || !c.Source.IsZero() {
		return hosts(c, flag)
	}
	for i := range n.Components {
		if n.Components[i].Name == APIServer {
			if a := w.advertised(n, &n.Components[i]); a != "" {
				return []string{a}
			}
		}
	}
	return nil
}

// loopbackOf is what etcdctl and probes on the member's own node dial.
func loopbackOf(c *trust.Component) []string {
	for _, h := range hosts(c, "listen-client-urls") {
		if a, err := netip.ParseAddr(h); err == nil && a.IsLoopback() {
			return []string{h}
		}
	}
	return []string{"127.0.0.1"}
}

// hosts are the hosts of a flag's URLs that use TLS, wildcards left out.
func hosts(c *trust.Component, flag string) []string {
	value, _ := c.Flag(flag)
	var out []string
	for raw := range strings.SplitSeq(value, ",") {
		u, err := url.Parse(strings.TrimSpace(raw))
		if err != nil || u.Scheme != "https" || u.Hostname() == "" {
			continue
		}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil && a.IsUnspecified() {
			continue
		}
		out = append(out, canonicalHost(u.Hostname()))
	}
	return unique(out)
}

// dialledEtcd tells whether an apiserver dials a member, and under which names.
func dialledEtcd(m *trust.Node, apiserver *trust.Component, n *trust.Node, etcd *trust.Component) ([]string, bool) {
	servers := hosts(apiserver, "etcd-servers")
	if len(servers) == 0 {
		// Without a manifest: kubeadm's apiserver dials its own node's etcd.
		return []string{"127.0.0.1"}, m == n || !hasComponent(m, Etcd)
	}
	at := unique(append(hosts(etcd, "advertise-client-urls"), hosts(etcd, "listen-client-urls")...))
	var names []string
	for _, s := range servers {
		a, err := netip.ParseAddr(s)
		local := s == "localhost" || err == nil && a.IsLoopback()
		if local && m == n || !local && (len(at) == 0 || slices.Contains(at, s)) {
			names = append(names, s)
		}
	}
	return names, len(names) > 0
}

func hasComponent(n *trust.Node, name string) bool {
	return slices.ContainsFunc(n.Components, func(c trust.Component) bool { return c.Name == name })
}
