package layout

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"sync"
)

// Commit makes the staged files appear. On an error everything is undone, the
// error names the file, and the transaction is over.
func (t *Transaction) Commit() error {
	if err := t.usable(); err != nil {
		return err
	}
	if t.journal == nil {
		return t.Rollback()
	}
	linked := 0
	order := commitOrder(t.entries)
	err := t.makeDurable()
	if err == nil {
		linked, err = t.appear(order)
	}
	if err == nil && t.replaces() {
		return t.settle(order)
	}
	if err == nil {
		err = t.forget()
	}
	if err != nil {
		return errors.Join(err, t.undo(order[:linked]))
	}
	return t.end()
}

// makeDurable makes the temporaries durable, and then the journal.
func (t *Transaction) makeDurable() error {
	if err := t.syncStaged(); err != nil {
		return err
	}
	if err := t.journal.commit(); err != nil {
		return t.failed("writing", "/"+t.journal.name, err)
	}
	return nil
}

// appear gives the files their names and returns how many have theirs.
func (t *Transaction) appear(order []record) (int, error) {
	for i, r := range order {
		if i > 0 && phase(r) != phase(order[i-1]) {
			// After a loss of power too, no key may stand alone, and nothing
			// that is replaced may name a file that is not there.
			if err := t.syncAll(t.changedFolders()); err != nil {
				return i, err
			}
		}
		if appeared, err := place(t.ops, r); err != nil {
			if appeared {
				i++
			}
			return i, t.failed("writing", "/"+r.File, err)
		}
	}
	return len(order), t.syncAll(t.changedFolders())
}

// forget removes the journal: from here on the files stand.
func (t *Transaction) forget() error {
	if err := t.ops.Remove(t.journal.name); err != nil {
		return t.failed("removing", "/"+t.journal.name, err)
	}
	// Should the journal come back after a loss of power, the next
	// transaction sees that nothing is left to do, so an error is none.
	_ = t.ops.Sync(path.Dir(t.journal.name))
	return nil
}

// changedFolders lists those of files, and those above made folders.
func (t *Transaction) changedFolders() []string {
	var folders []string
	for _, r := range t.entries {
		folders = append(folders, path.Dir(r.File))
	}
	for _, f := range t.made {
		folders = append(folders, path.Dir(f))
	}
	slices.Sort(folders)
	return slices.Compact(folders)
}

// syncAll syncs all at once, for file systems write them together then.
func (t *Transaction) syncAll(names []string) error {
	errs := make([]error, len(names))
	var wait sync.WaitGroup
	for i, name := range names {
		wait.Go(func() {
			if err := t.ops.Sync(name); err != nil {
				errs[i] = t.failed("writing", "/"+name, err)
			}
		})
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return err // one is enough to say
		}
	}
	return nil
}

// commitOrder puts new files without private keys first, then those with, then
// what is replaced, and last what is removed, for nothing names it any more; each
// group in the order of its calls.
func commitOrder(entries []record) []record {
	order := slices.Clone(entries)
	slices.SortStableFunc(order, func(a, b record) int { return phase(a) - phase(b) })
	return order
}

func phase(r record) int {
	switch {
	case r.Gone:
		return 3
	case r.Backup != "", r.Link:
		return 2
	case r.Private:
		return 1
	}
	return 0
}

// Rollback removes everything that the transaction made. After Commit, and when
// called again, it does nothing.
func (t *Transaction) Rollback() error {
	if t.done {
		return nil
	}
	return t.undo(nil)
}

// undo takes back the files that appeared, keys first, then temporaries,
// folders and the journal.
func (t *Transaction) undo(appeared []record) error {
	var errs []error
	keep := func(err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("rolling back below %s: %w", t.root, err))
		}
	}
	_ = t.flushes.wait() // what is removed here is not written any more
	if t.journal != nil {
		// Should the mark fail, what follows does without it unless killed.
		_ = t.journal.undone()
		for _, r := range slices.Backward(appeared) {
			if r.Backup != "" {
				keep(restore(t.ops, r))
			} else {
				keep(removeIfThere(t.ops, r.File))
			}
		}
		for _, r := range t.entries {
			if r.Temp != "" {
				keep(removeIfThere(t.ops, r.Temp))
			}
			if r.Backup != "" && len(errs) == 0 {
				keep(removeIfThere(t.ops, r.Backup))
			}
		}
		for _, folder := range slices.Backward(t.made) {
			keep(removeIfThere(t.ops, folder))
		}
		if len(errs) == 0 { // else the next transaction goes on from it
			keep(removeIfThere(t.ops, t.journal.name))
		}
	}
	return errors.Join(errors.Join(errs...), t.end())
}

// end lets go of the lock, and of a root that was made for nothing.
func (t *Transaction) end() error {
	t.done = true
	t.ops.Release()
	for _, made := range slices.Backward(t.madeRoot) {
		if os.Remove(made) != nil {
			break // it is used: the transaction was committed
		}
	}
	return errors.Join(t.lock.Close(), t.dir.Close())
}
