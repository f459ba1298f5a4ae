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

	"github.com/kubepki/kubepki/internal/layout"
)

// Write replaces the files of each node in one transaction: nothing is changed
// unless all could be staged. Beside them, in the same transaction, a backup keeps
// what was there, and a manifest that [Undo] reads. A folder of backups that others may
// read is closed to them, one into which they may write is refused. Where one node of several fails, it is as it was, and the
// error says which nodes are done.
func (r *Renewal) Write(n *Nodes) error {
	var staged []Staged
	defer func() {
		for _, s := range staged {
			_ = s.Tx.Rollback() // after Commit it does nothing
		}
	}()
	of := byNode(r.Files)
	if e := r.early; e != nil {
		staged = append(staged, Staged{n.Dirs[e.node], e.tx})
		if err := r.stageAnswered(e.tx, e.node, n.Dirs[e.node]); err != nil {
			return err
		}
		return Commit(staged)
	}
	if err := r.ownBackup(n, of); err != nil {
		return err
	}
	for _, node := range slices.Sorted(maps.Keys(n.Dirs)) {
		if len(of[node]) == 0 {
			continue
		}
		tx, warning, err := beginNode(n.Dirs[node])
		if warning != "" {
			r.Warnings = append(r.Warnings, warning)
		}
		if err != nil {
			return err
		}
		staged = append(staged, Staged{n.Dirs[node], tx})
		if err := cmp.Or(r.stage(tx, node, of[node]), r.stageAnswered(tx, node, n.Dirs[node])); err != nil {
			return err
		}
		if len(of) > 1 {
			tx.Rest() // there may be a thousand
		}
	}
	return Commit(staged)
}

// ownBackup finds a folder for what is replaced that no other renewal has, be it of the
// same moment: clocks may stand still.
func (r *Renewal) ownBackup(n *Nodes, of map[string][]*File) error {
	taken := map[string]bool{}
	for node := range of {
		names, err := backupNames(n.Dirs[node]) // what others put there would look like ours once it is closed
		if err != nil {
			return err
		}
		for _, name := range names {
			taken[name] = true
		}
	}
	for at := r.At; taken[path.Base(r.Backup)]; at = at.Add(time.Millisecond) {
		r.Backup = backupFolder(at)
	}
	return nil
}

// stage puts the files of a node, and the backup, into a transaction.
func (r *Renewal) stage(tx *layout.Transaction, node string, files []*File) error {
	if err := r.stageFolders(tx); err != nil {
		return err
	}
	if err := r.stageManifest(tx, node, files); err != nil {
		return err
	}
	return r.stageFiles(tx, files)
}

func (r *Renewal) stageFolders(tx *layout.Transaction) error {
	return cmp.Or(tx.Mkdir(BackupsDir, 0o700), tx.Mkdir(r.Backup, 0o700))
}

func (r *Renewal) stageManifest(tx *layout.Transaction, node string, files []*File) error {
	manifest, err := r.manifest(node, files)
	if err != nil {
		return err
	}
	return tx.Write(path.Join(r.Backup, manifestFile), manifest, privateFileMode)
}

// stageFiles puts files into a transaction, and what they replace into the backup.
func (r *Renewal) stageFiles(tx *layout.Transaction, files []*File) error {
	for _, f := range files {
		if f.Old != nil {
			if err := tx.Write(path.Join(r.Backup, f.Place.Path), f.Old, privateFileMode); err != nil {
				return err
			}
		}
		if err := f.stage(tx); err != nil {
			return err
		}
	}
	return nil
}

// stageAnswered has what waited for the certificates of a node removed with them. Files
// that are gone already are no fault.
func (r *Renewal) stageAnswered(tx *layout.Transaction, node, root string) error {
	for _, p := range r.Answered {
		if p.Place.Node != node {
			continue
		}
		for _, file := range []string{RequestPath(p.Place), KeyPath(p.Place)} {
			there, err := optional(root, file)
			if err != nil {
				return err
			}
			if there == nil {
				continue
			}
			if err := tx.Remove(file, there.Data); err != nil {
				return err
			}
		}
	}
	return nil
}

// stage puts a file into a transaction.
func (f *File) stage(tx *layout.Transaction) error {
	switch {
	case f.Link != "" && f.OldLink == "":
		return tx.Symlink(f.Place.Path, f.Link)
	case f.Link != "":
		return tx.Lead(f.Place.Path, f.OldLink, f.Link)
	case f.Data == nil && f.current:
		return tx.Unlink(f.Place.Path, f.OldLink)
	case f.Data == nil:
		return tx.Remove(f.Place.Path, f.Old)
	case f.Old == nil:
		return tx.Write(f.Place.Path, f.Data, f.mode())
	case f.Private:
		return tx.ReplacePrivate(f.Place.Path, f.Old, f.Data)
	}
	return tx.Replace(f.Place.Path, f.Old, f.Data)
}

// mode is that of a file that was not there.
func (f *File) mode() fs.FileMode {
	switch {
	case f.Private:
		return privateFileMode
	case f.Mode != 0:
		return f.Mode
	}
	return publicFileMode
}

// Backups are the folders, on this machine, in which something is kept.
func (r *Renewal) Backups(n *Nodes) []string {
	var all []string
	for _, f := range r.Files {
		if dir := filepath.Join(n.Dirs[f.Place.Node], r.Backup); !slices.Contains(all, dir) {
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
