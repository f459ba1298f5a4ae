package apply

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// filesOf are the files of all items, each once.
func filesOf(n *Nodes, all []*Renewed) ([]*File, error) {
	var made []prepared
	for _, r := range all {
		files, err := filesMade(n, r)
		if err != nil {
			return nil, err
		}
		made = append(made, prepared{Renewed: r, files: files})
	}
	return filesOnce(made)
}

// filesOnce are the files that were prepared, each once.
func filesOnce(made []prepared) ([]*File, error) {
	var files []*File
	taken := map[trust.Place]bool{}
	for _, r := range made {
		for _, f := range r.files {
			if taken[f.Place] {
				return nil, advise(fmt.Errorf("%s: two credentials stand in %s", r.ID(), f.Place), "renew them one after the other")
			}
			taken[f.Place] = true
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
		files = []*File{{Place: r.Certificate, Data: slices.Concat(certificates, key), Private: true, current: r.Current}}
	case r.Reused():
		files = []*File{{Place: r.Certificate, Data: certificates}}
	default:
		files = []*File{{Place: r.Certificate, Data: certificates}, {Place: r.Key, Data: key, Private: true}}
	}
	for _, f := range files {
		if err := f.readOld(n); err != nil {
			return nil, fmt.Errorf("%s: %w", r.ID(), err)
		}
	}
	switch {
	case r.Kind == renew.Kubeconfig:
		if files[0].Data, err = kubeconfigMade(r, files[0].Old, certificates, key); err != nil {
			return nil, fmt.Errorf("%s: %w", r.ID(), err)
		}
	case r.Current && (files[0].OldLink != "" || files[0].Old == nil):
		dated, err := datedFile(n, files[0], r.NotBefore.Add(issue.Backdate))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.ID(), err)
		}
		files = append(files, dated)
	}
	more, err := alongside(n, r, certificates, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.ID(), err)
	}
	return append(files, more...), nil
}

// readOld reads what stands at the file's place; Old is nil where nothing does.
func (f *File) readOld(n *Nodes) error {
	content, err := layout.ReadFile(n.Dirs[f.Place.Node], f.Place.Path)
	var failed *layout.ReadError
	switch {
	case err == nil:
		f.Old, f.Mode, f.linked = append([]byte{}, content.Data...), content.Mode, content.Target != ""
		if f.linked {
			f.OldLink, err = layout.LeadsTo(n.Dirs[f.Place.Node], f.Place.Path)
		}
		return err
	case errors.As(err, &failed) && failed.State == trust.Missing && f.current && failed.Dangling():
		f.OldLink, err = layout.LeadsTo(n.Dirs[f.Place.Node], f.Place.Path)
		return err
	case errors.As(err, &failed) && failed.State == trust.Missing && !failed.Dangling():
		return nil
	case errors.As(err, &failed) && failed.State == trust.Denied:
		return advise(err, "run it again with sudo")
	}
	return advise(err, "move it away first: mv %s %s.bad", f.Place.Path, f.Place.Path)
}

// currentFile is the end of the name of a kubelet's link to the newest of its files.
const currentFile = "-current.pem"

// datedFile leads a kubelet's link to a new file with a date in its name, as the
// kubelet does (client-go, util/certificate/certificate_store.go), so that its own
// rotation goes on from there. The file of before stays.
func datedFile(n *Nodes, link *File, at time.Time) (*File, error) {
	prefix := strings.TrimSuffix(link.Place.Path, currentFile)
	for ; ; at = at.Add(time.Second) {
		dated := &File{Place: trust.Place{Node: link.Place.Node, Path: prefix + "-" + at.Local().Format("2006-01-02-15-04-05") + ".pem"}, Data: link.Data, Private: true}
		if err := dated.readOld(n); err != nil {
			return nil, err
		}
		if dated.Old != nil {
			continue
		}
		link.Link = dated.Place.Path
		if link.OldLink != "" && !path.IsAbs(link.OldLink) {
			link.Link = path.Base(dated.Place.Path)
		}
		return dated, nil
	}
}

// alongside are the files that follow from an item: people's copies of a kubeconfig,
// and a kubeconfig that names the certificate and trusts an old authority.
func alongside(n *Nodes, r *Renewed, certificates, key []byte) ([]*File, error) {
	var files []*File
	anchors := trust.EncodeCertificates(r.Anchors...)
	edit := func(at trust.Place, c layout.EmbeddedCredential) error {
		f := &File{Place: at, Private: true}
		err := f.readOld(n)
		if err == nil && f.linked && c.Certificate != nil {
			err = advise(errors.New("a symbolic link is on the way to it"), "name the file itself: a link of somebody else's may lead anywhere")
		}
		if err == nil {
			f.Data, err = layout.SetCredential(f.Old, c)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", at.Path, err)
		}
		files = append(files, f)
		return nil
	}
	if !r.Conf.IsZero() {
		if err := edit(r.Conf, layout.EmbeddedCredential{CA: anchors}); err != nil {
			return nil, err
		}
	}
	for _, at := range r.Copies {
		c := layout.EmbeddedCredential{Certificate: certificates, Key: key}
		if r.Anchors != nil {
			c.CA = anchors
		}
		if err := edit(at, c); err != nil {
			return nil, err
		}
	}
	return files, nil
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
