package agent

import (
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// stamp tells one state of a file or folder from another.
type stamp struct {
	device, inode uint64
	size          int64
	changed       int64 // mtime, and
	touched       int64 // ctime, in nanoseconds of Unix time
	settled       bool  // that it was read long enough after its last change to have been whole
}

// settledAfter is how old the last change must be so that nothing can have been
// written since within the grain of the disk's clock.
const settledAfter = 2 * time.Second

// stampOf follows links. It is settled when the last change is long before reading
// began.
func stampOf(path string, began time.Time) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return stamp{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	s := stamp{device: uint64(st.Dev), inode: st.Ino, size: st.Size, changed: st.Mtim.Nano(), touched: st.Ctim.Nano()} //nolint:unconvert // another type elsewhere
	s.settled = began.Sub(time.Unix(0, max(s.changed, s.touched))).Abs() >= settledAfter
	return s, nil
}

// stampsOf leaves out what is not there.
func stampsOf(paths []string) map[string]stamp {
	all := make(map[string]stamp, len(paths))
	for _, p := range paths {
		if s, err := stampOf(p, time.Now()); err == nil {
			all[p] = s
		}
	}
	return all
}
