package cri

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/kubepki/kubepki/lab"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// mount makes the container's root folder.
func (p *process) mount() error {
	if err := os.MkdirAll(filepath.Join(p.root, "tmp"), 0o755); err != nil {
		return err
	}
	if err := lab.MountMachine(p.root, p.node.Programs); err != nil {
		return err
	}
	mounts := slices.Clone(p.config.Mounts)
	// A folder comes before what is mounted below it.
	slices.SortStableFunc(mounts, func(a, b *runtimeapi.Mount) int {
		return strings.Compare(filepath.Clean(a.ContainerPath), filepath.Clean(b.ContainerPath))
	})
	for _, m := range mounts {
		source, err := securejoin.SecureJoin(p.node.Root, m.HostPath)
		if err != nil {
			return err
		}
		if err := p.bind(source, m.ContainerPath, m.Readonly); err != nil {
			return err
		}
	}
	return nil
}

// bind shows a folder or a file, by its path in the view of the lab, at a path in
// the container.
func (p *process) bind(source, path string, readOnly bool) error {
	target, err := securejoin.SecureJoin(p.root, path)
	if err != nil {
		return err
	}
	if err := makeTarget(source, target); err != nil {
		return fmt.Errorf("make room for a volume at %s: %w", path, err)
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount a volume at %s: %w", path, err)
	}
	if !readOnly {
		return nil
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make the volume at %s read-only: %w", path, err)
	}
	return nil
}

// makeTarget makes what a source can be mounted at. A source that is not there
// becomes a folder, as with other runtimes.
func makeTarget(source, target string) error {
	info, err := os.Stat(source)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(source, 0o755); err != nil {
			return err
		}
		return os.MkdirAll(target, 0o755)
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.MkdirAll(target, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return file.Close()
}

// unmount takes the container's root folder away.
func (p *process) unmount() error {
	if err := lab.UnmountMachine(p.root); err != nil {
		return err // nothing may be removed: it would be the machine's
	}
	return os.RemoveAll(p.root)
}
