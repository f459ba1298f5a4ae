package certmanager

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"slices"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/rollover"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

// census is who uses and who lacks which anchor of an issuer.
type census struct {
	lacking map[rollover.ID]int
	leaves  map[rollover.ID]int
	own     map[rollover.ID]int // of them, those that the issuer issues anew
	order   map[rollover.ID][]time.Time
	others  map[rollover.ID]time.Time // until when certificates live that others hold
	places  int                       // Secrets that are to hold the bundle
	unknown int                       // of them, of a CA that no record names
	failing int                       // own, tried in vain since the CA signs
	example types.NamespacedName      // one that lacks the newest
	failed  types.NamespacedName      // one that was tried in vain
}

// tally is all Secrets, Certificates and requests, put together by what counts for a
// rollover: one pass over them serves all issuers. It is not changed once it is made.
type tally struct {
	at           time.Time
	cost         time.Duration
	certificates map[issuerKey]int // that name it
	secrets      map[tallied]*tallyGroup
	given        map[workload.Signer]time.Time // ends of certificates without a Certificate
	failed       []tallyFailed
}

// tallied is what Secrets have in common.
type tallied struct {
	issuer   issuerKey
	written  bool // by a Certificate of the issuer
	signer   workload.Signer
	signedBy workload.AnchorID
	bundle   workload.Bundle
}

type tallyGroup struct {
	n       int
	example types.NamespacedName
	ends    []int64 // of the certificates, in Unix time
}

// tallyFailed is a Certificate whose last issuance has failed while it has another.
type tallyFailed struct {
	name     types.NamespacedName
	issuer   issuerKey
	signer   workload.Signer
	signedBy workload.AnchorID
	begun    time.Time // of the row of failures, at the latest
}

// tally makes one. It asks for the first wait after a failure.
func (s *stores) tally(at time.Time, backoff time.Duration) *tally {
	t := &tally{at: at, certificates: map[issuerKey]int{}, secrets: map[tallied]*tallyGroup{}, given: map[workload.Signer]time.Time{}}
	for name, k := range s.secrets.each() {
		f := &k.value.SecretFacts
		if f.Leaf == ([32]byte{}) || !f.NotAfter.After(at) {
			continue
		}
		key, here := issuerOf(f.Issuer, name.Namespace)
		is := tallied{issuer: key, written: here && s.written(name, f, key), signer: f.Signer, signedBy: f.SignedBy, bundle: f.Bundle}
		g := t.secrets[is]
		if g == nil {
			g = &tallyGroup{example: name}
			t.secrets[is] = g
		}
		g.n++
		g.ends = append(g.ends, f.NotAfter.Unix())
	}
	for name, k := range s.certificates.each() {
		if key, ok := issuerOf(k.value.Spec.IssuerRef, name.Namespace); ok {
			t.certificates[key]++
			t.noteFailed(s, name, key, &k.value.Status, backoff)
		}
	}
	for _, k := range s.requests.each() {
		f := k.value
		if f.Owner == "" && f.State == workload.RequestIssued && f.NotAfter.After(at) && f.NotAfter.After(t.given[f.Signer]) {
			t.given[f.Signer] = f.NotAfter
		}
	}
	return t
}

// noteFailed takes note of a Certificate whose last issuance has failed.
func (t *tally) noteFailed(s *stores, name types.NamespacedName, key issuerKey, status *cmapi.CertificateStatus, backoff time.Duration) {
	if status.LastFailureTime == nil {
		return
	}
	o, _ := s.certificates.get(name)
	if o == nil {
		return
	}
	k, _ := s.secrets.get(secretOf(o))
	if k == nil || k.Leaf == ([32]byte{}) {
		return
	}
	begun := status.LastFailureTime.Time
	if n := status.FailedIssuanceAttempts; n != nil {
		for i := 1; i < min(*n, 20); i++ {
			begun, backoff = begun.Add(-backoff), 2*backoff
		}
	}
	t.failed = append(t.failed, tallyFailed{name, key, k.Signer, k.SignedBy, begun})
}

// written tells whether a Certificate is there that writes a Secret, of the issuer of
// which the Secret is.
func (s *stores) written(secret types.NamespacedName, f *workload.SecretFacts, of issuerKey) bool {
	o, _ := s.certificates.get(types.NamespacedName{Namespace: secret.Namespace, Name: f.CertificateName})
	if o == nil || o.Spec.SecretName != secret.Name || o.DeletionTimestamp != nil {
		return false
	}
	key, ok := issuerOf(o.Spec.IssuerRef, secret.Namespace)
	return ok && key == of
}

// A tally takes a while where there are many Secrets, a tenth of a second for 20,000: it
// serves for so many times that long, so that issuers without number take but a part of one
// core, and no longer than tallyMost, or than a part of the time that readers are given.
const (
	tallyPart = 50
	tallyMost = 5 * time.Second
	tallyWait = 20
)

// tally returns one that is no older than a time.
func (r *rollovers) tally(most time.Duration) *tally {
	r.counting.Lock()
	defer r.counting.Unlock()
	if t := r.counted; t == nil || now().Sub(t.at) >= min(most, tallyMost, tallyPart*t.cost) {
		at := now()
		t = r.stores.tally(at, r.backoff)
		t.cost = now().Sub(at)
		r.counted = t
	}
	return r.counted
}

// census is what a tally comes to for the anchors of a record. Whoever has a certificate
// of one counts, whatever issuer it names: who verifies it does not ask. wants tells
// whether another issuer is about to publish an anchor, so that it is waited for.
func (t *tally) census(key issuerKey, rec *caRecord, wants func(other issuerKey, id rollover.ID) bool) census {
	c := census{
		lacking: map[rollover.ID]int{}, leaves: map[rollover.ID]int{}, own: map[rollover.ID]int{}, order: map[rollover.ID][]time.Time{},
		others: map[rollover.ID]time.Time{},
	}
	ends := map[rollover.ID][]int64{}
	for is, g := range t.secrets {
		id, known := rec.signerOf(is.signer, is.signedBy)
		own := is.written && is.issuer == key
		switch {
		case known:
			c.leaves[id] += g.n
		case own:
			c.places += g.n
			c.unknown += g.n
			continue
		}
		if !known || !is.written {
			continue
		}
		if own {
			c.own[id] += g.n
			ends[id] = append(ends[id], g.ends...)
		}
		c.place(rec, is, g, func(a rollover.ID) bool { return own || wants(is.issuer, a) })
	}
	if rec.Target() != nil && rec.Signing != rec.Target().ID { // the order is asked for when it comes to sign
		for id, all := range ends {
			c.order[id] = parts(all)
		}
	}
	for signer, end := range t.given {
		if id, ok := rec.signerOf(signer, workload.AnchorID{}); ok && end.After(c.others[id]) {
			c.others[id] = end
		}
	}
	for i := range t.failed {
		f := &t.failed[i]
		id, ok := rec.signerOf(f.signer, f.signedBy)
		if ok && f.issuer == key && id != rec.Signing && f.begun.After(rec.Since) {
			c.failing++
			c.failed = f.name
		}
	}
	return c
}

// place counts what Secrets lack.
func (c *census) place(rec *caRecord, is tallied, g *tallyGroup, wants func(rollover.ID) bool) {
	counts := false
	for _, a := range rec.Anchors {
		if !wants(a.ID) {
			continue
		}
		counts = true
		if is.bundle.Has(workload.AnchorID(a.ID)) {
			continue
		}
		c.lacking[a.ID] += g.n
		if a.ID == rec.Target().ID {
			c.example = g.example
		}
	}
	if counts {
		c.places += g.n
	}
}

// orderParts is into how many groups leaves are parted by their ends.
const orderParts = 16

// parts are the times that part others into groups of one size.
func parts(all []int64) []time.Time {
	slices.Sort(all)
	var at []time.Time
	for i := 1; i < orderParts; i++ {
		at = append(at, time.Unix(all[i*len(all)/orderParts], 0))
	}
	return at
}

// signerOf is the anchor by which a chain is verified; false: it is of no known one.
func (r *caRecord) signerOf(name workload.Signer, signedBy workload.AnchorID) (rollover.ID, bool) {
	if name == (workload.Signer{}) {
		return rollover.ID{}, false
	}
	if id := rollover.ID(signedBy); r.certificates[id] != nil {
		return id, true
	}
	var found rollover.ID
	n := 0
	for id, c := range r.certificates {
		if workload.SignerOf(c) == name {
			found = id
			n++
		}
	}
	return found, n == 1
}

// wants tells whether an issuer publishes an anchor, or will when it has been looked at.
func (r *rollovers) wants(other issuerKey, id rollover.ID) bool {
	if !r.carries(other) {
		return false
	}
	v := r.peek(other)
	return v == nil || v.wanted.Has(workload.AnchorID(id))
}

// peek returns what is known of an issuer; nil: it has not been looked at.
func (r *rollovers) peek(key issuerKey) *view {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.known[key]; o != nil {
		return o.view.Load()
	}
	return nil
}

// givenBelow adds until when certificates live that issuers with the same anchors have
// given to others.
func (r *rollovers) givenBelow(key issuerKey, rec *caRecord, to map[rollover.ID]time.Time) {
	for other, v := range r.views() {
		if other == key {
			continue
		}
		for _, a := range v.record.Anchors {
			if rec.Find(a.ID) != nil && a.Others.After(to[a.ID]) {
				to[a.ID] = a.Others
			}
		}
	}
}

// carry is what a change of the CA asks of a Certificate, and what its ca.crt shall hold.
func (c *Controller) carry(ctx context.Context, o *cmapi.Certificate, f *workload.SecretFacts) (workload.Carry, []byte) {
	key, ok := issuerOf(o.Spec.IssuerRef, o.Namespace)
	if !ok || !f.Exists {
		return workload.Carry{}, nil
	}
	issuer := c.issuer(key)
	if issuer != nil && issuer.GetSpec().SelfSigned != nil && o.Spec.IsCA {
		return c.carryRoot(ctx, o, f)
	}
	v := c.viewOf(ctx, issuer)
	if v == nil {
		return workload.Carry{}, nil
	}
	if was, ok := issuerOf(f.Issuer, o.Namespace); !ok || was != key {
		return workload.Carry{}, nil // it is to be issued anew anyhow
	}
	id, known := v.record.signerOf(f.Signer, f.SignedBy)
	if !known {
		return workload.Carry{}, nil
	}
	due := v.plan.Due(rollover.Leaf{Anchor: id, Seed: string(o.UID), NotAfter: f.NotAfter, Failed: o.Status.LastFailureTime != nil})
	carry := workload.Carry{Bundle: v.wanted, Due: due}
	if id != v.record.Signing {
		carry.Hold = v.plan.Hold
	}
	return carry, v.bundle
}

// viewOf is what is known of the CAs of an issuer; nil: it is not carried over, or
// nothing is signed now.
func (c *Controller) viewOf(ctx context.Context, issuer cmapi.GenericIssuer) *view {
	if issuer == nil || !c.rollovers.carries(keyOf(issuer)) {
		return nil
	}
	_, v, err := c.rollovers.signer(ctx, issuer)
	if err != nil {
		return nil
	}
	return v
}

// carryRoot is what ca.crt of a root's own Secret shall hold: what the issuers that sign
// with it publish, for there are readers who take it from there.
func (c *Controller) carryRoot(ctx context.Context, o *cmapi.Certificate, f *workload.SecretFacts) (workload.Carry, []byte) {
	list := c.rootAnchors(ctx, secretOf(o), f)
	if len(list) == 0 {
		return workload.Carry{}, nil
	}
	return workload.Carry{Bundle: workload.BundleOf(list)}, trust.EncodeCertificates(list...)
}

// rootAnchors are what the issuers publish that sign with the root in a Secret, the most
// of one issuer first. Empty: none is carried over.
func (c *Controller) rootAnchors(ctx context.Context, secret types.NamespacedName, f *workload.SecretFacts) []*x509.Certificate {
	var views []*view
	for _, issuer := range c.issuersOf(secret) {
		if v := c.viewOf(ctx, issuer); v != nil && v.record.Target().Certificate == f.Leaf {
			views = append(views, v)
		}
	}
	slices.SortFunc(views, func(a, b *view) int {
		return cmp.Or(cmp.Compare(len(b.record.Anchors), len(a.record.Anchors)), bytes.Compare(a.bundle, b.bundle))
	})
	var all []*x509.Certificate
	for _, v := range views {
		for _, one := range v.record.list() {
			if !slices.ContainsFunc(all, one.Equal) {
				all = append(all, one)
			}
		}
	}
	return all
}

// rootRenewed is what ca.crt of a root's Secret holds from the moment on at which another
// root takes its place there: all that is trusted so far, and the new one. nil: that one
// alone.
func (c *Controller) rootRenewed(ctx context.Context, it *item, renewed []byte) []byte {
	key, ok := issuerOf(it.seen.Spec.IssuerRef, it.key.Namespace)
	if issuer := c.issuer(key); !ok || issuer == nil || issuer.GetSpec().SelfSigned == nil {
		return nil
	}
	list := c.rootAnchors(ctx, it.secret(), it.state.Secret)
	root, err := trust.ParseCertificates(renewed)
	if err != nil || len(list) == 0 {
		return nil
	}
	id := workload.AnchorIDOf(root[0])
	list = slices.DeleteFunc(list, func(one *x509.Certificate) bool { return workload.AnchorIDOf(one) == id })
	return trust.EncodeCertificates(append(list, root[0])...)
}
