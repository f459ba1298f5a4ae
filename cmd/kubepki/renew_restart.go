package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/restart"
	"github.com/kubepki/kubepki/internal/trust"
)

// renewRestart are the flags of renew that restart what does not take a file up by
// itself.
type renewRestart struct {
	on bool
	restarter
	cannot []string // what is to be restarted, and cannot be
}

func (o *renewRestart) add(f *pflag.FlagSet) {
	f.BoolVar(&o.on, "restart", false, "then restart, one at a time and each with a live proof, what takes the files up by a restart alone")
	f.StringVar(&o.by, "restart-by", string(restart.Auto), "how static pods are restarted: auto, cri (the container runtime stops the container) or manifest (moved away and back)")
	f.DurationVar(&o.timeout, "restart-timeout", restart.DefaultTimeout, "how long one component may take to be back and proved")
}

// check judges the flags. What runs below folders is not restarted from here: over SSH
// those may sign, and are looked at once the plan is made.
func (o *renewRestart) check(roots []string, ssh bool) error {
	switch {
	case !o.on && (o.by != string(restart.Auto) || o.timeout != restart.DefaultTimeout):
		return usagef("--restart-by, --restart-timeout: go with --restart")
	case !o.on:
		return nil
	case ssh:
	case len(roots) > 1 || len(roots) == 1 && filepath.Clean(roots[0]) != "/":
		return usagef("--restart: does not go with --root: what runs on this machine reads its own files; run kubepki node restart on the node")
	}
	return o.restarter.check("--restart-by", "--restart-timeout")
}

// begin locks the node and mends what an interrupted restart left: a manifest that
// stands aside is of a component that would not be read.
func (o *renewRestart) begin(s streams, dry bool) (func(), error) {
	if !o.on {
		return func() {}, nil
	}
	return o.restarter.begin(s, dry)
}

// plan shows what will be restarted, after the table of what is renewed.
func (o *renewRestart) plan(ctx context.Context, s streams, n *trustNodes, r *apply.Renewal) ([]restart.Target, error) {
	if !o.on {
		return nil, nil
	}
	var changed []trust.Place
	for _, f := range r.Files {
		if !slices.Contains(changed, f.Place.File()) {
			changed = append(changed, f.Place.File())
		}
	}
	targets := o.able(ctx, s, n.Graph, restart.Plan(n.Graph, changed, restart.FactsOf(n.Dirs)))
	if len(targets)+len(o.cannot) == 0 {
		fmt.Fprintln(s.err, "nothing is to be restarted: what reads these files takes them up by itself")
	}
	return targets, printTargets(s, targets)
}

// able are the targets that can be restarted from here; the others are warned of.
func (o *renewRestart) able(ctx context.Context, s streams, g *trust.Graph, targets []restart.Target) []restart.Target {
	m := restart.Machine{Root: "/", Procfs: "/proc", By: restart.By(o.by)}
	return slices.DeleteFunc(targets, func(t restart.Target) bool {
		if t.Await {
			return false
		}
		err := m.Can(ctx, g, &t)
		if err != nil {
			o.cannot = append(o.cannot, t.ID())
			fmt.Fprintf(s.err, "kubepki: warning: %s is to be restarted, and cannot be from here: %s\n", report.Plain(t.ID()), report.Plain(err.Error()))
		}
		return err != nil
	})
}

// run restarts what the plan has, once the files are written; between begin and its
// end.
func (o *renewRestart) run(ctx context.Context, s streams, targets []restart.Target) error {
	talk := s
	talk.out = s.err // the answer is the renewal's
	if len(targets) == 0 {
		return o.left()
	}
	if err := o.restartAll(ctx, talk, &trustChangeFlags{trustFlags: trustFlags{output: "table"}}, targets); err != nil {
		return advise(err, "the files are written; to go back: %s", report.Plain("kubepki renew --undo, and kubepki node restart with the same components"))
	}
	return o.left()
}

// left is the error that something goes on with the old files.
func (o *renewRestart) left() error {
	if len(o.cannot) == 0 {
		return nil
	}
	return advise(fmt.Errorf("the files are written, and %s was not restarted: it goes on with the old ones", strings.Join(o.cannot, ", ")), "restart it by what started it, then: kubepki verify --live")
}
