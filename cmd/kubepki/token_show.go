package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
)

type tokenShowOptions struct {
	access kube.Access
	token  tokenFlags
	output string
	failOn string
	reveal bool
}

func newTokenShowCommand(s streams) *cobra.Command {
	var o tokenShowOptions
	c := &cobra.Command{
		Use:   "show ID|TOKEN",
		Short: "Show one bootstrap token, and what is wrong with it",
		Long: `Show one bootstrap token of the cluster, and what is wrong with it, judged as the
API server and kube-controller-manager judge it. Of a whole token, which is
better in a file than an argument, it is told whether it is the cluster's.

Exit codes: 0 shown, 1 could not look, 2 wrong usage, 3 findings at or above
--fail-on.`,
		Example: `  # Why does a node not join?
  kubepki token show abcdef

  # For a script
  kubepki token show abcdef -o json | jq -r .expires

  # Is this still the token, and good?
  kubepki token show --token-file token --fail-on warning`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args) },
	}
	f := c.Flags()
	addAccess(f, &o.access)
	o.token.addFile(f)
	f.StringVarP(&o.output, "output", "o", "table", "output: table, json or yaml")
	f.StringVar(&o.failOn, "fail-on", "", "exit with 3 on findings of this severity or worse: error, warning or info (default: never)")
	f.BoolVar(&o.reveal, "reveal", false, "show the secret of the token")
	return c
}

func (o *tokenShowOptions) run(ctx context.Context, s streams, args []string) error {
	if err := checkTokenOutput(o.output); err != nil {
		return err
	}
	severities := []string{"", string(check.Info), string(check.Warning), string(check.Error)}
	worst := slices.Index(severities, o.failOn)
	if worst < 0 {
		return usagef("--fail-on: unknown severity %q: use error, warning or info", o.failOn)
	}
	if len(args) > 0 && o.token.file != "" {
		return usagef("the token is given twice: as an argument and as --token-file")
	}
	wanted, err := o.token.wanted(s, args)
	if err != nil {
		return err
	}
	tokens, _, err := connectTokens(o.access)
	if err != nil {
		return err
	}
	secret, err := tokens.Get(ctx, wanted[0].id)
	if err != nil {
		return withTokenHint(err)
	}
	now := time.Now()
	e := bootstrap.Read(secret, now)
	if err := wanted[0].compare(e); err != nil {
		return advise(err, "kubepki token show %s tells of the cluster's, and kubepki token create makes a new one", wanted[0].id)
	}
	signature, err := signatureOf(ctx, tokens, e)
	if err != nil { // who may read Secrets need not be who may read ConfigMaps
		fmt.Fprintf(s.err, "kubepki: warning: %s\n", report.Plain(oneLine(err)))
	}
	if err := o.print(s, e, signature, now); err != nil {
		return err
	}
	if o.failOn != "" && slices.ContainsFunc(e.Findings, func(f bootstrap.Finding) bool { return slices.Index(severities, f.Severity) >= worst }) {
		return errFindings
	}
	return nil
}

// signatureOf tells how cluster-info is signed with the token, and notes as a
// finding when a token that may sign does not.
func signatureOf(ctx context.Context, tokens *kube.Tokens, e *bootstrap.Entry) (string, error) {
	data, err := tokens.ClusterInfo(ctx)
	if err != nil || e.Token.IsZero() {
		return "", err
	}
	state, cause := "valid", ""
	switch err := bootstrap.VerifySignature(data, e.Token); {
	case err == nil:
	case errors.Is(err, bootstrap.ErrNoClusterInfo):
		state, cause = "none", "there is no cluster-info, so that nodes cannot discover the cluster: kubepki token create --manifests makes it"
	case errors.Is(err, bootstrap.ErrNotSigned):
		state, cause = "none", "cluster-info is not signed with it: kube-controller-manager does that where bootstrap-signer-controller runs"
	default:
		state, cause = "invalid", "cluster-info is signed with another secret, or was changed since"
	}
	if cause != "" && slices.Contains(e.Usages, bootstrap.Signing) && !e.Expired {
		e.Findings = append(e.Findings, bootstrap.Finding{ID: bootstrap.TokenUsage, Severity: string(check.Warning), Field: bootstrap.SignatureKey(e.ID), Cause: cause})
	}
	return state, nil
}

func (o *tokenShowOptions) print(s streams, e *bootstrap.Entry, signature string, now time.Time) error {
	if o.output != "table" {
		d := newTokenDocument(e, o.reveal)
		d.APIVersion, d.Kind, d.Signature = report.APIVersion, "BootstrapToken", signature
		return report.Document(s.out, o.output, d)
	}
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%-12s %s\n", name, report.Plain(value)) }
	line("token", shownToken(e, o.reveal))
	line("secret", "kube-system/"+e.Name)
	line("description", cmp.Or(e.Description, "<none>"))
	line("created", cmp.Or(timeText(e.Created), "<unknown>"))
	expires := cmp.Or(timeText(e.Expires), "<never>")
	if left := shownTTL(e, now); left != "<forever>" {
		expires += " (" + left + ")"
	}
	line("expires", expires)
	line("usages", shownList(e.Usages))
	if slices.Contains(e.Usages, bootstrap.Authentication) && !e.Token.IsZero() {
		line("user", e.Token.User())
		line("groups", strings.Join(append([]string{"system:bootstrappers"}, e.Groups...), ","))
	}
	line("cluster-info", "signature: "+cmp.Or(signature, "<unknown>"))
	for _, f := range e.Findings {
		line(f.Severity, f.ID+": "+f.Cause)
		if f.Fix != "" {
			line("", "fix: "+f.Fix)
		}
	}
	_, err := fmt.Fprint(s.out, b.String())
	return err
}
