package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/kube"
)

type tokenDeleteOptions struct {
	access kube.Access
	token  tokenFlags
	dryRun bool
}

func newTokenDeleteCommand(s streams) *cobra.Command {
	var o tokenDeleteOptions
	c := &cobra.Command{
		Use:   "delete [ID|TOKEN...]",
		Short: "Delete bootstrap tokens",
		Long: `Delete bootstrap tokens by their ids, or by whole tokens: better in a file than an
argument, which everybody who can list processes sees. A whole token is deleted
when it is the cluster's, and not when the cluster's of this id has another
secret. Ten seconds later nobody joins with them (so long the API server
remembers whom it let in); nodes that have joined are not touched. One that
cannot be deleted does not keep the others.`,
		Example: `  # One
  kubepki token delete abcdef

  # One that was leaked, in a file as it was found
  kubepki token delete --token-file leaked

  # All that expired
  kubepki token list -o json | jq -r '.items[] | select(.expired) | .id' | xargs -r kubepki token delete`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args) },
	}
	addAccess(c.Flags(), &o.access)
	o.token.addFile(c.Flags())
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "have the API server check it, and delete nothing")
	return c
}

func (o *tokenDeleteOptions) run(ctx context.Context, s streams, args []string) error {
	if len(args) == 0 && o.token.file == "" {
		return usagef("no token is given: name its id, or its file with --token-file")
	}
	wanted, err := o.token.wanted(s, args)
	if err != nil {
		return err
	}
	tokens, _, err := connectTokens(o.access)
	if err != nil {
		return err
	}
	did := "deleted"
	if o.dryRun {
		did = "would be deleted"
	}
	var errs []error
	for _, w := range wanted {
		if err := o.delete(ctx, tokens, w); err != nil {
			errs = append(errs, err)
			continue
		}
		if _, err := fmt.Fprintf(s.out, "bootstrap token %q %s\n", w.id, did); err != nil {
			return err
		}
	}
	return withTokenHint(errors.Join(errs...))
}

// delete deletes one; a whole token only when the cluster's is the same.
func (o *tokenDeleteOptions) delete(ctx context.Context, tokens *kube.Tokens, w wantedToken) error {
	if !w.whole.IsZero() {
		secret, err := tokens.Get(ctx, w.id)
		if err != nil {
			return fmt.Errorf("deleting %w", err)
		}
		if err := w.compare(bootstrap.Read(secret, time.Now())); err != nil {
			return advise(fmt.Errorf("deleting %w", err), "to delete the cluster's whatever its secret: kubepki token delete %s", w.id)
		}
	}
	return tokens.Delete(ctx, w.id, o.dryRun)
}
