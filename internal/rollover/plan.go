package rollover

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"
)

// ID names an anchor by its subject and key: certificates of one CA that was renewed with
// its key have the same, for each verifies what the other does.
type ID [16]byte

// Anchor is a CA that readers of an issuer trust. Zero times are of what has not
// happened.
type Anchor struct {
	ID          ID
	Certificate [32]byte // SHA-256 sum of its DER
	NotAfter    time.Time
	// SignsUntil is when the first certificate of the issuer's chain ends: nothing that
	// was signed lives longer.
	SignsUntil time.Time
	// Published is since when no place has lacked it.
	Published time.Time
	// Unused is since when no live leaf of it has been seen.
	Unused time.Time
	// Others is the end of the last certificate that was given to somebody whose Secrets
	// nobody sees.
	Others time.Time
	// Order are the ends that part its leaves into groups of one size, as they were when
	// the next CA began to sign: those that end first are issued anew first. Empty: nobody
	// has counted them.
	Order []time.Time
}

// Record is what is remembered of an issuer. The zero value is of one that was never
// looked at. It is not changed once it is made.
type Record struct {
	// Anchors are all that is to be trusted, the oldest first. The last is the CA that
	// the issuer names, or did when it was last seen.
	Anchors []Anchor
	// Signing is the anchor of the CA that signs, Since when it began.
	Signing ID
	Since   time.Time
	// Begun is since when there is more than one anchor; zero: there is one.
	Begun time.Time
}

// Seen is what is to be seen now.
type Seen struct {
	// Current is the CA that the issuer names: ID, Certificate, NotAfter, SignsUntil.
	Current Anchor
	// Held says that the key of Record.Signing is at hand, where that is not Current.
	Held bool
	// Lacking is how many places do not hold an anchor of the record.
	Lacking map[ID]int
	// Leaves are how many live leaves there are of each anchor, and Order the ends that part
	// them into groups of one size.
	Leaves map[ID]int
	Order  map[ID][]time.Time
	// Own are how many of them the issuer itself has issued, and issues anew.
	Own map[ID]int
	// Beside are what the issuer above publishes, of which Current is one or descends: they
	// are published as long as they are there.
	Beside []Anchor
	// Anew is how many leaves the CA that signs has, and Failing how many that are to be
	// issued anew were tried in vain since it signs.
	Anew, Failing int
}

// Settings are an issuer's.
type Settings struct {
	// Accept is how long after a change of a Secret all readers have taken it up; 0: the
	// new CA signs at once, whoever lacks it.
	Accept time.Duration
	// Window is the time over which leaves are issued anew.
	Window time.Duration
	// Keep is how long an old anchor stays after the switch, at least.
	Keep time.Duration
}

// Phase is how far a rollover has come.
type Phase uint8

// The phases.
const (
	Steady  Phase = iota // one anchor
	Publish              // some place lacks an anchor
	Accept               // all have it, and readers are given time
	Reissue              // leaves of an old anchor are issued anew
	Retire               // nobody uses the old anchor; readers are given time
	Follow               // the issuer above is carried over; here nothing is to be done
)

// Plan is what follows from a record at a time.
type Plan struct {
	Phase Phase
	// Hold is until when renewals of leaves of another anchor than the one that signs are
	// put off where they can wait: not all readers know that one, for the key of the old
	// CA is gone. Zero: they are not.
	Hold time.Time
	// Paused says that too many were tried in vain: no others are issued anew until some of
	// those succeed, which are tried again as any issuance is that has failed.
	Paused bool
	// Again is when to look again, at the latest; zero: when something changes.
	Again time.Time

	record Record
	seen   Seen
	set    Settings
}

// Target is the anchor that all is carried over to.
func (r *Record) Target() *Anchor {
	if len(r.Anchors) == 0 {
		return nil
	}
	return &r.Anchors[len(r.Anchors)-1]
}

// Find returns an anchor, nil where the record has none of the name.
func (r *Record) Find(id ID) *Anchor {
	if i := r.index(id); i >= 0 {
		return &r.Anchors[i]
	}
	return nil
}

func (r *Record) index(id ID) int {
	return slices.IndexFunc(r.Anchors, func(a Anchor) bool { return a.ID == id })
}

// Next takes a look. The record that it returns must be kept before anything is done by
// the plan: where it has another anchor than before, or another signs. Keeping it may
// come late otherwise, but then it counts from the time that was kept.
func Next(r Record, s Seen, set Settings, now time.Time) (Record, Plan) {
	before := len(r.Anchors)
	r.Anchors = slices.Clone(r.Anchors)
	known := map[ID]bool{} // of the others nobody has looked yet who lacks them
	for _, a := range r.Anchors {
		known[a.ID] = true
	}
	r.target(s.Current, now.Add(-set.Accept), now)
	r.beside(s)
	r.publish(s, known, now)
	if r.mayGoOver(s, set, now) {
		r.Signing, r.Since = s.Current.ID, now
		for i := range r.Anchors {
			r.Anchors[i].Order = slices.Clone(s.Order[r.Anchors[i].ID])
		}
	}
	r.unused(s, now)
	r.drop(s, set, now)
	r.bound(s)
	switch {
	case len(r.Anchors) == 1:
		r.Begun = time.Time{}
	case before < 2 || r.Begun.IsZero():
		r.Begun = now
	}
	return r, r.plan(s, set, now)
}

// target has the CA that the issuer names be the last anchor.
func (r *Record) target(c Anchor, long, now time.Time) {
	if len(r.Anchors) == 0 {
		c.Published = long // before anybody looked
		*r = Record{Anchors: []Anchor{c}, Signing: c.ID, Since: now}
		return
	}
	i := r.index(c.ID)
	if i < 0 {
		r.Anchors = append(r.Anchors, c)
		return
	}
	a := r.Anchors[i]
	a.Certificate, a.NotAfter, a.SignsUntil = c.Certificate, c.NotAfter, c.SignsUntil
	r.Anchors = append(slices.Delete(r.Anchors, i, i+1), a)
}

// beside adds what the issuer above publishes, before the CA that the issuer names.
func (r *Record) beside(s Seen) {
	for _, c := range s.Beside {
		switch i := r.index(c.ID); {
		case i < 0:
			r.Anchors = slices.Insert(r.Anchors, len(r.Anchors)-1, c)
		case c.ID != s.Current.ID:
			r.Anchors[i].Certificate, r.Anchors[i].NotAfter = c.Certificate, c.NotAfter
		}
	}
}

// above tells whether the issuer above publishes an anchor.
func (s *Seen) above(id ID) bool {
	return slices.ContainsFunc(s.Beside, func(a Anchor) bool { return a.ID == id })
}

// publish takes note of since when each place has each anchor that was known before.
func (r *Record) publish(s Seen, known map[ID]bool, now time.Time) {
	for i := range r.Anchors {
		a := &r.Anchors[i]
		switch {
		case !known[a.ID]:
		case s.Lacking[a.ID] > 0:
			a.Published = time.Time{}
		case a.Published.IsZero():
			a.Published = now
		}
	}
}

// accepted is since when all readers know an anchor; false: nobody can say yet. Who wants
// no wait asks for no readers either.
func (a *Anchor) accepted(set Settings) (time.Time, bool) {
	if a.Published.IsZero() && set.Accept > 0 {
		return time.Time{}, false
	}
	return a.Published.Add(set.Accept), true
}

// latest is when nothing is waited for any more on behalf of an old anchor: whatever
// it signed ends with it, so that readers would fail anyhow.
func latest(old *Anchor, set Settings) time.Time { return old.SignsUntil.Add(-set.Accept) }

// mayGoOver tells whether the CA that the issuer names is to sign from now on.
func (r *Record) mayGoOver(s Seen, set Settings, now time.Time) bool {
	if r.Signing == s.Current.ID {
		return false
	}
	old := r.Find(r.Signing)
	if old == nil || !s.Held || !now.Before(latest(old, set)) {
		return true
	}
	at, ok := r.Target().accepted(set)
	return ok && !now.Before(at)
}

// unused takes note of since when nobody uses what does not sign any more.
func (r *Record) unused(s Seen, now time.Time) {
	for i := range r.Anchors {
		a := &r.Anchors[i]
		switch {
		case a.ID == r.Signing || a.ID == s.Current.ID || s.Leaves[a.ID] > 0:
			a.Unused = time.Time{}
		case a.Unused.IsZero():
			a.Unused = now
		}
	}
}

// MaxAnchors is how many anchors are carried: where a CA changes again and again, the oldest
// goes that no leaf needs, and then the oldest.
const MaxAnchors = 16

// bound takes away what is more than MaxAnchors.
func (r *Record) bound(s Seen) {
	for _, used := range []bool{false, true} {
		for i := 0; i < len(r.Anchors) && len(r.Anchors) > MaxAnchors; {
			a := &r.Anchors[i]
			if a.ID != r.Signing && a.ID != s.Current.ID && (used || s.Leaves[a.ID] == 0) {
				r.Anchors = slices.Delete(r.Anchors, i, i+1)
			} else {
				i++
			}
		}
	}
}

// drop takes away anchors that nobody needs any more.
func (r *Record) drop(s Seen, set Settings, now time.Time) {
	r.Anchors = slices.DeleteFunc(r.Anchors, func(a Anchor) bool {
		if a.ID == r.Signing || a.ID == s.Current.ID {
			return false
		}
		if s.above(a.ID) && !now.After(a.NotAfter) {
			return false
		}
		return now.After(a.NotAfter) || !now.Before(r.until(&a, set)) && !a.Unused.IsZero()
	})
}

// until is when an anchor that nobody uses may go.
func (r *Record) until(a *Anchor, set Settings) time.Time {
	at := a.Unused.Add(set.Accept)
	for _, other := range []time.Time{r.Since.Add(set.Keep), a.Others} {
		if other.After(at) {
			at = other
		}
	}
	return at
}

// A rollover pauses when so many were tried in vain, and they are no less than a part of
// all that were tried: what the new CA signs is refused, or it does not sign.
const (
	pauseLeast = 5
	pausePart  = 2
)

func (r *Record) plan(s Seen, set Settings, now time.Time) Plan {
	p := Plan{record: *r, seen: s, set: set}
	if len(r.Anchors) == 1 {
		return p
	}
	p.phase(now)
	p.Paused = p.Phase == Reissue && s.Failing >= pauseLeast && s.Failing*pausePart >= s.Failing+s.Anew
	switch at, ok := r.Find(r.Signing).accepted(set); {
	case p.hurried(now):
	case !ok:
		p.Hold = now.Add(2 * set.Accept) // from the next look on it is known better
	case now.Before(at):
		p.Hold = at
	}
	return p
}

// phase sets the phase, and when to look again.
func (p *Plan) phase(now time.Time) {
	r, s := &p.record, &p.seen
	at, published := r.Target().accepted(p.set)
	switch {
	case !published && !p.hurried(now):
		p.Phase = Publish
	case r.Signing != s.Current.ID || now.Before(at) && !p.hurried(now):
		p.Phase, p.Again = Accept, at
	default:
		p.Phase = Follow
	}
	for i := range r.Anchors {
		a := &r.Anchors[i]
		switch a.ID {
		case s.Current.ID:
			continue
		case r.Signing:
			p.sooner(latest(a, p.set), now)
			continue
		}
		above := s.above(a.ID)
		switch {
		case p.Phase != Follow && p.Phase != Retire:
		case s.Own[a.ID] > 0 || a.Unused.IsZero() && !above:
			p.Phase = Reissue
		case !above:
			p.Phase = Retire
		case a.Published.IsZero():
			p.Phase = Publish
		}
		if !a.Unused.IsZero() && !above {
			p.sooner(r.until(a, p.set), now)
		}
		p.sooner(a.NotAfter.Add(time.Second), now)
	}
}

// hurried tells whether all old anchors are at an end, so that nothing is waited for.
func (p *Plan) hurried(now time.Time) bool {
	for i := range p.record.Anchors {
		a := &p.record.Anchors[i]
		if a.ID != p.seen.Current.ID && now.Before(latest(a, p.set)) {
			return false
		}
	}
	return true
}

func (p *Plan) sooner(at, now time.Time) {
	if at.After(now) && (p.Again.IsZero() || at.Before(p.Again)) {
		p.Again = at
	}
}

// Leaf is a certificate that may have to be issued anew.
type Leaf struct {
	// Anchor is the one of whose CA it is.
	Anchor ID
	// Seed is its own, such as a UID.
	Seed string
	// NotAfter is its end.
	NotAfter time.Time
	// Failed says that issuing it was tried in vain: it is tried again also in a pause.
	Failed bool
}

// Due is when a leaf is to be issued anew; zero: nothing is known of that, it is of the CA
// that it is to be of, or nothing is to be issued anew for now. Leaves are spread evenly
// over the window, those that end first coming first, and within a group of such by their
// seeds: the same in every process.
func (p *Plan) Due(l Leaf) time.Time {
	from, window := p.span(l.Anchor)
	if from.IsZero() || p.Paused && !l.Failed {
		return time.Time{}
	}
	sum := sha256.Sum256(append(l.Anchor[:], l.Seed...))
	part := float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
	order := p.record.Find(l.Anchor).Order
	first, found := slices.BinarySearchFunc(order, l.NotAfter, time.Time.Compare)
	groups := 1
	for found && first+groups-1 < len(order) && order[first+groups-1].Equal(l.NotAfter) {
		groups++ // all that end at once are one
	}
	return from.Add(time.Duration((float64(first) + part*float64(groups)) / float64(len(order)+1) * float64(window)))
}

// span is from when on leaves of an anchor are issued anew, and over how long.
func (p *Plan) span(id ID) (from time.Time, window time.Duration) {
	r, old := &p.record, p.record.Find(id)
	if old == nil || id == p.seen.Current.ID || r.Signing != p.seen.Current.ID {
		return time.Time{}, 0
	}
	from, ok := r.Target().accepted(p.set)
	if last := latest(old, p.set); !ok || from.After(last) {
		from = last // also where places lack it: then nothing before that
	}
	if from.Before(r.Since) {
		from = r.Since
	}
	// All are to be done when half of the time that is left to the old CA is over.
	return from, max(0, min(p.set.Window, old.SignsUntil.Sub(from)/2))
}

// Span is from when until when leaves of an anchor are issued anew; zero as in [Plan.Due],
// but for a pause.
func (p *Plan) Span(id ID) (from, to time.Time) {
	from, window := p.span(id)
	if from.IsZero() {
		return from, from
	}
	return from, from.Add(window)
}
