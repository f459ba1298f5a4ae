package join

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kubepki/kubepki/internal/layout"
)

// temporaries are swept by whoever holds the lock of the folder.
const (
	tempPrefix = ".kubepki-"
	tempSuffix = ".tmp"
)

// changes are what this package does to a disk, one system call or little more
// each, so that tests can fail or stop at each of them. Names are relative to
// the root; their folders hold no symbolic link.
type changes interface {
	// Create makes a file of a mode that did not exist, and fills it.
	Create(name string, data []byte, mode fs.FileMode) error
	Mkdir(name string, mode fs.FileMode) error
	Symlink(target, name string) error
	Rename(from, to string) error
	Remove(name string) error
	// Sync makes a file's content, or a folder's entries, durable.
	Sync(name string) error
}

// realDisk goes through [os.Root], so that a folder replaced by a link at the
// wrong moment leads nowhere else.
type realDisk struct{ dir *os.Root }

func (d realDisk) Create(name string, data []byte, mode fs.FileMode) error {
	f, err := d.dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	err = f.Chmod(mode) // whatever the umask
	if err == nil {
		_, err = f.Write(data)
	}
	return errors.Join(err, f.Close())
}

func (d realDisk) Mkdir(name string, mode fs.FileMode) error {
	if err := d.dir.Mkdir(name, mode); err != nil {
		return err
	}
	return d.dir.Chmod(name, mode)
}

func (d realDisk) Symlink(target, name string) error { return d.dir.Symlink(target, name) }

func (d realDisk) Rename(from, to string) error { return d.dir.Rename(from, to) }

func (d realDisk) Remove(name string) error { return d.dir.Remove(name) }

func (d realDisk) Sync(name string) error { return layout.Sync(d.dir, name) }

// disk is a node's file system.
type disk struct {
	root string // as given
	dir  *os.Root
	to   changes
}

func openDisk(root string, on func(*os.Root) changes) (*disk, error) {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("--root %s: %w", root, layout.Cause(err))
	}
	return &disk{root: root, dir: dir, to: on(dir)}, nil
}

// host is a path as the caller of the program knows it.
func (d *disk) host(nodePath string) string {
	return filepath.Join(d.root, filepath.FromSlash(nodePath))
}

// read reads a file of the node, up to 1 MiB; a missing one is [fs.ErrNotExist].
func (d *disk) read(nodePath string) ([]byte, error) {
	content, err := layout.ReadFile(d.root, nodePath)
	if err != nil {
		return nil, err
	}
	return content.Data, nil
}

// lstat looks at a path of the node without following its last component.
func (d *disk) lstat(nodePath string) (fs.FileInfo, error) {
	folder, _, err := layout.Follow(d.dir, path.Dir(nodePath))
	if err != nil {
		return nil, err
	}
	return d.dir.Lstat(path.Join(folder, path.Base(nodePath)))
}

func (d *disk) exists(nodePath string) bool {
	_, err := d.lstat(nodePath)
	return err == nil
}

// list names the entries of a folder; of a missing one, none.
func (d *disk) list(nodePath string) ([]string, error) {
	name, missing, err := layout.Follow(d.dir, nodePath)
	if err != nil || len(missing) > 0 {
		return nil, err
	}
	f, err := d.dir.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.host(nodePath), layout.Cause(err))
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// folderModes are those of folders that kubeadm makes other than 0755 (k/k
// cmd/kubeadm/app/phases/kubelet/flags.go).
var folderModes = map[string]fs.FileMode{"var/lib/kubelet": 0o700}

// folder makes a folder and those above it that are missing, and returns its
// name, free of links.
func (d *disk) folder(nodePath string) (string, error) {
	name, missing, err := layout.Follow(d.dir, nodePath)
	if err != nil {
		return "", err
	}
	at := name
	for range missing {
		at = path.Dir(at)
	}
	for _, m := range missing {
		above := at
		at = path.Join(at, m)
		mode, special := folderModes[at]
		if !special {
			mode = 0o755
		}
		err := d.to.Mkdir(at, mode)
		if err == nil {
			err = d.to.Sync(above)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return "", d.failed("making", "/"+at, err)
		}
	}
	return name, nil
}

// put writes a file whole or not at all, in place of what is there.
func (d *disk) put(nodePath string, data []byte, mode fs.FileMode) error {
	name, _, err := layout.Follow(d.dir, nodePath)
	if err != nil {
		return err
	}
	folder, err := d.folder("/" + path.Dir(name))
	if err != nil {
		return err
	}
	name = path.Join(folder, path.Base(name))
	temp := path.Join(folder, tempPrefix+path.Base(name)+tempSuffix)
	err = d.removed(temp)
	if err == nil {
		err = d.to.Create(temp, data, mode)
	}
	if err == nil {
		err = d.to.Sync(temp)
	}
	if err == nil {
		err = d.to.Rename(temp, name)
	}
	if err == nil {
		err = d.to.Sync(folder)
	}
	if err != nil {
		return d.failed("writing", nodePath, errors.Join(err, d.removed(temp)))
	}
	return nil
}

// remove removes a file or link for good; one that is missing is no error.
func (d *disk) remove(nodePath string) error {
	folder, missing, err := layout.Follow(d.dir, path.Dir(nodePath))
	if err != nil || len(missing) > 0 {
		return err
	}
	err = d.removed(path.Join(folder, path.Base(nodePath)))
	if err == nil {
		err = d.to.Sync(folder)
	}
	return d.failed("removing", nodePath, err)
}

func (d *disk) removed(name string) error {
	if err := d.to.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lock keeps other runs away from a folder until the file is closed. It leaves
// nothing behind.
func (d *disk) lock(nodePath string) (*os.File, error) {
	name, err := d.folder(nodePath)
	if err != nil {
		return nil, err
	}
	f, err := d.dir.Open(name)
	if err != nil {
		return nil, d.failed("opening", nodePath, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: another kubepki is at work on the credentials here", d.host(nodePath))
		}
		return nil, d.failed("locking", nodePath, err)
	}
	return f, nil
}

// failed names the file as the caller of the program knows it.
func (d *disk) failed(doing, nodePath string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", doing, d.host(nodePath), layout.Cause(err))
}

func isTemporary(base string) bool {
	return strings.HasPrefix(base, tempPrefix) && strings.HasSuffix(base, tempSuffix)
}
