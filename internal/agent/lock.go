package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/kubepki/kubepki/internal/catalog"
)

// locks keep two agents from making anew below one root. A lock is on a folder itself
// (flock), needs no right to write, and ends with the process; transactions lock the
// root and restarts /etc, so that kubepki renew goes on working beside an agent.
type locks struct{ held map[string]*os.File }

// LockedError tells that another agent makes anew below a root.
type LockedError struct{ Root string }

// Error names the root.
func (e *LockedError) Error() string {
	return e.Root + ": another agent renews below it; this one only watches"
}

// hold takes the lock of a root, unless it is held already and the folder is still the
// same.
func (l *locks) hold(root string) error {
	dir, now, err := lockable(root)
	if err != nil {
		return err
	}
	if f := l.held[root]; f != nil {
		if then, err := f.Stat(); err == nil && os.SameFile(then, now) {
			return nil
		}
		_ = f.Close()
		delete(l.held, root)
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = &LockedError{Root: root}
	case err != nil:
		err = fmt.Errorf("locking %s: %w", dir, err)
	default:
		if l.held == nil {
			l.held = map[string]*os.File{}
		}
		l.held[root] = f
		return nil
	}
	_ = f.Close()
	return err
}

// lockable is the folder that stands for a root: /etc/kubernetes, or of another layout
// /var/lib. The root itself is for transactions, the agent's own ones too, and /etc for
// restarts.
func lockable(root string) (dir string, info os.FileInfo, err error) {
	for _, d := range []string{catalog.KubernetesDir, "/var/lib"} {
		dir = filepath.Join(root, d)
		if info, err = os.Stat(dir); err == nil {
			return dir, info, nil
		}
	}
	return "", nil, err
}

func (l *locks) release() {
	for root, f := range l.held {
		_ = f.Close()
		delete(l.held, root)
	}
}
