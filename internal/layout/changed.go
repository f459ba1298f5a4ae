package layout

import (
	"os"
	"strings"
	"time"
)

// Changed is when what stands at an absolute path of a node came to stand there, a link
// itself and not what it leads to: a file that was written under another name and renamed
// is not older than the rename, where the system tells that.
func Changed(dir, path string) (time.Time, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return time.Time{}, err
	}
	defer root.Close()
	info, err := root.Lstat(strings.TrimPrefix(path, "/"))
	if err != nil {
		return time.Time{}, Cause(err)
	}
	return changedAt(info), nil
}
