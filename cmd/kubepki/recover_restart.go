package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/restart"
	"github.com/kubepki/kubepki/internal/trust"
)

// recoverRestart are the flags of recover that start this machine's components again,
// and prove each.
type recoverRestart struct {
	renewRestart
	node string // as the node of this machine is called among those of the run
}

// check judges the flags: other nodes may be given as folders, if this machine's "/" is
// one of them.
func (o *recoverRestart) check(values []string) error {
	if err := o.renewRestart.check(nil, false); err != nil || !o.on || len(values) == 0 {
		return err
	}
	roots, err := parseRoots(values)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(roots, func(r nodeRoot) bool { return filepath.Clean(r.dir) == "/" })
	if i < 0 {
		return usagef("--restart: is for what runs on this machine, and none of --root is its /: give --root NAME=/ beside the others, or run kubepki node restart on each node")
	}
	o.node = roots[i].name
	return nil
}

// plan shows what will be restarted or waited for on this machine: what reads the files of
// this run, and what a run before it, which was interrupted, has left.
func (o *recoverRestart) plan(ctx context.Context, s streams, r *recovered) ([]restart.Target, error) {
	if !o.on {
		return nil, nil
	}
	c, err := o.cluster()
	if err != nil {
		return nil, err
	}
	var changed []trust.Place
	if r.renewal != nil {
		for _, f := range r.renewal.Files {
			if f.Place.Node == o.node {
				changed = append(changed, trust.Place{Path: f.Place.Path}) // the machine alone has no name
			}
		}
	}
	before, at, err := apply.Last(apply.New(map[string]string{"": "/"}, nil, nil), "")
	if err != nil {
		return nil, err
	}
	m := restart.Machine{Root: "/", Procfs: "/proc"}
	targets := restart.GoOn(c.Graph, changed, before, restart.FactsOf(map[string]string{"": "/"}),
		func(_, component string) bool { return m.Runs(component) },
		func(_, component string) bool { return m.BeganSince(component, at) })
	targets = o.able(ctx, s, c.Graph, targets)
	if len(changed) == 0 && !slices.ContainsFunc(targets, func(t restart.Target) bool { return !t.Await || !m.Runs(t.Component) }) {
		targets = nil // nothing is left but what cannot be restarted from here
	}
	return targets, printTargets(s, targets)
}

// run restarts and waits, in order, and stops at the first that does not come back.
func (o *recoverRestart) run(ctx context.Context, s streams, targets []restart.Target) error {
	talk := s
	talk.out = s.err // the answer is the recovery's
	if len(targets) > 0 {
		if err := o.restartAll(ctx, talk, &trustChangeFlags{trustFlags: trustFlags{output: "table"}}, targets); err != nil {
			return advise(err, "the files are written; when that is mended, kubepki node restart goes on with those that are not restarted yet, and kubepki verify --live proves them. An etcd of several members is there when most of them are: run it on all control planes at once")
		}
	}
	if len(o.cannot) > 0 {
		return advise(fmt.Errorf("the files are written, and %s was not restarted", report.Plain(strings.Join(o.cannot, ", "))), "restart it by what started it, then: kubepki verify --live")
	}
	return nil
}
