package main

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// sayReplaced says, for those of kubeadm's files, how other authorities take the place of
// those that cannot come back: a rotation needs a cluster that runs.
func (r *recovered) sayReplaced(s streams) {
	pairs := map[string]bool{} // paths without their end
	planes, others := "", ""   // folders
	for _, l := range r.plan.Left {
		if file, ok := strings.CutSuffix(l.Place.Path, ".crt"); ok && r.isAuthority(l) && strings.HasPrefix(file, catalog.KubernetesDir+"/pki/") {
			pairs[file] = true
		}
	}
	for i := range r.nodes.Nodes {
		n := &r.nodes.Nodes[i]
		dir, ok := r.nodes.Dirs[n.Name]
		switch {
		case !ok || n.Layout == catalog.LayoutUsers:
		case slices.ContainsFunc(n.Components, func(c trust.Component) bool { return c.Name == catalog.APIServer }):
			planes += " " + shellWord(dir)
		default:
			others += " " + shellWord(dir)
		}
	}
	if len(pairs) == 0 || planes == "" {
		return
	}
	say := func(text string) { fmt.Fprintf(s.err, "  %s\n", report.Plain(text)) }
	say("kubepki init --root NEW --node-name NAME --apiserver-advertise-address ADDRESS  # with the algorithm that you want; NEW's authorities are taken, nothing else of it")
	for _, file := range slices.Sorted(maps.Keys(pairs)) {
		say(fmt.Sprintf("for dir in%s; do cp -p NEW%s.crt NEW%s.key \"$dir%s/\"; done", planes, file, file, path.Dir(file)))
		if others != "" && path.Base(file) == "ca" && path.Dir(file) == catalog.KubernetesDir+"/pki" {
			say(fmt.Sprintf("for dir in%s; do cp -p NEW%s.crt \"$dir%s/\"; done", others, file, path.Dir(file)))
		}
	}
	say("kubepki renew --all --yes" + r.rootFlags() + "  # sa.key stays, and with it the tokens of pods")
}
