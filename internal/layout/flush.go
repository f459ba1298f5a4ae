package layout

import "sync"

// flushes are files that are made durable while the transaction goes on.
type flushes struct {
	begun   int // so many of the transaction's entries
	running sync.WaitGroup
	mu      sync.Mutex
	failed  error // the first: the kernel tells of one but once
}

// wait waits for all that were begun.
func (f *flushes) wait() error {
	f.running.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// Flush begins to make durable what is staged, and does not wait for it: Commit does,
// and has less to wait for. What fails is an error of [Transaction.Durable] and of
// Commit. It is for who has something else to do before Commit.
func (t *Transaction) Flush() {
	if t.usable() != nil {
		return
	}
	names := t.temporaries(t.entries[t.flushes.begun:])
	t.flushes.begun = len(t.entries)
	t.flushes.running.Go(func() {
		if err := t.syncAll(names); err != nil {
			t.flushes.mu.Lock()
			defer t.flushes.mu.Unlock()
			if t.flushes.failed == nil {
				t.flushes.failed = err
			}
		}
	})
}

// Durable makes what is staged durable, under its temporary names: of that nothing is
// left for Commit. Nothing appears. Killed after it, the next [Begin] removes it.
func (t *Transaction) Durable() error {
	if err := t.usable(); err != nil {
		return err
	}
	return t.note(t.syncStaged())
}

// syncStaged syncs the temporaries with the folders that name them.
func (t *Transaction) syncStaged() error {
	if err := t.flushes.wait(); err != nil {
		return err
	}
	if t.durable == len(t.entries)+len(t.made) {
		return nil
	}
	if err := t.syncAll(append(t.changedFolders(), t.temporaries(t.entries[t.flushes.begun:])...)); err != nil {
		return err
	}
	t.flushes.begun, t.durable = len(t.entries), len(t.entries)+len(t.made)
	return nil
}

// temporaries are the files to sync. A link has no content, and what has a second name
// was there already: their folders are made durable.
func (t *Transaction) temporaries(of []record) []string {
	var names []string
	for _, r := range of {
		if r.Link || r.Gone {
			continue
		}
		names = append(names, r.Temp)
		if r.Backup != "" && !t.linked[r.Backup] {
			names = append(names, r.Backup)
		}
	}
	return names
}
