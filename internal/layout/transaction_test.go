package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func beginAt(t *testing.T, root string) *Transaction {
	t.Helper()
	tx, err := Begin(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback() })
	return tx
}

func TestARootThatDoesNotExistIsMadeAndRemovedOnRollback(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "out", "cp1")
	before := snapshot(t, dir)
	tx := beginAt(t, root)
	if err := stageWanted(tx); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tx.Rollback(), tx.Rollback()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, snapshot(t, dir)); diff != "" {
		t.Errorf("roll back left: %s", diff)
	}
	if err := provision(root, real); err != nil {
		t.Fatal(err)
	}
	checkComplete(t, root)
	if info, err := os.Stat(root); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("root: %v, %v", info.Mode(), err)
	}
}

func TestATransactionWithoutChangesLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	tx := beginAt(t, filepath.Join(dir, "root"))
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := snapshot(t, dir); len(got) != 1 {
		t.Errorf("left: %v", got)
	}
	if err := tx.Rollback(); err != nil {
		t.Errorf("Rollback after Commit: %v", err)
	}
	if err := tx.Write("/a", nil, 0o600); err == nil {
		t.Error("Write after Commit did not fail")
	}
}

func TestModesAreExactWhateverTheUmask(t *testing.T) {
	// The umask is the process's: this test must not run beside others.
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	root := startingPoint(t)
	if err := provision(root, real); err != nil {
		t.Fatal(err)
	}
	checkComplete(t, root)
	if got := snapshot(t, root)["var/lib"]; !strings.HasPrefix(got, "drwxr-xr-x") {
		t.Errorf("var/lib has mode %s", got)
	}
}

func TestFoldersAre0755WhateverTheUmask(t *testing.T) {
	for _, mask := range []int{0, 0o077, 0o777} {
		dir := t.TempDir()
		old := syscall.Umask(mask)
		tx, err := Begin(filepath.Join(dir, "out", "top"))
		if err == nil {
			err = tx.Write("/etc/kubernetes/pki/ca.crt", []byte("a"), 0o644)
		}
		if err == nil {
			err = tx.Commit()
		}
		syscall.Umask(old)
		if err != nil {
			t.Fatalf("umask %#o: %v", mask, err)
		}
		for _, folder := range []string{"out", "out/top", "out/top/etc", "out/top/etc/kubernetes/pki"} {
			if info, err := os.Stat(filepath.Join(dir, folder)); err != nil || info.Mode().Perm() != 0o755 {
				t.Errorf("umask %#o: %s has mode %v, %v; want 0755", mask, folder, info.Mode(), err)
			}
		}
	}
}

// TestAKubernetesFolderThatIsALinkWorks: the journal stands elsewhere then.
func TestAKubernetesFolderThatIsALinkWorks(t *testing.T) {
	root := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "etc"), 0o755), os.Symlink("/data/k8s", filepath.Join(root, "etc/kubernetes"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"first", "second"} {
		tx := beginAt(t, root)
		if err := errors.Join(tx.Write("/etc/kubernetes/pki/"+name, []byte("a"), 0o644), tx.Commit()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(root, "data/k8s/pki", name)); err != nil {
			t.Error(err)
		}
	}
}

func TestTwoTransactionsOnOneRootExcludeEachOther(t *testing.T) {
	root := t.TempDir()
	first := beginAt(t, root)
	var busy *BusyError
	if _, err := Begin(root); !errors.As(err, &busy) || !strings.Contains(err.Error(), root) {
		t.Fatalf("second Begin: %v", err)
	}
	if err := first.Rollback(); err != nil {
		t.Fatal(err)
	}
	beginAt(t, root)
}

func TestNothingIsEverOverwritten(t *testing.T) {
	for name, there := range map[string]func(t *testing.T, p string){
		"a file":          func(t *testing.T, p string) { os.WriteFile(p, []byte("mine"), 0o600) },
		"a folder":        func(t *testing.T, p string) { os.Mkdir(p, 0o700) },
		"a dangling link": func(t *testing.T, p string) { os.Symlink("/nowhere", p) },
	} {
		t.Run(name+" that stood before", func(t *testing.T) {
			root := t.TempDir()
			there(t, filepath.Join(root, "ca.key"))
			before := snapshot(t, root)
			tx := beginAt(t, root)
			if err := tx.Write("/ca.key", []byte("new"), 0o600); !errors.Is(err, fs.ErrExist) {
				t.Fatalf("Write: %v", err)
			}
			// The transaction goes on: what is there is kept, the rest is made.
			if err := errors.Join(tx.Write("/ca.crt", []byte("new"), 0o644), tx.Commit()); err != nil {
				t.Fatal(err)
			}
			after := snapshot(t, root)
			delete(after, "ca.crt")
			if diff := cmp.Diff(before, after); diff != "" {
				t.Error(diff)
			}
		})
		t.Run(name+" that appeared meanwhile", func(t *testing.T) {
			root := t.TempDir()
			tx := beginAt(t, root)
			for _, p := range []string{"/ca.key", "/ca.crt", "/sa.key"} {
				if err := tx.Write(p, []byte("new"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			there(t, filepath.Join(root, "ca.key"))
			if err := tx.Commit(); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), filepath.Join(root, "ca.key")) {
				t.Fatalf("Commit: %v", err)
			}
			if after := snapshot(t, root); len(after) != 2 {
				t.Errorf("left: %v", after)
			}
		})
	}
}

func TestTheSameFileTwiceIsRefused(t *testing.T) {
	tx := beginAt(t, t.TempDir())
	if err := tx.Write("/a/b", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tx.Write("/a/../a/b", nil, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Write: %v", err)
	}
}

func TestLinksOfFoldersResolveBelowTheRoot(t *testing.T) {
	for name, target := range map[string]string{
		"an absolute link":              "/data/pki",
		"a relative link":               "../../data/pki",
		"a link that climbs too far up": "../../../../../../data/pki",
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root, "data/pki/keep", "", 0o600)
			os.MkdirAll(filepath.Join(root, "etc/kubernetes"), 0o755)
			if err := os.Symlink(target, filepath.Join(root, "etc/kubernetes/pki")); err != nil {
				t.Fatal(err)
			}
			tx := beginAt(t, root)
			if err := errors.Join(tx.Write("/etc/kubernetes/pki/etcd/ca.crt", []byte("x"), 0o644), tx.Commit()); err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(filepath.Join(root, "data/pki/etcd/ca.crt")); string(data) != "x" {
				t.Errorf("the file is not where the link leads: %v", err)
			}
		})
	}
}

func TestRefusedPaths(t *testing.T) {
	root := t.TempDir()
	write(t, root, "file", "", 0o600)
	os.Symlink("loop", filepath.Join(root, "loop"))
	for p, want := range map[string]string{
		"relative":     "not an absolute path",
		"/file/below":  "no folder",
		"/loop/ca.crt": "loop",
	} {
		before := snapshot(t, root)
		tx := beginAt(t, root)
		err := tx.Write(p, []byte("x"), 0o600)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Write %q: %v", p, err)
		}
		if err := tx.Commit(); err == nil {
			t.Errorf("%q: Commit after a failed Write", p)
		}
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := Begin(filepath.Join(root, "file")); err == nil || !strings.Contains(err.Error(), "is not a folder") {
		t.Errorf("Begin on a file: %v", err)
	}
}

func TestTemporariesWithoutAJournalAreSwept(t *testing.T) {
	root := startingPoint(t)
	write(t, root, "etc/kubernetes/pki/.kubepki-ca.key-0123456789ab.tmp", "stale", 0o600)
	write(t, root, "etc/kubernetes/pki/ca.key.tmp", "somebody's", 0o600)
	if err := provision(root, real); err != nil {
		t.Fatal(err)
	}
	after := snapshot(t, root)
	if _, ok := after["etc/kubernetes/pki/ca.key.tmp"]; !ok {
		t.Error("a file that is none of ours was removed")
	}
	for name := range after {
		if strings.Contains(name, tempPrefix) {
			t.Errorf("%s was left", name)
		}
	}
}

func TestStagedFilesAreForTheOwnerOnlyAndTheJournalHoldsNoSecret(t *testing.T) {
	root := t.TempDir()
	tx := beginAt(t, root)
	if err := stageWanted(tx); err != nil {
		t.Fatal(err)
	}
	temporaries := 0
	for name, content := range snapshot(t, root) {
		if !strings.Contains(name, tempPrefix) {
			continue
		}
		if !strings.HasPrefix(content, "-rw-------") {
			t.Errorf("%s: %.10s", name, content)
		}
		if filepath.Base(name) == journalName {
			if strings.Contains(content, "PRIVATE") || strings.Contains(content, "key\\n") {
				t.Error("the journal holds content")
			}
			continue
		}
		temporaries++
	}
	if temporaries != len(wanted) {
		t.Errorf("%d temporaries", temporaries)
	}
}

func TestAFileThatAppearedAfterTheKillIsKeptAndTheRestTakenBack(t *testing.T) {
	for n := range operations(t) {
		root := startingPoint(t)
		killAt(t, root, n, works)
		if _, err := os.Lstat(filepath.Join(root, "etc/kubernetes/pki/sa.pub")); err == nil {
			continue // it had appeared
		}
		os.MkdirAll(filepath.Join(root, "etc/kubernetes/pki"), 0o755)
		write(t, root, "etc/kubernetes/pki/sa.pub", "somebody's", 0o644)
		tx := beginAt(t, root)
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(root, "etc/kubernetes/pki/sa.pub"))
		if string(data) != "somebody's" {
			t.Fatalf("operation %d: the file was not kept: %v", n, err)
		}
		for name := range snapshot(t, root) {
			if strings.HasSuffix(name, ".key") || strings.Contains(name, tempPrefix) {
				t.Fatalf("operation %d: %s stands", n, name)
			}
		}
	}
}

// noLinks is a file system without hard links.
type noLinks struct{ fileOps }

func (noLinks) Link(string, string) error { return syscall.EPERM }

func TestFileSystemsWithoutHardLinksWorkToo(t *testing.T) {
	root := startingPoint(t)
	if err := provision(root, func(r *os.Root) fileOps { return noLinks{newHeldOps(r)} }); err != nil {
		t.Fatal(err)
	}
	checkComplete(t, root)
}

// readOnlyRoot is a root that cannot be written while its etc/kubernetes can.
type readOnlyRoot struct{ fileOps }

func (d readOnlyRoot) Create(name string, data []byte) error {
	if !strings.HasPrefix(name, "etc/kubernetes/") {
		return syscall.EROFS
	}
	return d.fileOps.Create(name, data)
}

func TestAReadOnlyRootWithWritableEtcKubernetesWorks(t *testing.T) {
	root := startingPoint(t)
	on := func(r *os.Root) fileOps { return readOnlyRoot{newHeldOps(r)} }
	tx, err := begin(root, on)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tx.Write("/etc/kubernetes/pki/ca.crt", []byte("x"), 0o644), tx.Commit()); err != nil {
		t.Fatal(err)
	}
	if _, ok := snapshot(t, root)["etc/kubernetes/pki/ca.crt"]; !ok {
		t.Error("the file is not there")
	}
}

func TestAReadOnlyFolderIsAnErrorThatNamesTheFile(t *testing.T) {
	dir := openTempDir(t)
	root := filepath.Join(dir, "root")
	os.Mkdir(root, 0o755)
	write(t, root, "etc/kubernetes/manifests/etcd.yaml", "kind: Pod\n", 0o644)
	for _, d := range []string{"etc/kubernetes/manifests", "etc/kubernetes", "etc", "."} {
		os.Chmod(filepath.Join(root, d), 0o555)
	}
	t.Cleanup(func() {
		filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error { os.Chmod(p, 0o755); return err })
	})
	before := snapshot(t, dir)
	unprivileged(t, "readonly", root)
	if diff := cmp.Diff(before, snapshot(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func writeReadOnly(root string) error {
	err := provision(root, real)
	file := filepath.Join(root, "etc/kubernetes/pki")
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "\n") {
		return fmt.Errorf("below a read-only folder: error %v, want one that names %s", err, file)
	}
	err = provision(filepath.Join(root, "sub", "new"), real)
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), filepath.Join(root, "sub")) {
		return fmt.Errorf("a root that cannot be made: %v", err)
	}
	return nil
}

func BenchmarkTransactionOfAControlPlane(b *testing.B) {
	dir, n := b.TempDir(), 0
	for b.Loop() {
		n++
		tx, err := Begin(filepath.Join(dir, fmt.Sprint(n)))
		if err != nil {
			b.Fatal(err)
		}
		for i := range 27 {
			if err := tx.Write(fmt.Sprintf("/etc/kubernetes/pki/%d.key", i), []byte(wanted[i%len(wanted)].data), 0o600); err != nil {
				b.Fatal(err)
			}
		}
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}
