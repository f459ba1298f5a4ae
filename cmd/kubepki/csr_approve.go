package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
)

// settleOptions are those of approve and deny.
type settleOptions struct {
	access kube.Access
	by     judgeFlags
	what   kube.Approval
	force  bool
}

func newCSRApproveCommand(s streams) *cobra.Command {
	o := settleOptions{what: kube.Approval{Type: certificatesv1.CertificateApproved, Reason: "KubepkiApprove", Message: "This CSR was approved by kubepki csr approve."}}
	c := &cobra.Command{
		Use:   "approve NAME...",
		Short: "Approve certificate signing requests, after a look at what the policy says",
		Long: `Approve prints what the policy says of each request, and approves it. What the
policy denies is refused unless --force is given; what it leaves undecided is a
person's to decide, and approved. stdout names what was done.

The request that is approved is the one that was judged, known by its UID. One
that is approved already stays so; one that was denied or failed cannot be
approved any more.`,
		Example: `  # A request that the controller left undecided
  kubepki csr approve csr-8x2kd

  # Two, by a policy of our own
  kubepki csr approve web-1 web-2 --policy policy.yaml

  # Would the API server let me?
  kubepki csr approve csr-8x2kd --dry-run`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.approve(c.Context(), s, args) },
	}
	f := c.Flags()
	addAccess(f, &o.access)
	o.by.add(f)
	f.BoolVar(&o.force, "force", false, "approve also what the policy denies")
	f.BoolVar(&o.what.DryRun, "dry-run", false, "have the API server judge the approval, and not keep it")
	return c
}

func newCSRDenyCommand(s streams) *cobra.Command {
	o := settleOptions{what: kube.Approval{Type: certificatesv1.CertificateDenied, Reason: "KubepkiDeny"}}
	c := &cobra.Command{
		Use:   "deny NAME...",
		Short: "Deny certificate signing requests",
		Long: `Deny denies requests for good: the requester has to ask anew. What --reason says is
written into the request, where the requester reads it; by default it tells
nothing of the policy. stdout names what was done.

One that is denied already stays so; one that was approved cannot be denied any
more.`,
		Example: `  # A request that nobody here made
  kubepki csr deny csr-8x2kd

  # With a word to who asked
  kubepki csr deny jane-x2k8d --reason 'ask for the group dev, please'

  # Would the API server let me?
  kubepki csr deny csr-8x2kd --dry-run`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.deny(c.Context(), s, args) },
	}
	f := c.Flags()
	addAccess(f, &o.access)
	f.StringVar(&o.what.Message, "reason", "This CSR was denied by kubepki csr deny.", "what to tell the requester")
	f.BoolVar(&o.what.DryRun, "dry-run", false, "have the API server judge the denial, and not keep it")
	return c
}

// errRefused is said of each request that the policy denies.
var errRefused = errors.New("the policy denies it")

func (o *settleOptions) approve(ctx context.Context, s streams, names []string) error {
	api, err := connect(o.access)
	if err != nil {
		return err
	}
	requests, err := getAll(ctx, api, names)
	if err != nil {
		return err
	}
	j, err := o.by.online(ctx, s, api)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range requests {
		errs = append(errs, o.approveOne(ctx, s, api, j, r))
	}
	return errors.Join(errs...)
}

func (o *settleOptions) approveOne(ctx context.Context, s streams, api *clusterAPI, j *judge, r csr.Request) error {
	if r.State == csr.Pending {
		review, err := j.review(ctx, r)
		if err != nil {
			return err
		}
		sayReview(s, r.Name, review)
		if review.Verdict == csr.Deny && !o.force {
			return advise(fmt.Errorf("%s is not approved: %w", r.Name, errRefused), "kubepki csr deny %s denies it; --force approves it all the same", r.Name)
		}
	}
	return o.settle(ctx, s, api, r)
}

func (o *settleOptions) deny(ctx context.Context, s streams, names []string) error {
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
		errs = append(errs, o.settle(ctx, s, api, r))
	}
	return errors.Join(errs...)
}

// getAll reads all requests before anything is done to one: a name that is
// mistyped changes nothing.
func getAll(ctx context.Context, api *clusterAPI, names []string) ([]csr.Request, error) {
	var all []csr.Request
	for _, name := range names {
		r, err := kube.GetRequest(ctx, api.client, name)
		if err != nil {
			return nil, adviseAPI(err, getRights)
		}
		all = append(all, r)
	}
	return all, nil
}

// settle writes the decision, and says what was done.
func (o *settleOptions) settle(ctx context.Context, s streams, api *clusterAPI, r csr.Request) error {
	changed, err := kube.SetApproval(ctx, api.client, r, o.what)
	if errors.As(err, new(*kube.StateError)) {
		return advise(err, "a decision is for good: the requester has to ask anew")
	}
	if err != nil {
		return adviseAPI(err, "give yourself the right to update certificatesigningrequests/approval, and to approve on signers "+r.SignerName+" (certificates.k8s.io)")
	}
	did := map[certificatesv1.RequestConditionType]string{certificatesv1.CertificateApproved: "approved", certificatesv1.CertificateDenied: "denied"}[o.what.Type]
	if !changed {
		did = "was " + did + " already"
	} else if o.what.DryRun {
		did += " (dry run)"
	}
	_, err = fmt.Fprintf(s.out, "%s %s\n", resourceName(r.Name), did)
	return err
}
