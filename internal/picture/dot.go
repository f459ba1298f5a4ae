package picture

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/diagram"
)

// fixed are the colours of texts that others draw, which have one face: those
// of the light one, in the order of the authorities.
var fixed = [colours]string{"#0072b2", "#00795b", "#9b3f86", "#a35f00", "#8a5a44", "#6b6b00", "#5c4db1"}

const fixedBad, fixedSoft = "#c01622", "#767d87"

// fixedColour is the colour of a half.
func fixedColour(d *diagram.Diagram, h *diagram.Half) string {
	switch {
	case h.Is(check.Broken):
		return fixedBad
	case h.Is(check.OK):
		for i, a := range d.Authorities {
			if a.Name == h.Authority {
				return fixed[i%colours]
			}
		}
	}
	return fixedSoft
}

// DOT writes a diagram in Graphviz's language: what stands where is Graphviz's
// to say, and all that can be pointed at is in tooltips.
func DOT(w io.Writer, d *diagram.Diagram) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "digraph kubepki {\n  graph [label=%s, labelloc=t, fontname=Helvetica, rankdir=TB, nodesep=0.22, ranksep=0.3, newrank=true];\n", quoteDOT(title(d)+": "+verdict(d)))
	b.WriteString("  node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=Helvetica, fontsize=12];\n  edge [arrowsize=0.8];\n")
	for i := range d.Groups {
		g := &d.Groups[i]
		label := clip(g.Title, maxTitle)
		if g.As != "" {
			label += "\n" + elseText(g)
		}
		fmt.Fprintf(&b, "  subgraph cluster_%d {\n    label=%s; labeljust=l; style=\"rounded,filled\"; fillcolor=\"#f3f5f8\"; color=\"%s\"; tooltip=%s;\n", i, quoteDOT(label), groupColour(d, g), quoteDOT(groupText(d, g)))
		for j := range d.Boxes {
			if d.Boxes[j].Group == i {
				fmt.Fprintf(&b, "    %s\n", boxDOT(d, j))
			}
		}
		for _, j := range circlesWithin(d, i) {
			fmt.Fprintf(&b, "    link%d;\n", j)
		}
		b.WriteString("  }\n")
	}
	for j := range d.Boxes {
		if d.Boxes[j].Group < 0 {
			fmt.Fprintf(&b, "  %s\n", boxDOT(d, j))
		}
	}
	for i := range d.Arrows {
		arrowDOT(&b, d, i)
	}
	b.WriteString("}\n")
	_, err := w.Write(b.Bytes())
	return err
}

func groupColour(d *diagram.Diagram, g *diagram.Group) string {
	for _, i := range g.Findings {
		if d.Findings[i].Severity == check.Error {
			return fixedBad
		}
	}
	return "#c3c9d1"
}

func boxDOT(d *diagram.Diagram, i int) string {
	if d.Boxes[i].Note {
		return fmt.Sprintf("box%d [label=\"\", shape=point, style=invis];", i)
	}
	return fmt.Sprintf("box%d [label=%s];", i, quoteDOT(clip(d.Boxes[i].Title, maxName)))
}

func arrowDOT(b *bytes.Buffer, d *diagram.Diagram, i int) {
	a := &d.Arrows[i]
	tip := quoteDOT(strings.Join(arrowText(d, a), "\n"))
	fill, ink := "white", "black"
	if !a.OK() {
		fill, ink = fixedBad, "white"
	}
	fmt.Fprintf(b, "  link%d [label=\"%d\", shape=circle, style=filled, fixedsize=true, width=0.33, fontsize=11, fillcolor=\"%s\", fontcolor=\"%s\", tooltip=%s];\n", i, a.Number, fill, ink, tip)
	fmt.Fprintf(b, "  box%d -> link%d [arrowhead=none, %s, tooltip=%s];\n", a.Caller, i, halfDOT(d, a.Client), tip)
	fmt.Fprintf(b, "  link%d -> box%d [%s, tooltip=%s];\n", i, a.Callee, halfDOT(d, a.Server), tip)
}

func halfDOT(d *diagram.Diagram, h *diagram.Half) string {
	text := fmt.Sprintf("color=\"%s\"", fixedColour(d, h))
	switch {
	case h.Is(check.Broken):
		text += ", style=dashed, penwidth=2"
	case h.Is(check.Unseen):
		text += ", style=dotted"
	}
	if sign := h.Signs(); sign != "" {
		text += fmt.Sprintf(", label=\"%s\", fontcolor=\"%s\"", sign, fixedColour(d, h))
	}
	return text
}

// quoteDOT quotes a text that was made fit by clip: a backslash begins an escape
// there, and & an entity.
func quoteDOT(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "&", "&amp;").Replace(text) + `"`
}
