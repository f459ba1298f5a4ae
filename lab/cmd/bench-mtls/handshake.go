package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
)

// server answers one byte on each connection, so that a client of TLS 1.3 has its
// session ticket when it has read it.
type server struct {
	listener net.Listener
}

// serve listens on a socket of its own.
func (w *world) serve(config *tls.Config) (*server, error) {
	l, err := net.Listen("unix", filepath.Join(w.folder, fmt.Sprintf("%d.sock", len(w.servers))))
	if err != nil {
		return nil, err
	}
	s := &server{listener: tls.NewListener(l, config)}
	w.servers = append(w.servers, s)
	go func() {
		for {
			c, err := s.listener.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte{1})
			c.Close()
		}
	}()
	return s, nil
}

func (s *server) close() { _ = s.listener.Close() }

// handshake returns what connects once, and checks whether the session was
// resumed as it should be, but for the first.
func (w *world) handshake(b both, resumed bool) func() error {
	s, err := w.serve(b.server)
	if err != nil {
		return func() error { return err }
	}
	first := true
	return func() error {
		raw, err := net.Dial("unix", s.listener.Addr().String())
		if err != nil {
			return err
		}
		defer raw.Close()
		c := tls.Client(raw, b.client())
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			return err
		}
		if got := c.ConnectionState().DidResume; got != resumed && !first {
			return errors.New("the session was not resumed, or was where it should not be")
		}
		first = false
		return nil
	}
}
