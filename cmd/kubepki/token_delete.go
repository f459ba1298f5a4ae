package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func newTokenDeleteCommand(s streams) *cobra.Command {
	var access tokenAccess
	var dryRun bool
	c := &cobra.Command{
		Use:   "delete ID|TOKEN...",
		Short: "Delete bootstrap tokens",
		Long: `Delete bootstrap tokens by their ids, or by whole tokens as kubeadm takes them.
Ten seconds later nobody joins with them (so long the API server remembers whom
it let in); nodes that have joined are not touched. One
that cannot be deleted does not keep the others.`,
		Example: `  # One
  kubepki token delete abcdef

  # One that was leaked, as it was found
  kubepki token delete abcdef.0123456789abcdef

  # All that expired
  kubepki token list -o json | jq -r '.items[] | select(.expired) | .id' | xargs kubepki token delete`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var ids []string
			for _, a := range args {
				id, _, err := tokenID(a)
				if err != nil {
					return err
				}
				ids = append(ids, id)
			}
			tokens, _, err := access.connect()
			if err != nil {
				return err
			}
			did := "deleted"
			if dryRun {
				did = "would be deleted"
			}
			var errs []error
			for _, id := range ids {
				if err := tokens.Delete(c.Context(), id, dryRun); err != nil {
					errs = append(errs, err)
					continue
				}
				if _, err := fmt.Fprintf(s.out, "bootstrap token %q %s\n", id, did); err != nil {
					return err
				}
			}
			return withTokenHint(errors.Join(errs...))
		},
	}
	access.add(c.Flags())
	c.Flags().BoolVar(&dryRun, "dry-run", false, "have the API server check it, and delete nothing")
	return c
}
