package layout

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// mounted is a folder with a small file system of its own.
func mounted(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("a file system of its own needs the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestADiskThatIsReallyFullIsLeftAsItWas(t *testing.T) {
	// The wanted files and the journal take 17 pages, folders and names none.
	failed := 0
	for _, size := range []string{"4k", "8k", "16k", "24k", "32k", "48k", "64k"} {
		root := filepath.Join(mounted(t, "size="+size), "root")
		before := snapshot(t, filepath.Dir(root))
		err := provision(root, real)
		if err == nil {
			checkComplete(t, root)
			continue
		}
		failed++
		if !errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), root) {
			t.Errorf("%s: %q", size, err)
		}
		if diff := cmp.Diff(before, snapshot(t, filepath.Dir(root))); diff != "" {
			t.Errorf("%s: %s", size, diff)
		}
	}
	if failed < 4 {
		t.Errorf("only %d disks were too small", failed)
	}
}

func TestADiskThatTurnsReadOnlyIsRecoveredWhenItIsWritableAgain(t *testing.T) {
	dir := mounted(t, "size=1m")
	tx := beginAt(t, dir)
	if err := stageWanted(tx); err != nil {
		t.Fatal(err)
	}
	remount := func(flags uintptr) {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	if err := tx.Commit(); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Commit: %v", err)
	}
	remount(0)
	if err := provision(dir, real); err != nil {
		t.Fatal(err)
	}
	checkComplete(t, dir)
	if _, err := os.Stat(filepath.Join(dir, journalName)); err == nil {
		t.Error("the journal stands")
	}
}
