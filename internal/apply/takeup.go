package apply

import (
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// takesUp says which components read an item, and when they take it up.
func (n *Nodes) takesUp(i *renew.Item) []string {
	var lines []string
	add := func(s bundle.Setting) {
		if line := s.Component + ": " + n.Takeup(s); !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if i.Kind == renew.Authority {
		for _, s := range bundle.Readers(n.Graph, n.Settings, i.Certificate) {
			add(s)
		}
		return lines
	}
	for j := range n.Nodes {
		node := &n.Nodes[j]
		if node.Name != i.Node {
			continue
		}
		for _, c := range node.Components {
			for _, u := range catalog.FlagUses(c.Name) {
				for _, v := range c.Flags[u.Flag] {
					if setting := settingOf(node, u, v, i); setting != "" {
						add(bundle.Setting{Node: i.Node, Component: c.Name, Name: setting, Anchors: trust.Place{Node: i.Node, Path: v}, Source: c.Source})
					}
				}
			}
		}
	}
	return lines
}

// settingOf is how the reload matrix calls what a flag reads of an item, empty
// where it reads nothing of it.
func settingOf(n *trust.Node, u catalog.FlagUse, value string, i *renew.Item) string {
	switch {
	case u.Role == trust.RoleCertificate && value == i.Certificate.Path:
		return u.Flag
	case u.Role != catalog.RoleKubeconfig:
		return ""
	case i.Kind == renew.Kubeconfig && value == i.Certificate.Path:
		return u.Flag
	}
	for _, k := range n.Kubeconfigs {
		if k.Place.Path != value || k.Certificate != i.Certificate || i.Kind != renew.Leaf {
			continue
		}
		if strings.HasPrefix(i.Certificate.Path, catalog.KubeletDir+"/pki/kubelet-client") {
			return "kubeconfig" // the kubelet rotates it itself, and reads it when it starts
		}
		return "client-certificate"
	}
	return ""
}
