package main

import (
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/join"
)

// attemptTimeout is how long one request of the agent waits for its
// certificate, as in client-go's certificate manager.
const attemptTimeout = 15 * time.Minute

func newAgentCommand(s streams) *cobra.Command {
	var files clientFlags
	var nodeName, validity, format string
	c := &cobra.Command{
		Use:   "agent",
		Short: "Keep a node's client certificate valid: join by token, and rotate when it is due",
		Long: `Keep a node's client certificate valid, until a signal ends it: what node join
and node rotate do, when their time comes. Log lines go to standard error.

It joins where there is no valid credential and a bootstrap kubeconfig is there,
also when one expired and a bootstrap kubeconfig is brought later. What fails is
tried again, after five minutes at most. A kubelet that rotates its certificate
itself (rotateCertificates: true) needs no agent.`,
		Example: `  # As a service of systemd: ExecStart=/usr/local/bin/kubepki agent
  sudo kubepki agent

  # Lines for machines
  sudo kubepki agent --log-format json

  # For another client
  kubepki agent --kubeconfig /etc/backup/backup.conf`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o, err := files.options()
			if err != nil {
				return err
			}
			given := c.Flags().Changed("node-name")
			if !given && o.Root != "/" {
				return usagef("--node-name is missing: the name of this machine is not that of the node below --root")
			}
			if err := nodeIdentity(&o, nodeName, given); err != nil {
				return err
			}
			renewal := renewalFlags{validity: validity}
			if o.Lifetime, err = renewal.lifetime(); err != nil {
				return err
			}
			o.Timeout = attemptTimeout
			log, err := agentLog(s, format)
			if err != nil {
				return err
			}
			return join.Run(c.Context(), o, log)
		},
	}
	files.add(c.Flags())
	c.Flags().StringVar(&nodeName, "node-name", "", "name to join with (default: that of this machine, in lower case)")
	c.Flags().StringVar(&validity, "validity", "", "life to ask for, such as 30d; the signer may give less (default: as the signer likes)")
	c.Flags().StringVar(&format, "log-format", "text", "text or json")
	return c
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
