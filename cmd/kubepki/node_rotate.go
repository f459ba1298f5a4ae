package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/join"
)

func newNodeRotateCommand(s streams) *cobra.Command {
	var files clientFlags
	var renewal renewalFlags
	var force bool
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the node's client certificate and key when they are due",
		Long: `Replace the node's client certificate when it is due, after seven to nine tenths
of its life as kubelets do, or at once with --force. It is asked for with the
certificate that is there, and with a new key; it is proved by a call before the
link kubelet-client-current.pem moves to it. The dated file before it stays.

A kubeconfig that holds its certificate itself names the link afterwards. With
--kubeconfig any client's is rotated; requests other than those of nodes wait
until somebody approves them. Exit code 0 also when nothing is due.`,
		Example: `  # From a timer
  sudo kubepki node rotate

  # Now
  sudo kubepki node rotate --force

  # Of another client that joined by token
  kubepki node rotate --kubeconfig /etc/backup/backup.conf`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o, err := files.options()
			if err != nil {
				return err
			}
			if err := renewal.set(&o, s); err != nil {
				return err
			}
			r, err := join.Rotate(c.Context(), o, force)
			if err != nil {
				return err
			}
			return renewal.say(s, o, r)
		},
	}
	files.add(c.Flags())
	renewal.add(c.Flags(), 5*time.Minute)
	c.Flags().BoolVar(&force, "force", false, "now, due or not")
	return c
}
