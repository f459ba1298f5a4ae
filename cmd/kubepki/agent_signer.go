package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kubepki/kubepki/internal/agent"
	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/kubesign"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// agentSigner has what the agent makes anew signed by certificates.k8s.io, as renew
// --signer-kubeconfig does. Keys and requests wait on the node in the same folder: an
// agent that starts anew, or a person with renew, goes on with them.
type agentSigner struct {
	*renewAPI
	log *slog.Logger

	mu    sync.Mutex
	until map[string]time.Time // by name of a request: until when it is waited for
}

// newAgentSigner is nil where no signer is asked. The kubeconfig is read now, so that
// what is wrong with it is said at the start, and again for each certificate: it may be
// one of those that are made anew.
func newAgentSigner(api *renewAPI, log *slog.Logger) (*agentSigner, error) {
	if !api.on() {
		return nil, nil
	}
	if _, err := connect(kube.Access{Kubeconfig: api.kubeconfig}); err != nil {
		return nil, err
	}
	return &agentSigner{renewAPI: api, log: log, until: map[string]time.Time{}}, nil
}

// plan plans the targets for the signers of the API. What none of them signs is left to
// the node's own authority: ok is false then, and reason tells why.
func (a *agentSigner) plan(n *apply.Nodes, plan func(elsewhere bool) ([]*renew.Item, error)) (items []*renew.Item, reason string, ok bool) {
	items, err := plan(true)
	if err != nil {
		return nil, err.Error(), false
	}
	for _, i := range items {
		if i.Kind == renew.Authority {
			return nil, "it is an authority", false
		}
		signer, reason := a.signerOf(n.Graph, i)
		if reason != "" {
			return nil, reason, false
		}
		i.Certifier = &agentCertifier{a, n, signer}
		i.NewKey = func(algorithm issue.Algorithm) (crypto.Signer, error) { return waitingKey(n, i, algorithm) }
	}
	return items, "", true
}

// waitingKey is the key that waits for an item, or a new one.
func waitingKey(n *apply.Nodes, i *renew.Item, algorithm issue.Algorithm) (crypto.Signer, error) {
	waiting, err := n.Pending()
	if err != nil {
		return nil, err
	}
	if p := apply.PendingOf(waiting, i.Certificate); p != nil && p.Key != nil && !p.Settled(i) && issue.AlgorithmOf(p.Key.Public()) == algorithm {
		return p.Key, nil
	}
	return issue.GenerateKey(algorithm)
}

// tidy forgets the keys whose certificates are in place.
func (a *agentSigner) tidy(n *apply.Nodes) error {
	waiting, err := n.Pending()
	if err != nil {
		return err
	}
	var done []trust.Place
	for _, p := range waiting {
		for _, cred := range n.Graph.Credentials {
			leaf := n.Graph.Material(cred.Certificate).Leaf()
			if cred.Certificate.File() == p.Place && p.Key != nil && leaf != nil && trust.SameKey(leaf.PublicKey, p.Key.Public()) {
				done = append(done, p.Place)
				break
			}
		}
	}
	return n.Forget(done...)
}

// agentCertifier has the certificates of some nodes signed by one signer.
type agentCertifier struct {
	*agentSigner
	n      *apply.Nodes
	signer string
}

// Certify stages the key with its request, asks, and judges and proves what comes. It
// waits for a request that is approved as long as --signer-timeout, once, and not at all
// for an approval that somebody else has to give: an [agent.WaitingError] tells of both.
func (c *agentCertifier) Certify(ctx context.Context, i *renew.Item, key crypto.Signer) ([]*x509.Certificate, error) {
	api, err := connect(kube.Access{Kubeconfig: c.kubeconfig})
	if err != nil {
		return nil, err
	}
	asked := &kubesign.Asked{Item: i, Signer: c.signer}
	if asked.Request, err = c.stage(i, key); err != nil {
		return nil, err
	}
	if err := c.ask(ctx, api, asked); err != nil {
		return nil, err
	}
	if asked.State == csr.Pending {
		return nil, &agent.WaitingError{Why: asked.Needs()}
	}
	limited, cancel := context.WithDeadline(ctx, c.patience(asked.Object.Name))
	defer cancel()
	asked.Await(limited, api.client)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case asked.Reason != "":
		err := errors.New(asked.Reason)
		if asked.State == csr.Denied || asked.State == csr.Failed {
			err = c.giveUp(i, err)
		}
		return nil, err
	case asked.Chain == nil:
		return nil, &agent.WaitingError{Why: asked.Needs()}
	}
	chain, err := c.judge(ctx, api, asked, key)
	if err != nil {
		return nil, c.giveUp(i, err)
	}
	if i.Reused() { // no key waits that would tell by itself that it is done
		err = c.n.Forget(i.Certificate)
	}
	return chain, err
}

// stage puts the key and its request where they wait.
func (c *agentCertifier) stage(i *renew.Item, key crypto.Signer) (*x509.CertificateRequest, error) {
	c.mu.Lock()
	defer c.mu.Unlock() // of two transactions at once one fails
	waiting, err := c.n.Pending()
	if err != nil {
		return nil, err
	}
	request, err := i.PlainRequest(key)
	if err != nil {
		return nil, err
	}
	if p := apply.PendingOf(waiting, i.Certificate); p != nil && p.Request != nil && renew.SameRequest(p.Request, request) {
		request = p.Request // its signature is another, and nothing else
	}
	ask := apply.Ask{Place: i.Certificate, Key: key, Request: request}
	if i.Reused() {
		ask.Key = nil
	}
	return request, c.n.Stage([]apply.Ask{ask}, waiting)
}

// ask sends the request, and approves it where that is wanted and allowed.
func (c *agentCertifier) ask(ctx context.Context, api *clusterAPI, asked *kubesign.Asked) error {
	again, err := asked.Send(ctx, api.client)
	if err != nil {
		return adviseAPI(err, rightsToAsk)
	}
	if !again {
		c.log.Info("asked for a certificate", "id", asked.ID(), "signer", asked.Signer, "request", asked.Object.Name)
	}
	if asked.State != csr.Pending || c.approve == "never" {
		return nil
	}
	switch err := asked.Approve(ctx, api.client, "agent"); {
	case apierrors.IsForbidden(err) && c.approve == "auto":
		return nil
	case err != nil:
		return adviseAPI(err, "give the user of --signer-kubeconfig the right to update certificatesigningrequests/approval, and to approve on signers "+asked.Signer+"; or leave out --approve=always")
	}
	asked.State = csr.Approved
	return nil
}

// patience is until when a request is waited for: its time begins when it is first seen.
func (c *agentCertifier) patience(request string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for name, until := range c.until {
		if now.Sub(until) > time.Hour {
			delete(c.until, name)
		}
	}
	if _, known := c.until[request]; !known {
		c.until[request] = now.Add(c.timeout)
	}
	const least = 2 * time.Second // for one look
	if until := c.until[request]; until.After(now.Add(least)) {
		return until
	}
	return now.Add(least)
}

// judge judges what the signer gave as what comes back from an authority elsewhere, and
// has the API server prove a client's.
func (c *agentCertifier) judge(ctx context.Context, api *clusterAPI, asked *kubesign.Asked, key crypto.Signer) ([]*x509.Certificate, error) {
	at := slices.IndexFunc(asked.Chain, func(o *x509.Certificate) bool { return trust.SameKey(o.PublicKey, key.Public()) })
	if at < 0 {
		return nil, fmt.Errorf("request %s: what the signer gave is for another key", asked.Object.Name)
	}
	others := slices.Clone(asked.Chain)
	for _, authority := range c.n.Graph.Authorities {
		if m := c.n.Graph.Material(authority.Certificate); m.OK() {
			others = append(others, m.Certificates...)
		}
	}
	answer := asked.Judge(asked.Chain[at], others, time.Now())
	if len(answer.Faults) > 0 {
		return nil, fmt.Errorf("request %s: what the signer gave is not taken: %s", asked.Object.Name, strings.Join(answer.Faults, "; "))
	}
	for _, note := range answer.Notes {
		c.log.Warn(note, "id", asked.ID())
	}
	if !strings.HasPrefix(asked.Signer, csr.KubeAPIServerClientSigner) {
		return answer.Chain, nil
	}
	spec, err := api.target("")
	if err != nil {
		return nil, err
	}
	return answer.Chain, kubesign.Prove(ctx, spec, asked.Item, renew.Made{Chain: answer.Chain, Key: key})
}

// giveUp forgets the key of a request that gave nothing of use: such a request stays as
// it is, so the next one is with a new key.
func (c *agentCertifier) giveUp(i *renew.Item, err error) error {
	return errors.Join(err, c.n.Forget(i.Certificate))
}
