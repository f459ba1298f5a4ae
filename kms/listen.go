package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/kubepki/kubepki/internal/unixsocket"
)

// listen opens the socket, for processes of the users allowed alone, in a folder
// that nobody else may enter, unless systemd passes it.
func listen(path string, allowed []uint32, connections int, log *slog.Logger) (net.Listener, error) {
	if !unixsocket.Passed() {
		if err := privateFolder(filepath.Dir(path)); err != nil {
			return nil, err
		}
	}
	return unixsocket.Listen(path, unixsocket.Options{Users: allowed, Mode: 0o600, Connections: connections, Log: log})
}

func privateFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; info.Mode().Perm()&0o077 != 0 || int(owner) != os.Geteuid() {
		return fmt.Errorf("folder %s of the socket must be of mode 0700 and of the user who runs this, not %s of user %d", dir, info.Mode().Perm(), owner)
	}
	return nil
}
