package picture

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/diagram"
	"github.com/kubepki/kubepki/internal/graphviz"
)

// Sizes in pixels.
const (
	textSize  = 13.0
	smallSize = 11.0
	boxHeight = 34.0
	circle    = 24.0 // diameter of the circle with a link's number
	margin    = 24.0
)

// patience is how long a layout may take.
const patience = 2 * time.Minute

type point struct{ x, y float64 }

type rect struct{ x, y, w, h float64 } // of its top left corner

// curve is a chain of cubic Bézier curves: a point, then three for each.
type curve struct {
	points []point
	tip    point // where an arrow ends, when hasTip
	hasTip bool
}

// placed says where everything stands, from the top left corner on.
type placed struct {
	w, h    float64
	groups  map[int]rect
	boxes   []rect
	circles []point // by arrow
	halves  [][2]curve
}

// place lays a diagram out. A link is laid out as a small circle between its
// caller and its callee, so that its number has a place of its own, and each
// half of it is a line of its own.
func place(ctx context.Context, d *diagram.Diagram) (*placed, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	text, err := graphviz.Layout(ctx, sizes(d), "json0")
	if err != nil {
		return nil, err
	}
	return parse(text, d)
}

// sizes is the graph with sizes alone: nothing of what the files say is in it.
func sizes(d *diagram.Diagram) string {
	var b strings.Builder
	b.WriteString("digraph {\n graph [rankdir=TB, nodesep=0.22, ranksep=0.3, splines=true, newrank=true, mclimit=2, nslimit=3, nslimit1=3];\n")
	b.WriteString(" node [shape=box, fixedsize=true, label=\"\"]; edge [arrowhead=none, arrowsize=0.8];\n")
	for i := range d.Groups {
		inner := circlesWithin(d, i)
		title, high := width(clip(d.Groups[i].Title, maxTitle), textSize)*bold, 20
		if d.Groups[i].As != "" {
			title, high = max(title, width(elseText(&d.Groups[i]), smallSize)), 36
		}
		fmt.Fprintf(&b, " subgraph cluster_%d { margin=14; label=<<TABLE BORDER=\"0\" FIXEDSIZE=\"TRUE\" WIDTH=\"%.0f\" HEIGHT=\"%d\"><TR><TD></TD></TR></TABLE>>; labelloc=t; labeljust=l;", i, title+10, high)
		for j := range d.Boxes {
			if d.Boxes[j].Group == i {
				fmt.Fprintf(&b, " b%d;", j)
			}
		}
		for _, j := range inner {
			fmt.Fprintf(&b, " a%d;", j)
		}
		b.WriteString(" }\n")
	}
	for i := range d.Boxes {
		w, h := width(clip(d.Boxes[i].Title, maxName), textSize)+24, boxHeight
		if d.Boxes[i].Note {
			w, h = circle, 4
		}
		fmt.Fprintf(&b, " b%d [width=%.3f, height=%.3f];\n", i, w/72, h/72)
	}
	for i := range d.Arrows {
		a := &d.Arrows[i]
		fmt.Fprintf(&b, " a%d [shape=circle, width=%.3f];\n b%d -> a%d;\n a%d -> b%d [arrowhead=normal];\n", i, circle/72, a.Caller, i, i, a.Callee)
	}
	b.WriteString("}\n")
	return b.String()
}

// circlesWithin are the arrows whose both ends are in a group.
func circlesWithin(d *diagram.Diagram, group int) []int {
	var within []int
	for i := range d.Arrows {
		if d.Boxes[d.Arrows[i].Caller].Group == group && d.Boxes[d.Arrows[i].Callee].Group == group {
			within = append(within, i)
		}
	}
	return within
}

// laidOut is what we read of Graphviz's json0.
type laidOut struct {
	BB      string `json:"bb"`
	Objects []struct {
		ID     int    `json:"_gvid"`
		Name   string `json:"name"`
		BB     string `json:"bb"`
		Pos    string `json:"pos"`
		Width  string `json:"width"`
		Height string `json:"height"`
	} `json:"objects"`
	Edges []struct {
		Tail int    `json:"tail"`
		Head int    `json:"head"`
		Pos  string `json:"pos"`
	} `json:"edges"`
}

func parse(text string, d *diagram.Diagram) (*placed, error) {
	var l laidOut
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return nil, fmt.Errorf("reading the layout: %w", err)
	}
	all, err := numbers(l.BB, 4)
	if err != nil {
		return nil, err
	}
	p := &placed{w: all[2] - all[0], h: all[3] - all[1], groups: map[int]rect{}, boxes: make([]rect, len(d.Boxes)), circles: make([]point, len(d.Arrows)), halves: make([][2]curve, len(d.Arrows))}
	turn := func(x, y float64) point { return point{x - all[0], all[3] - y} }
	names := map[int]string{}
	for _, o := range l.Objects {
		names[o.ID] = o.Name
		if err := p.object(o.Name, o.BB, o.Pos, o.Width, o.Height, turn); err != nil {
			return nil, err
		}
	}
	if len(l.Edges) != 2*len(d.Arrows) {
		return nil, fmt.Errorf("reading the layout: %d lines for %d arrows", len(l.Edges), len(d.Arrows))
	}
	for _, e := range l.Edges {
		half, circle := 0, names[e.Head]
		if strings.HasPrefix(names[e.Tail], "a") {
			half, circle = 1, names[e.Tail]
		}
		i, err := strconv.Atoi(strings.TrimPrefix(circle, "a"))
		if err != nil || i < 0 || i >= len(d.Arrows) {
			return nil, fmt.Errorf("reading the layout: a line at %q", circle)
		}
		if p.halves[i][half], err = parseCurve(e.Pos, turn); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *placed) object(name, bb, pos, w, h string, turn func(x, y float64) point) error {
	if n, ok := strings.CutPrefix(name, "cluster_"); ok {
		i, err := strconv.Atoi(n)
		if err != nil || bb == "" {
			return err // a group without any box has no place
		}
		v, err := numbers(bb, 4)
		if err != nil {
			return err
		}
		at := turn(v[0], v[3])
		p.groups[i] = rect{at.x, at.y, v[2] - v[0], v[3] - v[1]}
		return nil
	}
	i, err := strconv.Atoi(name[1:])
	if err != nil {
		return fmt.Errorf("reading the layout: %w", err)
	}
	v, err := numbers(pos, 2)
	if err != nil {
		return err
	}
	at := turn(v[0], v[1])
	if name[0] == 'a' {
		p.circles[i] = at
		return nil
	}
	size, err := numbers(w+","+h, 2)
	if err != nil {
		return err
	}
	p.boxes[i] = rect{at.x - size[0]*36, at.y - size[1]*36, size[0] * 72, size[1] * 72}
	return nil
}

// parseCurve reads a line's pos: "e,X,Y X,Y X,Y …".
func parseCurve(pos string, turn func(x, y float64) point) (curve, error) {
	var c curve
	for _, field := range strings.Fields(pos) {
		tip, isTip := strings.CutPrefix(field, "e,")
		v, err := numbers(tip, 2)
		if err != nil {
			return c, err
		}
		if isTip {
			c.tip, c.hasTip = turn(v[0], v[1]), true
		} else {
			c.points = append(c.points, turn(v[0], v[1]))
		}
	}
	if len(c.points) < 4 || len(c.points)%3 != 1 {
		return c, fmt.Errorf("reading the layout: a line of %d points", len(c.points))
	}
	return c, nil
}

func numbers(text string, want int) ([]float64, error) {
	var v []float64
	for _, f := range strings.Split(text, ",") {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return nil, fmt.Errorf("reading the layout: %w", err)
		}
		v = append(v, n)
	}
	if len(v) != want {
		return nil, fmt.Errorf("reading the layout: %q has not %d numbers", text, want)
	}
	return v, nil
}
