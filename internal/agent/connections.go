package agent

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// connections keeps those of a server few. Where one more comes than may be, another is
// closed for it rather than that it waits: who opens connections and says nothing would
// keep those away who ask for /healthz, and the agent would be started anew for it.
type connections struct {
	mu   sync.Mutex
	open map[net.Conn]*connection
	come uint64
}

// connection is what is known of one that is open.
type connection struct {
	answers bool   // a request was read, and is answered
	since   uint64 // in the order in which they came, or changed
}

// listen has what a listener accepts counted.
func (c *connections) listen(l net.Listener) net.Listener {
	c.open = map[net.Conn]*connection{}
	return &countedListener{l, c}
}

type countedListener struct {
	net.Listener
	all *connections
}

// Accept never waits for another connection to end.
func (l *countedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.all.add(conn)
	}
	return conn, err
}

func (c *connections) add(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= maxConnections {
		c.closeOne()
	}
	c.come++
	c.open[conn] = &connection{since: c.come}
}

// closeOne closes the oldest of those that say nothing; where all are answered, the one
// for which that has lasted longest.
func (c *connections) closeOne() {
	var worst net.Conn
	for conn, is := range c.open {
		if w := c.open[worst]; w == nil || !is.answers && w.answers || is.answers == w.answers && is.since < w.since {
			worst = conn
		}
	}
	if t, ok := worst.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // what was not sent by now is given up
	}
	_ = worst.Close() // its goroutine sees that
	delete(c.open, worst)
}

// changed is for [http.Server.ConnState].
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	is := c.open[conn]
	if is == nil {
		return // it was closed for another
	}
	switch state {
	case http.StateActive, http.StateIdle:
		c.come++
		is.answers, is.since = state == http.StateActive, c.come
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
	}
}
