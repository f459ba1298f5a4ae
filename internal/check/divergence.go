package check

import (
	"fmt"
	"slices"

	"github.com/kubepki/kubepki/internal/trust"
)

// haDivergence is said once for an authority that the control planes do not
// share though each works with its own; the nodes that stand alone come first.
func haDivergence(c *Case) []Finding {
	var out []Finding
	for _, name := range c.authorityNames() {
		odd, others := c.divided(name)
		if len(odd) == 0 {
			continue
		}
		f := Finding{
			Cause: fmt.Sprintf("authority %s of %s has no key in common with that of %s: each works alone, not with the other", base(odd[0].Path), odd[0].Node, others[0].Node),
			Fix:   takeOver(odd[0], others[0]),
		}.at(append(odd, others...)...)
		for _, t := range c.trust {
			if t.class == diverged && t.own != nil && t.own.Name == name {
				f.breaks = append(f.breaks, t.at)
			}
		}
		out = append(out, f)
	}
	return out
}

// divided splits the control planes by the authority of a name that each holds
// and that signs there: those that stand alone, and the most. Both are empty
// when all agree.
func (c *Case) divided(name string) (odd, others []trust.Place) {
	var groups [][]trust.Authority
	for _, a := range c.Authorities {
		if a.Name != name || !c.controlPlane(a.Node) || c.certificateOf(a) == nil || !c.signs(&a) {
			continue
		}
		same := func(g []trust.Authority) bool {
			return slices.ContainsFunc(c.certificateOf(a).Certificates, func(x certificate) bool { return hasKeyOf(c.certificateOf(g[0]), x) })
		}
		if i := slices.IndexFunc(groups, same); i >= 0 {
			groups[i] = append(groups[i], a)
		} else {
			groups = append(groups, []trust.Authority{a})
		}
	}
	if len(groups) < 2 {
		return nil, nil
	}
	most := slices.MaxFunc(groups, func(x, y []trust.Authority) int { return len(x) - len(y) })
	for _, g := range groups {
		for _, a := range g {
			if g[0].Certificate == most[0].Certificate {
				others = append(others, a.Certificate)
			} else {
				odd = append(odd, a.Certificate)
			}
		}
	}
	return odd, others
}
