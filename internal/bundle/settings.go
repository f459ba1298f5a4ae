package bundle

import (
	"crypto/x509"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// Setting is where a component of a node is told whom to trust, or by which
// authority it signs.
type Setting struct {
	Node      string // as in the graph; may be empty
	Component string
	// Name is the flag without dashes; of a kubeconfig certificate-authority or
	// certificate-authority-data.
	Name string
	Role trust.Role // bundle, or authority where it signs with it
	// Anchors is where the certificates stand: a file, or a field of a kubeconfig.
	Anchors trust.Place
	// Source is the manifest or unit that has the flag, the kubeconfig, or the field
	// of a configuration file; zero for defaults of the layout.
	Source trust.Place
	at     trust.Place // the setting itself, as the graph's bundles have it
}

// Target is how a command names the setting: COMPONENT/NAME, and the node before
// it where that has a name.
func (s Setting) Target() string { return path.Join(s.Node, s.Component, s.Name) }

// Settings returns the bundles of the nodes of a graph, and the files that sign,
// ordered by node and component as they were read.
func Settings(g *trust.Graph) []Setting {
	var all []Setting
	for i := range g.Nodes {
		n := &g.Nodes[i]
		for j := range n.Components {
			c := &n.Components[j]
			for _, u := range catalog.FlagUses(c.Name) {
				for _, v := range c.Flags[u.Flag] {
					s := Setting{Node: n.Name, Component: c.Name, Name: u.Flag, Role: u.Role, Anchors: trust.Place{Node: n.Name, Path: path.Clean(v)}, Source: c.Source}
					if s.at = c.Setting(u.Flag); s.at != c.Source.In("--"+u.Flag) {
						s.Source = s.at // no flag of the manifest or unit, but a field of a file
					}
					switch {
					case !path.IsAbs(v):
					case u.Role == trust.RoleBundle || u.Role == trust.RoleAuthority:
						all = append(all, s)
					case u.Role == catalog.RoleKubeconfig:
						all = appendOthers(all, kubeconfigSetting(n, s))
					}
				}
			}
			all = append(all, serviceSettings(n, c)...)
		}
	}
	return all
}

// appendOthers leaves out what a component is told by another kubeconfig flag too.
func appendOthers(all, more []Setting) []Setting {
	for _, s := range more {
		if !slices.ContainsFunc(all, func(o Setting) bool { return o.Node == s.Node && o.Component == s.Component && o.Anchors == s.Anchors }) {
			all = append(all, s)
		}
	}
	return all
}

// serviceSettings are those of the two services of a service folder, which are no
// components of Kubernetes.
func serviceSettings(n *trust.Node, c *trust.Component) []Setting {
	flag := map[string]string{catalog.ServiceServer: "client-ca-file", catalog.ServiceClient: "cacert"}[c.Name]
	v, ok := c.Flag(flag)
	if !ok {
		return nil
	}
	return []Setting{{Node: n.Name, Component: c.Name, Name: flag, Role: trust.RoleBundle, Anchors: trust.Place{Node: n.Name, Path: v}, Source: c.Source}}
}

// kubeconfigSetting is the bundle of a kubeconfig, if it names one.
func kubeconfigSetting(n *trust.Node, s Setting) []Setting {
	for i := range n.Kubeconfigs {
		k := &n.Kubeconfigs[i]
		if k.Place != s.Anchors || k.CA.IsZero() {
			continue
		}
		name := "certificate-authority"
		if k.CA.Field != "" {
			name = "certificate-authority-data"
		}
		if s.Name != "kubeconfig" {
			name = s.Name + "/" + name
		}
		return []Setting{{Node: n.Name, Component: s.Component, Name: name, Role: trust.RoleBundle, Anchors: k.CA, Source: k.Place}}
	}
	return nil
}

// File is the file in which the anchors of a place truly stand: links followed.
func File(g *trust.Graph, p trust.Place) trust.Place {
	if m := g.Material(p); m != nil && m.Target != "" && p.Field == "" {
		return trust.Place{Node: p.Node, Path: m.Target}
	}
	return p
}

// Readers are the settings that read the same file as a place, in order.
func Readers(g *trust.Graph, settings []Setting, p trust.Place) []Setting {
	var all []Setting
	for _, s := range settings {
		if File(g, s.Anchors) == File(g, p) {
			all = append(all, s)
		}
	}
	return all
}

// Serves are the numbers of the links, as docs/links.md has them, of which the
// setting's bundle verifies a half with one of its anchors alone. A half of which
// nothing was seen counts for none.
func (s Setting) Serves(g *trust.Graph, anchor *x509.Certificate, at time.Time) []int {
	m := g.Material(s.Anchors)
	if !m.OK() {
		return nil
	}
	alone := *m
	alone.Certificates = []*x509.Certificate{anchor}
	h := trust.Graph{Nodes: g.Nodes, Authorities: g.Authorities, Materials: map[trust.Place]*trust.Material{}}
	for p, m := range g.Materials {
		h.Materials[p] = m
	}
	h.Materials[s.Anchors] = &alone
	var numbers []int
	for i := range g.Links {
		l := &g.Links[i]
		server, client := s.halves(g, l)
		verifies := server && trusted(h.JudgeServer(l.Server, at)) || client && trusted(h.JudgeClient(l.Client, at))
		if verifies && !slices.Contains(numbers, l.Number) {
			numbers = append(numbers, l.Number)
		}
	}
	return numbers
}

// Seen tells whether any half of a link that the setting's bundle judges was seen.
// Where none was, nobody can say from here who needs its anchors.
func (s Setting) Seen(g *trust.Graph) bool {
	return slices.ContainsFunc(g.Links, func(l trust.Link) bool {
		server, client := s.halves(g, &l)
		return server || client
	})
}

// halves tells which halves of a link the setting's bundle judges, and that were seen.
func (s Setting) halves(g *trust.Graph, l *trust.Link) (server, client bool) {
	if h := l.Server; h != nil && h.Credential != nil && !h.Unverified && s.is(h.Bundle, l.Caller) {
		server = !g.Unseen(h.Credential, h.Bundle)
	}
	if h := l.Client; h != nil && h.Credential != nil && s.is(h.Bundle, l.Callee) {
		client = !g.Unseen(h.Credential, h.Bundle)
	}
	return server, client
}

// is tells whether a link's bundle is the setting's. Without a manifest several
// settings of one file are one, so that the component decides.
func (s Setting) is(b *trust.Bundle, component string) bool {
	if b == nil || b.Anchors != s.Anchors {
		return false
	}
	if !s.at.IsZero() && b.Setting == s.at {
		return true
	}
	node, name := trust.SplitID(component)
	own := node == s.Node && name == s.Component
	if strings.HasPrefix(s.Name, "certificate-authority") {
		return own
	}
	// In links 17 and 13 another stands for who is told by the setting.
	pods := component == "pod" && s.Name == "root-ca-file"
	extension := component == "extension apiserver" && s.Component == catalog.APIServer && s.Name == "requestheader-client-ca-file"
	return s.Source.IsZero() && (own || pods || extension)
}

// trusted tells that nothing is wrong with the chain of trust, whatever else is.
func trusted(breaks []trust.Break) bool {
	return !slices.ContainsFunc(breaks, func(b trust.Break) bool { return ofTrust(b.Kind) })
}

func ofTrust(k trust.Kind) bool {
	switch k {
	case trust.NoBundle, trust.NoCertificate, trust.OtherAuthority, trust.UnknownAuthority, trust.ChainIncomplete, trust.NotAnAuthority,
		trust.Expired, trust.NotYetValid, trust.Constraint, trust.WrongUsage, trust.Weak:
		return true
	}
	return false
}

// Takeup says in words how a component of a version, as v1.37.2, takes up what a
// setting names, as measured; for all versions where they differ and none is given.
func Takeup(component, setting, version string) string {
	if component == catalog.Admin || component == catalog.SuperAdmin || component == catalog.Etcdctl {
		return "when it is run next"
	}
	setting = path.Base(setting) // of a kubeconfig by another flag
	if t, ok := catalog.Reload(component, setting, version); ok {
		return manner(component, t)
	}
	var rows []catalog.ReloadRow
	for _, r := range catalog.Reloads() {
		if r.Component == component && r.Setting == setting {
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 {
		return "not measured: restart " + component
	}
	if len(rows) == 1 {
		return manner(component, rows[0].Takeup)
	}
	var parts []string
	for _, r := range slices.Backward(rows) {
		when := "since " + r.From
		if r.To != "" {
			when = "before " + r.To
		}
		parts = append(parts, when+" "+manner(component, r.Takeup))
	}
	return strings.Join(parts, ", ")
}

// NeedsRestart tells whether a component of a version, as v1.37.2, takes up what a
// setting names by a restart alone, as [Takeup] says it in words: also where nothing
// was measured, and, where no version is given, where any version needs it.
func NeedsRestart(component, setting, version string) bool {
	setting = path.Base(setting)
	if t, ok := catalog.Reload(component, setting, version); ok {
		return t.Manner == catalog.AtRestart
	}
	known := false
	for _, r := range catalog.Reloads() {
		if r.Component != component || r.Setting != setting {
			continue
		}
		if known = true; r.Manner == catalog.AtRestart {
			return true
		}
	}
	return !known
}

func manner(component string, t catalog.Takeup) string {
	switch {
	case t.Manner == catalog.AtHandshake:
		return "at each new connection"
	case t.Manner == catalog.ByItself && t.Notified:
		return "by itself, mostly within a second"
	case t.Manner == catalog.ByItself:
		return "by itself, within " + strings.TrimSuffix(t.Within.String(), "0s")
	case t.Manner == catalog.WrittenByItself:
		return "written by " + component + " itself"
	}
	return "restart " + component
}

// Power says what whoever holds the key of an anchor can do by it, as the setting's
// purpose is; empty where it can do no more than pretend to be a server.
func Power(component, setting string) string {
	switch component + "/" + setting {
	case catalog.APIServer + "/client-ca-file":
		return "any holder of its key can make itself any user of the cluster, in the group system:masters too: a cluster admin, past all of RBAC"
	case catalog.APIServer + "/requestheader-client-ca-file":
		return "any holder of its key can speak in the name of any user, unless --requestheader-allowed-names keeps it out"
	case catalog.Kubelet + "/client-ca-file":
		return "any holder of its key can call the kubelet as any user, and so get into every container of the node if that user may"
	case catalog.Etcd + "/trusted-ca-file", catalog.Etcd + "/peer-trusted-ca-file":
		return "any holder of its key can read and write all of etcd: every Secret of the cluster"
	case catalog.ControllerManager + "/root-ca-file":
		return "every pod takes any holder of its key for the API server"
	case catalog.ControllerManager + "/client-ca-file", catalog.Scheduler + "/client-ca-file":
		return "any holder of its key can call " + component + " as any user"
	}
	return ""
}
