package main

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/recovery"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

type recoverOptions struct {
	trustChangeFlags
	all, clockIsRight, reuseKey bool
	live                        liveFlags
	carry                       carryFlags
	caKeys                      caKeyFlags
	people                      renewPlanFlags // of which the kubeconfigs of people alone
	restart                     recoverRestart
}

func newRecoverCommand(s streams) *cobra.Command {
	var o recoverOptions
	c := &cobra.Command{
		Use:   "recover",
		Short: "Bring a cluster back whose certificates ended while it was off",
		Long: `Bring a cluster back that was off, or not looked after, for longer than its
certificates lived. Nothing of it need run: what is needed are the nodes' folders and
the keys of the authorities.

It says what state the cluster is in and what will be done. Then every certificate,
kubeconfig and kubelet's identity that is over is made anew by its authority. An
authority that is over itself is certified again, with the name, key and key id that
it has, so that pins and what it signed go on working, and its new certificate is put
into each file and kubeconfig that holds the old one. All files of a node appear
together, or none; what is replaced is kept. Then all links are proved from the files,
and it is said in which order the components start. What is not over stays as it is.

It is not believed that much is over on the word of a clock that nothing else bears
out: where files or certificates are newer than the clock, or years older, nothing is
done before --clock-is-right.

Give all nodes: --root of each, or of copies of them, which are carried back. For a
worker whose files cannot be had, --node makes what is carried to it. A second run
does what is left; with nothing to do it says so.

Exit codes: 0 recovered, or nothing to recover, 1 could not do it, 2 wrong usage,
3 something is left or wrong, or, with --dry-run, to be done.`,
		Example: `  # What time has done to this node, and what would be done
  sudo kubepki recover --dry-run

  # The whole cluster, from copies of its nodes' folders
  kubepki recover --root cp1=./cp1 --root cp2=./cp2 --root cp3=./cp3 --root w1=./w1

  # This control plane, and what two workers need that are not here
  sudo kubepki recover --node w1 --node w2 --carry-to ./workers --yes`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), s) },
	}
	f := c.Flags()
	f.StringArrayVar(&o.roots, "root", nil, "folder of a node that stands for its /, as [NAME=]DIR, or a folder of such roots; repeatable (default /)")
	layoutFlag(f, &o.layout)
	f.BoolVar(&o.all, "all", false, "every certificate and kubeconfig, over or not")
	f.BoolVar(&o.reuseKey, "reuse-key", false, "keep the private keys instead of making new ones")
	f.BoolVar(&o.clockIsRight, "clock-is-right", false, "believe this machine's clock, whatever files and certificates say")
	f.StringVar(&o.at, "at", "", "with --dry-run: what would be done at this time (RFC 3339, or a date)")
	f.StringArrayVar(&o.people.kubeconfigs, "kubeconfigs", nil, "one more kubeconfig, as [NODE:]PATH, that is made anew where it is over; repeatable")
	f.BoolVar(&o.people.users, "users", false, "make copies in /root/.kube/config anew too, and users' kubeconfigs beside the nodes (DIR/users of init --out)")
	o.carry.add(f)
	o.caKeys.add(f)
	o.restart.add(f)
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be done, and change nothing; exits with 3 where there is something")
	f.BoolVar(&o.live.on, "live", false, "ask API servers for their time before, and look at the running components afterwards")
	f.DurationVar(&o.live.timeout, "timeout", probe.DefaultTimeout, "with --live: how long to wait for each answer")
	f.StringVarP(&o.output, "output", "o", "table", "output: table, json or yaml")
	return c
}

// recovered is what came of a run.
type recovered struct {
	all     bool         // --all
	nodes   *apply.Nodes // as they were
	state   *recovery.State
	clock   recovery.Clock
	doubt   *recovery.Doubt
	plan    *recovery.Recovery
	renewal *apply.Renewal
	copies  []*apply.File // that hold an authority's new certificate and nothing else new
	carried []carriedNode
	proof   *verdict // of the files as they are then; nil: not done
}

func (o *recoverOptions) run(ctx context.Context, s streams) error {
	if err := o.check(); err != nil {
		return err
	}
	at, err := o.time()
	if err != nil {
		return err
	}
	unlock, err := o.restart.begin(s, o.dryRun)
	if err != nil {
		return err
	}
	defer unlock()
	n, err := readMendedNodes(s, o.roots, o.layout, o.dryRun)
	if err != nil {
		return err
	}
	if n, err = o.people.read(n); err != nil {
		return err
	}
	if err := o.caKeys.use(n); err != nil {
		return err
	}
	opts := recovery.Options{At: at, Early: o.clockIsRight, All: o.all, ReuseKey: o.reuseKey, Kubeconfigs: o.people.people, Users: o.people.users}
	r := &recovered{all: o.all, nodes: n.Nodes, state: recovery.Look(n.Graph, opts), clock: clockOf(n, at)}
	if o.live.on {
		r.clock.Clues = append(r.clock.Clues, timesOfServers(ctx, n.Graph, o.live.timeout)...)
	}
	if !o.clockIsRight && o.at == "" {
		r.doubt = r.clock.Doubt()
	}
	if !r.state.Dead() && !o.all && len(o.carry.names) == 0 {
		return o.nothing(ctx, s, r)
	}
	if r.doubt != nil && !o.dryRun {
		r.sayState(s)
		return advise(fmt.Errorf("nothing is changed: %s", r.doubt), "set the clock right (timedatectl, chronyc tracking) and run it again: certificates made by a wrong clock are dead when it is right. If the clock is right: --clock-is-right")
	}
	if r.plan, err = recovery.Plan(ctx, n.Nodes.Nodes, func(p trust.Place) crypto.Signer { return n.Keys[p] }, opts); err != nil {
		return err
	}
	if err := o.make(ctx, r); err != nil {
		return err
	}
	r.renewal.Warnings = append(r.renewal.Warnings, notGiven(r.plan.Graph)...)
	r.renewal.Warnings = append(r.renewal.Warnings, copiesElsewhere(n, r.plan.Items, o.people.people)...)
	if err := r.print(s); err != nil {
		return err
	}
	restarts, err := o.restart.plan(ctx, s, r)
	if err != nil {
		return err
	}
	if !o.dryRun && (len(r.renewal.Files) > 0 || len(r.carried) > 0) {
		if err := cmp.Or(o.confirm(s), ctx.Err()); err != nil {
			return err
		}
		if err := o.carryOut(ctx, s, r); err != nil {
			return err
		}
	}
	answered := o.answer(s, r)
	if o.dryRun || answered != nil && !errors.Is(answered, errFindings) {
		return answered
	}
	return cmp.Or(o.restart.run(ctx, s, restarts), answered)
}

func (o *recoverOptions) check() error {
	if o.at != "" && !o.dryRun {
		return usagef("--at: goes with --dry-run alone: certificates are made for now")
	}
	if _, err := o.live.options(streams{}, o.at); err != nil {
		return err
	}
	return cmp.Or(o.restart.check(o.roots), o.carry.check(), o.checkOutput("table", "json", "yaml"))
}

// make makes all keys, certificates and files in memory.
func (o *recoverOptions) make(ctx context.Context, r *recovered) error {
	then := apply.New(r.nodes.Dirs, r.plan.Nodes, r.nodes.Keys)
	var err error
	if r.renewal, err = apply.Make(ctx, then, r.plan.Items, r.plan.Before, r.clock.Now); err != nil {
		return err
	}
	if r.copies, err = exchangeFiles(then, r.plan, r.renewal); err != nil {
		return err
	}
	r.carried, err = o.carry.make(ctx, r)
	return err
}

// carryOut writes all, and proves what stands there then.
func (o *recoverOptions) carryOut(ctx context.Context, s streams, r *recovered) error {
	if err := r.renewal.Write(r.nodes); err != nil {
		return err
	}
	if err := o.carry.write(ctx, r.carried); err != nil {
		return err
	}
	return o.prove(ctx, s, r, clock())
}

// prove reads the files again and proves every link at a time; with --live by the running
// components too.
func (o *recoverOptions) prove(ctx context.Context, s streams, r *recovered, at time.Time) error {
	roots, err := parseRoots(o.roots)
	if err != nil {
		return err
	}
	one := cluster{nodes: roots}
	if one.layout, err = parseLayout(o.layout); err != nil {
		return err
	}
	if one, err = one.alone(); err != nil {
		return err
	}
	live, err := o.live.options(s, o.at)
	if err != nil {
		return err
	}
	if o.restart.on {
		live = nil // each component is proved when it is back
	}
	v := verify(ctx, one, check.Options{At: at}, live)
	r.proof = &v
	return v.err
}

// nothing says that nothing is over, and what else there is to say: what cannot be read,
// is missing or broken is not known to be well.
func (o *recoverOptions) nothing(ctx context.Context, s streams, r *recovered) error {
	if len(r.state.Early) > 0 && r.doubt == nil {
		begins := latestBeginning(r)
		fmt.Fprintf(s.err, "%s begins at %s: the clocks of two machines differ; wait until then\n", placeName(r.state.Early[0]), begins.UTC().Format(time.RFC3339))
		return o.answer(s, r)
	}
	if r.doubt != nil && len(r.state.Early) > 0 {
		r.sayState(s)
		return advise(fmt.Errorf("nothing is changed: %s", r.doubt), "set the clock right (timedatectl, chronyc tracking): then there is nothing to recover. If the clock is right, and the certificates were made by a wrong one: --clock-is-right")
	}
	for _, w := range notGiven(r.nodes.Graph) {
		fmt.Fprintf(s.err, "kubepki: warning: %s\n", report.Plain(w))
	}
	if err := o.prove(ctx, s, r, r.clock.Now); err != nil {
		return err
	}
	return o.goOn(ctx, s, r)
}

// goOn restarts what an interrupted run before this one has left, though nothing is over
// any more.
func (o *recoverOptions) goOn(ctx context.Context, s streams, r *recovered) error {
	restarts, err := o.restart.plan(ctx, s, r)
	if err != nil {
		return err
	}
	left := len(restarts)+len(o.restart.cannot) > 0
	switch {
	case !left && o.restart.on:
		fmt.Fprintln(s.err, "nothing is restarted: what reads the files of the last recovery has begun since. kubepki node restart --stale restarts what is behind its files, and kubepki verify --live tells what does not run")
	case len(restarts) > 0 && !o.dryRun:
		if err := cmp.Or(o.confirm(s), ctx.Err()); err != nil {
			return err
		}
	}
	answered := o.answer(s, r)
	switch {
	case answered != nil && !errors.Is(answered, errFindings):
		return answered
	case o.dryRun && left:
		return errFindings
	case o.dryRun || !left:
		return answered
	}
	return cmp.Or(o.restart.run(ctx, s, restarts), answered)
}

// latestBeginning is when the last certificate begins.
func latestBeginning(r *recovered) time.Time {
	begin := r.clock.Now
	for _, c := range r.clock.Clues {
		if c.Sign == recovery.Begins && c.Time.After(begin) {
			begin = c.Time
		}
	}
	return begin
}

// hasNode tells whether a node is among those that were given.
func (r *recovered) hasNode(name string) bool {
	return slices.ContainsFunc(r.nodes.Nodes, func(n trust.Node) bool { return n.Name == name || n.NodeName == name })
}
