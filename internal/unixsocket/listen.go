package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kubepki/kubepki/internal/connlimit"
)

// Options say who may connect.
type Options struct {
	// Users may, by their ids, which the kernel tells of whoever connects
	// (SO_PEERCRED, unix(7)). Others are cut off before a byte is read.
	Users []uint32
	// Mode is the file's: connecting needs the right to write.
	Mode fs.FileMode
	// Connections may be open at once. For one more another is closed, first one that has
	// said nothing.
	Connections int
	// Log hears of each connection, by user and process.
	Log *slog.Logger
}

// maxPath is how long the path of a socket may be, in bytes (unix(7)).
const maxPath = 107

// Listen opens the socket at a path, or takes the one that systemd passes
// (sd_listen_fds(3)), whatever its path.
//
// The path must be below folders in which others can put nothing; the last one
// is made if it is missing. The socket that a process left behind when it was
// killed is replaced; one at which somebody listens, and a file of another kind,
// are errors. A file PATH.lock stays: it is locked while the socket is served.
func Listen(path string, o Options) (net.Listener, error) {
	l, err := passed()
	if l == nil && err == nil {
		l, err = create(path, o.Mode)
	}
	if err != nil {
		return nil, err
	}
	return connlimit.Stream(&peerListener{l, o.Users, o.Log}, o.Connections), nil
}

// Passed tells whether systemd passes a socket to this process.
func Passed() bool { return os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) }

// passed returns the socket that systemd passes, or nil.
func passed() (net.Listener, error) {
	if !Passed() {
		return nil, nil
	}
	if n := os.Getenv("LISTEN_FDS"); n != "1" {
		return nil, fmt.Errorf("LISTEN_FDS is %q: one socket is expected", n)
	}
	f := os.NewFile(3, "socket")
	defer f.Close() // FileListener has a copy
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("the socket passed by systemd: %w", err)
	}
	if _, ok := l.(*net.UnixListener); !ok {
		return nil, errors.New("the socket passed by systemd is not a unix stream socket")
	}
	return l, nil
}

// ErrAbstract tells that a name is of the abstract namespace, which has no
// folder: whoever comes first has the name, whatever user it is.
var ErrAbstract = errors.New("an abstract socket cannot be kept from others")

func create(path string, mode fs.FileMode) (net.Listener, error) {
	switch {
	case strings.HasPrefix(path, "@"):
		return nil, fmt.Errorf("%s: %w", path, ErrAbstract)
	case len(path) > maxPath:
		return nil, fmt.Errorf("%s: the path of a socket has at most %d bytes, and this one %d", path, maxPath, len(path))
	}
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := checkFolders(filepath.Dir(path)); err != nil {
		return nil, err
	}
	lock, err := lock(path + ".lock")
	if err != nil {
		return nil, err
	}
	l, err := bind(path, mode)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &lockedListener{Listener: l, lock: lock}, nil
}

func bind(path string, mode fs.FileMode) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// Whoever was quicker than this is judged by user all the same.
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// lock takes a lock that lasts until the file is closed, or the process ends.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: another process serves this socket: %w", path, err)
	}
	return f, nil
}

// lockedListener keeps the lock until the socket is gone.
type lockedListener struct {
	net.Listener
	lock *os.File
}

// Close removes the socket. It may be called again.
func (l *lockedListener) Close() error {
	err := l.Listener.Close()
	l.lock.Close()
	return err
}

// removeStale removes a socket at which nobody listens.
func removeStale(path string) error {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("%s: another process listens there: stop it first", path), c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// peerListener accepts connections of some users alone, whom the kernel names.
type peerListener struct {
	net.Listener
	users []uint32
	log   *slog.Logger
}

// Accept waits for a connection of a user who is allowed.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		user, process, err := peerOf(c)
		if err == nil && slices.Contains(l.users, user) {
			l.log.Info("connected", "user", user, "process", process)
			return c, nil
		}
		if err != nil {
			l.log.Warn("refused", "error", err.Error())
		} else {
			l.log.Warn("refused", "user", user, "process", process)
		}
		c.Close()
	}
}
