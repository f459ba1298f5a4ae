package mtlshttp_test

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"
)

// network is one in memory, for bubbles of testing/synctest: of sockets a bubble
// does not know whether they wait, and neither of the locks that crypto/tls holds
// while it writes to a [net.Pipe] that nobody reads.
type network struct {
	to   chan net.Conn
	done chan struct{}
	once sync.Once
}

func newNetwork() *network { return &network{to: make(chan net.Conn), done: make(chan struct{})} }

func (n *network) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case n.to <- buffer(far):
		return buffer(near), nil
	case <-n.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.to:
		return c, nil
	case <-n.done:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error {
	n.once.Do(func() { close(n.done) })
	return nil
}

func (n *network) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// buffered is an end of a pipe whose writes do not wait for who reads.
type buffered struct {
	net.Conn
	out  chan []byte
	done chan struct{}
	once sync.Once
}

func buffer(c net.Conn) *buffered {
	b := &buffered{Conn: c, out: make(chan []byte, 1000), done: make(chan struct{})}
	go b.pump()
	return b
}

func (b *buffered) pump() {
	defer b.Conn.Close()
	for {
		select {
		case data := <-b.out:
			if _, err := b.Conn.Write(data); err != nil {
				return
			}
		case <-b.done:
			for len(b.out) > 0 {
				if _, err := b.Conn.Write(<-b.out); err != nil {
					return
				}
			}
			return
		}
	}
}

func (b *buffered) Write(data []byte) (int, error) {
	select {
	case <-b.done:
		return 0, net.ErrClosed
	default:
	}
	select {
	case <-b.done:
		return 0, net.ErrClosed
	case b.out <- slices.Clone(data):
		return len(data), nil
	}
}

func (b *buffered) Close() error {
	b.once.Do(func() {
		b.Conn.SetWriteDeadline(time.Now().Add(time.Second)) // for what is on its way
		close(b.done)
	})
	return nil
}

func (b *buffered) SetDeadline(at time.Time) error   { return b.SetReadDeadline(at) }
func (b *buffered) SetWriteDeadline(time.Time) error { return nil } // writes do not wait
