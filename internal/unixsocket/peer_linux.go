package unixsocket

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// peerOf returns who connected: SO_PEERCRED, unix(7).
func peerOf(c net.Conn) (user uint32, process int32, err error) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return 0, 0, fmt.Errorf("a connection of type %T names no peer", c)
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var peer *syscall.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) {
		peer, inner = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(err, inner); err != nil {
		return 0, 0, err
	}
	return peer.Uid, peer.Pid, nil
}
