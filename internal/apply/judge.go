package apply

import (
	"fmt"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// judged says what will be wrong on the nodes that is not now, and what stays
// wrong with what is renewed: the change is made in memory and judged by the rules.
// breaks are, of the former, the findings.
func judged(n *Nodes, files []*File, before *check.Result, at time.Time) (warnings []string, breaks []check.Finding) {
	type key struct{ id, node, path, field string }
	keyOf := func(f check.Finding) key { return key{f.ID, f.Node, f.Path, f.Field} }
	was := map[key]bool{}
	for _, f := range before.Findings {
		was[keyOf(f)] = true
	}
	ours := map[trust.Place]bool{}
	for _, f := range files {
		ours[f.Place] = true
	}
	for _, f := range check.Run(catalog.Wire(withFiles(n.Nodes, files)), check.Options{At: at}).Findings {
		switch {
		case f.Severity != check.Error:
		case !was[keyOf(f)]:
			breaks = append(breaks, f)
			warnings = append(warnings, fmt.Sprintf("then %s: %s", f.ID, f.Cause))
		case ours[trust.Place{Node: f.Node, Path: f.Path}]:
			warnings = append(warnings, fmt.Sprintf("this does not mend %s: %s", f.ID, f.Cause))
		}
	}
	return warnings, breaks
}
