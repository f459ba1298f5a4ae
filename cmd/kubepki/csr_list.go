package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
)

type listOptions struct {
	access kube.Access
	by     judgeFlags
	states []string
	signer string
	review bool
	output string
}

func newCSRListCommand(s streams) *cobra.Command {
	var o listOptions
	c := &cobra.Command{
		Use:   "list",
		Short: "List the certificate signing requests of a cluster",
		Long: `List prints the certificate signing requests of a cluster: who asks, of whom, for
what and for how long, and how far each has come. With --review it also prints
what the policy says of those that wait, and the first reason.

Any number of requests is read and printed some hundreds at a time.`,
		Example: `  # What waits, and what would the policy say?
  kubepki csr list --state pending --review

  # Serving certificates of kubelets that were denied or failed
  kubepki csr list --signer kubelet-serving --state denied,failed -o wide

  # Every subject that was ever asked for, as far as requests are kept
  kubepki csr list -o json | jq -r '.items[].subject' | sort -u`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !o.review && o.by.given(c.Flags()) {
				return usagef("--policy, --nodes and what else requests are judged by belong to --review")
			}
			return o.run(c.Context(), s)
		},
	}
	f := c.Flags()
	addAccess(f, &o.access)
	f.StringSliceVar(&o.states, "state", nil, "only these states: pending, approved, denied, failed or issued")
	f.StringVar(&o.signer, "signer", "", "only requests to this signer; kubernetes.io/ may be left out")
	f.BoolVar(&o.review, "review", false, "tell what the policy says of those that wait")
	o.by.add(f)
	f.StringVarP(&o.output, "output", "o", "table", "output: table, wide, json, yaml or name")
	return c
}

func (o *listOptions) run(ctx context.Context, s streams) error {
	if err := o.check(); err != nil {
		return err
	}
	api, err := connect(o.access)
	if err != nil {
		return err
	}
	var j *judge
	if o.review {
		if j, err = o.by.online(ctx, s, api); err != nil {
			return err
		}
	}
	return o.list(ctx, s, api, j)
}

func (o *listOptions) check() error {
	if !slices.Contains([]string{"table", "wide", "json", "yaml", "name"}, o.output) {
		return usagef("--output: unknown format %q: use table, wide, json, yaml or name", o.output)
	}
	for i, state := range o.states {
		known := []csr.State{csr.Pending, csr.Approved, csr.Denied, csr.Failed, csr.Issued}
		at := slices.IndexFunc(known, func(k csr.State) bool { return strings.EqualFold(string(k), state) })
		if at < 0 {
			return usagef("--state: unknown state %q: use pending, approved, denied, failed or issued", state)
		}
		o.states[i] = string(known[at])
	}
	if o.signer != "" && !strings.Contains(o.signer, "/") {
		o.signer = "kubernetes.io/" + o.signer
	}
	return nil
}

// list prints page after page.
func (o *listOptions) list(ctx context.Context, s streams, api *clusterAPI, j *judge) error {
	to := &listPrinter{o: o, s: s, at: time.Now()}
	err := kube.EachPage(ctx, api.client, o.signer, func(page []csr.Request) error {
		page = slices.DeleteFunc(page, func(r csr.Request) bool {
			return len(o.states) > 0 && !slices.Contains(o.states, string(r.State))
		})
		reviews, err := reviewAll(ctx, j, page)
		if err != nil {
			return err
		}
		rows := make([]report.Request, len(page))
		for i, r := range page {
			rows[i] = report.NewRequest(r, reviews[i])
		}
		return to.print(rows)
	})
	if err != nil {
		return adviseAPI(err, listRights)
	}
	return to.close()
}

// reviewAll judges the requests of a page that wait, a few at a time: each may
// ask the API server who may what. The others have no review.
func reviewAll(ctx context.Context, j *judge, page []csr.Request) ([]*csr.Review, error) {
	if j == nil {
		return make([]*csr.Review, len(page)), nil
	}
	type judged struct {
		review *csr.Review
		err    error
	}
	var reviews []*csr.Review
	var errs []error
	inOrder(ctx, page, func(r csr.Request) judged {
		if r.State != csr.Pending {
			return judged{}
		}
		review, err := j.review(ctx, r)
		return judged{&review, err}
	}, func(one judged) {
		reviews, errs = append(reviews, one.review), append(errs, one.err)
	})
	return reviews, errors.Join(append(errs, ctx.Err())...)
}

// listPrinter prints a list of which one page is known at a time.
type listPrinter struct {
	o       *listOptions
	s       streams
	at      time.Time
	columns *report.Columns
	stream  *report.Stream
}

func (p *listPrinter) print(rows []report.Request) error {
	switch p.o.output {
	case "json", "yaml":
		return p.document(rows)
	case "name":
		for _, r := range rows {
			if _, err := fmt.Fprintln(p.s.out, resourceName(r.Name)); err != nil {
				return err
			}
		}
		return nil
	}
	if len(rows) == 0 {
		return nil
	}
	var cells [][]string
	wide := p.o.output == "wide"
	if p.columns == nil {
		p.columns = report.NewColumns(p.s.out)
		cells = append(cells, report.RequestHead(wide, p.o.review))
	}
	palette := report.Palette{On: isTerminal(p.s.out)}
	for i := range rows {
		cells = append(cells, rows[i].Row(p.at, wide, p.o.review, palette))
	}
	return p.columns.Print(cells...)
}

func (p *listPrinter) document(rows []report.Request) error {
	if p.stream == nil {
		p.stream = report.NewStream(p.s.out, p.o.output, "RequestList")
	}
	for _, r := range rows {
		if err := p.stream.Add(r); err != nil {
			return err
		}
	}
	return nil
}

func (p *listPrinter) close() error {
	switch {
	case p.stream != nil:
		return p.stream.Close()
	case p.columns == nil && p.o.output != "name":
		fmt.Fprintln(p.s.err, "no certificate signing request found")
	}
	return nil
}

// resourceName names a request as kubectl does.
func resourceName(name string) string { return "certificatesigningrequest.certificates.k8s.io/" + name }
