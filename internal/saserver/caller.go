package saserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/kubepki/kubepki/mtls"
)

// Callers says who may ask for reviews: clients with a certificate. The server is
// [Serve], and asks for one ([mtls.UnverifiedClients]).
type Callers struct {
	// Source has the bundle that the certificate must come from: that of the
	// server's own configuration.
	Source mtls.Source
	// Names are the common names that are allowed, letter by letter; none: all.
	Names []string
}

// recheck is how often the client of a connection is verified again while the
// bundle is the same: it may expire.
const recheck = time.Second

// peer is the client of one connection, as it was found when it was verified
// last. Verifying costs more than most reviews; and of somebody who is refused,
// it is done once, however many requests are on their way.
type peer struct {
	mu     sync.Mutex
	by     *mtls.Bundle
	at     time.Time
	client mtls.Peer
	err    error // for the rest of the connection
}

type peerKey struct{}

// withPeer is called for each connection.
func withPeer(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, &peer{})
}

// admit returns who asks. It is called for each request, so that a connection
// does not outlive the trust in its client.
func (c *Callers) admit(r *http.Request) (name string, err error) {
	if c == nil {
		return "", nil
	}
	p := r.Context().Value(peerKey{}).(*peer)
	client, err := p.verify(c.Source, r.TLS)
	if err != nil {
		return "", err
	}
	name = client.Certificate.Subject.CommonName
	if len(c.Names) > 0 && !slices.Contains(c.Names, name) {
		return name, fmt.Errorf("the client %.80q is none of those that may ask (--allowed-name)", name)
	}
	return name, nil
}

func (p *peer) verify(source mtls.Source, state *tls.ConnectionState) (mtls.Peer, error) {
	now, err := source.Snapshot()
	if err != nil {
		return mtls.Peer{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil && (p.by != now.Bundle || time.Since(p.at) >= recheck) {
		p.client, p.err = mtls.VerifyClient(now, state)
		p.by, p.at = now.Bundle, time.Now()
	}
	return p.client, p.err
}

// refuseCaller says no more than that. The connection is closed, so that a
// client whose certificate was renewed meanwhile comes with the new one.
func refuseCaller(w http.ResponseWriter, err error) {
	w.Header().Set("Connection", "close")
	if errors.Is(err, mtls.ErrNoClient) {
		http.Error(w, "a client certificate is needed", http.StatusUnauthorized)
		return
	}
	http.Error(w, "not allowed", http.StatusForbidden)
}
