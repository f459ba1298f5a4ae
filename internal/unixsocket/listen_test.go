package unixsocket_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/unixsocket"
)

// helperEnv makes the test binary listen at a path until it is killed.
const helperEnv = "KUBEPKI_UNIXSOCKET_TEST"

func TestMain(m *testing.M) {
	path := os.Getenv(helperEnv)
	if path == "" {
		os.Exit(m.Run())
	}
	if _, err := unixsocket.Listen(path, options(io.Discard)); err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString("listening\n")
	time.Sleep(time.Minute) // the end comes before
}

func options(log io.Writer) unixsocket.Options {
	return unixsocket.Options{
		Users: []uint32{uint32(os.Geteuid())}, Mode: 0o600, Connections: 4, Log: slog.New(slog.NewTextHandler(log, nil)),
	}
}

// process starts another process that listens.
func process(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), helperEnv+"="+path)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	line := make([]byte, 256)
	if n, err := out.Read(line); err != nil || string(line[:n]) != "listening\n" {
		t.Fatalf("it says %q, %v", line[:n], err)
	}
	return c
}

// echo serves connections and returns what a client got of its own.
func echo(t *testing.T, l net.Listener, path string) error {
	t.Helper()
	go func() {
		for { // one may have come to see whether anybody listens
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("x"))
			c.Close()
		}
	}()
	c, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

func listen(t *testing.T, path string, o unixsocket.Options) net.Listener {
	t.Helper()
	l, err := unixsocket.Listen(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "a.sock")
	l := listen(t, path, options(io.Discard))
	for name, want := range map[string]fs.FileMode{path: 0o600 | fs.ModeSocket, path + ".lock": 0o600, filepath.Dir(path): 0o755 | fs.ModeDir} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s is of mode %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	if err := echo(t, l, path); err != nil {
		t.Error(err)
	}
	l.Close()
	if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed again: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	if err := echo(t, listen(t, path, options(io.Discard)), path); err != nil {
		t.Error(err)
	}
}

func TestSocketOfAKilledProcessIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	other := process(t, path)
	if _, err := unixsocket.Listen(path, options(io.Discard)); err == nil || !strings.Contains(err.Error(), "another process serves this socket") {
		t.Errorf("while it lives: %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the socket of the living one is gone: %v", err)
	} else {
		c.Close()
	}
	other.Process.Kill()
	other.Wait()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("it left nothing behind: %v", err)
	}
	if err := echo(t, listen(t, path, options(io.Discard)), path); err != nil {
		t.Error(err)
	}
}

func TestSocketOfAnotherProgramIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := unixsocket.Listen(path, options(io.Discard)); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("got %v", err)
	}
	if err := echo(t, other, path); err != nil {
		t.Error(err)
	}
}

// It cannot be told whether anybody uses a socket of another kind.
func TestSocketOfAnotherKindIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	other, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := unixsocket.Listen(path, options(io.Discard)); err == nil {
		t.Error("its place is taken")
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func TestOtherUsersAreCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	var log bytes.Buffer // read when Accept has ended
	o := options(&log)
	o.Users = []uint32{uint32(os.Geteuid()) + 1}
	l := listen(t, path, o)
	ended := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			c.Close()
			err = errors.New("it was let in")
		}
		ended <- err
	}()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read %d, %v", n, err)
	}
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "msg=refused user=") {
		t.Errorf("the log says %q", &log)
	}
}

func TestPlacesWhereOthersCouldPutASocket(t *testing.T) {
	base := t.TempDir()
	mkdir := func(name string, mode fs.FileMode) string {
		t.Helper()
		dir := filepath.Join(base, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	mkdir("open/inner", 0o755)
	mkdir("sticky/inner", 0o755)
	rows := map[string]struct{ path, want string }{
		"a folder of one's own":                       {filepath.Join(mkdir("own", 0o700), "a.sock"), ""},
		"one that others may enter":                   {filepath.Join(mkdir("entered", 0o755), "a.sock"), ""},
		"one that a group may write":                  {filepath.Join(mkdir("group", 0o775), "a.sock"), "others could put a socket of theirs there"},
		"one that all may write":                      {filepath.Join(mkdir("open", 0o777), "a.sock"), "others could put a socket of theirs there"},
		"one like /tmp":                               {filepath.Join(mkdir("sticky", 0o777|fs.ModeSticky), "a.sock"), "others could put a socket of theirs there"},
		"a good one in one that all may write":        {filepath.Join(base, "open/inner/a.sock"), "folder " + base + "/open of the socket is of mode"},
		"a good one in one like /tmp":                 {filepath.Join(base, "sticky/inner/a.sock"), ""},
		"a link to one that all may write":            {filepath.Join(base, "link/a.sock"), "others could put a socket of theirs there"},
		"an abstract socket":                          {"@a", "cannot be kept from others"},
		"a path that is too long":                     {filepath.Join(base, strings.Repeat("a", 108)), "at most 107 bytes"},
		"a folder that cannot be made":                {filepath.Join(base, "none/none/a.sock"), "no such file"},
		"a folder that is a file":                     {filepath.Join(base, "file/a.sock"), "not a directory"},
		"a file that is no socket where it should be": {filepath.Join(base, "precious"), "is not a socket"},
	}
	if err := os.Symlink("open", filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "precious"} {
		if err := os.WriteFile(filepath.Join(base, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			l, err := unixsocket.Listen(row.path, options(io.Discard))
			if err == nil {
				l.Close()
			}
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
	if data, err := os.ReadFile(filepath.Join(base, "precious")); err != nil || string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestFolderOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a folder to another user")
	}
	dir := filepath.Join(t.TempDir(), "theirs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 1234, -1); err != nil {
		if errors.Is(err, syscall.EINVAL) {
			t.Skip("a user namespace in which there is no other user")
		}
		t.Fatal(err)
	}
	if _, err := unixsocket.Listen(filepath.Join(dir, "a.sock"), options(io.Discard)); err == nil || !strings.Contains(err.Error(), "belongs to user 1234") {
		t.Errorf("got %v", err)
	}
}
