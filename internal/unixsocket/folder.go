package unixsocket

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// checkFolders refuses a folder in which somebody else could put a socket: those
// who dial would take it for the one of this process, above all while this
// process does not run.
func checkFolders(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	top, err := os.Stat("/")
	if err != nil {
		return err
	}
	for one := dir; ; one = filepath.Dir(one) {
		info, err := os.Stat(one)
		if err != nil {
			return err
		}
		// Whoever owns / owns the machine. In a user namespace that need not be 0.
		if owner := ownerOf(info); owner != 0 && int(owner) != os.Geteuid() && owner != ownerOf(top) {
			return fmt.Errorf("folder %s of the socket belongs to user %d, who could replace the socket: use a folder of root or of the user who runs this", one, owner)
		}
		// What stands in a sticky folder is its owner's to remove; but anybody may
		// put something there, as in /tmp.
		if info.Mode().Perm()&0o022 != 0 && (one == dir || info.Mode()&fs.ModeSticky == 0) {
			return fmt.Errorf("folder %s of the socket is of mode %s: others could put a socket of theirs there: use one that only its owner can write", one, info.Mode())
		}
		if one == filepath.Dir(one) {
			return nil
		}
	}
}

func ownerOf(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }
