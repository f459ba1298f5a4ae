package main

import "github.com/spf13/cobra"

// commands lists the commands in the order in which help shows them.
func commands(s streams) []*cobra.Command {
	return []*cobra.Command{
		newInitCommand(s),
		newVerifyCommand(s),
		newExplainCommand(s),
		newShowCommand(s),
		newGraphCommand(s),
		newRenewCommand(s),
		newRecoverCommand(s),
		newTrustCommand(s),
		newIssueCommand(s),
		newKubeconfigCommand(s),
		newCSRCommand(s),
		newCertCommand(s),
		newTokenCommand(s),
		newSACommand(s),
		newControllerCommand(s),
		newNodeCommand(s),
		newAgentCommand(s),
		newVersionCommand(s),
	}
}
