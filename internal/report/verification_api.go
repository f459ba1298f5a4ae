package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/kubepki/kubepki/internal/trust"
)

// VerifiedAPI tells what was looked at in the API of the cluster.
type VerifiedAPI struct {
	Server string `json:"server"` // URL
	// Reached is false when nothing could be asked.
	Reached bool           `json:"reached"`
	Sources []LookedSource `json:"sources"`
}

// LookedSource is one kind of object that was looked at.
type LookedSource struct {
	Name  string `json:"name"`
	Count int    `json:"count"` // objects found
}

func newVerifiedAPI(o *trust.Objects) *VerifiedAPI {
	if o == nil {
		return nil
	}
	a := &VerifiedAPI{Server: o.Server, Reached: o.Unreachable == "", Sources: []LookedSource{}}
	for _, s := range o.Sources {
		a.Sources = append(a.Sources, LookedSource{s.Name, s.Count})
	}
	return a
}

// text says what was looked at in a few lines.
func (a *VerifiedAPI) text(w io.Writer) {
	var found []string
	for _, s := range a.Sources {
		if s.Count > 0 {
			found = append(found, fmt.Sprintf("%d × %s", s.Count, s.Name))
		}
	}
	fmt.Fprintf(w, "\n%s holds:\n", Plain(a.Server))
	for _, f := range found {
		fmt.Fprintf(w, "  %s\n", f)
	}
	if !a.Reached {
		fmt.Fprintln(w, "  (it could not be asked)")
	}
}

// shownPaths is how many paths of one finding are told to people.
const shownPaths = 10

// others prints the paths of a finding beside its first.
func others(w io.Writer, paths []string, first string) {
	shown := 0
	for _, other := range paths {
		if other == first {
			continue
		}
		if shown++; shown > shownPaths {
			fmt.Fprintf(w, "         and %d more (-o json names all)\n", len(paths)-1-shownPaths)
			return
		}
		fmt.Fprintf(w, "         %s\n", Plain(strings.TrimSpace(other)))
	}
}
