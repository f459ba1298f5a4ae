package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/workload"
)

// certDecideOptions are those of approve and deny.
type certDecideOptions struct {
	access certAccess
	what   kube.Decision
	yes    bool
}

func newCertApproveCommand(s streams) *cobra.Command {
	o := certDecideOptions{what: kube.Decision{Reason: "KubepkiApprove", Message: "This CertificateRequest was approved by kubepki cert approve."}}
	c := &cobra.Command{
		Use:   "approve NAME...",
		Short: "Approve CertificateRequests that nobody has decided on, after a look at what they ask for",
		Long: `Approve prints what each CertificateRequest asks for, asks whether to go on, and
sets the condition Approved, as cmctl approve does: its issuer signs it then.
stdout names what was done.

What is decided already is refused, and so is a request that cannot be read, for
nobody can see what it would get. The request that is approved is the one that was
shown: one that was made anew or changed meanwhile is not. kubepki cert review tells
what a workload policy says of it.`,
		Example: `  # A request that waits, as kubepki cert why has named it
  kubepki cert approve web-1 -n shop

  # Without a question, with a word to who reads the condition
  kubepki cert approve web-1 -n shop --yes --message 'ticket 4711'

  # Would the API server let me?
  kubepki cert approve web-1 web-2 -n shop --dry-run`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args) },
	}
	o.add(c)
	c.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	return c
}

func newCertDenyCommand(s streams) *cobra.Command {
	o := certDecideOptions{what: kube.Decision{Deny: true, Reason: "KubepkiDeny", Message: "This CertificateRequest was denied by kubepki cert deny."}, yes: true}
	c := &cobra.Command{
		Use:   "deny NAME...",
		Short: "Deny CertificateRequests that nobody has decided on",
		Long: `Deny sets the condition Denied, as cmctl deny does: such a request is never signed.
A Certificate whose request was denied asks again after its controller's wait, an
hour at first. What is decided already is refused. --message is what the requester
reads. stdout names what was done.`,
		Example: `  # A request that nobody here made
  kubepki cert deny laptop -n shop

  # With a word to who asked
  kubepki cert deny laptop -n shop --message 'ask for a name below shop.example.com, please'

  # Would the API server let me?
  kubepki cert deny laptop -n shop --dry-run`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args) },
	}
	o.add(c)
	return c
}

func (o *certDecideOptions) add(c *cobra.Command) {
	f := c.Flags()
	o.access.add(f)
	f.StringVar(&o.what.Reason, "reason", o.what.Reason, "reason of the condition, a word for programs")
	f.StringVar(&o.what.Message, "message", o.what.Message, "message of the condition, for people")
	f.BoolVar(&o.what.DryRun, "dry-run", false, "have the API server judge it, and not keep it")
}

func (o *certDecideOptions) run(ctx context.Context, s streams, args []string) error {
	if o.what.Reason == "" || strings.ContainsAny(o.what.Reason, " \t\r\n") {
		return usagef("--reason: %q is no word: use something like %s, and --message for a sentence", o.what.Reason, "Reviewed")
	}
	names := make([]string, len(args))
	for i, arg := range args {
		var err error
		if names[i], err = requestName(arg); err != nil {
			return err
		}
	}
	api, err := o.access.connect()
	if err != nil {
		return err
	}
	requests, err := o.read(ctx, api, names)
	if err != nil {
		return err
	}
	if !o.what.Deny {
		if err := o.show(ctx, s, api, requests); err != nil {
			return err
		}
	}
	if !o.what.DryRun {
		if err := confirm(s, o.yes); err != nil {
			return err
		}
	}
	var errs []error
	for i := range requests {
		errs = append(errs, o.decide(ctx, s, api, &requests[i]))
	}
	return errors.Join(errs...)
}

// requestName takes NAME and certificaterequest/NAME, and the short names that kubectl
// knows.
func requestName(arg string) (string, error) {
	kind, name, ok := strings.Cut(arg, "/")
	if !ok {
		kind, name = "cr", arg
	}
	switch strings.ToLower(kind) {
	case "certificaterequest", "certificaterequests", "cr", "crs", "certificaterequest.cert-manager.io", "certificaterequests.cert-manager.io":
		return name, checkObjectName(name)
	}
	return "", usagef("%s: name a CertificateRequest", arg)
}

// read reads all requests before anything is done to one: a name that is mistyped, or
// decided, changes nothing.
func (o *certDecideOptions) read(ctx context.Context, api *kube.Certs, names []string) ([]cmapi.CertificateRequest, error) {
	var all []cmapi.CertificateRequest
	for _, name := range names {
		r, err := readRequest(ctx, api, o.access.namespace, name)
		if err != nil {
			return nil, err
		}
		if err := kube.Undecided(r); err != nil {
			return nil, adviseDecided(r, err)
		}
		all = append(all, *r)
	}
	return all, nil
}

// readRequest reads one, and says what there is instead where it is not there.
func readRequest(ctx context.Context, api *kube.Certs, namespace, name string) (*cmapi.CertificateRequest, error) {
	r, err := api.Request(ctx, namespace, name)
	if apierrors.IsNotFound(err) && !kube.IsNoKind(err) {
		return nil, advise(fmt.Errorf("there is no CertificateRequest %s in namespace %s", name, namespace), "kubectl -n %s get certificaterequests lists them; one of another namespace is named with -n", namespace)
	}
	return r, adviseCert(err, "get certificaterequests.cert-manager.io in namespace "+namespace)
}

func adviseDecided(r *cmapi.CertificateRequest, err error) error {
	if owner := metav1.GetControllerOfNoCopy(r); owner != nil && owner.Kind == cmapi.CertificateKind {
		return advise(err, "a decision is for good: kubepki cert renew %s -n %s has its Certificate ask anew", owner.Name, r.Namespace)
	}
	return advise(err, "a decision is for good: who has made the request has to ask anew")
}

// show says what would be granted.
func (o *certDecideOptions) show(ctx context.Context, s streams, api *kube.Certs, requests []cmapi.CertificateRequest) error {
	for i := range requests {
		r := &requests[i]
		asked, err := workload.Read(r)
		if err != nil {
			return advise(fmt.Errorf("%s is not approved: nobody can say what it would get: %w", requestResource(r.Name), err), "kubepki cert deny %s -n %s denies it", r.Name, r.Namespace)
		}
		owner, err := ownerOf(ctx, api, r)
		if err != nil {
			return err
		}
		sayAsked(s, r, asked, owner)
	}
	return nil
}

// ownerOf is the Certificate that a request names as its owner, as far as it is there.
func ownerOf(ctx context.Context, api *kube.Certs, r *cmapi.CertificateRequest) (*cmapi.Certificate, error) {
	ref := metav1.GetControllerOfNoCopy(r)
	if ref == nil || ref.Kind != cmapi.CertificateKind {
		return nil, nil //nolint:nilnil // it names none
	}
	o, err := api.Certificate(ctx, r.Namespace, ref.Name)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // it is gone
	}
	return o, adviseCert(err, "get certificates.cert-manager.io in namespace "+r.Namespace)
}

// sayAsked says what a request would get, and of whom it is as far as anybody can know.
func sayAsked(s streams, r *cmapi.CertificateRequest, asked *workload.Asked, owner *cmapi.Certificate) {
	line := func(head, text string) { fmt.Fprintf(s.err, "  %-8s %s\n", head, report.Plain(text)) }
	fmt.Fprintf(s.err, "%s of namespace %s asks for\n", requestResource(report.Plain(r.Name)), report.Plain(r.Namespace))
	seen, err := asked.Seen()
	if err != nil {
		line("warning:", err.Error())
		seen = &workload.Seen{DNSNames: asked.DNSNames, EmailAddresses: asked.EmailAddresses, Duration: asked.Duration, IsCA: asked.IsCA}
	}
	for _, part := range []struct {
		head string
		all  []string
	}{
		{"DNS:", seen.DNSNames}, {"IP:", seen.IPAddresses}, {"URI:", seen.URIs}, {"email:", seen.EmailAddresses}, {"other:", seen.OtherNames},
		{"O:", seen.Organizations}, {"OU:", seen.OrganizationalUnits}, {"subject:", seen.OtherAttributes}, {"usages:", seen.Usages},
	} {
		if len(part.all) > 0 {
			line(part.head, strings.Join(part.all, ", "))
		}
	}
	if seen.CommonName != "" {
		line("CN:", seen.CommonName)
	}
	if seen.IsCA {
		line("CA:", "TRUE: it may sign certificates of any name")
	}
	line("key:", fmt.Sprintf("%s, %d bits", seen.KeyKind, seen.KeyBits))
	line("life:", seen.Duration.String())
	line("from:", kube.IssuerText(r.Spec.IssuerRef))
	ref := metav1.GetControllerOfNoCopy(r)
	switch {
	case workload.CertificateOf(r, owner, asked) != "":
		line("for:", "Certificate "+owner.Name)
	case ref != nil:
		line("for:", fmt.Sprintf("%s %s, as it says; nothing of that name has made it and asks for the same", ref.Kind, ref.Name))
	default:
		line("for:", "nobody's Certificate")
	}
	if r.Spec.Username != "" {
		line("by:", r.Spec.Username+" (true where cert-manager's admission webhook runs)")
	}
}

// decide writes the decision, and says what was done.
func (o *certDecideOptions) decide(ctx context.Context, s streams, api *kube.Certs, r *cmapi.CertificateRequest) error {
	err := api.Decide(ctx, r, o.what)
	switch {
	case errors.As(err, new(*kube.DecidedError)):
		return adviseDecided(r, err)
	case apierrors.IsNotFound(err) && !kube.IsNoKind(err):
		return fmt.Errorf("%s is gone, or asks for something else than was shown", requestResource(r.Name))
	case err != nil:
		signer := workload.SignerName(r.Spec.IssuerRef, r.Namespace)
		return adviseCert(err, fmt.Sprintf("get certificaterequests.cert-manager.io and update certificaterequests.cert-manager.io/status in namespace %s; where cert-manager's admission webhook runs also to approve signers.cert-manager.io with the name %s", r.Namespace, signer))
	}
	did := "approved"
	if o.what.Deny {
		did = "denied"
	}
	if o.what.DryRun {
		did += " (dry run)"
	}
	_, err = fmt.Fprintf(s.out, "%s %s\n", requestResource(r.Name), did)
	return err
}
