package layout

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
)

// errMoved tells that a folder's name leads to another one than before.
var errMoved = errors.New("another folder stands in its place now: run the same command again")

// maxHeld bounds the folders that are held open: 1000 nodes may be written at once.
const maxHeld = 16

// heldOps are [diskOps] that keep the folders open in which they work, for a
// transaction does some thirty operations for each file, and each walks from the root
// down to it otherwise.
//
// The walk protects from a folder that is replaced by a link while we work: what is
// opened stays below the root. A folder that is held is one that such a walk has
// opened, and no link can lead it elsewhere any more. What is new is that somebody may
// move it away, and we work on in it: so Sync of a folder, which comes before the
// journal is made durable and again when all have appeared, walks anew and refuses when
// it comes to another folder. Sync is safe for concurrent use, for that is done at once.
type heldOps struct {
	dir  *os.Root
	mu   sync.Mutex
	held map[string]*os.Root
}

func newHeldOps(dir *os.Root) *heldOps { return &heldOps{dir: dir, held: map[string]*os.Root{}} }

// in calls do with the operations of the folder of a name, and its last part.
func (h *heldOps) in(name string, do func(ops diskOps, base string) error) error {
	folder := path.Dir(name)
	if folder == "." {
		return do(diskOps{h.dir}, name)
	}
	root, held, err := h.folder(folder)
	if err != nil {
		return err
	}
	if !held {
		defer root.Close() // nothing is written through it
	}
	return do(diskOps{root}, path.Base(name))
}

// folder opens a folder, or finds it open. One that is not held is the caller's.
func (h *heldOps) folder(name string) (root *os.Root, held bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if root := h.held[name]; root != nil {
		return root, true, nil
	}
	if root, err = h.dir.OpenRoot(name); err != nil {
		if info, failed := h.dir.Stat(name); failed == nil && !info.IsDir() { // of which OpenRoot has no error of its own
			err = &fs.PathError{Op: "open", Path: name, Err: syscall.ENOTDIR}
		}
		return nil, false, err
	}
	if len(h.held) >= maxHeld {
		return root, false, nil
	}
	h.held[name] = root
	return root, true, nil
}

// letGo closes folders. h.mu is held.
func (h *heldOps) letGo(which func(name string) bool) {
	maps.DeleteFunc(h.held, func(name string, root *os.Root) bool {
		if !which(name) {
			return false
		}
		_ = root.Close()
		return true
	})
}

// forget lets go of what a name was and of all below it: it will be something else.
func (h *heldOps) forget(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.letGo(func(held string) bool { return held == name || strings.HasPrefix(held, name+"/") })
}

// Release closes all folders that are held. The next operation opens them again.
func (h *heldOps) Release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.letGo(func(string) bool { return true })
}

func (h *heldOps) Lstat(name string) (info fs.FileInfo, err error) {
	err = h.in(name, func(ops diskOps, base string) error {
		info, err = ops.Lstat(base)
		return err
	})
	return info, err
}

func (h *heldOps) Readlink(name string) (to string, err error) {
	err = h.in(name, func(ops diskOps, base string) error {
		to, err = ops.Readlink(base)
		return err
	})
	return to, err
}

func (h *heldOps) ReadFile(name string) (data []byte, err error) {
	err = h.in(name, func(ops diskOps, base string) error {
		data, err = ops.ReadFile(base)
		return err
	})
	return data, err
}

func (h *heldOps) ReadDir(name string) ([]fs.DirEntry, error) { return diskOps{h.dir}.ReadDir(name) }

func (h *heldOps) Create(name string, data []byte) error {
	return h.in(name, func(ops diskOps, base string) error { return ops.Create(base, data) })
}

func (h *heldOps) Append(name string, data []byte) error {
	return h.in(name, func(ops diskOps, base string) error { return ops.Append(base, data) })
}

func (h *heldOps) WriteAt(name string, data []byte, offset int64) error {
	return h.in(name, func(ops diskOps, base string) error { return ops.WriteAt(base, data, offset) })
}

func (h *heldOps) Mkdir(name string, mode fs.FileMode) error {
	return h.in(name, func(ops diskOps, base string) error { return ops.Mkdir(base, mode) })
}

func (h *heldOps) Chmod(name string, mode fs.FileMode) error {
	return h.in(name, func(ops diskOps, base string) error { return ops.Chmod(base, mode) })
}

func (h *heldOps) Chown(name string, uid, gid int) error {
	return h.in(name, func(ops diskOps, base string) error { return ops.Chown(base, uid, gid) })
}

func (h *heldOps) Symlink(to, name string) error {
	return h.in(name, func(ops diskOps, base string) error { return ops.Symlink(to, base) })
}

func (h *heldOps) Link(from, to string) error {
	if path.Dir(from) != path.Dir(to) {
		return diskOps{h.dir}.Link(from, to)
	}
	return h.in(from, func(ops diskOps, base string) error { return ops.Link(base, path.Base(to)) })
}

func (h *heldOps) Rename(from, to string) error {
	h.forget(from)
	h.forget(to)
	if path.Dir(from) != path.Dir(to) {
		return diskOps{h.dir}.Rename(from, to)
	}
	return h.in(from, func(ops diskOps, base string) error { return ops.Rename(base, path.Base(to)) })
}

func (h *heldOps) Remove(name string) error {
	h.forget(name)
	return h.in(name, func(ops diskOps, base string) error { return ops.Remove(base) })
}

// Sync of a folder that is held refuses when its name leads to another one by now.
func (h *heldOps) Sync(name string) error {
	h.mu.Lock()
	held := h.held[name]
	h.mu.Unlock()
	if held == nil {
		return h.in(name, func(ops diskOps, base string) error { return ops.Sync(base) })
	}
	was, err := held.Stat(".")
	if err != nil {
		return err
	}
	now, err := h.dir.Stat(name)
	if err != nil {
		return err
	}
	if !os.SameFile(was, now) {
		return errMoved
	}
	return diskOps{held}.Sync(".")
}
