package explain

import (
	"cmp"
	"embed"
	"fmt"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/check"
)

//go:embed findings/*.md
var pageFiles embed.FS

// Page is what there is to say of one finding.
type Page struct {
	ID string `json:"id"`
	// Severity is the finding's, unless it is said of a case that it differs.
	Severity check.Severity `json:"severity"`
	Summary  string         `json:"summary"` // one sentence
	Sections []Section      `json:"sections"`
}

// Section is a part of a page under a heading.
type Section struct {
	Title string `json:"title"`
	Parts []Part `json:"parts"`
}

// Part is a paragraph, a list, or lines of a terminal.
type Part struct {
	Text string `json:"text"`
	// Console tells that the lines are of a terminal: what begins with "$ " is
	// typed, the rest is what shows the fault; … stands for any text.
	Console bool `json:"console,omitempty"`
}

// Titles are the sections of each page, in order.
var Titles = []string{"What it means", "How it comes about", "Check by hand", "How to mend it", "See also"}

// Pages returns all pages: errors, warnings, infos, each in the order of the ids.
func Pages() ([]Page, error) {
	entries, err := pageFiles.ReadDir("findings")
	if err != nil {
		return nil, fmt.Errorf("the pages of findings: %w", err)
	}
	var all []Page
	for _, e := range entries {
		p, err := readPage(strings.TrimSuffix(e.Name(), ".md"))
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	slices.SortFunc(all, order)
	return all, nil
}

// UnknownFinding is the error for an id that has no page.
type UnknownFinding struct{ ID, Nearest string }

func (u *UnknownFinding) Error() string { return fmt.Sprintf("there is no finding %q", u.ID) }

// Hint names the id that is meant.
func (u *UnknownFinding) Hint() string {
	if u.Nearest == "" {
		return "kubepki explain lists all findings"
	}
	return fmt.Sprintf("did you mean %s? kubepki explain lists all findings", u.Nearest)
}

// Find returns the page of a finding; an [*UnknownFinding] where there is none.
func Find(id string) (Page, error) {
	want := strings.ToLower(strings.TrimSpace(id))
	for _, known := range IDs() {
		if known == want {
			return readPage(known)
		}
	}
	return Page{}, &UnknownFinding{ID: id, Nearest: nearest(want, IDs())}
}

// IDs are those of all pages, in order.
func IDs() []string {
	entries, _ := pageFiles.ReadDir("findings") // embedded: the folder is there
	var all []string
	for _, e := range entries {
		all = append(all, strings.TrimSuffix(e.Name(), ".md"))
	}
	return all
}

// Markdown returns the page as it is written.
func Markdown(id string) (string, error) {
	data, err := pageFiles.ReadFile("findings/" + id + ".md")
	if err != nil {
		return "", fmt.Errorf("the page of %s: %w", id, err)
	}
	return string(data), nil
}

func readPage(id string) (Page, error) {
	text, err := Markdown(id)
	if err != nil {
		return Page{}, err
	}
	p, err := parsePage(text)
	if err != nil {
		return Page{}, fmt.Errorf("findings/%s.md: %w", id, err)
	}
	if p.ID != id {
		return Page{}, fmt.Errorf("findings/%s.md: its title is %q", id, p.ID)
	}
	return p, nil
}

// parsePage reads "# ID", "SEVERITY: SUMMARY", and the sections. Of Markdown it
// knows headings, paragraphs, lists and fenced blocks: what pages are written in.
func parsePage(text string) (Page, error) {
	blocks := splitBlocks(text)
	if len(blocks) < 2 || !strings.HasPrefix(blocks[0], "# ") {
		return Page{}, fmt.Errorf("it does not begin with # ID")
	}
	p := Page{ID: strings.TrimPrefix(blocks[0], "# ")}
	severity, summary, ok := strings.Cut(blocks[1], ": ")
	if p.Severity, p.Summary = check.Severity(severity), summary; !ok || !slices.Contains(severities, p.Severity) {
		return Page{}, fmt.Errorf("its second paragraph is not SEVERITY: SUMMARY")
	}
	for _, b := range blocks[2:] {
		if title, ok := strings.CutPrefix(b, "## "); ok {
			p.Sections = append(p.Sections, Section{Title: title})
			continue
		}
		if len(p.Sections) == 0 {
			return Page{}, fmt.Errorf("text stands before the first section")
		}
		at := &p.Sections[len(p.Sections)-1]
		at.Parts = append(at.Parts, newPart(b))
	}
	return p, nil
}

func newPart(block string) Part {
	if body, ok := strings.CutPrefix(block, "```console\n"); ok {
		return Part{Text: strings.TrimSuffix(body, "\n```"), Console: true}
	}
	return Part{Text: block}
}

// splitBlocks splits at blank lines outside of fences.
func splitBlocks(text string) []string {
	var all, block []string
	fence := false
	flush := func() {
		if len(block) > 0 {
			all = append(all, strings.Join(block, "\n"))
		}
		block = nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "```") {
			fence = !fence
		}
		if line == "" && !fence {
			flush()
			continue
		}
		block = append(block, line)
	}
	flush()
	return all
}

// nearest returns the name that differs least, empty when none is near.
func nearest(want string, names []string) string {
	if len(want) > 100 {
		return ""
	}
	best, distance := "", len(want)/2+1
	for _, n := range names {
		if want != "" && strings.Contains(n, want) {
			return n
		}
		if d := difference(want, n); d < distance {
			best, distance = n, d
		}
	}
	return best
}

// difference is how many letters are to be put in, left out or changed (Levenshtein).
func difference(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost++
			}
			before = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// order puts pages of errors first, then warnings, then infos.
func order(a, b Page) int {
	return cmp.Or(slices.Index(severities, a.Severity)-slices.Index(severities, b.Severity), cmp.Compare(a.ID, b.ID))
}

var severities = []check.Severity{check.Error, check.Warning, check.Info}
