package diagram

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// layoutUsers is layout.LayoutUsers: this package knows no disk.
const layoutUsers = "users"

// Signer tells which authority signed the certificate at a place. A place that
// is not in the map has a certificate that nobody known signed, or none.
type Signer map[trust.Place]string

// New makes the diagram of a graph and of what was found in it. Signers and
// authorities are those of an inventory of the same graph.
func New(g *trust.Graph, r *check.Result, signers Signer, authorities []Authority, at time.Time) *Diagram {
	b := &builder{g: g, r: r, signers: signers, d: &Diagram{At: at, Live: len(g.Observations) > 0, Healthy: r.Healthy(), Findings: r.Findings}}
	b.concern()
	for d := byAll; ; d++ {
		b.group(d)
		b.boxes()
		b.arrows()
		if d == byNothing || len(b.d.Groups) <= maxGroups && len(b.d.Arrows) <= maxArrows {
			break
		}
	}
	b.shorten()
	b.findings()
	b.legend(authorities)
	b.count()
	return b.d
}

type builder struct {
	g       *trust.Graph
	r       *check.Result
	signers Signer
	d       *Diagram
	detail  detail
	groupOf map[string]int // by node
	boxOf   map[string]int // by component ID
	// concerns are, by file, the findings that stand there.
	concerns map[trust.Place][]int
	halves   map[halfOf]*Half
}

type halfOf struct {
	link int
	side string
}

// concern notes where the findings stand that are more than worth knowing.
func (b *builder) concern() {
	b.concerns, b.halves = map[trust.Place][]int{}, map[halfOf]*Half{}
	for i := range b.r.Findings {
		if b.r.Findings[i].Severity == check.Info {
			continue
		}
		for _, p := range b.r.Findings[i].Places() {
			if at := p.File(); !slices.Contains(b.concerns[at], i) {
				b.concerns[at] = append(b.concerns[at], i)
			}
		}
	}
}

// half returns one judged half of a link; nil when that side is not judged.
func (b *builder) half(link int, side string) *Half {
	key := halfOf{link, side}
	if h, ok := b.halves[key]; ok {
		return h
	}
	l := &b.r.Links[link]
	i := slices.IndexFunc(l.Halves, func(h check.Half) bool { return h.Side == side })
	if i < 0 {
		b.halves[key] = nil
		return nil
	}
	h := &Half{State: l.Halves[i].State, Proofs: []check.Proof{l.Halves[i].Proof}}
	var shown *trust.Credential
	var files []trust.Place
	switch {
	case side == "server" && l.Server != nil:
		shown = l.Server.Credential
	case side == "client" && l.Client != nil:
		shown = l.Client.Credential
	case l.Signing != nil:
		h.Credential, h.Authority, h.First = "sa", SigningKey, l.Signing.Key
		files = append(files, l.Signing.Key.File())
	}
	if shown != nil {
		h.Credential, h.First, h.Authority = shown.Name, shown.Certificate, b.signers[shown.Certificate]
		files = append(files, shown.Certificate.File(), shown.Key.File())
		if leaf := b.g.Material(shown.Certificate).Leaf(); leaf != nil {
			h.NotBefore, h.NotAfter = leaf.NotBefore, leaf.NotAfter
		}
	}
	h.Findings = b.findingsOf(link, side, files)
	b.halves[key] = h
	return h
}

func (b *builder) findingsOf(link int, side string, files []trust.Place) []int {
	var out []int
	for i := range b.r.Findings {
		if b.r.Findings[i].Breaks(link, side) {
			out = append(out, i)
		}
	}
	for _, p := range files {
		for _, i := range b.concerns[p] {
			if !p.IsZero() && !slices.Contains(out, i) {
				out = append(out, i)
			}
		}
	}
	return out
}

// boxOrder is the order of boxes within a group, callers first.
var boxOrder = []string{
	"admin", "super-admin", "user", "any client", "pod", catalog.ControllerManager, catalog.Scheduler, catalog.KubeProxy, catalog.Etcdctl,
	catalog.Kubelet, catalog.APIServer, catalog.Etcd, "extension apiserver",
}

func (b *builder) boxes() {
	b.d.Boxes, b.boxOf = nil, map[string]int{}
	add := func(id string, box Box) {
		i := slices.IndexFunc(b.d.Boxes, func(o Box) bool { return o.Group == box.Group && o.Component == box.Component })
		if i < 0 {
			i = len(b.d.Boxes)
			b.d.Boxes = append(b.d.Boxes, box)
		}
		b.boxOf[id] = i
	}
	for i := range b.g.Nodes {
		n := &b.g.Nodes[i]
		for j := range n.Components {
			c := &n.Components[j]
			if n.Layout != layoutUsers {
				add(c.ID(), Box{Group: b.groupOf[n.Name], Component: c.Name, Title: c.Name})
			}
		}
	}
	b.users(add)
	for i := range b.r.Links {
		for _, id := range []string{b.r.Links[i].Caller, b.r.Links[i].Callee} {
			if _, ok := b.boxOf[id]; !ok {
				node, name := trust.SplitID(id)
				at, known := b.groupOf[node]
				if !known || node == "" {
					at = -1
				}
				add(id, Box{Group: at, Component: name, Title: name})
			}
		}
	}
	b.sortBoxes()
}

// users draws those whose kubeconfigs stand beside the nodes: in one box those
// whose links are in the same state.
func (b *builder) users(add func(string, Box)) {
	alike := map[string][]string{}
	var order []string
	for i := range b.g.Nodes {
		for j := range b.g.Nodes[i].Components {
			if c := &b.g.Nodes[i].Components[j]; b.g.Nodes[i].Layout == layoutUsers {
				key := b.userState(c.ID())
				if alike[key] == nil {
					order = append(order, key)
				}
				alike[key] = append(alike[key], c.ID())
			}
		}
	}
	for _, key := range order {
		var names []string
		for _, id := range alike[key] {
			_, name := trust.SplitID(id)
			names = append(names, strings.TrimPrefix(name, "user "))
		}
		title := "user " + names[0]
		if len(names) > 1 {
			title = "users " + NodesTitle(names)
		}
		for _, id := range alike[key] {
			add(id, Box{Group: -1, Component: title, Title: title})
		}
	}
}

func (b *builder) userState(id string) string {
	var all []string
	for i := range b.r.Links {
		if b.r.Links[i].Caller == id {
			all = append(all, stateKey(b.half(i, "client"))+stateKey(b.half(i, "server"))+authorityKey(b.half(i, "client")))
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "\x00")
}

// sortBoxes puts the boxes into the order of groups and components.
func (b *builder) sortBoxes() {
	rank := func(x Box) int {
		kind, _, _ := strings.Cut(strings.Replace(x.Component, "users ", "user ", 1), " ")
		if i := slices.IndexFunc(boxOrder, func(o string) bool { return o == x.Component || o == kind }); i >= 0 {
			return i
		}
		return len(boxOrder)
	}
	order := make([]int, len(b.d.Boxes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		x, y := b.d.Boxes[i], b.d.Boxes[j]
		return cmp.Or(cmp.Compare(x.Group, y.Group), cmp.Compare(rank(x), rank(y)), cmp.Compare(x.Component, y.Component))
	})
	sorted, now := make([]Box, len(order)), make([]int, len(order))
	for to, from := range order {
		sorted[to], now[from] = b.d.Boxes[from], to
	}
	b.d.Boxes = sorted
	for id, i := range b.boxOf {
		b.boxOf[id] = now[i]
	}
}

func (h *Half) clone() *Half {
	if h == nil {
		return nil
	}
	c := *h
	c.Proofs, c.Findings = slices.Clone(h.Proofs), slices.Clone(h.Findings)
	return &c
}

// join makes the half of an arrow speak of one more link.
func (h *Half) join(o *Half) {
	if h == nil || o == nil {
		return
	}
	for _, p := range o.Proofs {
		if !slices.Contains(h.Proofs, p) {
			h.Proofs = append(h.Proofs, p)
		}
	}
	for _, f := range o.Findings {
		if !slices.Contains(h.Findings, f) {
			h.Findings = append(h.Findings, f)
		}
	}
	if !o.NotAfter.IsZero() && (h.NotAfter.IsZero() || o.NotAfter.Before(h.NotAfter)) {
		h.NotBefore, h.NotAfter, h.First = o.NotBefore, o.NotAfter, o.First
	}
	h.Credential = cmp.Or(h.Credential, o.Credential)
	if o.Authority != h.Authority {
		h.Authority = Several
	}
}

// findings notes of each group which findings stand at its nodes.
func (b *builder) findings() {
	for i := range b.r.Findings {
		f := &b.r.Findings[i]
		if f.Severity == check.Info {
			continue
		}
		for _, p := range f.Places() {
			at, ok := b.groupOf[p.Node]
			if ok && !slices.Contains(b.d.Groups[at].Findings, i) {
				b.d.Groups[at].Findings = append(b.d.Groups[at].Findings, i)
			}
		}
	}
}

// legend keeps the authorities that signed something good on an arrow.
func (b *builder) legend(all []Authority) {
	used := map[string]bool{}
	for i := range b.d.Arrows {
		for _, h := range []*Half{b.d.Arrows[i].Client, b.d.Arrows[i].Server} {
			if h.Is(check.OK) {
				used[h.Authority] = true
			}
		}
	}
	for _, a := range all {
		if used[a.Name] {
			b.d.Authorities = append(b.d.Authorities, a)
		}
	}
	if used[SigningKey] {
		b.d.Authorities = append(b.d.Authorities, Authority{Name: SigningKey})
	}
}

func (b *builder) count() {
	c := &b.d.Counts
	for _, g := range b.d.Groups {
		c.Nodes += len(g.Nodes)
	}
	c.Links = len(b.r.Links)
	for i := range b.r.Links {
		if !b.r.Links[i].OK() {
			c.Broken++
		}
		for _, h := range b.r.Links[i].Halves {
			c.Halves++
			if h.State == check.Unseen {
				c.Unseen++
			}
		}
	}
	for _, f := range b.r.Findings {
		switch f.Severity {
		case check.Error:
			c.Errors++
		case check.Warning:
			c.Warnings++
		default:
			c.Infos++
		}
	}
}
