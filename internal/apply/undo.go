package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// Latest names the newest backup of each node.
const Latest = "latest"

// ChangedError tells that files are not any more what a renewal wrote, so that
// undoing it would undo what others did since.
type ChangedError struct {
	Backup string
	Files  []string // places of what was changed since
}

// Error names the backup and the files.
func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s is not undone: changed since: %s", e.Backup, strings.Join(e.Files, ", "))
}

// Hint says what to do.
func (e *ChangedError) Hint() string {
	return "undo the newer renewal first (kubepki renew --backups lists them), or give --force: what stands there now is kept too"
}

// NoBackupError tells that no node has a backup of a name.
type NoBackupError struct{ Name string }

// Error names the backup.
func (e *NoBackupError) Error() string {
	return fmt.Sprintf("no backup %q is kept below %s", e.Name, BackupsDir)
}

// Hint says where to look.
func (e *NoBackupError) Hint() string { return "kubepki renew --backups lists what is kept" }

// Action is what becomes of the file, in a word: restored, removed, made or led.
func (f *File) Action() string {
	switch {
	case f.Link != "":
		return "led to " + f.Link
	case f.Data == nil:
		return "removed"
	case f.Old == nil:
		return "made"
	}
	return "restored"
}

// Undo brings a backup back, by its name (a time, as its folder is called) or
// [Latest]: what was replaced is as it was, and what was made is gone. What stands
// there now is kept in its turn, so that an undo can be undone. Where files are not
// what the renewal wrote the error is a [*ChangedError], unless force is given. Of
// several nodes those are left alone that have no such backup. Nothing is written:
// that does [Renewal.Write].
func Undo(n *Nodes, name string, force bool, before *check.Result, at time.Time) (*Renewal, error) {
	all, err := Backups(n)
	if err != nil {
		return nil, err
	}
	r := &Renewal{At: at, Backup: backupFolder(at)}
	changed := &ChangedError{}
	for node := range n.Dirs {
		b, err := chosen(all, node, name)
		if err != nil {
			return nil, err
		}
		if b == nil {
			continue
		}
		r.Undoes, changed.Backup = b.Name, b.Name
		files, other, err := broughtBack(n, b)
		if err != nil {
			return nil, err
		}
		changed.Files = append(changed.Files, other...)
		r.Files = append(r.Files, files...)
	}
	if r.Undoes == "" {
		return nil, &NoBackupError{Name: name}
	}
	slices.Sort(changed.Files)
	if len(changed.Files) > 0 && !force {
		return nil, changed
	}
	for _, f := range changed.Files {
		r.Warnings = append(r.Warnings, f+" was changed since, and that goes too")
	}
	slices.SortStableFunc(r.Files, func(a, b *File) int { return a.Place.Compare(b.Place) })
	warnings, breaks := afterwards(n, r.Files, before, at)
	r.Warnings, r.Breaks = append(r.Warnings, warnings...), breaks
	return r, nil
}

// chosen is the backup of a node that a name stands for; nil where it has none.
func chosen(all []Backup, node, name string) (*Backup, error) {
	for _, b := range slices.Backward(all) {
		if b.Node != node || name != Latest && name != b.Name {
			continue
		}
		if b.Manifest == nil {
			return nil, advise(fmt.Errorf("%s: what it did is not known: %s", path.Join(BackupsDir, b.Name), b.Reason), "copy what you need out of it by hand: it holds each file below its whole path")
		}
		return &b, nil
	}
	return nil, nil
}

// broughtBack are the files of a backup as they were, and the places of those that
// are not what it wrote.
func broughtBack(n *Nodes, b *Backup) (files []*File, changed []string, err error) {
	for _, m := range b.Manifest.Files {
		f := &File{Place: trust.Place{Node: b.Node, Path: m.Path}, Private: m.Private, current: m.Link != "" || m.WasLink != ""}
		if err := f.readOld(n); err != nil {
			return nil, nil, err
		}
		if hashOf(f.Old) != m.Is || m.Link != "" && f.OldLink != m.Link {
			changed = append(changed, f.Place.String())
		}
		if err := f.fromBackup(n, b, m); err != nil {
			return nil, nil, err
		}
		if f.Old == nil && f.Data == nil && f.Link == "" {
			continue // it is gone already
		}
		files = append(files, f)
		if lost, err := f.lostTarget(n, b.Manifest); err != nil {
			return nil, nil, err
		} else if lost != nil {
			files = append(files, lost)
		}
	}
	return files, changed, nil
}

// fromBackup gives a file what is kept of it.
func (f *File) fromBackup(n *Nodes, b *Backup, m ManifestFile) error {
	f.Link = m.WasLink
	if m.Link == "" {
		f.OldLink = ""
	}
	if m.Was == "" {
		return nil
	}
	kept := path.Join(BackupsDir, b.Name, m.Path)
	content, err := layout.ReadFile(n.Dirs[b.Node], kept)
	if err != nil {
		return err
	}
	f.Data = append([]byte{}, content.Data...)
	if hashOf(f.Data) != m.Was {
		return advise(fmt.Errorf("%s: is not what was kept there", kept), "somebody changed the backup: see what it is, and copy it by hand")
	}
	mode, err := strconv.ParseUint(m.Mode, 8, 32)
	if err != nil || mode > 0o777 {
		return fmt.Errorf("%s of %s: mode %q of %s is none", manifestFile, b.Name, m.Mode, m.Path)
	}
	if f.Old == nil {
		f.Mode = fs.FileMode(mode)
	}
	return nil
}

// lostTarget is the file that a link shall lead to again where somebody removed it
// meanwhile.
func (f *File) lostTarget(n *Nodes, m *Manifest) (*File, error) {
	if f.Link == "" || f.Data == nil {
		return nil, nil
	}
	at := f.Link
	if !path.IsAbs(at) {
		at = path.Join(path.Dir(f.Place.Path), at)
	}
	if slices.ContainsFunc(m.Files, func(o ManifestFile) bool { return o.Path == at }) {
		return nil, nil // it is brought back itself
	}
	target := &File{Place: trust.Place{Node: f.Place.Node, Path: at}, Data: f.Data, Private: true}
	err := target.readOld(n)
	switch {
	case err != nil:
		return nil, err
	case target.Old == nil:
		return target, nil
	case hashOf(target.Old) != hashOf(f.Data):
		return nil, errors.New(at + ": is not what the link led to: copy what you need out of the backup by hand")
	}
	return nil, nil
}
