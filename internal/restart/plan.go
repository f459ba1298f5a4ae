package restart

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// Kind tells what keeps a component running, and so how it is started again.
type Kind string

// The kinds of a [Target].
const (
	StaticPod Kind = "static pod" // the kubelet, from Source
	Unit      Kind = "unit"       // systemd
	Process   Kind = "process"    // nothing that a file tells of
	Unknown   Kind = "unknown"    // neither a manifest nor a unit was found
)

// Target is one process that is to be started again.
type Target struct {
	Node      string // as in the graph; empty for a single unnamed node
	Component string
	Kind      Kind
	Source    trust.Place // the manifest, of a StaticPod; of a Process /proc/PID/cmdline
	Unit      string      // with its suffix, of a Unit
	// Also are the other components that the same process runs, of a distribution.
	Also []string
	// Why says what it does not take up otherwise, a phrase each.
	Why []string
	// Await tells that it is not ended, only waited for until it is proved: it takes its
	// files up by itself, or whoever keeps it running starts it.
	Await bool
}

// ID is NODE/COMPONENT, or COMPONENT alone where the node has no name.
func (t *Target) ID() string { return (&trust.Component{Node: t.Node, Name: t.Component}).ID() }

// Where is what keeps it running: a manifest, a unit, or a process.
func (t *Target) Where() string {
	switch t.Kind {
	case Unit:
		return t.Unit
	case StaticPod, Process:
		return t.Source.Path
	}
	return "-"
}

// Facts are what a graph does not hold of a component.
type Facts struct {
	// Version is the component's, as v1.37.2; empty where nothing tells it. Nil:
	// of none.
	Version func(c *trust.Component) string
	// MountsAlone tells that the pod of a component has a file mounted alone, so that
	// it goes on with the one that was there when it was started. Nil: none does.
	MountsAlone func(c *trust.Component, file string) bool
}

// Plan returns the processes that must be started again to take up files that
// were changed, as the reload matrix has it ([bundle.NeedsRestart]), in order:
// node by node, those of the control plane first; and within a node what others
// call before its callers. A field of a place does not matter.
func Plan(g *trust.Graph, changed []trust.Place, f Facts) []Target {
	files := map[trust.Place]bool{}
	for _, p := range changed {
		files[bundle.File(g, p.File())] = true
	}
	return collect(g, func(n *trust.Node, c *trust.Component) []string {
		var why []string
		for _, r := range reads(n, c) {
			if !files[bundle.File(g, trust.Place{Node: n.Name, Path: r.file})] || !f.needs(c, r) {
				continue
			}
			if said := fmt.Sprintf("reads %s (%s) at its start alone", r.file, r.setting); !slices.Contains(why, said) {
				why = append(why, said)
			}
		}
		return why
	})
}

// needs tells whether a component takes a file up by a restart alone.
func (f *Facts) needs(c *trust.Component, r reading) bool {
	version := ""
	if f.Version != nil {
		version = f.Version(c)
	}
	return f.MountsAlone != nil && f.MountsAlone(c, r.file) || bundle.NeedsRestart(c.Name, r.setting, version)
}

// Named returns the targets of some names, COMPONENT or NODE/COMPONENT, in the
// order of [Plan]; of all components where there is none. A name that no process
// has is an error that lists those that there are.
func Named(g *trust.Graph, names []string) ([]Target, error) {
	all := collect(g, func(*trust.Node, *trust.Component) []string { return []string{"asked for"} })
	if len(names) == 0 {
		return all, nil
	}
	var known []string
	for i := range all {
		known = append(known, all[i].ID())
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(t Target) bool { return t.named(name) }) {
			return nil, &NoTargetError{Name: name, Known: known}
		}
	}
	return slices.DeleteFunc(all, func(t Target) bool { return !slices.ContainsFunc(names, t.named) }), nil
}

// named tells whether a name, COMPONENT or NODE/COMPONENT, means the target.
func (t *Target) named(name string) bool {
	node, component := trust.SplitID(name)
	return (node == "" || node == t.Node) && (component == t.Component || slices.Contains(t.Also, component))
}

// NoTargetError tells that no process has a name.
type NoTargetError struct {
	Name  string
	Known []string
}

func (e *NoTargetError) Error() string {
	return fmt.Sprintf("no component %q is on these nodes", e.Name)
}

// Hint lists the names that there are.
func (e *NoTargetError) Hint() string {
	if len(e.Known) == 0 {
		return "no manifest and no unit of a component was found: kubepki verify tells what was"
	}
	return "there are " + strings.Join(e.Known, ", ")
}

// Stale returns the processes that findings say to be behind their files:
// serving-stale and trust-stale of a live verification, in the order of [Plan].
func Stale(g *trust.Graph, findings []check.Finding) []Target {
	why := map[string][]string{}
	for _, f := range findings {
		for _, id := range f.Processes() {
			why[id] = append(why[id], f.ID+": "+f.Cause)
		}
	}
	return collect(g, func(_ *trust.Node, c *trust.Component) []string { return why[c.ID()] })
}

// reading is a file that a component reads, and its name in the reload matrix.
type reading struct{ file, setting string }

// reads are the files of credentials and trust that a component reads.
func reads(n *trust.Node, c *trust.Component) []reading {
	var all []reading
	for _, u := range catalog.FlagUses(c.Name) {
		for _, value := range c.Flags[u.Flag] {
			for word := range strings.SplitSeq(value, ",") { // --tls-sni-cert-key has two files
				file, _, _ := strings.Cut(word, ":")
				if !path.IsAbs(file) {
					continue
				}
				all = append(all, reading{path.Clean(file), u.Flag})
				if u.Role == catalog.RoleKubeconfig {
					all = append(all, ofKubeconfig(n, c, path.Clean(file), u.Flag)...)
				}
			}
		}
	}
	return all
}

// ofKubeconfig are the files that a kubeconfig names. A kubelet that renews its own
// certificate reads none of them again (docs/reload.md).
func ofKubeconfig(n *trust.Node, c *trust.Component, file, flag string) []reading {
	var all []reading
	for i := range n.Kubeconfigs {
		k := &n.Kubeconfigs[i]
		if k.Place.Path != file {
			continue
		}
		for setting, at := range map[string]trust.Place{"client-certificate": k.Certificate, "client-key": k.Key, "certificate-authority": k.CA} {
			if at.IsZero() || at.Field != "" {
				continue
			}
			if c.Name == catalog.Kubelet {
				setting = flag
			}
			all = append(all, reading{at.Path, setting})
		}
	}
	slices.SortFunc(all, func(a, b reading) int { return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.setting, b.setting)) })
	return all
}

// order is that of the components of a node: what others call comes first.
var order = []string{catalog.Etcd, catalog.APIServer, catalog.ControllerManager, catalog.Scheduler, catalog.Kubelet, catalog.KubeProxy}

// restarts tells whether a component is a process: people and probes read their
// files whenever they run.
func restarts(name string) bool { return slices.Contains(order, name) }

// collect makes targets of the components that there is a reason for, in order.
func collect(g *trust.Graph, why func(*trust.Node, *trust.Component) []string) []Target {
	var planes, workers []Target
	for i := range g.Nodes {
		n := &g.Nodes[i]
		var of []Target
		for j := range n.Components {
			c := &n.Components[j]
			reasons := why(n, c)
			if len(reasons) == 0 || !restarts(c.Name) {
				continue
			}
			of = merge(of, target(n, c, reasons))
		}
		slices.SortStableFunc(of, func(a, b Target) int { return cmp.Compare(rank(a.Component), rank(b.Component)) })
		if isControlPlane(n) {
			planes = append(planes, of...)
		} else {
			workers = append(workers, of...)
		}
	}
	return append(planes, workers...)
}

func rank(component string) int {
	if i := slices.Index(order, component); i >= 0 {
		return i
	}
	return len(order)
}

// merge adds a target, or its reasons where the process is there already: a
// distribution is one process for all components.
func merge(all []Target, t Target) []Target {
	for i := range all {
		if all[i].Component != t.Component {
			continue
		}
		all[i].Also = append(all[i].Also, t.Also...)
		for _, w := range t.Why {
			if !slices.Contains(all[i].Why, w) {
				all[i].Why = append(all[i].Why, w)
			}
		}
		return all
	}
	return append(all, t)
}

func isControlPlane(n *trust.Node) bool {
	return slices.ContainsFunc(n.Components, func(c trust.Component) bool { return c.Name == catalog.APIServer || c.Name == catalog.Etcd })
}

// target tells how a component is started again, by where its flags were found.
func target(n *trust.Node, c *trust.Component, why []string) Target {
	t := Target{Node: n.Name, Component: c.Name, Kind: Unknown, Source: c.Source, Why: why}
	unit := catalog.UnitOf(c.Source.Path)
	d := catalog.DistributionNamed(n.Layout)
	switch {
	case unit != "":
		t.Kind, t.Unit = Unit, unit
	case strings.HasPrefix(c.Source.Path, "/proc/"):
		t.Kind = Process
	case d != nil && path.Base(path.Dir(c.Source.Path)) != podManifests:
		// All of a node's components are one process.
		t.Kind, t.Unit = Unit, d.Mends.OnUnit("UNIT", isControlPlane(n))+".service"
		t.Component, t.Also = strings.TrimSuffix(t.Unit, ".service"), []string{c.Name}
	case c.Name == catalog.Kubelet || c.Name == catalog.KubeProxy:
		if c.Name == catalog.Kubelet {
			t.Kind, t.Unit = Unit, "kubelet.service" // kubeadm's, of which some files alone may be there
		}
	case !c.Source.IsZero():
		t.Kind = StaticPod // the kubelet reads each file of its folder, whatever its name
	}
	return t
}

// podManifests is the folder of the static pods that RKE2 makes.
const podManifests = "pod-manifests"
