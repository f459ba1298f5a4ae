package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/report"
)

type tokenListOptions struct {
	access tokenAccess
	output string
	reveal bool
}

func newTokenListCommand(s streams) *cobra.Command {
	var o tokenListOptions
	c := &cobra.Command{
		Use:   "list",
		Short: "List the bootstrap tokens of the cluster",
		Long: `List the bootstrap tokens of the cluster, with those that expired and those that
cannot work. Secrets are struck out, for a list ends up in terminals, logs and
tickets, and its ids are all that delete and show need; a new node is better
served by a new token. --reveal shows them.`,
		Example: `  # All tokens
  kubepki token list

  # Those that never expire
  kubepki token list -o json | jq -r '.items[] | select(.expires == null) | .id'

  # As kubeadm shows them
  kubepki token list --reveal`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), s) },
	}
	f := c.Flags()
	o.access.add(f)
	f.StringVarP(&o.output, "output", "o", "table", "output: table, json or yaml")
	f.BoolVar(&o.reveal, "reveal", false, "show the secrets of the tokens")
	return c
}

func (o *tokenListOptions) run(ctx context.Context, s streams) error {
	if err := checkTokenOutput(o.output); err != nil {
		return err
	}
	tokens, _, err := o.access.connect()
	if err != nil {
		return err
	}
	secrets, err := tokens.List(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	var entries []*bootstrap.Entry
	for i := range secrets {
		entries = append(entries, bootstrap.Read(&secrets[i], now))
	}
	if o.output == "table" {
		return o.table(s, entries, now)
	}
	list := struct {
		APIVersion string          `json:"apiVersion"`
		Kind       string          `json:"kind"`
		Items      []tokenDocument `json:"items"`
	}{report.APIVersion, "BootstrapTokenList", []tokenDocument{}}
	for _, e := range entries {
		list.Items = append(list.Items, newTokenDocument(e, o.reveal))
	}
	return report.Document(s.out, o.output, list)
}

func checkTokenOutput(format string) error {
	switch format {
	case "table", "json", "yaml":
		return nil
	}
	return usagef("--output: unknown format %q: use table, json or yaml", format)
}

// table has kubeadm's columns.
func (o *tokenListOptions) table(s streams, entries []*bootstrap.Entry, now time.Time) error {
	var rows [][]string
	for _, e := range entries {
		expires := cmp.Or(timeText(e.Expires), "<never>")
		if e.Expired && e.Expires.IsZero() {
			expires = "<unreadable>"
		}
		rows = append(rows, []string{
			shownToken(e, o.reveal), shownTTL(e, now), expires, shownList(e.Usages),
			report.Plain(cmp.Or(e.Description, "<none>")), shownList(e.Groups),
		})
		for _, f := range e.Findings {
			if f.Severity == "error" {
				fmt.Fprintf(s.err, "kubepki: warning: %s: %s\n", report.Plain(e.Name), report.Plain(f.Cause))
			}
		}
	}
	return report.Table(s.out, []string{"TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"}, rows)
}
