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
	"sync"
	"syscall"
	"testing"
	"time"
)

// talk is what a process says while it runs.
type talk struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (t *talk) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

func (t *talk) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// startAgent starts kubepki agent on a node's folder.
func startAgent(t *testing.T, root string, args ...string) (*exec.Cmd, *talk) {
	t.Helper()
	said := &talk{}
	c := exec.Command("kubepki", append([]string{"agent", "--root", root, "--node-name", "cp1"}, args...)...)
	c.Stderr, c.Env = said, environment()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() })
	return c, said
}

// waitSaid waits until the agent has said something often enough.
func waitSaid(t *testing.T, said *talk, what string, times int) {
	t.Helper()
	for begin := time.Now(); strings.Count(said.String(), what) < times; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("%q was not said %d times:\n%s", what, times, said)
		}
	}
}

// endAgent ends it as systemd and kubelets do.
func endAgent(t *testing.T, c *exec.Cmd, said *talk) {
	t.Helper()
	began := time.Now()
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatalf("after SIGTERM: %v\n%s", err, said)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it ended %s after SIGTERM", took)
	}
}

// dueAtOnce are certificates that begin five minutes before they are made and are due
// after two.
var dueAtOnce = []string{"--renew", "due", "--renew-at", "10", "--interval", "1s"}

func TestAgentKilledWhileItRenewsIsCompletedByTheNext(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cluster")
	runKubepki(t, "init", "--out", dir, "--manifests", "--key-algorithm", "ECDSA-P256", "--validity", "20m", "--control-plane", "cp1=10.0.0.11")
	root := filepath.Join(dir, "cp1")
	apiserver := filepath.Join(root, "etc/kubernetes/pki/apiserver.crt")
	read := func() []byte {
		data, err := os.ReadFile(apiserver)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	began := time.Now()
	c, said := startAgent(t, root, dueAtOnce...)
	waitSaid(t, said, "msg=renewed", 12)
	took := time.Since(began)
	endAgent(t, c, said)
	const rounds = 6
	interrupted, mended := 0, 0
	for i := range rounds {
		c, said := startAgent(t, root, dueAtOnce...)
		if i%3 == 2 {
			time.Sleep(took/4 + rand.N(took))
		} else { // as soon as something of a transaction is seen: its journal, or files too
			for unfinished(t, root) <= 3*(i%3) && strings.Count(said.String(), "msg=renewed") < 12 {
				time.Sleep(100 * time.Microsecond)
			}
		}
		if err := c.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		_ = c.Wait() // it was killed
		if unfinished(t, root) > 0 {
			interrupted++
		}
		before := read()
		c, said = startAgent(t, root, dueAtOnce...)
		waitSaid(t, said, "msg=renewed", 12)
		endAgent(t, c, said)
		if strings.Contains(said.String(), "mended what an interrupted run left") {
			mended++
		}
		if n := unfinished(t, root); n > 0 {
			t.Errorf("%d files were left over", n)
		}
		if bytes.Equal(before, read()) {
			t.Error("the next agent made nothing anew")
		}
		if out, err := exec.Command("kubepki", "verify", "--root", root, "--expiring", "1m").CombinedOutput(); err != nil {
			t.Fatalf("verify: %v\n%s", err, out)
		}
		if strings.Contains(said.String(), "PRIVATE") {
			t.Error("a key is in the log")
		}
	}
	// One that had only just begun leaves nothing that is worth a word.
	if interrupted == 0 || mended == 0 {
		t.Errorf("%d of %d agents were killed within a transaction, %d times that was mended", interrupted, rounds, mended)
	}
	t.Logf("%d of %d agents were killed within a transaction", interrupted, rounds)
}

// unfinished counts the journals and temporary files below a root.
func unfinished(t *testing.T, root string) (n int) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(name), ".kubepki") {
			n++
		}
		if errors.Is(err, fs.ErrNotExist) { // an agent is at work
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
