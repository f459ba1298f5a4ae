package main

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/recovery"
	"github.com/kubepki/kubepki/internal/trust"
)

// exchangeFiles puts the authorities' new certificates into the files that hold the old
// ones, beside the files that a renewal writes already, and returns those that were
// not changed by it before.
func exchangeFiles(n *apply.Nodes, p *recovery.Recovery, r *apply.Renewal) ([]*apply.File, error) {
	var more []*apply.File
	for _, at := range p.Places {
		place := bundle.File(p.Graph, at).File()
		i := slices.IndexFunc(r.Files, func(f *apply.File) bool { return f.Place == place })
		if i < 0 {
			content, err := layout.ReadFile(n.Dirs[place.Node], place.Path)
			if err != nil {
				return nil, advise(err, "the new certificate of its authority must stand there: see that the file can be read")
			}
			i = len(r.Files)
			f := &apply.File{Place: place, Old: content.Data, Data: content.Data, Private: at.Field != "", Mode: content.Mode}
			r.Files, more = append(r.Files, f), append(more, f)
		}
		f := r.Files[i]
		if at.Field != "" {
			f.Data = recovery.InKubeconfig(f.Data, p.Exchanges)
			continue
		}
		data, err := recovery.InPEM(f.Data, p.Exchanges)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", place, err)
		}
		f.Data = data
	}
	for _, f := range more {
		if bytes.Equal(f.Old, f.Data) {
			return nil, advise(fmt.Errorf("%s: the old certificate of its authority is not written there in a form that is edited here", f.Place), "put the new one there by hand: kubepki show %s", f.Place.Path)
		}
	}
	return more, nil
}

// placeName is how a file is shown.
func placeName(p trust.Place) string { return p.File().String() }
