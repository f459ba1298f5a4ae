package connlimit

import (
	"net"
)

// Stream keeps at most so many of the connections that a listener accepts, whatever is
// spoken on them. Of those that are open the oldest is closed from which nothing ever
// came; where there is none, the one that has been silent for longest.
func Stream(l net.Listener, most int) net.Listener { return &streams{l, newTable(most)} }

type streams struct {
	net.Listener
	all *table
}

// Accept waits for a connection, never for another to end.
func (l *streams) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.all.add(conn)
	return &stream{conn, l.all}, nil
}

type stream struct {
	net.Conn
	all *table
}

// Read reads, and takes note that the other side speaks.
func (c *stream) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.all.changed(c.Conn, true)
	}
	return n, err
}

// Close closes the connection.
func (c *stream) Close() error {
	c.all.gone(c.Conn)
	return c.Conn.Close()
}
