package restart

import (
	"cmp"
	"slices"

	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// Comeback returns the processes that bring a cluster back whose files were changed
// while some of it was down, in order: those of [Plan], and those that do not run and
// that nothing else starts. All others that read the files take them up by themselves,
// or are static pods that their kubelet starts: these are to be waited for alone
// (Target.Await). Where a kubelet starts static pods it comes before them, and is among
// them if it does not run. runs tells whether a process of a component is there.
func Comeback(g *trust.Graph, changed []trust.Place, f Facts, runs func(node, component string) bool) []Target {
	files := map[trust.Place]bool{}
	for _, p := range changed {
		files[bundle.File(g, p.File())] = true
	}
	all := Plan(g, changed, f)
	readers := collect(g, func(n *trust.Node, c *trust.Component) []string {
		if slices.ContainsFunc(reads(n, c), func(r reading) bool { return files[bundle.File(g, trust.Place{Node: n.Name, Path: r.file})] }) {
			return []string{"is not ended, only waited for: it takes its files up by itself"}
		}
		return nil
	})
	for _, t := range readers {
		down := !runs(t.Node, t.Component)
		switch {
		case slices.ContainsFunc(all, func(o Target) bool { return o.ID() == t.ID() }):
			continue
		case down && t.Kind == StaticPod:
			t.Await, t.Why = true, []string{"does not run: its kubelet starts it"}
		case down:
			t.Why = []string{"does not run"}
		default:
			t.Await = true
		}
		all = append(all, t)
	}
	for i := range g.Nodes {
		n := &g.Nodes[i]
		isPod := func(t Target) bool { return t.Node == n.Name && t.Kind == StaticPod }
		isKubelet := func(t Target) bool { return t.Node == n.Name && t.Component == catalog.Kubelet }
		if slices.ContainsFunc(all, isPod) && !slices.ContainsFunc(all, isKubelet) && !runs(n.Name, catalog.Kubelet) {
			all = append(all, target(n, kubeletOf(g, n.Name), []string{"does not run, and starts the static pods"}))
		}
	}
	return inOrderOf(g, all)
}

// inOrderOf sorts targets as [Plan] does, but that a kubelet comes before the static
// pods of its node.
func inOrderOf(g *trust.Graph, all []Target) []Target {
	place := func(t *Target) int {
		i := slices.IndexFunc(g.Nodes, func(n trust.Node) bool { return n.Name == t.Node })
		if i >= 0 && !isControlPlane(&g.Nodes[i]) {
			return len(g.Nodes) + i
		}
		return i
	}
	pods := map[string]bool{}
	for i := range all {
		pods[all[i].Node] = pods[all[i].Node] || all[i].Kind == StaticPod
	}
	within := func(t *Target) int {
		if t.Component == catalog.Kubelet && pods[t.Node] {
			return -1
		}
		return rank(t.Component)
	}
	slices.SortStableFunc(all, func(a, b Target) int {
		return cmp.Or(cmp.Compare(place(&a), place(&b)), cmp.Compare(within(&a), within(&b)))
	})
	return all
}

// Runs tells whether a process of a component runs on the machine; where no process is
// to be seen, as in a container, that none does.
func (m *Machine) Runs(component string) bool { return len(livesOf(m.Procfs, component, nil)) > 0 }

// GoOn returns what [Comeback] has for files that are changed now, and of what an
// interrupted run left for files that were changed before: what does not run, and what has
// not begun anew since. What is only to be waited for comes along where anything of these
// is left. since tells whether a component has begun anew since those files stand.
func GoOn(g *trust.Graph, changed, before []trust.Place, f Facts, runs, since func(node, component string) bool) []Target {
	now := Comeback(g, changed, f, runs)
	done := func(t Target) bool {
		return !slices.ContainsFunc(now, func(n Target) bool { return n.ID() == t.ID() }) &&
			runs(t.Node, t.Component) && (t.Await || since(t.Node, t.Component))
	}
	all := Comeback(g, slices.Concat(changed, before), f, runs)
	left := slices.ContainsFunc(all, func(t Target) bool { return !done(t) })
	return slices.DeleteFunc(all, func(t Target) bool { return done(t) && !(t.Await && left) })
}
