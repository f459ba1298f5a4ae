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
		for _, part := range s.Parts {
			for line := range strings.SplitSeq(part.Text, "\n") {
				fmt.Fprintf(&b, "  %s\n", line)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// PageRows prints one row for each page.
func PageRows(w io.Writer, pages []explain.Page, p Palette) error {
	var rows [][]string
	for _, page := range pages {
		rows = append(rows, []string{page.ID, p.severity(page.Severity), page.Summary})
	}
	return Table(w, []string{"FINDING", "SEVERITY", "MEANS"}, rows)
}
