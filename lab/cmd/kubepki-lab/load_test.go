//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubepki/kubepki/lab/internal/load"
)

func TestTrafficIsMadeFromOutside(t *testing.T) {
	l := newLab(t)
	l.run(t, "up", "--nodes", "0")
	t.Run("and what became of it is one document", func(t *testing.T) {
		var r load.Report
		if err := json.Unmarshal([]byte(l.run(t, "load", "--for", "2s", "--stream", "reads", "--stream", "etcd-peers", "-o", "json")), &r); err != nil {
			t.Fatal(err)
		}
		if r.APIVersion != "kubepki.dev/v1alpha1" || r.Kind != "LabLoad" || r.Requests == 0 || r.Failed != 0 || len(r.NotHere) != 1 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("a signal ends it in order", func(t *testing.T) {
		c := l.background(t, "load", "--for", "0", "--stream", "reads")
		l.awaitTraffic(t)
		if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if code := c.wait(t); code != 0 || !strings.Contains(c.stdout.String(), "STREAM") {
			t.Errorf("code %d\n%s%s", code, &c.stdout, &c.stderr)
		}
	})
	t.Run("a failure is a line at once, and the exit code", func(t *testing.T) {
		c := l.background(t, "load", "--for", "0", "--stream", "reads", "--fail-fast")
		l.awaitTraffic(t)
		l.run(t, "stop", "kube-apiserver")
		code := c.wait(t)
		l.run(t, "start", "kube-apiserver")
		if code != 3 || !strings.Contains(c.stderr.String(), "Z reads (link 9): ") || !strings.Contains(c.stdout.String(), "STREAM") {
			t.Errorf("code %d\n%s%s", code, &c.stdout, &c.stderr)
		}
	})
	t.Run("a stream that there is not is wrong usage", func(t *testing.T) {
		if r := l.try("load", "--stream", "reeds"); r.code != 2 || !strings.Contains(r.stderr, `"reeds"`) {
			t.Error(r.text())
		}
	})
}

// command is one that runs in the background.
type command struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	ended          chan error
}

func (l *testLab) background(t *testing.T, args ...string) *command {
	t.Helper()
	c := &command{cmd: exec.Command(filepath.Join(l.programs, "kubepki-lab"), args...), ended: make(chan error, 1)}
	c.cmd.Dir, c.cmd.Env = filepath.Dir(l.dir), append(os.Environ(), "KUBEPKI_LAB_DIR="+l.dir)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: l.user}
	c.cmd.Stdout, c.cmd.Stderr = &c.stdout, &c.stderr
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.ended <- c.cmd.Wait() }()
	return c
}

// wait returns the exit code.
func (c *command) wait(t *testing.T) int {
	t.Helper()
	select {
	case err := <-c.ended:
		if err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Error(err)
		}
	case <-time.After(2 * time.Minute):
		t.Error("does not end", c.cmd.Process.Kill())
		<-c.ended
	}
	return c.cmd.ProcessState.ExitCode()
}

// awaitTraffic waits until the traffic's preparations are over, of which the
// bootstrap token is the last.
func (l *testLab) awaitTraffic(t *testing.T) {
	t.Helper()
	l.await(t, "the traffic's bootstrap token is there", func() bool {
		return l.kubectl(t, "get", "secrets", "-n", "kube-system", "-l", "lab.kubepki.dev/load", "-o", "name") != ""
	})
	l.await(t, "something is read", func() bool {
		return strings.Contains(l.kubectl(t, "get", "configmaps", "-n", "lab-load", "-l", "lab.kubepki.dev/load", "-o", "name"), "watched")
	})
}
