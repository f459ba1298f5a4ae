package apply

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// backupsIn makes a node's root with backups, each with what its manifest says.
func backupsIn(t *testing.T, mode os.FileMode, manifests map[string]string) string {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, BackupsDir)
	for name, manifest := range manifests {
		if err := os.MkdirAll(filepath.Join(dir, name, "etc"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, manifestFile), []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestOnlyTheOldestOfTheAgentsOwnBackupsAreRemoved(t *testing.T) {
	const (
		own      = `{"apiVersion":"kubepki.dev/v1alpha1","kind":"RenewalBackup","by":"agent"}`
		persons  = `{"apiVersion":"kubepki.dev/v1alpha1","kind":"RenewalBackup"}`
		oldest   = "20260101T000000.000Z"
		middle   = "20260201T000000.000Z"
		newest   = "20260301T000000.000Z"
		newestOf = "20260401T000000.000Z"
	)
	all := []string{oldest, middle, newest, newestOf}
	for name, c := range map[string]struct {
		manifests map[string]string
		mode      os.FileMode
		left      []string
		removed   int
		refused   bool
	}{
		"the oldest two of four go":                {map[string]string{oldest: own, middle: own, newest: own, newestOf: own}, 0o700, []string{newest, newestOf}, 2, false},
		"a person's stay, and count for nothing":   {map[string]string{oldest: persons, middle: own, newest: own, newestOf: persons}, 0o700, all, 0, false},
		"one between a person's goes":              {map[string]string{oldest: own, middle: persons, newest: own, newestOf: own}, 0o700, []string{middle, newest, newestOf}, 1, false},
		"a torn manifest keeps its backup":         {map[string]string{oldest: own[:20], middle: own, newest: own, newestOf: own}, 0o700, []string{oldest, newest, newestOf}, 1, false},
		"what an interrupted call took away goes":  {map[string]string{prunedPrefix + oldest: own, middle: own, newest: own}, 0o700, []string{middle, newest}, 0, false},
		"a folder of a person with that word":      {map[string]string{prunedPrefix + "by-me": own, newest: own}, 0o700, []string{newest, prunedPrefix + "by-me"}, 0, false},
		"a folder into which others may write":     {map[string]string{oldest: own, middle: own, newest: own}, 0o777, []string{oldest, middle, newest}, 0, true},
		"none at all where as many as are kept":    {map[string]string{oldest: own, middle: own}, 0o700, []string{oldest, middle}, 0, false},
		"a kind that is not known keeps its place": {map[string]string{oldest: `{"kind":"Other","by":"agent"}`, middle: own, newest: own}, 0o700, []string{oldest, middle, newest}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			root := backupsIn(t, c.mode, c.manifests)
			removed, err := Prune(root, 2)
			if (err != nil) != c.refused || removed != c.removed {
				t.Errorf("removed %d: %v", removed, err)
			}
			entries, err := os.ReadDir(filepath.Join(root, BackupsDir))
			if err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, e := range entries {
				left = append(left, e.Name())
			}
			if !slices.Equal(left, c.left) {
				t.Errorf("left %v, want %v", left, c.left)
			}
		})
	}
	if removed, err := Prune(t.TempDir(), 2); removed != 0 || err != nil {
		t.Errorf("a node without backups: %d, %v", removed, err)
	}
}
