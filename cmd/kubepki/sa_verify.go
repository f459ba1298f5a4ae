package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/token"
)

type saVerifyOptions struct {
	from                             saKeyFlags
	issuers, audiences, apiAudiences []string
	noLegacy                         bool
	at, output                       string
}

func newSAVerifyCommand(s streams) *cobra.Command {
	var o saVerifyOptions
	c := &cobra.Command{
		Use:   "verify [-|FILE]",
		Short: "Tell whether a token is good, and whose it is",
		Long: `Tell whether a token of a service account is good, and whose it is, as
kube-apiserver would: by its issuer, signature, times, audience and claims. Where
the two differ, kubepki refuses. What only a cluster knows is not looked at: a
token of a pod that is gone is good to its end.

The token is read from a file or, without one, from standard input.

Without --key the keys, issuers and audiences are those of the kube-apiserver of
this machine, or below --root; what is given as a flag takes their place. With an
issuer's discovery document as --key its issuer need not be named again.

Exit codes: 0 valid, 1 could not look, 2 wrong usage, 3 invalid.`,
		Example: `  # On a control plane
  kubectl create token robot | sudo kubepki sa verify -

  # Anywhere, by what the issuer publishes, for one audience
  kubepki sa verify - --key https://issuer.example.com/.well-known/openid-configuration --issuer https://issuer.example.com --audience vault < token

  # By two keys, as of yesterday, for a script
  kubepki sa verify token --key sa.pub --key sa-old.pub --issuer https://kubernetes.default.svc.cluster.local --at 2026-11-29 -o json

  # Who is it?
  kubepki sa verify /var/run/secrets/kubernetes.io/serviceaccount/token --key jwks.json --issuer https://kubernetes.default.svc.cluster.local -o json | jq -r .user.username`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("sa verify: name one file that holds the token; without any it is read from standard input")
			}
			return noToken(args)
		},
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, append(args, "-")[0]) },
	}
	f := c.Flags()
	o.from.add(f, " (default / unless --key is given)")
	f.StringArrayVar(&o.issuers, "issuer", nil, "an issuer whose tokens are good, letter by letter; repeatable")
	f.StringArrayVar(&o.audiences, "audience", nil, "whom the token must be for, one of them; repeatable (default: the API server)")
	f.StringArrayVar(&o.apiAudiences, "api-audience", nil, "an audience of the API server, for which alone tokens of Secrets are good; repeatable (default: each --issuer)")
	f.BoolVar(&o.noLegacy, "no-legacy", false, "refuse the tokens of Secrets, which never expire")
	f.StringVar(&o.at, "at", "", "judge as of this time (RFC 3339, or a date) instead of now")
	f.StringVarP(&o.output, "output", "o", "table", "output: table, json or yaml")
	return c
}

func (o *saVerifyOptions) run(ctx context.Context, s streams, name string) error {
	if err := checkTokenOutput(o.output); err != nil {
		return err
	}
	for _, list := range [][]string{o.issuers, o.audiences, o.apiAudiences} {
		if slices.Contains(list, "") {
			return usagef("an --issuer, --audience or --api-audience is empty")
		}
	}
	now, err := parseAt(o.at)
	if err != nil {
		return err
	}
	keys, err := o.from.read(ctx, s)
	if err != nil {
		return err
	}
	verifier, err := o.verifier(keys, now)
	if err != nil {
		return err
	}
	keys.warnUnseen(s)
	text, err := readSAToken(ctx, s, name)
	if err != nil {
		return err
	}
	verified, err := verifier.Verify(ctx, text)
	var refused *token.RefusedError
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	if err := o.print(s, newTokenVerification(verified, refused), verified, keys, now); err != nil {
		return err
	}
	if refused != nil {
		o.hint(s, refused, text)
		return errFindings
	}
	return nil
}

func (o *saVerifyOptions) verifier(keys *saKeys, now time.Time) (*token.Verifier, error) {
	set, err := keys.set()
	if err != nil {
		return nil, err
	}
	c := token.Config{Keys: set, Issuers: o.issuers, APIAudiences: o.apiAudiences, Audiences: o.audiences, Legacy: !o.noLegacy, Now: func() time.Time { return now }}
	if err := keys.verifyBy(&c); err != nil {
		return nil, err
	}
	return token.NewVerifier(c)
}

// parseAt reads --at; without it, now.
func parseAt(text string) (time.Time, error) {
	if text == "" {
		return time.Now(), nil
	}
	at, err := parseTime(text)
	if err != nil {
		return at, usagef("--at: %w", err)
	}
	return at, nil
}

// tokenVerification is the public form of a verdict.
type tokenVerification struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Valid      bool           `json:"valid"`
	User       *token.User    `json:"user,omitempty"`
	Audiences  []string       `json:"audiences,omitempty"` // those that were wanted
	KeyID      string         `json:"keyID,omitempty"`
	Expires    *time.Time     `json:"expires,omitempty"`
	Reasons    []token.Reason `json:"reasons"`
}

func newTokenVerification(v *token.Verified, refused *token.RefusedError) *tokenVerification {
	d := &tokenVerification{APIVersion: report.APIVersion, Kind: "TokenVerification", Valid: refused == nil, Reasons: []token.Reason{}}
	if refused != nil {
		d.Reasons = refused.Reasons
		return d
	}
	d.User, d.Audiences, d.KeyID = &v.User, v.Audiences, v.Key.ID
	if e := v.Claims.Expires.UTC(); !v.Claims.Expires.IsZero() && e.Year() <= 9999 {
		d.Expires = &e
	}
	return d
}

func (o *saVerifyOptions) print(s streams, d *tokenVerification, v *token.Verified, keys *saKeys, now time.Time) error {
	if o.output != "table" {
		return report.Document(s.out, o.output, d)
	}
	p := report.Palette{On: isTerminal(s.out)}
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%-20s %s\n", name, report.Plain(value)) }
	if !d.Valid {
		fmt.Fprintln(&b, p.Red("invalid"))
		for _, r := range d.Reasons {
			line(string(r.ID), r.Message)
		}
		_, err := fmt.Fprint(s.out, b.String())
		return err
	}
	fmt.Fprintln(&b, p.Green("valid"))
	line("user", d.User.Username)
	line("uid", d.User.UID)
	line("groups", strings.Join(d.User.Groups, ", "))
	for _, key := range slices.Sorted(maps.Keys(d.User.Extra)) {
		line("extra", key+": "+strings.Join(d.User.Extra[key], ", "))
	}
	line("audience", cmp.Or(strings.Join(d.Audiences, ", "), "the API server"))
	switch {
	case d.Expires != nil:
		line("expires", timeText(*d.Expires)+" ("+report.Left(time.Time{}, *d.Expires, now)+")")
	case v.Claims.Expires.IsZero():
		line("expires", "never: a token of a Secret")
	default:
		line("expires", "after the year 9999")
	}
	line("key", d.KeyID+" ("+keys.file(v.Key)+")")
	_, err := fmt.Fprint(s.out, b.String())
	return err
}

var plainIssuer = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:/._-]{0,200}$`)

// hint says what helps against the commonest mistakes.
func (o *saVerifyOptions) hint(s streams, refused *token.RefusedError, text string) {
	switch {
	case text == "":
		fmt.Fprintln(s.err, "kubepki: hint: no token was given: the command before it may have failed")
	case refused.Has(token.IssuerUnknown) && len(o.issuers) == 0 && o.from.given():
		// Whoever sent the token wrote that: nothing that a shell would act upon.
		if u, err := token.Parse(text); err == nil && plainIssuer.MatchString(u.Claims.Issuer) {
			fmt.Fprintf(s.err, "kubepki: hint: if you trust that issuer's tokens, name it: --issuer %s\n", u.Claims.Issuer)
		}
	case refused.Has(token.KeyUnknown), refused.Has(token.SignatureInvalid):
		fmt.Fprintln(s.err, "kubepki: hint: kubepki sa keys lists the keys, and kubepki sa inspect tells what the token says of itself")
	}
}
