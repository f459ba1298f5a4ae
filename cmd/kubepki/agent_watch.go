package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/agent"
	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/proof"
	"github.com/kubepki/kubepki/internal/resident"
)

// agentWatchFlags say what is watched.
type agentWatchFlags struct {
	on       bool
	paths    []string
	interval time.Duration
	expiring string
	layout   string
	live     liveFlags
}

func (w *agentWatchFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&w.on, "watch", false, "watch the node's files, and prove every link when they change and each --interval")
	f.StringArrayVar(&w.paths, "path", nil, "watch the certificates of these files too: an absolute path, a pattern such as '/srv/*/tls.crt', or a folder; repeatable")
	f.DurationVar(&w.interval, "interval", agent.DefaultInterval, "how often everything is looked at, whether it has changed or not")
	f.StringVar(&w.expiring, "expiring", "", "warn of certificates that expire within this time, e.g. 30d (default 30d or a tenth of their life, whichever is shorter)")
	f.BoolVar(&w.live.on, "live", false, "look at the running components too, as verify --live")
	f.DurationVar(&w.live.timeout, "timeout", probe.DefaultTimeout, "with --live: how long to wait for each answer")
	layoutFlag(f, &w.layout)
}

// minInterval keeps a misread unit from making a core busy.
const minInterval = time.Second

func (w *agentWatchFlags) check(watches bool) error {
	if w.interval < minInterval {
		return usagef("--interval: %s is too short: use 1m", w.interval)
	}
	if w.live.on && !watches {
		return usagef("--live: goes with --watch or --renew")
	}
	return nil
}

func (w *agentWatchFlags) options(roots []string) (agent.Options, error) {
	o := agent.Options{Interval: w.interval}
	var err error
	if w.expiring != "" {
		if o.Expiring, err = parseDays(w.expiring); err != nil {
			return o, usagef("--expiring: %w", err)
		}
	}
	live, err := w.live.options(streams{}, "")
	if err != nil {
		return o, err
	}
	if len(w.paths) > 0 {
		if o.Paths, err = agent.NewPaths(w.paths); err != nil {
			return o, usagef("--path: %w", err)
		}
	}
	nodes, err := parseRoots(roots)
	if err != nil {
		return o, err
	}
	if err := rootsThere(nodes); err != nil {
		return o, err
	}
	only, err := parseLayout(w.layout)
	if err != nil {
		return o, err
	}
	o.Live = live != nil
	o.Look = func(ctx context.Context, at time.Time) (*apply.Nodes, *check.Result, error) {
		if len(w.paths) > 0 && len(roots) == 0 && !w.on && !layout.IsRoot("/") {
			n := apply.New(nil, nil, nil) // a machine without a cluster's files
			return n, check.Run(n.Graph, check.Options{At: at}), nil
		}
		return look(ctx, cluster{nodes: nodes, layout: only}, check.Options{At: at, Expiring: o.Expiring}, live)
	}
	return o, nil
}

// rootsThere refuses a folder that is not there when the agent starts: it is a slip of
// who named it. One that vanishes later is an error of the node, and is waited for.
func rootsThere(roots []nodeRoot) error {
	for _, r := range roots {
		switch info, err := os.Stat(r.dir); {
		case errors.Is(err, fs.ErrNotExist):
			return advise(fmt.Errorf("--root %s: there is no such folder", r.dir), "name the folder that stands for the node's /, as [NAME=]DIR")
		case err == nil && !info.IsDir():
			return advise(fmt.Errorf("--root %s: it is no folder", r.dir), "name the folder that stands for the node's /, as [NAME=]DIR")
		}
	}
	return nil
}

// look reads the nodes of a cluster as they are now, and judges their links as verify
// does.
func look(ctx context.Context, c cluster, o check.Options, live *probe.Options) (*apply.Nodes, *check.Result, error) {
	c, err := c.alone()
	if err != nil {
		return nil, nil, err
	}
	if live != nil {
		c.processes = "/proc"
	}
	dirs := map[string]string{}
	for _, root := range c.nodes {
		for _, r := range expand(root) {
			if other, twice := dirs[r.name]; twice {
				return nil, nil, usagef("--root: two nodes are called %q (%s and %s): use NAME=DIR", r.name, other, r.dir)
			}
			dirs[r.name] = r.dir
		}
	}
	nodes, keys, err := readCluster(c)
	if err != nil {
		return nil, nil, err
	}
	resident.Pause()
	n := apply.New(dirs, nodes, keys)
	if live != nil {
		observe(ctx, n.Graph, keys, *live, o.At)
	}
	r := check.Run(n.Graph, o)
	resident.Pause()
	contradictions, err := proof.Prove(n.Graph, r.Links, keys, o.At)
	if err != nil {
		return nil, nil, err
	}
	for _, x := range contradictions {
		r.Refused(x.Link, x.Side, x.Err)
	}
	return n, r, nil
}
