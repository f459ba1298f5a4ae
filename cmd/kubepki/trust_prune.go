package main

import (
	"context"
	"crypto/x509"
	"math"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/bundle"
)

type trustPruneOptions struct{ trustChangeFlags }

func newTrustPruneCommand(s streams) *cobra.Command {
	var o trustPruneOptions
	c := &cobra.Command{
		Use:   "prune TARGET...",
		Short: "Remove anchors that have expired, and second copies, from bundles",
		Long: `Prune removes anchors that have expired at --at, which verify nothing any more, and
second copies of one and the same certificate. The last anchor of a bundle stays,
and so does one that a link of the nodes needs today, or of which nobody can say
that none does, when --at is a day to come.

` + trustTargets,
		Example: `  # What would go
  sudo kubepki trust prune kube-apiserver/client-ca-file --dry-run

  # Of a ConfigMap that many have added to
  kubepki trust prune configmap/default/corporate-roots --yes

  # A file that is not in use
  kubepki trust prune file:./roots.pem --yes`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args) },
	}
	c.ValidArgsFunction = o.completeTargets(math.MaxInt)
	o.add(c.Flags(), "go on where something else writes the object")
	return c
}

func (o *trustPruneOptions) run(ctx context.Context, s streams, targets []string) error {
	at, err := o.time()
	if err == nil {
		err = o.checkOutput("table", "json", "yaml")
	}
	if err != nil {
		return err
	}
	source := o.source(s)
	var bundles []*trustBundle
	for _, target := range targets {
		found, err := source.find(ctx, target)
		if err != nil {
			return err
		}
		for _, b := range found {
			if !slices.ContainsFunc(bundles, func(have *trustBundle) bool { return have.where() == b.where() && have.dir == b.dir }) {
				bundles = append(bundles, b)
			}
		}
	}
	p := &trustPlan{}
	now := clock()
	for _, b := range bundles {
		if err := b.editable(); err != nil {
			return err
		}
		if b.object != nil && (len(targets) > 1 || bundles[0].object == nil) {
			return usagef("prune one object of the cluster at a time")
		}
		c := &trustChange{trustBundle: b}
		if source.nodes != nil {
			c.describe(source.nodes)
		}
		var pruned bundle.Pruned
		c.after, pruned = b.text.Prune(at, c.needed(source.nodes, now))
		c.removed, c.already = slices.Concat(pruned.Expired, pruned.Duplicate), pruned.Kept
		if c.object != nil && len(c.removed) > 0 {
			p.foreign(c)
		}
		p.changes = append(p.changes, c)
	}
	if source.nodes != nil {
		p.judge(source.nodes, now)
	}
	first := p.changes[0]
	return o.trustChangeFlags.run(ctx, s, source, p, func(t *bundle.Text) (*bundle.Text, error) {
		after, _ := t.Prune(at, first.needed(source.nodes, now))
		return after, nil
	}, at)
}

// needed tells of an anchor that expires until --at whether it may be needed today:
// what has expired already verifies nothing.
func (c *trustChange) needed(n *trustNodes, now time.Time) func(*x509.Certificate) bool {
	return func(anchor *x509.Certificate) bool {
		if now.After(anchor.NotAfter) {
			return false
		}
		seen := n != nil && slices.ContainsFunc(c.readers, func(r bundle.Setting) bool { return r.Seen(n.Graph) })
		return !seen || slices.ContainsFunc(c.readers, func(r bundle.Setting) bool { return len(r.Serves(n.Graph, anchor, now)) > 0 })
	}
}
