package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
)

// BusyError tells that another transaction is under way on the same root.
type BusyError struct {
	Root string // as given
}

// Error names the root.
func (e *BusyError) Error() string {
	return e.Root + ": another kubepki is writing below it"
}

// Begin starts a transaction below root, the folder that is the node's "/". The
// root is made, with mode 0755, when it does not exist. It is locked against
// other transactions (flock on the folder itself, which leaves no file behind
// and needs no right to write); when one is under way the error is a
// [*BusyError]. What an earlier, interrupted transaction left is finished or
// removed first, so look at the folder after Begin, not before.
func Begin(root string) (*Transaction, error) {
	return begin(root, func(dir *os.Root) fileOps { return newHeldOps(dir) })
}

func begin(root string, on func(*os.Root) fileOps) (*Transaction, error) {
	made, err := makeRoot(root)
	if err != nil {
		return nil, err
	}
	t := &Transaction{root: root, madeRoot: made, folders: map[string]string{}, scanned: map[string]bool{}, linked: map[string]bool{}}
	if t.dir, t.lock, err = openLocked(root); err != nil {
		for _, m := range slices.Backward(made) {
			os.Remove(m)
		}
		return nil, err
	}
	t.ops = on(t.dir)
	if err := t.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("looking below %s for what an interrupted run left: %w", root, err), t.end())
	}
	return t, nil
}

// makeRoot makes the root and what is missing above it, and returns these folders.
func makeRoot(root string) ([]string, error) {
	var missing []string
	for at := filepath.Clean(root); ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err == nil && !info.IsDir() {
			return nil, fmt.Errorf("%s: is not a folder", at)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || filepath.Dir(at) == at {
			return nil, fmt.Errorf("%s: %w", at, Cause(err))
		}
		missing = append(missing, at)
	}
	var made []string
	for _, m := range slices.Backward(missing) {
		err := os.Mkdir(m, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue // somebody else was faster
		}
		if err == nil {
			made = append(made, m)
			err = os.Chmod(m, 0o755) // whatever the umask
		}
		if err != nil {
			for _, m := range slices.Backward(made) {
				os.Remove(m)
			}
			return nil, fmt.Errorf("making %s: %w", m, Cause(err))
		}
	}
	return made, nil
}

func openLocked(root string) (*os.Root, *os.File, error) {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", root, Cause(err))
	}
	lock, err := lockFolder(dir, root)
	if err != nil {
		dir.Close()
		return nil, nil, err
	}
	return dir, lock, nil
}

func lockFolder(dir *os.Root, root string) (*os.File, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", root, Cause(err))
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = &BusyError{Root: root}
	} else if err != nil {
		err = fmt.Errorf("locking %s: %w", root, err)
	} else if !stillThere(f, root) {
		err = &BusyError{Root: root} // removed by its maker's roll back just now
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func stillThere(f *os.File, root string) bool {
	locked, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(root)
	return err == nil && os.SameFile(locked, now)
}

// recover finishes or removes what an interrupted transaction left.
func (t *Transaction) recover() error {
	for _, folder := range journalFolders {
		if at, err := resolve(t.ops, "/"+folder); err == nil && at.links > 0 {
			continue // createJournal makes none there
		}
		name := path.Join(folder, journalName)
		text, err := t.ops.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", t.host("/"+name), Cause(err))
		}
		if len(text) > maxJournal {
			return fmt.Errorf("%s: larger than %d bytes: not a journal", t.host("/"+name), maxJournal)
		}
		if err := t.recoverFrom(text); err != nil {
			return err
		}
		if err := removeIfThere(t.ops, name); err != nil {
			return err
		}
		if err := t.ops.Sync(folder); err != nil {
			return fmt.Errorf("%s: %w", t.host("/"+folder), Cause(err))
		}
	}
	return nil
}

func (t *Transaction) recoverFrom(text []byte) error {
	records, state := parseJournal(text)
	var files, folders []record
	for _, r := range records {
		if r.File != "" {
			files = append(files, r)
		} else {
			folders = append(folders, r)
		}
	}
	files = commitOrder(files)
	if state == stateCommit {
		ok, err := t.canFinish(files)
		if err != nil {
			return err
		}
		if ok {
			return t.rollForward(files)
		}
	}
	return t.rollBack(files, folders, state)
}

// canFinish tells whether each file of a committed journal is either in its
// place or has its whole temporary and a free place. Where nothing but files in
// place is left, there is nothing to take back either.
func (t *Transaction) canFinish(files []record) (bool, error) {
	waiting, spoilt := 0, 0
	for _, r := range files {
		final, err := t.lstat(r.File)
		if err != nil {
			return false, err
		}
		if r.Gone {
			switch {
			case final == nil:
			case t.holds(r, r.File, r.Replaces):
				waiting++
			default: // what somebody put there meanwhile stays
				spoilt++
			}
			continue
		}
		temp, err := t.lstat(r.Temp)
		if err != nil {
			return false, err
		}
		switch {
		case temp != nil && r.Backup != "":
			waiting++
			if !t.holds(r, r.Temp, r.SHA256) || !t.holds(r, r.File, r.Replaces) {
				spoilt++
			}
		case temp != nil:
			waiting++
			if !t.holds(r, r.Temp, r.SHA256) || final != nil && !os.SameFile(temp, final) {
				spoilt++
			}
		case final == nil:
			spoilt++
		}
	}
	return waiting == 0 || spoilt == 0, nil
}

func (t *Transaction) lstat(name string) (fs.FileInfo, error) {
	info, err := t.ops.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.host("/"+name), Cause(err))
	}
	return info, nil
}

// holds tells whether what stands at a name has the content of a hash.
func (t *Transaction) holds(r record, name, hash string) bool {
	data, err := heldAt(t.ops, r, name)
	return err == nil && hashOf(data) == hash
}

// heldAt is the content of a file of a record, or where its link leads.
func heldAt(ops fileOps, r record, name string) ([]byte, error) {
	if r.Link {
		to, err := ops.Readlink(name)
		return []byte(to), err
	}
	return ops.ReadFile(name)
}

func (t *Transaction) rollForward(files []record) error {
	var folders []string
	for _, r := range files {
		waits, err := t.waits(r)
		if err != nil {
			return err
		}
		if !waits {
			continue
		}
		if _, err := place(t.ops, r); err != nil {
			return t.failed("writing", "/"+r.File, err)
		}
		t.recovery.Finished++
		folders = append(folders, path.Dir(r.File))
	}
	slices.Sort(folders)
	if err := t.syncAll(slices.Compact(folders)); err != nil {
		return err
	}
	return t.removeBackups(files)
}

// waits tells whether a record of a committed journal is not done yet.
func (t *Transaction) waits(r record) (bool, error) {
	if r.Gone {
		return t.holds(r, r.File, r.Replaces), nil
	}
	temp, err := t.lstat(r.Temp)
	return temp != nil, err
}

// rollBack removes what a journal without a valid commit names: temporaries
// and folders that are empty then. Files in their places are removed only
// where the journal was committed, and only when they are what it wrote.
func (t *Transaction) rollBack(files, folders []record, state string) error {
	for _, r := range slices.Backward(files) {
		if state != "" && t.isOurs(r) {
			if err := t.takeBack(r); err != nil {
				return err
			}
		}
	}
	for _, r := range files {
		if r.Gone {
			continue
		}
		if err := t.removeOne(r.Temp); err != nil {
			return err
		}
	}
	if err := t.removeBackups(files); err != nil {
		return err
	}
	for _, r := range slices.Backward(folders) {
		if info, err := t.lstat(r.Folder); err != nil || info == nil || !info.IsDir() {
			continue
		}
		if err := t.ops.Remove(r.Folder); err != nil && !isNotEmpty(err) {
			return fmt.Errorf("removing %s: %w", t.host("/"+r.Folder), Cause(err))
		}
	}
	return nil
}

// isOurs tells whether what a record says was done, and nothing else since.
func (t *Transaction) isOurs(r record) bool {
	info, err := t.lstat(r.File)
	switch {
	case err != nil:
		return false
	case r.Gone:
		return info == nil
	case info == nil:
		return false
	case r.Link:
		return info.Mode()&fs.ModeSymlink != 0 && t.holds(r, r.File, r.SHA256)
	}
	return info.Mode().IsRegular() && t.holds(r, r.File, r.SHA256)
}

func (t *Transaction) removeOne(name string) error {
	info, err := t.lstat(name)
	if err != nil || info == nil {
		return err
	}
	t.recovery.Removed++
	return removeIfThere(t.ops, name)
}

func isNotEmpty(err error) bool {
	return errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST)
}

// place gives a temporary its mode and its name. It never replaces a file:
// link(2) fails where one stands. A link that is there already, from before a
// crash, is the file itself. It tells whether the name was given.
func place(ops fileOps, r record) (appeared bool, err error) {
	if r.Gone {
		return moveAway(ops, r)
	}
	if r.Backup != "" {
		return placeOver(ops, r)
	}
	if err := giveMode(ops, r, r.Temp); err != nil {
		return false, err
	}
	err = Cause(ops.Link(r.Temp, r.File))
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrExist):
		if !sameFile(ops, r.Temp, r.File) {
			return false, err
		}
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EMLINK):
		// A file system without hard links.
		if _, err := ops.Lstat(r.File); !errors.Is(err, fs.ErrNotExist) {
			return false, fs.ErrExist
		}
		err := Cause(ops.Rename(r.Temp, r.File))
		return err == nil, err
	default:
		return false, err
	}
	if err := ops.Remove(r.Temp); err != nil {
		return true, Cause(err)
	}
	return true, nil
}

func sameFile(ops fileOps, a, b string) bool {
	first, err := ops.Lstat(a)
	if err != nil {
		return false
	}
	second, err := ops.Lstat(b)
	return err == nil && os.SameFile(first, second)
}
