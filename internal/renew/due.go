package renew

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// Left is a credential or authority that is not planned.
type Left struct {
	ID  string
	Why []string // why it is due
	Err error    // why it is not planned, mostly a [*Refusal]
	// Authority tells that it is one: none is made anew unless it is named.
	Authority bool
}

// All plans every certificate and kubeconfig that an authority at hand can sign, and
// returns those that none can.
func All(g *trust.Graph, findings []check.Finding, o Options) ([]*Item, []Left) {
	return survey(g, findings, o, false)
}

// Due plans what is due: what ends soon (Options.Within), what a finding speaks of that
// goes away with it, and what the configuration wants otherwise: names, kind of key,
// life. It returns what is due and cannot be made anew, or would gain nothing by it. An
// authority that ends soon is among those.
//
// A kubelet renews its own client certificate when it has between 30 and 10 percent of
// its life left (client-go, util/certificate), and distributions theirs when they
// start: what they keep is due by age only when less than a tenth is left.
func Due(g *trust.Graph, findings []check.Finding, o Options) ([]*Item, []Left) {
	return survey(g, findings, o, true)
}

func survey(g *trust.Graph, findings []check.Finding, o Options, due bool) ([]*Item, []Left) {
	p := newPlanner(g, findings, o)
	var items []*Item
	left := p.unreadable()
	for _, c := range p.candidates() {
		if c.absent || c.authority != nil && !due {
			continue
		}
		if c.authority != nil {
			if why := p.authorityDue(c.authority); len(why) > 0 {
				left = append(left, Left{ID: c.id(), Why: why, Authority: true, Err: p.authorityLeft(c)})
			}
			continue
		}
		item, err := p.item(c)
		why := []string{askedFor}
		if due {
			why = p.due(c, item)
		}
		if hidden := p.inTheWay(c); hidden != nil {
			why, err = append(why, "file-unreadable: what is there is not known"), hidden
		}
		switch {
		case len(why) == 0, p.wantedOf(c.node).err != nil:
		case err != nil:
			left = append(left, Left{ID: c.id(), Why: why, Err: err})
		case due && p.gainsNothing(item, why):
			left = append(left, Left{ID: c.id(), Why: why, Err: &Refusal{c.id(), fmt.Sprintf("its authority ends at %s, so that a new one would end no later", item.NotAfter.UTC().Format(time.RFC3339)),
				"an authority is certified again with the key that it has by: kubepki renew NAME"}})
		default:
			if due {
				item.Why = why
			}
			items = append(items, item)
		}
	}
	return p.withCopies(items), left
}

func (c candidate) id() string {
	if c.node == "" {
		return c.name
	}
	return c.node + "/" + c.name
}

// unreadable are the nodes of which is not known what is there, for lack of rights, or
// of which the configuration does not tell what is wanted: nobody may take that for
// nothing being due.
func (p *planner) unreadable() []Left {
	var left []Left
	for i := range p.g.Nodes {
		n := &p.g.Nodes[i]
		id := n.Name
		if id == "" {
			id = "the node"
		}
		if err := p.wantedOf(n.Name).err; err != nil {
			left = append(left, Left{ID: id, Why: []string{"configuration: it does not tell what is wanted here"}, Err: err})
		}
		for _, s := range n.NotSeen {
			if s.Denied {
				left = append(left, Left{ID: id, Why: []string{"file-unreadable: what is there is not known"}, Err: &Refusal{s.Place.String(), s.Reason, "run it again with sudo"}})
			}
		}
	}
	return left
}

// inTheWay tells of what stands in a credential's place and is no file; nil where
// nothing does. What may not be read is told of the node ([planner.unreadable]).
func (p *planner) inTheWay(c candidate) error {
	for _, at := range []trust.Place{c.credential.Certificate, c.credential.Key} {
		m := p.g.Material(at)
		state, reason := trust.Present, ""
		if k := p.kubeconfigs[at.File()]; k != nil {
			state, reason = k.State, k.Reason
		} else if m != nil {
			state, reason = m.State, m.Reason
		}
		if state == trust.Unreadable {
			return &Refusal{at.File().String(), reason, fmt.Sprintf("move it away first: mv %s %s.bad", at.Path, at.Path)}
		}
	}
	return nil
}

// mended are the findings that go away when what they are found at is made anew.
var mended = []string{
	"cert-malformed", "key-malformed", "file-missing", "cert-expired", "cert-expiring", "cert-not-yet-valid", "key-mismatch", "key-weak", "chain-incomplete", "chain-order",
	"usage-missing", "usage-excess", "san-missing", "identity-wrong", "identity-privileged", "requestheader-name-mismatch", "serial-duplicate", "cert-outlives-ca",
	"authority-unknown", "authority-recreated", "bundle-stale", "bundle-expired", "bundle-empty", "kubeconfig-broken",
}

// Reasons that are no findings: what is, and what is configured.
const (
	endsSoon       = "ends-soon"
	otherAlgorithm = "algorithm"
	otherLife      = "validity"
	otherNames     = "names"
	otherAuthority = "authority"
	otherAnchors   = "bundle"
)

// due are the reasons for which a credential is due. item is what it would become; nil
// where that cannot be said.
func (p *planner) due(c candidate, item *Item) []string {
	places := []trust.Place{c.credential.Certificate, c.credential.Key}
	if k := c.kubeconfig; k != nil && k.Place == c.credential.Certificate.File() {
		places = append(places, k.Place)
		if k.CA.Field != "" {
			places = append(places, k.CA)
		}
	}
	why := p.reasons(mended, places...)
	add := func(id, format string, args ...any) {
		if !slices.ContainsFunc(why, func(w string) bool { return strings.HasPrefix(w, id+": ") }) {
			why = append(why, id+": "+fmt.Sprintf(format, args...))
		}
	}
	old := p.g.Material(c.credential.Certificate).Leaf()
	if old == nil {
		return why
	}
	life, rest := old.NotAfter.Sub(old.NotBefore), old.NotAfter.Sub(p.At)
	aged := strings.Contains(strings.Join(why, " "), "cert-expir")
	if !aged && rest < p.within(c, life) {
		add(endsSoon, "%s of %s left", days(rest), days(life))
	}
	if item != nil {
		p.differences(c, item, add)
	}
	return why
}

// within is how much life may be left of what is due by age.
func (p *planner) within(c candidate, life time.Duration) time.Duration {
	keptByItself := strings.HasSuffix(c.credential.Certificate.Path, "-current.pem") || catalog.DistributionNamed(p.node(c.node).Layout) != nil
	switch {
	case keptByItself:
		return life / 10
	case p.Within > 0:
		return p.Within
	}
	return life / 3
}

// days says a time as people do.
func days(d time.Duration) string {
	if d < 48*time.Hour {
		return d.Truncate(time.Minute).String()
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// differences are those between the old certificate and what the item would be.
func (p *planner) differences(c candidate, i *Item, add func(id, format string, args ...any)) {
	old := i.Old
	if more := missingNames(i, old); len(more) > 0 {
		add("san-missing", "it lacks %s", strings.Join(more, ", "))
	}
	if gone := missingNames(&Item{DNSNames: old.DNSNames, Addresses: old.IPAddresses}, &x509.Certificate{DNSNames: i.DNSNames, IPAddresses: i.Addresses}); len(gone) > 0 {
		add(otherNames, "nobody asks for %s", strings.Join(gone, ", "))
	}
	if is := issue.AlgorithmOf(old.PublicKey); !i.Reused() && is != i.Algorithm && p.wantedAlgorithm(i.Node) != "" {
		add(otherAlgorithm, "its key is %s, wanted is %s", keyName(is), i.Algorithm)
	}
	if cluster := p.configured(i.Node); cluster != nil {
		was, wanted := old.NotAfter.Sub(old.NotBefore), i.span
		if was > wanted+24*time.Hour {
			add(otherLife, "it is valid for %s, configured are %s", days(was), days(wanted))
		}
	}
	if s := i.signer.Certificate; s != nil && bytes.Equal(s.RawSubject, old.RawIssuer) && !p.judgement.SignedBy(old, s) {
		add("authority-recreated", "authority %q has another key than the one that signed it", s.Subject)
		i.Warnings = append(i.Warnings, fmt.Sprintf("authority %q was made anew since it was signed: where nobody meant that, restore the authority instead", s.Subject))
	}
	if !p.isOf(i, old) {
		return
	}
	if k := c.kubeconfig; i.Anchors != nil && k != nil && p.g.Material(k.CA).OK() && !holdsAll(p.g.Material(k.CA).Certificates, i.Anchors) {
		add("bundle-stale", "%s does not hold the authority of now", k.CA)
	}
}

// isOf tells that the authority that signs is the one that signed.
func (p *planner) isOf(i *Item, old *x509.Certificate) bool {
	return i.signer.Certificate == nil || p.judgement.SignedBy(old, i.signer.Certificate)
}

func keyName(a issue.Algorithm) string {
	if a == "" {
		return "of another kind"
	}
	return string(a)
}

// missingNames are the names of an item that a certificate lacks.
func missingNames(i *Item, c *x509.Certificate) []string {
	var names []string
	for _, n := range i.DNSNames {
		if !slices.ContainsFunc(c.DNSNames, func(have string) bool { return strings.EqualFold(have, n) }) {
			names = append(names, n)
		}
	}
	for _, a := range i.Addresses {
		if !slices.ContainsFunc(c.IPAddresses, a.Equal) {
			names = append(names, a.String())
		}
	}
	return names
}

// holdsAll tells whether all are among some, by name and key: certified again is the
// same.
func holdsAll(some, all []*x509.Certificate) bool {
	return !slices.ContainsFunc(all, func(a *x509.Certificate) bool {
		return !slices.ContainsFunc(some, func(o *x509.Certificate) bool {
			return bytes.Equal(o.RawSubject, a.RawSubject) && trust.SameKey(o.PublicKey, a.PublicKey)
		})
	})
}

func sameCertificates(a, b []*x509.Certificate) bool {
	return slices.EqualFunc(a, b, func(x, y *x509.Certificate) bool { return x.Equal(y) })
}

// gainsNothing tells of what is due by age alone and would end with its authority, as
// it does now.
func (p *planner) gainsNothing(i *Item, why []string) bool {
	for _, w := range why {
		if !strings.HasPrefix(w, endsSoon+": ") && !strings.HasPrefix(w, "cert-expiring: ") {
			return false
		}
	}
	cut := i.signer.Certificate != nil && !i.NotAfter.Before(i.signer.Certificate.NotAfter)
	return cut && i.Old != nil && !i.NotAfter.After(i.Old.NotAfter)
}

// authorityDue are the reasons for which an authority should be certified again.
func (p *planner) authorityDue(a *trust.Authority) []string {
	why := p.reasons([]string{"cert-expired", "cert-expiring", "ca-invalid"}, a.Certificate)
	if old := p.g.Material(a.Certificate).Leaf(); len(why) == 0 && old != nil && p.Within > 0 && old.NotAfter.Sub(p.At) < p.Within {
		why = append(why, fmt.Sprintf("%s: %s left", endsSoon, days(old.NotAfter.Sub(p.At))))
	}
	return why
}

// authorityLeft is why an authority that is due is not certified again.
func (p *planner) authorityLeft(c candidate) error {
	if old := p.g.Material(c.authority.Certificate).Leaf(); old != nil && p.At.After(old.NotAfter) {
		return &Refusal{c.id(), "an authority that is over must be exchanged wherever it is trusted, which renew does not do", RecoverHelp}
	}
	return &Refusal{c.id(), "an authority is certified again only where it is named", "kubepki renew " + c.id() + ", on each node that holds it"}
}

// ofPeople are the kubeconfigs of people that no component needs.
func (p *planner) ofPeople(there map[trust.Place]bool) []candidate {
	var all []candidate
	for _, at := range p.Kubeconfigs {
		k := p.kubeconfigs[at]
		if k == nil || there[at] || k.Certificate.IsZero() && k.State == trust.Present {
			continue // none, or one with a token
		}
		there[at] = true
		cred := &trust.Credential{ID: at.String(), Name: at.Path, Node: at.Node, Certificate: k.Certificate, Key: k.Key, Client: true}
		if cred.Certificate.IsZero() {
			cred.Certificate = at
		}
		all = append(all, candidate{name: at.Path, node: at.Node, credential: cred, kubeconfig: k})
	}
	return all
}

// withCopies gives each item the kubeconfigs of people that hold its old certificate:
// they get what is made, and are no items of their own.
func (p *planner) withCopies(items []*Item) []*Item {
	for _, at := range p.Kubeconfigs {
		k := p.kubeconfigs[at]
		if k == nil || k.Certificate.File() != k.Place {
			continue
		}
		leaf := p.g.Material(k.Certificate).Leaf()
		of := slices.IndexFunc(items, func(i *Item) bool {
			return leaf != nil && i.Kind == Kubeconfig && i.Certificate != at && i.Old != nil && i.Old.Equal(leaf) && !slices.Contains(p.Kubeconfigs, i.Certificate)
		})
		if of < 0 || slices.Contains(items[of].Copies, at) {
			continue
		}
		items[of].Copies = append(items[of].Copies, at)
		items = slices.DeleteFunc(items, func(i *Item) bool { return i.Certificate == at })
	}
	return items
}

// IsRefusal tells whether an error is a [*Refusal]: something that is not made anew,
// while all else may be.
func IsRefusal(err error) bool {
	var r *Refusal
	return errors.As(err, &r)
}
