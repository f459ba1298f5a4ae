package picture

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/diagram"
)

// Mermaid writes a diagram as a flowchart of Mermaid, which draws a link as one
// line: it has the colour of the half at the caller, or of the other one where
// the caller shows nothing, and the number of the link as its label.
func Mermaid(w io.Writer, d *diagram.Diagram) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%%%% %s: %s\nflowchart TB\n", strings.ReplaceAll(title(d), "%%", ""), verdict(d))
	for i := range d.Groups {
		g := &d.Groups[i]
		label := quoteMermaid(clip(g.Title, maxTitle))
		if g.As != "" {
			label += "<br/>" + quoteMermaid(elseText(g))
		}
		fmt.Fprintf(&b, "  subgraph group%d[\"%s\"]\n", i, label)
		for j := range d.Boxes {
			if d.Boxes[j].Group == i {
				fmt.Fprintf(&b, "    %s\n", boxMermaid(d, j))
			}
		}
		b.WriteString("  end\n")
	}
	for j := range d.Boxes {
		if d.Boxes[j].Group < 0 {
			fmt.Fprintf(&b, "  %s\n", boxMermaid(d, j))
		}
	}
	for i := range d.Arrows {
		a := &d.Arrows[i]
		fmt.Fprintf(&b, "  box%d %s box%d\n", a.Caller, lineMermaid(a), a.Callee)
		fmt.Fprintf(&b, "  linkStyle %d %s\n", i, styleMermaid(d, a))
	}
	for i := range d.Groups {
		if groupColour(d, &d.Groups[i]) == fixedBad {
			fmt.Fprintf(&b, "  style group%d stroke:%s,stroke-width:2px\n", i, fixedBad)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

func boxMermaid(d *diagram.Diagram, i int) string {
	if d.Boxes[i].Note {
		return fmt.Sprintf("box%d[\" \"]", i)
	}
	return fmt.Sprintf("box%d[\"%s\"]", i, quoteMermaid(clip(d.Boxes[i].Title, maxName)))
}

// lineMermaid is an arrow with its number: dotted when a half is broken or was
// not seen, with a sign for either.
func lineMermaid(a *diagram.Arrow) string {
	switch {
	case !a.OK():
		return fmt.Sprintf("-. \"%d ✗\" .->", a.Number)
	case a.Client.Is(check.Unseen) || a.Server.Is(check.Unseen):
		return fmt.Sprintf("-. \"%d ?\" .->", a.Number)
	}
	return fmt.Sprintf("-- \"%d\" -->", a.Number)
}

func styleMermaid(d *diagram.Diagram, a *diagram.Arrow) string {
	if !a.OK() {
		return "stroke:" + fixedBad + ",stroke-width:3px"
	}
	for _, h := range []*diagram.Half{a.Client, a.Server} {
		if h.Is(check.OK) {
			return "stroke:" + fixedColour(d, h)
		}
	}
	return "stroke:" + fixedSoft
}

// quoteMermaid writes as numbers the characters that mean something to Mermaid,
// to Markdown or to HTML.
func quoteMermaid(text string) string {
	var b strings.Builder
	for _, r := range text {
		if strings.ContainsRune("\"#&<>`\\*_~$;%{}[]()|", r) {
			fmt.Fprintf(&b, "#%d;", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
