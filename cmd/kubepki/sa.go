package main

import "github.com/spf13/cobra"

func newSACommand(s streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "sa",
		Short: "Issue, read, verify and publish the tokens of service accounts",
		Long: `Issue, read and verify the tokens of service accounts, and publish the keys that
verify them. What is a token to kube-apiserver is one here, judged by the same
rules and some stricter ones, without asking a cluster.

A token is a secret: it is read from a file or standard input, never from an
argument, and printed by sa token alone.`,
		Example: `  # What does this token say, and is it good?
  kubectl create token robot | kubepki sa inspect
  kubectl create token robot | sudo kubepki sa verify -

  # A token without a cluster, from its signing key
  kubepki sa token ci/robot --root ./cp1 --uid 6f5c0c2e-0c5c-4f0e-9d5b-2b7a3c1d9e10

  # Which keys sign, which verify
  sudo kubepki sa keys`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("sa: say what to do: token, inspect, verify, keys, serve or external-signer")
		},
	}
	c.AddCommand(newSAExternalSignerCommand(s))
	c.AddCommand(newSATokenCommand(s))
	c.AddCommand(newSAInspectCommand(s), newSAVerifyCommand(s), newSAKeysCommand(s))
	c.AddCommand(newSAServeCommand(s))
	return c
}
