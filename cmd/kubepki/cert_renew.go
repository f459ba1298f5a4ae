package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/kube"
)

type certRenewOptions struct {
	access  certAccess
	which   selection
	every   bool
	wait    bool
	dryRun  bool
	timeout time.Duration
}

func newCertRenewCommand(s streams) *cobra.Command {
	var o certRenewOptions
	c := &cobra.Command{
		Use:   "renew NAME... | --all | -l SELECTOR",
		Short: "Have Certificates issued anew, now",
		Long: `Renew sets the condition Issuing of Certificates, as cmctl renew does: their
controller issues them anew at once, also where it waits out a failure. The old
certificate stays in the Secret until the new one is there. stdout names what was
done.

With --wait it ends when all are ready again, or one has failed.`,
		Example: `  # One, and wait for it
  kubepki cert renew web -n shop --wait

  # All of an application, in all namespaces
  kubepki cert renew -A -l app.kubernetes.io/part-of=shop

  # What would be renewed?
  kubepki cert renew --all -n shop --dry-run`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args) },
	}
	f := c.Flags()
	o.access.add(f)
	o.which.add(f)
	f.BoolVar(&o.every, "all", false, "all Certificates of the namespace, with --all-namespaces those of the cluster")
	f.BoolVar(&o.wait, "wait", false, "wait until they are ready again")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "with --wait: how long")
	f.BoolVar(&o.dryRun, "dry-run", false, "have the API server judge the change, and not keep it")
	return c
}

func (o *certRenewOptions) check(args []string) error {
	switch {
	case len(args) > 0 && (o.every || o.which.all || o.which.selector != ""):
		return usagef("names and --all, --all-namespaces or --selector say different things: leave one out")
	case len(args) == 0 && !o.every && o.which.selector == "":
		return usagef("name the Certificates to renew, or use --all or --selector")
	case o.wait && o.dryRun:
		return usagef("--wait: with --dry-run nothing comes that could be waited for")
	case o.timeout <= 0:
		return usagef("--timeout: %s is no time to wait: use 5m", o.timeout)
	}
	return o.which.check(&o.access)
}

func (o *certRenewOptions) run(ctx context.Context, s streams, args []string) error {
	if err := o.check(args); err != nil {
		return err
	}
	api, err := o.access.connect()
	if err != nil {
		return err
	}
	list, err := selectCertificates(ctx, api, &o.access, &o.which, args)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		_, words := o.which.where(&o.access)
		return fmt.Errorf("no such Certificate %s", words)
	}
	var errs []error
	var begun []cmapi.Certificate
	for i := range list {
		if err := o.one(ctx, s, api, &list[i]); err != nil {
			errs = append(errs, fmt.Errorf("%s/%s: %w", list[i].Namespace, list[i].Name, err))
			continue
		}
		begun = append(begun, list[i])
	}
	if o.wait && ctx.Err() == nil {
		errs = append(errs, (&awaiting{api: api, s: s, timeout: o.timeout}).all(ctx, begun))
	}
	return errors.Join(errs...)
}

func (o *certRenewOptions) one(ctx context.Context, s streams, api *kube.Certs, c *cmapi.Certificate) error {
	if c.DeletionTimestamp != nil {
		return errors.New("is being deleted")
	}
	changed, err := api.TriggerRenewal(ctx, c, o.dryRun)
	if err != nil {
		return adviseCert(err, "get certificates.cert-manager.io and update certificates.cert-manager.io/status in namespace "+c.Namespace)
	}
	did := "is to be issued anew"
	switch {
	case !changed:
		did = "is being issued already"
	case o.dryRun:
		did += " (dry run)"
	}
	_, err = fmt.Fprintf(s.out, "%s %s\n", certResource(c.Name), did)
	return err
}
