package layout

import (
	"io/fs"
	"syscall"
	"time"
)

// changedAt is the ctime of a file, which a rename sets too (inode(7)).
func changedAt(info fs.FileInfo) time.Time {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(s.Ctim.Unix())
	}
	return info.ModTime()
}
