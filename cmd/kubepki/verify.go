package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/proof"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

type verifyOptions struct {
	roots    []string
	layout   string
	at       string
	output   string
	failOn   string
	expiring string
	live     liveFlags
}

func newVerifyCommand(s streams) *cobra.Command {
	var o verifyOptions
	c := &cobra.Command{
		Use:   "verify [DIR...]",
		Short: "Prove every link of a cluster, from the very files and flags that its components use",
		Long: `Verify reads the folders of a cluster's nodes, pairs each caller with each
callee, and judges both halves of every link: the callee's certificate in the
eyes of the caller, and the caller's in the eyes of the callee. Where the keys
are at hand it proves the link by a true TLS handshake in memory.

--live then dials every server of the cluster from here, compares what it
presents with its file, and calls it with each credential that is at hand. It
changes nothing. Addresses of loopback are dialled on the live / alone.

--root names nodes of one cluster. An argument DIR is a cluster: the root of one
node, or a folder that holds one root per node, as kubepki init --out makes it.
Several DIRs are several clusters, and so is a distribution that brings all of
its own (k3s, MicroK8s, ...) on a node beside another.

Exit codes: 0 healthy, 1 could not look, 2 wrong usage, 3 findings at or above
--fail-on.`,
		Example: `  # This node, as root
  sudo kubepki verify

  # Three nodes of one cluster, copied here, as they were on the first of May
  kubepki verify --root cp1=./cp1 --root cp2=./cp2 --root w1=./w1 --at 2026-05-01T00:00:00Z

  # What the running components truly do, from this node
  sudo kubepki verify --live

  # All that kubepki init --out made; the broken links alone, for a script
  kubepki verify ./cluster -o json | jq '.links[] | select(.ok | not)'`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), s, args) },
	}
	f := c.Flags()
	f.StringArrayVar(&o.roots, "root", nil, "folder of a node that stands for its /, as [NAME=]DIR; repeatable (default /)")
	layoutFlag(f, &o.layout)
	f.StringVar(&o.at, "at", "", "judge as of this time (RFC 3339, or a date) instead of now")
	f.StringVarP(&o.output, "output", "o", "table", "output: table, json or yaml")
	f.StringVar(&o.failOn, "fail-on", "error", "exit with 3 on findings of this severity or worse: error, warning or info")
	f.StringVar(&o.expiring, "expiring", "", "warn of certificates that expire within this time, e.g. 30d (default 30d or a tenth of their life, whichever is shorter)")
	f.BoolVar(&o.live.on, "live", false, "look at the running components too")
	f.DurationVar(&o.live.timeout, "timeout", probe.DefaultTimeout, "with --live: how long to wait for each server")
	return c
}

// cluster is what one verification looks at.
type cluster struct {
	name  string
	nodes []nodeRoot
	// layout, or else distribution, alone is read where it is not empty.
	layout, distribution string
	// processes is layout.Options.Processes.
	processes string
}

type nodeRoot struct{ name, dir string }

func (o *verifyOptions) run(ctx context.Context, s streams, args []string) error {
	opts, failOn, err := o.parse()
	if err != nil {
		return err
	}
	live, err := o.live.options(s, o.at)
	if err != nil {
		return err
	}
	clusters, err := o.clusters(args)
	if err != nil {
		return err
	}
	printer := &report.Printer{W: s.out, Format: o.output, Several: len(clusters) > 1, Palette: report.Palette{On: isTerminal(s.out)}}
	failed, printErr, errs := false, error(nil), []error(nil)
	inOrder(ctx, clusters, func(c cluster) []verdict {
		var all []verdict
		for _, one := range c.apart() {
			all = append(all, verify(ctx, one, opts, live))
		}
		return all
	}, func(all []verdict) {
		printer.Several = printer.Several || len(all) > 1
		for _, v := range all {
			if v.err != nil {
				errs = append(errs, v.err)
				continue
			}
			failed = failed || v.result.Any(failOn)
			printErr = cmp.Or(printErr, printer.Print(&v.verification))
		}
	})
	if len(clusters) == 1 && len(errs) > 0 {
		return errs[0]
	}
	if err := cmp.Or(printErr, printer.Close(), ctx.Err(), errors.Join(errs...)); err != nil {
		return err
	}
	if failed {
		return errFindings
	}
	return nil
}

func (o *verifyOptions) parse() (check.Options, check.Severity, error) {
	opts := check.Options{At: time.Now()}
	var err error
	if o.at != "" {
		if opts.At, err = parseTime(o.at); err != nil {
			return opts, "", usagef("--at: %w", err)
		}
	}
	if o.expiring != "" {
		if opts.Expiring, err = parseDays(o.expiring); err != nil {
			return opts, "", usagef("--expiring: %w", err)
		}
	}
	if !slices.Contains([]string{"table", "json", "yaml"}, o.output) {
		return opts, "", usagef("--output: unknown format %q: use table, json or yaml", o.output)
	}
	failOn := check.Severity(o.failOn)
	if !slices.Contains([]check.Severity{check.Error, check.Warning, check.Info}, failOn) {
		return opts, "", usagef("--fail-on: unknown severity %q: use error, warning or info", o.failOn)
	}
	return opts, failOn, nil
}

func parseTime(s string) (time.Time, error) {
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(form, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time: use 2026-05-01T00:00:00Z or 2026-05-01", s)
}

// parseDays reads a duration, in which d stands for days of 24 hours.
func parseDays(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if d, err := time.ParseDuration(days + "h"); err == nil && d >= 0 {
			return d * 24, nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return d, nil
	}
	return 0, fmt.Errorf("%q is not a duration: use 30d or 720h", s)
}

// clusters tells what to verify: the nodes of --root are one cluster, each
// argument is one.
func (o *verifyOptions) clusters(args []string) ([]cluster, error) {
	only, err := parseLayout(o.layout)
	if err != nil {
		return nil, err
	}
	var all []cluster
	if len(o.roots) > 0 || len(args) == 0 {
		nodes, err := parseRoots(o.roots)
		if err != nil {
			return nil, err
		}
		all = append(all, cluster{nodes: nodes, layout: only})
	}
	for _, dir := range args {
		all = append(all, cluster{name: dir, nodes: []nodeRoot{{dir: dir}}, layout: only})
	}
	if len(all) == 1 {
		all[0].name = ""
	}
	return all, nil
}

// parseRoots reads the values of --root; without any, the machine itself.
func parseRoots(values []string) ([]nodeRoot, error) {
	if len(values) == 0 {
		return []nodeRoot{{dir: "/"}}, nil
	}
	var roots []nodeRoot
	for _, v := range values {
		r := nodeRoot{dir: v}
		if name, dir, ok := strings.Cut(v, "="); ok && !strings.ContainsRune(name, '/') {
			r = nodeRoot{name: name, dir: dir}
		} else if len(values) > 1 {
			r.name = filepath.Base(filepath.Clean(v))
		}
		if r.dir == "" {
			return nil, usagef("--root %q names no folder: use NAME=DIR or DIR", v)
		}
		if slices.ContainsFunc(roots, func(o nodeRoot) bool { return o.name == r.name }) {
			return nil, usagef("--root: two nodes are called %q: use NAME=DIR", r.name)
		}
		roots = append(roots, r)
	}
	return roots, nil
}

// verdict is what came of one cluster.
type verdict struct {
	verification report.Verification
	result       *check.Result
	err          error
}

// verify judges one cluster; live tells how to look at its running components,
// nil: not at all.
func verify(ctx context.Context, c cluster, o check.Options, live *probe.Options) verdict {
	if live != nil {
		c.processes = "/proc"
	}
	nodes, keys, err := readCluster(c)
	if err != nil {
		return verdict{err: err}
	}
	g := catalog.Wire(nodes)
	if live != nil {
		observe(ctx, g, keys, *live, o.At)
	}
	r := check.Run(g, o)
	contradictions, err := proof.Prove(g, r.Links, keys, o.At)
	if err != nil {
		return verdict{err: err}
	}
	for _, x := range contradictions {
		r.Refused(x.Link, x.Side, x.Err)
	}
	v := report.NewVerification(g, r, o.At)
	v.Name = c.name
	return verdict{verification: v, result: r}
}

// readCluster reads the nodes of a cluster, and their keys apart. Where several
// distributions are there and none is chosen, it is the first one's.
func readCluster(c cluster) ([]trust.Node, proof.Keys, error) {
	keys := proof.Keys{}
	var nodes []trust.Node
	var other *layout.UnknownError
	for _, root := range c.nodes {
		for _, r := range expand(root) {
			node, ring, err := layout.Read(r.dir, layout.Options{Name: r.name, Layout: c.layout, Distribution: c.distribution, Processes: c.processes})
			if errors.As(err, &other) && c.layout == "" && len(other.Found) > 0 {
				continue // a node of another distribution
			}
			if err != nil {
				return nil, nil, err
			}
			c.distribution = catalog.DistributionOf(node.Layout)
			maps.Copy(keys, ring)
			nodes = append(nodes, node)
		}
		if users, ring, ok := layout.ReadUsers(root.dir); ok && !layout.IsRoot(root.dir) && c.distribution == catalog.DistributionOf(users.Layout) {
			maps.Copy(keys, ring)
			nodes = append(nodes, users)
		}
	}
	return nodes, keys, nil
}

// expand returns the root itself or, where it is no node's, the node roots in it.
func expand(root nodeRoot) []nodeRoot {
	if layout.IsRoot(root.dir) {
		return []nodeRoot{root}
	}
	names, err := layout.NodeRoots(root.dir, catalog.AuthoritiesDir, catalog.UsersDir)
	if err != nil || len(names) == 0 {
		// Reading the folder itself says best what is wrong with it.
		return []nodeRoot{root}
	}
	var found []nodeRoot
	for _, n := range names {
		found = append(found, nodeRoot{name: n, dir: filepath.Join(root.dir, n)})
	}
	return found
}

// inOrder does the work on all cores and hands on the results in the order of
// the items, holding no more than a few at a time.
func inOrder[T, R any](ctx context.Context, items []T, work func(T) R, each func(R)) {
	workers := runtime.GOMAXPROCS(0)
	pending := make(chan chan R, workers)
	go func() {
		defer close(pending)
		slots := make(chan struct{}, workers)
		for _, item := range items {
			if ctx.Err() != nil {
				return
			}
			result := make(chan R, 1)
			slots <- struct{}{}
			go func() {
				defer func() { <-slots }()
				result <- work(item)
			}()
			pending <- result
		}
	}()
	for result := range pending {
		each(<-result)
	}
}
