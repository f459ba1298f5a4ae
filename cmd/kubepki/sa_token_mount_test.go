package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/layout"
)

// TestRenewalGoesOnWithoutRoot: the folder is one of root, and then of another
// user, who cannot remove what root has written.
func TestRenewalGoesOnWithoutRoot(t *testing.T) {
	root := controlPlaneRoot(t, "ECDSA-P256")
	key, err := os.ReadFile(filepath.Join(root, "etc/kubernetes/pki/sa.key"))
	if err != nil {
		t.Fatal(err)
	}
	open, err := os.MkdirTemp("", "mount") // every user may enter it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(open) })
	dir, ca := filepath.Join(open, "mount"), filepath.Join(open, "ca.crt")
	here(t, "sa", "token", "ci/robot", "--root", root, "--uid", accountUID, "--write-mount", dir)
	first, err := os.Readlink(filepath.Join(dir, "..data"))
	// For who runs this test as himself the folder of that run has to be closed.
	err = errors.Join(err, os.Chmod(open, 0o755), os.Chmod(filepath.Join(dir, first), 0o555), os.Link(filepath.Join(root, "etc/kubernetes/pki/ca.crt"), ca))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, first), 0o755) })
	renew := func() string {
		t.Helper()
		c := exec.Command("kubepki", "sa", "token", "ci/robot", "--key", "-", "--issuer", accountsIssuer, "--uid", accountUID, "--write-mount", dir, "--certificate-authority", ca)
		var talk bytes.Buffer
		c.Stdin, c.Stderr, c.Env, c.Dir = bytes.NewReader(key), &talk, environment(), "/"
		if os.Geteuid() == 0 {
			const nobody = 65534
			if err := os.Chown(dir, nobody, nobody); err != nil {
				t.Fatal(err)
			}
			c.Path = "/proc/self/exe" // which needs no path that the other user may walk
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: true}}
		}
		if err := c.Run(); err != nil {
			t.Fatalf("%v: %s", err, talk.String())
		}
		return talk.String()
	}
	shown := first
	for range 3 {
		talk := renew()
		want := "kubepki: warning: the new files are in place, and old ones are left, a token perhaps: removing " + filepath.Join(dir, first, "token") + ": permission denied: remove that folder\n"
		if !strings.Contains(talk, want) || strings.Count(talk, "are left") != 1 {
			t.Errorf("it says %s", talk)
		}
		now, err := os.Readlink(filepath.Join(dir, "..data"))
		if err != nil || now == shown {
			t.Errorf("%s is shown still, %v", now, err)
		}
		shown = now
	}
}

// TestWaitingForAnotherRunEndsWithTheContext, which a signal ends.
func TestWaitingForAnotherRunEndsWithTheContext(t *testing.T) {
	root, dir := controlPlaneRoot(t, "ECDSA-P256"), t.TempDir()
	other, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := syscall.Flock(int(other.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"a folder":     {"sa", "token", "ci/robot", "--write-mount", dir},
		"a kubeconfig": {"kubeconfig", "sa", "ci/robot", "--file", filepath.Join(dir, "robot.conf")},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(200*time.Millisecond, func() { cancel(errors.New("a signal")) })
			var talk bytes.Buffer
			start := time.Now()
			code := run(ctx, append(args, "--root", root, "--uid", accountUID), streams{in: strings.NewReader(""), out: &talk, err: &talk})
			if took := time.Since(start); code != exitFailed || took > patience/2 {
				t.Errorf("it ended with %d after %s", code, took)
			}
			if !strings.Contains(talk.String(), "error: "+dir) || !strings.Contains(talk.String(), ": another kubepki is writing below it: waiting for it: a signal\n") || strings.Contains(talk.String(), "token of") {
				t.Errorf("it says %s", talk.String())
			}
		})
	}
}

func TestBusyFoldersAreWaitedFor(t *testing.T) {
	busy, broken := error(&layout.BusyError{Root: "x"}), errors.New("broken")
	for name, row := range map[string]struct {
		free time.Duration // after this the folder is free
		then error
		want error
		took time.Duration
	}{
		"it is free":       {0, nil, nil, 0},
		"it is broken":     {0, broken, broken, 0},
		"soon":             {time.Second, nil, nil, time.Second},
		"not soon enough":  {time.Hour, nil, busy, patience},
		"and then, broken": {time.Second, broken, broken, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				err := whileBusy(t.Context(), func() error {
					if time.Since(start) < row.free {
						return busy
					}
					return row.then
				})
				if took := time.Since(start); err != row.want || took != row.took {
					t.Errorf("got %v after %s", err, took)
				}
			})
		})
	}
}
