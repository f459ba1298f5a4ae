//go:build linux

package lab_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// front is a TLS server of the test's own, before a server of the cluster or in
// the place of one. It sees which certificate and token a component shows, and
// asks whether the component would trust another serving certificate.
type front struct {
	address string
	usual   tls.Certificate
	other   tls.Certificate // of the authority that is put into the bundle
	clients tls.ClientAuthType
	serve   func(*tls.Conn)

	mu         sync.Mutex
	connected  map[net.Conn]string // the serial that the component showed
	handshakes int
	serial     string // shown last
	token      string // shown last
	asking     chan error
}

// newFront listens at the test's own address. serve is given each connection
// after its handshake and closes it.
func newFront(t *testing.T, usual, other credential, clients tls.ClientAuthType) *front {
	t.Helper()
	f := &front{usual: usual.pair(t), other: other.pair(t), clients: clients, connected: map[net.Conn]string{}}
	listener, err := net.Listen("tcp", "10.99.0.254:0")
	if err != nil {
		t.Fatal(err)
	}
	f.address = listener.Addr().String()
	t.Cleanup(func() {
		_ = listener.Close()
		f.disconnect()
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go f.shake(conn)
		}
	}()
	return f
}

func (f *front) url() string { return "https://" + f.address }

func (f *front) shake(raw net.Conn) {
	f.mu.Lock()
	certificate, asking := f.usual, f.asking
	if asking != nil {
		certificate, f.asking = f.other, nil
	}
	f.mu.Unlock()
	conn := tls.Server(raw, &tls.Config{
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   f.clients,
		NextProtos:   []string{"h2", "http/1.1"},
		MinVersion:   tls.VersionTLS12,
	})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := conn.HandshakeContext(ctx)
	if asking != nil {
		asking <- err
	}
	if err != nil {
		_ = raw.Close()
		return
	}
	serial := serialOf(conn.ConnectionState())
	f.mu.Lock()
	f.handshakes++
	if serial != "" {
		f.serial = serial
	}
	f.connected[conn] = serial
	f.mu.Unlock()
	f.serve(conn)
}

// serialOf is the serial of the certificate that the other side has shown,
// empty without one.
func serialOf(state tls.ConnectionState) string {
	if len(state.PeerCertificates) == 0 {
		return ""
	}
	return state.PeerCertificates[0].SerialNumber.Text(16)
}

// trusts presents the other certificate at the next handshake and tells
// whether the component took it. Whatever is connected is disconnected, and
// provoke, if any, makes the component connect again.
func (f *front) trusts(ctx context.Context, provoke func(context.Context)) (bool, error) {
	asking := make(chan error, 1)
	f.mu.Lock()
	f.asking = asking
	f.mu.Unlock()
	f.disconnect()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if provoke != nil {
		go provoke(ctx)
	}
	select {
	case err := <-asking:
		if err != nil && !refused(err) {
			return false, err
		}
		return err == nil, nil
	case <-ctx.Done():
		f.mu.Lock()
		f.asking = nil
		f.mu.Unlock()
		return false, errors.New("the component does not connect")
	}
}

// refused tells whether an error is the other side's TLS alert.
func refused(err error) bool { return strings.Contains(err.Error(), "remote error: tls: ") }

func (f *front) disconnect() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for conn := range f.connected {
		_ = conn.(*tls.Conn).NetConn().Close()
		delete(f.connected, conn)
	}
}

// count is the number of handshakes so far, and that of the connections on
// which a certificate of that serial was shown.
func (f *front) count(serial string) (handshakes, connected int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.connected {
		if s == serial {
			connected++
		}
	}
	return f.handshakes, connected
}

func (f *front) shown() (serial, token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.serial, f.token
}

// noteRequest notes what a request shows.
func (f *front) noteRequest(r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if serial := serialOf(*r.TLS); serial != "" {
		f.serial = serial
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		f.token = token
	}
}

// handle makes the front an HTTP server.
func (f *front) handle(t *testing.T, handler http.Handler) *front {
	accepted := make(chan net.Conn)
	done := make(chan struct{})
	f.serve = func(conn *tls.Conn) {
		select {
		case accepted <- conn:
		case <-done:
		}
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f.noteRequest(r)
			handler.ServeHTTP(w, r)
		}),
		ConnState: func(conn net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				f.mu.Lock()
				delete(f.connected, conn)
				f.mu.Unlock()
			}
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go func() { _ = server.Serve(&handed{accepted, done, f.address}) }()
	t.Cleanup(func() {
		close(done)
		_ = server.Close()
	})
	return f
}

// handed is a listener whose connections are handed to it.
type handed struct {
	conns   <-chan net.Conn
	done    <-chan struct{}
	address string
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}
func (h *handed) Close() error   { return nil }
func (h *handed) Addr() net.Addr { return &net.UnixAddr{Name: h.address, Net: "front"} }

// pipe makes the front hand every byte on to a server that asks for TLS itself.
func (f *front) pipe(address string, config *tls.Config) *front {
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	f.serve = func(conn *tls.Conn) {
		defer conn.Close()
		onward, err := tls.Dial("tcp", address, config)
		if err != nil {
			return
		}
		defer onward.Close()
		go func() {
			_, _ = io.Copy(onward, conn)
			_ = onward.Close()
		}()
		_, _ = io.Copy(conn, onward)
	}
	return f
}

// forward makes the front an authenticating proxy of the API server: it says
// whom a certificate names, and hands tokens on.
func (f *front) forward(t *testing.T, api *url.URL, proxy, anonymous http.RoundTripper) *front {
	return f.handle(t, &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(api)
			if certificates := r.In.TLS.PeerCertificates; len(certificates) > 0 {
				r.Out.Header.Set("X-Remote-User", certificates[0].Subject.CommonName)
				r.Out.Header["X-Remote-Group"] = certificates[0].Subject.Organization
			}
		},
		Transport: byCredential(func(r *http.Request) http.RoundTripper {
			if r.Header.Get("X-Remote-User") != "" {
				return proxy
			}
			return anonymous
		}),
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
	})
}

// byCredential chooses a transport for each request.
type byCredential func(*http.Request) http.RoundTripper

func (choose byCredential) RoundTrip(r *http.Request) (*http.Response, error) {
	return choose(r).RoundTrip(r)
}
