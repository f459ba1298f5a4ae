package renew

import (
	"fmt"

	"github.com/kubepki/kubepki/internal/catalog"
)

// ofDistribution refuses what a distribution makes and keeps itself: it would
// write over what is put there, or not know it. Its own command is the hint. What is
// no node's is refused too.
func (p *planner) ofDistribution(c candidate) error {
	n := p.node(c.node)
	if n.Layout == catalog.LayoutUsers && !p.Users {
		return &Refusal{c.id(), "it is a user's own", "with --users, or by its name, it is renewed too; then hand it out anew"}
	}
	d := catalog.DistributionNamed(n.Layout)
	if d == nil {
		return nil
	}
	server := apiserver(n) != nil
	command := d.Mends.OnUnit(d.Mends.Authority, server)
	if c.authority == nil {
		command = d.Mends.OnUnit(d.Mends.Leaves, server)
		for _, file := range c.paths() {
			if own, _, known := d.Mends.For(catalog.DataOf(n), file, server); known {
				command = own
				break
			}
		}
	}
	if command == "" {
		command = d.Mends.OnUnit(d.Mends.Restart, server)
	}
	name := c.name
	if c.node != "" {
		name = c.node + "/" + name
	}
	return &Refusal{name, fmt.Sprintf("%s makes it and keeps it itself", d.Name), "on the node: " + command}
}
