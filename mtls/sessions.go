package mtls

import (
	"crypto/tls"
	"sync"
)

// NewSessionCache returns a cache for [tls.Config].ClientSessionCache of a client
// of [ClientConfig] with up to capacity sessions, which forgets them all when the
// source changes: a session that is resumed shows the certificate of then. It may
// be used by several goroutines.
func NewSessionCache(s Source, capacity int) tls.ClientSessionCache {
	return &sessionCache{source: s, capacity: capacity}
}

type sessionCache struct {
	source   Source
	capacity int

	mu    sync.Mutex
	of    *Snapshot
	cache tls.ClientSessionCache
}

// now returns the cache for what the source has now; nil while it has nothing.
func (c *sessionCache) now() tls.ClientSessionCache {
	now, err := c.source.Snapshot()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.of, c.cache = nil, nil
		return nil
	}
	if c.of != now {
		c.of, c.cache = now, tls.NewLRUClientSessionCache(c.capacity)
	}
	return c.cache
}

func (c *sessionCache) Get(key string) (*tls.ClientSessionState, bool) {
	if cache := c.now(); cache != nil {
		return cache.Get(key)
	}
	return nil, false
}

func (c *sessionCache) Put(key string, state *tls.ClientSessionState) {
	if cache := c.now(); cache != nil {
		cache.Put(key, state)
	}
}
