package apply

import (
	"time"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// Last are the files of a node that its newest backup says were written, those of them
// that are as they were written, and when the last of them took its place; the agent's own
// renewals are left out, for it restarts what they need. Nothing where nothing is kept, or
// it is not known what it did.
func Last(n *Nodes, node string) (written []trust.Place, at time.Time, err error) {
	all, err := Backups(n)
	if err != nil {
		return nil, at, err
	}
	var newest *Manifest
	for i := range all {
		if b := &all[i]; b.Node == node && b.Manifest != nil && b.Manifest.By != ByAgent {
			newest = b.Manifest
		}
	}
	if newest == nil {
		return nil, at, nil
	}
	for _, m := range newest.Files {
		f := &File{Place: trust.Place{Node: node, Path: m.Path}, current: m.Link != "" || m.WasLink != ""}
		if f.readOld(n) != nil {
			continue // it is no file any more: the proof of the files says what it is
		}
		if m.Is == "" || hashOf(f.Old) != m.Is || m.Link != "" && f.OldLink != m.Link {
			continue // somebody has changed it since
		}
		changed, err := layout.Changed(n.Dirs[node], m.Path)
		if err != nil {
			return nil, at, err
		}
		written = append(written, f.Place)
		if changed.After(at) {
			at = changed
		}
	}
	return written, at, nil
}
