package plan

import (
	"crypto"
	"crypto/x509"
	"slices"
	"testing"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// TestTheModelAgreesWithTheJudges: for each half of each case, what is shown of
// the old and of the new authority against a bundle of the old, of both, and of
// the new alone: really signed certificates, judged by package trust (which
// asks crypto/x509), and the sets of the model. Old and new have one name.
func TestTheModelAgreesWithTheJudges(t *testing.T) {
	for name, c := range cases() {
		if c.replace == ServiceAccounts {
			continue
		}
		t.Run(name, func(t *testing.T) {
			g := catalog.Wire(nodesOf(t, c.shape))
			k, r := rotation(t, c.shape, c.replace)
			r.Reloads = newest
			m, err := newModel(g, &r)
			if err != nil {
				t.Fatal(err)
			}
			judged, refused := 0, 0
			for i := range g.Links {
				l := &g.Links[i]
				if h := l.Server; h != nil && h.Bundle != nil && !h.Unverified && !g.Unseen(h.Credential, h.Bundle) {
					j, n := agree(t, k, m, l, h.Credential, h.Bundle, func(g *trust.Graph) []trust.Break { return g.JudgeServer(h, at) })
					judged, refused = judged+j, refused+n
				}
				if h := l.Client; h != nil && h.Bundle != nil && !g.Unseen(h.Credential, h.Bundle) {
					j, n := agree(t, k, m, l, h.Credential, h.Bundle, func(g *trust.Graph) []trust.Break { return g.JudgeClient(h, at) })
					judged, refused = judged+j, refused+n
				}
			}
			if judged == 0 || refused == 0 {
				t.Errorf("%d pairs judged, %d refused: want some of both", judged, refused)
			}
			t.Logf("%d pairs judged, %d refused", judged, refused)
		})
	}
}

func agree(t *testing.T, k maker, m *model, l *trust.Link, shown *trust.Credential, by *trust.Bundle, judge func(*trust.Graph) []trust.Break) (judged, refused int) {
	t.Helper()
	old := m.g.Material(shown.Certificate).Certificates
	chains := [][]*x509.Certificate{old}
	for i := range m.targets {
		target := &m.targets[i]
		direct := m.anchors.setOf(m.anchors.issuers(old[0]), nil)
		if !direct.meets(target.old) {
			continue
		}
		anew := k.leaf(old[0], &target.newBy)
		if !slices.Equal(m.anchors.reach(anew), m.anchors.reachIssued(&target.newBy)) {
			t.Errorf("%s: the leaf that was signed reaches other anchors than the one that was planned", shown.Certificate)
		}
		chains = append(chains, anew)
	}
	x := Content{Certificates: m.g.Material(by.Anchors).Certificates}
	for _, chain := range chains {
		for _, bundle := range [][]*x509.Certificate{x.Certificates, m.accepted(x).Certificates, m.dropped(x).Certificates} {
			pair := trust.Graph{Materials: map[trust.Place]*trust.Material{
				shown.Certificate: {Place: shown.Certificate, State: trust.Present, Certificates: chain, Keys: []crypto.PublicKey{chain[0].PublicKey}},
				by.Anchors:        {Place: by.Anchors, State: trust.Present, Certificates: bundle},
			}}
			breaks := judge(&pair)
			abstract := m.anchors.reach(chain).meets(m.anchors.setOf(bundle, nil))
			judged++
			if !abstract {
				refused++
			}
			if abstract != (len(breaks) == 0) {
				t.Errorf("link %d %s → %s: %s against %s: the model says %t, the judge %v", l.Number, l.Caller, l.Callee, shown.Certificate, by.Anchors, abstract, breaks)
			}
		}
	}
	return judged, refused
}

// TestPairsAreEnough compares judging each half by the pairs that its two ends
// may hold with judging each mixture of the whole cluster, one after the other:
// for sound plans and for those with a step left out or two swapped.
func TestPairsAreEnough(t *testing.T) {
	small := shape{controlPlanes: 1, authorities: catalog.Separate, manifests: true}
	for _, name := range []string{catalog.ClusterCA, catalog.EtcdCA, catalog.FrontProxyCA, ServiceAccounts} {
		t.Run(name, func(t *testing.T) {
			g := catalog.Wire(nodesOf(t, small))
			_, r := rotation(t, small, name)
			r.Reloads = newest
			p, err := Rotate(g, r)
			if err != nil {
				t.Fatal(err)
			}
			plans := [][]Step{p.Steps}
			for i := range p.Steps {
				plans = append(plans, slices.Delete(slices.Clone(p.Steps), i, i+1))
				for j := range i {
					swapped := slices.Clone(p.Steps)
					swapped[i], swapped[j] = swapped[j], swapped[i]
					plans = append(plans, swapped)
				}
			}
			broken, mixtures := 0, 0
			for _, steps := range plans {
				m, err := newModel(g, &r)
				if err != nil {
					t.Fatal(err)
				}
				for i := range steps {
					before := m.write(&steps[i])
					pairs := slices.ContainsFunc(m.halves, func(h half) bool { _, bad := m.refused(&h); return bad })
					bad, n := m.someMixtureBreaks()
					mixtures += n
					if pairs != bad {
						t.Fatalf("%s, step %d: by pairs broken %t, by mixtures %t", kinds(steps), i+1, pairs, bad)
					}
					if bad {
						broken++
						break
					}
					m.gate(&steps[i], before)
				}
			}
			if broken == 0 {
				t.Error("no plan was broken: the comparison shows nothing")
			}
			t.Logf("%d plans, %d of them broken, %d mixtures", len(plans), broken, mixtures)
		})
	}
}

// someMixtureBreaks goes through every mixture of what the copies may hold.
func (m *model) someMixtureBreaks() (breaks bool, mixtures int) {
	var free []int
	held := make([]set, len(m.copies))
	for i := range m.copies {
		c := &m.copies[i]
		if len(c.may) > 0 {
			held[i] = c.may[0]
		}
		judged := slices.ContainsFunc(m.halves, func(h half) bool { return h.shown == i || slices.Contains(h.trusts, i) })
		if len(c.may) > 1 && judged {
			free = append(free, i)
		}
	}
	var walk func(n int) bool
	walk = func(n int) bool {
		if n == len(free) {
			mixtures++
			return slices.ContainsFunc(m.halves, func(h half) bool {
				if held[h.shown] == nil {
					return false
				}
				seen := false
				for _, b := range h.trusts {
					if seen = seen || held[b] != nil; held[b].meets(held[h.shown]) {
						return false
					}
				}
				return seen
			})
		}
		for _, s := range m.copies[free[n]].may {
			held[free[n]] = s
			if walk(n + 1) {
				return true
			}
		}
		return false
	}
	return walk(0), mixtures
}
