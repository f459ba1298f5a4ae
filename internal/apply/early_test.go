package apply_test

import (
	"context"
	"crypto"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// filesBelow are the files, and the mode of the folders, below a folder.
func filesBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			all[strings.TrimPrefix(p, dir)] = "folder"
			return err
		}
		data, err := os.ReadFile(p)
		all[strings.TrimPrefix(p, dir)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestWhatIsMadeIsStagedWhileTheLastKeyIsSearched: it has no name before it is written,
// and goes when the search fails, when nobody writes it, and when the process is killed.
func TestWhatIsMadeIsStagedWhileTheLastKeyIsSearched(t *testing.T) {
	noKey := errors.New("no key")
	for _, row := range []struct {
		name   string
		fails  error
		writes bool
	}{
		{"the key is found, and all is written", nil, true},
		{"the key is found, and nothing is written", nil, false},
		{"no key is found", noKey, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				made := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
				dir, err := exampleNode(made)
				defer os.RemoveAll(dir)
				if err != nil {
					t.Fatal(err)
				}
				n, err := apply.ReadNode("", dir)
				if err != nil {
					t.Fatal(err)
				}
				at := made.AddDate(0, 11, 0)
				before := check.Run(n.Graph, check.Options{At: at})
				items, err := renew.Plan(n.Graph, before.Findings, []string{"apiserver", "scheduler.conf", "etcd-peer"}, renew.Options{At: at, Keys: func(p trust.Place) crypto.Signer { return n.Keys[p] }})
				if err != nil {
					t.Fatal(err)
				}
				was := filesBelow(t, dir)
				killed := t.TempDir()
				search := make(chan error)
				items[len(items)-1].NewKey = func(a issue.Algorithm) (crypto.Signer, error) {
					if err := <-search; err != nil {
						return nil, err
					}
					return issue.GenerateKey(a)
				}
				go func() {
					synctest.Wait() // all else is done
					staged := 0
					for name, text := range filesBelow(t, dir) {
						if strings.HasSuffix(name, ".tmp") {
							staged++
						} else if text != was[name] && text != "folder" && !strings.HasSuffix(name, ".kubepki-journal") {
							t.Errorf("%s has changed while a key was searched", name)
						}
					}
					if staged < 6 { // three files of two items, what they replace, and copies of that
						t.Errorf("%d temporaries while the last key is searched", staged)
					}
					if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
						t.Error(err)
					}
					search <- row.fails
				}()
				r, err := apply.MakeStaged(context.Background(), n, items, before, at)
				if !errors.Is(err, row.fails) {
					t.Fatalf("made: %v", err)
				}
				if _, _, err := apply.Mend(killed); err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff(was, filesBelow(t, killed)); diff != "" {
					t.Errorf("the run after one that was killed leaves: %s", diff)
				}
				if row.writes {
					if err := r.Write(n); err != nil {
						t.Fatal(err)
					}
				}
				if r != nil {
					if err := r.Drop(); err != nil {
						t.Error(err)
					}
				}
				is := filesBelow(t, dir)
				if !row.writes {
					if diff := cmp.Diff(was, is); diff != "" {
						t.Errorf("this is left: %s", diff)
					}
					return
				}
				for _, f := range r.Files {
					if is[f.Place.Path] != string(f.Data) || is[r.Backup+f.Place.Path] != was[f.Place.Path] {
						t.Errorf("%s is not renewed, or not kept", f.Place.Path)
					}
				}
				if kept, err := apply.Backups(n); err != nil || len(kept) != 1 || kept[0].Manifest == nil || len(kept[0].Manifest.Files) != len(r.Files) || len(kept[0].Manifest.Items) != len(items) {
					t.Errorf("kept is %+v: %v", kept, err)
				}
			})
		})
	}
}
