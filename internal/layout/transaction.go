package layout

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// Transaction creates, replaces and removes several files below a root, all of them
// or none. Write never overwrites, and Replace, Lead and Remove touch only what its
// caller has read. Files
// are staged under temporary names (.kubepki-*.tmp, mode
// 0600) beside their place and made durable; then a journal is; then they
// appear under their names: new public files before those with private keys, then
// what is replaced, and last what is removed goes.
//
// Killed at any moment, no file is half written and no key stands without its
// certificate; the next [Begin] on the root finishes the transaction if its
// journal was durable, and otherwise removes its temporaries.
//
// A Transaction is not safe for concurrent use. Every one must end in Commit
// or Rollback. github.com/google/renameio/v2 is not used: it replaces one file
// atomically, while here several must appear together.
type Transaction struct {
	root     string // as given
	dir      *os.Root
	lock     *os.File
	ops      fileOps
	journal  *journal          // nil until the first change
	madeRoot []string          // the root and its parents as far as Begin made them
	made     []string          // folders made, in order
	entries  []record          // files staged, in the order of Write
	folders  map[string]string // of staged files: path on the node to name
	scanned  map[string]bool
	linked   map[string]bool // backups that are a second name of the file
	flushes  flushes
	durable  int  // of entries and folders made: so many, and what names them, are durable
	broken   bool // a change failed: only Rollback is left
	done     bool
	recovery Recovery
}

// Recovery tells what [Begin] did about an earlier transaction that was
// interrupted.
type Recovery struct {
	Finished int // files that it brought to their places
	Removed  int // files that it removed, temporaries included
}

// Recovered tells what Begin found; it is zero when there was nothing to do.
func (t *Transaction) Recovered() Recovery { return t.recovery }

// Mkdir makes a folder, and with mode 0755 those above it that are missing.
// The path is absolute as on the node. A folder that exists is left as it is.
func (t *Transaction) Mkdir(nodePath string, mode fs.FileMode) error {
	if err := t.usable(); err != nil {
		return err
	}
	_, err := t.mkdir(nodePath, mode)
	return t.note(err)
}

// Write stages a new file at an absolute path of the node. Missing folders
// above it are made with mode 0755. It is an error, [fs.ErrExist], when
// something stands there already, be it a dangling link. The mode is given to
// the file just before it appears, whatever the umask.
func (t *Transaction) Write(nodePath string, data []byte, mode fs.FileMode) error {
	if err := t.usable(); err != nil {
		return err
	}
	return t.note(t.stage(path.Clean(nodePath), data, mode.Perm()))
}

// Rest closes what is held open until the transaction goes on, for who stages many
// before the first is committed.
func (t *Transaction) Rest() {
	_ = t.flushes.wait() // they use it; Commit tells what failed
	t.ops.Release()
}

func (t *Transaction) usable() error {
	switch {
	case t.done:
		return errors.New("the transaction is over")
	case t.broken:
		return errors.New("an earlier step of the transaction failed: roll it back")
	}
	return nil
}

// note remembers that a change failed, except when nothing was changed because
// the file existed.
func (t *Transaction) note(err error) error {
	if err != nil && !errors.Is(err, fs.ErrExist) {
		t.broken = true
	}
	return err
}

// mkdir returns the name of the folder, free of links.
func (t *Transaction) mkdir(nodePath string, mode fs.FileMode) (string, error) {
	if err := checkNodePath(nodePath); err != nil {
		return "", err
	}
	at, err := resolve(t.ops, nodePath)
	if err != nil {
		return "", t.failed("making", nodePath, err)
	}
	name := at.name
	if len(at.absent) == 0 {
		if info, err := t.ops.Lstat(name); err != nil || !info.IsDir() {
			return "", fmt.Errorf("making %s: exists and is no folder", t.host(nodePath))
		}
	}
	for i, next := range at.absent {
		name = path.Join(name, next)
		m := fs.FileMode(0o755)
		if i == len(at.absent)-1 {
			m = mode.Perm()
		}
		if err := t.makeOne(name, m); err != nil {
			return "", t.failed("making", "/"+name, err)
		}
	}
	return name, nil
}

func (t *Transaction) makeOne(name string, mode fs.FileMode) error {
	if err := t.begun(); err != nil {
		return err
	}
	if err := t.journal.add(record{Folder: name}); err != nil {
		return err
	}
	if err := t.ops.Mkdir(name, mode); err != nil {
		return err
	}
	t.made = append(t.made, name)
	return t.ops.Chmod(name, mode) // whatever the umask
}

func (t *Transaction) stage(nodePath string, data []byte, mode fs.FileMode) error {
	if err := checkNodePath(nodePath); err != nil {
		return err
	}
	folder, seen := t.folders[path.Dir(nodePath)]
	if !seen {
		var err error
		if folder, err = t.mkdir(path.Dir(nodePath), 0o755); err != nil {
			return err
		}
		t.folders[path.Dir(nodePath)] = folder
	}
	name := path.Join(folder, path.Base(nodePath))
	switch _, err := t.ops.Lstat(name); {
	case err == nil || slices.ContainsFunc(t.entries, func(r record) bool { return r.File == name }):
		return t.failed("writing", nodePath, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return t.failed("writing", nodePath, err)
	}
	if err := t.begun(); err != nil {
		return t.failed("writing", nodePath, err)
	}
	if err := t.sweep(folder); err != nil {
		return t.failed("writing", nodePath, err)
	}
	r := record{File: name, Temp: temporaryFor(name), Mode: uint32(mode), SHA256: hashOf(data), Private: isPrivate(data, mode)}
	if err := t.journal.add(r); err != nil {
		return t.failed("writing", nodePath, err)
	}
	t.entries = append(t.entries, r)
	if err := t.ops.Create(r.Temp, data); err != nil {
		return t.failed("writing", nodePath, err)
	}
	return nil
}

// begun makes the journal before the first change.
func (t *Transaction) begun() error {
	if t.journal != nil {
		return nil
	}
	j, err := createJournal(t.ops)
	t.journal = j
	return err
}

// sweep removes temporaries that a loss of power left in a folder when it took
// the journal. The lock is held, so they belong to nobody.
func (t *Transaction) sweep(folder string) error {
	if t.scanned[folder] {
		return nil
	}
	entries, err := t.ops.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(folder, e.Name())
		mine := func(r record) bool { return r.Temp == name || r.Backup == name }
		if (e.Type().IsRegular() || e.Type() == fs.ModeSymlink) && isTemporary(e.Name()) && !slices.ContainsFunc(t.entries, mine) {
			if err := removeIfThere(t.ops, name); err != nil {
				return err
			}
			t.recovery.Removed++
		}
	}
	t.scanned[folder] = true
	return nil
}

// temporaryFor names the temporary of a file, in the same folder.
func temporaryFor(name string) string {
	var random [6]byte
	rand.Read(random[:]) // never fails (crypto/rand)
	base := path.Base(name)
	if len(base) > 200 {
		base = base[:200] // names are at most 255 bytes long
	}
	return path.Join(path.Dir(name), tempPrefix+base+"-"+hex.EncodeToString(random[:])+tempSuffix)
}

// isPrivate tells which files appear last: those that hold a private key, or
// that nobody but their owner and group may read, such as kubeconfigs.
func isPrivate(data []byte, mode fs.FileMode) bool {
	return mode&0o007 == 0 || bytes.Contains(data, []byte("PRIVATE KEY-----"))
}

// failed names the file as the caller of the program knows it.
func (t *Transaction) failed(doing, nodePath string, err error) error {
	return fmt.Errorf("%s %s: %w", doing, t.host(nodePath), Cause(err))
}

func (t *Transaction) host(nodePath string) string {
	return filepath.Join(t.root, filepath.FromSlash(nodePath))
}
