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
		return n.taken(bundle.Readers(n.Graph, n.Settings, i.Certificate))
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

// taken says who takes an authority up. A component that reads it by several settings, in
// different ways, has a line for each that names it: it is not by itself and by a
// restart at once.
func (n *Nodes) taken(settings []bundle.Setting) []string {
	ways := map[string]string{} // of components that take it up in one way; else empty
	for _, s := range settings {
		if way, ok := ways[s.Component]; ok && way != n.Takeup(s) {
			ways[s.Component] = ""
		} else {
			ways[s.Component] = n.Takeup(s)
		}
	}
	var lines []string
	for _, s := range settings {
		name := s.Component
		if ways[name] == "" {
			name += " (" + s.Name + ")"
		}
		if line := name + ": " + n.Takeup(s); !slices.Contains(lines, line) {
			lines = append(lines, line)
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
