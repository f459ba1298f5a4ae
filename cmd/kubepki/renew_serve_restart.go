package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/remote"
	"github.com/kubepki/kubepki/internal/restart"
	"github.com/kubepki/kubepki/internal/trust"
)

// farRestarter restarts what runs on this machine for renew --ssh elsewhere, by the same
// runner as kubepki node restart.
type farRestarter struct {
	root    string // folder that stands for the node's /
	node    string
	planned []restart.Target
}

// lockPatience is for the program of a connection that was cut or has just ended.
const lockPatience = 3 * time.Second

// Begin locks the node, as node restart does.
func (f *farRestarter) Begin() (func(), []string, error) {
	unlock, err := restart.Lock(f.root)
	for began := time.Now(); err != nil && time.Since(began) < lockPatience; unlock, err = restart.Lock(f.root) {
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return nil, nil, err
	}
	back, err := restart.Recover(f.root)
	if err != nil {
		unlock()
		return nil, nil, err
	}
	var said []string
	for _, manifest := range back {
		said = append(said, fmt.Sprintf("%s is back in its place: an interrupted restart had left it in %s", manifest, restart.AsideFolder))
	}
	return unlock, said, nil
}

func (f *farRestarter) machine(o remote.RestartOptions) (*restart.Machine, error) {
	by, err := restart.ParseBy(o.By)
	return &restart.Machine{Root: f.root, Procfs: f.procfs(), By: by}, err
}

// procfs shows what runs on the node: the machine's own, where its root is /.
func (f *farRestarter) procfs() string { return filepath.Join(f.root, "proc") }

// Plan is that of renew --restart.
func (f *farRestarter) Plan(ctx context.Context, node string, files []string, o remote.RestartOptions) ([]remote.Restart, error) {
	m, err := f.machine(o)
	if err != nil {
		return nil, err
	}
	n, err := apply.ReadNode(node, f.root)
	if err != nil {
		return nil, err
	}
	var changed []trust.Place
	for _, file := range files {
		changed = append(changed, trust.Place{Node: node, Path: file})
	}
	f.node, f.planned = node, restart.Plan(n.Graph, changed, restart.FactsOf(n.Dirs))
	all := []remote.Restart{}
	for i := range f.planned {
		t := &f.planned[i]
		r := remote.Restart{Component: t.Component, Of: t.Where(), Why: t.Why}
		if err := m.Can(ctx, n.Graph, t); err != nil {
			r.Cannot = err.Error()
		}
		all = append(all, r)
	}
	return all, nil
}

// Restart restarts one of the plan, and proves it.
func (f *farRestarter) Restart(ctx context.Context, component string, o remote.RestartOptions) (*remote.Restarted, error) {
	at := slices.IndexFunc(f.planned, func(t restart.Target) bool { return t.Component == component })
	if at < 0 {
		return nil, fmt.Errorf("%s was not planned to be restarted", component)
	}
	m, err := f.machine(o)
	if err != nil {
		return nil, err
	}
	var said []string
	m.Say = func(text string) { said = append(said, text) }
	r := m.Runner(f.cluster)
	r.Timeout = o.Timeout
	done, err := r.Run(ctx, f.planned[at:at+1])
	if err != nil {
		return nil, err
	}
	return &remote.Restarted{How: done[0].How, Took: done[0].Took.Round(100 * time.Millisecond), Said: said}, nil
}

// cluster reads this machine, with what runs on it.
func (f *farRestarter) cluster() (restart.Cluster, error) {
	one, err := cluster{nodes: []nodeRoot{{name: f.node, dir: f.root}}, processes: f.procfs()}.alone()
	if err != nil {
		return restart.Cluster{}, err
	}
	nodes, keys, err := readCluster(one)
	if err != nil {
		return restart.Cluster{}, err
	}
	return restart.Cluster{Graph: catalog.Wire(nodes), Keys: probe.Keys(keys), Probe: probe.Options{At: clock()}}, nil
}
