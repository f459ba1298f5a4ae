package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/why"
)

// WhyList is the answer of `kubepki cert why`.
type WhyList struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	At         time.Time    `json:"at"`
	Items      []why.Answer `json:"items"`
}

// NewWhyList puts answers into their public form.
func NewWhyList(at time.Time, items ...why.Answer) *WhyList {
	return &WhyList{APIVersion: APIVersion, Kind: "CertificateWhyList", At: at.UTC().Truncate(time.Second), Items: items}
}

// Text prints each answer for people: the chain, then the cause and what to do.
func (l *WhyList) Text(w io.Writer, p Palette) error {
	for i := range l.Items {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := l.one(w, p, &l.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

func (l *WhyList) one(w io.Writer, p Palette, a *why.Answer) error {
	rows := make([][]string, len(a.Steps))
	for i, s := range a.Steps {
		rows[i] = []string{p.mark(s.Mark), Plain(s.Object), curtail(Plain(s.Text), rowText)}
	}
	if err := Table(w, []string{"STATE", "OBJECT", "WHAT IS SEEN"}, rows); err != nil {
		return err
	}
	var b strings.Builder
	b.WriteByte('\n')
	if a.Cause == nil {
		name := Plain(a.Namespace) + "/" + Plain(a.Name)
		if a.Kind != "" {
			name = Plain(a.Steps[0].Object)
		}
		fmt.Fprintf(&b, "%s: %s waits for nothing\n", p.Green(string(a.State)), name)
	} else {
		fmt.Fprintf(&b, "%s %s\n", p.whyState(a.State), p.Bold(a.Cause.ID))
		l.cause(&b, a.Cause)
	}
	for _, n := range a.Notes {
		fmt.Fprintf(&b, "  note:  %s\n", curtail(Plain(n), causeText))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (l *WhyList) cause(b *strings.Builder, c *why.Cause) {
	fmt.Fprintf(b, "  cause: %s\n  where: %s\n", curtail(Plain(c.Text), causeText), Plain(c.Where))
	if c.Until != nil {
		fmt.Fprintf(b, "  until: %s (in %s)\n", c.Until.UTC().Format(time.RFC3339), roughly(max(c.Until.Sub(l.At), 0)))
	}
	head := "  fix:   "
	if c.Fix != "" {
		fmt.Fprintf(b, "%s%s\n", head, Plain(c.Fix))
		head = "         # "
	}
	if c.Advice != "" {
		fmt.Fprintf(b, "%s%s\n", head, Plain(c.Advice))
	}
}

// What others wrote is cut in a row, and in a cause: the answer is to fit a screen. The
// documents have the whole.
const (
	rowText   = 110
	causeText = 500
)

func curtail(text string, most int) string {
	r := []rune(text)
	if len(r) <= most {
		return text
	}
	return string(r[:most-1]) + "…"
}

// Rows prints one row for each answer.
func (l *WhyList) Rows(w io.Writer, p Palette) error {
	var rows [][]string
	for i := range l.Items {
		a := &l.Items[i]
		name := Plain(a.Name)
		if a.Kind != "" {
			name = Plain(a.Kind) + "/" + name
		}
		row := []string{Plain(a.Namespace), name, p.whyState(a.State), "–", "–", "–"}
		if a.Cause != nil {
			row[3], row[4], row[5] = a.Cause.ID, Plain(a.Cause.Where), curtail(Plain(a.Cause.Text), rowText)
		}
		rows = append(rows, row)
	}
	return Table(w, []string{"NAMESPACE", "NAME", "STATE", "CAUSE", "WHERE", "WHAT IS SEEN"}, rows)
}

func (p Palette) mark(m why.Mark) string {
	switch m {
	case why.Good:
		return p.Green(string(m))
	case why.Bad:
		return p.Red(string(m))
	}
	return string(m)
}

func (p Palette) whyState(s why.State) string {
	switch s {
	case why.Ready:
		return p.Green(string(s))
	case why.Broken, why.AtRisk:
		return p.Red(string(s))
	}
	return string(s)
}
