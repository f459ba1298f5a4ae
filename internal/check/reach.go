package check

import (
	"slices"

	"github.com/kubepki/kubepki/internal/trust"
)

// reach is a half that a finding breaks, by the index of its link.
type reach struct {
	link   int
	server bool
}

// Breaks tells whether the finding breaks one half of a link of the graph that
// was judged: link is the link's index, side is client or server.
func (f *Finding) Breaks(link int, side string) bool {
	return slices.Contains(f.reaches, reach{link, side == "server"})
}

// Places are all places where the finding stands, the root first, with their
// nodes, which the public form has for the root alone.
func (f *Finding) Places() []trust.Place { return f.places }
