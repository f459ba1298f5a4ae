package main

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// renewedFile is one file of a node with what it shall hold.
type renewedFile struct {
	place   trust.Place
	old     []byte // nil: it is not there
	data    []byte
	private bool
}

// renewedFiles are the files of all items, each once.
func renewedFiles(n *trustNodes, all []*renewal) ([]*renewedFile, error) {
	var files []*renewedFile
	for _, r := range all {
		of, err := filesMade(n, r)
		if err != nil {
			return nil, err
		}
		for _, f := range of {
			if slices.ContainsFunc(files, func(o *renewedFile) bool { return o.place == f.place }) {
				return nil, advise(fmt.Errorf("%s: two credentials stand in %s", r.ID(), f.place), "renew them one after the other")
			}
			files = append(files, f)
		}
	}
	return files, nil
}

// filesMade are the files that an item changes.
func filesMade(n *trustNodes, r *renewal) ([]*renewedFile, error) {
	certificates := trust.EncodeCertificates(r.made.Chain...)
	key, err := issue.EncodePrivateKey(r.made.Key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.ID(), err)
	}
	var files []*renewedFile
	switch {
	case r.Kind == renew.Kubeconfig:
		files = []*renewedFile{{place: r.Certificate, private: true}}
	case r.Kind == renew.Authority:
		files = []*renewedFile{{place: r.Certificate, data: certificates}}
	case r.Certificate.File() == r.Key.File():
		files = []*renewedFile{{place: r.Certificate, data: slices.Concat(certificates, key), private: true}}
	case r.Reused():
		files = []*renewedFile{{place: r.Certificate, data: certificates}}
	default:
		files = []*renewedFile{{place: r.Certificate, data: certificates}, {place: r.Key, data: key, private: true}}
	}
	for _, f := range files {
		if f.old, err = oldContent(n, f.place); err != nil {
			return nil, fmt.Errorf("%s: %w", r.ID(), err)
		}
	}
	if r.Kind == renew.Kubeconfig {
		files[0].data, err = kubeconfigMade(r, files[0].old, certificates, key)
	}
	return files, err
}

// oldContent reads what stands at a place; nil where nothing does.
func oldContent(n *trustNodes, p trust.Place) ([]byte, error) {
	content, err := layout.ReadFile(n.dirs[p.Node], p.Path)
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
func kubeconfigMade(r *renewal, old, certificates, key []byte) ([]byte, error) {
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

// afterwards says what will be wrong on the nodes that is not now, and what stays
// wrong with what is renewed: the change is made in memory and judged by the rules.
func afterwards(n *trustNodes, files []*renewedFile, before *check.Result, at time.Time) []string {
	type key struct{ id, node, path, field string }
	keyOf := func(f check.Finding) key { return key{f.ID, f.Node, f.Path, f.Field} }
	was := map[key]bool{}
	for _, f := range before.Findings {
		was[keyOf(f)] = true
	}
	var warnings []string
	for _, f := range check.Run(catalog.Wire(withFiles(n.nodes, files)), check.Options{At: at}).Findings {
		ours := slices.ContainsFunc(files, func(r *renewedFile) bool { return r.place == trust.Place{Node: f.Node, Path: f.Path} })
		switch {
		case f.Severity != check.Error:
		case !was[keyOf(f)]:
			warnings = append(warnings, fmt.Sprintf("then %s: %s", f.ID, f.Cause))
		case ours:
			warnings = append(warnings, fmt.Sprintf("this does not mend %s: %s", f.ID, f.Cause))
		}
	}
	return warnings
}

// withFiles returns the nodes as if the files stood there.
func withFiles(nodes []trust.Node, files []*renewedFile) []trust.Node {
	out := slices.Clone(nodes)
	for i := range out {
		n := &out[i]
		n.Materials, n.Kubeconfigs, n.Files = slices.Clone(n.Materials), slices.Clone(n.Kubeconfigs), slices.Clone(n.Files)
		for _, f := range files {
			if f.place.Node == n.Name {
				f.putInto(n)
			}
		}
	}
	return out
}

func (f *renewedFile) putInto(n *trust.Node) {
	for i, k := range n.Kubeconfigs {
		if k.Place == f.place {
			n.Materials = slices.DeleteFunc(n.Materials, func(m *trust.Material) bool { return m.Place.File() == f.place })
			var embedded []*trust.Material
			n.Kubeconfigs[i], embedded, _ = layout.ParseKubeconfig(f.place, f.data)
			n.Materials = append(n.Materials, embedded...)
		}
	}
	for i, m := range n.Materials {
		if m.Place == f.place {
			n.Materials[i], _ = layout.ParseMaterial(m.Place, m.Role, f.data)
		}
	}
	for i := range n.Files {
		if n.Files[i].Place == f.place && f.private {
			n.Files[i].Mode &= 0o700
		}
	}
}

// backupFolder is where what is replaced at a time is kept.
func backupFolder(at time.Time) string {
	return path.Join(catalog.KubernetesDir, "kubepki-backup", at.UTC().Format("20060102T150405.000Z"))
}

// writeRenewed replaces the files of each node in one transaction: nothing is
// changed unless all could be staged.
func writeRenewed(n *trustNodes, files []*renewedFile, backup string) (err error) {
	var staged []stagedRoot
	defer func() {
		for _, r := range staged {
			_ = r.tx.Rollback() // after Commit it does nothing
		}
	}()
	for _, node := range slices.Sorted(maps.Keys(n.dirs)) {
		ofNode := slices.DeleteFunc(slices.Clone(files), func(f *renewedFile) bool { return f.place.Node != node })
		if len(ofNode) == 0 {
			continue
		}
		tx, err := layout.Begin(n.dirs[node])
		if err != nil {
			return err
		}
		staged = append(staged, stagedRoot{n.dirs[node], tx})
		for _, f := range ofNode {
			if err := f.stage(tx, backup); err != nil {
				return err
			}
		}
	}
	return commitFiles(staged)
}

// stage puts a file, and a copy of what it was, into a transaction.
func (f *renewedFile) stage(tx *layout.Transaction, backup string) error {
	if f.old == nil {
		mode := publicFileMode
		if f.private {
			mode = privateFileMode
		}
		return tx.Write(f.place.Path, f.data, mode)
	}
	if err := cmp.Or(tx.Mkdir(path.Dir(backup), 0o700), tx.Mkdir(backup, 0o700), tx.Write(path.Join(backup, f.place.Path), f.old, privateFileMode)); err != nil {
		return err
	}
	if f.private {
		return tx.ReplacePrivate(f.place.Path, f.old, f.data)
	}
	return tx.Replace(f.place.Path, f.old, f.data)
}

const (
	privateFileMode fs.FileMode = 0o600
	publicFileMode  fs.FileMode = 0o644
)

// backups are the folders of the nodes in which something is kept.
func backups(n *trustNodes, files []*renewedFile, backup string) []string {
	var all []string
	for _, f := range files {
		if dir := filepath.Join(n.dirs[f.place.Node], backup); f.old != nil && !slices.Contains(all, dir) {
			all = append(all, dir)
		}
	}
	return all
}

// filesOf are the files of an item, as on the node.
func filesOf(i *renew.Item) []string {
	files := []string{i.Certificate.Path}
	if i.Key.Path != i.Certificate.Path && i.Kind == renew.Leaf && !i.Reused() {
		files = append(files, i.Key.Path)
	}
	return files
}

// namesOf are the alternative names of a certificate.
func namesOf(c *x509.Certificate) []string {
	names := slices.Concat([]string{}, c.DNSNames, c.EmailAddresses)
	for _, a := range c.IPAddresses {
		names = append(names, a.String())
	}
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return names
}
