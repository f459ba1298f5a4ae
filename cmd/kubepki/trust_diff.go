package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/report"
)

type trustDiffOptions struct{ trustFlags }

func newTrustDiffCommand(s streams) *cobra.Command {
	var o trustDiffOptions
	c := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare two bundles as sets of anchors",
		Long: `Compare two bundles as sets of anchors: their order, second copies and the text
between them make no difference. An anchor with the name and key of another is
another certificate, and is said to be re-certified.

Exit codes: 0 the same, 1 could not look, 2 wrong usage, 3 different.

` + trustTargets,
		Example: `  # Do two control planes let the same clients in?
  kubepki trust diff cp1/kube-apiserver/client-ca-file cp2/kube-apiserver/client-ca-file --root ./cluster

  # Is what the cluster publishes what was approved?
  kubepki trust diff clustertrustbundle/corporate-roots file:./approved.pem

  # What pods are given, and what the API server's certificate is of
  kubepki trust diff configmap/default/kube-root-ca.crt kube-controller-manager/root-ca-file`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args[0], args[1]) },
	}
	c.ValidArgsFunction = o.completeTargets(2)
	o.add(c.Flags(), "table, json or yaml")
	return c
}

// trustDiffDocument is the kind TrustDiff.
type trustDiffDocument struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	A          string           `json:"a"`
	B          string           `json:"b"`
	Same       bool             `json:"same"`
	Reordered  bool             `json:"reordered"` // the same in another order
	OnlyA      []anchorDocument `json:"onlyA"`
	OnlyB      []anchorDocument `json:"onlyB"`
}

func (o *trustDiffOptions) run(ctx context.Context, s streams, a, b string) error {
	at, err := o.time()
	if err == nil {
		err = o.checkOutput("table", "json", "yaml")
	}
	if err != nil {
		return err
	}
	source := &trustSource{flags: &o.trustFlags}
	first, err := source.one(ctx, a)
	if err != nil {
		return err
	}
	second, err := source.one(ctx, b)
	if err != nil {
		return err
	}
	d := bundle.Diff(first, second)
	if err := o.print(s, a, b, d, at); err != nil {
		return err
	}
	if !d.Same() {
		return errFindings
	}
	return nil
}

// one returns the anchors of a target, which must be the same wherever it is.
func (s *trustSource) one(ctx context.Context, target string) ([]*x509.Certificate, error) {
	found, err := s.find(ctx, target)
	if err != nil {
		return nil, err
	}
	all := found[0].text.Certificates()
	for _, b := range found[1:] {
		if bundle.Diff(all, b.text.Certificates()).Same() {
			continue
		}
		return nil, advise(fmt.Errorf("%s is not one bundle: %s and %s hold different anchors", target, found[0].where(), b.where()),
			"name one of them, as NODE/%s or WEBHOOKCONFIGURATION/NAME/WEBHOOK", strings.TrimPrefix(target, "/"))
	}
	return all, nil
}

func (o *trustDiffOptions) print(s streams, a, b string, d bundle.Difference, at time.Time) error {
	if o.output != "table" {
		doc := trustDiffDocument{report.APIVersion, "TrustDiff", a, b, d.Same(), d.Reordered, anchorDocuments(d.OnlyA, at), anchorDocuments(d.OnlyB, at)}
		for _, pair := range d.Again {
			for i := range doc.OnlyA {
				if doc.OnlyA[i].SHA256 == bundle.Fingerprint(pair[0]) {
					doc.OnlyA[i].Recertified = append(doc.OnlyA[i].Recertified, bundle.Fingerprint(pair[1]))
				}
			}
			for i := range doc.OnlyB {
				if doc.OnlyB[i].SHA256 == bundle.Fingerprint(pair[1]) {
					doc.OnlyB[i].Recertified = append(doc.OnlyB[i].Recertified, bundle.Fingerprint(pair[0]))
				}
			}
		}
		return report.Document(s.out, o.output, doc)
	}
	again := func(c *x509.Certificate) string {
		for _, pair := range d.Again {
			if c.Equal(pair[0]) || c.Equal(pair[1]) {
				return "  (re-certified: the other side has its name and key)"
			}
		}
		return ""
	}
	var out strings.Builder
	for _, c := range d.OnlyA {
		fmt.Fprintf(&out, "- %s%s\n", anchorText(c), again(c))
	}
	for _, c := range d.OnlyB {
		fmt.Fprintf(&out, "+ %s%s\n", anchorText(c), again(c))
	}
	if d.Reordered {
		fmt.Fprintf(s.err, "the same anchors in another order: no difference\n")
	}
	_, err := fmt.Fprint(s.out, out.String())
	return err
}
