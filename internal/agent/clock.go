package agent

import (
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

const (
	// jumpAllowed is by how much the wall clock may run away from that of the
	// machine between two looks: NTP slews by less.
	jumpAllowed = time.Minute
	// jumpHolds is for how long nothing is made anew after the clock was set: who
	// set it wrongly has that long to set it right.
	jumpHolds = 10 * time.Minute
	// skewAllowed is how much later than now a certificate may begin: clocks of two
	// machines differ.
	skewAllowed = 5 * time.Minute
)

// Clock is what an agent needs of time.
type Clock interface {
	// Now is the wall clock, which somebody may set.
	Now() time.Time
	// Running is for how long the machine has run, also while it was suspended;
	// nobody can set it.
	Running() time.Duration
}

// steady notices that the wall clock was set. A suspend is none: both clocks go on.
type steady struct {
	wall    time.Time
	running time.Duration
	holds   time.Duration // until then on the machine's clock nothing is made anew
}

// look returns by how much the clock was set since the last look; 0: it was not.
func (s *steady) look(c Clock) (jump time.Duration) {
	wall, running := c.Now().Round(0), c.Running()
	if !s.wall.IsZero() {
		jump = wall.Sub(s.wall) - (running - s.running)
	}
	s.wall, s.running = wall, running
	if jump.Abs() <= jumpAllowed {
		return 0
	}
	s.holds = running + jumpHolds
	return jump
}

// trusted tells whether the clock was left alone for long enough.
func (s *steady) trusted() bool { return s.running >= s.holds }

// behind returns a certificate in use that begins after now: then the clock is wrong,
// or that of whoever signed was. What is made by a clock that is behind would end
// before what it replaces. An anchor that somebody will need later is none.
func behind(g *trust.Graph, now time.Time) (at trust.Place, begins time.Time, found bool) {
	for p, m := range g.Materials {
		if m.Role == trust.RoleBundle {
			continue
		}
		for _, c := range m.Certificates {
			if c.NotBefore.After(now.Add(skewAllowed)) && c.NotBefore.After(begins) {
				at, begins, found = p, c.NotBefore, true
			}
		}
	}
	return at, begins, found
}
