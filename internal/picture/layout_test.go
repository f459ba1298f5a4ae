package picture

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/diagram"
)

// crowd is as large as a diagram gets: twelve groups and a hundred arrows.
func crowd() *diagram.Diagram {
	d := &diagram.Diagram{}
	for g := range 12 {
		d.Groups = append(d.Groups, diagram.Group{Title: fmt.Sprintf("group %d of many nodes", g)})
		for b := range 6 {
			d.Boxes = append(d.Boxes, diagram.Box{Group: g, Title: fmt.Sprintf("component-%d", b)})
		}
	}
	for i := range 110 {
		d.Arrows = append(d.Arrows, diagram.Arrow{Number: i % 20, Caller: i * 7 % len(d.Boxes), Callee: (i*11 + 3) % len(d.Boxes), Client: &diagram.Half{State: check.OK}})
	}
	return d
}

func overlap(a, b rect) bool {
	return math.Min(a.x+a.w, b.x+b.w)-math.Max(a.x, b.x) > 0.5 && math.Min(a.y+a.h, b.y+b.h)-math.Max(a.y, b.y) > 0.5
}

// Boxes and circles stand beside each other, boxes in their groups, and lines go
// from box to circle to box.
func TestNothingIsLaidOverAnother(t *testing.T) {
	d := crowd()
	start := time.Now()
	p, err := place(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("laid out in %s", time.Since(start).Round(time.Millisecond))
	things := append([]rect{}, p.boxes...)
	for _, c := range p.circles {
		things = append(things, rect{c.x - circle/2, c.y - circle/2, circle, circle})
	}
	for i, a := range things {
		if a.x < -0.5 || a.y < -0.5 || a.x+a.w > p.w+0.5 || a.y+a.h > p.h+0.5 || a.w < 1 {
			t.Errorf("%d stands outside: %+v", i, a)
		}
		for j, b := range things[i+1:] {
			if overlap(a, b) {
				t.Errorf("%d and %d overlap: %+v %+v", i, i+1+j, a, b)
			}
		}
	}
	for i, box := range d.Boxes {
		g, b := p.groups[box.Group], p.boxes[i]
		if b.x < g.x || b.y < g.y || b.x+b.w > g.x+g.w || b.y+b.h > g.y+g.h {
			t.Errorf("box %d is outside its group", i)
		}
		for other, at := range p.groups {
			if other != box.Group && overlap(at, b) {
				t.Errorf("box %d is in group %d too", i, other)
			}
		}
	}
	for i, a := range d.Arrows {
		first, second := p.halves[i][0], p.halves[i][1]
		near := func(what string, at point, r rect) {
			const slack = 3
			if at.x < r.x-slack || at.x > r.x+r.w+slack || at.y < r.y-slack || at.y > r.y+r.h+slack {
				t.Errorf("arrow %d: %s is not at %+v", i, what, r)
			}
		}
		ring := rect{p.circles[i].x - circle/2, p.circles[i].y - circle/2, circle, circle}
		near("its beginning", first.points[0], p.boxes[a.Caller])
		near("its middle", first.points[len(first.points)-1], ring)
		near("its middle", second.points[0], ring)
		near("its tip", second.tip, p.boxes[a.Callee])
	}
}

func TestTextsAreCutAndWrapped(t *testing.T) {
	if got := clip("αβγδε\x1b", 4); got != "αβγ…" {
		t.Errorf("clip = %q", got)
	}
	for _, line := range wrap("a verylongword"+fmt.Sprint(math.Pi)+"withoutanyblank and more", 13, 80) {
		if width(line, 13) > 80 {
			t.Errorf("%q is wider than asked for", line)
		}
	}
	if got := wrap("one two three", 13, 1000); len(got) != 1 || got[0] != "one two three" {
		t.Errorf("wrap = %q", got)
	}
}
