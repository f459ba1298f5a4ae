package apply

import (
	"errors"
	"fmt"
	"slices"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// filesOf are the files of all items, each once.
func filesOf(n *Nodes, all []*Renewed) ([]*File, error) {
	var files []*File
	for _, r := range all {
		of, err := filesMade(n, r)
		if err != nil {
			return nil, err
		}
		for _, f := range of {
			if slices.ContainsFunc(files, func(o *File) bool { return o.Place == f.Place }) {
				return nil, advise(fmt.Errorf("%s: two credentials stand in %s", r.ID(), f.Place), "renew them one after the other")
			}
			files = append(files, f)
		}
	}
	return files, nil
}

// filesMade are the files that an item changes.
func filesMade(n *Nodes, r *Renewed) ([]*File, error) {
	certificates := trust.EncodeCertificates(r.Made.Chain...)
	var key []byte
	var err error
	if r.Kind != renew.Authority { // whose key is not written, and may be in a device
		if key, err = issue.EncodePrivateKey(r.Made.Key); err != nil {
			return nil, fmt.Errorf("%s: %w", r.ID(), err)
		}
	}
	var files []*File
	switch {
	case r.Kind == renew.Kubeconfig:
		files = []*File{{Place: r.Certificate, Private: true}}
	case r.Kind == renew.Authority:
		files = []*File{{Place: r.Certificate, Data: certificates}}
	case r.Certificate.File() == r.Key.File():
		files = []*File{{Place: r.Certificate, Data: slices.Concat(certificates, key), Private: true}}
	case r.Reused():
		files = []*File{{Place: r.Certificate, Data: certificates}}
	default:
		files = []*File{{Place: r.Certificate, Data: certificates}, {Place: r.Key, Data: key, Private: true}}
	}
	for _, f := range files {
		if f.Old, err = oldContent(n, f.Place); err != nil {
			return nil, fmt.Errorf("%s: %w", r.ID(), err)
		}
	}
	if r.Kind == renew.Kubeconfig {
		files[0].Data, err = kubeconfigMade(r, files[0].Old, certificates, key)
	}
	return files, err
}

// oldContent reads what stands at a place; nil where nothing does.
func oldContent(n *Nodes, p trust.Place) ([]byte, error) {
	content, err := layout.ReadFile(n.Dirs[p.Node], p.Path)
	var failed *layout.ReadError
	switch {
	case err == nil && content.Data == nil:
		return []byte{}, nil
	case err == nil:
		return content.Data, nil
	case errors.As(err, &failed) && failed.State == trust.Missing && !failed.Dangling():
		return nil, nil
	case errors.As(err, &failed) && failed.State == trust.Denied:
		return nil, advise(err, "run it again with sudo")
	}
	return nil, advise(err, "move it away first: mv %s %s.bad", p.Path, p.Path)
}

// kubeconfigMade is the text of a kubeconfig with the new credential: the old text
// where that can be had, else one that is written whole.
func kubeconfigMade(r *Renewed, old, certificates, key []byte) ([]byte, error) {
	var anchors []byte
	if r.Anchors != nil {
		anchors = trust.EncodeCertificates(r.Anchors...)
	}
	if old != nil {
		text, err := layout.SetCredential(old, layout.EmbeddedCredential{Certificate: certificates, Key: key, CA: anchors, Server: r.Server})
		if err == nil {
			return text, nil
		}
		r.Warnings = append(r.Warnings, fmt.Sprintf("the file is written whole, with one cluster and one user, for it cannot be edited: %v", err))
	}
	return layout.EncodeKubeconfig(layout.KubeconfigSpec{Cluster: r.Cluster, Server: r.Server, CA: anchors, User: r.User, Certificate: certificates, Key: key})
}
