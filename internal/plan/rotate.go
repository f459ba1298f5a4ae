package plan

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// Rotation says what is to be replaced, and what is known beside the graph.
type Rotation struct {
	// New holds the new authorities by the names that trust.Authority.Name has.
	// An authority below another that is replaced must be replaced with it.
	New map[string]Authority
	// NewKey is the new service-account key; nil: it stays. It may not be
	// replaced together with authorities.
	NewKey crypto.PublicKey
	// Reloads tells how components take up files; nil: all must be restarted.
	Reloads Reloads
	// Loaded tells whether a component is known to hold what stands at a place,
	// as a handshake or the time of its start shows; nil: nothing is known but
	// what follows from the order of the steps.
	Loaded func(component string, place trust.Place) bool
	// At is a time at which the new authorities must be valid.
	At time.Time
}

// Rotate returns the steps that are left to replace authorities, none when all
// is done. The plan has been proved ([Prove]). An error names what is wrong
// with the new authorities, or, as a [*Fault], why no safe plan was found.
func Rotate(g *trust.Graph, r Rotation) (*Plan, error) {
	if len(r.New) > 0 && r.NewKey != nil {
		return nil, fmt.Errorf("authorities and the service-account key are replaced one after the other: give New or NewKey")
	}
	m, err := newModel(g, &r)
	if err != nil {
		return nil, err
	}
	p := &Plan{Authorities: slices.Sorted(maps.Keys(r.New)), Unseen: m.unseen(), Unjudged: m.unjudged}
	if r.NewKey != nil {
		p.Authorities = []string{ServiceAccounts}
	}
	for _, h := range m.halves {
		if h.broken && !h.virtual && !slices.Contains(p.Broken, h.Half) && m.concerned(&h) {
			p.Broken = append(p.Broken, h.Half)
		}
	}
	for _, next := range m.order() {
		s := next.make()
		m.complete(&s, next.due)
		if len(s.Changes)+len(s.Loads) == 0 {
			continue
		}
		p.Steps = append(p.Steps, s)
		before := m.write(&s)
		m.gate(&s, before)
	}
	if err := Prove(g, r, p.Steps); err != nil {
		return nil, fmt.Errorf("no safe plan: %w", err)
	}
	return p, nil
}

// unseen lists what components name and what could not be read.
func (m *model) unseen() []trust.Place {
	var all []trust.Place
	for i := range m.copies {
		if t := m.g.Material(m.copies[i].place); t != nil && !t.OK() {
			all = append(all, t.Place)
		}
	}
	slices.SortFunc(all, trust.Place.Compare)
	return slices.Compact(all)
}

// concerned tells whether a half is about what is replaced.
func (m *model) concerned(h *half) bool {
	for _, i := range append([]int{h.shown}, h.trusts...) {
		for _, s := range m.copies[i].may {
			if slices.ContainsFunc(m.targets, func(t target) bool { return t.concerns(s) }) {
				return true
			}
		}
	}
	return false
}

// places lists where copies of some roles stand, in order.
func (m *model) places(pick func(c *copyOf) bool) []trust.Place {
	var all []trust.Place
	for i := range m.copies {
		if c := &m.copies[i]; pick(c) && len(c.sources) == 0 && len(c.may) > 0 {
			all = append(all, c.place)
		}
	}
	slices.SortFunc(all, trust.Place.Compare)
	return slices.Compact(all)
}

// separate gives signers that share their file with a bundle one of their own:
// the bundle will hold two certificates, and the signer takes exactly one.
func (m *model) separate() Step {
	s := Step{Kind: Separate, Title: "give the signer a certificate file of its own, apart from the bundle that will hold two"}
	for i := range m.copies {
		c := &m.copies[i]
		if !strings.HasPrefix(c.setting, "cluster-signing-") || c.target < 0 || len(c.may) == 0 || !m.shared(c.place) {
			continue
		}
		own, key := ownFile(c.place)
		if _, done := m.byUse[use{c.component, own, roleSigner, c.setting}]; done {
			continue // its flag is changed; only its process may not have been restarted
		}
		by := m.signsBy(c)
		s.Changes = append(s.Changes,
			Change{Place: own, Role: roleSigner, After: Content{Certificates: []*x509.Certificate{by}}},
			Change{Place: key, Role: trust.RoleKey, After: Content{Keys: []crypto.PublicKey{by.PublicKey}}},
			Change{Place: own, Role: roleSigner, Component: c.component, Setting: c.setting, Was: c.place},
			Change{Place: key, Role: trust.RoleKey, Component: c.component, Setting: keyFlag(c.setting), Was: m.keyOf(c)})
		s.Loads = append(s.Loads, Load{Component: c.component, Place: own, Role: roleSigner, Setting: c.setting, How: Reload{Uptake: Restart}})
	}
	s.Gate.Must = "every controller-manager signs with its own file"
	s.Gate.Unseen = []string{"what writes the flags anew (kubeadm's ClusterConfiguration, a unit's template) must know of the file, or an upgrade undoes it"}
	return s
}

// shared tells whether a signer's file is a bundle too that will hold two.
func (m *model) shared(p trust.Place) bool {
	x, ok := m.content(p)
	if !ok || len(m.accepted(x).Certificates) == 1 {
		return false
	}
	for i := range m.copies {
		if c := &m.copies[i]; c.place == p && c.role == trust.RoleBundle {
			return true
		}
	}
	return m.own(p)
}

// own tells whether a place is an authority's own file.
func (m *model) own(p trust.Place) bool {
	return m.ownFiles[p]
}

// signsBy is the certificate whose key a signer uses.
func (m *model) signsBy(c *copyOf) *x509.Certificate {
	if key, ok := m.content(m.keyOf(c)); ok {
		if by := m.withKey(key); len(by) > 0 {
			return by[0]
		}
	}
	x, _ := m.content(c.place)
	return x.Certificates[0]
}

// ownFileSuffix marks the file that a signer is given of its own.
const ownFileSuffix = "-signing"

func ownFile(p trust.Place) (certificate, key trust.Place) {
	stem := strings.TrimSuffix(p.Path, ".crt") + ownFileSuffix
	return trust.Place{Node: p.Node, Path: stem + ".crt"}, trust.Place{Node: p.Node, Path: stem + ".key"}
}

// sharedFile is the file that a signer's own was made from.
func sharedFile(p trust.Place) (trust.Place, bool) {
	stem, ok := strings.CutSuffix(p.Path, ownFileSuffix+".crt")
	return trust.Place{Node: p.Node, Path: stem + ".crt"}, ok
}

func keyFlag(certificateFlag string) string {
	return strings.TrimSuffix(certificateFlag, "cert-file") + "key-file"
}

// accept lets every verifier trust the new beside the old.
func (m *model) accept() Step {
	s := Step{Kind: Accept, Title: "trust the new authority beside the old one, everywhere"}
	for _, p := range m.places(trusts) {
		x, _ := m.content(p)
		if y := m.accepted(x); len(y.Certificates)+len(y.Keys) > len(x.Certificates)+len(x.Keys) {
			s.Changes = append(s.Changes, Change{Place: p, Role: m.roleAt(p), After: y})
		}
	}
	s.Gate.Must = "every process that verifies accepts a certificate of the new authority"
	if m.r.NewKey != nil {
		s.Title, s.Gate.Must = "verify tokens by the new key beside the old one, everywhere", "every kube-apiserver publishes both keys"
		s.Gate.Wait = jwksCache
	}
	s.Gate.Unseen = m.unseenTrust()
	return s
}

// jwksCache is how long others may keep the published keys
// (k/k pkg/serviceaccount/jwt.go).
const jwksCache = time.Hour

// accepted is a bundle with the new beside each old, where it holds an old one.
func (m *model) accepted(x Content) Content {
	y := Content{Certificates: slices.Clone(x.Certificates), Keys: slices.Clone(x.Keys)}
	s := m.anchors.setOf(x.Certificates, x.Keys)
	for i := range m.targets {
		t := &m.targets[i]
		switch {
		case !s.meets(t.old) || slices.Contains(s, t.new):
		case t.newBy.Certificate != nil:
			y.Certificates = append(y.Certificates, t.newBy.Certificate)
		default:
			y.Keys = append(y.Keys, m.r.NewKey)
		}
	}
	return y
}

// dropped is a bundle without the old.
func (m *model) dropped(x Content) Content {
	x = m.accepted(x)
	isOld := func(n int) bool {
		return slices.ContainsFunc(m.targets, func(t target) bool { return t.old.meets(set{n}) })
	}
	return Content{
		Certificates: slices.DeleteFunc(x.Certificates, func(c *x509.Certificate) bool { return isOld(m.anchors.of(c)) }),
		Keys:         slices.DeleteFunc(x.Keys, func(k crypto.PublicKey) bool { return isOld(m.anchors.ofKey(k)) }),
	}
}

func (m *model) roleAt(p trust.Place) trust.Role {
	if t := m.g.Material(p); t != nil {
		return t.Role
	}
	return trust.RoleBundle
}

// switchOver lets signers sign with the new.
func (m *model) switchOver() Step {
	s := Step{Kind: Switch, Title: "sign with the new authority from now on"}
	for i := range m.copies {
		c := &m.copies[i]
		if c.role != roleSigner || c.target < 0 || len(c.may) == 0 {
			continue
		}
		t, key := &m.targets[c.target], c.place
		if by := t.newBy.Certificate; by != nil && c.setting != "" {
			key = m.keyOf(c)
			m.put(&s, c.place, roleSigner, Content{Certificates: []*x509.Certificate{by}})
		}
		m.put(&s, key, trust.RoleKey, Content{Keys: []crypto.PublicKey{m.newKey(t)}})
	}
	m.reorder(&s)
	s.Gate.Must = "whatever is signed from now on is signed by the new authority"
	if m.r.NewKey != nil {
		s.Title, s.Gate.Must = "sign tokens with the new key from now on", "a token that is asked for now is signed with the new key"
	}
	return s
}

func (m *model) newKey(t *target) crypto.PublicKey {
	if t.newBy.Certificate != nil {
		return t.newBy.Certificate.PublicKey
	}
	return m.r.NewKey
}

// put adds a change unless it stands there already: one of a pair may have
// been written when the other was not.
func (m *model) put(s *Step, p trust.Place, role trust.Role, after Content) {
	x, ok := m.content(p)
	same := slices.EqualFunc(x.Certificates, after.Certificates, (*x509.Certificate).Equal) &&
		(len(after.Keys) == 0 || len(x.Keys) > 0 && trust.SameKey(x.Keys[0], after.Keys[0]))
	if !p.IsZero() && !(ok && same) {
		s.Changes = append(s.Changes, Change{Place: p, Role: role, After: after})
	}
}

// reorder puts the new certificate first into the own file of each authority
// whose key is replaced: who renews by hand signs by the first one
// (k/k cmd/kubeadm/app/util/pkiutil, TryLoadCertFromDisk).
func (m *model) reorder(s *Step) {
	for _, a := range m.g.Authorities {
		own, ok := m.content(a.Certificate)
		key, there := m.content(a.Key)
		if !ok || !there {
			continue
		}
		for _, ch := range s.Changes {
			if ch.Place == a.Key {
				key = ch.After
			}
		}
		first := slices.IndexFunc(own.Certificates, func(c *x509.Certificate) bool {
			return len(key.Keys) > 0 && trust.SameKey(c.PublicKey, key.Keys[0])
		})
		if first > 0 {
			c := own.Certificates[first]
			rest := slices.DeleteFunc(slices.Clone(own.Certificates), c.Equal)
			s.Changes = append(s.Changes, Change{Place: a.Certificate, Role: m.roleAt(a.Certificate), After: Content{Certificates: append([]*x509.Certificate{c}, rest...)}})
		}
	}
}

// issue makes every credential anew that is of the old authority, or may have
// been renewed by a signer of which it was not known what it signs with.
func (m *model) issue() Step {
	s := Step{Kind: Issue, Title: "make every credential anew, signed by the new authority"}
	for i := range m.copies {
		c := &m.copies[i]
		if c.role != trust.RoleCertificate || c.target < 0 || !slices.ContainsFunc(c.disk, m.targets[c.target].old.meets) {
			continue
		}
		by := m.targets[c.target].newBy
		s.Changes = append(s.Changes, Change{Place: c.place, Role: trust.RoleCertificate, After: Content{IssuedBy: &by}})
	}
	s.Gate.Must = "every server presents, and every client shows, a certificate of the new authority"
	s.Gate.Unseen = []string{"certificates that the certificates API handed out to users and programs, and copies of kubeconfigs elsewhere, are to be made anew"}
	if m.r.NewKey != nil {
		s.Title, s.Gate.Must = "have every token made anew", "no token that was signed with the old key is in use: kubelets have refreshed each mounted one"
		s.Gate.Unseen = []string{"token Secrets (clear their token), and tokens requested by hand (valid for --service-account-max-token-expiration at most)"}
	}
	return s
}

// dropCopies takes the old out of all bundles but the authorities' own files.
// Those come last: from them is read which authority is the old one.
func (m *model) dropCopies() Step {
	s := m.drop(func(p trust.Place) bool { return !m.own(p) })
	s.Title = "trust the new authority alone: kubeconfigs and other copies"
	if m.r.NewKey != nil {
		s.Title, s.Gate.Must = "verify tokens by the new key alone", "every kube-apiserver publishes the new key alone"
	}
	s.Gate.Unseen = m.unseenTrust()
	return s
}

func (m *model) dropOwn() Step {
	s := m.drop(m.own)
	s.Title = "trust the new authority alone: its own files"
	return s
}

func (m *model) drop(pick func(trust.Place) bool) Step {
	s := Step{Kind: Drop}
	for _, p := range m.places(trusts) {
		x, _ := m.content(p)
		if y := m.dropped(x); pick(p) && len(y.Certificates)+len(y.Keys) != len(x.Certificates)+len(x.Keys) {
			s.Changes = append(s.Changes, Change{Place: p, Role: m.roleAt(p), After: y})
		}
	}
	s.Gate.Must = "no process that verifies accepts a certificate of the old authority"
	return s
}

// dropObjects takes the old out of the objects that are merged and never
// shrink. Publishers that still held it would merge it again.
func (m *model) dropObjects() Step {
	s := Step{Kind: Drop, Title: "trust the new authority alone: what the API carries"}
	for i := range m.copies {
		c := &m.copies[i]
		if !c.merges || c.sure && !m.holdsOld(c) {
			continue
		}
		var after Content
		for _, src := range m.allSources(c) {
			x, _ := m.content(m.copies[src].place)
			for _, cert := range x.Certificates {
				if !slices.ContainsFunc(after.Certificates, cert.Equal) {
					after.Certificates = append(after.Certificates, cert)
				}
			}
		}
		s.Changes = append(s.Changes, Change{Place: c.place, Role: trust.RoleBundle, After: after})
	}
	s.Gate.Must = "the objects hold the new authority alone, also a minute later"
	return s
}

// unseenTrust names the copies of trust that no node's files show.
func (m *model) unseenTrust() []string {
	for _, name := range []string{catalog.ClusterCA, catalog.RootCA} {
		if _, ok := m.r.New[name]; ok {
			return []string{
				"kube-public/cluster-info and discovery hashes, with which nodes join",
				"copies of kubeconfigs elsewhere, caBundles of webhooks and APIServices, and programs that were given the authority by hand",
			}
		}
	}
	return nil
}

// part is one step of the order: how it is made, and which copies that are not
// sure may not have taken it up when it was done before.
type part struct {
	make func() Step
	due  func(c *copyOf) bool
}

func (m *model) order() []part {
	isRole := func(roles ...trust.Role) func(*copyOf) bool {
		return func(c *copyOf) bool { return !c.moved && slices.Contains(roles, c.role) }
	}
	dropping := m.stage == Drop
	return []part{
		{m.separate, func(c *copyOf) bool { return c.moved }},
		{m.accept, func(c *copyOf) bool { return !dropping && trusts(c) }},
		{m.switchOver, isRole(roleSigner)},
		{m.issue, isRole(trust.RoleCertificate, roleTokens)},
		{m.dropCopies, func(c *copyOf) bool { return trusts(c) && len(c.sources) == 0 && !m.own(c.place) }},
		{m.dropOwn, func(c *copyOf) bool { return trusts(c) && !m.merged(c) && (len(c.sources) > 0 || m.own(c.place)) }},
		{m.dropObjects, func(c *copyOf) bool { return m.merged(c) }},
	}
}

// merged tells whether a copy is an object that is merged, or is read from one.
func (m *model) merged(c *copyOf) bool {
	return c.merges || len(c.sources) > 0 && m.copies[c.sources[0]].merges
}

// complete adds to a step the processes that must take it up: those that read
// what it writes, and those that may not have taken it up when it was done
// before. It keeps each change once.
func (m *model) complete(s *Step, due func(c *copyOf) bool) {
	s.Changes = uniqueChanges(s.Changes)
	touched := m.touched(s, due)
	for i := range m.copies {
		c := &m.copies[i]
		how := m.r.reload(c)
		if !touched[i] || how.Uptake == AtOnce || how.Uptake == NotApplicable || s.Kind == Separate && !c.moved {
			continue
		}
		s.Loads = append(s.Loads, Load{Component: c.component, Place: c.place, Role: c.role, Setting: c.setting, How: how})
		s.Gate.Wait = max(s.Gate.Wait, how.Within)
	}
	slices.SortStableFunc(s.Loads, func(a, b Load) int { return strings.Compare(a.Component, b.Component) })
}

// touched marks the copies that a step changes, and those that read from them.
// What is only taken away reaches no object that is merged.
func (m *model) touched(s *Step, due func(c *copyOf) bool) []bool {
	written := map[trust.Place]Content{}
	for _, ch := range s.Changes {
		if ch.Setting == "" {
			written[ch.Place] = ch.After
		}
	}
	touched := make([]bool, len(m.copies))
	for changed := true; changed; {
		changed = false
		for i := range m.copies {
			c := &m.copies[i]
			now := !c.sure && due(c)
			if after, ok := written[c.place]; ok && (len(c.sources) == 0 || c.merges) {
				now = now || m.differs(c, after)
			}
			for _, src := range c.sources {
				now = now || touched[src] && (s.Kind != Drop || !c.merges)
			}
			now = now || s.Kind == Issue && c.role == roleTokens && m.holdsOld(c)
			if now && len(c.may) > 0 && !touched[i] {
				touched[i], changed = true, true
			}
		}
	}
	return touched
}

// differs tells whether a content is another than what a copy holds. The order
// of a bundle is no difference.
func (m *model) differs(c *copyOf, x Content) bool {
	return len(c.may) != 1 || !slices.Equal(c.may[0], m.holds(c, x))
}

// holdsOld tells whether a copy may hold something of an old authority.
func (m *model) holdsOld(c *copyOf) bool {
	return slices.ContainsFunc(m.targets, func(t target) bool {
		return slices.ContainsFunc(c.may, func(s set) bool { return s.meets(t.old) })
	})
}

func uniqueChanges(in []Change) []Change {
	var out []Change
	type key struct {
		place              trust.Place
		component, setting string
	}
	seen := map[key]bool{}
	for _, ch := range in {
		k := key{ch.Place, ch.Component, ch.Setting}
		if !seen[k] {
			seen[k] = true
			out = append(out, ch)
		}
	}
	return out
}
