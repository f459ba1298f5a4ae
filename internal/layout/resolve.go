package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
)

// maxLinks bounds the symbolic links of one path, as Linux does (MAXSYMLINKS).
const maxLinks = 40

var errLinkLoop = errors.New("more than 40 symbolic links: a loop")

// linkReader is what resolving a path needs of a disk. Names are relative to
// the root and slash-separated.
type linkReader interface {
	Lstat(name string) (fs.FileInfo, error)
	Readlink(name string) (string, error)
}

// seenLinks remembers what stands at each name, for many paths of one node go
// through the same folders. What is opened is looked at again.
type seenLinks struct {
	linkReader
	infos map[string]fs.FileInfo // nil: nothing stands there
}

func (s seenLinks) Lstat(name string) (fs.FileInfo, error) {
	switch info, ok := s.infos[name]; {
	case ok && info == nil:
		return nil, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
	case ok:
		return info, nil
	}
	info, err := s.linkReader.Lstat(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		s.infos[name] = info
	}
	return info, err
}

// resolved is where a path of a node leads to.
type resolved struct {
	name   string   // relative to the root, free of links; "." is the root
	absent []string // components below name that do not exist
	links  int      // symbolic links followed
}

// path returns the whole path as on the node.
func (r resolved) path() string {
	return path.Join("/", r.name, path.Join(r.absent...))
}

// resolve follows an absolute path of the node link by link. An absolute link
// starts again at the root and ".." stops there, so nothing leads outside.
func resolve(disk linkReader, nodePath string) (resolved, error) {
	r := resolved{name: "."}
	todo := strings.Split(nodePath, "/")
	for len(todo) > 0 {
		next := todo[0]
		todo = todo[1:]
		switch next {
		case "", ".":
			continue
		case "..":
			r.name = path.Dir(r.name)
			continue
		}
		name := path.Join(r.name, next)
		info, err := disk.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			r.absent = absentComponents(next, todo)
			if slices.Contains(r.absent, "..") {
				return r, fs.ErrNotExist
			}
			return r, nil
		}
		if err != nil {
			return r, Cause(err)
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			r.name = name
			if len(todo) > 0 && !info.IsDir() {
				return r, syscall.ENOTDIR
			}
			continue
		}
		if r.links++; r.links > maxLinks {
			return r, errLinkLoop
		}
		target, err := disk.Readlink(name)
		if err != nil {
			return r, Cause(err)
		}
		if path.IsAbs(target) {
			r.name = "."
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return r, nil
}

func absentComponents(first string, rest []string) []string {
	absent := []string{first}
	for _, c := range rest {
		if c != "" && c != "." {
			absent = append(absent, c)
		}
	}
	return absent
}

// Cause returns an error without the operation and the name that package os adds,
// which is relative to a root: messages name the whole path.
func Cause(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}

// checkNodePath refuses paths that are not absolute.
func checkNodePath(p string) error {
	if !path.IsAbs(p) || strings.ContainsRune(p, 0) {
		return fmt.Errorf("%q is not an absolute path", p)
	}
	return nil
}
