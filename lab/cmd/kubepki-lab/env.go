package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func newEnvCommand(p *place) *cobra.Command {
	return &cobra.Command{
		Use:   "env",
		Short: "Print what a shell needs to use the cluster with kubectl",
		Long: `Print what a shell needs to use the cluster: KUBECONFIG of the administrator, whose
calls go through the lab's proxy on loopback, KUBEPKI_LAB_DIR, and a PATH that ends
with the lab's own programs.`,
		Example: `  eval "$(kubepki-lab env)"
  kubectl get nodes

  # Other clients, by the proxy
  curl --proxy "$KUBEPKI_LAB_PROXY" --insecure https://10.77.0.11:6443/version`,
		Args: none("env"),
		RunE: func(c *cobra.Command, _ []string) error {
			folder, client, err := p.client()
			if err != nil {
				return err
			}
			defer func() { _ = client.Close() }()
			status, err := client.Status(c.Context())
			if err != nil {
				return err
			}
			programs, err := p.programsDir()
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			fmt.Fprintf(out, "export KUBECONFIG=%s\n", quote(folder.Kubeconfig()))
			fmt.Fprintf(out, "export KUBEPKI_LAB_DIR=%s\n", quote(string(folder)))
			if status.Proxy != "" {
				fmt.Fprintf(out, "export KUBEPKI_LAB_PROXY=%s\n", quote("http://"+status.Proxy))
			}
			_, err = fmt.Fprintf(out, "case \":$PATH:\" in *:%[1]s:*) ;; *) export PATH=\"$PATH\":%[1]s ;; esac\n", quote(programs))
			return err
		},
	}
}

// quote quotes a word for a POSIX shell.
func quote(word string) string {
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
