package rollover_test

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/rollover"
)

// A world has issuers with Secrets, applications that read them late, and writes that come
// late. The second issuer, where there is one, has its CA of the first: an intermediate, in
// a Secret that the first writes. What the world does next is drawn.
type world struct {
	draw func(n int) int // of 0 … n-1

	now                 time.Time
	read, flight, looks time.Duration // bounds: of readers, of writes under way, between looks
	issuers             []*issuer
	secrets             []*secret
	made, changes       int
	failure             string

	// Worlds that are to fail: the issuer below does not publish what the one above does,
	// and the one above does not wait for the one below.
	deaf, alone bool
}

type issuer struct {
	set              rollover.Settings
	record           rollover.Record
	plan             rollover.Plan
	looked           time.Time
	current          rollover.Anchor
	beside           []rollover.Anchor
	changed          bool // the CA, since it was looked at
	held, alwaysHeld bool
}

type bundle map[rollover.ID]bool

// content is what a Secret holds, or an application has read of it.
type content struct {
	leaf   rollover.ID
	bundle bundle
}

type secret struct {
	content
	of       *issuer
	ca       *issuer // that signs with it, where it is no application's
	seed     string
	failed   bool      // to be issued, the last time
	writing  *content  // a write that is under way
	deadline time.Time // when it is done
	// The application reads the pair and the bundle each in its own time.
	shown, trusted         content
	shownLate, trustedLate time.Time // until when it has read again; zero: it is up to date
}

func newWorld(draw func(int) int, accept func(read, flight, looks time.Duration) time.Duration) *world {
	w := &world{draw: draw, now: time.Unix(1e9, 0), made: 1}
	w.read, w.flight, w.looks = w.seconds(40), w.seconds(10), w.seconds(10)+time.Second
	set := rollover.Settings{Accept: accept(w.read, w.flight, w.looks), Window: w.seconds(120)}
	root := &issuer{set: set, held: true, alwaysHeld: draw(2) == 0, current: w.authority(1)}
	w.issuers = append(w.issuers, root)
	w.look(root)
	if draw(2) == 0 {
		below := &issuer{set: set, held: true, alwaysHeld: true}
		w.issuers = append(w.issuers, below)
		w.secrets = append(w.secrets, &secret{of: root, ca: below, content: w.begin(root)})
		w.look(below)
	}
	for range 2 + draw(4) {
		w.create()
	}
	return w
}

func (w *world) seconds(n int) time.Duration { return time.Duration(w.draw(n)) * time.Second }

func (w *world) authority(n int) rollover.Anchor {
	end := time.Unix(1e9+1e6, 0)
	return rollover.Anchor{ID: rollover.ID{byte(n)}, Certificate: [32]byte{byte(n)}, NotAfter: end, SignsUntil: end}
}

// look is what the loop of issuers does.
func (w *world) look(i *issuer) {
	for _, s := range w.secrets {
		if s.ca != i {
			continue
		}
		i.current, i.beside = w.authority(int(s.leaf[0])), nil
		for id := range s.bundle {
			if id != s.leaf && !w.deaf {
				i.beside = append(i.beside, w.authority(int(id[0])))
			}
		}
	}
	seen := rollover.Seen{Current: i.current, Beside: i.beside, Held: i.held, Leaves: map[rollover.ID]int{}, Own: map[rollover.ID]int{}, Lacking: map[rollover.ID]int{}}
	for _, s := range w.secrets {
		seen.Leaves[s.leaf]++
		if s.of == i {
			seen.Own[s.leaf]++
		}
		if s.of == i && s.failed {
			seen.Failing++
		}
		for id := range i.wanted() {
			if !s.bundle[id] && s.of.wanted()[id] && (s.of == i || !w.alone) { // who does not publish it is not waited for
				seen.Lacking[id]++
			}
		}
	}
	seen.Anew = seen.Own[i.record.Signing]
	i.record, i.plan = rollover.Next(i.record, seen, i.set, w.now)
	i.looked, i.changed = w.now, false
	if i.record.Signing == i.current.ID {
		i.held = true // of the next change, if it is ours
	}
}

func (i *issuer) wanted() bundle {
	b := bundle{}
	for _, a := range i.record.Anchors {
		b[a.ID] = true
	}
	return b
}

// begin starts to issue a leaf.
func (w *world) begin(i *issuer) content {
	if i.changed {
		w.look(i) // nothing is signed with what has not been looked at
	}
	return content{i.record.Signing, i.wanted()}
}

func (w *world) create() {
	i := w.issuers[w.draw(len(w.issuers))]
	if len(w.secrets) > 8 || w.late(i) {
		return
	}
	c := w.begin(i)
	if w.late(i) {
		return
	}
	s := &secret{of: i, seed: fmt.Sprint(len(w.secrets)), content: c, shown: c, trusted: c}
	w.secrets = append(w.secrets, s)
}

// late tells whether the new CA signs before it is accepted, for the old key is gone:
// what is issued then is not carried over.
func (w *world) late(i *issuer) bool {
	return i.changed && !i.held || !i.plan.Hold.IsZero() && w.now.Before(i.plan.Hold)
}

// work is what the loop of Certificates does on one: a write that takes its time, or an
// issuance that fails.
func (w *world) work(s *secret, renew, fails bool) {
	i := s.of
	if s.writing != nil {
		return
	}
	due := i.plan.Due(rollover.Leaf{Anchor: s.leaf, Seed: s.seed, Failed: s.failed})
	switch {
	case !i.changed && !due.IsZero() && !w.now.Before(due), renew && !w.late(i):
		if fails {
			s.failed = true
			return
		}
		c := w.begin(i)
		if w.late(i) && c.leaf != s.leaf {
			return
		}
		s.writing, s.failed = &c, false
	case !maps.Equal(s.bundle, i.wanted()):
		s.writing = &content{s.leaf, i.wanted()}
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
	if s.ca != nil {
		s.ca.changed = true
		return
	}
	if s.shownLate.IsZero() {
		s.shownLate = w.now.Add(w.read)
	}
	if s.trustedLate.IsZero() {
		s.trustedLate = w.now.Add(w.read)
	}
}

// lose removes a Secret, which is issued anew at once: its application reads that late.
func (w *world) lose(s *secret) {
	if s.ca != nil || w.late(s.of) {
		return
	}
	c := w.begin(s.of)
	if w.late(s.of) {
		return
	}
	s.writing = &c
	w.commit(s)
}

// change has another CA in the place of the current one, or one that was there before.
func (w *world) change() {
	i := w.issuers[0]
	if i.changed || w.changes > 4 {
		return
	}
	w.changes++
	n := w.draw(w.made+1) + 1
	w.made = max(w.made, n)
	if i.current.ID == w.authority(n).ID {
		return
	}
	if i.record.Signing == i.current.ID {
		i.held = i.alwaysHeld || w.draw(2) == 0
	}
	i.current, i.changed = w.authority(n), true
}

// step does one thing that is drawn, and what must not wait any longer.
func (w *world) step() {
	s := w.secrets[w.draw(len(w.secrets))]
	switch w.draw(14) {
	case 0:
		w.change()
	case 1:
		w.create()
	case 2:
		w.look(w.issuers[w.draw(len(w.issuers))])
	case 3:
		w.work(s, true, false)
	case 4, 5, 6:
		w.work(s, false, false)
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
		for _, i := range w.issuers {
			i.plan = rollover.Plan{}
			w.look(i)
		}
	case 11:
		w.now = w.now.Add(w.seconds(20))
	case 12:
		w.work(s, false, true)
	case 13:
		w.lose(s)
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
		for _, i := range w.issuers {
			sooner(i.looked.Add(w.looks), func() { w.look(i) })
		}
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
			if a.ca == nil && b.ca == nil && !b.trusted.bundle[a.shown.leaf] && w.failure == "" {
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
		for _, i := range w.issuers {
			w.look(i)
		}
		for _, s := range w.secrets {
			w.work(s, false, false)
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
	current := w.issuers[0].current.ID
	for _, s := range w.secrets {
		if s.ca == nil && (s.shown.leaf != current || !maps.Equal(s.trusted.bundle, bundle{current: true})) {
			return false
		}
	}
	for _, i := range w.issuers {
		if i.plan.Phase != rollover.Steady || i.record.Signing != current {
			return false
		}
	}
	return true
}
