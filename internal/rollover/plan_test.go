package rollover_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kubepki/kubepki/internal/rollover"
)

// enough is how long must be waited: a write may be under way, a look may come late, and
// then readers take their time.
func enough(read, flight, looks time.Duration) time.Duration { return read + flight + looks }

func TestAtNoMomentDoTwoApplicationsRefuseEachOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(func(n int) int { return rapid.IntRange(0, max(n, 1)-1).Draw(t, "n") }, enough)
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			w.step()
			if w.failure != "" {
				t.Fatalf("after %s, %d changes: %s", w.now.Sub(time.Unix(1e9, 0)), w.changes, w.failure)
			}
		}
		if !w.settle() {
			t.Fatalf("it does not end: phase %d, %d anchors, %d changes", w.issuers[0].plan.Phase, len(w.issuers[0].record.Anchors), w.changes)
		}
		if w.failure != "" {
			t.Fatalf("while it ends: %s", w.failure)
		}
	})
}

// Long worlds, evenly drawn, and the bad twin of the property: where the wait is but a part
// of what readers need they see it fail.
func TestWorldsSeeThatTooShortAWaitFails(t *testing.T) {
	for name, c := range map[string]struct {
		accept func(read, flight, looks time.Duration) time.Duration
		spoil  func(*world)
		fails  bool
	}{
		"enough":                   {enough, func(*world) {}, false},
		"none":                     {func(time.Duration, time.Duration, time.Duration) time.Duration { return 0 }, func(*world) {}, true},
		"half of the readers":      {func(read, _, _ time.Duration) time.Duration { return read / 2 }, func(*world) {}, true},
		"the one below is deaf":    {enough, func(w *world) { w.deaf = true }, true},
		"the one above goes alone": {enough, func(w *world) { w.alone = true }, true},
	} {
		t.Run(name, func(t *testing.T) {
			failed := 0
			for seed := range uint64(60) {
				r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a world, no secret
				w := newWorld(func(n int) int { return r.IntN(max(n, 1)) }, c.accept)
				c.spoil(w)
				for range 300 {
					w.step()
				}
				if ends := w.settle(); !ends && !c.fails {
					t.Errorf("world %d does not end", seed)
				}
				if w.failure != "" {
					failed++
				}
			}
			if failed > 0 != c.fails {
				t.Errorf("%d worlds failed", failed)
			}
		})
	}
}

var begin = time.Unix(1e9, 0)

func anchor(n byte, life time.Duration) rollover.Anchor {
	return rollover.Anchor{ID: rollover.ID{n}, Certificate: [32]byte{n}, NotAfter: begin.Add(life), SignsUntil: begin.Add(life)}
}

func TestNext(t *testing.T) {
	const minute = time.Minute
	set := rollover.Settings{Accept: 10 * minute, Window: 60 * minute}
	before, _ := rollover.Next(rollover.Record{}, rollover.Seen{Current: anchor(1, 1000*time.Hour)}, set, begin)
	second := anchor(2, 2000*time.Hour)
	type look struct {
		after time.Duration
		seen  rollover.Seen
	}
	leaves := func(old int) map[rollover.ID]int { return map[rollover.ID]int{{1}: old} }
	for name, c := range map[string]struct {
		looks   []look
		signing byte
		phase   rollover.Phase
		anchors int
		hold    bool
	}{
		"what was added is lacking before anybody has looked": {
			[]look{{0, rollover.Seen{Current: second, Held: true, Leaves: leaves(3)}}}, 1, rollover.Publish, 2, false},
		"the old one signs while the new one is being accepted": {
			[]look{{0, rollover.Seen{Current: second, Held: true}}, {minute, rollover.Seen{Current: second, Held: true}}, {11*minute - 1, rollover.Seen{Current: second, Held: true}}},
			1, rollover.Accept, 2, false},
		"the new one signs when it is accepted": {
			[]look{{0, rollover.Seen{Current: second, Held: true}}, {minute, rollover.Seen{Current: second, Held: true}}, {11 * minute, rollover.Seen{Current: second, Held: true, Leaves: leaves(3)}}},
			2, rollover.Reissue, 2, false},
		"a place that lacks it again begins the wait anew": {
			[]look{{0, rollover.Seen{Current: second, Held: true}}, {minute, rollover.Seen{Current: second, Held: true}}, {5 * minute, rollover.Seen{Current: second, Held: true, Lacking: map[rollover.ID]int{{2}: 1}}}, {6 * minute, rollover.Seen{Current: second, Held: true}}, {11 * minute, rollover.Seen{Current: second, Held: true}}},
			1, rollover.Accept, 2, false},
		"without the old key the new one signs at once, and renewals are put off": {
			[]look{{0, rollover.Seen{Current: second, Leaves: leaves(3)}}}, 2, rollover.Publish, 2, true},
		"a place that cannot be written is not waited for when the old CA is at its end": {
			[]look{{0, rollover.Seen{Current: second, Held: true, Lacking: map[rollover.ID]int{{2}: 1}}}, {1000*time.Hour - 10*minute, rollover.Seen{Current: second, Held: true, Lacking: map[rollover.ID]int{{2}: 1}, Leaves: leaves(1)}}}, 2, rollover.Reissue, 2, false},
		"… and is waited for until then": {
			[]look{{0, rollover.Seen{Current: second, Held: true, Lacking: map[rollover.ID]int{{2}: 1}}}, {1000*time.Hour - 11*minute, rollover.Seen{Current: second, Held: true, Lacking: map[rollover.ID]int{{2}: 1}, Leaves: leaves(1)}}}, 1, rollover.Publish, 2, false},
		"what nobody uses stays as long as readers need": {
			[]look{{0, rollover.Seen{Current: second}}, {minute, rollover.Seen{Current: second}}, {10*minute - 1, rollover.Seen{Current: second}}}, 2, rollover.Accept, 2, true},
		"and then it goes": {
			[]look{{0, rollover.Seen{Current: second}}, {minute, rollover.Seen{Current: second}}, {10 * minute, rollover.Seen{Current: second}}}, 2, rollover.Steady, 1, false},
		"a renewal with the same key changes nothing but the certificate": {
			[]look{{0, rollover.Seen{Current: rollover.Anchor{ID: rollover.ID{1}, Certificate: [32]byte{9}, NotAfter: begin.Add(3000 * time.Hour), SignsUntil: begin.Add(3000 * time.Hour)}}}}, 1, rollover.Steady, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, p := before, rollover.Plan{}
			for _, l := range c.looks {
				r, p = rollover.Next(r, l.seen, set, begin.Add(l.after))
			}
			last := c.looks[len(c.looks)-1]
			if r.Signing != (rollover.ID{c.signing}) || p.Phase != c.phase || len(r.Anchors) != c.anchors || p.Hold.IsZero() == c.hold {
				t.Errorf("signing %d, phase %d, %d anchors, hold %s", r.Signing[0], p.Phase, len(r.Anchors), p.Hold)
			}
			if r.Target().Certificate != last.seen.Current.Certificate {
				t.Error("the certificate is not the one that is there now")
			}
			if p.Phase != rollover.Steady && p.Phase != rollover.Publish && !p.Again.After(begin.Add(last.after)) {
				t.Errorf("nobody looks again: %s", p.Again)
			}
		})
	}
}

func TestWithoutAWaitNobodyWhoLacksTheNewCAIsWaitedFor(t *testing.T) {
	r, _ := rollover.Next(rollover.Record{}, rollover.Seen{Current: anchor(1, 1000*time.Hour)}, rollover.Settings{}, begin)
	seen := rollover.Seen{Current: anchor(2, 2000*time.Hour), Held: true, Lacking: map[rollover.ID]int{{2}: 1}, Leaves: map[rollover.ID]int{{1}: 1}}
	r, p := rollover.Next(r, seen, rollover.Settings{}, begin)
	if r.Signing != (rollover.ID{2}) || p.Phase != rollover.Reissue || !p.Due(rollover.Leaf{Anchor: rollover.ID{1}, Seed: "a", NotAfter: begin}).Equal(begin) {
		t.Errorf("signing %d, phase %d, due %s", r.Signing[0], p.Phase, p.Due(rollover.Leaf{Anchor: rollover.ID{1}, Seed: "a", NotAfter: begin}))
	}
}

func TestAnAnchorStaysAsLongAsOthersMayHoldItsCertificates(t *testing.T) {
	set := rollover.Settings{Accept: time.Minute, Keep: time.Hour}
	r, _ := rollover.Next(rollover.Record{}, rollover.Seen{Current: anchor(1, 1000*time.Hour)}, set, begin)
	r.Anchors[0].Others = begin.Add(5 * time.Hour)
	second := rollover.Seen{Current: anchor(2, 2000*time.Hour), Held: true}
	for _, c := range []struct {
		after   time.Duration
		anchors int
	}{{0, 2}, {time.Minute, 2}, {2 * time.Minute, 2}, {2 * time.Hour, 2}, {5*time.Hour - 1, 2}, {5 * time.Hour, 1}} {
		if r, _ = rollover.Next(r, second, set, begin.Add(c.after)); len(r.Anchors) != c.anchors {
			t.Errorf("after %s there are %d anchors", c.after, len(r.Anchors))
		}
	}
}

func TestLeavesAreIssuedAnewOverTheWindowAndBeforeTheOldOneEnds(t *testing.T) {
	for name, c := range map[string]struct{ life, window, most time.Duration }{
		"a window that fits":                        {1000 * time.Hour, time.Hour, time.Hour},
		"a window that is longer than the old life": {2 * time.Hour, 100 * time.Hour, 55 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			set := rollover.Settings{Accept: 10 * time.Minute, Window: c.window}
			r, p := rollover.Next(rollover.Record{}, rollover.Seen{Current: anchor(1, c.life)}, set, begin)
			seen := rollover.Seen{Current: anchor(2, 10000*time.Hour), Held: true, Leaves: map[rollover.ID]int{{1}: 1}}
			if !p.Due(rollover.Leaf{Anchor: rollover.ID{1}, Seed: "a", NotAfter: begin}).IsZero() {
				t.Error("a leaf of the only CA is due")
			}
			for range 3 {
				r, p = rollover.Next(r, seen, set, begin)
			}
			if !p.Due(rollover.Leaf{Anchor: rollover.ID{1}, Seed: "a", NotAfter: begin}).IsZero() {
				t.Error("a leaf is due before the new CA signs")
			}
			at := begin.Add(10 * time.Minute)
			r, p = rollover.Next(r, seen, set, at)
			if r.Signing != (rollover.ID{2}) {
				t.Fatal("it does not sign")
			}
			first, last := at.Add(c.most), at
			for n := range 1000 {
				due := p.Due(rollover.Leaf{Anchor: rollover.ID{1}, Seed: string(rune(n)), NotAfter: begin})
				if due != p.Due(rollover.Leaf{Anchor: rollover.ID{1}, Seed: string(rune(n)), NotAfter: begin}) {
					t.Error("it is not stable")
				}
				if due.Before(first) {
					first = due
				}
				if due.After(last) {
					last = due
				}
			}
			if _, to := p.Span(rollover.ID{1}); first.Before(at) || last.After(to) || to != at.Add(c.most) || last.Sub(first) < c.most*9/10 {
				t.Errorf("from %s to %s, of %s", first.Sub(at), last.Sub(at), c.most)
			}
			if !p.Due(rollover.Leaf{Anchor: rollover.ID{2}, Seed: "a", NotAfter: begin}).IsZero() || !p.Due(rollover.Leaf{Anchor: rollover.ID{7}, Seed: "a", NotAfter: begin}).IsZero() {
				t.Error("a leaf that is as it shall be is due, or one of an unknown CA")
			}
		})
	}
}

func TestThoseThatEndFirstAreIssuedAnewFirstAndTheRateIsEven(t *testing.T) {
	set := rollover.Settings{Accept: time.Minute, Window: 1000 * time.Minute}
	day := 24 * time.Hour
	ends := []time.Time{begin.Add(1 * day), begin.Add(2 * day), begin.Add(2 * day), begin.Add(2 * day), begin.Add(3 * day)} // half of all end together
	r, _ := rollover.Next(rollover.Record{}, rollover.Seen{Current: anchor(1, 1000*time.Hour)}, set, begin)
	seen := rollover.Seen{Current: anchor(2, 2000*time.Hour), Held: true, Leaves: map[rollover.ID]int{{1}: 100}, Order: map[rollover.ID][]time.Time{{1}: ends}}
	r, _ = rollover.Next(r, seen, set, begin)
	r, _ = rollover.Next(r, seen, set, begin)
	r, _ = rollover.Next(r, seen, set, begin.Add(time.Minute))
	seen.Order = nil // it counts how it was at the switch, whoever has come since
	_, p := rollover.Next(r, seen, set, begin.Add(2*time.Minute))
	from, _ := p.Span(rollover.ID{1})
	part := window / 6
	for name, c := range map[string]struct {
		end         time.Duration
		first, last time.Duration
	}{
		"what ends before all others":  {day / 2, 0, part},
		"what ends with the first":     {day, 0, 2 * part},
		"what ends between":            {day + 1, part, 2 * part},
		"what ends together with half": {2 * day, part, 5 * part},
		"what ends last":               {4 * day, 5 * part, 6 * part},
	} {
		t.Run(name, func(t *testing.T) {
			least, most := 2000*time.Minute, time.Duration(0)
			for n := range 500 {
				at := p.Due(rollover.Leaf{Anchor: rollover.ID{1}, Seed: string(rune(n)), NotAfter: begin.Add(c.end)}).Sub(from)
				least, most = min(least, at), max(most, at)
			}
			if spread := c.last - c.first; least < c.first || most > c.last+1 || most-least < spread*9/10 {
				t.Errorf("from %s to %s, want %s to %s", least, most, c.first, c.last)
			}
		})
	}
}

const window = 1000 * time.Minute

func TestARolloverPausesWhenTooManyAreTriedInVain(t *testing.T) {
	set := rollover.Settings{Window: time.Hour}
	for name, c := range map[string]struct {
		anew, failing int
		paused        bool
	}{
		"the first have failed":         {0, 5, true},
		"a few have failed":             {0, 4, false},
		"as many as went well":          {5, 5, true},
		"more went well than failed":    {6, 5, false},
		"nothing has been tried so far": {0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := rollover.Next(rollover.Record{}, rollover.Seen{Current: anchor(1, 1000*time.Hour)}, set, begin)
			seen := rollover.Seen{Current: anchor(2, 2000*time.Hour), Leaves: map[rollover.ID]int{{1}: 1}, Anew: c.anew, Failing: c.failing}
			_, p := rollover.Next(r, seen, set, begin)
			untried, tried := p.Due(rollover.Leaf{Anchor: rollover.ID{1}}), p.Due(rollover.Leaf{Anchor: rollover.ID{1}, Failed: true})
			if p.Paused != c.paused || untried.IsZero() != c.paused || tried.IsZero() {
				t.Errorf("paused: %t; due at %s, one that has failed at %s", p.Paused, untried, tried)
			}
		})
	}
}

func TestWhatTheIssuerAbovePublishesIsPublishedAsLongAsItDoes(t *testing.T) {
	set := rollover.Settings{Accept: time.Minute}
	root, next := anchor(1, 1000*time.Hour), anchor(2, 2000*time.Hour)
	r, _ := rollover.Next(rollover.Record{}, rollover.Seen{Current: root}, set, begin)
	for _, step := range []struct {
		after   time.Duration
		seen    rollover.Seen
		phase   rollover.Phase
		signing byte
		anchors int
	}{
		{0, rollover.Seen{Current: root, Beside: []rollover.Anchor{next}, Leaves: map[rollover.ID]int{{1}: 3, {2}: 3}, Own: map[rollover.ID]int{{1}: 3}}, rollover.Publish, 1, 2},
		{1, rollover.Seen{Current: root, Beside: []rollover.Anchor{next}, Leaves: map[rollover.ID]int{{1}: 3}, Own: map[rollover.ID]int{{1}: 3}}, rollover.Follow, 1, 2},
		{1000, rollover.Seen{Current: root, Beside: []rollover.Anchor{next}, Leaves: map[rollover.ID]int{{1}: 3}, Own: map[rollover.ID]int{{1}: 3}}, rollover.Follow, 1, 2},              // however long
		{1001, rollover.Seen{Current: next, Held: true, Beside: []rollover.Anchor{root}, Leaves: map[rollover.ID]int{{1}: 3}, Own: map[rollover.ID]int{{1}: 3}}, rollover.Reissue, 2, 2}, // at once: all know it
		{1100, rollover.Seen{Current: next, Beside: []rollover.Anchor{root}}, rollover.Follow, 2, 2},
		{1200, rollover.Seen{Current: next}, rollover.Steady, 2, 1},
	} {
		var p rollover.Plan
		r, p = rollover.Next(r, step.seen, set, begin.Add(step.after*time.Second))
		if p.Phase != step.phase || r.Signing != (rollover.ID{step.signing}) || len(r.Anchors) != step.anchors || r.Begun.IsZero() != (step.anchors == 1) {
			t.Errorf("after %d s: phase %d, %d signs, %d anchors since %s", step.after, p.Phase, r.Signing[0], len(r.Anchors), r.Begun)
		}
	}
}

// However many leaves there are, a plan asks for each without looking at the others.
func BenchmarkDue20000(b *testing.B) {
	set := rollover.Settings{Window: time.Hour}
	r, _ := rollover.Next(rollover.Record{}, rollover.Seen{Current: anchor(1, 1000*time.Hour)}, set, begin)
	_, p := rollover.Next(r, rollover.Seen{Current: anchor(2, 2000*time.Hour), Leaves: map[rollover.ID]int{{1}: 20000}}, set, begin)
	for b.Loop() {
		for n := range 20000 {
			if p.Due(rollover.Leaf{Anchor: rollover.ID{1}, Seed: string(rune(n))}).IsZero() {
				b.Fatal("it is not due")
			}
		}
	}
}
