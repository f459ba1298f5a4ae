package layout

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Children are what the test binary does instead of testing when it is run
// with childEnv set: they stand for another process.
const (
	childEnv  = "KUBEPKI_LAYOUT_CHILD"
	childRoot = "KUBEPKI_LAYOUT_ROOT"
	nobody    = 65534
)

var children = map[string]func(root string) error{
	"provision": provisionForever,
	"mount":     mountForever,
	"denied":    readDenied,
	"readonly":  writeReadOnly,
	"renew":     renewMount,
	"closed":    writeClosed,
	"wait":      waitForEnd,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		if err := children[name](os.Getenv(childRoot)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(name, root string) *exec.Cmd {
	// Through /proc the binary needs no path that the child may walk.
	self := "/proc/self/exe"
	if _, err := os.Stat(self); err != nil {
		self, _ = os.Executable()
	}
	cmd := exec.Command(self, "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+name, childRoot+"="+root)
	cmd.Stderr = os.Stderr
	return cmd
}

// unprivileged does what a child does as a user who is not root.
func unprivileged(t *testing.T, name, root string) {
	t.Helper()
	if os.Geteuid() != 0 {
		if err := children[name](root); err != nil {
			t.Error(err)
		}
		return
	}
	cmd := child(name, root)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: true}}
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
}

// openTempDir is a temporary folder that every user may enter.
func openTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "layout")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// snapshot describes everything below a folder: names, kinds, modes, contents.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			content = string(data)
		case info.Mode()&fs.ModeSymlink != 0:
			content, _ = os.Readlink(p)
		}
		name, err := filepath.Rel(dir, p)
		all[name] = info.Mode().String() + " " + content
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func write(t *testing.T, root, nodePath, data string, mode fs.FileMode) {
	t.Helper()
	p := filepath.Join(root, nodePath)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(data), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(p, mode); err != nil {
		t.Fatal(err)
	}
}
