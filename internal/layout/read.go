package layout

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/kubepki/kubepki/internal/trust"
)

// MaxFile is the size in bytes up to which files are read.
const MaxFile = trust.MaxPEM

// Content is a file as the disk holds it.
type Content struct {
	Data []byte
	Mode fs.FileMode // permission bits only
	UID  int         // owner, -1 when not known
	// Target is the absolute path on the node that symbolic links led to,
	// empty when the path has none.
	Target string
}

// ReadError tells why a file could not be read, in the terms of [trust.State]:
// Missing, Unreadable or Denied.
type ReadError struct {
	Path   string // absolute, as on the node
	State  trust.State
	Reason string // a phrase, such as "is a folder"
	Err    error  // the cause, nil when kubepki itself refused

	dangling bool // the path itself is a link, and leads to nothing
}

// Error names the path and the reason.
func (e *ReadError) Error() string { return e.Path + ": " + e.Reason }

// Unwrap returns the cause.
func (e *ReadError) Unwrap() error { return e.Err }

// Dangling tells that the path itself is a symbolic link that leads to nothing.
// It is false for a file that is just absent from a folder that is a link.
func (e *ReadError) Dangling() bool { return e.dangling }

// ReadFile reads the regular file at an absolute path of the node whose file
// system stands below root. Links are followed below root only. It never
// blocks on a FIFO, and refuses folders, devices and files above [MaxFile].
// Every error is a [*ReadError]; with [trust.Denied] the Content still holds
// the mode and owner where they could be seen.
func ReadFile(root, nodePath string) (Content, error) {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return Content{}, readError(nodePath, Cause(err))
	}
	defer dir.Close()
	return readFile(dir, dir, nodePath)
}

// readFile reads a file of a root; links is the root or a cache of it.
func readFile(dir *os.Root, links linkReader, nodePath string) (Content, error) {
	c := Content{UID: -1}
	if err := checkNodePath(nodePath); err != nil {
		return c, &ReadError{Path: nodePath, State: trust.Unreadable, Reason: "is not an absolute path", Err: err}
	}
	at, err := resolve(links, nodePath)
	if err != nil {
		return c, readError(nodePath, err)
	}
	if at.links > 0 {
		c.Target = at.path()
	}
	if len(at.absent) > 0 {
		e := readError(nodePath, fs.ErrNotExist)
		if at.links > 0 {
			e.Reason = fmt.Sprintf("leads to %s, which does not exist", c.Target)
			folder, err := resolve(links, path.Dir(nodePath))
			e.dangling = err == nil && len(folder.absent) == 0 && folder.links < at.links
		}
		return c, e
	}
	err = c.load(dir, links, nodePath, at.name)
	return c, err
}

// load reads the regular file at a name that is free of links.
func (c *Content) load(dir *os.Root, links linkReader, nodePath, name string) error {
	// Opening a device can have effects, so look before.
	info, err := links.Lstat(name)
	if err != nil {
		return readError(nodePath, Cause(err))
	}
	c.stat(info)
	if err := refuseKind(nodePath, info); err != nil {
		return err
	}
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return readError(nodePath, Cause(err))
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return readError(nodePath, Cause(err))
	}
	c.stat(info)
	if err := refuseKind(nodePath, info); err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return readError(nodePath, Cause(err))
	}
	if len(data) > MaxFile {
		return tooLarge(nodePath)
	}
	c.Data = data
	return nil
}

func (c *Content) stat(info fs.FileInfo) {
	c.Mode = info.Mode().Perm()
	c.UID = owner(info)
}

func owner(info fs.FileInfo) int {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid)
	}
	return -1
}

func refuseKind(nodePath string, info fs.FileInfo) error {
	reason := ""
	switch mode := info.Mode(); {
	case mode.IsRegular() && info.Size() > MaxFile:
		return tooLarge(nodePath)
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		reason = "is a folder"
	case mode&fs.ModeNamedPipe != 0:
		reason = "is a FIFO, not a file"
	case mode&fs.ModeSocket != 0:
		reason = "is a socket, not a file"
	case mode&fs.ModeDevice != 0:
		reason = "is a device, not a file"
	default:
		reason = "is not a regular file"
	}
	return &ReadError{Path: nodePath, State: trust.Unreadable, Reason: reason}
}

func tooLarge(nodePath string) error {
	return &ReadError{Path: nodePath, State: trust.Unreadable, Reason: "is larger than 1 MiB, which no file of a cluster's credentials is"}
}

func readError(nodePath string, err error) *ReadError {
	e := &ReadError{Path: path.Clean(nodePath), State: trust.Unreadable, Reason: err.Error(), Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.State, e.Reason = trust.Missing, "does not exist"
	case errors.Is(err, syscall.ENOTDIR):
		e.State, e.Reason = trust.Missing, "does not exist: a part of its path is no folder"
	case errors.Is(err, fs.ErrPermission):
		e.State, e.Reason = trust.Denied, "permission denied"
	case errors.Is(err, syscall.ELOOP):
		e.Reason = errLinkLoop.Error()
	}
	return e
}
