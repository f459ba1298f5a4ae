package check

import (
	"fmt"
	"slices"

	"github.com/kubepki/kubepki/internal/trust"
)

// roots keeps the findings that are causes: a finding that took for good a
// place where another finds the fault is that other's consequence. Each break
// that no finding explains gets one, so that no half is broken for no reason.
func (c *Case) roots(findings []Finding) []Finding {
	slices.SortStableFunc(findings, func(a, b Finding) int { return a.precedence() - b.precedence() })
	var roots []Finding
	for _, f := range findings {
		if i := slices.IndexFunc(roots, func(r Finding) bool { return r.explains(f) }); i >= 0 {
			roots[i].follow(f)
			continue
		}
		roots = append(roots, f)
	}
	roots = append(roots, c.unexplained(roots)...)
	for i := range roots {
		c.number(&roots[i])
	}
	slices.SortStableFunc(roots, compareFindings)
	return roots
}

// precedence is the rule's, but for warnings: they never hide an error.
func (f Finding) precedence() int {
	if f.Severity == Error && !f.follows.IsZero() {
		return max(ruleIndex(f.ID), ruleIndex("root-ca-mismatch")) // after that which explains it
	}
	if f.Severity == Error {
		return ruleIndex(f.ID)
	}
	return len(rules) + ruleIndex(f.ID)
}

// stillRead are the faults of a file that keep no server from taking it up: what
// a running process does otherwise has another cause.
var stillRead = []string{"key-permissions", "ca-key-mismatch", "signer-not-single"}

// explains tells whether g merely follows from f.
func (f Finding) explains(g Finding) bool {
	if !g.follows.IsZero() && slices.Contains(f.places, g.follows) {
		return true
	}
	if !f.cascade && !(g.live && f.Severity == Error) {
		return false
	}
	if g.live && slices.Contains(stillRead, f.ID) {
		return false
	}
	return slices.ContainsFunc(g.needs, f.blames) ||
		len(g.bundles) > 0 && !slices.ContainsFunc(g.bundles, func(p trust.Place) bool { return !f.blames(p) })
}

// blames tells whether a finding says that what stands at a place is wrong.
func (f Finding) blames(need trust.Place) bool {
	return slices.ContainsFunc(f.places, func(p trust.Place) bool {
		return (p == need || p.Field == "" && p == need.File()) && !slices.Contains(f.shown, p)
	})
}

func (f *Finding) follow(g Finding) {
	for _, p := range g.places {
		c := Consequence{ID: g.ID, Path: p.Path, Node: p.Node}
		if !slices.Contains(f.Consequences, c) {
			f.Consequences = append(f.Consequences, c)
		}
	}
	f.breaks = append(f.breaks, g.breaks...)
}

// number sets the numbers of the links that a finding breaks.
func (c *Case) number(f *Finding) {
	for _, b := range f.breaks {
		if n := c.Links[c.Breaks[b].Link].Number; !slices.Contains(f.Links, n) {
			f.Links = append(f.Links, n)
		}
	}
	slices.Sort(f.Links)
	f.Links = slices.Compact(f.Links)
	// Lists are never null in machine output.
	f.Links, f.Paths = append([]int{}, f.Links...), append([]string{}, f.Paths...)
	f.Consequences = append([]Consequence{}, f.Consequences...)
}

func (c *Case) unexplained(findings []Finding) []Finding {
	explained := map[int]bool{}
	for _, f := range findings {
		for _, b := range f.breaks {
			explained[b] = true
		}
	}
	var out []Finding
	for i, b := range c.Breaks {
		if explained[i] {
			continue
		}
		f := Finding{ID: "authority-unknown", Severity: Error, breaks: []int{i},
			Cause: fmt.Sprintf("the other side refuses %s (%s)", base(b.Place.Path), b.Kind)}
		out = append(out, f.at(b.Place))
	}
	return out
}

// withBreaks adds to a finding the breaks that pick accepts.
func (c *Case) withBreaks(f Finding, pick func(Break) bool) Finding {
	for i, b := range c.Breaks {
		if pick(b) {
			f.breaks = append(f.breaks, i)
		}
	}
	return f
}

// breaksOf adds all breaks of some kinds at the places of the finding.
func (c *Case) breaksOf(f Finding, kinds ...trust.Kind) Finding {
	return c.withBreaks(f, func(b Break) bool {
		return slices.Contains(kinds, b.Kind) && slices.ContainsFunc(f.places, func(p trust.Place) bool {
			return p == b.Place || p.Field == "" && p == b.Place.File()
		})
	})
}
