package main

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
	"syscall"

	"golang.org/x/net/netutil"
)

// listen opens the socket, for processes of the users allowed alone. The socket
// of a process that was killed is replaced, that of one that lives is not.
func listen(path string, allowed []uint32, connections int, log *slog.Logger) (net.Listener, error) {
	l, err := passed()
	if l == nil && err == nil {
		l, err = create(path)
	}
	if err != nil {
		return nil, err
	}
	return netutil.LimitListener(&peerListener{l, allowed, log}, connections), nil
}

// passed returns the socket that systemd passes (sd_listen_fds(3)), or nil.
func passed() (net.Listener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
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

func create(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; info.Mode().Perm()&0o077 != 0 || int(owner) != os.Geteuid() {
		return nil, fmt.Errorf("folder %s of the socket must be of mode 0700 and of the user who runs this, not %s of user %d", dir, info.Mode().Perm(), owner)
	}
	if err := lock(path + ".lock"); err != nil {
		return nil, err
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s exists and is not a socket", path)
	default:
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, 0o600)
}

// lock takes a lock that lasts as long as the process.
func lock(path string) error {
	fd, err := syscall.Open(path, syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("%s: another kubepki-kms serves this socket: %w", path, err)
	}
	return nil
}

// peerListener accepts connections of some users alone, whom the kernel names.
type peerListener struct {
	net.Listener
	allowed []uint32
	log     *slog.Logger
}

// Accept waits for a connection of a user who is allowed.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer, err := peerOf(c)
		if err == nil && slices.Contains(l.allowed, peer.Uid) {
			l.log.Info("connected", "user", peer.Uid, "process", peer.Pid)
			return c, nil
		}
		if err != nil {
			l.log.Warn("refused", "error", err.Error())
		} else {
			l.log.Warn("refused", "user", peer.Uid, "process", peer.Pid)
		}
		c.Close()
	}
}

// peerOf returns who connected: SO_PEERCRED, unix(7).
func peerOf(c net.Conn) (*syscall.Ucred, error) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a connection of type %T names no peer", c)
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *syscall.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) {
		peer, inner = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	return peer, errors.Join(err, inner)
}
