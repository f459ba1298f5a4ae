package main

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// TestInitKilled kills the program at random moments of a run that writes many
// files. What it leaves is never half a file or a key without its certificate,
// and the next run completes.
func TestInitKilled(t *testing.T) {
	args := func(dir string) []string {
		return []string{"init", "--out", dir, "--manifests", "--key-algorithm", "Ed25519",
			"--control-plane-endpoint", "api.example.test",
			"--control-plane", "cp1=10.0.0.11", "--control-plane", "cp2=10.0.0.12", "--worker", "w1=10.0.0.21"}
	}
	start := time.Now()
	whole := filepath.Join(t.TempDir(), "whole")
	runKubepki(t, args(whole)...)
	took := time.Since(start)
	files := count(t, whole)
	partial := 0
	for round := range 25 {
		dir := filepath.Join(t.TempDir(), "cluster")
		delay := took/3 + rand.N(took*3/4)
		moment := func() { time.Sleep(delay) }
		if round%2 == 1 {
			// The files appear within a few milliseconds: wait for the first.
			first := filepath.Join(dir, "cp1/etc/kubernetes/pki/ca.crt")
			moment = func() { waitFor(first, 20*took) }
		}
		killed := kill(t, moment, args(dir)...)
		n := inspect(t, dir, delay)
		if killed && n > 0 && n < files {
			partial++
		}
		runKubepki(t, args(dir)...)
		if got := count(t, dir); got != files {
			t.Fatalf("round %d, killed after %s: %d files after the second run, want %d", round, delay, got, files)
		}
		if out := runKubepki(t, append(args(dir), "--dry-run")...); bytes.Contains(out, []byte(" made\n")) {
			t.Fatalf("round %d: the third run made something:\n%s", round, out)
		}
	}
	if partial == 0 {
		t.Error("no run was killed while files appeared: the test proves nothing")
	}
	t.Logf("a run takes %s; %d of 25 runs were killed while files appeared", took, partial)
}

func runKubepki(t *testing.T, args ...string) []byte {
	t.Helper()
	var out, talk bytes.Buffer
	c := exec.Command("kubepki", args...)
	c.Stdout, c.Stderr, c.Env = &out, &talk, environment()
	if err := c.Run(); err != nil {
		t.Fatalf("kubepki %s: %v\n%s", args[0], err, talk.String())
	}
	return out.Bytes()
}

// environment spares programs that were built with the race detector the
// second that they sleep at their end.
func environment() []string { return append(os.Environ(), "GORACE=atexit_sleep_ms=0") }

// kill tells whether the process was still running.
func kill(t *testing.T, moment func(), args ...string) bool {
	t.Helper()
	c := exec.Command("kubepki", args...)
	c.Env = environment()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	moment()
	if err := c.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	err := c.Wait()
	var exit *exec.ExitError
	return errors.As(err, &exit)
}

// waitFor returns when a file is there, or after the patience is over.
func waitFor(path string, patience time.Duration) {
	for start := time.Now(); time.Since(start) < patience; {
		if _, err := os.Lstat(path); err == nil {
			return
		}
	}
}

// inspect checks what a killed run left, and counts its files.
func inspect(t *testing.T, dir string, delay time.Duration) int {
	t.Helper()
	n := 0
	walk(t, dir, func(name string) {
		n++
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) == 0 {
			t.Errorf("killed after %s: %s is empty", delay, name)
		}
		base, isKey := strings.CutSuffix(name, ".key")
		if isKey || strings.HasSuffix(name, ".crt") {
			if blocks, err := trust.Blocks(data); err != nil || len(blocks) == 0 {
				t.Errorf("killed after %s: %s holds %d PEM blocks: %v", delay, name, len(blocks), err)
			}
		}
		if isKey && filepath.Base(name) != "sa.key" {
			if _, err := os.Stat(base + ".crt"); err != nil {
				t.Errorf("killed after %s: %s is without its certificate", delay, name)
			}
		}
	})
	return n
}

func count(t *testing.T, dir string) int {
	t.Helper()
	n := 0
	walk(t, dir, func(string) { n++ })
	return n
}

// walk calls do for each file that is not the transaction's own.
func walk(t *testing.T, dir string, do func(string)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasPrefix(d.Name(), ".kubepki-") {
			do(name)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}
