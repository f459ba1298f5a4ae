package proof

import (
	"bytes"
	"io"
	"net"
	"sync"
	"time"
)

// pipe returns the two ends of a connection in memory. Unlike net.Pipe it
// buffers: an end that refuses the other may send its alert while the other
// still writes, as over a socket.
func pipe() (near, far net.Conn) {
	a, b := newQueue(), newQueue()
	return &end{in: a, out: b}, &end{in: b, out: a}
}

// queue is one direction of a pipe. What is written fits into memory: a
// handshake is some kilobytes.
type queue struct {
	mu     sync.Mutex
	more   *sync.Cond
	buffer bytes.Buffer
	closed bool
}

func newQueue() *queue {
	q := &queue{}
	q.more = sync.NewCond(&q.mu)
	return q
}

func (q *queue) Read(b []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.buffer.Len() == 0 && !q.closed {
		q.more.Wait()
	}
	if q.buffer.Len() == 0 {
		return 0, io.EOF
	}
	return q.buffer.Read(b)
}

func (q *queue) Write(b []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, io.ErrClosedPipe
	}
	defer q.more.Broadcast()
	return q.buffer.Write(b)
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.more.Broadcast()
}

// end is one end of a pipe. It needs no deadlines: each end writes without
// waiting, and closes when it is done.
type end struct{ in, out *queue }

func (e *end) Read(b []byte) (int, error)  { return e.in.Read(b) }
func (e *end) Write(b []byte) (int, error) { return e.out.Write(b) }

func (e *end) Close() error {
	e.in.close()
	e.out.close()
	return nil
}

func (e *end) LocalAddr() net.Addr              { return address{} }
func (e *end) RemoteAddr() net.Addr             { return address{} }
func (e *end) SetDeadline(time.Time) error      { return nil }
func (e *end) SetReadDeadline(time.Time) error  { return nil }
func (e *end) SetWriteDeadline(time.Time) error { return nil }

type address struct{}

func (address) Network() string { return "memory" }
func (address) String() string  { return "memory" }
