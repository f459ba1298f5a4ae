package mtls_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
)

// pipes is a listener without sockets, so that time goes on in a bubble.
type pipes struct{ dialled chan net.Conn }

func (p *pipes) Accept() (net.Conn, error) { return <-p.dialled, nil }
func (p *pipes) Close() error              { return nil }
func (p *pipes) Addr() net.Addr            { return nil }

// pair is two sources, one for each side, that trust one authority, and a
// connection whose both sides are looked at.
type pair struct {
	ca             issue.Authority
	server, client changing
	served, dialed *mtls.Connections

	mu  sync.Mutex
	why []string // of the connections that were closed
}

func newPair(t testing.TB) *pair {
	p := &pair{ca: tlstest.Authority(t, "ca")}
	p.server.set(t, leaf(t, p.ca, "server", forServers), p.ca)
	p.client.set(t, leaf(t, p.ca, "jane", forClients), p.ca)
	told := func(_ net.Addr, why error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.why = append(p.why, why.Error())
	}
	p.served, p.dialed = mtls.NewConnections(&p.server, told), mtls.NewConnections(&p.client, told)
	return p
}

// connect makes a connection, and returns the client's side.
func (p *pair) connect(t testing.TB, clients mtls.Clients) *tls.Conn {
	t.Helper()
	near, far := net.Pipe()
	listener := tls.NewListener(p.served.Listener(&pipes{dialled: newChannel(far)}), mtls.ServerConfig(&p.server, clients))
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.Copy(accepted, accepted)
		accepted.Close()
	}()
	raw, config := p.dialed.Dialled(near, nil, "server.example.test:443")
	c := tls.Client(raw, config)
	t.Cleanup(func() { c.Close() })
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := (&link{client: c}).echo(); err != nil {
		t.Fatal(err)
	}
	return c
}

func newChannel(c net.Conn) chan net.Conn {
	one := make(chan net.Conn, 1)
	one <- c
	return one
}

func TestConnectionsNoLongerGoodAreClosed(t *testing.T) {
	rows := map[string]struct {
		harm    func(t *testing.T, p *pair)
		clients mtls.Clients
		want    string // why it is closed; empty: it goes on
	}{
		"nothing has changed": {func(*testing.T, *pair) {}, mtls.RequireClients, ""},
		"the server trusts the client's authority no more": {func(t *testing.T, p *pair) {
			p.server.set(t, leaf(t, p.ca, "server", forServers), tlstest.Authority(t, "ca"))
		}, mtls.RequireClients, `the other side, "CN=jane": x509: certificate signed by unknown authority`},
		"the client trusts the server's authority no more": {func(t *testing.T, p *pair) {
			p.client.set(t, leaf(t, p.ca, "jane", forClients), tlstest.Authority(t, "ca"))
		}, mtls.RequireClients, `the other side, "CN=server": x509: certificate signed by unknown authority`},
		"the server trusts one more": {func(t *testing.T, p *pair) {
			p.server.set(t, leaf(t, p.ca, "server", forServers), tlstest.Authority(t, "more"), p.ca)
		}, mtls.RequireClients, ""},
		"the authority was certified anew": {func(t *testing.T, p *pair) {
			p.server.set(t, leaf(t, p.ca, "server", forServers), tlstest.Certify(t, "ca", p.ca.Key))
		}, mtls.RequireClients, ""},
		"the certificates have expired":         {func(*testing.T, *pair) { time.Sleep(2 * time.Hour) }, mtls.RequireClients, "expired"},
		"they will in a second":                 {func(*testing.T, *pair) { time.Sleep(time.Hour - time.Second) }, mtls.RequireClients, ""},
		"the server's certificate was replaced": {func(t *testing.T, p *pair) { p.server.set(t, leaf(t, p.ca, "server", forServers), p.ca) }, mtls.RequireClients, ""},
		"it was, and such connections are to be closed": {func(t *testing.T, p *pair) {
			p.served.CloseReplaced()
			p.server.set(t, leaf(t, p.ca, "server", forServers), p.ca)
		}, mtls.RequireClients, "was replaced"},
		"the client's certificate was replaced": {func(t *testing.T, p *pair) { p.client.set(t, leaf(t, p.ca, "jane", forClients), p.ca) }, mtls.RequireClients, ""},
		"it was, and such connections of clients are to be closed": {func(t *testing.T, p *pair) {
			p.dialed.CloseReplaced()
			p.client.set(t, leaf(t, p.ca, "jane", forClients), p.ca)
		}, mtls.RequireClients, "was replaced"},
		"it is the same, in another snapshot, without Leaf": {func(_ *testing.T, p *pair) {
			p.dialed.CloseReplaced()
			now := *p.client.now.Load()
			now.Certificate = &tls.Certificate{Certificate: now.Certificate.Certificate, PrivateKey: now.Certificate.PrivateKey}
			p.client.now.Store(&now)
		}, mtls.RequireClients, ""},
		"it was, where the client has shown none": {func(t *testing.T, p *pair) {
			p.dialed.CloseReplaced()
			p.client.set(t, leaf(t, p.ca, "jane", forClients), p.ca)
		}, mtls.NoClients, ""},
		"the client's certificate has expired, and the server's has not": {func(t *testing.T, p *pair) {
			p.served = mtls.NewConnections(&p.server, nil) // which has none
			time.Sleep(2 * time.Hour)
		}, mtls.RequireClients, `that we show on it, "CN=jane", expired`},
		"nothing was, and such connections are to be closed": {func(_ *testing.T, p *pair) { p.served.CloseReplaced() }, mtls.RequireClients, ""},
		"the bundle is gone": {func(t *testing.T, p *pair) {
			p.server.now.Store(&mtls.Snapshot{Certificate: p.server.now.Load().Certificate})
		}, mtls.RequireClients, ""},
		"the client is not judged by the handshake": {func(t *testing.T, p *pair) {
			p.server.set(t, leaf(t, p.ca, "server", forServers), tlstest.Authority(t, "ca"))
		}, mtls.UnverifiedClients, ""},
		"the client is not asked, the server's has expired": {func(*testing.T, *pair) { time.Sleep(2 * time.Hour) }, mtls.NoClients, `that we show on it, "CN=server", expired`},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				c := p.connect(t, row.clients)
				if a, b := p.served.Len(), p.dialed.Len(); a != 1 || b != 1 {
					t.Fatalf("%d and %d are looked at", a, b)
				}
				row.harm(t, p)
				for range 2 { // the second look is the quick one
					p.served.CloseStale()
					p.dialed.CloseStale()
				}
				synctest.Wait()
				err := (&link{client: c}).echo()
				switch why := strings.Join(p.why, "\n"); {
				case row.want == "" && (err != nil || why != ""):
					t.Errorf("it was closed: %q, %v", why, err)
				case row.want != "" && (err == nil || !strings.Contains(why, row.want)):
					t.Errorf("got %q, %v, want %q", why, err, row.want)
				}
				c.Close()
				synctest.Wait()
				if a, b := p.served.Len(), p.dialed.Len(); a != 0 || b != 0 {
					t.Errorf("%d and %d are still looked at", a, b)
				}
			})
		})
	}
}

// Sources of others may have certificates without Leaf, as net/http takes them.
func TestConnectionsShowingCertificatesWithoutLeaf(t *testing.T) {
	for name, row := range map[string]struct {
		harm func(t *testing.T, p *pair)
		want string
	}{
		"it is the same":  {func(*testing.T, *pair) {}, ""},
		"it was replaced": {func(t *testing.T, p *pair) { p.client.set(t, leaf(t, p.ca, "jane", forClients), p.ca) }, "was replaced"},
		"it has expired":  {func(*testing.T, *pair) { time.Sleep(2 * time.Hour) }, `that we show on it, "CN=jane", expired`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				p.dialed.CloseReplaced()
				bare := leaf(t, p.ca, "jane", forClients)
				bare.Leaf = nil
				p.client.set(t, bare, p.ca)
				c := p.connect(t, mtls.RequireClients)
				row.harm(t, p)
				closed := p.dialed.CloseStale()
				if why := strings.Join(p.why, "\n"); (closed == 1) != (row.want != "") || !strings.Contains(why, row.want) {
					t.Errorf("%d were closed: %q, want %q", closed, why, row.want)
				}
				c.Close()
			})
		})
	}
}

// Nothing is judged before the handshake is over, and Run ends with its context.
func TestConnectionsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		near, far := net.Pipe()
		silent, _ := p.served.Listener(&pipes{dialled: newChannel(far)}).Accept()
		c := p.connect(t, mtls.RequireClients)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { p.served.Run(ctx, 10*time.Second); close(ended) }()
		p.server.set(t, leaf(t, p.ca, "server", forServers), tlstest.Authority(t, "ca"))
		time.Sleep(11 * time.Second)
		if err := (&link{client: c}).echo(); err == nil || len(p.why) != 1 {
			t.Errorf("after a look: %v, %q", err, p.why)
		}
		if p.served.Len() != 1 {
			t.Errorf("%d are looked at, want the one in its handshake", p.served.Len())
		}
		stop()
		<-ended
		silent.Close()
		near.Close()
	})
}

// What listens may be wrapped once more, as long as the wrapper says so.
func TestConnectionsBelowWrappers(t *testing.T) {
	for name, row := range map[string]struct {
		wrap func(net.Conn) net.Conn
		want int
	}{
		"one that tells what it wraps": {func(c net.Conn) net.Conn { return telling{c} }, 1},
		"one that does not":            {func(c net.Conn) net.Conn { return struct{ net.Conn }{c} }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			near, far := net.Pipe()
			raw, _ := p.served.Listener(&pipes{dialled: newChannel(far)}).Accept()
			server := tls.Server(row.wrap(raw), mtls.ServerConfig(&p.server, mtls.RequireClients))
			go func() { _, _ = io.Copy(server, server) }()
			client := tls.Client(near, mtls.DialledAt(&p.client, nil, "server.example.test"))
			if err := client.Handshake(); err != nil {
				t.Fatal(err)
			}
			if err := (&link{client: client}).echo(); err != nil {
				t.Fatal(err)
			}
			p.server.set(t, leaf(t, p.ca, "server", forServers), tlstest.Authority(t, "ca"))
			if got := p.served.CloseStale(); got != row.want {
				t.Errorf("%d were closed, want %d", got, row.want)
			}
			near.Close()
			server.Close()
			raw.Close()
		})
	}
}

type telling struct{ net.Conn }

func (t telling) NetConn() net.Conn { return t.Conn }
