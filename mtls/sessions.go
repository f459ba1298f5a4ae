package mtls

import (
	"crypto/tls"
	"sync"
)

// SessionCache lets a client resume sessions, and forgets them all when its
// source changes: a session shows the certificate of then, and was verified by the
// bundle of then. It may be used by several goroutines.
type SessionCache struct {
	source   Source
	capacity int

	mu       sync.Mutex
	of       *Snapshot
	sessions tls.ClientSessionCache
}

// NewSessionCache returns a cache of up to capacity sessions, one for each host
// that is dialled.
func NewSessionCache(s Source, capacity int) *SessionCache {
	return &SessionCache{source: s, capacity: capacity}
}

// DialledAt is [DialledAt] for the source of the cache, and resumes a session
// where there is one.
func (c *SessionCache) DialledAt(server Authorizer, address string) *tls.Config {
	now := pin(c.source)
	config := DialledAt(now, server, address)
	if s, err := now.Snapshot(); err == nil {
		config.ClientSessionCache = pinnedSessions{c, s}
		c.use(s)
	}
	return config
}

// use makes the sessions those of a snapshot.
func (c *SessionCache) use(now *Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of != now {
		c.of, c.sessions = now, tls.NewLRUClientSessionCache(c.capacity)
	}
}

// pinnedSessions is the cache for one connection: tickets come late, when there
// may be another snapshot.
type pinnedSessions struct {
	cache *SessionCache
	of    *Snapshot
}

func (p pinnedSessions) now() tls.ClientSessionCache {
	p.cache.mu.Lock()
	defer p.cache.mu.Unlock()
	if p.cache.of != p.of {
		return nil
	}
	return p.cache.sessions
}

func (p pinnedSessions) Get(host string) (*tls.ClientSessionState, bool) {
	if s := p.now(); s != nil {
		return s.Get(host)
	}
	return nil, false
}

func (p pinnedSessions) Put(host string, state *tls.ClientSessionState) {
	if s := p.now(); s != nil {
		s.Put(host, state)
	}
}
