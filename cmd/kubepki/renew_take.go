package main

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// takeIn is a run that puts certificates in place which were signed elsewhere. What is
// wanted is planned anew from the nodes as they are now, so that a certificate that
// has come late is judged by what is needed today.
type takeIn struct {
	o      *renewOptions
	n      *trustNodes
	before *check.Result
	at     time.Time
	plan   renew.Options

	waiting []*apply.Pending
	taken   []*apply.Renewed
	refused []refusedItem
	// done are the places for which something waits whose certificate is in place, and
	// already counts certificates that are in place and nobody waits for.
	done    []trust.Place
	already int
	// outstanding are those for which nothing came.
	outstanding []string
	// why says more of some of those.
	why map[string]string
	// foreign are the keys that stood elsewhere than on the node, by item.
	foreign map[string]string
}

// refusedItem is a certificate that is not taken in, in machine output.
type refusedItem struct {
	ID      string   `json:"id"`
	Reasons []string `json:"reasons"`
}

// takeIn reads what came back, and puts in place what is good of it.
func (o *renewOptions) takeIn(ctx context.Context, s streams, ids []string) error {
	back, err := readReturned(s, o.external.certificates)
	if err != nil {
		return err
	}
	n, err := readMendedNodes(s, o.roots, o.layout, o.dryRun)
	if err != nil {
		return err
	}
	if n, err = o.plan.read(n); err != nil {
		return err
	}
	at := clock()
	p, err := o.options(n, at)
	if err != nil {
		return err
	}
	t := &takeIn{o: o, n: n, before: check.Run(n.Graph, check.Options{At: at}), at: at, plan: p, foreign: map[string]string{}}
	if t.waiting, err = n.Pending(); err != nil {
		return err
	}
	candidates, err := t.candidates(s, back, ids)
	if err != nil {
		return err
	}
	for _, c := range candidates {
		t.judge(c, back)
	}
	if len(t.taken)+len(t.refused)+len(t.done)+t.already == 0 {
		return advise(fmt.Errorf("none of the %d certificates is for a key that waits or stands here: %s", len(back.certificates), cmp.Or(back.subjects(), "they are authorities")),
			"see that they are of the last request (kubepki renew --csr-only makes it again with the same key), and that --root is the node's")
	}
	return t.finish(ctx, s)
}

// takenCandidate is an item with the key that a certificate for it must have.
type takenCandidate struct {
	item *renew.Item
	key  crypto.Signer
	// waits tells that it was asked for here.
	waits bool
}

// heldKey is a key that a certificate may be for, and where that would stand.
type heldKey struct {
	at    trust.Place
	key   crypto.Signer
	place string // for people: where the key stands, if neither waiting nor in place
	// waits tells that a certificate was asked for, inPlace that the key is in use.
	waits, inPlace bool
}

// held are the keys that wait for certificates, then those that stand beside what came
// back, then those in place for which something came or was asked for.
func (t *takeIn) held(s streams, back *returned) []heldKey {
	var all []heldKey
	waiting := map[trust.Place]*apply.Pending{}
	for _, p := range t.waiting {
		waiting[p.Place] = p
		if p.Key != nil {
			all = append(all, heldKey{at: p.Place, key: p.Key, waits: true})
		}
	}
	for _, k := range back.keys {
		if len(back.of(k.key.Public())) == 0 {
			continue
		}
		at, ok := t.placeOf(k.file)
		if !ok {
			fmt.Fprintf(s.err, "kubepki: warning: which credential the key in %s is for is not to be told from its name\n", report.Plain(k.file))
			continue
		}
		all = append(all, heldKey{at: at, key: k.key, place: k.file})
	}
	for _, cred := range t.n.Graph.Credentials {
		at, key := cred.Certificate.File(), t.n.Keys[cred.Key]
		p := waiting[at]
		asked := p != nil && p.Key == nil
		if key != nil && (asked || len(back.of(key.Public())) > 0) {
			all = append(all, heldKey{at: at, key: key, waits: asked, inPlace: true})
		}
	}
	return all
}

// candidates are the items of the keys that are held, of those that the user named.
// What cannot be planned is refused; the rest goes on.
func (t *takeIn) candidates(s streams, back *returned, ids []string) ([]takenCandidate, error) {
	wanted, err := t.only(ids)
	if err != nil {
		return nil, err
	}
	held := slices.DeleteFunc(t.held(s, back), func(k heldKey) bool { return !wanted(k.at) })
	planned := map[bool]map[trust.Place]*renew.Item{}
	for _, inPlace := range []bool{false, true} {
		planned[inPlace] = t.planAll(held, inPlace)
	}
	var all []takenCandidate
	for _, k := range held {
		i := planned[k.inPlace][k.at]
		if i == nil {
			continue // refused
		}
		if k.place != "" {
			t.foreign[i.ID()] = k.place
			i.Warnings = append(i.Warnings, "its key is that in "+k.place+": see that nobody else has it")
		}
		all = append(all, takenCandidate{i, k.key, k.waits})
	}
	return all, nil
}

// planAll plans for all keys at once, which is quick for many nodes; where that fails
// one after the other, so that each is refused by itself.
func (t *takeIn) planAll(held []heldKey, inPlace bool) map[trust.Place]*renew.Item {
	var places []trust.Place
	var targets []string
	for _, k := range held {
		if k.inPlace == inPlace && !slices.Contains(places, k.at) {
			places, targets = append(places, k.at), append(targets, targetOf(k.at))
		}
	}
	all := map[trust.Place]*renew.Item{}
	if len(places) == 0 {
		return all
	}
	if items, err := renew.Plan(t.n.Graph, t.before.Findings, targets, t.options(inPlace)); err == nil {
		for _, i := range items {
			if all[i.Certificate] == nil {
				all[i.Certificate] = i
			}
		}
	}
	for k, at := range places {
		if all[at] != nil {
			continue
		}
		items, err := renew.Plan(t.n.Graph, t.before.Findings, targets[k:k+1], t.options(inPlace))
		at := slices.IndexFunc(items, func(i *renew.Item) bool { return i.Certificate == places[k] })
		switch {
		case err != nil:
			t.refuse(places[k].String(), err.Error())
		case at < 0:
			t.refuse(places[k].String(), "no credential of the node stands there")
		default:
			all[places[k]] = items[at]
		}
	}
	return all
}

// targetOf names a place as renew's arguments do.
func targetOf(at trust.Place) string {
	if at.Node == "" {
		return at.Path
	}
	return at.Node + ":" + at.Path
}

// only tells which places the user named; all where none were.
func (t *takeIn) only(ids []string) (func(trust.Place) bool, error) {
	if len(ids) == 0 {
		return func(trust.Place) bool { return true }, nil
	}
	items, err := renew.Plan(t.n.Graph, t.before.Findings, ids, t.options(false))
	return func(at trust.Place) bool {
		return slices.ContainsFunc(items, func(i *renew.Item) bool { return i.Certificate == at })
	}, err
}

// options are those of the plan, with new keys or those in place.
func (t *takeIn) options(reuse bool) renew.Options {
	p := t.plan
	p.ReuseKey = reuse
	return p
}

// placeOf finds the credential that a file of kubeadm's names is for: apiserver.key,
// pki/etcd/peer.key, admin.conf. The credential whose file agrees in most parts of its
// path counts; not where two do.
func (t *takeIn) placeOf(file string) (trust.Place, bool) {
	file = filepath.ToSlash(file)
	var best trust.Place
	most, twice := 0, false
	for _, cred := range t.n.Graph.Credentials {
		at := cred.Certificate.File()
		of := cred.Key.File().Path
		if n := sameEnd(file, of); n > most {
			best, most, twice = at, n, false
		} else if n > 0 && n == most && at != best {
			twice = true
		}
	}
	if kubelet := t.kubelets(file); most == 0 && len(kubelet) == 1 {
		return kubelet[0], true // its kubeconfig names files of its own
	}
	return best, most > 0 && !twice
}

// kubelets are the client certificates of kubeconfigs that name them, of a name.
func (t *takeIn) kubelets(file string) []trust.Place {
	var all []trust.Place
	for i := range t.n.Nodes.Nodes {
		for _, k := range t.n.Nodes.Nodes[i].Kubeconfigs {
			if path.Base(k.Place.Path) == path.Base(file) && !k.Certificate.IsZero() && k.Certificate.Field == "" {
				all = append(all, k.Certificate)
			}
		}
	}
	return all
}

// sameEnd counts the parts in which two paths agree from their end on.
func sameEnd(a, b string) int {
	as, bs := strings.Split(path.Clean(a), "/"), strings.Split(path.Clean(b), "/")
	n := 0
	for n < len(as) && n < len(bs) && as[len(as)-1-n] == bs[len(bs)-1-n] && as[len(as)-1-n] != "" {
		n++
	}
	return n
}

func (t *takeIn) refuse(id string, reasons ...string) {
	t.refused = append(t.refused, refusedItem{id, reasons})
}

// judge looks at all certificates of the key of a candidate, and takes the one that is
// good and ends last.
func (t *takeIn) judge(c takenCandidate, back *returned) {
	at := c.item.Certificate
	p := apply.PendingOf(t.waiting, at)
	settled := p != nil && p.Settled(c.item)
	mine := back.of(c.key.Public())
	switch {
	case slices.ContainsFunc(t.taken, func(r *apply.Renewed) bool { return r.Certificate == at }):
		return // one that waited came too
	case len(mine) == 0 && settled:
		t.done = append(t.done, at)
		return
	case len(mine) == 0 && c.waits:
		t.outstanding = append(t.outstanding, c.item.ID())
		return
	}
	others := slices.Concat(back.certificates, t.authorities())
	var best *renew.Answer
	var reasons []string
	inPlace := false
	for _, leaf := range mine {
		if c.item.Old != nil && leaf.Equal(c.item.Old) {
			inPlace = true
			continue
		}
		a := c.item.Judge(leaf, others, t.at)
		switch {
		case len(a.Faults) > 0:
			for _, f := range a.Faults {
				reasons = append(reasons, serialPrefix(mine, leaf)+f)
			}
		case best == nil || leaf.NotAfter.After(best.Chain[0].NotAfter):
			best = &a
		}
	}
	switch {
	case best != nil:
		c.item.Warnings = append(kept(c.item.Warnings), best.Notes...)
		t.taken = append(t.taken, &apply.Renewed{Item: c.item, Made: renew.Made{Chain: best.Chain, Key: c.key}})
		t.outstanding = slices.DeleteFunc(t.outstanding, func(id string) bool { return id == c.item.ID() })
	case inPlace && (settled || p != nil && p.Key == nil):
		t.done = append(t.done, at)
	case inPlace:
		t.already++
	default:
		t.refuse(c.item.ID(), reasons...)
	}
}

// kept are the warnings of a plan that still say something once the certificate is
// there: what it has is judged by itself.
func kept(warnings []string) []string {
	return slices.DeleteFunc(slices.Clone(warnings), func(w string) bool {
		return strings.HasPrefix(w, "the extension ") || strings.HasPrefix(w, "its authority ends ")
	})
}

// serialPrefix names one of several certificates of a key.
func serialPrefix(all []*x509.Certificate, c *x509.Certificate) string {
	if len(all) == 1 {
		return ""
	}
	return fmt.Sprintf("serial %X: ", c.SerialNumber)
}

// authorities are the certificates of authorities on the nodes, which may be those
// between a leaf and an anchor.
func (t *takeIn) authorities() []*x509.Certificate {
	var all []*x509.Certificate
	for _, a := range t.n.Graph.Authorities {
		if m := t.n.Graph.Material(a.Certificate); m.OK() {
			all = append(all, m.Certificates...)
		}
	}
	return all
}

// finish judges what is taken by all rules, shows it, asks, writes, and says what is
// left. Good ones are taken in though others are refused.
func (t *takeIn) finish(ctx context.Context, s streams) error {
	r, err := t.assemble()
	if err != nil {
		return err
	}
	t.o.external.outstanding, t.o.external.refused = t.outstanding, t.refused
	if len(r.Items) > 0 {
		if err := t.o.print(s, t.n, r); err != nil {
			return err
		}
	}
	if len(r.Items)+len(t.refused)+len(t.outstanding) == 0 {
		fmt.Fprintln(s.err, "nothing is changed: what came back is in place already")
	}
	for _, f := range t.refused {
		for _, why := range f.Reasons {
			fmt.Fprintf(s.err, "kubepki: refused: %s: %s\n", report.Plain(f.ID), report.Plain(why))
		}
	}
	restarts, err := t.o.restart.plan(ctx, s, t.n, r)
	if err != nil {
		return err
	}
	if !t.o.dryRun {
		if err := t.write(ctx, s, r); err != nil {
			return err
		}
	}
	if err := t.o.answer(s, t.n, r); err != nil {
		return err
	}
	if !t.o.dryRun {
		if err := t.o.restart.run(ctx, s, restarts); err != nil {
			return err
		}
	}
	return t.left(s)
}

// write asks, puts in place what is taken, and removes what waited for it.
func (t *takeIn) write(ctx context.Context, s streams, r *apply.Renewal) error {
	if len(r.Items) > 0 {
		if err := cmp.Or(t.o.confirm(s), ctx.Err()); err != nil {
			return err
		}
		for _, i := range r.Items {
			if p := apply.PendingOf(t.waiting, i.Certificate); p != nil {
				r.Answered = append(r.Answered, p)
			}
		}
		if err := writeRenewal(s, t.n, r); err != nil {
			return err
		}
	}
	return t.clean(s, r)
}

// assemble makes the files of what is taken; what the rules find fault with is refused,
// each alone where not all are good together.
func (t *takeIn) assemble() (*apply.Renewal, error) {
	r, err := apply.Assemble(t.n.Nodes, t.taken, t.before, t.at)
	if err != nil || len(r.Faults(t.n.Nodes, t.before, t.at)) == 0 {
		return r, err
	}
	good := t.taken[:0:0]
	for _, i := range t.taken {
		alone, err := apply.Assemble(t.n.Nodes, []*apply.Renewed{i}, t.before, t.at)
		if err != nil {
			return nil, err
		}
		if faults := alone.Faults(t.n.Nodes, t.before, t.at); len(faults) > 0 {
			t.refuse(i.ID(), faults...)
			continue
		}
		good = append(good, i)
	}
	t.taken = good
	r, err = apply.Assemble(t.n.Nodes, t.taken, t.before, t.at)
	if err != nil {
		return nil, err
	}
	if faults := r.Faults(t.n.Nodes, t.before, t.at); len(faults) > 0 {
		return nil, fmt.Errorf("nothing is taken in, for together they do not fit: %s", strings.Join(faults, "; "))
	}
	return r, nil
}

// clean removes the keys and requests that had their certificate before, and the
// folders that are empty now.
func (t *takeIn) clean(s streams, r *apply.Renewal) error {
	places := slices.Clone(t.done)
	for _, i := range r.Items {
		places = append(places, i.Certificate)
		if file, ok := t.foreign[i.ID()]; ok {
			fmt.Fprintf(s.err, "%s: its key is in place; remove %s\n", report.Plain(i.ID()), report.Plain(file))
		}
	}
	places = slices.DeleteFunc(places, func(p trust.Place) bool { return apply.PendingOf(t.waiting, p) == nil })
	if err := t.n.Forget(places...); err != nil {
		return advise(fmt.Errorf("the certificates are in place, and what waited for them is still there: %w", err), "run the same command again")
	}
	return nil
}

// left says what is outstanding, and makes the exit code.
func (t *takeIn) left(s streams) error {
	for _, id := range t.outstanding {
		fmt.Fprintf(s.err, "outstanding: %s: %s\n", report.Plain(id), report.Plain(cmp.Or(t.why[id], "nothing came back for its request")))
	}
	if len(t.refused) > 0 {
		var ids []string
		for _, f := range t.refused {
			ids = append(ids, f.ID)
		}
		return advise(fmt.Errorf("not taken in: %s, for the reasons above", strings.Join(ids, ", ")), "what stands there of these is unchanged: have the requests signed anew, and run the same command again")
	}
	if len(t.outstanding) > 0 {
		return errFindings
	}
	return nil
}
