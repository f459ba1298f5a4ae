package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/token"
)

// webFolder is the root of a web host, locked against other runs. Files are
// named by the paths of their URLs; errors name them as the user knows them.
type webFolder struct {
	dir  string // as given
	root *os.Root
	lock *os.File
}

// openWebFolder makes the folder where there is none.
func openWebFolder(dir string) (*webFolder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("--out: %w", err)
	}
	lock, err := root.Open(".")
	if err == nil {
		if err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return &webFolder{dir, root, lock}, nil
		}
		lock.Close()
	}
	root.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, advise(fmt.Errorf("--out: %s is being written by another run", dir), "wait for it, then run this one again")
	}
	return nil, fmt.Errorf("--out: locking %s: %w", dir, layout.Cause(err))
}

func (f *webFolder) close() {
	f.lock.Close()
	f.root.Close()
}

// host is where a file stands on this machine.
func (f *webFolder) host(urlPath string) string {
	return filepath.Join(f.dir, filepath.FromSlash(urlPath))
}

// read returns what a file holds, and its state: nil where there is none.
func (f *webFolder) read(urlPath string) ([]byte, fs.FileInfo, error) {
	name := strings.TrimPrefix(urlPath, "/")
	info, err := f.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, nil
	case err != nil:
		return nil, nil, f.failed(urlPath, err)
	case !info.Mode().IsRegular():
		return nil, nil, f.failed(urlPath, errors.New("not a regular file: it is not replaced"))
	}
	file, err := f.root.Open(name)
	if err != nil {
		return nil, nil, f.failed(urlPath, err)
	}
	defer file.Close()
	const most = 1 << 20 // what is larger is none of our documents
	data, err := io.ReadAll(io.LimitReader(file, most))
	return data, info, f.failed(urlPath, err)
}

// isOf refuses to replace metadata of another issuer: whoever discovers that one
// by it would refuse all of its tokens.
func (f *webFolder) isOf(urlPath, issuer string) error {
	data, _, err := f.read(urlPath)
	if err != nil || len(data) == 0 {
		return err
	}
	d, err := token.ParseDiscovery(data)
	if err == nil && d.Issuer != issuer {
		err = fmt.Errorf("it is of another issuer, %.200q", d.Issuer)
	}
	if err != nil {
		return advise(fmt.Errorf("%s is not replaced: %w", f.host(urlPath), err), "give each issuer a path or a folder of its own; if nobody needs what is there, move it away first")
	}
	return nil
}

// write replaces a file as a whole, with the mode of the one before or 0644 under
// the umask, or leaves one that holds the same. What a killed run has left of it
// is removed: the temporary name is a fixed one, so that it is known to be ours.
// (Those of github.com/google/renameio are random.)
func (f *webFolder) write(urlPath string, data []byte) (written bool, err error) {
	before, info, err := f.read(urlPath)
	if err != nil {
		return false, err
	}
	name := strings.TrimPrefix(urlPath, "/")
	temporary := path.Join(path.Dir(name), ".kubepki-"+path.Base(name)+".tmp")
	if err := f.root.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, f.failed(urlPath, err)
	}
	if info != nil && bytes.Equal(before, data) {
		return false, nil
	}
	if err := f.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return false, f.failed(urlPath, err)
	}
	if err = f.create(temporary, data, info); err == nil {
		err = f.root.Rename(temporary, name)
	}
	if err != nil {
		_ = f.root.Remove(temporary) // why it is not there is said already
	}
	return err == nil, f.failed(urlPath, err)
}

// create writes a new file to the disk: after a loss of power it is whole.
func (f *webFolder) create(name string, data []byte, before fs.FileInfo) error {
	file, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if before != nil {
		err = file.Chmod(before.Mode().Perm())
	}
	if err == nil {
		_, err = file.Write(data)
	}
	return errors.Join(err, file.Sync(), file.Close())
}

func (f *webFolder) failed(urlPath string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", f.host(urlPath), layout.Cause(err))
}
