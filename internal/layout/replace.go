package layout

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"syscall"
)

// ErrChanged tells that a file is not any more what the caller of
// [Transaction.Replace] had read: somebody else has written it meanwhile.
var ErrChanged = errors.New("was changed by somebody else meanwhile: run the same command again")

// Replace stages new content for a regular file at an absolute path of the node.
// A symbolic link stays one: what it leads to is replaced. Mode and owner are
// kept. The file must hold old, now and in Commit, else the error is
// [ErrChanged]. What is replaced appears after all that is new, so it may name
// that. Readers see the old content or the new, never a part.
func (t *Transaction) Replace(nodePath string, old, data []byte) error {
	if err := t.usable(); err != nil {
		return err
	}
	return t.note(t.stageOver(path.Clean(nodePath), old, data, fs.ModePerm))
}

// ReplacePrivate is [Transaction.Replace] of a file that holds a private key: the
// mode is kept but for what it gives to group and others.
func (t *Transaction) ReplacePrivate(nodePath string, old, data []byte) error {
	if err := t.usable(); err != nil {
		return err
	}
	return t.note(t.stageOver(path.Clean(nodePath), old, data, 0o700))
}

func (t *Transaction) stageOver(nodePath string, old, data []byte, keep fs.FileMode) error {
	if err := checkNodePath(nodePath); err != nil {
		return err
	}
	at, err := resolve(t.ops, nodePath)
	if err == nil && len(at.absent) > 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return t.failed("writing", nodePath, err)
	}
	if err := t.heldBy(at.name, old); err != nil {
		return t.failed("writing", nodePath, err)
	}
	info, err := t.ops.Lstat(at.name)
	if err != nil {
		return t.failed("writing", nodePath, err)
	}
	r := record{File: at.name, Temp: temporaryFor(at.name), Backup: temporaryFor(at.name), Mode: uint32(info.Mode().Perm() & keep), SHA256: hashOf(data), Replaces: hashOf(old)}
	if err := t.enter(nodePath, r); err != nil {
		return err
	}
	if err := t.fill(r.Temp, data, info); err != nil {
		return t.failed("writing", nodePath, err)
	}
	if err := t.keep(r, old, info); err != nil {
		return t.failed("writing", nodePath, err)
	}
	return nil
}

// fill makes a temporary that belongs to whom the file does.
func (t *Transaction) fill(name string, data []byte, of fs.FileInfo) error {
	if err := t.ops.Create(name, data); err != nil {
		return err
	}
	return t.own(name, of)
}

// keep gives the old content its second name, so that it can be brought back: no byte
// is written for that, and none need be made durable. Commit sees that it holds what was
// read. Where a second name cannot be had, or not by us, it is a copy.
func (t *Transaction) keep(r record, old []byte, of fs.FileInfo) error {
	err := t.ops.Link(r.File, r.Backup)
	switch {
	case err == nil:
		t.linked[r.Backup] = true
		return nil
	case errors.Is(err, syscall.EPERM), errors.Is(err, errors.ErrUnsupported), errors.Is(err, syscall.EMLINK), errors.Is(err, syscall.EXDEV):
		return t.fill(r.Backup, old, of)
	}
	return err
}

// heldBy refuses what is no regular file or holds something else.
func (t *Transaction) heldBy(name string, old []byte) error {
	info, err := t.ops.Lstat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("is not a regular file")
	}
	now, err := t.ops.ReadFile(name)
	if err != nil {
		return err
	}
	if !bytes.Equal(now, old) {
		return ErrChanged
	}
	return nil
}

// own gives a temporary the owner that the file has. Who may not do that must
// not replace the file: it would be another's then.
func (t *Transaction) own(name string, of fs.FileInfo) error {
	made, err := t.ops.Lstat(name)
	if err != nil {
		return err
	}
	want, ok := of.Sys().(*syscall.Stat_t)
	have, ok2 := made.Sys().(*syscall.Stat_t)
	if !ok || !ok2 || want.Uid == have.Uid && want.Gid == have.Gid {
		return nil
	}
	if err := t.ops.Chown(name, int(want.Uid), int(want.Gid)); err != nil {
		return fmt.Errorf("the file belongs to user %d and group %d, which cannot be kept: %w", want.Uid, want.Gid, Cause(err))
	}
	return nil
}

func (t *Transaction) replaces() bool {
	return slices.ContainsFunc(t.entries, func(r record) bool { return r.Backup != "" })
}

// settle ends a transaction whose files all stand. Once a backup is removed nothing
// can be taken back, and nothing needs to be: where no temporary is left, the next
// transaction finishes what the journal says, backups and all. So what cannot be
// removed here is left to it.
func (t *Transaction) settle(order []record) error {
	for _, r := range order {
		if r.Backup != "" && removeIfThere(t.ops, r.Backup) != nil {
			return t.end()
		}
	}
	_ = t.forget()
	return t.end()
}

// placeOver gives a temporary the name of the file that it replaces.
func placeOver(ops fileOps, r record) (bool, error) {
	if err := unchanged(ops, r); err != nil {
		return false, err
	}
	if err := giveMode(ops, r, r.Temp); err != nil {
		return false, err
	}
	if err := ops.Rename(r.Temp, r.File); err != nil {
		return false, Cause(err)
	}
	return true, nil
}

// moveAway gives a file that is removed the name of its backup, so that it can be
// brought back until all is done.
func moveAway(ops fileOps, r record) (bool, error) {
	if err := unchanged(ops, r); err != nil {
		return false, err
	}
	if err := ops.Rename(r.File, r.Backup); err != nil {
		return false, Cause(err)
	}
	return true, nil
}

// unchanged refuses to touch what somebody has changed since it was read.
func unchanged(ops fileOps, r record) error {
	now, err := heldAt(ops, r, r.File)
	if err != nil {
		return Cause(err)
	}
	if hashOf(now) != r.Replaces {
		return ErrChanged
	}
	return nil
}

// giveMode gives a file its mode; links and what is moved away have that of before.
func giveMode(ops fileOps, r record, name string) error {
	if r.Link || r.Gone {
		return nil
	}
	return Cause(ops.Chmod(name, fs.FileMode(r.Mode)))
}

// restore puts the old content back.
func restore(ops fileOps, r record) error {
	if r.Gone {
		if _, err := ops.Lstat(r.File); !errors.Is(err, fs.ErrNotExist) {
			return nil // somebody made it anew
		}
	}
	if err := giveMode(ops, r, r.Backup); err != nil {
		return fmt.Errorf("restoring %s: %w", r.File, err)
	}
	if err := ops.Rename(r.Backup, r.File); err != nil {
		return fmt.Errorf("restoring %s: %w", r.File, Cause(err))
	}
	return nil
}

// takeBack undoes one file that an interrupted transaction had placed.
func (t *Transaction) takeBack(r record) error {
	if r.Backup == "" {
		return t.removeOne(r.File)
	}
	if !t.holds(r, r.Backup, r.Replaces) {
		return nil // it was restored before
	}
	return restore(t.ops, r)
}

func (t *Transaction) removeBackups(files []record) error {
	for _, r := range files {
		if r.Backup == "" {
			continue
		}
		if err := t.removeOne(r.Backup); err != nil {
			return err
		}
	}
	return nil
}
