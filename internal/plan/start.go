package plan

import (
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// begin sets what each process may hold now. Files tell what is written, not
// what is loaded. What a step writes is written only after the gate of the step
// before, so the furthest step that left a trace tells which gates were passed;
// of that step itself a process may hold what was before as well.
func (m *model) begin() {
	m.stage = m.begun()
	for i := range m.copies {
		m.start(&m.copies[i])
	}
	m.ghosts()
	m.startCarried()
	m.settle()
}

// begun returns the last step that has left a trace on disk.
func (m *model) begun() Kind {
	stage, anyOld := Kind(""), false
	for t := range m.targets {
		anyOld = anyOld || len(m.targets[t].old) > 0
	}
	if !anyOld {
		return Drop
	}
	for i := range m.copies {
		c := &m.copies[i]
		x, ok := m.content(c.place)
		if !ok {
			continue
		}
		s := m.holds(c, x)
		for t := range m.targets {
			isNew, isOld := slices.Contains(s, m.targets[t].new), s.meets(m.targets[t].old)
			switch {
			case !isNew:
			case !trusts(c):
				stage = later(stage, Issue)
			case isOld:
				stage = later(stage, Accept)
			default:
				stage = later(stage, Drop)
			}
		}
	}
	return stage
}

func later(a, b Kind) Kind {
	order := []Kind{"", Accept, Issue, Drop}
	if slices.Index(order, a) > slices.Index(order, b) {
		return a
	}
	return b
}

// trusts tells whether a copy judges others.
func trusts(c *copyOf) bool {
	return c.role == trust.RoleBundle || c.role == trust.RoleVerifyKeys
}

// start sets what a copy of a file may hold.
func (m *model) start(c *copyOf) {
	x, ok := m.content(c.place)
	c.sure = true
	if !ok {
		return
	}
	now := m.holds(c, x)
	c.may, c.disk = []set{now}, []set{now}
	if !m.loaded(c) {
		m.earlier(c, now)
	}
}

// loaded tells whether a copy is what stands at its place: it was seen to be, or
// there is no waiting for it.
func (m *model) loaded(c *copyOf) bool {
	how := m.r.reload(c).Uptake
	return how == AtOnce || how == NotApplicable || m.seen(c)
}

func (m *model) seen(c *copyOf) bool { return m.r.Loaded != nil && m.r.Loaded(c.component, c.place) }

// earlier adds what a copy may still hold from before the present step. A step
// writes what it changes of a file at once, of all authorities.
func (m *model) earlier(c *copyOf, now set) {
	before, begun := slices.Clone(now), false
	for i := range m.targets {
		t := &m.targets[i]
		switch {
		case !slices.Contains(now, t.new):
		case trusts(c) && m.stage == Accept:
			begun = true
			before = slices.DeleteFunc(before, func(a int) bool { return a == t.new })
		case trusts(c) && m.stage == Drop && !now.meets(t.old):
			begun = true
			before = before.with(t.old)
		case !trusts(c) && m.stage == Issue && i == c.target:
			c.sure = false
			for _, s := range m.before(c, t) {
				c.may = addSet(c.may, s)
			}
		}
	}
	if begun {
		c.may, c.sure = addSet(c.may, before), false
	}
}

// before is what stood at the place of a credential or signer under the old
// authorities.
func (m *model) before(c *copyOf, t *target) []set {
	var all []set
	for i := range t.oldBy {
		if strings.HasPrefix(c.setting, "cluster-signing-") {
			all = append(all, set{m.anchors.of(t.oldBy[i].Certificate)})
			continue
		}
		all = append(all, m.anchors.reachIssued(&t.oldBy[i]))
	}
	if len(t.oldBy) == 0 {
		for _, k := range t.old {
			all = append(all, set{k})
		}
	}
	return all
}

// ghosts are signers that were given a file of their own while their process
// may still use the shared one.
func (m *model) ghosts() {
	if m.stage != "" {
		return
	}
	for i := range m.copies {
		base, ok := sharedFile(m.copies[i].place)
		c := m.copies[i]
		if c.role != roleSigner || !ok || c.target < 0 || m.seen(&c) {
			continue
		}
		if _, there := m.content(base); !there {
			continue
		}
		m.copies[i].sure, m.copies[i].moved = false, true
		m.move(c.component, c.setting, base, c.place)
		ghost := &m.copies[m.byUse[use{c.component, base, roleSigner, c.setting}]]
		ghost.sure, ghost.moved, ghost.ownFile = true, false, false
	}
}

// startCarried sets what objects of the API, and who reads them, may hold: the
// graph shows what is published only through the files of their publishers.
func (m *model) startCarried() {
	for i := range m.copies {
		c := &m.copies[i]
		if len(c.sources) == 0 {
			continue
		}
		c.sure = true
		for _, s := range m.allSources(c) {
			for _, x := range m.copies[s].may {
				c.may = addSet(c.may, x)
			}
			x, _ := m.content(m.copies[s].place)
			m.startPublished(c, m.holds(&m.copies[s], x))
		}
		if c.merges && len(c.may) > 0 && m.stage == Issue {
			c.may = []set{union(c.may)}
		}
		if m.loaded(c) {
			c.sure = true
		}
	}
	m.doubtSources()
	if i, ok := m.byUse[use{tokenBearers, trust.Place{Path: tokensPath}, roleTokens, SettingTokens}]; ok {
		m.startTokens(&m.copies[i])
	}
}

// doubtSources: who reads an object, even at once, is no surer than the object.
// One that is merged keeps the old authority when no file holds it any more.
func (m *model) doubtSources() {
	for i := range m.copies {
		for _, s := range m.copies[i].sources {
			if o := &m.copies[s]; len(o.sources) > 0 && !o.sure {
				m.copies[i].sure = false
			}
		}
	}
}

// startPublished: an object may lag behind the files of its publishers.
func (m *model) startPublished(c *copyOf, now set) {
	lag := copyOf{use: c.use, may: c.may, sure: c.sure}
	lag.role = trust.RoleBundle
	if !m.loaded(c) {
		m.earlier(&lag, now)
	}
	c.may, c.sure = lag.may, lag.sure
	for i := range m.targets {
		if t := &m.targets[i]; m.stage == Drop && slices.Contains(now, t.new) && now.meets(t.old) && !m.loaded(c) {
			c.sure = false
		}
	}
}

// startTokens: tokens of the old key are in use until the old key is dropped.
func (m *model) startTokens(c *copyOf) {
	c.sure = true
	for _, s := range c.signers {
		for _, x := range m.copies[s].may {
			c.may = addSet(c.may, x)
		}
	}
	for t := range m.targets {
		if m.targets[t].name == ServiceAccounts && m.stage == Issue && !m.loaded(c) {
			c.sure = false
			for _, k := range m.targets[t].old {
				c.may = addSet(c.may, set{k})
			}
		}
	}
}

// allSources follows objects back to the files of their publishers.
func (m *model) allSources(c *copyOf) []int {
	var all []int
	for _, s := range c.sources {
		if deeper := m.copies[s].sources; len(deeper) > 0 {
			all = append(all, m.allSources(&m.copies[s])...)
		} else {
			all = append(all, s)
		}
	}
	return all
}

func union(sets []set) set {
	var all set
	for _, s := range sets {
		all = all.with(s)
	}
	return all
}
