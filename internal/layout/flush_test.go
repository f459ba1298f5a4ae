package layout

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stageFlushed stages all changes of the replacing, and has them made durable
// meanwhile.
func stageFlushed(tx *Transaction) error {
	tx.Flush() // nothing is there yet
	err := stageReplacing(tx)
	tx.Flush()
	return errors.Join(err, tx.Durable())
}

// TestKilledBeforeCommitNothingOfWhatWasMadeDurableIsLeft: wherever it is killed, the
// next run finds temporaries alone and removes them.
func TestKilledBeforeCommitNothingOfWhatWasMadeDurableIsLeft(t *testing.T) {
	t.Parallel()
	staged := 0
	for n := 0; ; n++ {
		root := replacing(t)
		before := snapshot(t, root)
		d := &faultyDisk{decide: func(i int, _ bool) fault {
			if i >= n {
				return dead
			}
			return works
		}}
		tx, err := begin(root, func(r *os.Root) fileOps { d.fileOps = quick(r); return d })
		must(t, err)
		whole := stageFlushed(tx) == nil
		d.killed = true
		_ = tx.Rollback() // does nothing to a dead disk, but lets go of the lock
		if done := wholeOrNot(t, root); done != 0 {
			t.Fatalf("killed at operation %d: %d changes have appeared", n, done)
		}
		tx, err = begin(root, quick)
		must(t, err)
		staged = max(staged, tx.Recovered().Removed)
		must(t, tx.Rollback())
		if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
			t.Fatalf("killed at operation %d, this is left: %s", n, diff)
		}
		if whole {
			break
		}
	}
	if staged < changes {
		t.Errorf("at most %d temporaries were seen, want %d", staged, changes)
	}
}

// unwritable is a disk that cannot make one file durable, and says so once, as the
// kernel does.
type unwritable struct {
	fileOps
	part string // of the name
	said *bool
}

func (d unwritable) Sync(name string) error {
	if strings.Contains(name, d.part) && !*d.said {
		*d.said = true
		return syscall.EIO
	}
	return d.fileOps.Sync(name)
}

// TestAFileThatCannotBeMadeDurableEarlyIsNotCommitted: that was said to nobody but the
// goroutine that flushed.
func TestAFileThatCannotBeMadeDurableEarlyIsNotCommitted(t *testing.T) {
	for _, row := range []struct {
		name, part string
		fails      bool
		durable    bool // asked before Commit
	}{
		{"all can, and it was asked", "no such file", false, true},
		{"all can", "no such file", false, false},
		{"one cannot, and it was asked", "client-ca.crt", true, true},
		{"one cannot", "client-ca.crt", true, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			root := replacing(t)
			before := snapshot(t, root)
			tx, err := begin(root, func(r *os.Root) fileOps { return unwritable{newHeldOps(r), row.part, new(bool)} })
			must(t, err)
			must(t, stageReplacing(tx))
			tx.Flush()
			tx.Rest()
			if row.durable {
				if err := tx.Durable(); row.fails != errors.Is(err, syscall.EIO) {
					t.Errorf("durable: %v", err)
				}
			}
			err = tx.Commit()
			if row.fails != (err != nil) || row.fails && !row.durable && !strings.Contains(err.Error(), row.part) {
				t.Errorf("committed: %v", err)
			}
			must(t, tx.Rollback())
			switch done := wholeOrNot(t, root); {
			case row.fails:
				if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
					t.Errorf("this is left: %s", diff)
				}
			case done != changes:
				t.Errorf("%d changes of %d have appeared", done, changes)
			}
		})
	}
}

// TestWhatIsStagedAfterDurableIsMadeDurableByCommit, and what was before is not again.
func TestWhatIsStagedAfterDurableIsMadeDurableByCommit(t *testing.T) {
	root := replacing(t)
	synced := map[string]int{}
	tx, err := begin(root, func(r *os.Root) fileOps { return counted{newHeldOps(r), synced} })
	must(t, err)
	must(t, tx.Write("/pki/early.crt", []byte("early"), 0o644))
	must(t, tx.Durable())
	must(t, tx.Write("/pki/late.crt", []byte("late"), 0o644))
	early, late := tx.entries[0].Temp, tx.entries[1].Temp
	must(t, tx.Commit())
	if synced[early] != 1 || synced[late] != 1 {
		t.Errorf("early was synced %d times, late %d times, want each once", synced[early], synced[late])
	}
}

// counted counts how often each name was synced, of which no two are at once here.
type counted struct {
	fileOps
	synced map[string]int
}

func (d counted) Sync(name string) error {
	if strings.HasSuffix(name, tempSuffix) {
		d.synced[name]++
	}
	return d.fileOps.Sync(name)
}

// TestReplacingWithoutHardLinksIsAllOrNothingToo: the old content is a copy then, which
// is made durable, for it is what is brought back.
func TestReplacingWithoutHardLinksIsAllOrNothingToo(t *testing.T) {
	t.Parallel()
	on := func(d *faultyDisk) func(*os.Root) fileOps {
		return func(r *os.Root) fileOps { d.fileOps = noLinks{quick(r)}; return refusing{d} }
	}
	for n := 0; ; n++ {
		root := replacing(t)
		before := snapshot(t, root)
		reached := false
		d := &faultyDisk{decide: func(i int, _ bool) fault {
			if i == n {
				reached = true
				return full
			}
			return works
		}}
		err := replaceAll(root, on(d))
		done := wholeOrNot(t, root)
		if err == nil && done != changes {
			t.Fatalf("operation %d: %d changes of %d", n, done, changes)
		}
		if err != nil {
			if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
				t.Fatalf("operation %d failed, and this is left: %s", n, diff)
			}
		}
		if !reached {
			break
		}
	}
	root := replacing(t)
	tx, err := begin(root, func(r *os.Root) fileOps { return noLinks{newHeldOps(r)} })
	must(t, err)
	must(t, tx.Replace("/manifests/kube-apiserver.yaml", []byte(oldManifest), []byte(newManifest)))
	kept := tx.entries[0].Backup
	if data, err := tx.dir.ReadFile(kept); err != nil || string(data) != oldManifest {
		t.Errorf("the copy holds %q: %v", data, err)
	}
	if names := tx.temporaries(tx.entries); len(names) != 2 || names[1] != kept {
		t.Errorf("made durable are %q, want the copy %s too", names, kept)
	}
	must(t, tx.Rollback())
}

// refusing is a disk under faults that refuses hard links without one.
type refusing struct{ *faultyDisk }

func (refusing) Link(string, string) error { return syscall.EPERM }
