package layout

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// wanted are the files of the transaction that the crash tests run. A key's
// content names it as one and is of a length that no page or block divides.
var wanted = []struct {
	path string
	mode fs.FileMode
	data string
}{
	{"/etc/kubernetes/pki/ca.key", 0o600, keyText("ca")},
	{"/etc/kubernetes/pki/ca.crt", 0o644, certificateText("ca")},
	{"/etc/kubernetes/pki/etcd/ca.crt", 0o644, certificateText("etcd ca")},
	{"/etc/kubernetes/pki/etcd/ca.key", 0o600, keyText("etcd ca")},
	{"/etc/kubernetes/pki/sa.key", 0o600, keyText("sa")},
	{"/etc/kubernetes/pki/sa.pub", 0o644, certificateText("sa")},
	{"/etc/kubernetes/admin.conf", 0o600, "kind: Config # " + strings.Repeat("a", 1234)},
	{"/var/lib/kubelet/pki/kubelet.crt", 0o644, certificateText("kubelet")},
	{"/var/lib/kubelet/pki/kubelet.key", 0o600, keyText("kubelet")},
}

func keyText(of string) string {
	return "-----BEGIN PRIVATE KEY-----\n" + strings.Repeat(of+" key\n", 200) + "-----END PRIVATE KEY-----\n"
}

func certificateText(of string) string {
	return "-----BEGIN CERTIFICATE-----\n" + strings.Repeat(of+" certificate\n", 150) + "-----END CERTIFICATE-----\n"
}

// provision makes what is not there yet of the wanted files.
func provision(root string, on func(*os.Root) fileOps) error {
	tx, err := begin(root, on)
	if err != nil {
		return err
	}
	err = stageWanted(tx)
	if err == nil {
		err = tx.Commit()
	}
	return errors.Join(err, tx.Rollback())
}

func stageWanted(tx *Transaction) error {
	if err := tx.Mkdir("/etc/kubernetes/pki", 0o700); err != nil {
		return err
	}
	for _, w := range wanted {
		if err := tx.Write(w.path, []byte(w.data), w.mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

func real(dir *os.Root) fileOps { return newHeldOps(dir) }

// quick is the real disk without waiting for it, which no kill of a process shows.
func quick(dir *os.Root) fileOps { return unsynced{newHeldOps(dir)} }

type unsynced struct{ fileOps }

func (unsynced) Sync(string) error { return nil }

// startingPoint is a root with a folder and a file that stay as they are.
func startingPoint(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write(t, root, "etc/kubernetes/manifests/etcd.yaml", "kind: Pod\n", 0o600)
	return root
}

// checkWhole asserts that no file is half written and no key stands without
// its certificate or public half.
func checkWhole(t *testing.T, root string) {
	t.Helper()
	for _, w := range wanted {
		data, err := os.ReadFile(filepath.Join(root, w.path))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || string(data) != w.data {
			t.Errorf("%s holds %d bytes of %d: %v", w.path, len(data), len(w.data), err)
		}
		base, isKey := strings.CutSuffix(w.path, ".key")
		if !isKey {
			continue
		}
		_, certErr := os.Stat(filepath.Join(root, base+".crt"))
		_, pubErr := os.Stat(filepath.Join(root, base+".pub"))
		if certErr != nil && pubErr != nil {
			t.Errorf("%s stands without its certificate", w.path)
		}
	}
}

// checkComplete asserts that all files stand, with their modes, and no others.
func checkComplete(t *testing.T, root string) {
	t.Helper()
	got := snapshot(t, root)
	for _, w := range wanted {
		name := w.path[1:]
		if want := w.mode.String() + " " + w.data; got[name] != want {
			t.Errorf("%s: got %.40q, want %.40q", name, got[name], want)
		}
	}
	for name := range got {
		if strings.Contains(name, tempPrefix) {
			t.Errorf("%s was left over", name)
		}
	}
	if !strings.HasPrefix(got["etc/kubernetes/pki"], "drwx------") {
		t.Errorf("pki has mode %s", got["etc/kubernetes/pki"])
	}
}

// checkAllOrNothing asserts that recovery left all files or none.
func checkAllOrNothing(t *testing.T, root string) {
	t.Helper()
	there := 0
	for _, w := range wanted {
		if _, err := os.Lstat(filepath.Join(root, w.path)); err == nil {
			there++
		}
	}
	if there != 0 && there != len(wanted) {
		t.Errorf("%d of %d files are there after recovery", there, len(wanted))
	}
}

// operations counts the changing operations of an undisturbed run.
func operations(t *testing.T) int {
	t.Helper()
	d := &faultyDisk{decide: func(int, bool) fault { return works }}
	if err := provision(startingPoint(t), func(r *os.Root) fileOps { d.fileOps = quick(r); return d }); err != nil {
		t.Fatal(err)
	}
	if d.count < 60 {
		t.Fatalf("only %d operations seen", d.count)
	}
	return d.count
}

func TestKilledAtAnyOperationASecondRunCompletes(t *testing.T) {
	t.Parallel()
	forward := 0
	for n := range operations(t) {
		root := startingPoint(t)
		killAt(t, root, n, works)
		checkWhole(t, root)
		tx, err := begin(root, quick)
		if err != nil {
			t.Fatalf("operation %d: %v", n, err)
		}
		if tx.Recovered().Finished > 0 {
			forward++
		}
		checkWhole(t, root)
		checkAllOrNothing(t, root)
		if err := errors.Join(stageWanted(tx), tx.Commit()); err != nil {
			t.Fatalf("operation %d: %v", n, err)
		}
		checkComplete(t, root)
		if t.Failed() {
			t.Fatalf("killed at operation %d", n)
		}
	}
	if forward < len(wanted) {
		t.Errorf("only %d of the second runs finished the first", forward)
	}
}

// killAt runs a transaction that is killed at an operation. With first, an
// earlier operation fails before, so that the roll back is killed.
func killAt(t *testing.T, root string, n int, first fault, at ...int) {
	t.Helper()
	d := &faultyDisk{decide: func(i int, _ bool) fault {
		switch {
		case first != works && i == at[0]:
			return first
		case i >= n:
			return dead
		}
		return works
	}}
	tx, err := begin(root, func(r *os.Root) fileOps { d.fileOps = quick(r); return d })
	if err != nil {
		t.Fatal(err)
	}
	err = stageWanted(tx)
	if err == nil {
		err = tx.Commit()
	}
	if err == nil && d.killed && d.count < n {
		t.Fatalf("operation %d: a killed transaction reports success", n)
	}
	if !tx.done {
		tx.Rollback() // does nothing to a dead disk, but lets go of the lock
	}
}

func TestKilledDuringRollBackASecondRunCompletes(t *testing.T) {
	t.Parallel()
	total := operations(t)
	for failing := total / 2; failing < total; failing += 2 {
		for n := failing + 1 + failing%7; n < failing+60; n += 7 {
			root := startingPoint(t)
			killAt(t, root, n, full, failing)
			checkWhole(t, root)
			tx, err := begin(root, quick)
			if err != nil {
				t.Fatalf("failed at %d, killed at %d: %v", failing, n, err)
			}
			checkAllOrNothing(t, root)
			if err := errors.Join(stageWanted(tx), tx.Commit()); err != nil {
				t.Fatalf("failed at %d, killed at %d: %v", failing, n, err)
			}
			checkComplete(t, root)
			if t.Failed() {
				t.Fatalf("failed at operation %d, killed at %d", failing, n)
			}
		}
	}
}

func TestKilledDuringRecoveryAThirdRunCompletes(t *testing.T) {
	t.Parallel()
	total := operations(t)
	for first := 2; first < total; first += 5 {
		for n := first % 4; n < 40; n += 4 {
			root := startingPoint(t)
			killAt(t, root, first, works)
			d := &faultyDisk{decide: func(i int, _ bool) fault {
				if i >= n {
					return dead
				}
				return works
			}}
			if tx, err := begin(root, func(r *os.Root) fileOps { d.fileOps = quick(r); return d }); err == nil {
				tx.Rollback()
			}
			checkWhole(t, root)
			if err := provision(root, quick); err != nil {
				t.Fatalf("killed at %d, then at %d: %v", first, n, err)
			}
			checkComplete(t, root)
			if t.Failed() {
				t.Fatalf("killed at operation %d, then at %d", first, n)
			}
		}
	}
}

func TestAnErrorAtAnyOperationLeavesTheFolderAsItWas(t *testing.T) {
	t.Parallel()
	total := operations(t)
	for name, decide := range map[string]func(n, at int, grows bool) fault{
		"one operation fails": func(n, at int, _ bool) fault {
			if n == at {
				return full
			}
			return works
		},
		"the disk is full from then on": func(n, at int, grows bool) fault {
			if n >= at && grows {
				return full
			}
			return works
		},
	} {
		t.Run(name, func(t *testing.T) {
			failures := 0
			for at := range total {
				root := startingPoint(t)
				before := snapshot(t, root)
				d := &faultyDisk{}
				failed := []int{}
				d.decide = func(n int, grows bool) fault {
					f := decide(n, at, grows)
					if f != works {
						failed = append(failed, n)
					}
					return f
				}
				err := provision(root, func(r *os.Root) fileOps { d.fileOps = quick(r); return d })
				if err == nil {
					// Only the very last operation, after the journal is gone, may fail unsaid.
					if len(failed) != 1 || failed[0] != total-1 {
						t.Fatalf("operations %v failed, but no error was returned", failed)
					}
					checkComplete(t, root)
					continue
				}
				failures++
				if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), root) || strings.Contains(err.Error(), "\n") {
					t.Errorf("operation %d: error %q", at, err)
				}
				if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
					t.Fatalf("operation %d changed the folder: %s", at, diff)
				}
			}
			if failures < total-2 {
				t.Errorf("%d failures of %d operations", failures, total)
			}
		})
	}
}

// provisionForever is a child that makes one root after the other below a
// folder and says on stdout when it begins each step, until it is killed.
func provisionForever(dir string) error {
	for i := 0; ; i++ {
		root := filepath.Join(dir, strconv.Itoa(i))
		talk := func(int, bool) fault { fmt.Print("."); return works }
		if err := provision(root, func(r *os.Root) fileOps { return &faultyDisk{fileOps: newHeldOps(r), decide: talk} }); err != nil {
			return err
		}
	}
}

func TestAProcessKilledAtRandomLeavesWhatASecondRunCompletes(t *testing.T) {
	// Not beside other tests: a fork copies their locks until its exec.
	journals, finished := 0, 0
	for round := range 40 {
		dir := t.TempDir()
		cmd := child("provision", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		steps := int64(1 + rand.IntN(250))
		if _, err := io.CopyN(io.Discard, bufio.NewReaderSize(out, 16), steps); err != nil {
			t.Fatalf("round %d: the child ended by itself: %v", round, err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		roots, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(roots) == 0 {
			t.Fatalf("no root was made: %v", err)
		}
		for _, root := range roots {
			if _, err := os.Stat(filepath.Join(root, journalName)); err == nil {
				journals++
			}
			checkWhole(t, root)
			tx, err := Begin(root)
			if err != nil {
				t.Fatal(err)
			}
			if tx.Recovered().Finished > 0 {
				finished++
			}
			checkAllOrNothing(t, root)
			if err := errors.Join(stageWanted(tx), tx.Commit()); err != nil {
				t.Fatal(err)
			}
			checkComplete(t, root)
		}
	}
	t.Logf("%d runs were interrupted, %d of them after their journal was durable", journals, finished)
	if journals < 20 {
		t.Errorf("only %d of 40 kills hit a transaction", journals)
	}
}
