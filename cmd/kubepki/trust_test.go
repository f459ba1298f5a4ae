package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// twoBundles are two files that a plan changes, each in a root of its own.
func twoBundles(t *testing.T) (*trustPlan, []string) {
	t.Helper()
	root := t.TempDir()
	if _, talk, code := kubepki(t, nil, "init", "--root", root, "--node-name", "cp1", "--apiserver-advertise-address", "10.0.0.11", "--key-algorithm", "ECDSA-P256"); code != exitDone {
		t.Fatal(talk)
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(root, "etc/kubernetes/pki", name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	more, err := bundle.Parse(read("etcd/ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	p, files := &trustPlan{}, []string{}
	for range 2 {
		file := filepath.Join(t.TempDir(), "roots.pem")
		if err := os.WriteFile(file, read("ca.crt"), 0o644); err != nil {
			t.Fatal(err)
		}
		found, err := (&trustSource{flags: &trustFlags{roots: []string{root}}}).find(t.Context(), "file:"+file)
		if err != nil {
			t.Fatal(err)
		}
		c := &trustChange{trustBundle: found[0]}
		if c.after, c.added, err = c.text.Add(more.Certificates()...); err != nil {
			t.Fatal(err)
		}
		p.changes, files = append(p.changes, c), append(files, file)
	}
	return p, files
}

func holdsMore(t *testing.T, p *trustPlan, i int, file string) bool {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(data, p.changes[i].after.Bytes())
}

func TestRootsAreChangedAllOrItIsSaidWhichAreNot(t *testing.T) {
	t.Run("one that cannot be staged leaves the others", func(t *testing.T) {
		p, files := twoBundles(t)
		busy, err := layout.Begin(filepath.Dir(files[1]))
		if err != nil {
			t.Fatal(err)
		}
		var b *layout.BusyError
		if err := applyFiles(p, false); !errors.As(err, &b) {
			t.Errorf("%v", err)
		}
		if holdsMore(t, p, 0, files[0]) || holdsMore(t, p, 1, files[1]) {
			t.Error("something was changed")
		}
		if err := errors.Join(busy.Rollback(), applyFiles(p, false)); err != nil {
			t.Fatal(err)
		}
		if !holdsMore(t, p, 0, files[0]) || !holdsMore(t, p, 1, files[1]) {
			t.Error("the second run did not complete")
		}
	})
	t.Run("one that fails at the end is named, and those that are done", func(t *testing.T) {
		p, files := twoBundles(t)
		staged, err := stageFiles(p)
		if err != nil {
			t.Fatal(err)
		}
		was := p.changes[1].text.Bytes()
		if err := os.WriteFile(files[1], []byte("# changed meanwhile\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		err = apply.Commit(staged)
		if !errors.Is(err, layout.ErrChanged) || !strings.Contains(err.Error(), "done below "+filepath.Dir(files[0])+", not done below "+filepath.Dir(files[1])) || len(hints(err)) == 0 {
			t.Errorf("%v", err)
		}
		if !holdsMore(t, p, 0, files[0]) || holdsMore(t, p, 1, files[1]) {
			t.Error("it says otherwise than it is")
		}
		if err := os.WriteFile(files[1], was, 0o644); err != nil {
			t.Fatal(err)
		}
		p.changes = p.changes[1:] // a second run finds the first as it shall be
		if err := applyFiles(p, false); err != nil || !bytes.Equal(p.changes[0].after.Bytes(), mustRead(t, files[1])) {
			t.Errorf("the second run: %v", err)
		}
	})
	t.Run("dry", func(t *testing.T) {
		p, files := twoBundles(t)
		if err := applyFiles(p, true); err != nil || holdsMore(t, p, 0, files[0]) {
			t.Errorf("a dry run changes something: %v", err)
		}
	})
}

// interrupted leaves below a root what a run leaves that was killed while it changed a
// file: all is staged, and the journal is committed or not.
func interrupted(t *testing.T, root, file string, data []byte, committed bool) {
	t.Helper()
	tx, err := layout.Begin(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Replace(file, mustRead(t, filepath.Join(root, file)), data); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(t.TempDir(), "left")
	if err := os.CopyFS(left, os.DirFS(root)); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(left, root); err != nil {
		t.Fatal(err)
	}
	if committed {
		journal := filepath.Join(root, ".kubepki-journal")
		text := mustRead(t, journal)
		text = fmt.Appendf(text, `{"state":"commit","sum":"%x"}`+"\n", sha256.Sum256(text))
		if err := os.WriteFile(journal, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// What an interrupted run has removed is not missed by the second; by a third it is.
func TestASecondRunDoesNotMissWhatAnInterruptedOneRemoved(t *testing.T) {
	p, files := twoBundles(t)
	if err := applyFiles(p, false); err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(t.TempDir(), "gone.pem")
	if err := os.WriteFile(gone, trust.EncodeCertificates(p.changes[0].added...), 0o644); err != nil {
		t.Fatal(err)
	}
	interrupted(t, filepath.Dir(files[0]), "/roots.pem", p.changes[0].text.Bytes(), true)
	for _, args := range [][]string{{gone}, {bundle.Fingerprint(p.changes[0].added[0])}} {
		args = append([]string{"trust", "remove", "file:" + files[0], "--yes", "--force"}, args...)
		out, talk, code := kubepki(t, nil, args...)
		if args[len(args)-1] == gone && (code != exitDone || !strings.Contains(out, "unchanged")) {
			t.Errorf("the second run: code %d: %s%s", code, out, talk)
		}
		if args[len(args)-1] != gone && (code != exitFailed || !strings.Contains(talk, "none of the bundles holds it")) {
			t.Errorf("the third run: code %d: %s%s", code, out, talk)
		}
	}
	if !bytes.Equal(mustRead(t, files[0]), p.changes[0].text.Bytes()) {
		t.Errorf("the bundle holds\n%s", mustRead(t, files[0]))
	}
}

// leftovers counts what an interrupted run left below a root.
func leftovers(t *testing.T, root string) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(name), ".kubepki-") {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The second run does what the first was killed at, whichever moment that was; a dry
// run leaves all as it is.
func TestASecondRunCompletesWhatAnInterruptedOneBegan(t *testing.T) {
	for name, committed := range map[string]bool{"before anything is decided": false, "when the files are about to appear": true} {
		t.Run(name, func(t *testing.T) {
			p, files := twoBundles(t)
			root := filepath.Dir(files[0])
			want := p.changes[0].after.Bytes()
			more := filepath.Join(t.TempDir(), "more.pem")
			if err := os.WriteFile(more, trust.EncodeCertificates(p.changes[0].added...), 0o644); err != nil {
				t.Fatal(err)
			}
			interrupted(t, root, "/roots.pem", want, committed)
			if n := leftovers(t, root); n != 3 {
				t.Fatalf("%d files are left, expected a journal, a temporary and a backup", n)
			}
			args := []string{"trust", "add", "file:" + files[0], more, "--yes"}
			if _, talk, code := kubepki(t, nil, append(args, "--dry-run")...); code != exitDone || leftovers(t, root) != 3 {
				t.Errorf("a dry run: code %d, %d left: %s", code, leftovers(t, root), talk)
			}
			_, talk, code := kubepki(t, nil, args...)
			if code != exitDone || !strings.Contains(talk, "an interrupted run was mended") {
				t.Errorf("code %d: %s", code, talk)
			}
			if !bytes.Equal(mustRead(t, files[0]), want) || leftovers(t, root) != 0 {
				t.Errorf("%d are left; the bundle holds\n%s", leftovers(t, root), mustRead(t, files[0]))
			}
			if _, talk, code := kubepki(t, nil, args...); code != exitDone || strings.Contains(talk, "mended") {
				t.Errorf("a third run: code %d: %s", code, talk)
			}
		})
	}
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
