package apply

import (
	"slices"
	"strings"
	"sync"

	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// Takeup says how a setting's component takes a change up that kubepki makes, which
// is a new file of the old name: a mount of the old one alone keeps that.
func (n *Nodes) Takeup(s bundle.Setting) string { return newTakeups(n).of(s) }

// takeups says how components take changes up. It parses each manifest once, and is
// safe for concurrent use.
type takeups struct {
	*Nodes
	mu     sync.Mutex
	parsed map[trust.Place]*layout.Takeup
}

func newTakeups(n *Nodes) *takeups {
	return &takeups{Nodes: n, parsed: map[trust.Place]*layout.Takeup{}}
}

func (t *takeups) of(s bundle.Setting) string {
	manifest := t.manifest(s)
	if s.Anchors.Field == "" && manifest.MountsAlone(s.Anchors.Path) {
		return "restart " + s.Component + ": its pod mounts the file alone, and keeps the old one until then"
	}
	return bundle.Takeup(s.Component, s.Name, manifest.Version)
}

// manifest is that of a setting's component; it says nothing where none was read.
func (t *takeups) manifest(s bundle.Setting) *layout.Takeup {
	for i := range t.Nodes.Nodes {
		for _, c := range t.Nodes.Nodes[i].Components {
			if t.Nodes.Nodes[i].Name == s.Node && c.Name == s.Component && !c.Source.IsZero() {
				return t.parse(trust.Place{Node: s.Node, Path: c.Source.Path})
			}
		}
	}
	return &layout.Takeup{}
}

func (t *takeups) parse(at trust.Place) *layout.Takeup {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.parsed[at]; known != nil {
		return known
	}
	parsed := &layout.Takeup{}
	if content, err := layout.ReadFile(t.Dirs[at.Node], at.Path); err == nil {
		parsed = layout.ParseTakeup(content.Data)
	}
	t.parsed[at] = parsed
	return parsed
}

// readers says which components read an item, and when they take it up.
func (t *takeups) readers(i *renew.Item) []string {
	n := t.Nodes
	var lines []string
	add := func(s bundle.Setting) {
		if line := s.Component + ": " + t.of(s); !slices.Contains(lines, line) {
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
		if node.Layout == catalog.LayoutUsers {
			return []string{"its user: when it is handed out anew"}
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
