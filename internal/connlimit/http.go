package connlimit

import (
	"crypto/tls"
	"net"
	"net/http"
)

// HTTP has a server keep at most so many of the connections that a listener accepts, and
// returns the listener for it. It takes the server's ConnState. Of those that are open the
// oldest is closed that asks for nothing, one whose handshake is not done too; where all
// are answered, the one for which that has lasted longest.
func HTTP(server *http.Server, l net.Listener, most int) net.Listener {
	t := newTable(most)
	server.ConnState = t.state
	return &counted{l, t}
}

// counted is a listener whose Accept never waits for another connection to end.
type counted struct {
	net.Listener
	all *table
}

// Accept waits for a connection.
func (l *counted) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.all.add(conn)
	}
	return conn, err
}

// state is for [http.Server.ConnState].
func (t *table) state(conn net.Conn, state http.ConnState) {
	if c, ok := conn.(*tls.Conn); ok {
		conn = c.NetConn()
	}
	switch state {
	case http.StateActive, http.StateIdle:
		t.changed(conn, state == http.StateActive)
	case http.StateClosed, http.StateHijacked:
		t.gone(conn)
	}
}
