package recovery

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// Sign tells what a [Clue] is.
type Sign string

// The signs of a time that has been.
const (
	Written  Sign = "written"  // a file was written then
	Begins   Sign = "begins"   // a certificate begins then
	Answered Sign = "answered" // another machine says that it is then, now
)

// Clue is something that tells that a time has been.
type Clue struct {
	Time  time.Time
	Sign  Sign
	Place trust.Place // of the file; of an answer its Path is the server
}

// String says what the clue is, as the end of a sentence.
func (c Clue) String() string {
	at := c.Time.UTC().Format(time.RFC3339)
	switch c.Sign {
	case Begins:
		return fmt.Sprintf("a certificate in %s begins at %s", c.Place.File(), at)
	case Answered:
		return fmt.Sprintf("%s says that it is %s", c.Place.Path, at)
	}
	return fmt.Sprintf("%s was written at %s", c.Place.File(), at)
}

// Clock is a clock that may be wrong, and what speaks for and against it.
type Clock struct {
	Now   time.Time
	Clues []Clue
	// Unsynchronised tells that the kernel knows its clock to follow no other.
	Unsynchronised bool
}

// How far a clock and a clue may be apart.
const (
	// Tolerance is what two machines' clocks may differ, and more than what
	// certificates are begun early for that.
	Tolerance = 10 * time.Minute
	// longest is how long nothing was written in a cluster that somebody still wants
	// back: after that the clock is doubted first.
	longest = 2 * 365 * 24 * time.Hour
	// longestAlone is the same where the kernel says that nobody sets its clock.
	longestAlone = 180 * 24 * time.Hour
)

// Doubt is why a clock is not believed.
type Doubt struct {
	Ahead bool // the clock is after the true time; else before it
	Clue  Clue
	Now   time.Time
	More  int // other clues that say the same
	Alone bool
}

// String says what the clock says and what the clue says, in one sentence.
func (d *Doubt) String() string {
	now, apart := d.Now.UTC().Format(time.RFC3339), roughly(d.Clue.Time.Sub(d.Now).Abs())
	more := ""
	if d.More > 0 {
		more = fmt.Sprintf(" (and %d more are later than the clock)", d.More)
	}
	switch {
	case d.Clue.Sign == Answered:
		return fmt.Sprintf("the clock of this machine says %s, but %s: they are %s apart", now, d.Clue, apart)
	case !d.Ahead:
		return fmt.Sprintf("the clock of this machine says %s, but %s, %s later%s: the clock is behind", now, d.Clue, apart, more)
	case d.Alone:
		return fmt.Sprintf("the clock of this machine says %s and follows no time server, and nothing of the cluster is newer than %s before: %s", now, apart, d.Clue)
	}
	return fmt.Sprintf("the clock of this machine says %s, and nothing of the cluster is newer than %s before: %s", now, apart, d.Clue)
}

// Doubt returns why the clock is not to be believed; nil when nothing speaks against
// it. It cannot tell a machine that was off for long from one whose clock went ahead:
// after two years without a trace, or half of one where the kernel says that its clock
// follows no other, it asks.
func (c Clock) Doubt() *Doubt {
	var behind []Clue
	var last *Clue
	for i, o := range c.Clues {
		late := o.Time.Sub(c.Now)
		switch {
		case o.Sign == Answered && late.Abs() > Tolerance:
			return &Doubt{Ahead: late < 0, Clue: o, Now: c.Now}
		case o.Sign == Answered:
		case late > Tolerance:
			behind = append(behind, o)
		case last == nil || o.Time.After(last.Time):
			last = &c.Clues[i]
		}
	}
	if len(behind) > 0 {
		latest := slices.MaxFunc(behind, func(a, b Clue) int { return cmp.Or(a.Time.Compare(b.Time), b.Place.Compare(a.Place)) })
		return &Doubt{Clue: latest, Now: c.Now, More: len(behind) - 1}
	}
	if last == nil || c.answered() {
		return nil
	}
	switch silent := c.Now.Sub(last.Time); {
	case silent > longest:
		return &Doubt{Ahead: true, Clue: *last, Now: c.Now}
	case silent > longestAlone && c.Unsynchronised:
		return &Doubt{Ahead: true, Clue: *last, Now: c.Now, Alone: true}
	}
	return nil
}

// answered tells that another machine's clock agrees.
func (c Clock) answered() bool {
	return slices.ContainsFunc(c.Clues, func(o Clue) bool { return o.Sign == Answered })
}

// Last is the newest clue that is not after now: when the cluster was last seen to
// do something. Nil when there is none.
func (c Clock) Last() *Clue {
	var last *Clue
	for i, o := range c.Clues {
		if o.Sign != Answered && !o.Time.After(c.Now.Add(Tolerance)) && (last == nil || o.Time.After(last.Time)) {
			last = &c.Clues[i]
		}
	}
	return last
}

// CluesOf are the beginnings of the certificates of a graph.
func CluesOf(g *trust.Graph) []Clue {
	var clues []Clue
	for i := range g.Nodes {
		for _, m := range g.Nodes[i].Materials {
			for _, x := range m.Certificates {
				clues = append(clues, Clue{Time: x.NotBefore, Sign: Begins, Place: m.Place})
			}
		}
	}
	return clues
}

// roughly says how long a time is, in the unit that people would choose.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{365 * day, "years"}, {day, "days"}, {time.Hour, "hours"}} {
		if d >= 2*unit.length {
			return fmt.Sprintf("%d %s", d/unit.length, unit.name)
		}
	}
	return fmt.Sprintf("%d minutes", d/time.Minute)
}
