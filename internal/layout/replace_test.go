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

// What the crash tests of this file do: two new files, two that are replaced, of
// which one is reached by a link and the other names what is new, a link that is led
// to what is new, as a kubelet's, and a file that is removed.
const (
	oldBundle, newBundle     = "# ours\nold anchor\n", "# ours\nold anchor\nnew anchor\n"
	oldManifest, newManifest = "--client-ca-file=/pki/ca.crt\n", "--client-ca-file=/pki/client-ca.crt\n"
	oldPair, newPair         = "old pair\n", "new pair\n"
	changes                  = 8
)

func replacing(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write(t, root, "shared/bundle.pem", oldBundle, 0o640)
	write(t, root, "manifests/kube-apiserver.yaml", oldManifest, 0o600)
	write(t, root, "pki/ca.crt", "anchor\n", 0o644)
	write(t, root, "pki/obsolete.crt", oldBundle, 0o644)
	write(t, root, "kubelet/1.pem", oldPair, 0o600)
	for _, name := range []string{"current.pem", "obsolete.pem"} {
		if err := os.Symlink("/kubelet/1.pem", filepath.Join(root, "kubelet", name)); err != nil {
			t.Fatal(err)
		}
	}
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
	if to, err := tx.dir.Readlink("kubelet/current.pem"); err != nil || to != "/kubelet/2.pem" {
		if err := tx.Lead("/kubelet/current.pem", "/kubelet/1.pem", "/kubelet/2.pem"); err != nil {
			return err
		}
	}
	if _, err := tx.dir.Lstat("kubelet/obsolete.pem"); err == nil {
		if err := tx.Unlink("/kubelet/obsolete.pem", "/kubelet/1.pem"); err != nil {
			return err
		}
	}
	if err := tx.Symlink("/kubelet/server-current.pem", "/kubelet/2.pem"); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := tx.dir.Lstat("pki/obsolete.crt"); err == nil {
		if err := tx.Remove("/pki/obsolete.crt", []byte(oldBundle)); err != nil {
			return err
		}
	}
	for name, data := range map[string]string{"/pki/client-ca.crt": "anchor\nnew anchor\n", "/kubelet/2.pem": newPair} {
		if err := tx.Write(name, []byte(data), 0o644); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
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

// wholeOrNot tells how many of the changes stand, and asserts that no file is
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
		{"kubelet/2.pem", "", newPair}, {"pki/obsolete.crt", oldBundle, ""},
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
	switch to, err := os.Readlink(filepath.Join(root, "kubelet/current.pem")); {
	case err != nil || to != "/kubelet/1.pem" && to != "/kubelet/2.pem":
		t.Errorf("the link leads to %q: %v", to, err)
	case read("kubelet/"+filepath.Base(to)) == "":
		t.Errorf("the link leads to %s, which is not there", to)
	case to == "/kubelet/2.pem":
		done++
	}
	switch to, err := os.Readlink(filepath.Join(root, "kubelet/obsolete.pem")); {
	case errors.Is(err, fs.ErrNotExist):
		done++
	case err != nil || to != "/kubelet/1.pem":
		t.Errorf("the link that goes leads to %q: %v", to, err)
	}
	switch to, err := os.Readlink(filepath.Join(root, "kubelet/server-current.pem")); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil || read("kubelet/2.pem") == "":
		t.Errorf("the new link leads to %q, which is not there: %v", to, err)
	default:
		done++
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
		if done := wholeOrNot(t, root); done != changes {
			t.Errorf("killed at operation %d, the second run does %d of the changes", n, done)
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
			if done := wholeOrNot(t, root); done != 0 && done != changes {
				t.Errorf("killed at operation %d, then at %d: %d of the changes stand after the recovery", n, again, done)
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
			if done != 0 && done != changes {
				t.Fatalf("failed at %d, killed at %d: %d of the changes stand after the recovery", failing, kill, done)
			}
			if done < before {
				undone++
			}
			tx.Rollback()
			if err := replaceAll(root, quick); err != nil || wholeOrNot(t, root) != changes {
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
				if err := replaceAll(root, quick); err != nil || wholeOrNot(t, root) != changes {
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
		for name, want := range map[string]string{"manifests/kube-apiserver.yaml": "mine\n", "shared/bundle.pem": oldBundle, "pki/client-ca.crt": "", "pki/obsolete.crt": oldBundle, "kubelet/current.pem": oldPair} {
			name := strings.Replace(name, "current", "1", 1) // an absolute link leads out of this folder
			if data, _ := os.ReadFile(filepath.Join(root, name)); string(data) != want {
				t.Errorf("killed at operation %d: %s holds %q", n, name, data)
			}
		}
	}
	if waiting < 10 {
		t.Errorf("only %d kills left something to finish", waiting)
	}
}

func TestALinkAndAFileAreLeftToWhoChangedThem(t *testing.T) {
	for name, try := range map[string]func(tx *Transaction) error{
		"a link that leads elsewhere":  func(tx *Transaction) error { return tx.Lead("/kubelet/current.pem", "/kubelet/0.pem", "/x") },
		"a file that is no link":       func(tx *Transaction) error { return tx.Lead("/pki/ca.crt", "", "/x") },
		"a missing link":               func(tx *Transaction) error { return tx.Lead("/pki/no.crt", "", "/x") },
		"a file with another content":  func(tx *Transaction) error { return tx.Remove("/pki/ca.crt", []byte("another\n")) },
		"a link that would be removed": func(tx *Transaction) error { return tx.Remove("/kubelet/current.pem", []byte(oldPair)) },
		"a folder that would be gone":  func(tx *Transaction) error { return tx.Remove("/pki", nil) },
		"a path that is not absolute":  func(tx *Transaction) error { return tx.Remove("pki/ca.crt", []byte("anchor\n")) },
		"one that is replaced and goes": func(tx *Transaction) error {
			return errors.Join(tx.Replace("/pki/ca.crt", []byte("anchor\n"), nil), tx.Remove("/pki/ca.crt", []byte("anchor\n")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := replacing(t)
			before := snapshot(t, root)
			tx := beginAt(t, root)
			if err := try(tx); err == nil {
				t.Error("it was staged")
			}
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
				t.Error(diff)
			}
		})
	}
	for name, change := range map[string]func(root string) error{
		"the link": func(root string) error {
			return errors.Join(os.Remove(filepath.Join(root, "kubelet/current.pem")), os.Symlink("/kubelet/9.pem", filepath.Join(root, "kubelet/current.pem")))
		},
		"the file": func(root string) error {
			return os.WriteFile(filepath.Join(root, "pki/obsolete.crt"), []byte("mine"), 0o644)
		},
	} {
		t.Run(name+" is changed between", func(t *testing.T) {
			root := replacing(t)
			tx := beginAt(t, root)
			if err := stageReplacing(tx); err != nil {
				t.Fatal(err)
			}
			if err := change(root); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(); !errors.Is(err, ErrChanged) {
				t.Errorf("committed: %v", err)
			}
			for _, left := range []string{"kubelet/2.pem", "pki/client-ca.crt"} {
				if _, err := os.Lstat(filepath.Join(root, left)); err == nil {
					t.Errorf("%s stands", left)
				}
			}
		})
	}
}
