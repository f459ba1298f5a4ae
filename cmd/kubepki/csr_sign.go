package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/kube"
	signers "github.com/kubepki/kubepki/internal/signer" // package main has a signer of its own
)

type csrSignOptions struct {
	access           kube.Access
	by               judgeFlags // for --approve
	file             string
	certificate, key string
	socket           string
	validity         string
	approve, force   bool
}

func newCSRSignCommand(s streams) *cobra.Command {
	var o csrSignOptions
	c := &cobra.Command{
		Use:   "sign (NAME... | -f FILE) --cert FILE --key FILE",
		Short: "Sign approved requests with an authority at hand",
		Long: `Sign makes the certificates of approved CertificateSigningRequests, as
kube-controller-manager's signers do: the same checks for the built-in signers,
usages from the object, subject and names from the request, no extension of the
request, no life beyond the authority's. Below an intermediate authority the
chain follows the certificate.

With NAME the certificate is put into the object, which takes the right to
update certificatesigningrequests/status and to "sign" for the signer. With -f
nothing is reached: FILE is the object, and the certificate is printed.

A request that nobody has approved is not signed. A file only says that it was:
see to it that it comes from the cluster. With --approve one that says nothing
is signed in your name, unless the policy denies it.`,
		Example: `  # Sign a request of the cluster
  kubepki csr sign web --cert ca.crt --key ca.key

  # Away from the cluster, where the key is
  kubectl get csr web -o yaml > web.yaml
  kubepki csr sign -f web.yaml --cert ca.crt --key ca.key > web.crt

  # With a key that kubepki-kms holds
  kubepki csr sign web --cert ca.crt --key kms:cluster-ca`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c, s, args) },
	}
	f := c.Flags()
	addAccess(f, &o.access)
	f.StringVarP(&o.file, "filename", "f", "", "file with one CertificateSigningRequest (YAML or JSON; - is standard input)")
	f.StringVar(&o.certificate, "cert", "", "certificate of the authority; those above it may follow (PEM)")
	f.StringVar(&o.key, "key", "", "its key (PEM), or kms:NAME for a key that kubepki-kms holds")
	f.StringVar(&o.socket, "kms-socket", "/run/kubepki/kms.sock", "unix socket of kubepki-kms")
	f.StringVar(&o.validity, "validity", "8760h", "longest life, like 720h or 30d; the request may ask for less")
	f.BoolVar(&o.approve, "approve", false, "with -f: sign also what nobody has approved, unless the policy denies it")
	f.BoolVar(&o.force, "force", false, "with --approve: sign also what the policy denies")
	o.by.add(f)
	return c
}

func (o *csrSignOptions) run(c *cobra.Command, s streams, names []string) error {
	validity, err := o.check(c.Flags(), names)
	if err != nil {
		return err
	}
	authority, err := o.authority()
	if err != nil {
		return err
	}
	if o.file == "" {
		return o.signNamed(c.Context(), s, names, authority, validity)
	}
	r, err := o.readApproved(c.Context(), s)
	if err != nil {
		return err
	}
	certificate, err := csr.Sign(r, authority, validity, time.Now())
	if err != nil {
		return fmt.Errorf("-f %s: %w", o.file, err)
	}
	_, err = s.out.Write(certificate)
	return err
}

func (o *csrSignOptions) check(flags *pflag.FlagSet, names []string) (time.Duration, error) {
	switch {
	case len(names) == 0 && o.file == "":
		return 0, usagef("NAME is missing: kubepki csr sign NAME, or -f FILE")
	case len(names) > 0 && o.file != "":
		return 0, usagef("NAME and -f contradict each other: give one of them")
	case o.approve && o.file == "":
		return 0, usagef("--approve is for -f: approve requests of a cluster with kubepki csr approve")
	case !o.approve && (o.force || o.by.given(flags)):
		return 0, usagef("--force and what a request is judged by are for --approve")
	case o.certificate == "" || o.key == "":
		return 0, usagef("--cert and --key are needed: they name the authority that signs")
	}
	return parseLife("--validity", o.validity)
}

func (o *csrSignOptions) authority() (issue.Authority, error) {
	var source signers.Source
	var err error
	if name, ok := strings.CutPrefix(o.key, "kms:"); ok {
		source, err = signers.KMS(o.socket, name, o.certificate, nil)
	} else {
		source, err = signers.Files(o.certificate, o.key, nil)
	}
	if err != nil {
		return issue.Authority{}, err
	}
	return source.Authority()
}

// readApproved reads the one request of the file, and returns it if it may be
// signed.
func (o *csrSignOptions) readApproved(ctx context.Context, s streams) (csr.Request, error) {
	all, err := readRequests(s, o.file)
	if err != nil {
		return csr.Request{}, err
	}
	r := all[0]
	switch {
	case len(all) > 1:
		err = fmt.Errorf("holds %d requests: one is signed at a time", len(all))
	case r.State == csr.Pending && o.approve:
		err = o.judge(ctx, s, r)
	case r.State == csr.Pending:
		err = advise(errors.New("nobody has approved the request"), "look at it with kubepki csr review -f %s, and sign it with --approve", o.file)
	case r.State != csr.Approved:
		err = fmt.Errorf("the request is %s already", strings.ToLower(string(r.State)))
	}
	if err != nil {
		err = fmt.Errorf("-f %s: %w", o.file, err)
	}
	return r, err
}

// judge refuses what the policy denies, as csr approve does in a cluster.
func (o *csrSignOptions) judge(ctx context.Context, s streams, r csr.Request) error {
	j, err := o.by.offline(s)
	if err != nil {
		return err
	}
	sayAssumed(s)
	review, err := j.review(ctx, r)
	if err != nil {
		return err
	}
	sayReview(s, r.Name, review)
	if review.Verdict == csr.Deny && !o.force {
		return advise(errRefused, "--force signs it all the same")
	}
	return nil
}

// signNamed reads all requests before one is signed, as csr approve does.
func (o *csrSignOptions) signNamed(ctx context.Context, s streams, names []string, a issue.Authority, longest time.Duration) error {
	api, err := connect(o.access)
	if err != nil {
		return err
	}
	requests, err := getAll(ctx, api, names)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range requests {
		if err := signOne(ctx, api, r, a, longest); err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(s.out, "%s signed\n", resourceName(r.Name))
	}
	return errors.Join(errs...)
}

func signOne(ctx context.Context, api *clusterAPI, r csr.Request, a issue.Authority, longest time.Duration) error {
	switch r.State {
	case csr.Approved:
	case csr.Pending:
		return advise(fmt.Errorf("%s is not signed: nobody has approved it", r.Name), "approve it first: kubepki csr approve %s", r.Name)
	default:
		return &kube.StateError{Name: r.Name, State: r.State}
	}
	certificate, err := csr.Sign(r, a, longest, time.Now())
	if err != nil {
		return fmt.Errorf("%s is not signed: %w", r.Name, err)
	}
	return adviseAPI(kube.SetCertificate(ctx, api.client, r, certificate), "give yourself the right to update certificatesigningrequests/status, and to sign on signers "+r.SignerName+" (certificates.k8s.io)")
}
