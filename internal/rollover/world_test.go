package rollover_test

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/rollover"
)

// A world is an issuer with Secrets, applications that read them late, and writes that
// come late. What it does next is drawn.
type world struct {
	draw func(n int) int // of 0 … n-1

	now                 time.Time
	read, flight, looks time.Duration // bounds: of readers, of writes under way, between looks
	set                 rollover.Settings
	record              rollover.Record
	plan                rollover.Plan
	looked              time.Time
	current             rollover.Anchor
	changed             bool // the CA, since it was looked at
	held, alwaysHeld    bool
	secrets             []*secret
	made, changes       int
	failure             string
}

type bundle map[rollover.ID]bool

// content is what a Secret holds, or an application has read of it.
type content struct {
	leaf   rollover.ID
	bundle bundle
}

type secret struct {
	content
	seed     string
	writing  *content  // a write that is under way
	deadline time.Time // when it is done
	// The application reads the pair and the bundle each in its own time.
	shown, trusted         content
	shownLate, trustedLate time.Time // until when it has read again; zero: it is up to date
}

func newWorld(draw func(int) int, accept func(read, flight, looks time.Duration) time.Duration) *world {
	w := &world{draw: draw, now: time.Unix(1e9, 0), held: true, alwaysHeld: draw(2) == 0}
	w.read, w.flight, w.looks = w.seconds(40), w.seconds(10), w.seconds(10)+time.Second
	w.set = rollover.Settings{Accept: accept(w.read, w.flight, w.looks), Window: w.seconds(120)}
	w.current = w.authority(1)
	w.made = 1
	w.look()
	for range 2 + draw(4) {
		w.create()
	}
	return w
}

func (w *world) seconds(n int) time.Duration { return time.Duration(w.draw(n)) * time.Second }

func (w *world) authority(n int) rollover.Anchor {
	end := w.now.Add(1e6 * time.Second)
	return rollover.Anchor{ID: rollover.ID{byte(n)}, Certificate: [32]byte{byte(n)}, NotAfter: end, SignsUntil: end}
}

// look is what the loop of issuers does.
func (w *world) look() {
	seen := rollover.Seen{Current: w.current, Held: w.held, Leaves: map[rollover.ID]int{}, Lacking: map[rollover.ID]int{}}
	wanted := w.wanted()
	for _, s := range w.secrets {
		seen.Leaves[s.leaf]++
		for id := range wanted {
			if !s.bundle[id] {
				seen.Lacking[id]++
			}
		}
	}
	w.record, w.plan = rollover.Next(w.record, seen, w.set, w.now)
	w.looked, w.changed = w.now, false
	if w.record.Signing == w.current.ID {
		w.held = true // of the next change, if it is ours
	}
}

func (w *world) wanted() bundle {
	b := bundle{}
	for _, a := range w.record.Anchors {
		b[a.ID] = true
	}
	return b
}

// begin starts to issue a leaf.
func (w *world) begin() content {
	if w.changed {
		w.look() // nothing is signed with what has not been looked at
	}
	return content{w.record.Signing, w.wanted()}
}

func (w *world) create() {
	if len(w.secrets) > 8 || w.late() {
		return
	}
	c := w.begin()
	if w.late() {
		return
	}
	s := &secret{seed: fmt.Sprint(len(w.secrets)), content: c, shown: c, trusted: c}
	w.secrets = append(w.secrets, s)
}

// late tells whether the new CA signs before it is accepted, for the old key is gone:
// what is issued then is not carried over.
func (w *world) late() bool {
	return w.changed && !w.held || !w.plan.Hold.IsZero() && w.now.Before(w.plan.Hold)
}

// work is what the loop of Certificates does on one: a write that takes its time.
func (w *world) work(s *secret, renew bool) {
	if s.writing != nil {
		return
	}
	due := w.plan.Due(s.leaf, s.seed)
	switch {
	case !w.changed && !due.IsZero() && !w.now.Before(due), renew && !w.late():
		c := w.begin()
		if w.late() && c.leaf != s.leaf {
			return
		}
		s.writing = &c
	case !maps.Equal(s.bundle, w.wanted()):
		s.writing = &content{s.leaf, w.wanted()}
	default:
		return
	}
	s.deadline = w.now.Add(w.flight)
}

func (w *world) commit(s *secret) {
	if s.writing == nil {
		return
	}
	s.content, s.writing = *s.writing, nil
	if s.shownLate.IsZero() {
		s.shownLate = w.now.Add(w.read)
	}
	if s.trustedLate.IsZero() {
		s.trustedLate = w.now.Add(w.read)
	}
}

// change has another CA in the place of the current one, or one that was there before.
func (w *world) change() {
	if w.changed || w.changes > 4 {
		return
	}
	w.changes++
	n := w.draw(w.made+1) + 1
	w.made = max(w.made, n)
	if w.current.ID == w.authority(n).ID {
		return
	}
	if w.record.Signing == w.current.ID {
		w.held = w.alwaysHeld || w.draw(2) == 0
	}
	w.current, w.changed = w.authority(n), true
}

// step does one thing that is drawn, and what must not wait any longer.
func (w *world) step() {
	s := w.secrets[w.draw(len(w.secrets))]
	switch w.draw(12) {
	case 0:
		w.change()
	case 1:
		w.create()
	case 2:
		w.look()
	case 3:
		w.work(s, true)
	case 4, 5, 6:
		w.work(s, false)
	case 7:
		w.commit(s)
	case 8:
		s.shown, s.shownLate = s.content, time.Time{}
	case 9:
		s.trusted, s.trustedLate = s.content, time.Time{}
	case 10: // the process ends, and begins anew with what it has kept
		for _, s := range w.secrets {
			s.writing = nil
		}
		w.look()
	case 11:
		w.now = w.now.Add(w.seconds(20))
	}
	w.overdue()
}

// overdue does all that must be done by now, in the order of time.
func (w *world) overdue() {
	end := w.now
	for {
		at, do := end, func() {}
		sooner := func(t time.Time, f func()) {
			if t.Before(at) {
				at, do = t, f
			}
		}
		sooner(w.looked.Add(w.looks), w.look)
		for _, s := range w.secrets {
			if s.writing != nil {
				sooner(s.deadline, func() { w.commit(s) })
			}
			if !s.shownLate.IsZero() {
				sooner(s.shownLate, func() { s.shown, s.shownLate = s.content, time.Time{} })
			}
			if !s.trustedLate.IsZero() {
				sooner(s.trustedLate, func() { s.trusted, s.trustedLate = s.content, time.Time{} })
			}
		}
		if !at.Before(end) {
			break
		}
		w.now = at
		do()
		w.verify()
	}
	w.now = end
	w.verify()
}

// verify has each application show its certificate to each.
func (w *world) verify() {
	for i, a := range w.secrets {
		for j, b := range w.secrets {
			if !b.trusted.bundle[a.shown.leaf] && w.failure == "" {
				w.failure = fmt.Sprintf("%d shows a certificate of %d to %d, which trusts %v", i, a.shown.leaf[0], j, slices.Collect(maps.Keys(b.trusted.bundle)))
			}
		}
	}
}

// settle lets the world go on, everybody doing their work, and tells whether it ends.
func (w *world) settle() bool {
	for range 400 {
		w.now = w.now.Add(5 * time.Second)
		w.overdue()
		w.look()
		for _, s := range w.secrets {
			w.work(s, false)
			w.commit(s)
		}
		w.verify()
		if w.ended() {
			return true
		}
	}
	return false
}

func (w *world) ended() bool {
	for _, s := range w.secrets {
		if s.shown.leaf != w.current.ID || !maps.Equal(s.trusted.bundle, bundle{w.current.ID: true}) {
			return false
		}
	}
	return w.plan.Phase == rollover.Steady && w.record.Signing == w.current.ID
}
