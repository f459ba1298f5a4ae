//go:build linux

package lab_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/kubernetes/pkg/volume/util"

	"github.com/kubepki/kubepki/internal/layout"
)

// mountTimes are the parts of names that differ from one run to the next.
var mountTimes = regexp.MustCompile(`\.\.\d{4}(_\d\d){5}\.\d+`)

// entries are what is in a folder: names, modes, contents.
func entries(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			content, err = os.Readlink(path)
		case info.Mode().IsRegular():
			content = string(read(t, path))
		}
		name, _ := filepath.Rel(dir, path)
		all[mountTimes.ReplaceAllString(name, "..TIME")] = info.Mode().String() + " " + mountTimes.ReplaceAllString(content, "..TIME")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestAMountIsTheKubelets compares what WriteMount writes with what the kubelet's
// own writer does, and lets each go on where the other was.
func TestAMountIsTheKubelets(t *testing.T) {
	kubelet := func(dir, run string) {
		t.Helper()
		w, err := util.NewAtomicWriter(dir, "test")
		if err != nil {
			t.Fatal(err)
		}
		err = w.Write(map[string]util.FileProjection{
			"token": {Data: []byte("token " + run), Mode: 0o600}, "ca.crt": {Data: []byte("ca " + run), Mode: 0o644}, "namespace": {Data: []byte("ci"), Mode: 0o644},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	kubepki := func(dir, run string) {
		t.Helper()
		kept, err := layout.WriteMount(dir, func() (layout.Mount, error) {
			return layout.Mount{Token: "token " + run, CA: []byte("ca " + run), Namespace: "ci"}, nil
		})
		if err != nil || len(kept) > 0 {
			t.Fatalf("%v, kept %v", err, kept)
		}
	}
	theirs, ours := t.TempDir(), t.TempDir()
	kubelet(theirs, "1")
	kubepki(ours, "1")
	want := entries(t, theirs)
	if d := cmp.Diff(want, entries(t, ours)); d != "" {
		t.Errorf("(-kubelet +kubepki):\n%s", d)
	}
	kubepki(theirs, "2")
	kubelet(ours, "2")
	if d := cmp.Diff(entries(t, theirs), entries(t, ours)); d != "" {
		t.Errorf("each after the other (-kubepki +kubelet):\n%s", d)
	}
	if len(entries(t, ours)) != len(want) {
		t.Errorf("something is left over: %v", entries(t, ours))
	}
}
