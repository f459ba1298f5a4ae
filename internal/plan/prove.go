package plan

import (
	"crypto"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// Fault is why a plan is refused: the step after which, or within which, a link
// may break, or what is left undone at the end.
type Fault struct {
	Step int  // index of the step; the number of steps: at the end
	Kind Kind // of the step; empty at the end
	Half Half // zero when no link is concerned
	// Cause is one sentence.
	Cause string
}

// Error names the step, the link and the cause.
func (f *Fault) Error() string {
	where := "at the end"
	if f.Kind != "" {
		where = fmt.Sprintf("step %d (%s)", f.Step+1, f.Kind)
	}
	if f.Half != (Half{}) {
		where += ": " + f.Half.String()
	}
	return where + ": " + f.Cause
}

// String names the link and its half.
func (h Half) String() string {
	link := "link"
	if h.Link > 0 {
		link = fmt.Sprintf("link %d", h.Link)
	}
	return fmt.Sprintf("%s %s → %s, %s half", link, h.Caller, h.Callee, h.Side)
}

// Prove walks the steps and returns a [*Fault] when in some mixture of
// processes that have taken up a step and processes that have not a link
// breaks, when a signer is left with a file that it cannot use, or when
// something of the old authorities is left after the last step. It knows
// nothing of how the steps were made. Other errors are those of [Rotate] for
// what it was given.
func Prove(g *trust.Graph, r Rotation, steps []Step) error {
	m, err := newModel(g, &r)
	if err != nil {
		return err
	}
	return m.prove(steps)
}

func (m *model) prove(steps []Step) error {
	for i := range steps {
		s := &steps[i]
		before := m.write(s)
		f := m.judge()
		if f == nil {
			m.gate(s, before)
			m.mended()
			f = m.judge()
		}
		if f != nil {
			f.Step, f.Kind = i, s.Kind
			return f
		}
	}
	if f := m.finished(); f != nil {
		f.Step = len(steps)
		return f
	}
	return nil
}

// write applies the changes of a step: from now on each process may hold what
// was and what is written. It returns what each copy might hold before.
func (m *model) write(s *Step) [][]set {
	for i := range s.Changes {
		if ch := &s.Changes[i]; ch.Setting == "" {
			m.files[ch.Place] = ch.After
		}
	}
	for i := range s.Changes {
		if ch := &s.Changes[i]; ch.Setting != "" {
			m.move(ch.Component, ch.Setting, ch.Place, ch.Was)
		} else {
			m.written(ch.Place)
		}
	}
	m.settle()
	before := make([][]set, len(m.copies))
	for i := range m.copies {
		before[i] = m.copies[i].may
	}
	return before
}

// written lets the copies of a place hold what was written there.
func (m *model) written(p trust.Place) {
	for _, i := range m.byPlace[p] {
		c := &m.copies[i]
		if len(c.may) == 0 || len(c.sources) > 0 && !c.merges {
			continue
		}
		now := m.holds(c, m.files[p])
		c.disk = []set{now}
		if m.differs(c, m.files[p]) {
			c.may, c.sure = addSet(c.may, now), false
		}
	}
}

// move gives a signer another file. Until it is restarted it uses the old one.
func (m *model) move(component, setting string, to, was trust.Place) {
	old, ok := m.byUse[use{component, was, roleSigner, setting}]
	x, there := m.content(to)
	if !ok || !there {
		return
	}
	i := m.find(component, to, roleSigner, setting)
	c := &m.copies[i]
	now := m.holds(c, x)
	c.may, c.disk, c.target = []set{now}, []set{now}, m.copies[old].target
	c.moved, c.sure, c.ownFile = true, false, true
	for _, h := range m.halves {
		if h.shown == old {
			h.shown = i
			m.addHalf(h)
		}
	}
	for j := range m.copies {
		if c := &m.copies[j]; slices.Contains(c.signers, old) && !slices.Contains(c.signers, i) {
			c.signers = append(c.signers, i)
		}
	}
}

// settle lets happen what may happen at any time: objects are published and
// read, and credentials are renewed by whoever may sign them.
func (m *model) settle() {
	for changed := true; changed; {
		changed = false
		for i := range m.copies {
			c := &m.copies[i]
			n := len(c.may) + len(c.disk)
			for _, s := range c.sources {
				for _, x := range m.copies[s].may {
					c.take(x)
				}
			}
			for _, s := range c.signers {
				for _, x := range m.copies[s].may {
					c.may, c.disk = addSet(c.may, x), addSet(c.disk, x)
				}
			}
			changed = changed || len(c.may)+len(c.disk) > n
		}
	}
}

// take adds what a source holds to a carried copy.
func (c *copyOf) take(x set) {
	if !c.merges {
		c.may = addSet(c.may, x)
		return
	}
	for _, own := range slices.Clone(c.may) {
		c.may = addSet(c.may, own.with(x))
	}
	if len(c.may) == 0 {
		c.may = []set{x}
	}
}

// gate passes the gate of a step: the processes that it names hold what stands
// there, and so do those that need no waiting for. Files come before objects,
// objects before who reads them.
func (m *model) gate(s *Step, before [][]set) {
	loads := map[use]Load{}
	for _, l := range s.Loads {
		loads[use{l.Component, l.Place, l.Role, l.Setting}] = l
	}
	order := []func(c *copyOf) bool{
		func(c *copyOf) bool { return len(c.sources) == 0 && c.role != roleTokens },
		func(c *copyOf) bool { return c.merges },
		func(c *copyOf) bool { return !c.merges && len(c.sources) > 0 || c.role == roleTokens },
	}
	for _, turn := range order {
		for i := range m.copies {
			if c := &m.copies[i]; turn(c) && len(c.may) > 0 && m.confirmed(c, loads, s.Gate.Wait) {
				m.confirm(c, s, before)
			}
		}
	}
	m.settle()
}

// confirmed tells whether the gate of a step sees to a copy, in a way in which
// its process takes it up.
func (m *model) confirmed(c *copyOf, loads map[use]Load, wait time.Duration) bool {
	how := m.r.reload(c)
	if how.Uptake == AtOnce || how.Uptake == NotApplicable {
		return true
	}
	l, ok := loads[c.use]
	return ok && (l.How.Uptake == Restart || l.How.Uptake == how.Uptake && wait >= how.Within)
}

func (m *model) confirm(c *copyOf, s *Step, before [][]set) {
	c.sure = true
	switch {
	case c.role == roleTokens:
		c.may = nil // those that the present signers sign come back in settle
	case c.merges && slices.ContainsFunc(s.Changes, func(ch Change) bool { return ch.Place == c.place }):
		// Publishers may have merged what they held when it was written.
		written := m.holds(c, m.files[c.place])
		c.may = []set{written}
		for _, i := range c.sources {
			for _, x := range before[i] {
				c.may = addSet(c.may, written.with(x))
			}
		}
		m.merge(c)
	case c.merges:
		m.merge(c)
	case len(c.sources) > 0:
		c.may = nil
	case c.moved:
		m.retire(c)
		fallthrough
	default:
		c.may = slices.Clone(c.disk)
	}
}

// retire ends the use of the file that a moved signer read before.
func (m *model) retire(c *copyOf) {
	c.moved = false
	for i := range m.copies {
		o := &m.copies[i]
		if o.component == c.component && o.setting == c.setting && o.role == roleSigner && o.place != c.place {
			o.may, o.sure = nil, true
		}
	}
}

// merge adds to each content of an object what each of its publishers holds.
func (m *model) merge(c *copyOf) {
	all := c.may
	for _, i := range c.sources {
		var next []set
		for _, own := range all {
			for _, x := range m.copies[i].may {
				next = addSet(next, own.with(x))
			}
		}
		if len(next) > 0 {
			all = next
		}
	}
	c.may = all
}

// judge returns the first half that may break, or the first signer that cannot
// sign.
func (m *model) judge() *Fault {
	for i := range m.halves {
		h := &m.halves[i]
		if h.broken {
			continue
		}
		if s, ok := m.refused(h); ok {
			return &Fault{Half: h.Half, Cause: fmt.Sprintf("%s may show a credential of %s while %s may trust %s", m.copies[h.shown].component, m.describe(s), m.copies[h.trusts[0]].component, m.describeAll(h.trusts))}
		}
	}
	for i := range m.copies {
		c := &m.copies[i]
		for _, s := range c.may {
			if unusable(c, s) && !c.broken {
				return &Fault{Cause: fmt.Sprintf("--%s of %s names %s, which would hold %d certificates: the signer takes exactly one", c.setting, c.component, c.place, len(s))}
			}
		}
	}
	return nil
}

// unusable tells whether a signer of the certificates API cannot sign with what
// its file holds (k/k pkg/controller/certificates/signer/ca_provider.go).
func unusable(c *copyOf, s set) bool {
	return strings.HasPrefix(c.setting, "cluster-signing-") && len(s) != 1
}

// refused returns something that may be shown and that may not verify. What
// several files verify together is refused when each of them may refuse it.
func (m *model) refused(h *half) (set, bool) {
	seen := false
	for _, b := range h.trusts {
		seen = seen || len(m.copies[b].may) > 0
	}
	for _, s := range m.copies[h.shown].may {
		by := slices.ContainsFunc(h.trusts, func(b int) bool {
			may := m.copies[b].may
			return len(may) > 0 && !slices.ContainsFunc(may, func(x set) bool { return !x.meets(s) })
		})
		if seen && !by {
			return s, true
		}
	}
	return nil, false
}

// mended takes up the halves that hold by now.
func (m *model) mended() {
	for i := range m.halves {
		if h := &m.halves[i]; h.broken {
			_, h.broken = m.refused(h)
		}
	}
	for i := range m.copies {
		c := &m.copies[i]
		c.broken = c.broken && slices.ContainsFunc(c.may, func(s set) bool { return unusable(c, s) })
	}
}

// finished looks for what is left of the old authorities, and for processes of
// which it is not known whether they hold what is written.
func (m *model) finished() *Fault {
	for i := range m.copies {
		c := &m.copies[i]
		if len(c.may) == 0 {
			continue
		}
		for t := range m.targets {
			if slices.ContainsFunc(c.may, func(s set) bool { return s.meets(m.targets[t].old) }) {
				return &Fault{Cause: fmt.Sprintf("%s may still hold the old authority %q of %s", c.component, m.targets[t].name, c.place)}
			}
		}
		if !c.sure {
			return &Fault{Cause: fmt.Sprintf("%s may not have taken up %s", c.component, c.place)}
		}
		if key, ok := m.content(m.keyOf(c)); ok && c.target >= 0 {
			x, _ := m.content(c.place)
			if len(x.Certificates) > 0 && !slices.ContainsFunc(key.Keys, func(k crypto.PublicKey) bool { return trust.SameKey(k, x.Certificates[0].PublicKey) }) {
				return &Fault{Cause: fmt.Sprintf("%s signs by %s, whose key does not belong to it", c.component, c.place)}
			}
		}
	}
	return m.unpaired()
}

// keyOf is the place of the key that belongs to the certificate of a signer.
func (m *model) keyOf(c *copyOf) trust.Place {
	if !strings.HasPrefix(c.setting, "cluster-signing-") {
		return trust.Place{}
	}
	if path, ok := strings.CutSuffix(c.place.Path, ".crt"); ok && c.ownFile {
		return trust.Place{Node: c.place.Node, Path: path + ".key"}
	}
	for i := range m.g.Nodes {
		for _, o := range m.g.Nodes[i].Components {
			if v, ok := o.Flag(keyFlag(c.setting)); ok && o.ID() == c.component {
				return trust.Place{Node: o.Node, Path: v}
			}
		}
	}
	return trust.Place{}
}

// unpaired looks for an authority whose key is not that of its certificate.
func (m *model) unpaired() *Fault {
	for _, a := range m.g.Authorities {
		key, ok := m.content(a.Key)
		own, there := m.content(a.Certificate)
		if !ok || !there || len(key.Keys) == 0 || len(own.Certificates) == 0 {
			continue
		}
		concerned := slices.ContainsFunc(m.targets, func(t target) bool { return t.concerns(m.anchors.setOf(own.Certificates, nil)) })
		if concerned && !trust.SameKey(key.Keys[0], own.Certificates[0].PublicKey) {
			return &Fault{Cause: fmt.Sprintf("the key %s does not belong to the first certificate of %s", a.Key, a.Certificate)}
		}
	}
	return nil
}

// describe tells which authorities a set is of.
func (m *model) describe(s set) string {
	isOld, isNew := false, false
	for t := range m.targets {
		isOld = isOld || s.meets(m.targets[t].old)
		isNew = isNew || slices.Contains(s, m.targets[t].new)
	}
	switch {
	case isOld && isNew:
		return "the old and the new authority"
	case isOld:
		return "the old authority"
	case isNew:
		return "the new authority"
	}
	return "another authority"
}

func (m *model) describeAll(copies []int) string {
	var all []string
	for _, i := range copies {
		for _, s := range m.copies[i].may {
			if d := m.describe(s); !slices.Contains(all, d) {
				all = append(all, d)
			}
		}
	}
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, " alone, or ") + " alone"
}
