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
}

// Seen is what is to be seen now.
type Seen struct {
	// Current is the CA that the issuer names: ID, Certificate, NotAfter, SignsUntil.
	Current Anchor
	// Held says that the key of Record.Signing is at hand, where that is not Current.
	Held bool
	// Lacking is how many places do not hold an anchor of the record.
	Lacking map[ID]int
	// Leaves are how many live leaves there are of each anchor.
	Leaves map[ID]int
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
)

// Plan is what follows from a record at a time.
type Plan struct {
	Phase Phase
	// Hold is until when renewals of leaves of another anchor than the one that signs are
	// put off where they can wait: not all readers know that one, for the key of the old
	// CA is gone. Zero: they are not.
	Hold time.Time
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
	r.Anchors = slices.Clone(r.Anchors)
	if !r.target(s.Current, now.Add(-set.Accept), now) {
		r.publish(s, now)
	} // else nobody has looked yet who lacks what was added
	if r.mayGoOver(s, set, now) {
		r.Signing, r.Since = s.Current.ID, now
	}
	r.unused(s, now)
	r.drop(s, set, now)
	return r, r.plan(s, set, now)
}

// target has the CA that the issuer names be the last anchor, and tells whether it is a
// new one.
func (r *Record) target(c Anchor, long, now time.Time) bool {
	if len(r.Anchors) == 0 {
		c.Published = long // before anybody looked
		*r = Record{Anchors: []Anchor{c}, Signing: c.ID, Since: now}
		return false
	}
	i := r.index(c.ID)
	if i < 0 {
		r.Anchors = append(r.Anchors, c)
		return true
	}
	a := r.Anchors[i]
	a.Certificate, a.NotAfter, a.SignsUntil = c.Certificate, c.NotAfter, c.SignsUntil
	r.Anchors = append(slices.Delete(r.Anchors, i, i+1), a)
	return false
}

// publish takes note of since when each place has each anchor.
func (r *Record) publish(s Seen, now time.Time) {
	for i := range r.Anchors {
		a := &r.Anchors[i]
		switch {
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

// drop takes away anchors that nobody needs any more.
func (r *Record) drop(s Seen, set Settings, now time.Time) {
	r.Anchors = slices.DeleteFunc(r.Anchors, func(a Anchor) bool {
		if a.ID == r.Signing || a.ID == s.Current.ID {
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

func (r *Record) plan(s Seen, set Settings, now time.Time) Plan {
	p := Plan{record: *r, seen: s, set: set}
	if len(r.Anchors) == 1 {
		return p
	}
	at, published := r.Target().accepted(set)
	switch {
	case !published && !p.hurried(now):
		p.Phase = Publish
	case r.Signing != s.Current.ID || now.Before(at) && !p.hurried(now):
		p.Phase, p.Again = Accept, at
	default:
		p.Phase = Retire
	}
	for i := range r.Anchors {
		a := &r.Anchors[i]
		switch {
		case a.ID == s.Current.ID:
			continue
		case a.ID == r.Signing:
			p.sooner(latest(a, set), now)
			continue
		case !a.Unused.IsZero():
			p.sooner(r.until(a, set), now)
		case p.Phase == Retire:
			p.Phase = Reissue
		}
		p.sooner(a.NotAfter.Add(time.Second), now)
	}
	switch at, ok := r.Find(r.Signing).accepted(set); {
	case p.hurried(now):
	case !ok:
		p.Hold = now.Add(2 * set.Accept) // from the next look on it is known better
	case now.Before(at):
		p.Hold = at
	}
	return p
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

// Due is when a leaf of an anchor is to be issued anew; zero: nothing is known of that,
// or it is of the CA that it is to be of. Leaves are spread over the window by seed, such
// as a UID, the same in every process.
func (p *Plan) Due(id ID, seed string) time.Time {
	r, old := &p.record, p.record.Find(id)
	if old == nil || id == p.seen.Current.ID || r.Signing != p.seen.Current.ID {
		return time.Time{}
	}
	from, ok := r.Target().accepted(p.set)
	if last := latest(old, p.set); !ok || from.After(last) {
		from = last // also where places lack it: then nothing before that
	}
	if from.Before(r.Since) {
		from = r.Since
	}
	// All are to be done when half of the time that is left to the old CA is over.
	window := max(0, min(p.set.Window, old.SignsUntil.Sub(from)/2))
	sum := sha256.Sum256(append(id[:], seed...))
	part := float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
	return from.Add(time.Duration(part * float64(window)))
}

// Span is from when until when leaves of an anchor are issued anew; zero as in [Plan.Due].
func (p *Plan) Span(id ID) (from, to time.Time) {
	d := *p
	d.set.Window = 0
	if from = d.Due(id, ""); from.IsZero() {
		return from, from
	}
	return from, from.Add(max(0, min(p.set.Window, p.record.Find(id).SignsUntil.Sub(from)/2)))
}
