package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/why"
)

type whyOptions struct {
	access           certAccess
	clusterNamespace string
	output           string
}

func newCertWhyCommand(s streams) *cobra.Command {
	var o whyOptions
	c := &cobra.Command{
		Use:   "why NAME... | KIND/NAME...",
		Short: "Tell what a Certificate waits for, and what to do about it",
		Long: `Why walks from a Certificate over its Secret, CertificateRequest and issuer to the
ACME order and its challenges, finds the first cause for which it is not ready or
will not stay so, and says what to do. It takes the objects around it too: secret,
pod, ingress, gateway, listenerset, certificaterequest, order and challenge stand for
the Certificates behind them; issuer, clusterissuer and KIND.GROUP are issuers.

It only reads. Of Secrets it looks at the certificate, and whether the key fits it;
no key is printed. Without the right to read something it says which is missing.

Exit codes: 0 it waits for nothing, 3 it waits or is broken, 1 nothing could be seen.`,
		Example: `  # What does it wait for?
  kubepki cert why web -n shop

  # A Pod that does not start; an Ingress
  kubepki cert why pod/shop-7c9f ingress/shop -n shop

  # An issuer; one of another group
  kubepki cert why clusterissuer/internal awspcaissuer.awspca.cert-manager.io/pca -n shop

  # Only the cause, for a script
  kubepki cert why web -n shop -o json | jq -r '.items[0].cause.id'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args) },
	}
	f := c.Flags()
	o.access.add(f)
	f.StringVar(&o.clusterNamespace, "cluster-resource-namespace", "", "namespace of the Secrets that ClusterIssuers name (default: cert-manager, then kube-system)")
	f.StringVarP(&o.output, "output", "o", "text", "output: text, table, json or yaml")
	return c
}

func (o *whyOptions) run(ctx context.Context, s streams, args []string) error {
	if !slices.Contains([]string{"text", "table", "json", "yaml"}, o.output) {
		return usagef("--output: unknown format %q: use text, table, json or yaml", o.output)
	}
	targets := make([]whyTarget, len(args))
	for i, arg := range args {
		var err error
		if targets[i], err = parseWhyTarget(arg); err != nil {
			return err
		}
	}
	api, err := o.access.connect()
	if err != nil {
		return err
	}
	at := clock()
	var answers []why.Answer
	for _, t := range targets {
		found, err := o.explain(ctx, api, t, at)
		if err != nil {
			return err
		}
		answers = append(answers, found...)
	}
	if err := o.print(s, report.NewWhyList(at, answers...)); err != nil {
		return err
	}
	if slices.ContainsFunc(answers, func(a why.Answer) bool { return a.Cause != nil }) {
		return errFindings
	}
	return nil
}

func (o *whyOptions) print(s streams, l *report.WhyList) error {
	palette := report.Palette{On: isTerminal(s.out)}
	switch o.output {
	case "json", "yaml":
		return report.Document(s.out, o.output, l)
	case "table":
		return l.Rows(s.out, palette)
	}
	return l.Text(s.out, palette)
}

func (o *whyOptions) listed(ctx context.Context, api *kube.Certs, want func(*cmapi.Certificate) bool) ([]cmapi.Certificate, error) {
	list, err := api.Certificates(ctx, o.access.namespace, "")
	if err != nil && !kube.IsNoKind(err) {
		return nil, adviseCert(err, "list certificates.cert-manager.io in namespace "+o.access.namespace)
	}
	return slices.DeleteFunc(list, func(c cmapi.Certificate) bool { return !want(&c) }), err
}

// notFound says what there is instead.
func (o *whyOptions) notFound(ctx context.Context, api *kube.Certs, name string) error {
	err := fmt.Errorf("there is no Certificate %s in namespace %s", name, o.access.namespace)
	list, listErr := api.Certificates(ctx, o.access.namespace, "")
	if listErr != nil {
		return errors.Join(err, adviseCert(listErr, "list certificates.cert-manager.io in namespace "+o.access.namespace))
	}
	var names []string
	for i := range list {
		names = append(names, list[i].Name)
	}
	if other := why.Nearest(name, names); other != "" {
		return advise(err, "is %s meant?", other)
	}
	return advise(err, "kubepki cert status -A lists all; a Certificate of another namespace is named with -n")
}
