package mtlshttp_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
)

// proxy speaks CONNECT (RFC 9110 section 9.3.6) and SOCKS (RFC 1928, with the
// passwords of RFC 1929) on one socket.
type proxy struct {
	addr  string
	count atomic.Int32
}

func newProxy(t testing.TB) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &proxy{addr: l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.count.Add(1)
			go p.serve(c)
		}
	}()
	return p
}

func (p *proxy) serve(near net.Conn) {
	defer near.Close()
	r := bufio.NewReader(near)
	first, err := r.Peek(1)
	if err != nil {
		return
	}
	ask, answer := connect, "HTTP/1.1 200 OK\r\n\r\n"
	if first[0] == 5 {
		ask, answer = socks, "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	}
	to, err := ask(near, r)
	if err != nil {
		return
	}
	far, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer far.Close()
	io.WriteString(near, answer)
	go func() {
		io.Copy(far, r)
		far.Close()
	}()
	io.Copy(near, far)
}

func connect(_ net.Conn, r *bufio.Reader) (string, error) {
	request, err := http.ReadRequest(r)
	if err != nil {
		return "", err
	}
	if request.Method != http.MethodConnect {
		return "", errors.New("not CONNECT")
	}
	return request.Host, nil
}

// socks takes a user's name and password, and a domain's name.
func socks(w net.Conn, r *bufio.Reader) (string, error) {
	text := func() string { // with its length before it
		n, _ := r.ReadByte()
		b := make([]byte, n)
		io.ReadFull(r, b)
		return string(b)
	}
	r.Discard(1) // version
	text()       // methods
	w.Write([]byte{5, 2})
	r.Discard(1)
	text()
	text()
	w.Write([]byte{1, 0})
	r.Discard(4) // version, command, reserved, kind of address
	host := text()
	port := make([]byte, 2)
	if _, err := io.ReadFull(r, port); err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(port)))), nil
}
