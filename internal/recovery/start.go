package recovery

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// Start is one kind of component that is started, or started anew, on some nodes at
// once. Those of a step need those of the steps before.
type Start struct {
	Component string   `json:"component"`
	Nodes     []string `json:"nodes"`
	Run       string   `json:"run"` // on each of the nodes; words where no file tells how it is started
	Note      string   `json:"note,omitempty"`
}

// Starts are the steps that start the components that read changed files, in their
// order. Static pods need their kubelet before all else; elsewhere kubelets
// come last. All members of an etcd start at once: one alone has no quorum.
func Starts(g *trust.Graph, changed []trust.Place) []Start {
	var all []Start
	first := 0 // of the steps that may still get more nodes
	add := func(component, node, run, note string) {
		i := first + slices.IndexFunc(all[first:], func(s Start) bool { return s.Component == component && s.Run == run })
		if i < first {
			i, all = len(all), append(all, Start{Component: component, Run: run, Note: note})
		}
		if !slices.Contains(all[i].Nodes, node) {
			all[i].Nodes = append(all[i].Nodes, node)
		}
	}
	for i := range g.Nodes {
		if n := &g.Nodes[i]; hasStaticPods(n) && slices.ContainsFunc(n.Components, func(c trust.Component) bool { return reads(g, n, &c, changed) }) {
			add(catalog.Kubelet, n.Name, restartKubelet, "it starts the static pods that are down")
		}
	}
	first = len(all)
	for _, name := range order {
		for i := range g.Nodes {
			n := &g.Nodes[i]
			for j := range n.Components {
				c := &n.Components[j]
				if c.Name != name || !reads(g, n, c, changed) || name == catalog.Kubelet && hasStaticPods(n) {
					continue
				}
				run, note := howToStart(c)
				add(name, n.Name, run, note)
			}
		}
	}
	for i := range all {
		if all[i].Component == catalog.Etcd && strings.HasPrefix(all[i].Run, "kubepki") && len(all[i].Nodes) > 1 {
			all[i].Note = strings.TrimPrefix(fmt.Sprintf("%s; %d of %d members are a quorum: where it is refused for want of one, move the manifest away and back on all at once", all[i].Note, len(all[i].Nodes)/2+1, len(all[i].Nodes)), "; ")
		}
	}
	return all
}

// reads tells whether a component reads one of some files, by a flag or by the
// kubeconfig that a flag names.
func reads(g *trust.Graph, n *trust.Node, c *trust.Component, changed []trust.Place) bool {
	isChanged := func(p trust.Place) bool {
		if p.IsZero() {
			return false
		}
		if m := g.Material(p); m != nil && m.Target != "" && slices.Contains(changed, trust.Place{Node: p.Node, Path: m.Target}) {
			return true
		}
		return slices.Contains(changed, p.File())
	}
	for _, values := range c.Flags {
		for _, v := range values {
			if isChanged(trust.Place{Node: n.Name, Path: v}) {
				return true
			}
			for _, k := range n.Kubeconfigs {
				if k.Place.Path == v && (isChanged(k.Certificate) || isChanged(k.CA)) {
					return true
				}
			}
		}
	}
	return false
}

// order is that in which components start where nothing else starts them.
var order = []string{catalog.Etcd, catalog.APIServer, catalog.ControllerManager, catalog.Scheduler, catalog.Kubelet, catalog.KubeProxy}

const restartKubelet = "systemctl restart kubelet"

func hasStaticPods(n *trust.Node) bool {
	return slices.ContainsFunc(n.Components, func(c trust.Component) bool { return isStaticPod(&c) })
}

func isStaticPod(c *trust.Component) bool {
	ext := path.Ext(c.Source.Path)
	return c.Name != catalog.Kubelet && c.Name != catalog.KubeProxy && (ext == ".yaml" || ext == ".yml" || ext == ".json")
}

// howToStart is what to run on a component's node.
func howToStart(c *trust.Component) (run, note string) {
	file := path.Base(c.Source.Path)
	switch {
	case isStaticPod(c):
		return "kubepki node restart " + c.Name, "where it still runs"
	case strings.HasSuffix(file, ".service"):
		return "systemctl restart " + strings.TrimSuffix(file, ".service"), ""
	case c.Name == catalog.Kubelet:
		return restartKubelet, ""
	case c.Name == catalog.KubeProxy:
		return "kubectl -n kube-system rollout restart daemonset kube-proxy", "where it is a pod"
	}
	return "start " + c.Name + " as it is started there", ""
}
