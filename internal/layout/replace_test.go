package layout

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What the crash tests of this file do: a new file, and two that are replaced, of
// which one is reached by a link and the other names what is new.
const (
	oldBundle, newBundle     = "# ours\nold anchor\n", "# ours\nold anchor\nnew anchor\n"
	oldManifest, newManifest = "--client-ca-file=/pki/ca.crt\n", "--client-ca-file=/pki/client-ca.crt\n"
)

func replacing(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write(t, root, "shared/bundle.pem", oldBundle, 0o640)
	write(t, root, "manifests/kube-apiserver.yaml", oldManifest, 0o600)
	write(t, root, "pki/ca.crt", "anchor\n", 0o644)
	if err := os.Symlink("../shared/bundle.pem", filepath.Join(root, "pki/bundle.crt")); err != nil {
		t.Fatal(err)
	}
	return root
}

// stageReplacing stages what is not done yet, as a second run does.
func stageReplacing(tx *Transaction) error {
	for _, f := range [][3]string{{"/pki/bundle.crt", oldBundle, newBundle}, {"/manifests/kube-apiserver.yaml", oldManifest, newManifest}} {
		name, _, err := Follow(tx.dir, f[0])
		if err != nil {
			return err
		}
		if data, err := tx.dir.ReadFile(name); err == nil && string(data) == f[2] {
			continue
		}
		if err := tx.Replace(f[0], []byte(f[1]), []byte(f[2])); err != nil {
			return err
		}
	}
	err := tx.Write("/pki/client-ca.crt", []byte("anchor\nnew anchor\n"), 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func replaceAll(root string, on func(*os.Root) fileOps) error {
	tx, err := begin(root, on)
	if err != nil {
		return err
	}
	err = stageReplacing(tx)
	if err == nil {
		err = tx.Commit()
	}
	return errors.Join(err, tx.Rollback())
}

// wholeOrNot tells which of the three changes stand, and asserts that no file is
// torn and nothing names what is not there.
func wholeOrNot(t *testing.T, root string) (done int) {
	t.Helper()
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		return string(data)
	}
	for _, f := range [][3]string{
		{"pki/bundle.crt", oldBundle, newBundle}, {"manifests/kube-apiserver.yaml", oldManifest, newManifest}, {"pki/client-ca.crt", "", "anchor\nnew anchor\n"},
	} {
		switch read(f[0]) {
		case f[2]:
			done++
		case f[1]:
		default:
			t.Errorf("%s is torn: %q", f[0], read(f[0]))
		}
	}
	if read("manifests/kube-apiserver.yaml") == newManifest && read("pki/client-ca.crt") == "" {
		t.Error("the manifest names a file that is not there")
	}
	return done
}

func TestReplacingIsAllOrNothingWhereverItIsKilled(t *testing.T) {
	t.Parallel()
	d := &faultyDisk{decide: func(int, bool) fault { return works }}
	if err := replaceAll(replacing(t), func(r *os.Root) fileOps { d.fileOps = quick(r); return d }); err != nil {
		t.Fatal(err)
	}
	total, forward := d.count, 0
	complete := func(t *testing.T, root string, n int) {
		t.Helper()
		if err := replaceAll(root, quick); err != nil {
			t.Fatalf("operation %d: %v", n, err)
		}
		if done := wholeOrNot(t, root); done != 3 {
			t.Errorf("killed at operation %d, the second run does %d of 3", n, done)
		}
		got := snapshot(t, root)
		for name := range got {
			if strings.Contains(name, tempPrefix) {
				t.Errorf("killed at operation %d: %s was left over", n, name)
			}
		}
		if !strings.HasPrefix(got["shared/bundle.pem"], "-rw-r-----") || !strings.HasPrefix(got["pki/bundle.crt"], "L") {
			t.Errorf("killed at operation %d: mode or link was not kept: %.12q, %.12q", n, got["shared/bundle.pem"], got["pki/bundle.crt"])
		}
	}
	for n := range total {
		for _, again := range []int{-1, 0, 1, 2, 3, 4, 5, 6, 7, 8} { // the recovery is killed too, or not
			root := replacing(t)
			d := &faultyDisk{decide: func(i int, _ bool) fault {
				if i >= n {
					return dead
				}
				return works
			}}
			_ = replaceAll(root, func(r *os.Root) fileOps { d.fileOps = quick(r); return d })
			wholeOrNot(t, root)
			if again >= 0 {
				d := &faultyDisk{decide: func(i int, _ bool) fault {
					if i >= again {
						return dead
					}
					return works
				}}
				if tx, err := begin(root, func(r *os.Root) fileOps { d.fileOps = quick(r); return d }); err == nil {
					tx.Rollback()
				}
				wholeOrNot(t, root)
			}
			tx, err := begin(root, quick)
			if err != nil {
				t.Fatalf("operation %d: %v", n, err)
			}
			if tx.Recovered().Finished > 0 {
				forward++
			}
			if done := wholeOrNot(t, root); done != 0 && done != 3 {
				t.Errorf("killed at operation %d, then at %d: %d of 3 changes stand after the recovery", n, again, done)
			}
			for name := range snapshot(t, root) {
				if strings.Contains(name, tempPrefix) {
					t.Errorf("killed at operation %d, then at %d: the recovery leaves %s", n, again, name)
				}
			}
			tx.Rollback()
			complete(t, root, n)
			if t.Failed() {
				return
			}
		}
	}
	if forward < 3 {
		t.Errorf("only %d recoveries finished what was begun", forward)
	}
}

func TestTakingBackIsAllOrNothingWhereverItIsKilled(t *testing.T) {
	t.Parallel()
	undone := 0
	for failing := 0; ; failing++ {
		hit := false
		for kill := failing + 1; kill < failing+16; kill++ {
			root := replacing(t)
			d := &faultyDisk{decide: func(i int, _ bool) fault {
				switch {
				case i >= kill:
					return dead
				case i == failing:
					hit = true
					return full
				}
				return works
			}}
			_ = replaceAll(root, func(r *os.Root) fileOps { d.fileOps = quick(r); return d })
			before := wholeOrNot(t, root)
			tx, err := begin(root, quick)
			if err != nil {
				t.Fatalf("failed at %d, killed at %d: %v", failing, kill, err)
			}
			done := wholeOrNot(t, root)
			if done != 0 && done != 3 {
				t.Fatalf("failed at %d, killed at %d: %d of 3 changes stand after the recovery", failing, kill, done)
			}
			if done < before {
				undone++
			}
			tx.Rollback()
			if err := replaceAll(root, quick); err != nil || wholeOrNot(t, root) != 3 {
				t.Fatalf("failed at %d, killed at %d: the second run: %v", failing, kill, err)
			}
		}
		if !hit {
			break
		}
	}
	if undone < 3 {
		t.Errorf("only %d recoveries took something back", undone)
	}
}

func TestReplacingThatFailsLeavesTheFolderAsItWas(t *testing.T) {
	t.Parallel()
	for _, from := range []bool{false, true} { // one operation fails, or all from then on that need room
		for at := 0; ; at++ {
			root := replacing(t)
			before := snapshot(t, root)
			hit := false
			d := &faultyDisk{decide: func(n int, grows bool) fault {
				if n == at || from && n > at && grows {
					hit = true
					return full
				}
				return works
			}}
			err := replaceAll(root, func(r *os.Root) fileOps { d.fileOps = quick(r); return d })
			if !hit {
				break
			}
			if err == nil { // all stood: what could not be removed is left to the next run
				if err := replaceAll(root, quick); err != nil || wholeOrNot(t, root) != 3 {
					t.Fatalf("operation %d failed unsaid: %v", at, err)
				}
				continue
			}
			if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
				t.Fatalf("operation %d of (all: %t) failed with %v and changed the folder: %s", at, from, err, diff)
			}
		}
	}
}

func TestWhatSomebodyElseWroteIsNotReplaced(t *testing.T) {
	root := replacing(t)
	tx := beginAt(t, root)
	if err := tx.Replace("/pki/ca.crt", []byte("another\n"), []byte("x")); !errors.Is(err, ErrChanged) {
		t.Errorf("before: %v", err)
	}
	tx.Rollback()
	tx = beginAt(t, root)
	if err := stageReplacing(tx); err != nil {
		t.Fatal(err)
	}
	write(t, root, "manifests/kube-apiserver.yaml", "mine\n", 0o600)
	if err := tx.Commit(); !errors.Is(err, ErrChanged) {
		t.Errorf("between: %v", err)
	}
	for name, want := range map[string]string{"manifests/kube-apiserver.yaml": "mine\n", "shared/bundle.pem": oldBundle} {
		if data, _ := os.ReadFile(filepath.Join(root, name)); string(data) != want {
			t.Errorf("%s holds %q", name, data)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "pki/client-ca.crt")); err == nil {
		t.Error("the new file stands")
	}
	for name, nodePath := range map[string]string{"a missing file": "/pki/no.crt", "a folder": "/pki", "no absolute path": "pki/ca.crt"} {
		tx := beginAt(t, root)
		if err := tx.Replace(nodePath, nil, []byte("x")); err == nil {
			t.Errorf("%s was replaced", name)
		}
		tx.Rollback()
	}
}

// Who mends by hand what a killed run left is not overruled by the next one.
func TestWhatWasWrittenAfterAKillStays(t *testing.T) {
	waiting := 0
	for n := 0; ; n++ {
		root := replacing(t)
		d := &faultyDisk{decide: func(i int, _ bool) fault {
			if i >= n {
				return dead
			}
			return works
		}}
		err := replaceAll(root, func(r *os.Root) fileOps { d.fileOps = quick(r); return d })
		if err == nil {
			break
		}
		if data, _ := os.ReadFile(filepath.Join(root, "manifests/kube-apiserver.yaml")); string(data) != oldManifest {
			continue
		}
		write(t, root, "manifests/kube-apiserver.yaml", "mine\n", 0o600)
		tx, err := begin(root, quick)
		if err != nil {
			t.Fatalf("killed at operation %d: %v", n, err)
		}
		waiting++
		tx.Rollback()
		for name, want := range map[string]string{"manifests/kube-apiserver.yaml": "mine\n", "shared/bundle.pem": oldBundle, "pki/client-ca.crt": ""} {
			if data, _ := os.ReadFile(filepath.Join(root, name)); string(data) != want {
				t.Errorf("killed at operation %d: %s holds %q", n, name, data)
			}
		}
	}
	if waiting < 10 {
		t.Errorf("only %d kills left something to finish", waiting)
	}
}
