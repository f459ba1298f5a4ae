package apply

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/proof"
	"github.com/kubepki/kubepki/internal/trust"
)

// Nodes are nodes as they were read: facts, the graph that is wired of them, and
// the keys, kept apart.
type Nodes struct {
	Dirs     map[string]string // node to its root, the folder that stands for its /
	Nodes    []trust.Node
	Keys     proof.Keys
	Graph    *trust.Graph
	Settings []bundle.Setting
}

// New wires nodes that were read.
func New(dirs map[string]string, nodes []trust.Node, keys proof.Keys) *Nodes {
	n := &Nodes{Dirs: dirs, Nodes: nodes, Keys: keys, Graph: catalog.Wire(nodes)}
	n.Settings = bundle.Settings(n.Graph)
	return n
}

// ReadNode reads one node below a root. Its name may be empty: ids have none then.
func ReadNode(name, dir string) (*Nodes, error) {
	node, ring, err := layout.Read(dir, layout.Options{Name: name})
	if err != nil {
		return nil, err
	}
	keys := proof.Keys{}
	maps.Copy(keys, ring)
	return New(map[string]string{name: dir}, []trust.Node{node}, keys), nil
}

// WithKubeconfigs returns the nodes with more kubeconfigs read, those of people, which
// no component names. One that is not there is an error.
func (n *Nodes) WithKubeconfigs(places []trust.Place) (*Nodes, error) {
	nodes, keys := slices.Clone(n.Nodes), maps.Clone(n.Keys)
	for _, at := range places {
		i := slices.IndexFunc(nodes, func(o trust.Node) bool { return o.Name == at.Node })
		if i < 0 {
			return nil, fmt.Errorf("%s: no node is called %q", at.Path, at.Node)
		}
		if slices.ContainsFunc(nodes[i].Kubeconfigs, func(k trust.Kubeconfig) bool { return k.Place == at }) {
			continue
		}
		content, err := layout.ReadFile(n.Dirs[at.Node], at.Path)
		if err != nil {
			return nil, err
		}
		if content.Target != "" {
			return nil, advise(fmt.Errorf("%s: a symbolic link is on the way to it", at.Path), "name the file itself: a link of somebody else's may lead anywhere")
		}
		k, materials, ring := layout.ParseKubeconfig(at, content.Data)
		if k.State != trust.Present {
			return nil, fmt.Errorf("%s: %s", at.Path, k.Reason)
		}
		nodes[i].Kubeconfigs = append(slices.Clone(nodes[i].Kubeconfigs), k)
		nodes[i].Materials = append(slices.Clone(nodes[i].Materials), materials...)
		maps.Copy(keys, ring)
	}
	return New(n.Dirs, nodes, keys), nil
}

// Mend finishes or takes back what an interrupted run left below a root, and tells
// how many files were finished and temporaries removed. Else a plan would be made
// of what stands there now, and not hold when it is carried out.
func Mend(dir string) (finished, removed int, err error) {
	tx, err := layout.Begin(dir)
	if err != nil {
		return 0, 0, err
	}
	r := tx.Recovered()
	return r.Finished, r.Removed, tx.Rollback()
}

// withFiles returns the nodes as if the files stood there.
func withFiles(nodes []trust.Node, files []*File) []trust.Node {
	out := slices.Clone(nodes)
	of := byNode(files)
	for i := range out {
		n := &out[i]
		if len(of[n.Name]) == 0 {
			continue
		}
		n.Materials, n.Kubeconfigs, n.Files = slices.Clone(n.Materials), slices.Clone(n.Kubeconfigs), slices.Clone(n.Files)
		for _, f := range of[n.Name] {
			f.putInto(n)
		}
	}
	return out
}

// byNode sorts files by their nodes.
func byNode(files []*File) map[string][]*File {
	of := map[string][]*File{}
	for _, f := range files {
		of[f.Place.Node] = append(of[f.Place.Node], f)
	}
	return of
}

// contents are what a file holds then, as the rules see it. Each is read once.
type contents struct {
	kubeconfig *trust.Kubeconfig
	embedded   []*trust.Material // in kubeconfig
	materials  map[trust.Role]*trust.Material
}

// read reads what the file shall hold on a node. Who calls it while keys are searched
// for others spares the judge the time: a key of RSA is checked when it is read.
func (f *File) read(n *trust.Node) {
	if f.Data == nil {
		return
	}
	for _, k := range n.Kubeconfigs {
		if k.Place == f.Place {
			f.asKubeconfig()
		}
	}
	for _, m := range n.Materials {
		if m.Place == f.Place {
			f.asMaterial(m.Role)
		}
	}
}

func (f *File) asKubeconfig() (trust.Kubeconfig, []*trust.Material) {
	if f.then.kubeconfig == nil {
		k, embedded, _ := layout.ParseKubeconfig(f.Place, f.Data)
		f.then.kubeconfig, f.then.embedded = &k, embedded
	}
	return *f.then.kubeconfig, f.then.embedded
}

func (f *File) asMaterial(role trust.Role) *trust.Material {
	if f.then.materials == nil {
		f.then.materials = map[trust.Role]*trust.Material{}
	}
	if f.then.materials[role] == nil {
		f.then.materials[role], _ = layout.ParseMaterial(f.Place, role, f.Data)
	}
	return f.then.materials[role]
}

func (f *File) putInto(n *trust.Node) {
	for i, k := range n.Kubeconfigs {
		if k.Place == f.Place {
			n.Materials = slices.DeleteFunc(n.Materials, func(m *trust.Material) bool { return m.Place.File() == f.Place })
			if f.Data == nil {
				n.Kubeconfigs[i] = trust.Kubeconfig{Place: f.Place, State: trust.Missing, Reason: "does not exist", Remote: k.Remote}
				continue
			}
			var embedded []*trust.Material
			n.Kubeconfigs[i], embedded = f.asKubeconfig()
			n.Materials = append(n.Materials, embedded...)
		}
	}
	for i, m := range n.Materials {
		if m.Place == f.Place && f.Data == nil {
			n.Materials[i] = &trust.Material{Place: m.Place, Role: m.Role, State: trust.Missing, Reason: "does not exist"}
		} else if m.Place == f.Place {
			n.Materials[i] = f.asMaterial(m.Role)
		}
	}
	for i := range n.Files {
		if n.Files[i].Place == f.Place && f.Private {
			n.Files[i].Mode &= 0o700
		}
	}
}

// AtOnce works on items, limit of them at once, and returns the results in their order.
func AtOnce[T, R any](items []T, limit int, work func(T) R) []R {
	results := make([]R, len(items))
	slots := make(chan struct{}, limit)
	var wait sync.WaitGroup
	for i, item := range items {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			results[i] = work(item)
		})
	}
	wait.Wait()
	return results
}

// advised is an error with what the user can do about it.
type advised struct {
	error
	hint string
}

func (e *advised) Unwrap() error { return e.error }

// Hint says what the user can do.
func (e *advised) Hint() string { return e.hint }

func advise(err error, format string, args ...any) error {
	return &advised{err, fmt.Sprintf(format, args...)}
}
