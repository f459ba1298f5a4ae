package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/lab/internal/supervisor"
)

// verb is something that can be done to components.
type verb struct{ name, short, long, done string }

var verbs = []verb{
	{"stop", "Stop components, until they are started again", "Stop components: they end in order and stay stopped until start.", "stopped"},
	{"start", "Start components that were stopped", "Start components that were stopped, and wait until they are ready.", "started"},
	{"restart", "Stop and start components, one after another", "Stop and start components, one after another, each until it is ready again.", "restarted"},
}

func newVerbCommand(p *place, v verb) *cobra.Command {
	return &cobra.Command{
		Use:   v.name + " COMPONENT|NODE|NODE/COMPONENT…",
		Short: v.short,
		Long:  v.long,
		Example: fmt.Sprintf(`  kubepki-lab %[1]s kube-scheduler
  kubepki-lab %[1]s cp1/etcd
  kubepki-lab %[1]s w1`, v.name),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s: name a component, a node, or NODE/COMPONENT, as kubepki-lab status lists them; pods are for kubectl", v.name)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return p.withClient(c.Context(), func(ctx context.Context, client *supervisor.Client) error {
				names, err := client.Do(ctx, v.name, args)
				for _, name := range names {
					fmt.Fprintln(c.OutOrStdout(), name, v.done)
				}
				if errors.As(err, new(*supervisor.UnknownError)) {
					return usageError{err}
				}
				return err
			})
		},
	}
}
