package layout

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// fileOps are the operations on the disk of a transaction or a mount, one system
// call or little more each, so that tests can fail or stop at each of them. Names
// are relative to the root and hold no symbolic link.
type fileOps interface {
	linkReader
	ReadFile(name string) ([]byte, error)
	ReadDir(name string) ([]fs.DirEntry, error)
	// Create makes a file of mode 0600 that did not exist and fills it.
	Create(name string, data []byte) error
	Append(name string, data []byte) error
	WriteAt(name string, data []byte, offset int64) error
	Mkdir(name string, mode fs.FileMode) error
	Chmod(name string, mode fs.FileMode) error
	Chown(name string, uid, gid int) error
	Link(from, to string) error
	Symlink(to, name string) error
	Rename(from, to string) error
	Remove(name string) error
	// Sync makes a file's content, or a folder's entries, durable.
	Sync(name string) error
	// Release lets go of what is held open between operations.
	Release()
}

// diskOps are the operations of the real disk. They go through [os.Root], so
// that a folder replaced by a link at the wrong moment leads nowhere else.
type diskOps struct{ dir *os.Root }

func (d diskOps) Lstat(name string) (fs.FileInfo, error) { return d.dir.Lstat(name) }

func (d diskOps) Readlink(name string) (string, error) { return d.dir.Readlink(name) }

func (d diskOps) ReadFile(name string) ([]byte, error) {
	f, err := d.dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxJournal+1))
}

func (d diskOps) ReadDir(name string) ([]fs.DirEntry, error) {
	f, err := d.dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}

func (d diskOps) Create(name string, data []byte) error {
	return d.write(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, func(f *os.File) error {
		// The umask may have taken bits away, and no more may be given yet.
		if err := f.Chmod(0o600); err != nil {
			return err
		}
		_, err := f.Write(data)
		return err
	})
}

func (d diskOps) Append(name string, data []byte) error {
	return d.write(name, os.O_WRONLY|os.O_APPEND, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

func (d diskOps) WriteAt(name string, data []byte, offset int64) error {
	return d.write(name, os.O_WRONLY, func(f *os.File) error {
		_, err := f.WriteAt(data, offset)
		return err
	})
}

func (d diskOps) write(name string, flag int, do func(*os.File) error) error {
	f, err := d.dir.OpenFile(name, flag, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}

func (d diskOps) Mkdir(name string, mode fs.FileMode) error { return d.dir.Mkdir(name, mode) }

func (d diskOps) Chmod(name string, mode fs.FileMode) error { return d.dir.Chmod(name, mode) }

func (d diskOps) Chown(name string, uid, gid int) error { return d.dir.Lchown(name, uid, gid) }

func (d diskOps) Link(from, to string) error { return d.dir.Link(from, to) }

func (d diskOps) Symlink(to, name string) error { return d.dir.Symlink(to, name) }

func (d diskOps) Rename(from, to string) error { return d.dir.Rename(from, to) }

func (d diskOps) Remove(name string) error { return d.dir.Remove(name) }

func (d diskOps) Sync(name string) error { return Sync(d.dir, name) }

func (diskOps) Release() {}

// Sync makes a file, or the entries of a folder, durable.
func Sync(dir *os.Root, name string) error {
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	err = f.Sync()
	// Some network file systems cannot sync a folder, and need not.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	return err
}
