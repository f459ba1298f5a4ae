package cluster_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/kubepki/kubepki/lab/internal/cluster"
)

// made makes a lab's folder with something of each kind in it.
func made(t *testing.T) cluster.Folder {
	t.Helper()
	f := cluster.Folder(filepath.Join(t.TempDir(), "lab"))
	if err := f.Claim(cluster.Wanted{Workers: 2}); err != nil {
		t.Fatal(err)
	}
	if err := f.Make(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{f.Kubeconfig(), f.Lock(), f.SupervisorLog(), filepath.Join(f.Run(), "first")} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestAFolderIsRememberedAndRemoved(t *testing.T) {
	f := made(t)
	if w, err := f.Wanted(); err != nil || w.Workers != 2 {
		t.Errorf("%+v, %v", w, err)
	}
	if err := f.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(string(f)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is there still: %v", err)
	}
	if _, err := f.Wanted(); !errors.Is(err, cluster.ErrNoLab) {
		t.Errorf("error %v, want %v", err, cluster.ErrNoLab)
	}
}

func TestWhatIsNotTheLabsIsLeftAlone(t *testing.T) {
	f := made(t)
	mine := filepath.Join(string(f), "thesis.txt")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
	if err := f.Claim(cluster.Wanted{}); !errors.Is(err, cluster.ErrForeign) {
		t.Errorf("a folder with somebody's file is taken: %v", err)
	}
	if err := f.Remove(); !errors.Is(err, cluster.ErrNoLab) {
		t.Errorf("what is no lab is removed: %v", err)
	}
}
