package mtls

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Connections closes connections that are no longer good: those whose other side
// the newest bundle trusts no more or whose certificate has expired, and those on
// which we show a certificate that has. Without it connections are left alone
// once they stand. It may be used by several goroutines.
//
// For a server, what listens is wrapped before TLS, and the configuration is that
// of [ServerConfig]:
//
//	connections := mtls.NewConnections(source, nil)
//	go connections.Run(ctx, 10*time.Second)
//	err = server.ServeTLS(connections.Listener(listener), "", "")
//
// Clients of mtlshttp and mtlsgrpc take one too. Of a server of
// [UnverifiedClients] the clients are not judged: [VerifyClient] does that for
// each request.
type Connections struct {
	source   Source
	told     func(peer net.Addr, why error)
	replaced bool

	mu   sync.Mutex
	open map[*watched]struct{}
}

// NewConnections returns an empty set of connections that use a source. told,
// which may be nil, hears of each connection that is closed, and why, for the own
// log; it should return soon.
func NewConnections(s Source, told func(peer net.Addr, why error)) *Connections {
	if told == nil {
		told = func(net.Addr, error) {}
	}
	return &Connections{source: s, told: told, open: map[*watched]struct{}{}}
}

// CloseReplaced says that connections on which we show another certificate than
// the source has now are closed too. It is to be called before the first one is
// added.
func (k *Connections) CloseReplaced() *Connections {
	k.replaced = true
	return k
}

// Len returns how many connections stand, those in their handshakes included.
func (k *Connections) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.open)
}

// Run looks at all connections each so often, until the context is done. A look
// takes about a microsecond for each connection.
func (k *Connections) Run(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.CloseStale()
		}
	}
}

// CloseStale closes the connections that are not good now, and returns how many.
// A look finds nothing while the source has an error or no bundle: connections
// are not closed for that.
func (k *Connections) CloseStale() int {
	now, err := snapshot(k.source)
	if err != nil {
		return 0
	}
	k.mu.Lock()
	all := make([]*watched, 0, len(k.open))
	for w := range k.open {
		all = append(all, w)
	}
	k.mu.Unlock()
	closed := 0
	for _, w := range all {
		if why := w.stale(now, k.replaced, time.Now()); why != nil {
			k.told(w.RemoteAddr(), why)
			_ = w.Close() // it is gone either way
			closed++
		}
	}
	return closed
}

// Listener returns a listener whose connections are looked at, for a server of
// [ServerConfig]. It is to be wrapped by TLS, and not the other way round.
func (k *Connections) Listener(l net.Listener) net.Listener { return &listener{l, k} }

type listener struct {
	net.Listener
	connections *Connections
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.connections.watch(c), nil
}

// Dialled returns a connection that is looked at, in place of one that was
// dialled, and the configuration for it, that of [DialledAt]. It is for programs
// that dial themselves.
func (k *Connections) Dialled(c net.Conn, server Authorizer, address string) (net.Conn, *tls.Config) {
	w := k.watch(c)
	config := DialledAt(k.source, server, address)
	certificate, verify := config.GetClientCertificate, config.VerifyConnection
	// It is asked for after the server was verified.
	config.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		shown, err := certificate(r)
		if err == nil {
			w.shows(shown)
		}
		return shown, err
	}
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if err := verify(state); err != nil {
			return err
		}
		w.note(&standing{&state, x509.ExtKeyUsageServerAuth})
		return nil
	}
	return w, config
}

func (k *Connections) watch(c net.Conn) *watched {
	w := &watched{Conn: c, of: k}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open[w] = struct{}{}
	return w
}

// watched is a connection below TLS.
type watched struct {
	net.Conn
	of *Connections

	mu       sync.Mutex
	standing *standing        // nil during the handshake
	shown    *tls.Certificate // by us; nil: none
}

// standing is what a handshake has found.
type standing struct {
	state *tls.ConnectionState
	usage x509.ExtKeyUsage // of the other side; ExtKeyUsageAny: it is not judged
}

func (w *watched) Close() error {
	w.of.mu.Lock()
	delete(w.of.open, w)
	w.of.mu.Unlock()
	return w.Conn.Close()
}

func (w *watched) note(s *standing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.standing = s
}

func (w *watched) shows(c *tls.Certificate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shown = withLeaf(c)
}

// stale tells why a connection is no longer good.
func (w *watched) stale(now *Snapshot, replaced bool, at time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.standing
	if s == nil {
		return nil
	}
	if c := w.shown; c != nil && c.Leaf != nil {
		if at.After(c.Leaf.NotAfter) {
			return fmt.Errorf("the certificate that we show on it, %s, expired at %s", shortName(c.Leaf), c.Leaf.NotAfter.UTC().Format(time.RFC3339))
		}
		if replaced && !shows(now.Certificate, c.Leaf) {
			return errors.New("the certificate that we show on it was replaced")
		}
	}
	if s.usage == x509.ExtKeyUsageAny || now.Bundle.empty() {
		return nil
	}
	chains, err := now.Bundle.verify(s.state, s.usage, at)
	if err != nil {
		return fmt.Errorf("the certificate of the other side, %s: %w", shortName(s.state.PeerCertificates[0]), err)
	}
	s.state.VerifiedChains = chains // so that the next look is quick
	return nil
}

// shows tells whether a certificate, which may be nil, is one of which this is the
// leaf.
func shows(c *tls.Certificate, leaf *x509.Certificate) bool {
	return c != nil && len(c.Certificate) > 0 && bytes.Equal(c.Certificate[0], leaf.Raw)
}

// watchedBelow finds the connection that is looked at below wrappers that tell
// what they wrap.
func watchedBelow(c net.Conn) *watched {
	for c != nil {
		if w, ok := c.(*watched); ok {
			return w
		}
		wrapper, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = wrapper.NetConn()
	}
	return nil
}
