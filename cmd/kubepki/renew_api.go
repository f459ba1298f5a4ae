package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/kubesign"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// renewAPI are the flags of renew, and of the agent, for certificates that certificates.k8s.io of the
// cluster itself signs.
type renewAPI struct {
	kubeconfig string
	signer     string
	approve    string
	timeout    time.Duration
}

// add adds the flags; patience is how long certificates are waited for by default.
func (a *renewAPI) add(f *pflag.FlagSet, patience time.Duration) {
	f.StringVar(&a.kubeconfig, "signer-kubeconfig", "", "have certificates signed by certificates.k8s.io of the cluster that this kubeconfig names")
	f.StringVar(&a.signer, "signer-name", "", "with --signer-kubeconfig: signer to ask (default: the built-in one for each credential)")
	f.StringVar(&a.approve, "approve", "auto", "with --signer-kubeconfig: approve the requests: auto (where you may), always or never")
	f.DurationVar(&a.timeout, "signer-timeout", patience, "with --signer-kubeconfig: how long to wait for approval and certificates")
}

func (a *renewAPI) on() bool { return a.kubeconfig != "" }

func (a *renewAPI) check() error {
	switch {
	case !a.on() && (a.signer != "" || a.approve != "auto"):
		return usagef("--signer-name, --approve: are for --signer-kubeconfig")
	case a.signer != "" && !strings.Contains(a.signer, "/"):
		return usagef("--signer-name %q is no signer, such as %s", a.signer, csr.KubeAPIServerClientSigner)
	case !slices.Contains([]string{"auto", "always", "never"}, a.approve):
		return usagef("--approve: unknown choice %q: use auto, always or never", a.approve)
	case a.timeout <= 0:
		return usagef("--signer-timeout: %s is no time to wait: use 5m", a.timeout)
	}
	return nil
}

// askedItem is an item that a signer of the API is asked for.
type askedItem struct {
	kubesign.Asked
	ask apply.Ask
}

// run asks for certificates, waits for them, and puts in place what is good. Keys and
// requests wait on the nodes meanwhile, so that another run goes on with the same.
func (a *renewAPI) run(ctx context.Context, o *renewOptions, s streams, n *trustNodes, items []*renew.Item, before *check.Result, at time.Time, named bool) error {
	asked, err := a.choose(s, n, items, named)
	if err != nil {
		return err
	}
	api, err := connect(kube.Access{Kubeconfig: a.kubeconfig})
	if err != nil {
		return err
	}
	if err := a.print(s, asked); err != nil {
		return err
	}
	if !o.dryRun {
		if err := cmp.Or(o.confirm(s), ctx.Err()); err != nil {
			return err
		}
		o.yes = true // it was said
	}
	if err := a.prepare(ctx, o, s, n, asked); err != nil {
		return err
	}
	if o.dryRun {
		return a.rehearse(ctx, api, asked)
	}
	for _, i := range asked {
		if err := a.send(ctx, s, api, i); err != nil {
			return fmt.Errorf("%s: %w", i.ID(), err)
		}
	}
	a.await(ctx, s, api, asked)
	if err := context.Cause(ctx); err != nil {
		return advise(fmt.Errorf("interrupted while it waits for certificates: %w", err), "run the same command again: it goes on with the same requests")
	}
	return a.takeIn(ctx, o, s, n, api, asked, before, at)
}

// choose finds the signer of each item. What none signs is left out where all were
// meant, and refused where it was named.
func (a *renewAPI) choose(s streams, n *trustNodes, items []*renew.Item, named bool) ([]*askedItem, error) {
	var asked []*askedItem
	for _, i := range items {
		signer, reason := a.signerOf(n.Graph, i)
		switch {
		case reason == "":
			asked = append(asked, &askedItem{Asked: kubesign.Asked{Item: i, Signer: signer}})
		case !named:
			fmt.Fprintf(s.err, "left out: %s: %s\n", report.Plain(i.ID()), report.Plain(reason))
		default:
			return nil, &renew.Refusal{What: i.ID(), Reason: reason, Help: "renew it with the authority's key: kubepki renew " + i.ID() + "; or have it signed elsewhere: --csr-only; or name a signer of your own: --signer-name"}
		}
	}
	if len(asked) == 0 {
		return nil, advise(errors.New("nothing here can be signed by certificates.k8s.io"), "kubepki renew --all does it with the authority's key")
	}
	return asked, nil
}

// signerOf is the signer that was named, or the built-in one for an item, or why there
// is none.
func (a *renewAPI) signerOf(g *trust.Graph, i *renew.Item) (signer, reason string) {
	if a.signer != "" {
		return a.signer, ""
	}
	return kubesign.SignerFor(g, i)
}

func (a *renewAPI) print(s streams, asked []*askedItem) error {
	var rows [][]string
	for _, i := range asked {
		rows = append(rows, []string{report.Plain(i.ID()), report.Plain(strings.Join(shortReasons(i.Why), ", ")), oldEnd(i.Item), i.Signer, report.Plain(i.Subject.String())})
	}
	return report.Table(s.err, []string{"CREDENTIAL", "WHY", "EXPIRES", "SIGNER", "SUBJECT"}, rows)
}

// prepare makes keys and requests, and puts them where they wait.
func (a *renewAPI) prepare(ctx context.Context, o *renewOptions, s streams, n *trustNodes, asked []*askedItem) error {
	items := make([]*renew.Item, len(asked))
	for k, i := range asked {
		items[k] = i.Item
	}
	waiting, asks, err := askAll(ctx, s, n, items, (*renew.Item).PlainRequest)
	if err != nil {
		return err
	}
	for k := range asks {
		asked[k].ask, asked[k].Request = asks[k], asks[k].Request
	}
	if o.dryRun {
		return nil
	}
	return n.Stage(asks, waiting)
}

const rightsToAsk = "give the user of --signer-kubeconfig the right to create and get certificatesigningrequests of certificates.k8s.io"

// rehearse has the API server judge the requests, and keep nothing.
func (a *renewAPI) rehearse(ctx context.Context, api *clusterAPI, asked []*askedItem) error {
	for _, i := range asked {
		if err := i.Rehearse(ctx, api.client); err != nil {
			return adviseAPI(fmt.Errorf("%s: %w", i.ID(), err), rightsToAsk)
		}
	}
	return nil
}

// send makes the request, or finds that of an earlier run, and approves it where that
// is wanted and allowed.
func (a *renewAPI) send(ctx context.Context, s streams, api *clusterAPI, i *askedItem) error {
	again, err := i.Send(ctx, api.client)
	switch {
	case errors.As(err, new(*kubesign.ForeignError)):
		return err
	case err != nil:
		return adviseAPI(err, rightsToAsk)
	case again:
		fmt.Fprintf(s.err, "%s: going on with request %s\n", report.Plain(i.ID()), i.Object.Name)
	default:
		fmt.Fprintf(s.err, "%s: asked %s: request %s\n", report.Plain(i.ID()), i.Signer, i.Object.Name)
	}
	if i.State != csr.Pending {
		return nil
	}
	if a.approve == "never" {
		fmt.Fprintf(s.err, "%s: waiting for an approval: kubepki csr approve %s\n", report.Plain(i.ID()), i.Object.Name)
		return nil
	}
	err = i.Approve(ctx, api.client, "renew")
	if apierrors.IsForbidden(err) && a.approve == "auto" {
		fmt.Fprintf(s.err, "%s: you may not approve it; waiting for somebody who may: kubepki csr approve %s\n", report.Plain(i.ID()), i.Object.Name)
		return nil
	}
	return adviseAPI(err, "give yourself the right to update certificatesigningrequests/approval, and to approve on signers "+i.Signer+"; or leave out --approve=always")
}

// sayEvery is how often it is said what is waited for.
const sayEvery = 20 * time.Second

// await waits for all certificates at once.
func (a *renewAPI) await(ctx context.Context, s streams, api *clusterAPI, asked []*askedItem) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	var all sync.WaitGroup
	var mu sync.Mutex
	waiting := map[string]bool{}
	for _, i := range asked {
		waiting[i.Object.Name] = true
		all.Go(func() {
			i.Await(ctx, api.client)
			mu.Lock()
			defer mu.Unlock()
			delete(waiting, i.Object.Name)
		})
	}
	over := make(chan struct{})
	go func() { all.Wait(); close(over) }()
	ticker := time.NewTicker(sayEvery)
	defer ticker.Stop()
	for {
		select {
		case <-over:
			return
		case <-ticker.C:
			mu.Lock()
			fmt.Fprintf(s.err, "waiting for %d of %d certificates\n", len(waiting), len(asked))
			mu.Unlock()
		}
	}
}

// takeIn judges what the signers gave, proves it by a call, and puts it in place.
func (a *renewAPI) takeIn(ctx context.Context, o *renewOptions, s streams, n *trustNodes, api *clusterAPI, asked []*askedItem, before *check.Result, at time.Time) error {
	t := &takeIn{o: o, n: n, before: before, at: at, why: map[string]string{}}
	var err error
	if t.waiting, err = n.Pending(); err != nil {
		return err
	}
	for _, i := range asked {
		switch {
		case i.Reason != "":
			t.refuse(i.ID(), i.Reason)
		case i.Chain == nil:
			t.outstanding = append(t.outstanding, i.ID())
			t.why[i.ID()] = i.Needs()
		default:
			if err := a.take(ctx, t, s, api, i); err != nil {
				return err
			}
		}
	}
	return errors.Join(t.finish(ctx, s), a.giveUp(n, t, asked))
}

// giveUp forgets the keys of requests that gave nothing of use: such a request stays as
// it is, so another run asks with a new key. One that cannot be seen may come yet.
func (a *renewAPI) giveUp(n *trustNodes, t *takeIn, asked []*askedItem) error {
	var places []trust.Place
	for _, i := range asked {
		settled := i.Chain != nil || i.State == csr.Denied || i.State == csr.Failed
		if settled && slices.ContainsFunc(t.refused, func(r refusedItem) bool { return r.ID == i.ID() }) {
			places = append(places, i.Certificate)
		}
	}
	return n.Forget(places...)
}

// take judges one certificate as those that come back in files, and proves it.
func (a *renewAPI) take(ctx context.Context, t *takeIn, s streams, api *clusterAPI, i *askedItem) error {
	key := i.ask.Key
	if key == nil {
		var err error
		if key, err = i.MakeKey(); err != nil {
			return err
		}
	}
	if !slices.ContainsFunc(i.Chain, func(c *x509.Certificate) bool { return trust.SameKey(c.PublicKey, key.Public()) }) {
		t.refuse(i.ID(), fmt.Sprintf("request %s: what the signer gave is for another key", i.Object.Name))
		return nil
	}
	before := len(t.taken)
	t.judge(takenCandidate{item: i.Item, key: key, waits: true}, &returned{certificates: i.Chain})
	if len(t.taken) == before || !strings.HasPrefix(i.Signer, csr.KubeAPIServerClientSigner) {
		return nil
	}
	spec, err := api.target("")
	if err != nil {
		return err
	}
	if err := kubesign.Prove(ctx, spec, i.Item, t.taken[before].Made); err != nil {
		t.taken = t.taken[:before]
		t.refuse(i.ID(), err.Error())
		return nil
	}
	fmt.Fprintf(s.err, "%s: proved: the API server knows %s\n", report.Plain(i.ID()), report.Plain(i.Subject.CommonName))
	return nil
}
