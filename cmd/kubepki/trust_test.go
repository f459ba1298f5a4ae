package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/layout"
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
		err = commitFiles(staged)
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

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
