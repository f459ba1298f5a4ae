package renew

import (
	"path"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// Refused is one credential that is not made anew, and why.
type Refused struct {
	Certificate trust.Place
	Name, Node  string
	Reason      error // a [*Refusal] where there is something to do
}

// Each plans the credentials whose certificates stand at places, each by itself: one
// that is refused keeps no other from being planned. Both answers are in the order of
// the graph. A place that is no credential's is passed over.
func Each(g *trust.Graph, findings []check.Finding, places []trust.Place, o Options) ([]*Item, []Refused) {
	p := newPlanner(g, findings, o)
	wanted := map[trust.Place]bool{}
	for _, at := range places {
		wanted[trust.Place{Node: at.Node, Path: path.Clean(at.Path)}] = true
	}
	var items []*Item
	var refused []Refused
	for _, c := range p.candidates() {
		if c.authority != nil || c.absent || !wanted[c.credential.Certificate.File()] {
			continue
		}
		item, err := p.item(c)
		if err != nil {
			refused = append(refused, Refused{Certificate: c.credential.Certificate, Name: c.name, Node: c.node, Reason: err})
			continue
		}
		items = append(items, item)
	}
	return p.withCopies(items), refused
}
