package mtlshttp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubepki/kubepki/mtls"
)

// Transport is an [http.RoundTripper] that shows the newest certificate of a
// source, and trusts servers by its newest bundle. [NewTransport] returns one. It
// may be used by several goroutines.
//
// Once the source has changed, no request goes out on a connection from before:
// those that have begun there come to their end, and the connections are closed
// as they fall idle. So a request never shows a certificate that was replaced,
// nor goes to a server whose authority was taken out of the bundle.
//
// It speaks TLS and nothing else: a URL, or a redirection, of http:// is an error.
type Transport struct {
	// Base says how connections are made and kept. It may be changed before the
	// first request: proxies, timeouts, limits, Protocols, DialContext, and of
	// TLSClientConfig what [mtls.ClientConfig] allows; sessions in its
	// ClientSessionCache do not outlive a change of the source. DialTLSContext is not
	// asked, and RegisterProtocol not heeded. IdleConnTimeout should not be 0.
	Base *http.Transport
	// Connections, which may be nil, closes connections that are no longer good
	// while requests are under way on them; it must have the same source. Those
	// through a proxy it does not see. It is to be set before the first request.
	Connections *mtls.Connections

	source mtls.Source
	server mtls.Authorizer

	mu      sync.Mutex
	now     *generation
	retired map[*generation]struct{} // on which requests are under way
}

// generation is what was dialled since the source has changed last.
type generation struct {
	of        *mtls.Snapshot // nil: there was none
	transport *http.Transport
	open      int // requests whose answer was not closed
}

// maxIdlePerHost connections of HTTP/1.1 are kept, as many as by client-go
// (k8s.io/client-go/transport/cache.go): services call few others, and two, as of
// net/http, are a handshake for most requests.
const maxIdlePerHost = 25

// NewTransport returns a transport with the timeouts of [http.DefaultTransport],
// up to 25 idle connections for each server, and pings by which dead connections
// of HTTP/2 are found within 45 seconds. Proxies are those of the environment.
//
// server says which of the bundle's servers is the right one, such as
// [mtls.WithSPIFFEID]; nil is the one of the URL, a DNS name or an IP address.
// Only an IP address behind a proxy must be given, by [mtls.Named]. Proxies that
// are themselves spoken to by TLS (https://) are refused: their certificate is not
// of the bundle.
//
// A failed handshake is an error for the own log, a
// [*tls.CertificateVerificationError] where the server is not the right one.
// [http.Response].TLS has no VerifiedChains: ask [mtls.VerifyServer].
func NewTransport(s mtls.Source, server mtls.Authorizer) *Transport {
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	return &Transport{
		Base: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSClientConfig: mtls.ClientConfig(s, server), ForceAttemptHTTP2: true,
			MaxIdleConns: 100, MaxIdleConnsPerHost: maxIdlePerHost, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second, ExpectContinueTimeout: time.Second,
			HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
		},
		source: s, server: server, retired: map[*generation]struct{}{},
	}
}

// RoundTrip sends one request ([http.RoundTripper]).
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL == nil || r.URL.Scheme != "https" {
		if r.Body != nil {
			_ = r.Body.Close() // as a RoundTripper must; it was not read
		}
		return nil, errors.New("not an https:// URL: this client speaks TLS alone")
	}
	g := t.enter()
	sent := r
	if upgrades(r) {
		sent = r.WithContext(context.WithValue(r.Context(), http1Key{}, true))
	}
	answer, err := g.transport.RoundTrip(sent)
	if err != nil {
		t.leave(g)
		return nil, err
	}
	answer.Request = r
	if answer.StatusCode == http.StatusSwitchingProtocols || answer.Body == http.NoBody {
		t.leave(g) // the former is the caller's own from here on
		return answer, nil
	}
	answer.Body = &body{answer.Body, sync.OnceFunc(func() { t.leave(g) })}
	return answer, nil
}

// CloseIdleConnections closes the connections on which no request is under way
// ([http.Client.CloseIdleConnections]).
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	var all []*http.Transport
	if t.now != nil {
		all = append(all, t.now.transport)
	}
	for g := range t.retired {
		all = append(all, g.transport)
	}
	t.mu.Unlock()
	for _, one := range all {
		one.CloseIdleConnections()
	}
}

// enter returns the generation of now for one request. While the source has an
// error it is that of before: to dial fails, and what stands is left alone.
func (t *Transport) enter() *generation {
	now, err := t.source.Snapshot()
	t.mu.Lock()
	before := t.now
	fresh := before == nil || err == nil && now != nil && (before.of == nil || *before.of != *now)
	if fresh {
		t.now = &generation{of: now, transport: t.fresh()}
		if before != nil && before.open > 0 {
			t.retired[before] = struct{}{}
		}
	}
	g := t.now
	g.open++
	t.mu.Unlock()
	if fresh && before != nil {
		before.transport.CloseIdleConnections() // which may take a while
	}
	return g
}

// leave tells that a request has come to its end. [http.Transport] closes
// connections of HTTP/1.1 that fall idle after CloseIdleConnections, but not those
// of HTTP/2.
func (t *Transport) leave(g *generation) {
	t.mu.Lock()
	g.open--
	_, old := t.retired[g]
	over := old && g.open == 0
	if over {
		delete(t.retired, g)
	}
	t.mu.Unlock()
	if over {
		g.transport.CloseIdleConnections()
	}
}

// fresh returns a transport without connections.
func (t *Transport) fresh() *http.Transport {
	f := t.Base.Clone()
	f.TLSClientConfig = t.secure(f.TLSClientConfig)
	// To net/http a dial of our own is a reason not to speak it.
	f.ForceAttemptHTTP2 = f.ForceAttemptHTTP2 || slices.Contains(f.TLSClientConfig.NextProtos, "h2")
	f.DialTLS, f.DialTLSContext = nil, func(ctx context.Context, network, address string) (net.Conn, error) { //nolint:staticcheck // DialTLS is cleared
		return t.dial(ctx, f, network, address)
	}
	if choose := t.Base.Proxy; choose != nil {
		f.Proxy = func(r *http.Request) (*url.URL, error) {
			proxy, err := choose(r)
			if err == nil && proxy != nil && proxy.Scheme == "https" {
				err = fmt.Errorf("the proxy %s is to be spoken to by TLS, which mutual TLS through it does not allow: use http:// or socks5://", proxy.Redacted())
			}
			return proxy, err
		}
	}
	return f
}

// secure makes a configuration that of the source, whatever Base was replaced by: on
// the way through a proxy net/http uses it alone.
func (t *Transport) secure(c *tls.Config) *tls.Config {
	own := mtls.ClientConfig(t.source, t.server)
	if c == nil {
		return own
	}
	c.GetClientCertificate, c.InsecureSkipVerify, c.VerifyConnection = own.GetClientCertificate, true, own.VerifyConnection
	c.MinVersion = max(c.MinVersion, own.MinVersion)
	if c.ClientSessionCache != nil {
		c.ClientSessionCache = sessions{c.ClientSessionCache, fmt.Sprintf("%d ", generations.Add(1))}
	}
	return c
}

// generations counts those of all transports, which may share a cache of sessions.
var generations atomic.Uint64

// sessions are those of one generation in a cache: one from before would show the
// certificate of then.
type sessions struct {
	tls.ClientSessionCache
	of string
}

func (s sessions) Get(server string) (*tls.ClientSessionState, bool) {
	return s.ClientSessionCache.Get(s.of + server)
}

func (s sessions) Put(server string, state *tls.ClientSessionState) {
	s.ClientSessionCache.Put(s.of+server, state)
}

// dial is for servers without a proxy between: net/http tells nobody who verifies
// a handshake which IP address was dialled.
func (t *Transport) dial(ctx context.Context, f *http.Transport, network, address string) (net.Conn, error) {
	dialTCP := f.DialContext
	if dialTCP == nil {
		dialTCP = new(net.Dialer).DialContext
	}
	c, err := dialTCP(ctx, network, address)
	if err != nil {
		return nil, err
	}
	var asked *tls.Config
	if t.Connections != nil {
		c, asked = t.Connections.Dialled(c, t.server, address)
	} else {
		asked = mtls.DialledAt(t.source, t.server, address)
	}
	config := f.TLSClientConfig.Clone() // with the protocols that net/http has added
	config.GetClientCertificate, config.InsecureSkipVerify, config.VerifyConnection = asked.GetClientCertificate, true, asked.VerifyConnection
	if config.ServerName == "" {
		config.ServerName = asked.ServerName
	}
	if ctx.Value(http1Key{}) != nil {
		config.NextProtos = nil
	}
	secured := tls.Client(c, config)
	if err := handshake(ctx, secured, f.TLSHandshakeTimeout); err != nil {
		_ = c.Close() // the handshake's error is what counts
		return nil, err
	}
	return secured, nil
}

func handshake(ctx context.Context, c *tls.Conn, within time.Duration) error {
	if within <= 0 {
		return c.HandshakeContext(ctx)
	}
	bounded, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := c.HandshakeContext(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return handshakeTimeout(within)
	}
	return err
}

// handshakeTimeout is a [net.Error], by which [url.Error] tells that something took
// too long.
type handshakeTimeout time.Duration

func (e handshakeTimeout) Error() string {
	return "the TLS handshake took longer than " + time.Duration(e).String()
}
func (handshakeTimeout) Timeout() bool   { return true }
func (handshakeTimeout) Temporary() bool { return true }

type http1Key struct{}

// upgrades tells whether a request can only go over HTTP/1.1, as net/http sees it
// ([http.Request], requiresHTTP1): it does not tell who dials.
func upgrades(r *http.Request) bool {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return false
	}
	for _, token := range strings.Split(r.Header.Get("Connection"), ",") {
		if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
			return true
		}
	}
	return false
}

// body tells when an answer was read.
type body struct {
	io.ReadCloser
	left func()
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.left()
	return err
}
