package connlimit

import (
	"net"
	"sync"
)

// table knows the connections that are open. It is safe for concurrent use.
type table struct {
	most int

	mu   sync.Mutex
	open map[net.Conn]*connection
	come uint64
}

// connection is what is known of one that is open.
type connection struct {
	heard bool   // it is worth more than one that says nothing
	since uint64 // in the order in which they came, or changed
}

func newTable(most int) *table { return &table{most: most, open: map[net.Conn]*connection{}} }

// add takes a connection that has come, and closes another where there are too many.
func (t *table) add(conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.open) >= t.most {
		t.closeOne()
	}
	t.come++
	t.open[conn] = &connection{since: t.come}
}

// closeOne closes the oldest of those that say nothing; where all are heard, the one
// for which nothing has changed for longest.
func (t *table) closeOne() {
	var worst net.Conn
	for conn, is := range t.open {
		if w := t.open[worst]; w == nil || !is.heard && w.heard || is.heard == w.heard && is.since < w.since {
			worst = conn
		}
	}
	if c, ok := worst.(*net.TCPConn); ok {
		_ = c.SetLinger(0) // what was not sent by now is given up
	}
	_ = worst.Close() // its goroutine sees that
	delete(t.open, worst)
}

// changed takes note of what a connection does now. One that was closed for another is
// not known any more.
func (t *table) changed(conn net.Conn, heard bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if is := t.open[conn]; is != nil {
		t.come++
		is.heard, is.since = heard, t.come
	}
}

func (t *table) gone(conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, conn)
}
