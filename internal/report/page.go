package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/kubepki/kubepki/internal/explain"
)

// FindingPage is the answer of `kubepki explain FINDING-ID`.
type FindingPage struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	explain.Page
}

// NewFindingPage puts a page into its public form.
func NewFindingPage(page explain.Page) *FindingPage {
	return &FindingPage{APIVersion: APIVersion, Kind: "FindingExplanation", Page: page}
}

// Text prints a page for people.
func (f *FindingPage) Text(w io.Writer, p Palette) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n%s\n", p.severity(f.Severity), p.Bold(f.ID), f.Summary)
	for _, s := range f.Sections {
		fmt.Fprintf(&b, "\n%s\n", p.Bold(strings.ToUpper(s.Title)))
		for n, part := range s.Parts {
			if n > 0 {
				b.WriteByte('\n')
			}
			for _, line := range partLines(part) {
				fmt.Fprintf(&b, "  %s\n", line)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// pageWidth is how many letters a line of prose has for people.
const pageWidth = 96

// partLines are the lines of a part: those of a terminal as they are, prose
// broken between words.
func partLines(part explain.Part) []string {
	if part.Console {
		return strings.Split(part.Text, "\n")
	}
	var all []string
	line := ""
	for _, word := range strings.Fields(part.Text) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > pageWidth {
			all, line = append(all, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(all, line)
}

// PageRows prints one row for each page.
func PageRows(w io.Writer, pages []explain.Page, p Palette) error {
	var rows [][]string
	for _, page := range pages {
		rows = append(rows, []string{page.ID, p.severity(page.Severity), page.Summary})
	}
	return Table(w, []string{"FINDING", "SEVERITY", "MEANS"}, rows)
}
