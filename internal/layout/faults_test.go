package layout

import (
	"errors"
	"io/fs"
	"sync"
	"syscall"
)

// fault is what a faultyDisk does at a changing operation.
type fault int

const (
	works fault = iota
	full        // the operation fails, a write after half of its bytes
	dead        // as full, and every operation after it does nothing: the process was killed
)

var errKilled = errors.New("killed")

// faultyDisk is a disk that fails as decide says, which is called with the
// number of each changing operation, counted from 0, and whether it needs room.
type faultyDisk struct {
	fileOps
	decide func(n int, grows bool) fault

	mu     sync.Mutex
	count  int
	killed bool
}

func (d *faultyDisk) next(grows bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.killed {
		return errKilled
	}
	n := d.count
	d.count++
	switch d.decide(n, grows) {
	case full:
		return syscall.ENOSPC
	case dead:
		d.killed = true
		return errKilled
	}
	return nil
}

func (d *faultyDisk) isDead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.killed
}

func (d *faultyDisk) Lstat(name string) (fs.FileInfo, error) {
	if d.isDead() {
		return nil, errKilled
	}
	return d.fileOps.Lstat(name)
}

func (d *faultyDisk) Create(name string, data []byte) error {
	if d.isDead() {
		return errKilled
	}
	if err := d.next(true); err != nil {
		return errors.Join(err, d.fileOps.Create(name, data[:len(data)/2]))
	}
	return d.fileOps.Create(name, data)
}

func (d *faultyDisk) Append(name string, data []byte) error {
	if d.isDead() {
		return errKilled
	}
	if err := d.next(true); err != nil {
		return errors.Join(err, d.fileOps.Append(name, data[:len(data)/2]))
	}
	return d.fileOps.Append(name, data)
}

func (d *faultyDisk) WriteAt(name string, data []byte, offset int64) error {
	if d.isDead() {
		return errKilled
	}
	if err := d.next(false); err != nil {
		return errors.Join(err, d.fileOps.WriteAt(name, data[:len(data)/2], offset))
	}
	return d.fileOps.WriteAt(name, data, offset)
}

func (d *faultyDisk) Mkdir(name string, mode fs.FileMode) error {
	if err := d.next(true); err != nil {
		return err
	}
	return d.fileOps.Mkdir(name, mode)
}

func (d *faultyDisk) Chmod(name string, mode fs.FileMode) error {
	if err := d.next(false); err != nil {
		return err
	}
	return d.fileOps.Chmod(name, mode)
}

func (d *faultyDisk) Chown(name string, uid, gid int) error {
	if err := d.next(false); err != nil {
		return err
	}
	return d.fileOps.Chown(name, uid, gid)
}

func (d *faultyDisk) Link(from, to string) error {
	if err := d.next(true); err != nil {
		return err
	}
	return d.fileOps.Link(from, to)
}

func (d *faultyDisk) Symlink(to, name string) error {
	if err := d.next(true); err != nil {
		return err
	}
	return d.fileOps.Symlink(to, name)
}

func (d *faultyDisk) Rename(from, to string) error {
	if err := d.next(false); err != nil {
		return err
	}
	return d.fileOps.Rename(from, to)
}

func (d *faultyDisk) Remove(name string) error {
	if err := d.next(false); err != nil {
		return err
	}
	return d.fileOps.Remove(name)
}

func (d *faultyDisk) Sync(name string) error {
	if err := d.next(true); err != nil {
		return err
	}
	return d.fileOps.Sync(name)
}
