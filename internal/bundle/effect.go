package bundle

import (
	"crypto/x509"
	"maps"
	"slices"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/trust"
)

// Edit is what is about to be done to one node.
type Edit struct {
	// File holds the anchors; links were followed.
	File trust.Place
	// Anchors are what it shall hold.
	Anchors []*x509.Certificate
	// Setting, unless zero, is the flag that shall name the file from then on.
	Setting Setting
}

// Effect is what becomes of the nodes by edits.
type Effect struct {
	// Findings of error severity that were not there.
	Findings []check.Finding
	// Lost are halves of links that work and would not any more.
	Lost []Lost
}

// Lost is one half of a link that needs what is taken away.
type Lost struct {
	Link       *trust.Link
	Credential *trust.Credential
	Server     bool // the callee's half: its credential is judged by the caller
}

// Judge makes edits in memory, and tells what they do. It does not touch the nodes.
func Judge(nodes []trust.Node, edits []Edit, o check.Options) Effect {
	before, after := catalog.Wire(nodes), catalog.Wire(edited(nodes, edits))
	return Effect{Findings: newErrors(check.Run(before, o), check.Run(after, o)), Lost: lost(before, after, o)}
}

// edited returns the nodes as they would be read after the edits.
func edited(nodes []trust.Node, edits []Edit) []trust.Node {
	out := slices.Clone(nodes)
	for i := range out {
		n := &out[i]
		for _, e := range edits {
			if e.File.Node == n.Name {
				n.Materials = withAnchors(n.Materials, e)
				n.Components = withFlag(n.Components, e)
			}
		}
	}
	return out
}

func withAnchors(materials []*trust.Material, e Edit) []*trust.Material {
	found := false
	out := slices.Clone(materials)
	for i, m := range out {
		if m.Place != e.File && (m.Place.Field != "" || m.Target != e.File.Path) {
			continue
		}
		changed := *m
		changed.State, changed.Reason, changed.Certificates = trust.Present, "", e.Anchors
		out[i], found = &changed, true
	}
	if !found {
		out = append(out, &trust.Material{Place: e.File, Role: trust.RoleBundle, State: trust.Present, Certificates: e.Anchors})
	}
	return out
}

func withFlag(components []trust.Component, e Edit) []trust.Component {
	out := slices.Clone(components)
	for i := range out {
		if out[i].Name == e.Setting.Component {
			out[i].Flags = maps.Clone(out[i].Flags)
			out[i].Flags[e.Setting.Name] = []string{e.File.Path}
		}
	}
	return out
}

type findingKey struct{ id, node, path, field string }

// newErrors are the errors of after that before has not, by what and where they are.
func newErrors(before, after *check.Result) []check.Finding {
	key := func(f check.Finding) findingKey { return findingKey{f.ID, f.Node, f.Path, f.Field} }
	known := map[findingKey]bool{}
	for _, f := range before.Findings {
		known[key(f)] = known[key(f)] || f.Severity == check.Error
	}
	return slices.DeleteFunc(slices.Clone(after.Findings), func(f check.Finding) bool { return f.Severity != check.Error || known[key(f)] })
}

// lost compares the two halves of each link. Edits of bundles change no link: one
// that is not found again is lost too.
func lost(before, after *trust.Graph, o check.Options) []Lost {
	var all []Lost
	for i := range before.Links {
		l := &before.Links[i]
		var m *trust.Link
		if i < len(after.Links) && after.Links[i].Number == l.Number && after.Links[i].Caller == l.Caller && after.Links[i].Callee == l.Callee {
			m = &after.Links[i]
		}
		if h := l.Server; h != nil && h.Credential != nil && h.Bundle != nil && !h.Unverified && !before.Unseen(h.Credential, h.Bundle) {
			if m == nil || m.Server == nil || worse(before.JudgeServer(h, o.At), after.JudgeServer(m.Server, o.At)) {
				all = append(all, Lost{l, h.Credential, true})
			}
		}
		if h := l.Client; h != nil && h.Credential != nil && h.Bundle != nil && !before.Unseen(h.Credential, h.Bundle) {
			if m == nil || m.Client == nil || worse(before.JudgeClient(h, o.At), after.JudgeClient(m.Client, o.At)) {
				all = append(all, Lost{l, h.Credential, false})
			}
		}
	}
	return all
}

// worse tells whether the chain of trust held and holds no more.
func worse(before, after []trust.Break) bool { return trusted(before) && !trusted(after) }
