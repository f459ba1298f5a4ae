package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/explain"
	"github.com/kubepki/kubepki/internal/report"
)

type explainOptions struct {
	line      string
	component string
	output    string
	cluster   verifyOptions
}

func newExplainCommand(s streams) *cobra.Command {
	var o explainOptions
	c := &cobra.Command{
		Use:   "explain [FINDING-ID | --error LINE [DIR]]",
		Short: "Say what a finding means, or what an error in a component's log is about",
		Long: `Explain says what a finding of kubepki verify means, how it comes about, how to
check it by hand, and how to mend it. Without an argument it lists all findings.

With --error it takes an error line from the log of any component, or what
kubectl, curl or openssl said, and tells which link it is about, which side
refused which, and the files to look at. --error - reads lines from the standard
input and explains each distinct one. With --root or DIR, as of kubepki verify,
it reads the files of the cluster and names those that the line is about, and the
finding that explains it. Tokens and keys in a line are never shown.

Exit codes: 0 explained, 1 could not (no error that is known in what was given,
or no files to read), 2 wrong usage.`,
		Example: `  # What a finding means, how to check it by hand, how to mend it
  kubepki explain authority-recreated

  # An error from a log
  kubepki explain --error 'x509: certificate signed by unknown authority' --component kubelet

  # All that a node's kubelet complains about, pinpointed in this node's files
  journalctl -u kubelet --since -10min | sudo kubepki explain --error - --root /

  # For a program
  kubepki explain --error 'remote error: tls: bad certificate' --component kube-apiserver -o json ./cluster`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completeFindings(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), cmd, s, args) },
	}
	f := c.Flags()
	f.StringVar(&o.line, "error", "", "an error line to explain; - reads lines from the standard input")
	f.StringVar(&o.component, "component", "", "with --error: whose log it is, where the line does not tell: "+strings.Join(explain.Components(), ", "))
	f.StringArrayVar(&o.cluster.roots, "root", nil, "with --error: folder of a node that stands for its /, as [NAME=]DIR; repeatable")
	f.StringVar(&o.cluster.at, "at", "", "with --error and files: judge them as of this time (RFC 3339, or a date) instead of now")
	f.StringVarP(&o.output, "output", "o", "text", "output: text, json, yaml; of a finding also markdown; of the list also name")
	_ = c.RegisterFlagCompletionFunc("component", func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return explain.Components(), cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

// completeFindings are the ids of all findings, each with its sentence.
func completeFindings() []cobra.Completion {
	pages, _ := explain.Pages() // embedded and tested
	var all []cobra.Completion
	for _, p := range pages {
		all = append(all, cobra.CompletionWithDesc(p.ID, p.Summary))
	}
	return all
}

func (o *explainOptions) run(ctx context.Context, cmd *cobra.Command, s streams, args []string) error {
	if cmd.Flags().Changed("error") {
		if err := o.format("text", "json", "yaml"); err != nil {
			return err
		}
		return o.explainErrors(ctx, s, args)
	}
	for _, name := range []string{"component", "root", "at"} {
		if cmd.Flags().Changed(name) {
			return usagef("--%s goes with --error", name)
		}
	}
	if len(args) == 0 {
		return o.listFindings(s)
	}
	return o.explainFinding(s, args[0])
}

func (o *explainOptions) format(known ...string) error {
	if !slices.Contains(known, o.output) {
		return usagef("--output: unknown format %q: use %s", o.output, strings.Join(known, ", "))
	}
	return nil
}

func (o *explainOptions) listFindings(s streams) error {
	if err := o.format("text", "json", "yaml", "name"); err != nil {
		return err
	}
	pages, err := explain.Pages()
	if err != nil {
		return err
	}
	switch o.output {
	case "text":
		return report.PageRows(s.out, pages, report.Palette{On: isTerminal(s.out)})
	case "name":
		for _, p := range pages {
			if _, err := fmt.Fprintln(s.out, p.ID); err != nil {
				return err
			}
		}
		return nil
	}
	var items []any
	for _, p := range pages {
		items = append(items, report.NewFindingPage(p))
	}
	return report.Document(s.out, o.output, report.NewList(items))
}

func (o *explainOptions) explainFinding(s streams, id string) error {
	if err := o.format("text", "json", "yaml", "markdown"); err != nil {
		return err
	}
	page, err := explain.Find(id)
	if err != nil {
		if strings.ContainsAny(id, " :") {
			return usagef("%q is no finding: an error line goes behind --error", report.Plain(shortText(id)))
		}
		return usageError{err}
	}
	switch o.output {
	case "text":
		return report.NewFindingPage(page).Text(s.out, report.Palette{On: isTerminal(s.out)})
	case "markdown":
		text, err := explain.Markdown(page.ID)
		if err != nil {
			return err
		}
		_, err = io.WriteString(s.out, text)
		return err
	}
	return report.Document(s.out, o.output, report.NewFindingPage(page))
}

// shortText keeps a complaint about an argument on one line.
func shortText(text string) string {
	if len(text) > 80 {
		return strings.ToValidUTF8(text[:80], "") + "…"
	}
	return text
}
