package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/provision"
)

// initFlags are the flags of init itself; those that describe the cluster are
// clusterFlags.
type initFlags struct {
	cluster   clusterFlags
	root, out string
	layout    string
	names     []string
	csrOnly   bool
	manifests bool
	dryRun    bool
	at        string
	output    string
}

func newInitCommand(s streams) *cobra.Command {
	var f initFlags
	c := &cobra.Command{
		Use:   "init (--root DIR | --out DIR)",
		Short: "Create every credential of a cluster",
		Long: `Create every credential of a cluster: authorities, certificates, kubeconfigs and
the service-account key, in kubeadm's places.

--root DIR writes those of a single node below DIR as if it were /. --out DIR
writes one such folder per node, DIR/NODE, each with only what that node may
hold. Nothing that is there is overwritten: what exists is reused, what lacks is
made, and what contradicts is refused. All is written, or nothing.`,
		Example: `  # The credentials of this machine as a control-plane node, below ./node
  kubepki init --root ./node

  # Three control planes and a worker, one folder each, with static-pod manifests
  kubepki init --out ./cluster --manifests --control-plane-endpoint api.example.test:6443 \
    --control-plane cp1=10.0.0.11 --control-plane cp2=10.0.0.12 --control-plane cp3=10.0.0.13 \
    --worker w1=10.0.0.21

  # From kubeadm's configuration, or kubepki's own
  kubepki init --root ./node --config kubeadm.yaml

  # Authorities elsewhere: keys and requests now; again once they are signed
  kubepki init --root ./node --csr-only
  kubepki init --root ./node

  # A folder for two services that speak mutual TLS
  kubepki init --layout service --root ./tls --name api.example.test`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("init takes no arguments, and %q is one: flags start with --", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return runInit(c, s, &f) },
	}
	flags := c.Flags()
	flags.StringVar(&f.root, "root", "/", "folder that stands for / of the single node")
	flags.StringVar(&f.out, "out", "", "folder to make one root per node in")
	flags.StringVar(&f.layout, "layout", "kubeadm", "kubeadm or service")
	flags.StringSliceVar(&f.names, "name", nil, "with --layout service: names and addresses of the server (default localhost,127.0.0.1,::1)")
	flags.BoolVar(&f.csrOnly, "csr-only", false, "make keys and requests where the authority's key is not at hand")
	flags.BoolVar(&f.manifests, "manifests", false, "write the static-pod manifests too")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print what would be made, and write nothing")
	flags.StringVar(&f.at, "at", "", "make certificates that start at this time (RFC 3339), instead of now")
	flags.StringVarP(&f.output, "output", "o", "table", "table or json")
	f.cluster.add(flags)
	return c
}

func runInit(c *cobra.Command, s streams, f *initFlags) error {
	if err := f.check(c); err != nil {
		return err
	}
	now := time.Now()
	if f.at != "" {
		at, err := time.Parse(time.RFC3339, f.at)
		if err != nil {
			return usagef("--at %q is not a time like 2026-01-02T15:04:05Z", f.at)
		}
		now = at
	}
	if f.layout == "service" {
		return f.service(c.Context(), s, now)
	}
	cluster, err := f.cluster.read(c.Flags())
	if err != nil {
		return err
	}
	o := provision.Options{
		Cluster: cluster, Dir: f.root, CSROnly: f.csrOnly, Manifests: f.manifests, DryRun: f.dryRun, Now: now,
	}
	if f.out != "" {
		o.Dir, o.PerNode = f.out, true
	} else if n := len(cluster.ControlPlanes) + len(cluster.Workers) + len(cluster.EtcdMembers); n > 1 {
		return usagef("the configuration has %d nodes, and --root takes one: use --out DIR to have one folder each", n)
	}
	return provisionAll(c.Context(), s, f, o)
}

// check refuses flags that contradict each other.
func (f *initFlags) check(c *cobra.Command) error {
	changed := c.Flags().Changed
	switch {
	case f.output != "table" && f.output != "json":
		return usagef("--output %q is neither table nor json", f.output)
	case changed("root") && f.out != "":
		return usagef("--root is for one node and --out for several: give one of them")
	case changed("out") && f.out == "":
		return usagef("--out names no folder")
	case f.root == "":
		return usagef("--root names no folder")
	case f.layout != "kubeadm" && f.layout != "service":
		return usagef("--layout %q is neither kubeadm nor service", f.layout)
	case f.layout == "kubeadm" && changed("name"):
		return usagef("--name is for --layout service; a node is named by --node-name")
	case f.layout == "service":
		return f.checkService(c)
	}
	return nil
}

func provisionAll(ctx context.Context, s streams, f *initFlags, o provision.Options) error {
	plan, err := provision.Plan(o)
	if err != nil {
		return err
	}
	for _, w := range plan.Warnings {
		fmt.Fprintf(s.err, "kubepki: warning: %s\n", w)
	}
	if r := plan.Recovered(); r.Finished+r.Removed > 0 {
		fmt.Fprintf(s.err, "an interrupted run was mended: %d files finished, %d temporaries removed\n", r.Finished, r.Removed)
	}
	pending := plan.Pending()
	if !f.dryRun {
		if err := applyPlan(ctx, s, plan); err != nil {
			return err
		}
	}
	if err := printPlan(s.out, f.output, plan.Nodes); err != nil {
		return err
	}
	talkAfterInit(s.err, f, o, plan, pending)
	return nil
}

func applyPlan(ctx context.Context, s streams, plan *provision.Planned) error {
	bar := newKeyProgress(s.err, plan.Keys())
	err := plan.Apply(ctx, bar.step)
	bar.done()
	return err
}
