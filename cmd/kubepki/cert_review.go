package main

import (
	"cmp"
	"context"
	"crypto"
	"fmt"
	"slices"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/policy"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/workload"
)

type certReviewOptions struct {
	access certAccess
	which  selection
	files  []string
	policy string
	output string
}

func newCertReviewCommand(s streams) *cobra.Command {
	var o certReviewOptions
	c := &cobra.Command{
		Use:   "review --policy FILE [NAME...] [-f FILE]",
		Short: "Tell what a workload policy says of CertificateRequests and Certificates, without touching anything",
		Long: `Review judges CertificateRequests by a WorkloadPolicy, with the function that kubepki
controller --workload-policy runs, and changes nothing. The verdict is Approve, Deny
or Undecided, with the reason and the rule; docs/workload-policy.md lists the reasons.

Without NAME and -f those of the cluster are judged on which nobody has decided.
With -f no cluster is asked: FILE (- is standard input) has CertificateRequests, or
Certificates, of which the request is judged that a controller would make; objects of
other kinds are passed over. What is decided already is judged as if it were not.

Exit codes: 0 the policy approves all, 3 it does not, 1 it could not be told.`,
		Example: `  # What would become of all that waits?
  kubepki cert review --policy policy.yaml -A

  # Would it be approved? Before it is applied, in a pipeline
  helm template shop | kubepki cert review --policy policy.yaml -n shop -f -

  # Why was it denied?
  kubepki cert review --policy policy.yaml -n shop web-3`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), s, args) },
	}
	f := c.Flags()
	o.access.add(f)
	o.which.add(f)
	f.StringArrayVarP(&o.files, "filename", "f", nil, "FILE with CertificateRequests or Certificates in YAML or JSON (- is standard input); repeatable")
	f.StringVar(&o.policy, "policy", "", "FILE with the WorkloadPolicy (docs/workload-policy.md)")
	f.StringVarP(&o.output, "output", "o", "table", "output: table, json or yaml")
	return c
}

func (o *certReviewOptions) check(args []string) error {
	switch {
	case o.policy == "":
		return usagef("--policy: name the file with the WorkloadPolicy")
	case !slices.Contains([]string{"table", "json", "yaml"}, o.output):
		return usagef("--output: unknown format %q: use table, json or yaml", o.output)
	case len(args) > 0 && len(o.files) > 0:
		return usagef("names and --filename say different things: leave one out")
	case len(args)+len(o.files) > 0 && (o.which.all || o.which.selector != ""):
		return usagef("--all-namespaces and --selector are for the requests that wait: leave names and --filename out")
	case len(slices.DeleteFunc(append(slices.Clone(o.files), o.policy), func(name string) bool { return name != "-" })) > 1:
		return usagef("standard input (-) can be read once only")
	}
	return o.which.check(&o.access)
}

func (o *certReviewOptions) run(ctx context.Context, s streams, args []string) error {
	if err := o.check(args); err != nil {
		return err
	}
	names := make([]string, len(args))
	for i, arg := range args {
		var err error
		if names[i], err = requestName(arg); err != nil {
			return err
		}
	}
	data, err := readInput(s, o.policy)
	if err != nil {
		return fmt.Errorf("--policy: %w", err)
	}
	rules, err := policy.ParseWorkload(data)
	if err != nil {
		return fmt.Errorf("--policy: %s: %w", o.policy, err)
	}
	gather := func() ([]reviewed, error) { return o.ofCluster(ctx, names) }
	if len(o.files) > 0 {
		gather = func() ([]reviewed, error) { return o.ofFiles(s) }
	}
	all, err := gather()
	if err != nil {
		return err
	}
	items := make([]report.CertReview, len(all))
	for i := range all {
		items[i] = all[i].judge(rules)
	}
	if err := o.print(s, items); err != nil {
		return err
	}
	if slices.ContainsFunc(items, func(i report.CertReview) bool { return i.Verdict != csr.Approve }) {
		return errFindings
	}
	return nil
}

func (o *certReviewOptions) print(s streams, items []report.CertReview) error {
	l := report.NewCertReviews(items)
	switch {
	case o.output != "table":
		return report.Document(s.out, o.output, l)
	case len(items) == 0:
		_, words := o.which.where(&o.access)
		fmt.Fprintf(s.err, "no CertificateRequest waits for a decision %s\n", words)
		return nil
	}
	return l.Rows(s.out, report.Palette{On: isTerminal(s.out)})
}

// reviewed is a request that is to be judged.
type reviewed struct {
	of, source string
	request    *cmapi.CertificateRequest
	// owner is the Certificate that it names, as far as it is there.
	owner *cmapi.Certificate
	// wrong says that no request can be made of a Certificate; nil: it can.
	wrong error
}

// ofCluster reads the requests that are named, or all that nobody has decided on.
func (o *certReviewOptions) ofCluster(ctx context.Context, names []string) ([]reviewed, error) {
	api, err := o.access.connect()
	if err != nil {
		return nil, err
	}
	var requests []cmapi.CertificateRequest
	if len(names) == 0 {
		namespace, words := o.which.where(&o.access)
		if requests, err = api.Requests(ctx, namespace, o.which.selector, kube.IsOpen); err != nil {
			return nil, adviseCert(err, "list certificaterequests.cert-manager.io "+words)
		}
	}
	for _, name := range names {
		r, err := readRequest(ctx, api, o.access.namespace, name)
		if err != nil {
			return nil, err
		}
		requests = append(requests, *r)
	}
	all := make([]reviewed, len(requests))
	for i := range requests {
		all[i] = reviewed{of: "certificaterequest", request: &requests[i]}
		if all[i].owner, err = ownerOf(ctx, api, &requests[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// ofFiles reads what stands in files. A Certificate that a request names as its owner
// counts where it stands in a file too, by its UID.
func (o *certReviewOptions) ofFiles(s streams) ([]reviewed, error) {
	var all []reviewed
	owners, keys := map[types.UID]*cmapi.Certificate{}, keyRing{}
	others := 0
	for _, name := range o.files {
		data, err := readObjects(s, name)
		if err != nil {
			return nil, fmt.Errorf("-f: %w", err)
		}
		f, err := kube.ParseCerts(data)
		if err != nil {
			return nil, fmt.Errorf("-f %s: %w", name, err)
		}
		others += f.Others
		for i := range f.Requests {
			all = append(all, reviewed{of: "certificaterequest", source: name, request: &f.Requests[i]})
		}
		for i := range f.Certificates {
			owners[f.Certificates[i].UID] = &f.Certificates[i]
			all = append(all, requestOf(&f.Certificates[i], name, keys))
		}
	}
	for i := range all {
		r := all[i].request
		if r.Name == "" {
			r.Name = r.GenerateName
		}
		if ref := metav1.GetControllerOfNoCopy(r); ref != nil && ref.UID != "" && all[i].owner == nil {
			all[i].owner = owners[ref.UID]
		}
	}
	if others > 0 {
		fmt.Fprintf(s.err, "kubepki: note: %d objects of other kinds are passed over\n", others)
	}
	return all, o.settle(s, all)
}

// settle gives what has no namespace the one that it would be applied to.
func (o *certReviewOptions) settle(s streams, all []reviewed) error {
	namespace := o.access.namespace
	username := false
	for i := range all {
		r := all[i].request
		username = username || r.Spec.Username != ""
		if r.Namespace != "" {
			continue
		}
		if namespace == "" {
			var err error
			if namespace, err = o.access.Namespace(); err != nil || namespace == "" {
				return usagef("%s has no namespace, on which the verdict depends: name it with --namespace", all[i].of+"/"+all[i].name())
			}
			fmt.Fprintf(s.err, "kubepki: note: what has no namespace is taken to be in %s, that of the kubeconfig\n", namespace)
		}
		r.Namespace = namespace
		if all[i].owner != nil && all[i].owner.Namespace == "" {
			all[i].owner.Namespace = namespace
		}
	}
	if username {
		fmt.Fprintln(s.err, "kubepki: note: no cluster is asked: requesters are taken for who the file says")
	}
	return nil
}

// keyRing has a key of each kind: rules see the kind, and RSA keys take their time.
type keyRing map[string]crypto.Signer

func (k keyRing) of(spec *cmapi.CertificateSpec) (crypto.Signer, error) {
	kind := ""
	if p := spec.PrivateKey; p != nil {
		kind = fmt.Sprint(p.Algorithm, p.Size)
	}
	if k[kind] != nil {
		return k[kind], nil
	}
	key, err := workload.NewKey(spec)
	if err == nil {
		k[kind] = key
	}
	return key, err
}

// requestOf is the request that a controller would make of a Certificate.
func requestOf(c *cmapi.Certificate, source string, keys keyRing) reviewed {
	c = c.DeepCopy()
	c.UID = cmp.Or(c.UID, "of-a-file")
	v := reviewed{of: "certificate", source: source, owner: c, request: &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name + "-1", OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(c, cmapi.SchemeGroupVersion.WithKind(cmapi.CertificateKind))}},
		Spec:       cmapi.CertificateRequestSpec{Duration: c.Spec.Duration, IssuerRef: c.Spec.IssuerRef, IsCA: c.Spec.IsCA, Usages: c.Spec.Usages},
	}}
	key, err := keys.of(&c.Spec)
	if err == nil {
		v.request.Spec.Request, err = workload.Request(&c.Spec, key)
	}
	v.wrong = err
	return v
}

// name is that of the object that stands in the file or the cluster.
func (v *reviewed) name() string {
	if v.of == "certificate" {
		return v.owner.Name
	}
	return v.request.Name
}

// judge tells what a policy says of a request.
func (v *reviewed) judge(rules *workload.Policy) report.CertReview {
	r := v.request
	item := report.CertReview{Of: v.of, Namespace: r.Namespace, Name: v.name(), Source: v.source, Issuer: kube.IssuerText(r.Spec.IssuerRef), Verdict: csr.Undecided}
	if by := kube.DecidedOf(r); by != nil {
		item.Decided = string(by.Type)
	}
	asked, err := workload.Read(r)
	if err = cmp.Or(v.wrong, err); err != nil {
		return unreadable(item, r, err)
	}
	certificate := workload.CertificateOf(r, v.owner, asked)
	ruling := rules.Decide(workload.PetitionOf(r, certificate), asked)
	item.Verdict = map[workload.Outcome]csr.Verdict{workload.Approves: csr.Approve, workload.Denies: csr.Deny, workload.Waits: csr.Undecided}[ruling.Outcome]
	item.Reason, item.Rule, item.Message = ruling.ID, ruling.Rule, ruling.Message
	return item
}

// unreadable is the answer where nothing can be asked of a policy: our own issuers fail
// such a request, others may do with it what they like.
func unreadable(item report.CertReview, r *cmapi.CertificateRequest, err error) report.CertReview {
	item.Reason, item.Message = "request-invalid", err.Error()
	if workload.IssuerOf(r.Spec.IssuerRef).Group == cmapi.SchemeGroupVersion.Group {
		item.Verdict = csr.Deny
	}
	return item
}
