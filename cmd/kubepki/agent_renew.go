package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/agent"
	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/join"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/restart"
	"github.com/kubepki/kubepki/internal/trust"
)

// agentRenewFlags say what is made anew, and when.
type agentRenewFlags struct {
	what     string
	at       string
	reuseKey bool
	lease    string
	span     agent.Span
	keys     caKeyFlags
	api      renewAPI
	restart  bool
	keep     int
	restarter
}

func (r *agentRenewFlags) add(f *pflag.FlagSet) {
	f.StringVar(&r.what, "renew", "none", "what is made anew: none, or due")
	f.StringVar(&r.at, "renew-at", "70-90", "when it is due, in percent of its life: each certificate at a moment of its own within")
	f.BoolVar(&r.reuseKey, "reuse-key", false, "keep private keys instead of making new ones")
	r.keys.add(f)
	r.api.add(f, 30*time.Second)
	f.BoolVar(&r.restart, "restart", false, "then restart, one at a time and each with a live proof, what takes the files up by a restart alone; not with --root")
	f.StringVar(&r.by, "restart-by", string(restart.Auto), "how static pods are restarted: auto, cri (the container runtime stops the container) or manifest (moved away and back)")
	f.DurationVar(&r.timeout, "restart-timeout", restart.DefaultTimeout, "how long one component may take to be back and proved")
	f.IntVar(&r.keep, "keep-backups", 10, "with --renew: how many of its own renewals' backups a node keeps; those of people are never removed")
	f.StringVar(&r.lease, "lease-namespace", "kube-system", "namespace of the Lease kubepki-agent, by which nodes take turns with --cluster-kubeconfig")
}

func (r *agentRenewFlags) renews() bool { return r.what == "due" }

func (r *agentRenewFlags) check(roots []string) (err error) {
	switch {
	case !r.restart:
	case !r.renews():
		return usagef("--restart: goes with --renew due")
	case len(roots) > 0:
		return usagef("--restart: does not go with --root: what runs on this machine reads its own files")
	default:
		if err := r.restarter.check("--restart-by", "--restart-timeout"); err != nil {
			return err
		}
	}
	if r.api.on() && !r.renews() {
		return usagef("--signer-kubeconfig: goes with --renew due")
	}
	if err := r.api.check(); err != nil {
		return err
	}
	if r.keep < 1 {
		return usagef("--keep-backups: %d is less than 1", r.keep)
	}
	if r.what != "none" && r.what != "due" {
		return usagef("--renew %q is neither none nor due", r.what)
	}
	if r.span, err = agent.ParseSpan(r.at); err != nil {
		return usagef("--renew-at: %w", err)
	}
	return nil
}

// leasePatience is for how long a node waits for its turn before it looks again at
// what else there is.
const leasePatience = 30 * time.Second

// options are nil where nothing is made anew.
func (r *agentRenewFlags) options(nodeName string, client kubernetes.Interface, board *agent.Board, log *slog.Logger) (*agent.Renewal, error) {
	if !r.renews() {
		return nil, nil
	}
	if nodeName == "" {
		var err error
		if nodeName, err = join.DefaultNodeName(); err != nil {
			return nil, err
		}
	}
	spread := &agent.Spread{Node: nodeName, Clock: agent.MachineClock{}}
	signer, err := newAgentSigner(&r.api, log)
	if err != nil {
		return nil, err
	}
	o := &agent.Renewal{Span: r.span, Keep: r.keep}
	o.Plan = func(n *apply.Nodes, findings []check.Finding, targets []string, at time.Time) ([]*renew.Item, error) {
		return r.plan(signer, n, findings, targets, at)
	}
	if signer != nil {
		o.Tidy = signer.tidy
	}
	if r.restart {
		o.Restart = func(ctx context.Context, n *apply.Nodes, changed []trust.Place, done []string) ([]string, error) {
			return r.restartFor(ctx, n, changed, done, board, log)
		}
		o.Turn = spread
	}
	if client != nil {
		o.Turn = &agent.Lease{
			Client: client, Namespace: r.lease, Name: "kubepki-agent", Identity: nodeName + "_" + strings.ToLower(rand.Text()[:8]),
			Patience: leasePatience, Else: spread, Log: log,
		}
	}
	return o, nil
}

// plan plans for the signers of the cluster where they are asked, and else, and for what
// they do not sign, for the node's own authorities.
func (r *agentRenewFlags) plan(signer *agentSigner, n *apply.Nodes, findings []check.Finding, targets []string, at time.Time) ([]*renew.Item, error) {
	if err := r.keys.use(&trustNodes{n}); err != nil {
		return nil, err
	}
	plan := func(elsewhere bool) ([]*renew.Item, error) {
		return renew.Plan(n.Graph, findings, targets, renew.Options{At: at, ReuseKey: r.reuseKey, Elsewhere: elsewhere, Keys: func(p trust.Place) crypto.Signer { return n.Keys[p] }})
	}
	if signer == nil {
		return plan(false)
	}
	items, reason, ok := signer.plan(n, plan)
	if ok {
		return items, nil
	}
	items, err := plan(false)
	if err != nil {
		err = fmt.Errorf("%w; and by the cluster: %s", err, reason)
	}
	return items, err
}

// restartFor restarts what takes up by a restart alone what was written, but for what is
// done, and returns the ids of what it restarted and proved.
func (r *agentRenewFlags) restartFor(ctx context.Context, n *apply.Nodes, changed []trust.Place, done []string, board *agent.Board, log *slog.Logger) (more []string, err error) {
	targets := slices.DeleteFunc(restart.Plan(n.Graph, changed, restart.FactsOf(n.Dirs)), func(t restart.Target) bool { return slices.Contains(done, t.ID()) })
	if len(targets) == 0 {
		return nil, nil
	}
	by, err := restart.ParseBy(r.by)
	if err != nil {
		return nil, err
	}
	unlock, err := restart.Lock("/")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := restart.Recover("/"); err != nil {
		return nil, err
	}
	m := &restart.Machine{Root: "/", Procfs: "/proc", By: by, Say: func(said string) { log.Info(said) }}
	run := m.Runner(r.cluster)
	run.Timeout = r.timeout
	run.Began = func(t *restart.Target) { log.Info("restarting", "id", t.ID(), "of", t.Where(), "atMost", run.Timeout) }
	run.Done = func(d restart.Done) {
		more = append(more, d.Target.ID())
		log.Info("restarted and proved", "id", d.Target.ID(), "after", d.Took.Round(100*time.Millisecond), "how", d.How)
		board.Decided(agent.Decision{Action: agent.Restarted, ID: d.Target.ID(), Node: d.Target.Node, Reason: agent.ReasonRestart, Text: d.How})
	}
	_, err = run.Run(ctx, targets)
	return more, err
}

// agentClusterFlags say how the agent reaches the cluster's API, if at all.
type agentClusterFlags struct{ kubeconfig string }

// inCluster stands for a pod's own account.
const inCluster = "in-cluster"

func (c *agentClusterFlags) add(f *pflag.FlagSet) {
	f.StringVar(&c.kubeconfig, "cluster-kubeconfig", "", "kubeconfig by which the agent calls the API server, or in-cluster for its pod's own account (default: it does not call it)")
}

// config is nil where the API is not called.
func (c *agentClusterFlags) config() (*rest.Config, error) {
	var config *rest.Config
	var err error
	switch c.kubeconfig {
	case "":
		return nil, nil
	case inCluster:
		config, err = rest.InClusterConfig()
	default:
		config, err = kube.Access{Kubeconfig: c.kubeconfig}.Connect()
	}
	if err != nil {
		return nil, advise(err, "--cluster-kubeconfig names a kubeconfig, or is in-cluster in a pod with an account")
	}
	config.UserAgent = "kubepki-agent"
	config.WarningHandler = rest.NoWarnings{}
	return config, nil
}

// client is nil where the API is not called.
func (c *agentClusterFlags) client() (kubernetes.Interface, error) {
	config, err := c.config()
	if config == nil || err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}
