//go:build linux

package lab_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Killed at any moment, init leaves no key without its certificate and no file
// half written, and a second run completes what the first began.
func TestInitIsCompletedAfterItWasKilled(t *testing.T) {
	config := write(t, filepath.Join(t.TempDir(), "kubeadm.yaml"), configOf(t, "ECDSA-P256"))
	started := time.Now()
	whole := filesBelow(t, initiated(t, config))
	const moments = 40
	step := time.Since(started) / moments
	begun := 0
	for i := range moments {
		root := t.TempDir()
		cmd := exec.Command(filepath.Join(programs, "kubepki"), "init", "--manifests", "--config="+config, "--root="+root)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * step) // the moment, not a wait
		if err := cmd.Process.Kill(); err == nil && cmd.Wait() != nil && len(filesBelow(t, root)) > 0 {
			begun++
		}
		for _, file := range filesBelow(t, root) {
			stem, isKey := strings.CutSuffix(filepath.Join(root, file), ".key")
			if !isKey || strings.HasSuffix(stem, "/sa") {
				continue
			}
			if _, err := os.Stat(stem + ".crt"); err != nil {
				t.Errorf("after %d: %v", i, err)
			}
		}
		run(t, "kubepki", "init", "--manifests", "--config="+config, "--root="+root)
		if got := filesBelow(t, root); strings.Join(got, "\n") != strings.Join(whole, "\n") {
			t.Errorf("after %d: %d files, want %d:\n%s", i, len(got), len(whole), strings.Join(got, "\n"))
		}
		verify(t, "--root="+root)
	}
	if begun == 0 {
		t.Error("no run was killed in the middle: the test has shown nothing")
	}
}

// initiated is the root of a run that was left alone.
func initiated(t *testing.T, config string) string {
	t.Helper()
	root := t.TempDir()
	run(t, "kubepki", "init", "--manifests", "--config="+config, "--root="+root)
	return root
}

// filesBelow lists the files below a folder, in order.
func filesBelow(t *testing.T, root string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		files = append(files, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
