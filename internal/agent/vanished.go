package agent

import (
	"fmt"
	"strings"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// inFolders counts the files with credentials in each folder, and below it.
type inFolders map[trust.Place]int

func countIn(g *trust.Graph) inFolders {
	all, counted := inFolders{}, map[trust.Place]bool{}
	for p, m := range g.Materials {
		f := p.File()
		if m.State == trust.Missing || m.State == trust.NotGiven || p.InAPI() || counted[f] {
			continue
		}
		counted[f] = true
		for dir := f.Path; strings.Count(dir, "/") > 1; {
			dir = dir[:strings.LastIndexByte(dir, '/')]
			all[trust.Place{Node: f.Node, Path: dir}]++
		}
	}
	return all
}

// vanished makes errors of folders that are not seen now and in which credentials were
// seen before: below a --root a folder that is not there is taken as not given, until it
// was there. It is remembered until the folder is back, or the agent ends.
func (a *Agent) vanished(g *trust.Graph, v *Verified) {
	now := countIn(g)
	for i := range v.Findings {
		f := &v.Findings[i]
		dir := trust.Place{Node: f.Node, Path: f.Path}
		if had := a.had[dir]; f.ID == "not-seen" && f.Field == "" && had > 0 && now[dir] == 0 {
			f.ID, f.Severity, v.Healthy = "file-missing", check.Error, false
			f.Cause = fmt.Sprintf("%s is gone: %d files with credentials were in it when it was looked at before", f.Path, had)
			f.Fix = "bring it back, or start the agent anew where it is meant to be gone"
		}
	}
	if a.had == nil {
		a.had = inFolders{}
	}
	for dir, n := range now {
		a.had[dir] = n
	}
}
