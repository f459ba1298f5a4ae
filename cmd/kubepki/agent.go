package main

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/kubepki/kubepki/internal/agent"
	"github.com/kubepki/kubepki/internal/join"
)

// attemptTimeout is how long one request of the agent waits for its
// certificate, as in client-go's certificate manager.
const attemptTimeout = 15 * time.Minute

// agentOptions are the flags of kubepki agent.
type agentOptions struct {
	roots    []string
	nodeName string
	validity string
	format   string
	join     bool
	files    clientFlags // of the client that joins and is rotated
	watch    agentWatchFlags
	renewal  agentRenewFlags
	cluster  agentClusterFlags
	show     agentShowFlags
}

func newAgentCommand(s streams) *cobra.Command {
	var o agentOptions
	c := &cobra.Command{
		Use:   "agent",
		Short: "Watch a node's credentials, renew what is due, and keep its client certificate valid",
		Long: `Three things, until a signal ends it; log lines go to standard error.

Without further flags it keeps a node's client certificate valid: what node join
and node rotate do, when their time comes. It joins where there is no valid
credential and a bootstrap kubeconfig is there, also when one expired and a
bootstrap kubeconfig is brought later. What fails is tried again, after five
minutes at most. A kubelet that rotates its certificate itself
(rotateCertificates: true) needs no agent.

--watch reads all files of the node when they change and each minute, proves every
link of them as verify does, and logs each finding that appears or goes. It writes
nothing, and needs the right to read alone. --path watches further files with
certificates.

--renew due, which watches too, makes anew what this node's own authorities can
sign, each credential at a moment between 70 and 90 percent of its life, as renew
does: all files of a credential or none, with a backup. Never an authority, never
what a distribution or the kubelet renews itself, never when a link that holds
would not hold afterwards, and not while the clock is in doubt.

With --watch or --renew, the client certificate is left alone unless --join is given.`,
		Example: `  # Keep the client certificate valid, as a service of systemd: ExecStart=/usr/local/bin/kubepki agent
  sudo kubepki agent

  # Watch this control plane, its certificates and those of a web server
  sudo kubepki agent --watch --path /etc/nginx/tls

  # Renew what falls due on this control plane, one node at a time by a Lease
  sudo kubepki agent --renew due --cluster-kubeconfig /etc/kubernetes/kubepki-agent.conf

  # For another client, with lines for machines
  kubepki agent --kubeconfig /etc/backup/backup.conf --log-format json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c, s) },
	}
	f := c.Flags()
	f.StringArrayVar(&o.roots, "root", nil, "folder of a node that stands for its /, as [NAME=]DIR; repeatable with --watch and --renew (default /)")
	f.StringVar(&o.nodeName, "node-name", "", "name to join with, and to take turns by (default: that of this machine, in lower case)")
	f.StringVar(&o.format, "log-format", "text", "text or json")
	f.BoolVar(&o.join, "join", false, "keep the client certificate valid too (default: only without --watch, --path and --renew)")
	o.files.addFiles(f)
	f.StringVar(&o.validity, "validity", "", "life to ask for, such as 30d; the signer may give less (default: as the signer likes)")
	o.watch.add(f)
	o.renewal.add(f)
	o.cluster.add(f)
	o.show.add(f)
	return c
}

func (o *agentOptions) run(c *cobra.Command, s streams) error {
	log, err := agentLog(s, o.format)
	if err != nil {
		return err
	}
	watches, err := o.watches()
	if err != nil {
		return err
	}
	var loops []func(context.Context) error
	if o.join || !watches && !c.Flags().Changed("join") {
		joins, err := o.joining(c.Flags().Changed("node-name"))
		if err != nil {
			return err
		}
		loops = append(loops, func(ctx context.Context) error { return join.Run(ctx, joins, log) })
	}
	if watches {
		a, err := o.watching(log)
		if err != nil {
			return err
		}
		undumpable()
		loops = append(loops, a.Run)
		shows, err := o.showing(a, log)
		if err != nil {
			return err
		}
		loops = append(loops, shows...)
	}
	if len(loops) == 0 {
		return usagef("--join=false leaves nothing to do: give --watch, --path or --renew")
	}
	agent.Slim()
	group, ctx := errgroup.WithContext(c.Context())
	for _, loop := range loops {
		group.Go(func() error { return loop(ctx) })
	}
	return group.Wait()
}

// watches tells whether files are watched, or that the flags contradict each other.
func (o *agentOptions) watches() (bool, error) {
	on := o.watch.on || len(o.watch.paths) > 0 || o.renewal.renews()
	if err := o.renewal.check(o.roots); err != nil {
		return false, err
	}
	return on, o.watch.check(on)
}

// joining are the options of the client whose certificate is kept valid.
func (o *agentOptions) joining(named bool) (join.Options, error) {
	o.files.root = "/"
	if len(o.roots) > 1 {
		return join.Options{}, usagef("--root: one node's client certificate is kept valid, and %d nodes are given", len(o.roots))
	}
	if len(o.roots) == 1 {
		o.files.root = o.roots[0]
		if name, dir, ok := strings.Cut(o.roots[0], "="); ok && !strings.ContainsRune(name, '/') {
			o.files.root = dir
		}
	}
	j, err := o.files.options()
	if err != nil {
		return j, err
	}
	if err := nodeIdentity(&j, o.nodeName, named); err != nil {
		return j, err
	}
	renewal := renewalFlags{validity: o.validity}
	j.Lifetime, err = renewal.lifetime()
	j.Timeout = attemptTimeout
	return j, err
}

// watching is the agent that watches and renews.
func (o *agentOptions) watching(log *slog.Logger) (*agent.Agent, error) {
	a, err := o.watch.options(o.roots)
	if err != nil {
		return nil, err
	}
	a.Log = log
	a.Clock = agent.MachineClock{}
	a.Board = agent.NewBoard(nil)
	client, err := o.cluster.client()
	if err != nil {
		return nil, err
	}
	if a.Renewal, err = o.renewal.options(o.nodeName, client, a.Board, log); err != nil {
		return nil, err
	}
	return agent.New(a), nil
}

// showing is what shows the agent's board.
func (o *agentOptions) showing(a *agent.Agent, log *slog.Logger) ([]loop, error) {
	config, err := o.cluster.config()
	if err != nil {
		return nil, err
	}
	a.Board.StuckAfter(roundLimit(o.watch.interval))
	return o.show.loops(a.Board, config, o.nodeName, log)
}

func agentLog(s streams, format string) (*slog.Logger, error) {
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(s.err, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(s.err, nil)), nil
	}
	return nil, usagef("--log-format %q is neither text nor json", format)
}
