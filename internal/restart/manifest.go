package restart

import (
	"bytes"
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

// AsideFolder is where a manifest stands while the kubelet shall stop its pod, below
// a path that is its own: what stands there belongs to the same path below /. One
// rename takes it there and one brings it back, so that at no moment it is nowhere,
// and [Recover] needs no other journal.
const AsideFolder = "/etc/kubernetes/kubepki-restart"

// maxAside bounds the entries that are looked at below AsideFolder.
const maxAside = 1000

// aside takes a manifest out of its folder.
func aside(root *os.Root, manifest string) error {
	from, to := rel(manifest), rel(path.Join(AsideFolder, manifest))
	info, err := root.Lstat(from)
	if err != nil {
		return fmt.Errorf("%s: %w", manifest, layout.Cause(err))
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no plain file: it is not moved", manifest)
	}
	if _, err := root.Lstat(to); err == nil {
		return fmt.Errorf("%s is there already: an interrupted restart left it", path.Join(AsideFolder, manifest))
	}
	if err := makeFolders(root, path.Dir(to)); err != nil {
		return fmt.Errorf("%s: %w", AsideFolder, layout.Cause(err))
	}
	return move(root, from, to, manifest)
}

// makeFolders makes folders that only their owner may enter, each durable before
// what is below it.
func makeFolders(root *os.Root, name string) error {
	at := "."
	for part := range strings.SplitSeq(name, "/") {
		parent := at
		at = path.Join(at, part)
		err := root.Mkdir(at, 0o700)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = layout.Sync(root, parent)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// move renames and makes both folders durable: first the one that has it now.
func move(root *os.Root, from, to, manifest string) error {
	if err := root.Rename(from, to); errors.Is(err, syscall.EXDEV) {
		return &OtherDiskError{manifest}
	} else if err != nil {
		return fmt.Errorf("%s: %w", manifest, layout.Cause(err))
	}
	if err := layout.Sync(root, path.Dir(to)); err != nil {
		return fmt.Errorf("%s: %w", path.Dir("/"+to), layout.Cause(err))
	}
	if err := layout.Sync(root, path.Dir(from)); err != nil {
		return fmt.Errorf("%s: %w", path.Dir("/"+from), layout.Cause(err))
	}
	return nil
}

// OtherDiskError tells that a manifest cannot be moved by one rename.
type OtherDiskError struct{ Manifest string }

func (e *OtherDiskError) Error() string {
	return fmt.Sprintf("%s is on another file system than %s, and is moved by one rename or not at all", e.Manifest, AsideFolder)
}

// Hint names the other way.
func (e *OtherDiskError) Hint() string {
	return "give --restart-by=cri, by which the manifest stays where it is"
}

// back brings a manifest back, unless another one stands in its place by now: then
// that is the newer word, and ours is removed where it is the same, and else kept
// and named.
func back(root *os.Root, manifest string) error {
	from, to := rel(path.Join(AsideFolder, manifest)), rel(manifest)
	if _, err := root.Lstat(to); errors.Is(err, fs.ErrNotExist) {
		if err := move(root, from, to, manifest); err != nil {
			return err
		}
		tidy(root, path.Dir(from))
		return nil
	} else if err != nil {
		return fmt.Errorf("%s: %w", manifest, layout.Cause(err))
	}
	ours, err := root.ReadFile(from)
	theirs, err2 := root.ReadFile(to)
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("%s: %w", manifest, layout.Cause(err))
	}
	if !bytes.Equal(ours, theirs) {
		return &TwoManifestsError{manifest}
	}
	if err := root.Remove(from); err != nil {
		return fmt.Errorf("%s: %w", path.Join(AsideFolder, manifest), layout.Cause(err))
	}
	tidy(root, path.Dir(from))
	return nil
}

// TwoManifestsError tells that somebody put another manifest in the place of one that
// an interrupted restart had moved away.
type TwoManifestsError struct{ Manifest string }

func (e *TwoManifestsError) Error() string {
	return fmt.Sprintf("%s was written while the one before it stood in %s, and differs", e.Manifest, path.Join(AsideFolder, e.Manifest))
}

// Hint tells what to do with them.
func (e *TwoManifestsError) Hint() string {
	return fmt.Sprintf("see which of the two is meant (diff %s %s), put it in the place of %[1]s, and remove the other", e.Manifest, path.Join(AsideFolder, e.Manifest))
}

// tidy removes folders that are empty, up to AsideFolder. What is not empty stays.
func tidy(root *os.Root, name string) {
	for ; name != "." && strings.HasPrefix("/"+name, AsideFolder); name = path.Dir(name) {
		if root.Remove(name) != nil {
			return
		}
	}
}

// Recover brings back the manifests that an interrupted restart left aside, and
// returns their paths as on the node. Root is the folder that is the node's "/".
// It is to be called before anything else is done with the node, by one process at
// a time; nothing to do is no error.
func Recover(root string) ([]string, error) {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", root, layout.Cause(err))
	}
	defer dir.Close()
	left, err := Left(root)
	var brought []string
	errs := []error{err}
	for _, manifest := range left {
		if err := back(dir, manifest); err != nil {
			errs = append(errs, err)
			continue
		}
		brought = append(brought, manifest)
	}
	return brought, errors.Join(errs...)
}

// Left are the manifests that stand aside now: those of an interrupted restart, or
// of one that is under way.
func Left(root string) ([]string, error) {
	top := filepath.Join(root, AsideFolder)
	var left []string
	seen := 0
	err := filepath.WalkDir(top, func(file string, d fs.DirEntry, err error) error {
		if seen++; err != nil || seen > maxAside {
			return err
		}
		if d.Type().IsRegular() {
			left = append(left, filepath.ToSlash(strings.TrimPrefix(file, top)))
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return left, err
}

func rel(nodePath string) string { return strings.TrimPrefix(path.Clean(nodePath), "/") }
