// Package remember keeps, for each connection, what judging its client came to, so
// that requests after the first cost no signature.
package remember

import (
	"crypto/tls"
	"runtime"
	"sync"
	"time"
	"weak"

	"github.com/kubepki/kubepki/mtls"
)

// recheck is how often a client that is good is verified again while the bundle
// is the same: it may expire.
const recheck = time.Second

// Clients remembers the clients of a server by connection. The zero value is
// ready. It may be used by several goroutines, and must not be copied.
type Clients struct {
	of sync.Map // weak.Pointer[tls.ConnectionState] → *client
}

// client is that of one connection, as it was found when it was verified last.
type client struct {
	mu   sync.Mutex
	by   *mtls.Bundle
	at   time.Time
	peer mtls.Peer
	err  error
}

// Verify is [mtls.VerifyClient] by a bundle. What is good is verified again a
// second later; what is not, when there is another bundle. The connection is
// known by its state, which net/http gives to all requests of a connection as
// one pointer, and is forgotten with it. Requests of one connection wait for
// each other, so that a chain that is costly to judge is judged once.
func (c *Clients) Verify(by *mtls.Bundle, state *tls.ConnectionState) (mtls.Peer, error) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return mtls.Peer{}, mtls.ErrNoClient
	}
	k := c.client(state)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.by != by || k.err == nil && time.Since(k.at) >= recheck {
		k.peer, k.err = mtls.VerifyClient(&mtls.Snapshot{Bundle: by}, state)
		k.by, k.at = by, time.Now()
	}
	return k.peer, k.err
}

func (c *Clients) client(state *tls.ConnectionState) *client {
	key := weak.Make(state)
	if known, ok := c.of.Load(key); ok {
		return known.(*client)
	}
	known, loaded := c.of.LoadOrStore(key, &client{})
	if !loaded {
		runtime.AddCleanup(state, func(key weak.Pointer[tls.ConnectionState]) { c.of.Delete(key) }, key)
	}
	return known.(*client)
}
