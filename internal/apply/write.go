package apply

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
)

// backupFolder is where what is replaced at a time is kept.
func backupFolder(at time.Time) string {
	return path.Join(catalog.KubernetesDir, "kubepki-backup", at.UTC().Format("20060102T150405.000Z"))
}

// Write replaces the files of each node in one transaction: nothing is changed
// unless all could be staged. Where one node of several fails, it is as it was, and
// the error says which nodes are done.
func (r *Renewal) Write(n *Nodes) error {
	var staged []Staged
	defer func() {
		for _, s := range staged {
			_ = s.Tx.Rollback() // after Commit it does nothing
		}
	}()
	for _, node := range slices.Sorted(maps.Keys(n.Dirs)) {
		ofNode := slices.DeleteFunc(slices.Clone(r.Files), func(f *File) bool { return f.Place.Node != node })
		if len(ofNode) == 0 {
			continue
		}
		tx, err := layout.Begin(n.Dirs[node])
		if err != nil {
			return err
		}
		staged = append(staged, Staged{n.Dirs[node], tx})
		for _, f := range ofNode {
			if err := f.stage(tx, r.Backup); err != nil {
				return err
			}
		}
	}
	return Commit(staged)
}

// stage puts a file, and a copy of what it was, into a transaction.
func (f *File) stage(tx *layout.Transaction, backup string) error {
	if f.Old == nil {
		mode := publicFileMode
		if f.Private {
			mode = privateFileMode
		}
		return tx.Write(f.Place.Path, f.Data, mode)
	}
	if err := cmp.Or(tx.Mkdir(path.Dir(backup), 0o700), tx.Mkdir(backup, 0o700), tx.Write(path.Join(backup, f.Place.Path), f.Old, privateFileMode)); err != nil {
		return err
	}
	if f.Private {
		return tx.ReplacePrivate(f.Place.Path, f.Old, f.Data)
	}
	return tx.Replace(f.Place.Path, f.Old, f.Data)
}

// Backups are the folders, on this machine, in which something is kept.
func (r *Renewal) Backups(n *Nodes) []string {
	var all []string
	for _, f := range r.Files {
		if dir := filepath.Join(n.Dirs[f.Place.Node], r.Backup); f.Old != nil && !slices.Contains(all, dir) {
			all = append(all, dir)
		}
	}
	return all
}

// Modes of files that were not there.
const (
	privateFileMode fs.FileMode = 0o600
	publicFileMode  fs.FileMode = 0o644
)

// Staged is a node whose changes are ready to appear.
type Staged struct {
	Dir string // its root
	Tx  *layout.Transaction
}

// Commit makes the changes appear, node by node. One that fails leaves its node
// as it was; the error says which nodes are done.
func Commit(staged []Staged) error {
	for i, r := range staged {
		err := r.Tx.Commit()
		if err == nil {
			continue
		}
		if i == 0 {
			return err
		}
		var done, left []string
		for j, r := range staged {
			if j < i {
				done = append(done, r.Dir)
			} else {
				left = append(left, r.Dir)
			}
		}
		return advise(fmt.Errorf("done below %s, not done below %s: %w", strings.Join(done, ", "), strings.Join(left, ", "), err),
			"mend that and run the same command again: it does what is left")
	}
	return nil
}
