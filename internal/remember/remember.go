// Package remember judges the client of a connection at each request, and
// remembers for a moment what it found: verifying a chain that no handshake has
// verified costs up to a hundred signatures, and one connection carries any number
// of requests.
package remember

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
	"weak"

	"github.com/kubepki/kubepki/mtls"
)

// recheck is how often a client that is good is verified again while the bundle
// is the same: it may expire.
const recheck = time.Second

// ErrNotJudged tells that nobody can be judged now, which is not the client's
// fault: the source has an error, or no bundle.
var ErrNotJudged = errors.New("clients cannot be judged")

// connection tells connections apart: it is where the certificates of a handshake
// stand, which all copies of its state share and no two connections do.
type connection = weak.Pointer[*x509.Certificate]

// Clients remembers the clients of a server by connection, for one who judges
// them, always with the same source. The zero value is ready. It may be used by
// several goroutines, and must not be copied.
type Clients struct {
	of sync.Map // connection → *client
}

// client is one as it was found when it was verified last.
type client struct {
	mu   sync.Mutex // held while it is found, so that requests do not find the same at once
	by   *mtls.Bundle
	at   time.Time
	peer mtls.Peer
	err  error
	said bool // to a log, that it was refused
}

// Verify is [mtls.VerifyClient], with its errors or [ErrNotJudged]. What is good
// is verified again a second later; what is not, when there is another bundle. A
// connection is forgotten when nothing uses its state any more.
func (c *Clients) Verify(s mtls.Source, state *tls.ConnectionState) (mtls.Peer, error) {
	if s == nil {
		return mtls.Peer{}, fmt.Errorf("%w: no source is set", ErrNotJudged)
	}
	now, err := s.Snapshot()
	switch {
	case err != nil:
		return mtls.Peer{}, fmt.Errorf("%w: the source of certificates: %w", ErrNotJudged, err)
	case now == nil || now.Bundle == nil:
		return mtls.Peer{}, fmt.Errorf("%w: the source has no bundle", ErrNotJudged)
	case state == nil || len(state.PeerCertificates) == 0:
		return mtls.Peer{}, mtls.ErrNoClient
	}
	k := c.client(&state.PeerCertificates[0])
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.by != now.Bundle || k.err == nil && time.Since(k.at) >= recheck {
		k.peer, k.err = mtls.VerifyClient(now, state)
		k.by, k.at, k.said = now.Bundle, time.Now(), false
	}
	return k.peer, k.err
}

// News tells whether a refusal of Verify is worth a line of a log: the first time
// for a connection and a bundle. A client that goes on on its connection would fill
// the log otherwise. Of clients that have shown nothing each is.
func (c *Clients) News(state *tls.ConnectionState) bool {
	if state == nil || len(state.PeerCertificates) == 0 {
		return true
	}
	k := c.client(&state.PeerCertificates[0])
	k.mu.Lock()
	defer k.mu.Unlock()
	said := k.said
	k.said = true
	return !said
}

// ForLog is enough of a text for a line of a log. Strangers may have written it: the
// error of [Clients.Verify] quotes names of certificates that nobody has verified, of
// which one handshake takes 256 KiB.
func ForLog(text string) string {
	const most = 1000
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

func (c *Clients) client(certificates **x509.Certificate) *client {
	key := weak.Make(certificates)
	if known, ok := c.of.Load(key); ok {
		return known.(*client)
	}
	known, loaded := c.of.LoadOrStore(key, &client{})
	if !loaded {
		runtime.AddCleanup(certificates, func(key connection) { c.of.Delete(key) }, key)
	}
	return known.(*client)
}
