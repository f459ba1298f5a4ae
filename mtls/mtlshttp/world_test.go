package mtlshttp_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/mtlshttp"
)

const (
	forServers = x509.ExtKeyUsageServerAuth
	forClients = x509.ExtKeyUsageClientAuth
)

// leaf makes a credential, of localhost and 127.0.0.1, that lives an hour from now
// on but for what change says.
func leaf(t testing.TB, a issue.Authority, name string, usage x509.ExtKeyUsage, change ...func(*issue.Template)) *tls.Certificate {
	t.Helper()
	usual := []func(*issue.Template){tlstest.In(name + "s"), tlstest.At("localhost", "127.0.0.1"), tlstest.For(usage)}
	return tlstest.Leaf(t, a, name, append(usual, change...)...)
}

// source shows a certificate, which may be nil, and trusts some authorities.
func source(t testing.TB, show *tls.Certificate, trusted ...issue.Authority) *mtls.Memory {
	t.Helper()
	m := &mtls.Memory{}
	set(t, m, show, trusted...)
	return m
}

func set(t testing.TB, m *mtls.Memory, show *tls.Certificate, trusted ...issue.Authority) {
	t.Helper()
	if err := m.Set(*tlstest.Snapshot(t, show, trusted...)); err != nil {
		t.Fatal(err)
	}
}

// text collects what several goroutines write.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *text) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *text) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// service is a server on a socket.
type service struct {
	*http.Server
	log  text
	addr string // 127.0.0.1:PORT
	port string

	mu    sync.Mutex
	conns map[net.Conn]http.ConnState
	came  int
}

// serve serves until the test ends.
func serve(t testing.TB, s mtls.Source, clients mtls.Clients, allow mtls.Authorizer, h http.Handler) *service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &service{addr: l.Addr().String(), conns: map[net.Conn]http.ConnState{}}
	_, v.port, _ = net.SplitHostPort(v.addr)
	guard := &mtlshttp.Guard{Source: s, Allow: allow, Log: slog.New(slog.NewTextHandler(&v.log, nil))}
	v.Server = mtlshttp.NewServer(s, clients, guard.Handler(h))
	v.ErrorLog = log.New(&v.log, "", 0)
	v.ConnState = v.state
	go v.ServeTLS(l, "", "")
	t.Cleanup(func() { v.Close() })
	return v
}

func (v *service) state(c net.Conn, now http.ConnState) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch now {
	case http.StateNew:
		v.came++
	case http.StateClosed, http.StateHijacked:
		delete(v.conns, c)
		return
	}
	v.conns[c] = now
}

// connections tells how many have come, and how many stand.
func (v *service) connections() (came, stand int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.came, len(v.conns)
}

// eventually waits for what other goroutines, or the other side, are about to do.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// hello tells who called, by which certificate, and over what.
var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	peer, ok := mtls.FromContext(r.Context())
	if !ok {
		panic("no peer in the context")
	}
	io.WriteString(w, peer.Certificate.Subject.CommonName+" "+r.Proto)
})

// client has a transport of its own.
func client(t testing.TB, s mtls.Source, server mtls.Authorizer, change ...func(*mtlshttp.Transport)) *http.Client {
	t.Helper()
	transport := mtlshttp.NewTransport(s, server)
	transport.Base.Proxy = nil
	for _, f := range change {
		f(transport)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func http1(t *mtlshttp.Transport) {
	t.Base.Protocols = &http.Protocols{}
	t.Base.Protocols.SetHTTP1(true)
}

// protocols are what each row is asked over.
var protocols = map[string]func(*mtlshttp.Transport){"HTTP/1.1": http1, "HTTP/2.0": func(*mtlshttp.Transport) {}}

// get returns the status and the body.
func get(t testing.TB, c *http.Client, url string) (int, string) {
	t.Helper()
	status, body, err := try(c, url)
	if err != nil {
		t.Fatal(err)
	}
	return status, body
}

func try(c *http.Client, url string) (int, string, error) {
	answer, err := c.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, strings.TrimSpace(string(body)), err
}
