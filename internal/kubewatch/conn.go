package kubewatch

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

// wiped is a connection that leaves nothing of what was read before in the memory
// that it reads into: readers above it that use their buffers again keep nothing
// while they wait.
type wiped struct{ net.Conn }

// Read may use all of b, as io.Reader says.
func (c wiped) Read(b []byte) (int, error) {
	clear(b)
	return c.Conn.Read(b)
}

// records is a wiped connection below TLS, which gives no more than one record (RFC
// 8446 section 5.1) at a time. crypto/tls decrypts a record where it was read, and
// reads the next one to the same place only where no other began behind it.
type records struct {
	net.Conn
	head [5]byte // type, version, length
	have int     // bytes of head
	left int     // bytes of the record that are still to come
}

// Read may use all of b, as io.Reader says.
func (c *records) Read(b []byte) (int, error) {
	clear(b)
	if len(b) == 0 {
		return 0, nil
	}
	if c.left > 0 {
		n, err := c.Conn.Read(b[:min(len(b), c.left)])
		c.left -= n
		return n, err
	}
	n, err := c.Conn.Read(b[:min(len(b), len(c.head)-c.have)])
	copy(c.head[c.have:], b[:n])
	if c.have += n; c.have == len(c.head) {
		c.have, c.left = 0, int(binary.BigEndian.Uint16(c.head[3:]))
	}
	return n, err
}

// dialer makes the connections of one configuration.
type dialer struct{ config *rest.Config }

// What connections may take.
const (
	dialTimeout   = 15 * time.Second
	headerTimeout = 45 * time.Second
)

// newClient returns a client that leaves no secrets in memory, and the URL of the API
// server. Only HTTP/1.1 is spoken, each watch on a connection of its own: HTTP/2 has
// buffers that are shared and kept. Files that the configuration names are read again
// for each connection. Through a proxy, the buffers of TLS are not cleared.
func newClient(config *rest.Config) (*http.Client, *url.URL, error) {
	config = rest.CopyConfig(config)
	config.Timeout, config.DisableCompression = 0, true
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, nil, fmt.Errorf("kubeconfig: server: %w", err)
	}
	settings, err := config.TransportConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("kubeconfig: %w", err)
	}
	behindProxy, err := transport.TLSConfigFor(settings)
	if err != nil {
		return nil, nil, fmt.Errorf("kubeconfig: %w", err)
	}
	d := &dialer{config}
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: d.plain, DialTLSContext: d.tls, TLSClientConfig: behindProxy,
		DisableCompression: true, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second, ResponseHeaderTimeout: headerTimeout, TLSHandshakeTimeout: dialTimeout,
	}
	if config.Proxy != nil {
		t.Proxy = config.Proxy
	}
	authenticated, err := transport.HTTPWrappersForConfig(settings, t)
	if err != nil {
		return nil, nil, fmt.Errorf("kubeconfig: %w", err)
	}
	// A redirect would take the request to whom nobody has named.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Transport: authenticated, CheckRedirect: stay}, base, nil
}

// dial connects, as a plugin of the configuration does where it wants to.
func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	settings, err := d.config.TransportConfig()
	if err != nil {
		return nil, err
	}
	if settings.DialHolder != nil {
		return settings.DialHolder.Dial(ctx, network, address)
	}
	return (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext(ctx, network, address)
}

func (d *dialer) plain(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return wiped{c}, nil
}

func (d *dialer) tls(ctx context.Context, network, address string) (net.Conn, error) {
	settings, err := d.config.TransportConfig()
	if err != nil {
		return nil, err
	}
	config, err := transport.TLSConfigFor(settings)
	if err != nil {
		return nil, err
	}
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	config = config.Clone()
	config.NextProtos = []string{"http/1.1"}
	if config.ServerName == "" {
		if config.ServerName, _, err = net.SplitHostPort(address); err != nil {
			return nil, err
		}
	}
	raw, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(&records{Conn: raw}, config)
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the handshake's error tells more
		return nil, err
	}
	return wiped{secure}, nil
}
