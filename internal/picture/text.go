package picture

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/diagram"
	"github.com/kubepki/kubepki/internal/report"
)

// How many characters of foreign texts are shown: of a name in a box, and of a
// sentence.
const (
	maxName     = 34
	maxTitle    = 60
	maxSentence = 400
)

// clip makes a foreign text fit for a picture: nothing that moves the cursor or
// turns the direction of writing, and no more than max characters.
func clip(text string, max int) string {
	text = strings.Map(func(r rune) rune {
		// What neither XML nor a reader has: surrogates and the last two of each
		// plane, beside what a terminal does not take.
		if r == unicode.ReplacementChar || r&0xfffe == 0xfffe || unicode.Is(unicode.Cs, r) {
			return '?'
		}
		return r
	}, report.Plain(text))
	runes := []rune(text)
	if len(runes) > max {
		text = string(runes[:max-1]) + "…"
	}
	return text
}

// helvetica are the widths of the printable characters of ASCII in thousandths
// of the size (Adobe's metrics of Helvetica, which Arial shares).
var helvetica = [...]int{
	278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556,
	1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556,
	333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
}

// width is how wide a text is at a size, in pixels: a fifth more than in
// Helvetica, as the fonts that stand in for it are wider.
func width(text string, size float64) float64 {
	sum := 0
	for _, r := range text {
		switch {
		case r >= 0x20 && int(r)-0x20 < len(helvetica):
			sum += helvetica[r-0x20]
		case r >= 0x1100:
			sum += 1000
		default:
			sum += 660
		}
	}
	return float64(sum) * size / 1000 * 1.2
}

// bold is how much wider bold letters are.
const bold = 1.1

// endName says what stands at one end of an arrow, and where: "kubelet of
// w1 … w50 (50)".
func endName(d *diagram.Diagram, box int, nodes []string) string {
	b := &d.Boxes[box]
	if b.Group < 0 || len(nodes) == 0 {
		return clip(b.Title, maxTitle)
	}
	return clip(b.Title, maxName) + " of " + clip(diagram.NodesTitle(nodes), maxTitle)
}

// arrowName says what an arrow joins.
func arrowName(d *diagram.Diagram, a *diagram.Arrow) string {
	text := fmt.Sprintf("link %d: %s → %s", a.Number, endName(d, a.Caller, a.Callers), endName(d, a.Callee, a.Callees))
	if a.Links > 1 {
		text += fmt.Sprintf(" (%d links)", a.Links)
	}
	return text
}

// stateText says how a half is, and how that is known.
func stateText(h *diagram.Half) string {
	switch {
	case h == nil:
		return "–"
	case h.State == check.Broken:
		return "broken"
	case h.State == check.Unseen:
		return "not seen"
	}
	var proofs []string
	for _, p := range h.Proofs {
		proofs = append(proofs, string(p))
	}
	return "ok (" + strings.Join(proofs, ", ") + ")"
}

// expiryText says when the credential ends that ends first.
func expiryText(d *diagram.Diagram, h *diagram.Half) string {
	if h == nil || h.NotAfter.IsZero() {
		return ""
	}
	return h.NotAfter.UTC().Format(time.DateOnly) + " (" + report.Left(h.NotBefore, h.NotAfter, d.At) + ")"
}

// halfText says all of a half in one line.
func halfText(d *diagram.Diagram, h *diagram.Half) string {
	text := ""
	if h.Credential != "" {
		text = clip(h.Credential, maxName) + ", "
	}
	text += stateText(h)
	if h.Authority != "" {
		text += ", by " + clip(h.Authority, maxTitle)
	}
	if e := expiryText(d, h); e != "" {
		text += ", ends " + e
		if at := h.First; at.Node != "" {
			text += ", first " + clip(at.Node+":"+at.Path, maxTitle)
		}
	}
	return text
}

// arrowText says all of an arrow, a line for each thing.
func arrowText(d *diagram.Diagram, a *diagram.Arrow) []string {
	lines := []string{arrowName(d, a)}
	for _, side := range []struct {
		name string
		half *diagram.Half
	}{{"caller shows", a.Client}, {"callee shows", a.Server}} {
		if side.half == nil {
			continue
		}
		lines = append(lines, side.name+": "+halfText(d, side.half))
	}
	return append(lines, findingLines(d, findingsOf(a))...)
}

// maxFindings is how many findings are told where there is little room.
const maxFindings = 6

// findingLines tell of findings in a line each.
func findingLines(d *diagram.Diagram, findings []int) []string {
	var lines []string
	for _, i := range findings[:min(len(findings), maxFindings)] {
		f := &d.Findings[i]
		lines = append(lines, fmt.Sprintf("%s %s: %s", f.Severity, f.ID, clip(f.Cause, maxSentence)))
	}
	if more := len(findings) - maxFindings; more > 0 {
		lines = append(lines, "and "+count(more, "more finding"))
	}
	return lines
}

// findingsOf are the findings of both halves, each once, the worst first.
func findingsOf(a *diagram.Arrow) []int {
	var all []int
	for _, h := range []*diagram.Half{a.Client, a.Server} {
		if h != nil {
			all = append(all, h.Findings...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// verdict sums a diagram up in one line.
func verdict(d *diagram.Diagram) string {
	c := d.Counts
	word := "healthy"
	switch {
	case !d.Healthy:
		word = "not healthy"
	case c.Halves == c.Unseen:
		word = "nothing was seen that could be judged"
	}
	text := fmt.Sprintf("%s at %s: %s, %s, %d broken", word, d.At.UTC().Format(time.RFC3339), count(c.Nodes, "node"), count(c.Links, "link"), c.Broken)
	if c.Unseen > 0 {
		text += fmt.Sprintf(", %d of %d halves not seen", c.Unseen, c.Halves)
	}
	return text + fmt.Sprintf("; %s, %s, %s", count(c.Errors, "error"), count(c.Warnings, "warning"), count(c.Infos, "info"))
}

func count(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// wrap breaks a text into lines that are no wider than max pixels at a size.
func wrap(text string, size, max float64) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		for width(word, size) > max { // a word that no line holds
			if line != "" {
				lines, line = append(lines, line), ""
			}
			runes := []rune(word)
			cut := len(runes)
			for cut > 1 && width(string(runes[:cut]), size) > max {
				cut--
			}
			lines, word = append(lines, string(runes[:cut])), string(runes[cut:])
		}
		switch {
		case line == "":
			line = word
		case width(line+" "+word, size) > max:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
