// Package remember judges the client of a connection at each request, and
// remembers for a moment what it found: verifying a chain that no handshake has
// verified costs more than most requests.
package remember

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/kubepki/kubepki/mtls"
)

// recheck is how often the client of a connection is verified again while the
// bundle is the same: it may expire.
const recheck = time.Second

// ErrNotJudged tells that nobody can be judged now, which is not the client's
// fault: the source has an error, or no bundle.
var ErrNotJudged = errors.New("clients cannot be judged")

type connectionKey struct{}

// connection is what is known of the client of one connection, by each who asks.
type connection struct {
	mu sync.Mutex
	by map[any]*client
}

// client is one as it was found when it was verified last. Of somebody who is
// refused it is done once, however many requests are on their way.
type client struct {
	mu   sync.Mutex
	by   *mtls.Bundle
	at   time.Time
	peer mtls.Peer
	err  error // for the rest of the connection
}

// Context returns the context of a new connection ([http.Server].ConnContext).
func Context(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, &connection{by: map[any]*client{}})
}

// Client returns the client of the connection that a context belongs to, as
// [mtls.VerifyClient] does, and its errors or [ErrNotJudged]. A refusal is
// remembered until the connection ends, anything else for a second, or until the
// bundle changes. Where the context is not made by [Context], nothing is.
//
// Who asks is a pointer, always with the same source: some connections are judged
// by several bundles. It may be used by several goroutines.
func Client(ctx context.Context, who any, source mtls.Source, state *tls.ConnectionState) (mtls.Peer, error) {
	now, err := source.Snapshot()
	if err != nil {
		return mtls.Peer{}, fmt.Errorf("%w: the source of certificates: %w", ErrNotJudged, err)
	}
	if now.Bundle == nil {
		return mtls.Peer{}, fmt.Errorf("%w: the source has no bundle", ErrNotJudged)
	}
	c, ok := ctx.Value(connectionKey{}).(*connection)
	if !ok {
		return mtls.VerifyClient(now, state)
	}
	return c.of(who).verify(now, state)
}

func (c *connection) of(who any) *client {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.by[who]
	if known == nil {
		known = &client{}
		c.by[who] = known
	}
	return known
}

func (c *client) verify(now *mtls.Snapshot, state *tls.ConnectionState) (mtls.Peer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && (c.by != now.Bundle || time.Since(c.at) >= recheck) {
		c.peer, c.err = mtls.VerifyClient(now, state)
		c.by, c.at = now.Bundle, time.Now()
	}
	return c.peer, c.err
}
