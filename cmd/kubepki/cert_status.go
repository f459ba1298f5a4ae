package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/why"
	"github.com/kubepki/kubepki/internal/workload"
)

type certStatusOptions struct {
	access   certAccess
	which    selection
	expiring string
	failOn   string
	output   string
}

func newCertStatusCommand(s streams) *cobra.Command {
	var o certStatusOptions
	c := &cobra.Command{
		Use:   "status [NAME...]",
		Short: "List Certificates: ready or not, when they end, when they are renewed",
		Long: `Status prints a line for each Certificate, what is most urgent first: what is not
ready, failing or over, then what ends soon or should be renewed by now, then the
rest by its end. It reads Certificates alone.

Of one that is named it shows everything: its conditions, the certificate that its
Secret holds, and the chain that kubepki cert why walks.`,
		Example: `  # Those of a namespace
  kubepki cert status -n shop

  # All about one
  kubepki cert status web -n shop

  # What ends within 30 days, or is wrong, in the whole cluster; for a cron job
  kubepki cert status -A --expiring 30d --fail-on warning

  # Names of those that are not ready
  kubepki cert status -A -o json | jq -r '.items[] | select(.ready | not) | .namespace + "/" + .name'`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args) },
	}
	f := c.Flags()
	o.access.add(f)
	o.which.add(f)
	f.StringVar(&o.expiring, "expiring", "", "only what ends within this time, e.g. 30d, or is not as it shall be; it is a warning then")
	f.StringVar(&o.failOn, "fail-on", "", "exit with 3 when a Certificate has a finding of this severity or worse: error (not ready, failing or over) or warning (ends soon, or its renewal is late) (default: never)")
	f.StringVarP(&o.output, "output", "o", "", "output: text, table, wide, json, yaml or name (default: text for one that is named, or else table)")
	return c
}

func (o *certStatusOptions) check(args []string) (time.Duration, error) {
	switch {
	case !slices.Contains([]string{"", "text", "table", "wide", "json", "yaml", "name"}, o.output):
		return 0, usagef("--output: unknown format %q: use text, table, wide, json, yaml or name", o.output)
	case !slices.Contains([]string{"", "error", "warning"}, o.failOn):
		return 0, usagef("--fail-on: unknown severity %q: use error or warning", o.failOn)
	case len(args) > 0 && (o.which.all || o.which.selector != ""):
		return 0, usagef("names and --all-namespaces or --selector say different things: leave one out")
	}
	if err := o.which.check(&o.access); err != nil {
		return 0, err
	}
	if o.expiring == "" {
		return 0, nil
	}
	return parseLife("--expiring", o.expiring)
}

func (o *certStatusOptions) run(ctx context.Context, s streams, args []string) error {
	window, err := o.check(args)
	if err != nil {
		return err
	}
	api, err := o.access.connect()
	if err != nil {
		return err
	}
	certificates, err := selectCertificates(ctx, api, &o.access, &o.which, args)
	if err != nil {
		return err
	}
	at := clock()
	var rows []report.Workload
	for i := range certificates {
		r := workloadRow(&certificates[i])
		r.Judge(at, window)
		if window == 0 || r.Severity != "" {
			rows = append(rows, r)
		}
	}
	list := report.NewWorkloadList(at, rows)
	if o.output == "text" || o.output == "" && len(args) == 1 && window == 0 {
		err = o.details(ctx, s, api, certificates, at)
	} else {
		err = o.print(s, list)
	}
	if err != nil {
		return err
	}
	if o.failOn != "" && list.Worst(check.Severity(o.failOn)) {
		return errFindings
	}
	return nil
}

func (o *certStatusOptions) print(s streams, l *report.WorkloadList) error {
	switch o.output {
	case "json", "yaml":
		return report.Document(s.out, o.output, l)
	case "name":
		for i := range l.Items {
			if _, err := fmt.Fprintln(s.out, certResource(l.Items[i].Name)); err != nil {
				return err
			}
		}
		return nil
	}
	if len(l.Items) == 0 {
		_, words := o.which.where(&o.access)
		fmt.Fprintf(s.err, "no such Certificate %s\n", words)
		return nil
	}
	return l.Rows(s.out, o.which.all, o.output == "wide", report.Palette{On: isTerminal(s.out)})
}

// details prints each with all that hangs on it.
func (o *certStatusOptions) details(ctx context.Context, s streams, api *kube.Certs, certificates []cmapi.Certificate, at time.Time) error {
	for i := range certificates {
		c := &certificates[i]
		g, err := api.Gather(ctx, c, "", at)
		if err != nil {
			return err
		}
		d := report.WorkloadDetail{Workload: workloadRow(c), At: at, Why: why.Explain(g)}
		for _, one := range c.Status.Conditions {
			d.Conditions = append(d.Conditions, report.ConditionText(string(one.Type), string(one.Status), one.Reason, one.Message))
		}
		if g.Secret.Object != nil && len(g.Secret.Object.Chain) > 0 {
			d.Leaf = g.Secret.Object.Chain[0]
		}
		if i > 0 {
			fmt.Fprintln(s.out)
		}
		if err := d.Text(s.out, report.Palette{On: isTerminal(s.out)}); err != nil {
			return err
		}
	}
	return nil
}

// selectCertificates reads those that are named, or all that are meant otherwise. A name
// that is not there is an error before anything is done with another.
func selectCertificates(ctx context.Context, api *kube.Certs, a *certAccess, which *selection, args []string) ([]cmapi.Certificate, error) {
	if len(args) == 0 {
		namespace, words := which.where(a)
		list, err := api.Certificates(ctx, namespace, which.selector)
		return list, adviseCert(err, "list certificates.cert-manager.io "+words)
	}
	var list []cmapi.Certificate
	for _, arg := range args {
		name, err := certName(arg)
		if err != nil {
			return nil, err
		}
		c, err := api.Certificate(ctx, a.namespace, name)
		if apierrors.IsNotFound(err) && !kube.IsNoKind(err) {
			return nil, (&whyOptions{access: *a}).notFound(ctx, api, name)
		}
		if err != nil {
			return nil, adviseCert(err, "get certificates.cert-manager.io in namespace "+a.namespace)
		}
		if !slices.ContainsFunc(list, func(o cmapi.Certificate) bool { return o.Name == c.Name }) {
			list = append(list, *c)
		}
	}
	return list, nil
}

// workloadRow puts a Certificate into its public form.
func workloadRow(o *cmapi.Certificate) report.Workload {
	state := kube.SettledOf(o)
	r := report.Workload{
		Namespace: o.Namespace, Name: o.Name, Ready: state.Ready, Issuing: state.Issuing, Issuer: kube.IssuerText(o.Spec.IssuerRef), Secret: o.Spec.SecretName,
		NotBefore: statusTime(o.Status.NotBefore), NotAfter: statusTime(o.Status.NotAfter), RenewAt: statusTime(o.Status.RenewalTime), Names: certNames(&o.Spec),
	}
	if o.Spec.Duration != nil {
		r.Duration = o.Spec.Duration.Duration.String()
	}
	if o.Status.Revision != nil {
		r.Revision = *o.Status.Revision
	}
	if o.Status.LastFailureTime != nil {
		r.Failures = 1
		if n := o.Status.FailedIssuanceAttempts; n != nil {
			r.Failures = max(*n, 1)
		}
	}
	for _, c := range o.Status.Conditions {
		if c.Type == cmapi.CertificateConditionReady && r.Reason == "" ||
			c.Type == cmapi.CertificateConditionIssuing && (c.Status == cmmeta.ConditionTrue || r.Failures > 0) {
			r.Reason, r.Message = c.Reason, c.Message
		}
	}
	return r
}

func statusTime(t *metav1.Time) *time.Time {
	if t == nil {
		return nil
	}
	at := t.UTC()
	return &at
}

// certNames are all names of a Certificate, the subject's last.
func certNames(spec *cmapi.CertificateSpec) []string {
	names := slices.Concat([]string{}, spec.DNSNames, spec.IPAddresses, spec.URIs, spec.EmailAddresses)
	if w, err := workload.WishOf(spec); err == nil {
		for _, cn := range w.CommonNames() {
			if !slices.Contains(names, cn) {
				names = append(names, cn)
			}
		}
	}
	return names
}
