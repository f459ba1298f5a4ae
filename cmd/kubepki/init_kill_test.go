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
		return []string{"init", "--out", dir, "--manifests", "--key-algorithm", "ECDSA-P256",
			"--control-plane-endpoint", "api.example.test",
			"--control-plane", "cp1=10.0.0.11", "--control-plane", "cp2=10.0.0.12", "--control-plane", "cp3=10.0.0.13",
			"--worker", "w1=10.0.0.21"}
	}
	start := time.Now()
	whole := filepath.Join(t.TempDir(), "whole")
	runKubepki(t, args(whole)...)
	took := time.Since(start)
	files := count(t, whole)
	partial := 0
	for round := range 25 {
		dir := filepath.Join(t.TempDir(), "cluster")
		delay := took/4 + rand.N(took)
		killed := kill(t, delay, args(dir)...)
		n := inspect(t, dir, delay)
		if killed && n > 0 && n < files {
			partial++
		}
		runKubepki(t, args(dir)...)
		if got := count(t, dir); got != files {
			t.Fatalf("round %d, killed after %s: %d files after the second run, want %d", round, delay, got, files)
		}
		if out := runKubepki(t, args(dir)...); bytes.Contains(out, []byte(" made\n")) {
			t.Fatalf("round %d: the third run made something:\n%s", round, out)
		}
	}
	t.Logf("a run takes %s; %d of 25 runs were killed while files appeared", took, partial)
}

func runKubepki(t *testing.T, args ...string) []byte {
	t.Helper()
	var out, talk bytes.Buffer
	c := exec.Command("kubepki", args...)
	c.Stdout, c.Stderr = &out, &talk
	if err := c.Run(); err != nil {
		t.Fatalf("kubepki %s: %v\n%s", args[0], err, talk.String())
	}
	return out.Bytes()
}

// kill tells whether the process was still running.
func kill(t *testing.T, delay time.Duration, args ...string) bool {
	t.Helper()
	c := exec.Command("kubepki", args...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(delay)
	if err := c.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	err := c.Wait()
	var exit *exec.ExitError
	return errors.As(err, &exit)
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
