package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// renewAPI are the flags of renew for certificates that certificates.k8s.io of the
// cluster itself signs.
type renewAPI struct {
	kubeconfig string
	signer     string
	approve    string
	timeout    time.Duration
}

func (a *renewAPI) add(f *pflag.FlagSet) {
	f.StringVar(&a.kubeconfig, "signer-kubeconfig", "", "have certificates signed by certificates.k8s.io of the cluster that this kubeconfig names")
	f.StringVar(&a.signer, "signer-name", "", "with --signer-kubeconfig: signer to ask (default: the built-in one for each credential)")
	f.StringVar(&a.approve, "approve", "auto", "with --signer-kubeconfig: approve the requests: auto (where you may), always or never")
	f.DurationVar(&a.timeout, "signer-timeout", 5*time.Minute, "with --signer-kubeconfig: how long to wait for approval and certificates")
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
	*renew.Item
	signer string
	ask    apply.Ask
	object *certificatesv1.CertificateSigningRequest
	// state is what the request was seen in last; reason says why it will give none.
	state  csr.State
	reason string
	chain  []*x509.Certificate
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
		signer, reason := a.signerOf(n, i)
		switch {
		case reason == "":
			asked = append(asked, &askedItem{Item: i, signer: signer})
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

// signerOf is the signer for an item, or why there is none (the rules of
// k/k pkg/controller/certificates/signer and plugin/pkg/admission/certificates).
func (a *renewAPI) signerOf(n *trustNodes, i *renew.Item) (signer, reason string) {
	if a.signer != "" {
		return a.signer, ""
	}
	server, client := slices.Contains(i.Usages, x509.ExtKeyUsageServerAuth), slices.Contains(i.Usages, x509.ExtKeyUsageClientAuth)
	node := strings.HasPrefix(i.Subject.CommonName, "system:node:") && slices.Equal(i.Subject.Organization, []string{"system:nodes"})
	switch authority := authorityAt(n.Graph, i.Issuer); {
	case authority == catalog.EtcdCA, authority == catalog.FrontProxyCA:
		return "", fmt.Sprintf("it is of authority %s, with which no signer of certificates.k8s.io signs", authority)
	case server && client:
		return "", "no built-in signer gives serverAuth and clientAuth in one certificate"
	case server && node && len(i.DNSNames)+len(i.Addresses) > 0:
		return csr.KubeletServingSigner, ""
	case server:
		return "", fmt.Sprintf("no built-in signer signs it: %s is for the serving certificates of kubelets alone", csr.KubeletServingSigner)
	case slices.Contains(i.Subject.Organization, "system:masters"):
		return "", "the API server refuses requests for group system:masters (CertificateSubjectRestriction)"
	case node && len(i.Names()) == 0:
		return csr.KubeAPIServerClientKubeletSigner, ""
	}
	return csr.KubeAPIServerClientSigner, ""
}

func authorityAt(g *trust.Graph, at trust.Place) string {
	for _, a := range g.Authorities {
		if a.Certificate == at {
			return a.Name
		}
	}
	return ""
}

func (a *renewAPI) print(s streams, asked []*askedItem) error {
	var rows [][]string
	for _, i := range asked {
		rows = append(rows, []string{report.Plain(i.ID()), report.Plain(strings.Join(shortReasons(i.Why), ", ")), oldEnd(i.Item), i.signer, report.Plain(i.Subject.String())})
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
		asked[k].ask = asks[k]
	}
	if o.dryRun {
		return nil
	}
	return n.Stage(asks, waiting)
}

// request is the object of an item. It is named by what is asked for: another run with
// the same key and request finds it again.
func (i *askedItem) request() *certificatesv1.CertificateSigningRequest {
	digest := sha256.Sum256(append([]byte(i.signer+"\x00"), i.ask.Request.Raw...))
	o := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "kubepki-renew-" + hex.EncodeToString(digest[:12])},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: issue.EncodeRequest(i.ask.Request), SignerName: i.signer,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature},
		},
	}
	if _, ok := i.ask.Request.PublicKey.(*rsa.PublicKey); ok {
		o.Spec.Usages = append(o.Spec.Usages, certificatesv1.UsageKeyEncipherment)
	}
	for _, u := range i.Usages {
		o.Spec.Usages = append(o.Spec.Usages, map[x509.ExtKeyUsage]certificatesv1.KeyUsage{x509.ExtKeyUsageServerAuth: certificatesv1.UsageServerAuth, x509.ExtKeyUsageClientAuth: certificatesv1.UsageClientAuth}[u])
	}
	// The least that the API takes are ten minutes.
	seconds := int32(min(max((i.Life()-issue.Backdate)/time.Second, 600), math.MaxInt32))
	o.Spec.ExpirationSeconds = &seconds
	return o
}

const rightsToAsk = "give the user of --signer-kubeconfig the right to create and get certificatesigningrequests of certificates.k8s.io"

// rehearse has the API server judge the requests, and keep nothing.
func (a *renewAPI) rehearse(ctx context.Context, api *clusterAPI, asked []*askedItem) error {
	for _, i := range asked {
		if _, err := kube.CreateRequest(ctx, api.client, i.request(), true); err != nil && !apierrors.IsAlreadyExists(err) {
			return adviseAPI(fmt.Errorf("%s: %w", i.ID(), err), rightsToAsk)
		}
	}
	return nil
}

// send makes the request, or finds that of an earlier run, and approves it where that
// is wanted and allowed.
func (a *renewAPI) send(ctx context.Context, s streams, api *clusterAPI, i *askedItem) error {
	want := i.request()
	made, err := kube.CreateRequest(ctx, api.client, want, false)
	switch {
	case apierrors.IsAlreadyExists(err):
		fmt.Fprintf(s.err, "%s: going on with request %s\n", report.Plain(i.ID()), want.Name)
		made, err = kube.Object(ctx, api.client, want.Name)
		if err == nil && (!bytes.Equal(made.Spec.Request, want.Spec.Request) || made.Spec.SignerName != want.Spec.SignerName) {
			err = advise(fmt.Errorf("request %s of the cluster is somebody else's", want.Name), "kubectl delete csr %s, and run the same command again", want.Name)
		}
	case err == nil:
		fmt.Fprintf(s.err, "%s: asked %s: request %s\n", report.Plain(i.ID()), i.signer, made.Name)
	}
	if err != nil {
		return adviseAPI(err, rightsToAsk)
	}
	i.object = made
	return a.tryApprove(ctx, s, api, i)
}

func (a *renewAPI) tryApprove(ctx context.Context, s streams, api *clusterAPI, i *askedItem) error {
	r := kube.Request(i.object)
	if r.State != csr.Pending {
		return nil
	}
	if a.approve == "never" {
		fmt.Fprintf(s.err, "%s: waiting for an approval: kubepki csr approve %s\n", report.Plain(i.ID()), r.Name)
		return nil
	}
	_, err := kube.SetApproval(ctx, api.client, r, kube.Approval{
		Type: certificatesv1.CertificateApproved, Reason: "KubepkiApprove", Message: "This CSR was approved by kubepki renew.",
	})
	switch {
	case errors.As(err, new(*kube.StateError)):
		return nil // the waiting tells
	case apierrors.IsForbidden(err) && a.approve == "auto":
		fmt.Fprintf(s.err, "%s: you may not approve it; waiting for somebody who may: kubepki csr approve %s\n", report.Plain(i.ID()), r.Name)
		return nil
	}
	return adviseAPI(err, "give yourself the right to update certificatesigningrequests/approval, and to approve on signers "+i.signer+"; or leave out --approve=always")
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
		waiting[i.object.Name] = true
		all.Go(func() {
			i.await(ctx, api)
			mu.Lock()
			defer mu.Unlock()
			delete(waiting, i.object.Name)
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

// await waits for one certificate, and notes what has become of the request.
func (i *askedItem) await(ctx context.Context, api *clusterAPI) {
	issued, last, err := kube.AwaitIssued(ctx, api.client, i.object.Name, i.object.UID)
	i.state = last
	var settled *kube.StateError
	switch {
	case errors.As(err, &settled):
		i.state = settled.State
		i.reason = fmt.Sprintf("request %s is %s: %s", i.object.Name, strings.ToLower(string(settled.State)), i.because(ctx, api))
	case ctx.Err() != nil:
	case err != nil:
		i.reason = fmt.Sprintf("request %s: %v", i.object.Name, err)
	default:
		if i.chain, err = trust.ParseCertificates(issued); err != nil {
			i.reason = fmt.Sprintf("request %s: what the signer gave: %v", i.object.Name, err)
		}
	}
}

// because is what who denied a request, or could not sign it, says.
func (i *askedItem) because(ctx context.Context, api *clusterAPI) string {
	o, err := kube.Object(ctx, api.client, i.object.Name)
	if err == nil {
		for _, c := range o.Status.Conditions {
			if (c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed) && c.Message != "" {
				return c.Message
			}
		}
	}
	return "no reason is given"
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
		case i.reason != "":
			t.refuse(i.ID(), i.reason)
		case i.chain == nil:
			t.outstanding = append(t.outstanding, i.ID())
			t.why[i.ID()] = i.needs()
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
		settled := i.chain != nil || i.state == csr.Denied || i.state == csr.Failed
		if settled && slices.ContainsFunc(t.refused, func(r refusedItem) bool { return r.ID == i.ID() }) {
			places = append(places, i.Certificate)
		}
	}
	return n.Forget(places...)
}

// needs says what a request still needs, by the state it was seen in last.
func (i *askedItem) needs() string {
	if i.state == csr.Approved {
		return fmt.Sprintf("request %s is approved, and nobody has signed it: see that a signer of %s runs; the same command goes on with it", i.object.Name, i.signer)
	}
	return fmt.Sprintf("request %s needs an approval (kubepki csr approve %s), then the same command goes on with it", i.object.Name, i.object.Name)
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
	if !slices.ContainsFunc(i.chain, func(c *x509.Certificate) bool { return trust.SameKey(c.PublicKey, key.Public()) }) {
		t.refuse(i.ID(), fmt.Sprintf("request %s: what the signer gave is for another key", i.object.Name))
		return nil
	}
	before := len(t.taken)
	t.judge(takenCandidate{item: i.Item, key: key, waits: true}, &returned{certificates: i.chain})
	if len(t.taken) == before || !strings.HasPrefix(i.signer, csr.KubeAPIServerClientSigner) {
		return nil
	}
	if err := prove(ctx, api, t.taken[before]); err != nil {
		t.taken = t.taken[:before]
		t.refuse(i.ID(), err.Error())
		return nil
	}
	fmt.Fprintf(s.err, "%s: proved: the API server knows %s\n", report.Plain(i.ID()), report.Plain(i.Subject.CommonName))
	return nil
}

// prove shows a client certificate to the API server, which must take its bearer for
// whom it is for: one in which nobody believes must not replace one that works.
func prove(ctx context.Context, api *clusterAPI, r *apply.Renewed) error {
	spec, err := api.target("")
	if err != nil {
		return err
	}
	spec.Cluster, spec.User = "proof", "proof"
	spec.Certificate = trust.EncodeCertificates(r.Made.Chain...)
	if spec.Key, err = issue.EncodePrivateKey(r.Made.Key); err != nil {
		return err
	}
	data, err := layout.EncodeKubeconfig(spec)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	user, groups, err := kube.WhoAmI(limited, data)
	if err != nil {
		return fmt.Errorf("the API server does not take the new certificate: %w", err)
	}
	missing := slices.DeleteFunc(slices.Clone(r.Subject.Organization), func(g string) bool { return slices.Contains(groups, g) })
	if user != r.Subject.CommonName || len(missing) > 0 {
		return fmt.Errorf("the API server takes the new certificate for user %q in %q, wanted is %q in %q", user, groups, r.Subject.CommonName, r.Subject.Organization)
	}
	return nil
}
