package report

import (
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/kubepki/kubepki/internal/check"
)

// Palette colours words. The zero Palette leaves them plain.
type Palette struct{ On bool }

// Bold makes a word stand out.
func (p Palette) Bold(s string) string { return p.paint(s, text.Bold) }

// Red marks what is broken.
func (p Palette) Red(s string) string { return p.paint(s, text.FgRed) }

// Green marks what works.
func (p Palette) Green(s string) string { return p.paint(s, text.FgGreen) }

func (p Palette) severity(s check.Severity) string {
	switch s {
	case check.Error:
		return p.paint(string(s), text.FgRed)
	case check.Warning:
		return p.paint(string(s), text.FgYellow)
	}
	return string(s)
}

func (p Palette) paint(s string, c ...text.Color) string {
	if !p.On {
		return s
	}
	return text.Colors(c).EscapeSeq() + s + text.EscapeReset
}
