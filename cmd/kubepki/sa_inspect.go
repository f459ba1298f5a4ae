package main

import (
	"context"

	"github.com/spf13/cobra"

	content "github.com/kubepki/kubepki/internal/inspect"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/token"
)

type saInspectOptions struct {
	from       saKeyFlags
	at, output string
}

func newSAInspectCommand(s streams) *cobra.Command {
	var o saInspectOptions
	c := &cobra.Command{
		Use:   "inspect [-|FILE]",
		Short: "Tell in plain words what a token says, and what is remarkable about it",
		Long: `Tell in plain words what a token says: who it is, for whom, how long, what it is
bound to; and what makes it worth more to a thief than it need be. No key is
needed; of keys that are given it is told which one signed it. Nothing else is
verified, and the token itself is never printed.

The token is read from a file or, without one, from standard input.

Exit codes: 0 told, 1 no token, 2 wrong usage.`,
		Example: `  # The token of this pod
  kubepki sa inspect /var/run/secrets/kubernetes.io/serviceaccount/token

  # Of a Secret
  kubectl -n ci get secret robot-token -o jsonpath={.data.token} | base64 -d | kubepki sa inspect

  # Which of these keys signed it?
  kubepki sa inspect token --key sa.pub --key sa-old.pub

  # For a script
  kubectl create token robot | kubepki sa inspect -o json | jq -r '.findings[].id'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("sa inspect: name one file that holds the token; without any it is read from standard input")
			}
			return noToken(args)
		},
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args) },
	}
	f := c.Flags()
	o.from.add(f, "")
	f.StringVar(&o.at, "at", "", "judge as of this time (RFC 3339, or a date) instead of now")
	f.StringVarP(&o.output, "output", "o", "table", "output: table, json or yaml")
	return c
}

func (o *saInspectOptions) run(ctx context.Context, s streams, args []string) error {
	if err := checkTokenOutput(o.output); err != nil {
		return err
	}
	at, err := parseAt(o.at)
	if err != nil {
		return err
	}
	name := "-"
	if len(args) > 0 {
		name = args[0]
	}
	text, err := readSAToken(ctx, s, name)
	if err != nil {
		return err
	}
	if err := notAToken(text); err != nil {
		return err
	}
	t, err := content.ReadToken(text)
	if err != nil {
		return err
	}
	u, err := token.Parse(text)
	if err != nil {
		return err
	}
	var user *token.User
	if t.ServiceAccount != nil {
		is := u.Claims.User()
		user = &is
	}
	answer := report.NewTokenInspection(t, user, at)
	if o.from.given() {
		if err := o.signature(ctx, s, u, answer); err != nil {
			return err
		}
	}
	if o.output == "table" {
		return answer.Text(s.out, report.Palette{On: isTerminal(s.out)})
	}
	return report.Document(s.out, o.output, answer)
}

// signature tells which of the given keys signed the token.
func (o *saInspectOptions) signature(ctx context.Context, s streams, u *token.Unverified, answer *report.TokenInspection) error {
	keys, err := o.from.read(ctx, s)
	if err != nil {
		return err
	}
	keys.warnUnseen(s)
	set, err := keys.set()
	if err != nil {
		return err
	}
	answer.Signature = report.SignatureForeign
	if k, ok := set.SignedBy(u); ok {
		answer.Signature, answer.SignedBy, answer.SignedByFile = report.SignatureGood, k.ID, keys.file(k)
	}
	return nil
}
