package apply

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/kubepki/kubepki/internal/layout"
)

// ByAgent is who renewed, where kubepki agent did.
const ByAgent = "agent"

// prunedPrefix is before the name of a backup that is being removed. It is none of a
// backup then: half of one is never brought back.
const prunedPrefix = "pruned-"

// Prune removes, below a node's root, the oldest backups of renewals that kubepki agent
// made by itself, so that the newest keep of them are left. It never touches a person's,
// nor one whose manifest does not say whose it is, nor anything in a folder of backups
// into which others may write. Each is taken away at once, by a rename, and then removed;
// killed between, the next call removes the rest. It returns how many it took away.
func Prune(dir string, keep int) (removed int, err error) {
	names, err := backupNames(dir)
	if err != nil {
		return 0, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", dir, layout.Cause(err))
	}
	defer root.Close()
	backups, err := root.OpenRoot(strings.TrimPrefix(BackupsDir, "/"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Join(dir, BackupsDir), layout.Cause(err))
	}
	defer backups.Close()
	var own []string
	for _, name := range names {
		if m, err := readManifest(dir, name); err == nil && m.By == ByAgent {
			own = append(own, name)
		}
	}
	for _, name := range own[:max(0, len(own)-keep)] {
		if err := backups.Rename(name, prunedPrefix+name); err != nil {
			return removed, fmt.Errorf("%s: %w", filepath.Join(dir, BackupsDir, name), layout.Cause(err))
		}
		removed++
	}
	return removed, removePruned(backups, filepath.Join(dir, BackupsDir))
}

// removePruned removes what Prune took away, now or before it was killed.
func removePruned(backups *os.Root, at string) error {
	f, err := backups.Open(".")
	if err != nil {
		return fmt.Errorf("%s: %w", at, layout.Cause(err))
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return fmt.Errorf("%s: %w", at, layout.Cause(err))
	}
	for _, e := range entries {
		name, pruned := strings.CutPrefix(e.Name(), prunedPrefix)
		if !pruned || !e.IsDir() || !IsBackupName(name) {
			continue
		}
		if err := backups.RemoveAll(e.Name()); err != nil {
			return fmt.Errorf("%s: %w", path.Join(at, e.Name()), layout.Cause(err))
		}
	}
	return nil
}
