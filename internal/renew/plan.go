package renew

import (
	"cmp"
	"crypto"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// Options are the options of [Plan].
type Options struct {
	At       time.Time
	ReuseKey bool
	// Algorithm is that of all new keys; empty: the configuration's, else the old key's.
	Algorithm issue.Algorithm
	// Keys returns the private key that was read at a place, nil when there is none.
	Keys func(trust.Place) crypto.Signer
	// Server is the URL for kubeconfigs of which no file tells what they dial.
	Server string
	// Within is how much life may be left of what is due by age, as [Due] judges it;
	// 0: a third of its life.
	Within time.Duration
	// Configured returns the configuration as it is for a node, whose name and address
	// are given as far as the node's files tell them; nil where there is none, so that
	// the files alone tell what is wanted.
	Configured func(node, name string, address netip.Addr) (*catalog.Cluster, error)
	// PruneNames leaves out what the old certificate has of names that neither the
	// configuration nor a link asks for.
	PruneNames bool
	// Kubeconfigs are files of people, read as others of the node, whose credential is
	// made anew too.
	Kubeconfigs []trust.Place
	// Users tells that users' kubeconfigs beside the nodes are made anew too; those that
	// a target names always are.
	Users bool
	// Elsewhere plans for an authority that signs elsewhere: its certificate is
	// needed, its key is not. Such an item has no means to sign of its own; see
	// [Item.Request] and [Item.Judge].
	Elsewhere bool
}

// Refusal tells that something is not made anew, and what to do instead.
type Refusal struct{ What, Reason, Help string }

// RecoverHelp is the hint of what an authority that is over keeps from being made anew:
// certified again by itself it would not stand in the copies that others trust.
const RecoverHelp = "kubepki recover --dry-run tells what is over with it; kubepki recover certifies an authority again with the key that it has, puts it into every file and kubeconfig that trusts it, and makes anew what is over"

// Error names what is refused and why.
func (r *Refusal) Error() string { return r.What + ": " + r.Reason }

// Hint says what to do.
func (r *Refusal) Hint() string { return r.Help }

// UnknownError tells that a target names nothing of the nodes.
type UnknownError struct {
	Target string
	Known  []string // what could have been named
}

// Error names the target.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("%s: no credential of this name or file is known here", e.Target)
}

// Hint lists what is known.
func (e *UnknownError) Hint() string { return "name one of " + strings.Join(e.Known, ", ") }

// Plan returns the items that the targets name, each once, in the order of the
// graph. A target is a name or ID of a credential or authority, the absolute
// path of one of its files, or either with NODE: before it. No target at all
// stands for every credential that an authority at hand can sign. It decides
// by the findings what of an old certificate is at fault.
//
// An error ([*UnknownError], [*Refusal]) names the target; nothing is planned then.
func Plan(g *trust.Graph, findings []check.Finding, targets []string, o Options) ([]*Item, error) {
	if len(targets) == 0 {
		items, left := All(g, findings, o)
		if i := slices.IndexFunc(left, func(l Left) bool { return !l.Authority }); len(items) == 0 && i >= 0 {
			return nil, left[i].Err
		}
		return items, nil
	}
	o.Users = true
	p := newPlanner(g, findings, o)
	all := p.candidates()
	chosen := map[int]bool{}
	for _, t := range targets {
		found := false
		for i, c := range all {
			if c.is(t) {
				chosen[i], found = true, true
			}
		}
		if !found {
			return nil, &UnknownError{Target: t, Known: known(all)}
		}
	}
	var items []*Item
	for i, c := range all {
		if !chosen[i] {
			continue
		}
		item, err := p.item(c)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return p.withCopies(p.asOne(items)), nil
}

type planner struct {
	Options
	*index
	g *trust.Graph
}

func newPlanner(g *trust.Graph, findings []check.Finding, o Options) *planner {
	return &planner{Options: o, g: g, index: newIndex(g, findings, o)}
}

// candidate is what can be named: a credential or an authority.
type candidate struct {
	name, node string
	credential *trust.Credential
	authority  *trust.Authority
	kubeconfig *trust.Kubeconfig // that the credential is of
	absent     bool              // a kubeconfig that no component needs and that is not there
}

// is tells whether a target names the candidate.
func (c candidate) is(target string) bool {
	if node, at, ok := strings.Cut(target, ":"); ok && path.IsAbs(at) {
		return node == c.node && c.is(at)
	}
	if path.IsAbs(target) {
		return slices.Contains(c.paths(), path.Clean(target))
	}
	return target == c.name || c.node != "" && target == c.node+"/"+c.name
}

func (c candidate) paths() []string {
	if c.authority != nil {
		return []string{c.authority.Certificate.Path}
	}
	paths := []string{c.credential.Certificate.Path}
	if !c.credential.Key.IsZero() {
		paths = append(paths, c.credential.Key.Path)
	}
	if c.kubeconfig != nil {
		paths = append(paths, c.kubeconfig.Place.Path)
	}
	return paths
}

func known(all []candidate) []string {
	var names []string
	for _, c := range all {
		name := c.name
		if c.node != "" {
			name = c.node + "/" + name
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// candidates are the credentials of the graph, the kubeconfigs of people that a
// control plane has with kubeadm, and the authorities.
func (p *planner) candidates() []candidate {
	var all []candidate
	there := map[trust.Place]bool{}
	for _, cred := range p.g.Credentials {
		c := candidate{name: cred.Name, node: cred.Node, credential: cred, kubeconfig: p.kubeconfigOf(cred)}
		if c.kubeconfig != nil && slices.Contains(p.Kubeconfigs, c.kubeconfig.Place) {
			c.name = c.kubeconfig.Place.Path // many are called config
		}
		for _, file := range c.paths() {
			there[trust.Place{Node: c.node, Path: file}] = true
		}
		all = append(all, c)
	}
	for i := range p.g.Nodes {
		n := &p.g.Nodes[i]
		for _, name := range []string{"admin.conf", "super-admin.conf"} {
			at := trust.Place{Node: n.Name, Path: catalog.Conf(name)}
			if !there[at] && apiserver(n) != nil && n.Layout == "kubeadm" {
				cred := &trust.Credential{ID: name, Name: name, Node: n.Name, Certificate: at, Client: true}
				all = append(all, candidate{name: name, node: n.Name, credential: cred, kubeconfig: &trust.Kubeconfig{Place: at, State: trust.Missing}, absent: true})
			}
		}
	}
	all = append(all, p.ofPeople(there)...)
	for i := range p.g.Authorities {
		a := &p.g.Authorities[i]
		all = append(all, candidate{name: a.Name, node: a.Node, authority: a})
	}
	return all
}

// kubeconfigOf returns the kubeconfig that a credential is of, nil when none.
func (p *planner) kubeconfigOf(cred *trust.Credential) *trust.Kubeconfig {
	if k := p.kubeconfigs[cred.Certificate.File()]; k != nil {
		return k
	}
	return p.naming[cred.Certificate]
}

func (p *planner) node(name string) *trust.Node { return p.nodes[name] }

// apiserver is the node's, nil when it has none.
func apiserver(n *trust.Node) *trust.Component {
	i := slices.IndexFunc(n.Components, func(c trust.Component) bool { return c.Name == catalog.APIServer })
	if i < 0 {
		return nil
	}
	return &n.Components[i]
}

func (p *planner) item(c candidate) (*Item, error) {
	if err := p.ofDistribution(c); err != nil {
		return nil, err
	}
	if c.authority != nil {
		return p.authority(c.authority)
	}
	return p.leaf(c)
}

// leaf plans a leaf's pair or what a kubeconfig holds.
func (p *planner) leaf(c candidate) (*Item, error) {
	cred := c.credential
	i := &Item{Name: c.name, Node: c.node, Kind: Leaf, Certificate: cred.Certificate, Key: cred.Key, Old: p.g.Material(cred.Certificate).Leaf(), serving: cred.Server}
	if k := c.kubeconfig; k != nil && k.Place == cred.Certificate.File() {
		i.Kind, i.Certificate, i.Key = Kubeconfig, k.Place, k.Place
	}
	i.Current = i.Kind == Leaf && path.Base(cred.Certificate.Path) == path.Base(cred.Key.Path) && strings.HasSuffix(cred.Certificate.Path, "-current.pem")
	if i.Key.IsZero() {
		return nil, &Refusal{i.ID(), "nothing tells where its key stands", "name the key beside the certificate where that is configured"}
	}
	i.Why = p.why(cred.Certificate, cred.Key)
	if err := p.refusedByConfiguration(i); err != nil {
		return nil, err
	}
	e := p.entry(cred)
	signer := p.sign(i, cred, e) // what is wanted can be said all the same
	if err := p.identify(i, cred, e); err != nil {
		return nil, cmp.Or(signer, err)
	}
	p.names(i, cred, e)
	p.usages(i, cred)
	p.life(i, e)
	if err := cmp.Or(p.choose(i, cred), p.keepExtensions(i)); err != nil {
		return nil, cmp.Or(signer, err)
	}
	p.warnOfNames(i)
	switch {
	case signer != nil:
		return i, signer
	case i.Kind == Kubeconfig:
		return i, p.dial(i, c.kubeconfig)
	case i.Current && c.kubeconfig != nil && !c.kubeconfig.CA.IsZero() && c.kubeconfig.CA.Field != "" && !c.kubeconfig.Insecure:
		return i, p.trustNow(i, c.kubeconfig)
	}
	return i, nil
}

// why lists the findings at places, or says that it was asked for.
func (p *planner) why(places ...trust.Place) []string {
	why := p.reasons(nil, places...)
	if len(why) == 0 {
		return []string{askedFor}
	}
	return why
}

// askedFor is the reason of what no finding speaks of.
const askedFor = "asked for"

// reasons lists the findings at places, those alone that are of some ids.
func (p *planner) reasons(ids []string, places ...trust.Place) []string {
	var why []string
	for _, pl := range places {
		if pl.IsZero() {
			continue
		}
		for _, f := range p.findings[pl.File()] {
			reason := f.ID + ": " + f.Cause
			here := f.Field == "" || pl.Field == "" || len(f.Paths) > 1 || f.Field == pl.Field
			if here && (ids == nil || slices.Contains(ids, f.ID)) && !slices.Contains(why, reason) {
				why = append(why, reason)
			}
		}
	}
	return why
}

// found tells whether a finding of an id has its root at a place.
func (p *planner) found(at trust.Place, ids ...string) bool {
	return slices.ContainsFunc(p.findings[at.File()], func(f *check.Finding) bool {
		return slices.Contains(ids, f.ID) && f.Path == at.Path
	})
}

// life is the configuration's span or the old one's, from now on; never past the
// authority's.
func (p *planner) life(i *Item, e catalog.Entry) {
	span := catalog.DefaultValidity
	if i.Kind == Authority {
		span = catalog.DefaultCAValidity
	}
	was := i.Old != nil && i.Old.NotAfter.After(i.Old.NotBefore)
	if was {
		span = i.Old.NotAfter.Sub(i.Old.NotBefore)
	}
	if c := p.configured(i.Node); c != nil && i.Kind != Authority {
		// What is assumed holds for what was not there.
		if said := cmp.Or(e.Validity, c.Validity); !was || !c.ValidityAssumed || said != c.Validity {
			span = said
		}
	}
	i.span = span
	i.NotBefore = p.At.Add(-issue.Backdate).UTC().Truncate(time.Second)
	i.NotAfter = i.NotBefore.Add(span)
	if a := i.signer.Certificate; a != nil && i.NotAfter.After(a.NotAfter) {
		i.NotAfter = a.NotAfter
		i.Warnings = append(i.Warnings, fmt.Sprintf("its authority ends at %s, and so will it", a.NotAfter.UTC().Format(time.RFC3339)))
	}
}

// wantedAlgorithm is that of new keys of a node, as somebody has said it; empty: nobody.
func (p *planner) wantedAlgorithm(node string) issue.Algorithm {
	if c := p.configured(node); p.Algorithm == "" && c != nil && !c.AlgorithmAssumed {
		return issue.Algorithm(c.Algorithm)
	}
	return p.Algorithm
}

// choose takes the old key or the kind of the new one.
func (p *planner) choose(i *Item, cred *trust.Credential) error {
	old := p.Keys(cred.Key)
	if p.ReuseKey {
		switch {
		case old == nil:
			return &Refusal{i.ID(), "its key cannot be read, so that it cannot be kept", "leave --reuse-key out: a new key is made"}
		case issue.CheckPublicKey(old.Public()) != nil:
			return &Refusal{i.ID(), issue.CheckPublicKey(old.Public()).Error(), "leave --reuse-key out: a new key is made"}
		}
		i.key = old
		return nil
	}
	if wanted := p.wantedAlgorithm(i.Node); wanted != "" {
		i.Algorithm = wanted
		return nil
	}
	for _, k := range []crypto.PublicKey{publicOf(i.Old), publicOfKey(old), publicOf(i.signer.Certificate)} {
		if k != nil && issue.CheckPublicKey(k) == nil && issue.AlgorithmOf(k) != "" {
			i.Algorithm = issue.AlgorithmOf(k)
			return nil
		}
	}
	i.Algorithm = issue.RSA2048
	return nil
}
