package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/restart"
)

// restarter restarts components of this machine.
type restarter struct {
	by      string
	timeout time.Duration
	force   bool
}

type nodeRestartOptions struct {
	restarter
	trustChangeFlags
	all, stale bool
}

func newNodeRestartCommand(s streams) *cobra.Command {
	var o nodeRestartOptions
	c := &cobra.Command{
		Use:   "restart [COMPONENT...]",
		Short: "Restart components of this node, one at a time, each with a live proof",
		Long: `Restart components of this node one after the other: etcd, kube-apiserver,
kube-controller-manager, kube-scheduler, kubelet. Each must come back before the
next is touched: a new process, healthy by its own word, which presents what its
file holds and lets in those whom it should; etcd with its quorum. The first that
does not come back is the last that is touched (exit code 1).

A static pod's container is stopped by the container runtime, and the kubelet starts
it again; without a runtime its manifest is moved to /etc/kubernetes/kubepki-restart
and back. Killed in between, the next run brings the manifest back. A systemd unit
is restarted over D-Bus. What nobody is known to start again is not ended. An etcd
member is not ended while the others alone would be no quorum.

--stale restarts what verify --live finds to be behind its files.`,
		Example: `  # What still serves an old certificate or trusts an old authority
  sudo kubepki node restart --stale

  # Two components, by their names, without a question
  sudo kubepki node restart kube-controller-manager kube-scheduler --yes

  # What would be restarted, and how
  sudo kubepki node restart --all --dry-run`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args) },
	}
	c.ValidArgs = []string{catalog.Etcd, catalog.APIServer, catalog.ControllerManager, catalog.Scheduler, catalog.Kubelet, catalog.KubeProxy}
	f := c.Flags()
	f.BoolVar(&o.all, "all", false, "every component of this node")
	f.BoolVar(&o.stale, "stale", false, "those that verify --live finds to be behind their files")
	f.StringVar(&o.by, "by", string(restart.Auto), "how static pods are restarted: auto, cri (the container runtime stops the container) or manifest (moved away and back)")
	f.DurationVar(&o.timeout, "timeout", restart.DefaultTimeout, "how long one component may take to be back and proved")
	f.BoolVar(&o.restarter.force, "force", false, "restart an etcd member also where it is not known whether the others are a quorum without it")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be restarted, and restart nothing")
	f.StringVarP(&o.output, "output", "o", "table", "output: table, json or yaml")
	return c
}

func (o *nodeRestartOptions) run(ctx context.Context, s streams, names []string) error {
	chosen := 0
	for _, given := range []bool{len(names) > 0, o.all, o.stale} {
		if given {
			chosen++
		}
	}
	if chosen != 1 {
		return usagef("node restart: name components, or give --stale or --all: one of the three")
	}
	if err := o.check("--by", "--timeout"); err != nil {
		return err
	}
	if err := o.checkOutput("table", "json", "yaml"); err != nil {
		return err
	}
	unlock, err := o.begin(s, o.dryRun)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := o.cluster()
	if err != nil {
		return err
	}
	targets, err := o.targets(ctx, s, c, names)
	if err != nil {
		return err
	}
	if err := printTargets(s, targets); err != nil {
		return err
	}
	if len(targets) == 0 || o.dryRun {
		return o.answer(s, restartDocument(targets, nil, nil, o.dryRun))
	}
	if err := o.confirm(s); err != nil {
		return err
	}
	return o.restartAll(ctx, s, &o.trustChangeFlags, targets)
}

// targets are what was asked for.
func (o *nodeRestartOptions) targets(ctx context.Context, s streams, c restart.Cluster, names []string) ([]restart.Target, error) {
	if !o.stale {
		targets, err := restart.Named(c.Graph, names)
		if o.all {
			targets = slices.DeleteFunc(targets, func(t restart.Target) bool { return t.Kind == restart.Unknown }) // of which it is not known that it runs
		}
		var none *restart.NoTargetError
		if errors.As(err, &none) && os.Geteuid() != 0 {
			err = advise(err, "run it again with sudo: manifests are root's to read")
		}
		return targets, err
	}
	live := c.Probe
	live.Seen = progress(s)
	c.Graph.Observations = probe.Run(ctx, c.Graph, catalog.Servers(c.Graph), c.Keys, live)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	findings := check.Run(c.Graph, check.Options{At: live.At}).Findings
	for _, f := range findings {
		if f.ID == "unreachable" || f.ID == "refused" {
			fmt.Fprintf(s.err, "kubepki: warning: %s: %s: whether it is behind its files is not known\n", f.ID, report.Plain(f.Cause))
		}
	}
	return restart.Stale(c.Graph, findings), nil
}

// check judges the flags, by their names.
func (o *restarter) check(by, timeout string) error {
	if _, err := restart.ParseBy(o.by); err != nil {
		return usagef("%s: %w", by, err)
	}
	if o.timeout <= 0 {
		return usagef("%s: %s is no time to wait: use 4m", timeout, o.timeout)
	}
	return nil
}

// begin locks the node against other restarts, and brings back what an interrupted
// one left aside. Dry, it does neither, and tells.
func (o *restarter) begin(s streams, dry bool) (func(), error) {
	if dry {
		left, err := restart.Left("/")
		for _, manifest := range left {
			fmt.Fprintf(s.err, "kubepki: warning: %s stands in %s: an interrupted restart left it, or one is under way\n", report.Plain(manifest), restart.AsideFolder)
		}
		return func() {}, err
	}
	unlock, err := restart.Lock("/")
	if err != nil {
		return nil, err
	}
	back, err := restart.Recover("/")
	for _, manifest := range back {
		fmt.Fprintf(s.err, "%s is back in its place: an interrupted restart had left it in %s\n", report.Plain(manifest), restart.AsideFolder)
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// cluster reads this machine, with what runs on it.
func (o *restarter) cluster() (restart.Cluster, error) {
	one, err := cluster{nodes: []nodeRoot{{dir: "/"}}, processes: "/proc"}.alone()
	if err != nil {
		return restart.Cluster{}, err
	}
	nodes, keys, err := readCluster(one)
	if err != nil {
		return restart.Cluster{}, err
	}
	return restart.Cluster{Graph: catalog.Wire(nodes), Keys: probe.Keys(keys), Probe: probe.Options{At: clock()}}, nil
}

// restartAll restarts targets of this machine and says what was done. It is to be
// called between begin and its end.
func (o *restarter) restartAll(ctx context.Context, s streams, out *trustChangeFlags, targets []restart.Target) error {
	by, err := restart.ParseBy(o.by)
	if err != nil {
		return usagef("%w", err)
	}
	m := &restart.Machine{Root: "/", Procfs: "/proc", By: by, Force: o.force, Say: func(said string) { fmt.Fprintf(s.err, "%s\n", report.Plain(said)) }}
	r := m.Runner(o.cluster)
	r.Timeout = o.timeout
	r.Began = func(t *restart.Target) {
		doing := "restarting"
		if t.Await {
			doing = "waiting for"
		}
		fmt.Fprintf(s.err, "%s %s: at most %s\n", doing, report.Plain(t.ID()), o.timeout)
	}
	r.Done = func(d restart.Done) {
		switch {
		case out.output == "table" && d.Target.Await:
			fmt.Fprintf(s.out, "%s runs, and was proved after %s\n", report.Plain(d.Target.ID()), d.Took.Round(100*time.Millisecond))
		case out.output == "table":
			fmt.Fprintf(s.out, "%s restarted and proved after %s: %s\n", report.Plain(d.Target.ID()), d.Took.Round(100*time.Millisecond), report.Plain(d.How))
		}
	}
	done, err := r.Run(ctx, targets)
	if out.output != "table" {
		return errors.Join(report.Document(s.out, out.output, restartDocument(targets, done, err, false)), err)
	}
	return err
}

// answer prints what is not restarted: nothing, or a dry run.
func (o *nodeRestartOptions) answer(s streams, d restartAnswer) error {
	if o.output != "table" {
		if err := report.Document(s.out, o.output, d); err != nil {
			return err
		}
	}
	if len(d.Left) > 0 {
		return errFindings // changes are pending
	}
	if o.output == "table" {
		_, err := fmt.Fprintln(s.out, "nothing is to be restarted")
		return err
	}
	return nil
}

// printTargets shows a plan on stderr.
func printTargets(s streams, targets []restart.Target) error {
	if len(targets) == 0 {
		return nil
	}
	var rows [][]string
	for i := range targets {
		t := &targets[i]
		rows = append(rows, []string{report.Plain(t.ID()), report.Plain(t.Where()), report.Plain(strings.Join(t.Why, "; "))})
	}
	return report.Table(s.err, []string{"RESTART", "OF", "WHY"}, rows)
}

// restartAnswer is the answer in machine output.
type restartAnswer struct {
	APIVersion string             `json:"apiVersion"`
	Kind       string             `json:"kind"`
	DryRun     bool               `json:"dryRun"`
	Restarted  []restartedProcess `json:"restarted"`
	Left       []restartedProcess `json:"left"` // not touched
	Failed     *restartedProcess  `json:"failed,omitempty"`
}

type restartedProcess struct {
	ID      string   `json:"id"`
	Kind    string   `json:"kind"`
	Of      string   `json:"of"`
	Why     []string `json:"why"`
	How     string   `json:"how,omitempty"`
	Seconds float64  `json:"seconds,omitempty"` // until it was proved
	Error   string   `json:"error,omitempty"`
	See     string   `json:"see,omitempty"` // the command that shows why
}

func restartDocument(targets []restart.Target, done []restart.Done, err error, dry bool) restartAnswer {
	d := restartAnswer{APIVersion: report.APIVersion, Kind: "Restart", DryRun: dry, Restarted: []restartedProcess{}, Left: []restartedProcess{}}
	for _, x := range done {
		p := processOf(&x.Target)
		p.How, p.Seconds = x.How, x.Took.Round(100*time.Millisecond).Seconds()
		d.Restarted = append(d.Restarted, p)
	}
	left := targets[len(done):]
	var stopped *restart.StoppedError
	if errors.As(err, &stopped) {
		p := processOf(&stopped.Target)
		p.Error, p.See = stopped.Err.Error(), stopped.Look
		d.Failed, left = &p, stopped.Left
	}
	for i := range left {
		d.Left = append(d.Left, processOf(&left[i]))
	}
	return d
}

func processOf(t *restart.Target) restartedProcess {
	return restartedProcess{ID: t.ID(), Kind: string(t.Kind), Of: t.Where(), Why: append([]string{}, t.Why...)}
}
