package token

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// The bounds of a [Cache] that its configuration leaves open.
const (
	DefaultCacheSize = 4096
	DefaultCacheLife = time.Minute
)

// CacheConfig bounds a [Cache].
type CacheConfig struct {
	// Size is how many tokens are remembered at most; 0: [DefaultCacheSize]. One
	// takes some 2 KiB, and 12 KiB at most.
	Size int
	// Life is for how long one is remembered at most; 0: [DefaultCacheLife].
	Life time.Duration
}

// maxCached is how long a token may be that is remembered, in bytes; those of
// Kubernetes have some 1,000 to 1,500. Who may have tokens made with long
// audiences could fill the memory otherwise.
const maxCached = 4096

// Cache remembers which tokens were accepted, so that clients that show the same
// one with each request cost microseconds. What it answers is what the verifier
// would: a token is forgotten when it expires, and when the set of keys has
// changed. Refusals are not remembered, nor are tokens of more than 4 KiB. It
// holds sums of tokens, not tokens. It may be used by several goroutines.
type Cache struct {
	verifier *Verifier
	life     time.Duration
	entries  *lru.Cache[cacheKey, cacheEntry]
}

type cacheKey [sha256.Size]byte

type cacheEntry struct {
	verified *Verified
	keys     *KeySet
	until    time.Time
}

// NewCache returns a cache in front of a verifier. A negative size or life is an
// error.
func NewCache(v *Verifier, c CacheConfig) (*Cache, error) {
	if c.Size == 0 {
		c.Size = DefaultCacheSize
	}
	if c.Life == 0 {
		c.Life = DefaultCacheLife
	}
	if c.Life < 0 {
		return nil, errors.New("the life of a cache is negative")
	}
	entries, err := lru.New[cacheKey, cacheEntry](c.Size)
	if err != nil {
		return nil, err
	}
	return &Cache{v, c.Life, entries}, nil
}

// Verify judges a token as [Verifier.Verify] does. The result is the caller's
// own.
func (c *Cache) Verify(ctx context.Context, token string) (*Verified, error) {
	return c.VerifyFor(ctx, token, nil)
}

// VerifyFor judges a token as [Verifier.VerifyFor] does. The result is the
// caller's own.
func (c *Cache) VerifyFor(ctx context.Context, token string, audiences []string) (*Verified, error) {
	if len(token) > maxCached {
		return c.verifier.VerifyFor(ctx, token, audiences)
	}
	key, now := sumOf(token, audiences), c.verifier.config.Now()
	if e, ok := c.entries.Get(key); ok {
		if now.Before(e.until) && c.current(ctx, e) {
			return e.verified.clone(), nil
		}
		c.entries.Remove(key)
	}
	v, err := c.verifier.VerifyFor(ctx, token, audiences)
	if err != nil {
		return nil, err
	}
	c.entries.Add(key, cacheEntry{v.clone(), v.keys, c.until(now, v)})
	return v, nil
}

// current tells whether the keys are still those that a token was verified with.
func (c *Cache) current(ctx context.Context, e cacheEntry) bool {
	set, err := c.verifier.config.Keys.Keys(ctx, e.verified.Key.ID)
	return err == nil && set == e.keys
}

func (c *Cache) until(now time.Time, v *Verified) time.Time {
	until := now.Add(c.life)
	if end := v.Claims.Expires.Add(Leeway); !v.Claims.Expires.IsZero() && end.Before(until) {
		return end
	}
	return until
}

// sumOf tells apart what was asked: the token, whether any audiences were named,
// and which. No text of one kind sums up to one of the other.
func sumOf(token string, audiences []string) cacheKey {
	if len(audiences) == 0 {
		return sha256.Sum256(append([]byte{0}, token...))
	}
	text := binary.AppendUvarint([]byte{1}, uint64(len(token)))
	text = append(text, token...)
	for _, a := range audiences {
		text = append(binary.AppendUvarint(text, uint64(len(a))), a...)
	}
	return sha256.Sum256(text)
}
