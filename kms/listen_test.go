package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/signer"
)

// softArgs start kubepki-kms with a key in a file: sockets do not care.
func softArgs(t *testing.T, k *token, more ...string) []string {
	t.Helper()
	file := k.path("ca.key")
	if out, err := exec.Command("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return append([]string{"--socket", k.path("run/kms.sock"), "--key", "ca=softkms:path=" + file}, more...)
}

func TestSocketIsForItsUserAlone(t *testing.T) {
	k := &token{dir: t.TempDir(), env: os.Environ()}
	args := softArgs(t, k)
	k.start(t, nil, args...)
	for path, want := range map[string]os.FileMode{"run": 0o700, "run/kms.sock": 0o600, "run/kms.sock.lock": 0o600} {
		if info, err := os.Stat(k.path(path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
	}
	if _, err := signer.Key(k.path("run/kms.sock"), "ca"); err != nil {
		t.Error(err)
	}
}

func TestSecondProcessLeavesTheSocketAlone(t *testing.T) {
	k := &token{dir: t.TempDir(), env: os.Environ()}
	args := softArgs(t, k)
	first := k.start(t, nil, args...)
	second := k.start(t, nil, args...)
	<-second.exited
	if got := second.ProcessState.ExitCode(); got != exitFailed || !strings.Contains(second.log.String(), "another process serves this socket") {
		t.Errorf("exit %d: %s", got, second.log.String())
	}
	if _, err := signer.Key(k.path("run/kms.sock"), "ca"); err != nil {
		t.Error(err)
	}
	first.kill(t, syscall.SIGKILL)
	k.start(t, nil, args...) // over the socket that was left behind
	if _, err := signer.Key(k.path("run/kms.sock"), "ca"); err != nil {
		t.Error(err)
	}
}

func TestStopsWhenTold(t *testing.T) {
	k := &token{dir: t.TempDir(), env: os.Environ()}
	p := k.start(t, nil, softArgs(t, k)...)
	p.kill(t, syscall.SIGTERM)
	if got := p.ProcessState.ExitCode(); got != exitDone {
		t.Errorf("exit %d: %s", got, p.log.String())
	}
	if _, err := os.Stat(k.path("run/kms.sock")); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestFileThatIsNoSocketIsLeftAlone(t *testing.T) {
	k := &token{dir: t.TempDir(), env: os.Environ()}
	args := softArgs(t, k)
	if err := os.Mkdir(k.path("run"), 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, k.path("run/kms.sock"), "precious")
	p := k.start(t, nil, args...)
	<-p.exited
	if data, err := os.ReadFile(k.path("run/kms.sock")); err != nil || string(data) != "precious" {
		t.Errorf("%q, %v", data, err)
	}
}

// The socket is passed as systemd does it, so that its folder and mode are not
// kubepki-kms's; who asks is then what counts.
func TestOtherUsersAreRefused(t *testing.T) {
	for name, row := range map[string]struct {
		user    int
		refused bool
	}{"the user allowed": {os.Getuid(), false}, "another": {os.Getuid() + 1, true}} {
		t.Run(name, func(t *testing.T) {
			k := &token{dir: t.TempDir(), env: os.Environ()}
			socket := filepath.Join(k.dir, "passed.sock")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			f, err := l.(*net.UnixListener).File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			c := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"`, os.Args[0]}, softArgs(t, k, "--allow-user", strconv.Itoa(row.user))...)...)
			c.Env = append(k.env, "KUBEPKI_KMS_TEST=program")
			c.ExtraFiles = []*os.File{f}
			var log safeBuffer
			c.Stderr = writer{&log}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Process.Kill(); c.Wait() })
			_, err = signer.Key(socket, "ca") // waits in the backlog until it listens
			if (err != nil) != row.refused {
				t.Errorf("refused is not %v: %v\n%s", row.refused, err, log.String())
			}
			if deadline := time.Now().Add(10 * time.Second); row.refused {
				for !strings.Contains(log.String(), `"msg":"refused","user":`+strconv.Itoa(os.Getuid())) && time.Now().Before(deadline) {
					time.Sleep(10 * time.Millisecond)
				}
				if time.Now().After(deadline) {
					t.Errorf("the refusal is not logged:\n%s", log.String())
				}
			}
		})
	}
}

type writer struct{ to *safeBuffer }

func (w writer) Write(p []byte) (int, error) { w.to.add(string(p)); return len(p), nil }
