package picture

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/diagram"
)

// SVG draws a diagram as one SVG document that needs nothing beside it.
func SVG(ctx context.Context, w io.Writer, d *diagram.Diagram) error {
	p, err := place(ctx, d)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteString("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")
	c := &canvas{d: d, p: p, legend: true}
	c.draw(&b)
	_, err = w.Write(b.Bytes())
	return err
}

// canvas draws one diagram.
type canvas struct {
	d *diagram.Diagram
	p *placed
	// prefix makes ids unique within a page.
	prefix string
	// legend tells to draw what a page says around the picture: the sums, the
	// authorities and the findings.
	legend bool
	b      strings.Builder
}

// printf writes, and escapes all texts.
func (c *canvas) printf(format string, args ...any) {
	for i, a := range args {
		switch a := a.(type) {
		case string:
			args[i] = html.EscapeString(a)
		case float64:
			args[i] = number(a)
		}
	}
	fmt.Fprintf(&c.b, format, args...)
}

// number is a coordinate: a tenth of a pixel is enough.
func number(f float64) string {
	return strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64)
}

func (c *canvas) draw(w *bytes.Buffer) {
	top := margin
	if c.legend {
		top += 46
	}
	x := margin
	bottom := top + c.p.h + 18
	width := max(c.p.w+2*margin, 640)
	if c.p.w+2*margin < width {
		x = (width - c.p.w) / 2
	}
	c.printf("<g transform=\"translate(%v %v)\">\n", x, top)
	c.groups()
	c.boxes()
	c.links()
	c.titles()
	c.printf("</g>\n")
	if c.legend {
		bottom = c.authorities(bottom, width)
		bottom = c.causes(bottom, width)
	}
	body := c.b.String()
	c.b.Reset()
	c.head(width, bottom+margin/2)
	if c.legend {
		c.printf("<text class=\"head\" x=\"%v\" y=\"%v\">%v</text>\n", margin, margin+12, title(c.d))
		c.printf("<text x=\"%v\" y=\"%v\">%v</text>\n", margin, margin+34, verdict(c.d))
	}
	w.WriteString(c.b.String())
	w.WriteString(body)
	w.WriteString("</svg>\n")
}

func title(d *diagram.Diagram) string {
	if d.Name != "" {
		return "Links of the cluster " + clip(d.Name, maxTitle)
	}
	return "Links of the cluster"
}

// head begins the document: its size, its name and its description for those
// who do not see it.
func (c *canvas) head(w, h float64) {
	c.printf("<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"kp\" width=\"%v\" height=\"%v\" viewBox=\"0 0 %v %v\" role=\"graphics-document document\" aria-labelledby=\"%vtitle %vdesc\">\n",
		w, h, w, h, c.prefix, c.prefix)
	c.printf("<title id=\"%vtitle\">%v</title>\n", c.prefix, title(c.d))
	c.printf("<desc id=\"%vdesc\">%v. Boxes are components, by node; arrows are links, numbered as in kubepki's table of links. The half of an arrow at the caller has the colour of the authority that signed what the caller shows, the half at the callee that of what the callee shows.</desc>\n", c.prefix, verdict(c.d))
	if c.legend {
		c.b.WriteString("<style>" + style + colourStyle() + "</style>\n")
	}
	c.printf("<rect class=\"bg\" width=\"%v\" height=\"%v\"/>\n", w, h)
}

func (c *canvas) groups() {
	for i := range c.d.Groups {
		g := &c.d.Groups[i]
		r, ok := c.p.groups[i]
		if !ok {
			continue
		}
		class := "group"
		if c.severe(g.Findings) {
			class += " bad"
		}
		c.printf("<g class=\"%v\"><title>%v</title><rect x=\"%v\" y=\"%v\" width=\"%v\" height=\"%v\" rx=\"8\"/></g>\n", class, groupText(c.d, g), r.x, r.y, r.w, r.h)
	}
}

// titles draws the names of the groups over what crosses them.
func (c *canvas) titles() {
	for i := range c.d.Groups {
		r, ok := c.p.groups[i]
		if !ok {
			continue
		}
		g := &c.d.Groups[i]
		c.printf("<text class=\"title over\" x=\"%v\" y=\"%v\">%v</text>\n", r.x+14, r.y+22, clip(g.Title, maxTitle))
		if g.As != "" {
			c.printf("<text class=\"soft over\" x=\"%v\" y=\"%v\">%v</text>\n", r.x+14, r.y+38, elseText(g))
		}
	}
}

// elseText says what a group is like but for what is drawn in it.
func elseText(g *diagram.Group) string { return "else as " + clip(g.As, maxTitle) }

// severe tells whether one of some findings is an error.
func (c *canvas) severe(findings []int) bool {
	return slices.ContainsFunc(findings, func(i int) bool { return c.d.Findings[i].Severity == check.Error })
}

func groupText(d *diagram.Diagram, g *diagram.Group) string {
	lines := []string{clip(g.Title, maxTitle)}
	if len(g.Nodes) > 3 {
		lines = append(lines, clip(strings.Join(g.Nodes, ", "), maxSentence))
	}
	return strings.Join(append(lines, findingLines(d, g.Findings)...), "\n")
}

func (c *canvas) boxes() {
	for i := range c.d.Boxes {
		box, r := &c.d.Boxes[i], c.p.boxes[i]
		if box.Note {
			continue
		}
		var nodes []string
		if box.Group >= 0 {
			nodes = c.d.Groups[box.Group].Nodes
		}
		c.printf("<g class=\"box\"><title>%v</title><rect x=\"%v\" y=\"%v\" width=\"%v\" height=\"%v\" rx=\"4\"/>", endName(c.d, i, nodes), r.x, r.y, r.w, r.h)
		c.printf("<text x=\"%v\" y=\"%v\">%v</text></g>\n", r.x+r.w/2, r.y+r.h/2+4.5, clip(box.Title, maxName))
	}
}

// links draws all lines first and all circles after them, so that no line
// crosses a number; a circle belongs to the group of its line by its id.
func (c *canvas) links() {
	for i := range c.d.Arrows {
		c.link(i)
	}
}

func (c *canvas) link(i int) {
	a := &c.d.Arrows[i]
	lines := arrowText(c.d, a)
	class := "link"
	if !a.OK() {
		class += " broken"
	}
	label := strings.Join(lines, "; ")
	if c.legend {
		c.printf("<g class=\"%v\" id=\"%vlink-%d\" tabindex=\"0\" role=\"img\" aria-label=\"%v\">", class, c.prefix, i, label)
	} else {
		c.printf("<a class=\"%v\" id=\"%vlink-%d\" href=\"#%vrow-%d\" aria-label=\"%v\">", class, c.prefix, i, c.prefix, i, label)
	}
	c.printf("<title>%v</title>\n", strings.Join(lines, "\n"))
	for side, h := range []*diagram.Half{a.Client, a.Server} {
		c.half(c.p.halves[i][side], h)
	}
	at := c.p.circles[i]
	c.printf("<circle class=\"num\" cx=\"%v\" cy=\"%v\" r=\"%v\"/><text class=\"number\" x=\"%v\" y=\"%v\">%d</text>", at.x, at.y, circle/2-1, at.x, at.y+4.3, a.Number)
	for side, h := range []*diagram.Half{a.Client, a.Server} {
		c.sign(c.p.halves[i][side].near(side == 0), h)
	}
	if c.legend {
		c.printf("</g>\n")
	} else {
		c.printf("</a>\n")
	}
}

// half draws one half of a link.
func (c *canvas) half(line curve, h *diagram.Half) {
	path := line.path()
	c.printf("<path class=\"hit\" d=\"%v\"/>", path)
	class := c.class(h)
	c.printf("<path class=\"half %v\" d=\"%v\"/>", class, path)
	if line.hasTip {
		c.printf("<polygon class=\"tip %v\" points=\"%v\"/>", class, line.head())
	}
	c.printf("\n")
}

// sign marks a half that is broken or was not seen, beside its colour.
func (c *canvas) sign(at point, h *diagram.Half) {
	if sign := h.Signs(); sign != "" {
		class := map[check.State]string{check.Broken: "bad", check.Unseen: "unseen"}[h.State]
		c.printf("<text class=\"sign %v\" x=\"%v\" y=\"%v\">%v</text>", class, at.x, at.y+5, sign)
	}
}

// class is the style of a half: by its state, and when it is good by who signed.
func (c *canvas) class(h *diagram.Half) string {
	switch {
	case h == nil:
		return "idle"
	case h.State == check.Broken:
		return "bad"
	case h.State == check.Unseen:
		return "unseen"
	}
	return c.colour(h.Authority)
}

func (c *canvas) colour(authority string) string {
	i := slices.IndexFunc(c.d.Authorities, func(a diagram.Authority) bool { return a.Name == authority })
	if i < 0 {
		return "cn"
	}
	return fmt.Sprintf("c%d", i%colours)
}

func (l curve) path() string {
	var b strings.Builder
	for i, p := range l.points {
		switch i {
		case 0:
			b.WriteString("M")
		case 1:
			b.WriteString("C")
		default:
			b.WriteString(" ")
		}
		b.WriteString(number(p.x) + "," + number(p.y))
	}
	return b.String()
}

// head is the triangle at the end of an arrow.
func (l curve) head() string {
	from, to := l.points[len(l.points)-1], l.tip
	dx, dy := to.x-from.x, to.y-from.y
	length := math.Hypot(dx, dy)
	if length == 0 {
		length = 1
	}
	nx, ny := -dy/length*4.5, dx/length*4.5
	texts := []string{}
	for _, p := range []point{to, {from.x + nx, from.y + ny}, {from.x - nx, from.y - ny}} {
		texts = append(texts, number(p.x)+","+number(p.y))
	}
	return strings.Join(texts, " ")
}

// near is a point on a line not far from the circle, which is at its end or at
// its beginning.
func (l curve) near(end bool) point {
	points := slices.Clone(l.points)
	if end {
		slices.Reverse(points)
	}
	a, b, c, d := points[0], points[1], points[2], points[3]
	// The first place at which it is far enough from the circle.
	const far = 13.0
	at := a
	for step := range 20 {
		t := float64(step+1) / 20
		u := 1 - t
		at = point{u*u*u*a.x + 3*u*u*t*b.x + 3*u*t*t*c.x + t*t*t*d.x, u*u*u*a.y + 3*u*u*t*b.y + 3*u*t*t*c.y + t*t*t*d.y}
		if math.Hypot(at.x-a.x, at.y-a.y) >= far {
			break
		}
	}
	return at
}

// authorities draws the legend from y down and returns where it ends.
func (c *canvas) authorities(y, w float64) float64 {
	c.printf("<g class=\"legend\">\n")
	x := margin
	entry := func(text, class, sign string) {
		size := 40 + width(text, textSize) + 22
		if x+size > w-margin && x > margin {
			x, y = margin, y+22
		}
		c.printf("<path class=\"half %v\" d=\"M%v,%v h30\"/>", class, x, y+9)
		if sign != "" {
			c.printf("<text class=\"sign %v\" x=\"%v\" y=\"%v\">%v</text>", class, x+15, y+14, sign)
		}
		c.printf("<text x=\"%v\" y=\"%v\">%v</text>\n", x+38, y+13, text)
		x += size
	}
	for i, a := range c.d.Authorities {
		entry(authorityText(a), fmt.Sprintf("c%d", i%colours), "")
	}
	x, y = margin, y+22
	entry("broken", "bad", "✗")
	entry("not seen", "unseen", "?")
	entry("works, with a finding", "cn", "!")
	entry("signed by itself, or by nobody known", "cn", "")
	entry("shows no certificate", "idle", "")
	c.printf("</g>\n")
	return y + 34
}

func authorityText(a diagram.Authority) string {
	text := clip(a.Name, maxName)
	if a.Subject != "" && !strings.HasPrefix(a.Name, "CN=") {
		text += " (" + clip(a.Subject, maxName) + ")"
	}
	if !a.NotAfter.IsZero() {
		text += " until " + a.NotAfter.UTC().Format(time.DateOnly)
	}
	return text
}

// maxCauses is how many findings a picture lists below itself.
const maxCauses = 15

// causes lists the errors and warnings below the picture.
func (c *canvas) causes(y, w float64) float64 {
	var shown []int
	for i := range c.d.Findings {
		if c.d.Findings[i].Severity != check.Info {
			shown = append(shown, i)
		}
	}
	for _, i := range shown[:min(len(shown), maxCauses)] {
		f := &c.d.Findings[i]
		class := ""
		if f.Severity == check.Error {
			class = "bad"
		}
		c.printf("<text class=\"title %v\" x=\"%v\" y=\"%v\">%v</text>\n", class, margin, y, findingHead(f))
		y += 17
		for _, line := range wrap(clip(f.Cause, maxSentence), textSize, w-2*margin-12) {
			c.printf("<text x=\"%v\" y=\"%v\">%v</text>\n", margin+12, y, line)
			y += 16
		}
		if where := whereText(f); where != "" {
			c.printf("<text class=\"soft\" x=\"%v\" y=\"%v\">%v</text>\n", margin+12, y, clip(where, 120))
			y += 15
		}
		y += 9
	}
	if more := len(shown) - maxCauses; more > 0 {
		c.printf("<text x=\"%v\" y=\"%v\">and %v more: kubepki verify lists them</text>\n", margin, y, count(more, "finding"))
		y += 20
	}
	return y
}

// findingHead names a finding and the links that it breaks.
func findingHead(f *check.Finding) string {
	text := map[check.Severity]string{check.Error: "✗ error ", check.Warning: "! warning "}[f.Severity]
	if text == "" {
		text = string(f.Severity) + " "
	}
	text += f.ID
	if len(f.Links) > 0 {
		var links []string
		for _, n := range f.Links {
			links = append(links, strconv.Itoa(n))
		}
		text += " – link " + strings.Join(links, ", ")
	}
	return text
}

// whereText says where a finding stands.
func whereText(f *check.Finding) string {
	where := f.Path
	if f.Node != "" && where != "" {
		where = f.Node + ":" + where
	}
	if f.Field != "" {
		where = strings.TrimSpace(where + " (" + f.Field + ")")
	}
	if more := len(f.Paths) - 1; more > 0 {
		where += " and " + count(more, "more file")
	}
	return where
}
