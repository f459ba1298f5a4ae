package check

import (
	"slices"

	"github.com/kubepki/kubepki/internal/trust"
)

// conflicts are the settings that a component refuses, as the reader of its
// flags and configuration files found them.
func conflicts(c *Case) []Finding {
	var out []Finding
	for i := range c.Nodes {
		for j := range c.Nodes[i].Components {
			for _, x := range c.Nodes[i].Components[j].Conflicts {
				out = append(out, Finding{Cause: x.Reason, Fix: x.Fix}.at(x.Place))
			}
		}
	}
	return out
}

// foreign tells whether a place holds anchors for servers beside the cluster's
// components alone: there a server's own certificate may stand, which need not be
// an authority.
func (c *Case) foreign(p trust.Place) bool {
	of := slices.DeleteFunc(slices.Clone(c.Bundles), func(b *trust.Bundle) bool { return b.Anchors != p })
	return len(of) > 0 && !slices.ContainsFunc(of, func(b *trust.Bundle) bool { return !b.Foreign })
}
