package plan

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
)

// cases are the clusters and authorities of the tests that change each thing of
// a plan in turn.
func cases() map[string]struct {
	shape
	replace string
} {
	return map[string]struct {
		shape
		replace string
	}{
		"the cluster's authority":                   {shape{controlPlanes: 2, workers: 1, authorities: catalog.Separate, manifests: true, users: true}, catalog.ClusterCA},
		"the cluster's authority, external etcd":    {shape{controlPlanes: 1, workers: 1, externalEtcd: 1, authorities: catalog.Separate, manifests: true, paths: true}, catalog.ClusterCA},
		"the cluster's authority, keys elsewhere":   {shape{controlPlanes: 2, workers: 1, authorities: catalog.Separate, manifests: true, keyless: true}, catalog.ClusterCA},
		"the cluster's authority without manifests": {shape{controlPlanes: 1, workers: 1, authorities: catalog.Separate}, catalog.ClusterCA},
		"stacked etcd's authority":                  {shape{controlPlanes: 3, authorities: catalog.Separate, manifests: true}, catalog.EtcdCA},
		"external etcd's authority":                 {shape{controlPlanes: 2, externalEtcd: 3, authorities: catalog.Separate, manifests: true}, catalog.EtcdCA},
		"the front proxy's authority":               {shape{controlPlanes: 2, authorities: catalog.Separate, manifests: true}, catalog.FrontProxyCA},
		"the kubelets' authority":                   {shape{controlPlanes: 1, workers: 2, authorities: catalog.Separate, manifests: true, kubeletCA: true, paths: true}, catalog.KubeletCA},
		"one authority in two roles":                {shape{controlPlanes: 2, workers: 1, authorities: catalog.Shared, manifests: true}, catalog.ClusterCA},
		"a root above all others":                   {shape{controlPlanes: 2, workers: 1, authorities: catalog.Intermediate, manifests: true, kubeletCA: true}, catalog.RootCA},
		"one authority below a root that stays":     {shape{controlPlanes: 2, workers: 1, authorities: catalog.Intermediate, manifests: true}, below + catalog.ClusterCA},
		"etcd's authority below a root that stays":  {shape{controlPlanes: 2, authorities: catalog.Intermediate, manifests: true}, below + catalog.EtcdCA},
		"the service-account key":                   {shape{controlPlanes: 2, workers: 1, authorities: catalog.Separate, manifests: true}, ServiceAccounts},
	}
}

// eachPlan runs a test for the plan of each case.
func eachPlan(t *testing.T, f func(t *testing.T, p *Plan, prove func([]Step) error, m func() *model)) {
	for name, c := range cases() {
		t.Run(name, func(t *testing.T) {
			g := catalog.Wire(nodesOf(t, c.shape))
			_, r := rotation(t, c.shape, c.replace)
			r.Reloads = newest
			p, err := Rotate(g, r)
			if err != nil {
				t.Fatal(err)
			}
			m, err := newModel(g, &r)
			if err != nil {
				t.Fatal(err)
			}
			fresh := m.clone
			f(t, p, func(steps []Step) error { return fresh().prove(steps) }, fresh)
		})
	}
}

func kinds(steps []Step) string {
	var all []string
	for _, s := range steps {
		all = append(all, string(s.Kind))
	}
	return strings.Join(all, " ")
}

func mustFault(t *testing.T, err error, what string, args ...any) {
	t.Helper()
	var f *Fault
	if !errors.As(err, &f) {
		t.Errorf("%s: not caught (%v)", fmt.Sprintf(what, args...), err)
	}
}

func TestLeavingOutAStepIsCaught(t *testing.T) {
	eachPlan(t, func(t *testing.T, p *Plan, prove func([]Step) error, _ func() *model) {
		for i, s := range p.Steps {
			mustFault(t, prove(slices.Delete(slices.Clone(p.Steps), i, i+1)), "without step %d (%s, %s)", i+1, s.Kind, s.Title)
		}
		mustFault(t, prove(nil), "without any step")
	})
}

// TestSwappingStepsIsCaught: what breaks nothing when swapped is that two parts
// of the drop follow each other of which neither feeds the other. Their order
// serves resuming alone.
func TestSwappingStepsIsCaught(t *testing.T) {
	eachPlan(t, func(t *testing.T, p *Plan, prove func([]Step) error, m func() *model) {
		for i := range p.Steps {
			for j := range i {
				steps := slices.Clone(p.Steps)
				steps[i], steps[j] = steps[j], steps[i]
				err := prove(steps)
				if i == j+1 && !feeds(m(), &p.Steps[j], &p.Steps[i]) {
					if err != nil {
						t.Errorf("steps %d and %d swapped, which is harmless: %v", j+1, i+1, err)
					}
					continue
				}
				mustFault(t, err, "steps %d and %d swapped (%s)", j+1, i+1, kinds(steps))
			}
		}
	})
}

// feeds tells whether a step must come before the one behind it: always, but
// between parts of the drop only where one writes an object of the API that
// merges what the other writes.
func feeds(m *model, first, second *Step) bool {
	if first.Kind != Drop || second.Kind != Drop {
		return true
	}
	for _, object := range second.Changes {
		for _, file := range first.Changes {
			for i := range m.copies {
				c := &m.copies[i]
				if c.merges && c.place == object.Place && slices.ContainsFunc(c.sources, func(s int) bool { return m.copies[s].place == file.Place }) {
					return true
				}
			}
		}
	}
	return false
}

// TestPassingAGateTooEarlyIsCaught leaves out one process that must take up a
// step. Where the process takes part in a judged half that must be caught.
func TestPassingAGateTooEarlyIsCaught(t *testing.T) {
	eachPlan(t, func(t *testing.T, p *Plan, prove func([]Step) error, fresh func() *model) {
		caught, harmless := 0, 0
		for i := range p.Steps {
			for j, l := range p.Steps[i].Loads {
				steps := slices.Clone(p.Steps)
				steps[i].Loads = slices.Delete(slices.Clone(steps[i].Loads), j, j+1)
				err := prove(steps)
				if err != nil {
					caught++
					continue
				}
				harmless++
				if takesPart(fresh(), l) {
					t.Errorf("step %d (%s): %s did not take up %s (%s), and it is not caught", i+1, p.Steps[i].Kind, l.Component, l.Place, l.Setting)
				}
			}
		}
		t.Logf("%d caught, %d harmless: the process judges no link of the graph", caught, harmless)
	})
}

// takesPart tells whether what a load is about is shown, judged by, or read by
// what is judged by.
func takesPart(m *model, l Load) bool {
	i, ok := m.byUse[use{l.Component, l.Place, l.Role, l.Setting}]
	if !ok {
		return true // a file that the plan makes
	}
	for _, h := range m.halves {
		if h.virtual {
			continue
		}
		if h.shown == i || slices.Contains(h.trusts, i) {
			return true
		}
		for _, b := range h.trusts {
			if slices.Contains(m.copies[b].sources, i) || slices.Contains(m.allSources(&m.copies[b]), i) && len(m.copies[b].sources) > 0 && !m.merged(&m.copies[b]) {
				return true
			}
		}
	}
	return false
}

// TestATooHopefulReloadIsCaught: waiting for a process that never reloads, or
// not long enough for one that does, passes no gate.
func TestATooHopefulReloadIsCaught(t *testing.T) {
	eachPlan(t, func(t *testing.T, p *Plan, prove func([]Step) error, fresh func() *model) {
		for i := range p.Steps {
			for j, l := range p.Steps[i].Loads {
				if l.How.Uptake != Restart || !takesPart(fresh(), l) {
					continue
				}
				steps := slices.Clone(p.Steps)
				steps[i].Loads = slices.Clone(steps[i].Loads)
				steps[i].Loads[j].How = Reload{Uptake: AtOnce}
				mustFault(t, prove(steps), "step %d (%s): %s is said to reload %s", i+1, p.Steps[i].Kind, l.Component, l.Place)
			}
			steps := slices.Clone(p.Steps)
			steps[i].Gate.Wait -= time.Second
			slow := slices.ContainsFunc(steps[i].Loads, func(l Load) bool {
				return l.How.Uptake == Within && l.How.Within > steps[i].Gate.Wait && takesPart(fresh(), l)
			})
			if slow {
				mustFault(t, prove(steps), "step %d (%s): a second less of waiting", i+1, p.Steps[i].Kind)
			}
		}
	})
}

// TestLeavingOutAChangeIsCaught: what is harmless is said with its reason.
func TestLeavingOutAChangeIsCaught(t *testing.T) {
	eachPlan(t, func(t *testing.T, p *Plan, prove func([]Step) error, fresh func() *model) {
		for i := range p.Steps {
			for j, ch := range p.Steps[i].Changes {
				steps := slices.Clone(p.Steps)
				steps[i].Changes = slices.Delete(slices.Clone(steps[i].Changes), j, j+1)
				err := prove(steps)
				if err != nil || harmlessWithout(fresh(), p.Steps[i].Kind, ch) {
					continue
				}
				t.Errorf("step %d (%s): without the change of %s %s nothing is caught", i+1, p.Steps[i].Kind, ch.Place, ch.Setting)
			}
		}
	})
}

func harmlessWithout(m *model, k Kind, ch Change) bool {
	switch {
	case k == Switch && m.own(ch.Place):
		return true // only the order of the bundle
	case k == Separate && (ch.Setting == "" || strings.HasSuffix(ch.Setting, "key-file")):
		return true // the model does not follow keys; the signer would not start
	case k == Accept:
		// Nobody judges by it, or nobody judges what is signed anew by it.
		return !slices.ContainsFunc(m.halves, func(h half) bool {
			return !h.virtual && slices.ContainsFunc(h.trusts, func(b int) bool { return m.copies[b].place == ch.Place })
		})
	}
	return false
}

// clone returns a model that may be walked without changing the other.
func (m *model) clone() *model {
	o := *m
	o.files, o.byUse, o.byAt, o.byPlace, o.known = maps.Clone(m.files), maps.Clone(m.byUse), maps.Clone(m.byAt), maps.Clone(m.byPlace), maps.Clone(m.known)
	o.copies, o.halves = slices.Clone(m.copies), slices.Clone(m.halves)
	for i := range o.copies {
		c := &o.copies[i]
		c.may, c.disk, c.signers = slices.Clone(c.may), slices.Clone(c.disk), slices.Clone(c.signers)
	}
	return &o
}
