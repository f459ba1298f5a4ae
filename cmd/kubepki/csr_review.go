package main

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
)

type reviewOptions struct {
	files  []string
	by     judgeFlags
	access kube.Access
	output string
	failOn string
	// asPending judges what is decided as if it were not.
	asPending bool
}

func newCSRReviewCommand(s streams) *cobra.Command {
	var o reviewOptions
	c := &cobra.Command{
		Use:   "review -f FILE|NAME...",
		Short: "Tell what the policy says of requests, without touching anything",
		Long: `Review judges certificate signing requests with the function that kubepki
controller runs, and changes nothing. The verdict is Approve, Deny or Undecided,
with reasons whose ids are stable; it exits with 0 whatever the verdict is,
unless --fail-on says otherwise. What is no CertificateSigningRequest of
certificates.k8s.io/v1 is an error, not a verdict.

NAME is a request of the cluster, FILE (- is standard input) holds one or several
as kubectl get csr -o yaml prints them. For a NAME, or with --kubeconfig or
--context, the cluster is asked for its Nodes and for what the requester may do.

Without a cluster, spec.username, spec.groups and spec.extra of a file are what
the file says: the API server sets them, and nothing here can prove them. The
requester is taken to have the rights that kubeadm's bindings give. Without
--nodes there are no Nodes yet: a node may ask for its first certificate, and
for serving certificates the Node is a missing fact: Undecided, never Deny.

-o json prints {"apiVersion","kind":"Review","verdict","reasons":[{"id",
"message"}]} for one request, and a ReviewList for several.`,
		Example: `  # A request of the cluster
  kubepki csr review csr-8x2kd

  # In a file, without a cluster, for a program
  kubepki csr review -f csr.yaml --nodes nodes.yaml -o json

  # All that wait, in a pipeline: 3 if one would be denied
  kubectl get csr -o yaml | kubepki csr review -f - --nodes <(kubectl get nodes -o yaml) --fail-on deny

  # Why was it denied?
  kubepki csr review --as-pending csr-8x2kd

  # What would another policy say?
  kubepki csr review csr-8x2kd --policy policy.yaml`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c, s, args) },
	}
	f := c.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "FILE with CertificateSigningRequests in YAML or JSON (- is standard input); repeatable")
	o.by.add(f)
	addAccess(f, &o.access)
	f.StringVarP(&o.output, "output", "o", "table", "output: table, json or yaml")
	f.BoolVar(&o.asPending, "as-pending", false, "judge a request that is decided as if it were not: what does the policy say of it now?")
	f.StringVar(&o.failOn, "fail-on", "", "exit with 3 on this verdict: deny, or undecided (which includes deny)")
	return c
}

func (o *reviewOptions) run(c *cobra.Command, s streams, args []string) error {
	if err := o.check(args); err != nil {
		return err
	}
	judge, requests, err := o.gather(c, s, args)
	if err != nil {
		return err
	}
	items := make([]report.ReviewedItem, len(requests))
	for i, r := range requests {
		if o.asPending {
			r.State = csr.Pending
		}
		review, err := judge.review(c.Context(), r.Request)
		if err != nil {
			return err
		}
		items[i] = report.ReviewedItem{Name: r.Name, Source: r.source, Review: review}
	}
	if err := o.print(s, items); err != nil {
		return err
	}
	if slices.ContainsFunc(items, func(i report.ReviewedItem) bool { return o.fails(i.Verdict) }) {
		return errFindings
	}
	return nil
}

func (o *reviewOptions) check(args []string) error {
	switch {
	case len(args) == 0 && len(o.files) == 0:
		return usagef("name a request of the cluster, or a file with -f")
	case !slices.Contains([]string{"table", "json", "yaml"}, o.output):
		return usagef("--output: unknown format %q: use table, json or yaml", o.output)
	case !slices.Contains([]string{"", "deny", "undecided"}, o.failOn):
		return usagef("--fail-on: unknown verdict %q: use deny or undecided", o.failOn)
	}
	inputs := append(slices.Clone(o.files), o.by.nodes, o.by.policy.file)
	if len(slices.DeleteFunc(inputs, func(name string) bool { return name != "-" })) > 1 {
		return usagef("standard input (-) can be read once only")
	}
	return nil
}

func (o *reviewOptions) fails(v csr.Verdict) bool {
	return o.failOn != "" && v == csr.Deny || o.failOn == "undecided" && v == csr.Undecided
}

// sourced is a request and the file that it stands in.
type sourced struct {
	csr.Request
	source string
}

// gather reads the requests, and all that they are judged by.
func (o *reviewOptions) gather(c *cobra.Command, s streams, args []string) (*judge, []sourced, error) {
	var requests []sourced
	for _, name := range o.files {
		all, err := readRequests(s, name)
		if err != nil {
			return nil, nil, err
		}
		for _, r := range all {
			requests = append(requests, sourced{r, name})
		}
	}
	if len(args) == 0 && !c.Flags().Changed("kubeconfig") && !c.Flags().Changed("context") {
		j, err := o.by.offline(s)
		if err != nil {
			return nil, nil, err
		}
		j.assume(s)
		j.addRequests(requests)
		return j, requests, nil
	}
	api, err := connect(o.access)
	if err != nil {
		return nil, nil, err
	}
	ofFiles := requests
	for _, name := range args {
		r, err := kube.GetRequest(c.Context(), api.client, name)
		if err != nil {
			return nil, nil, adviseAPI(err, getRights)
		}
		requests = append(requests, sourced{Request: r})
	}
	j, err := o.by.online(c.Context(), s, api)
	if err == nil {
		j.addRequests(ofFiles)
	}
	return j, requests, err
}

// addRequests takes note of the keys that approved requests of files have.
func (j *judge) addRequests(requests []sourced) {
	for _, r := range requests {
		j.keys.Add(r.Request)
	}
}

func (o *reviewOptions) print(s streams, items []report.ReviewedItem) error {
	if o.output == "table" {
		return report.ReviewRows(s.out, items, report.Palette{On: isTerminal(s.out)})
	}
	return report.Document(s.out, o.output, report.NewReviews(items))
}
