package plan

import (
	"crypto"
	"maps"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// world is a cluster while a plan is carried out: what stands on its disks, and
// beside it what each process truly holds, which no file tells.
type world struct {
	maker
	nodes []trust.Node
	held  map[use]set
}

func newWorld(k maker, nodes []trust.Node, m *model) *world {
	w := &world{maker: k, held: map[use]set{}}
	for _, n := range nodes {
		n.Materials = slices.Clone(n.Materials)
		n.Components = slices.Clone(n.Components)
		for i := range n.Components {
			n.Components[i].Flags = maps.Clone(n.Components[i].Flags)
		}
		w.nodes = append(w.nodes, n)
	}
	for i := range m.copies {
		if c := &m.copies[i]; len(c.may) > 0 {
			w.held[c.use] = c.may[0]
		}
	}
	return w
}

func (w *world) graph() *trust.Graph { return catalog.Wire(w.nodes) }

// apply writes one change to the disks.
func (w *world) apply(ch Change) {
	for i := range w.nodes {
		n := &w.nodes[i]
		if n.Name != ch.Place.Node {
			continue
		}
		if ch.Setting != "" {
			for j := range n.Components {
				if c := &n.Components[j]; c.ID() == ch.Component {
					c.Flags[ch.Setting] = []string{ch.Place.Path}
				}
			}
			continue
		}
		w.put(n, ch)
	}
}

func (w *world) put(n *trust.Node, ch Change) {
	at := slices.IndexFunc(n.Materials, func(m *trust.Material) bool { return m.Place == ch.Place })
	m := &trust.Material{Place: ch.Place, Role: ch.Role, State: trust.Present}
	if at >= 0 {
		had := *n.Materials[at]
		m = &had
	} else {
		n.Materials = append(n.Materials, m)
		at = len(n.Materials) - 1
	}
	n.Materials[at] = m
	switch {
	case ch.After.IssuedBy != nil:
		m.Certificates = w.leaf(m.Certificates[0], ch.After.IssuedBy)
		if len(m.Keys) > 0 {
			m.Keys = []crypto.PublicKey{m.Certificates[0].PublicKey}
		}
	case len(ch.After.Keys) > 0:
		m.Keys = ch.After.Keys
	default:
		m.Certificates = ch.After.Certificates
	}
}

// mix takes a part of a step: some of its changes are written, some of the
// processes have taken them up, objects are published and read or not yet. m is
// the model before the step.
func (w *world) mix(t *rapid.T, m *model, s *Step) {
	written, moved := map[trust.Place]bool{}, map[string]bool{}
	for _, ch := range s.Changes {
		if ch.Setting == "" && (s.Kind == Separate || rapid.Bool().Draw(t, "written")) {
			w.apply(ch)
			written[ch.Place] = true
		}
		if _, asked := moved[ch.Component]; ch.Setting != "" && !asked {
			moved[ch.Component] = rapid.Bool().Draw(t, "flags are changed") // all flags of a manifest at once
		}
	}
	for _, ch := range s.Changes {
		if ch.Setting != "" && moved[ch.Component] {
			w.apply(ch)
		}
	}
	w.load(t, m, written)
	w.restart(t, s, moved)
	w.carry(t, m)
}

// load lets each process that reads what was written take it up, or not yet.
func (w *world) load(t *rapid.T, m *model, written map[trust.Place]bool) {
	g := w.graph()
	for i := range m.copies {
		c := &m.copies[i]
		if len(c.may) == 0 || len(c.sources) > 0 || !written[c.place] {
			continue
		}
		x := Content{}
		if f := g.Material(c.place); f.OK() {
			x = Content{Certificates: f.Certificates, Keys: f.Keys}
		}
		if m.r.reload(c).Uptake == AtOnce || rapid.Bool().Draw(t, "loaded") {
			w.held[c.use] = m.holds(c, x)
		}
	}
}

// restart lets each process whose flags were changed start anew, or not yet.
func (w *world) restart(t *rapid.T, s *Step, moved map[string]bool) {
	for _, ch := range s.Changes {
		if ch.Setting == "" || !moved[ch.Component] || !strings.HasSuffix(ch.Setting, "cert-file") {
			continue
		}
		was, now := use{ch.Component, ch.Was, roleSigner, ch.Setting}, use{ch.Component, ch.Place, roleSigner, ch.Setting}
		if held, ok := w.held[was]; ok && rapid.Bool().Draw(t, "restarted") {
			w.held[now] = held
			delete(w.held, was)
		}
	}
}

// carry lets objects be published, and read.
func (w *world) carry(t *rapid.T, m *model) {
	for _, objects := range []bool{true, false} {
		for i := range m.copies {
			c := &m.copies[i]
			if len(c.sources) == 0 || objects != (c.component == publisher) {
				continue
			}
			for _, s := range c.sources {
				from, ok := w.held[m.copies[s].use]
				if !ok || !rapid.Bool().Draw(t, "carried") {
					continue
				}
				if c.merges {
					from = from.with(w.held[c.use])
				}
				w.held[c.use] = from
			}
		}
	}
}

// finish completes a step: all is written and taken up.
func (w *world) finish(t *rapid.T, m *model, s *Step) {
	for _, ch := range s.Changes {
		w.apply(ch)
	}
	before := m.write(s)
	m.gate(s, before)
	w.held = map[use]set{}
	for i := range m.copies {
		c := &m.copies[i]
		if len(c.may) > 1 && len(c.signers) == 0 {
			t.Fatalf("after the gate of %s, %s may hold of %s: %s", s.Kind, c.component, c.place, m.describeAll([]int{i}))
		}
		if len(c.may) > 0 {
			// The one that stands there, or one that was renewed since.
			w.held[c.use] = rapid.SampledFrom(c.may).Draw(t, "renewed")
		}
	}
}

// named gives a set the names of its anchors, which are the same in each model.
func (m *model) named(s set) []string {
	var all []string
	for name, n := range m.anchors.numbers {
		if slices.Contains(s, n) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}
