package layout

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFolderSwappedDuringATransaction: somebody puts something in the place of a folder
// in which files are staged, and nothing is written there, nor below what was moved.
func TestFolderSwappedDuringATransaction(t *testing.T) {
	for _, row := range []struct {
		name  string
		swap  func(t *testing.T, pki, outside string)
		fails bool
	}{
		{"nobody does", func(*testing.T, string, string) {}, false},
		{"another folder with the same files", func(t *testing.T, pki, _ string) {
			must(t, os.Rename(pki, pki+".old"))
			must(t, os.CopyFS(pki, os.DirFS(pki+".old")))
		}, true},
		{"a link to a folder outside of the root", func(t *testing.T, pki, outside string) {
			must(t, os.Rename(pki, pki+".old"))
			must(t, os.Symlink(outside, pki))
		}, true},
		{"nothing", func(t *testing.T, pki, _ string) { must(t, os.Rename(pki, pki+".old")) }, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			root, outside := t.TempDir(), t.TempDir()
			write(t, root, "etc/kubernetes/pki/a.crt", "old", 0o644)
			write(t, outside, "a.crt", "old", 0o644)
			tx, err := Begin(root)
			must(t, err)
			must(t, tx.Replace("/etc/kubernetes/pki/a.crt", []byte("old"), []byte("new")))
			pki := filepath.Join(root, "etc/kubernetes/pki")
			row.swap(t, pki, outside)
			if err := tx.Commit(); row.fails != (err != nil) {
				t.Fatalf("committed: %v", err)
			}
			must(t, tx.Rollback())
			want := "new"
			if row.fails {
				want = "old"
			}
			for _, dir := range []string{pki, pki + ".old", outside} {
				data, err := os.ReadFile(filepath.Join(dir, "a.crt"))
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if must(t, err); string(data) != want && dir != outside || dir == outside && string(data) != "old" {
					t.Errorf("%s holds %q, want %q", dir, data, want)
				}
			}
			must(t, fs.WalkDir(os.DirFS(outside), ".", func(name string, _ fs.DirEntry, err error) error {
				if strings.HasPrefix(filepath.Base(name), tempPrefix) {
					t.Errorf("%s was written outside of the root", name)
				}
				return err
			}))
		})
	}
}

// TestNoMoreFoldersAreHeldOpenThanTheBound, and those beyond it work as well.
func TestNoMoreFoldersAreHeldOpenThanTheBound(t *testing.T) {
	dir, err := os.OpenRoot(t.TempDir())
	must(t, err)
	defer dir.Close()
	ops := newHeldOps(dir)
	for i := range 2 * maxHeld {
		folder := string(rune('a'+i%26)) + strings.Repeat("x", i/26)
		must(t, ops.Mkdir(folder, 0o755))
		must(t, ops.Create(folder+"/file", []byte(folder)))
		must(t, ops.Rename(folder+"/file", folder+"/other"))
		if data, err := ops.ReadFile(folder + "/other"); err != nil || string(data) != folder {
			t.Errorf("%s/other holds %q: %v", folder, data, err)
		}
		must(t, ops.Sync(folder))
	}
	if len(ops.held) != maxHeld {
		t.Errorf("%d folders are held, want %d", len(ops.held), maxHeld)
	}
	must(t, ops.Remove("a/other"))
	must(t, ops.Remove("a"))
	must(t, ops.Mkdir("a", 0o755)) // a new folder of the old name is another one
	must(t, ops.Create("a/file", nil))
	must(t, ops.Sync("a"))
	if ops.Release(); len(ops.held) != 0 {
		t.Errorf("%d folders are held after all were released", len(ops.held))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
