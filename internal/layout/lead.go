package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"
)

// Lead stages that a symbolic link at an absolute path of the node leads elsewhere,
// as the kubelet swings kubelet-client-current.pem to a new dated file: readers find
// what it led to or what it leads to, never nothing. The link must lead to old, now
// and in Commit, else the error is [ErrChanged]. Both are the text of the link; it may
// name a file that the same transaction makes.
func (t *Transaction) Lead(nodePath, old, to string) error {
	if err := t.usable(); err != nil {
		return err
	}
	return t.note(t.stageLead(path.Clean(nodePath), old, to))
}

// Symlink stages a new symbolic link at an absolute path of the node, with the text to,
// which may name a file that the same transaction makes: that appears first. Missing
// folders above it are made with mode 0755. It is an error, [fs.ErrExist], when
// something stands there already.
func (t *Transaction) Symlink(nodePath, to string) error {
	if err := t.usable(); err != nil {
		return err
	}
	return t.note(t.stageSymlink(path.Clean(nodePath), to))
}

// Remove stages that a regular file at an absolute path of the node is removed, after
// all that replaces what named it. A symbolic link is not followed. The file must hold
// old, now and in Commit, else the error is [ErrChanged].
func (t *Transaction) Remove(nodePath string, old []byte) error {
	if err := t.usable(); err != nil {
		return err
	}
	return t.note(t.stageRemoval(path.Clean(nodePath), old))
}

// Unlink is [Transaction.Remove] of a symbolic link that leads to old.
func (t *Transaction) Unlink(nodePath, old string) error {
	if err := t.usable(); err != nil {
		return err
	}
	nodePath = path.Clean(nodePath)
	name, _, err := t.leading(nodePath, old)
	if err != nil {
		return t.note(t.failed("removing", nodePath, err))
	}
	return t.note(t.enter(nodePath, record{File: name, Backup: temporaryFor(name), Link: true, Gone: true, Replaces: hashOf([]byte(old))}))
}

// leading is the symbolic link at a path, which must lead to old.
func (t *Transaction) leading(nodePath, old string) (string, fs.FileInfo, error) {
	name, info, err := t.itself(nodePath)
	if err != nil {
		return "", nil, err
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		return "", nil, errors.New("is no symbolic link")
	}
	now, err := t.ops.Readlink(name)
	if err == nil && now != old {
		err = ErrChanged
	}
	return name, info, err
}

func (t *Transaction) stageLead(nodePath, old, to string) error {
	name, info, err := t.leading(nodePath, old)
	if err != nil {
		return t.failed("writing", nodePath, err)
	}
	r := record{File: name, Temp: temporaryFor(name), Backup: temporaryFor(name), Link: true, SHA256: hashOf([]byte(to)), Replaces: hashOf([]byte(old))}
	if err := t.enter(nodePath, r); err != nil {
		return err
	}
	for _, made := range [][2]string{{r.Temp, to}, {r.Backup, old}} {
		err := t.ops.Symlink(made[1], made[0])
		if err == nil {
			err = t.own(made[0], info)
		}
		if err != nil {
			return t.failed("writing", nodePath, err)
		}
	}
	return nil
}

func (t *Transaction) stageSymlink(nodePath, to string) error {
	if err := checkNodePath(nodePath); err != nil {
		return err
	}
	folder, err := t.mkdir(path.Dir(nodePath), 0o755)
	if err != nil {
		return err
	}
	name := path.Join(folder, path.Base(nodePath))
	switch _, err := t.ops.Lstat(name); {
	case err == nil:
		return t.failed("writing", nodePath, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return t.failed("writing", nodePath, err)
	}
	r := record{File: name, Temp: temporaryFor(name), Link: true, SHA256: hashOf([]byte(to))}
	if err := t.enter(nodePath, r); err != nil {
		return err
	}
	if err := t.ops.Symlink(to, r.Temp); err != nil {
		return t.failed("writing", nodePath, err)
	}
	return nil
}

func (t *Transaction) stageRemoval(nodePath string, old []byte) error {
	name, _, err := t.itself(nodePath)
	if err == nil {
		err = t.heldBy(name, old)
	}
	if err != nil {
		return t.failed("removing", nodePath, err)
	}
	return t.enter(nodePath, record{File: name, Backup: temporaryFor(name), Gone: true, Replaces: hashOf(old)})
}

// itself is what stands at a path, which must be there: not what a link there leads to.
func (t *Transaction) itself(nodePath string) (string, fs.FileInfo, error) {
	if err := checkNodePath(nodePath); err != nil {
		return "", nil, err
	}
	at, err := resolve(t.ops, path.Dir(nodePath))
	if err == nil && len(at.absent) > 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return "", nil, err
	}
	name := path.Join(at.name, path.Base(nodePath))
	info, err := t.ops.Lstat(name)
	return name, info, err
}

// enter notes in the journal what is about to be staged.
func (t *Transaction) enter(nodePath string, r record) error {
	if slices.ContainsFunc(t.entries, func(o record) bool { return o.File == r.File }) {
		return fmt.Errorf("writing %s: it is written twice in one transaction", t.host(nodePath))
	}
	if err := t.begun(); err != nil {
		return t.failed("writing", nodePath, err)
	}
	if err := t.sweep(path.Dir(r.File)); err != nil {
		return t.failed("writing", nodePath, err)
	}
	if err := t.journal.add(r); err != nil {
		return t.failed("writing", nodePath, err)
	}
	t.entries = append(t.entries, r)
	return nil
}

// LeadsTo is the text of the symbolic link at an absolute path of a node below a
// root; empty where what stands there is no link.
func LeadsTo(root, nodePath string) (string, error) {
	if err := checkNodePath(nodePath); err != nil {
		return "", err
	}
	dir, err := os.OpenRoot(root)
	if err != nil {
		return "", fmt.Errorf("%s: %w", root, Cause(err))
	}
	defer dir.Close()
	folder, _, err := Follow(dir, path.Dir(nodePath))
	if err != nil {
		return "", fmt.Errorf("%s: %w", nodePath, err)
	}
	to, err := dir.Readlink(path.Join(folder, path.Base(nodePath)))
	if errors.Is(err, syscall.EINVAL) {
		return "", nil // no link
	}
	return to, Cause(err)
}
