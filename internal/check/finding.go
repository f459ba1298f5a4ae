package check

import (
	"cmp"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// Severity tells how much a finding matters.
type Severity string

// The severities: an error breaks or opens something now, a warning will or
// may, an info is worth knowing.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Info    Severity = "info"
)

// AtLeast tells whether s is as severe as t or more.
func (s Severity) AtLeast(t Severity) bool { return s.rank() <= t.rank() }

func (s Severity) rank() int { return slices.Index([]Severity{Error, Warning, Info}, s) }

// Finding is one fault, said once. Its JSON form is public and versioned.
type Finding struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	// Links are the numbers of the links that it breaks, each once.
	Links []int  `json:"links"`
	Node  string `json:"node,omitempty"`
	// Path is absolute, as on the node; Paths lists all files that the one
	// cause spans, Path first.
	Path  string   `json:"path,omitempty"`
	Paths []string `json:"paths"`
	Field string   `json:"field,omitempty"`
	Cause string   `json:"cause"`
	// Fix is one line: a command for sh, run as root on Node, or words, as FixKind
	// tells. FixNote is what to know of the command, and what it leaves to do.
	Fix     string  `json:"fix,omitempty"`
	FixKind FixKind `json:"fixKind,omitempty"`
	FixNote string  `json:"fixNote,omitempty"`
	// References name others who speak of the same fault: controls of the CIS
	// Kubernetes Benchmark, upstream issues.
	References []string `json:"references,omitempty"`
	// Consequences merely follow; they vanish with the cause.
	Consequences []Consequence `json:"consequences"`

	shown   []trust.Place // of the places, those that are only named: what is there is right
	places  []trust.Place // where it is found: the first is the root
	breaks  []int         // indices of the breaks that it explains
	needs   []trust.Place // places whose content it took for good
	bundles []trust.Place // whose content it took for good: one that is wrong explains it only with all others
	cascade bool          // makes findings that need its places consequences
	follows trust.Place   // the setting that what is wrong was published from
	reaches []reach       // halves that it breaks
	live    bool          // was seen of a process: any error of its needs is its cause
	// processes are the IDs of the components whose process is behind its files.
	processes []string
}

// Processes are the IDs of the components that are to be started again for a
// live finding: their process is behind its files. None of other findings.
func (f *Finding) Processes() []string { return f.processes }

// Consequence is what merely follows from a finding.
type Consequence struct {
	ID   string `json:"id"`
	Path string `json:"path,omitempty"`
	Node string `json:"node,omitempty"`
}

// at sets the places of a finding: the first is its root.
func (f Finding) at(places ...trust.Place) Finding {
	f.places = uniquePlaces(places)
	if len(f.places) == 0 {
		return f
	}
	f.Node, f.Path, f.Field = f.places[0].Node, f.places[0].Path, f.places[0].Field
	f.Paths = []string{}
	for _, p := range f.places {
		if !slices.Contains(f.Paths, p.Path) {
			f.Paths = append(f.Paths, p.Path)
		}
	}
	return f
}

func uniquePlaces(in []trust.Place) []trust.Place {
	var out []trust.Place
	for _, p := range in {
		if !p.IsZero() && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

func compareFindings(a, b Finding) int {
	return cmp.Or(
		cmp.Compare(a.Severity.rank(), b.Severity.rank()),
		cmp.Compare(ruleIndex(a.ID), ruleIndex(b.ID)),
		strings.Compare(a.Node, b.Node), strings.Compare(a.Path, b.Path), strings.Compare(a.Field, b.Field),
	)
}
