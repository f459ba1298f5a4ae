package tokenhttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubepki/kubepki/token"
)

// When published keys are asked for again.
const (
	// freshFor is for how long keys count as fresh.
	freshFor = token.MaxAge * time.Second
	// askEvery is how often a token that names an unknown key has them asked for
	// at most.
	askEvery = 10 * time.Second
	// staleFor is for how long keys are used when no newer ones can be had.
	staleFor = 24 * time.Hour
)

// Remote gives the keys that an issuer publishes. They are asked for when the
// first token is verified, again after an hour, and when a token names a key
// that is not known, at most every ten seconds. When they cannot be had, those
// of before go on to verify for a day. It may be used by several goroutines.
type Remote struct {
	client *http.Client
	find   func(context.Context, *http.Client) (jwks string, err error)
	now    atomic.Pointer[published]

	asking sync.Mutex // one asks, others wait for the answer
	asked  time.Time  // last, with success or without
	failed error      // of the last time
}

type published struct {
	keys *token.KeySet
	text []byte
	at   time.Time
}

// Discover returns the keys of an issuer, which is an https URL, by its metadata
// (OpenID Connect Discovery 1.0 section 4). The client may be nil: one that
// trusts the authorities of the system.
func Discover(issuer string, client *http.Client) *Remote {
	return &Remote{client: client, find: func(ctx context.Context, client *http.Client) (string, error) {
		if err := token.CheckIssuerURL(issuer); err != nil {
			return "", err
		}
		from := token.DiscoveryURL(issuer)
		data, err := Fetch(ctx, client, from)
		if err != nil {
			return "", err
		}
		d, err := token.ParseDiscovery(data)
		switch {
		case err != nil:
			return "", fmt.Errorf("%s: %w", from, err)
		case d.Issuer != issuer: // section 4.3
			return "", fmt.Errorf("%s: it is of the issuer %q, not of %q", from, d.Issuer, issuer)
		}
		return d.JWKSURI, nil
	}}
}

// At returns the keys of a JSON Web Key Set at an https URL. The client is as for
// [Discover].
func At(jwks string, client *http.Client) *Remote {
	return &Remote{client: client, find: func(context.Context, *http.Client) (string, error) { return jwks, nil }}
}

// Keys returns the keys, asking the issuer when that is due. The error is that
// of the last time it was asked, when there are no keys that are recent enough.
func (r *Remote) Keys(ctx context.Context, id string) (*token.KeySet, error) {
	if p := r.now.Load(); p != nil && p.good(id) {
		return p.keys, nil
	}
	r.asking.Lock()
	defer r.asking.Unlock()
	p := r.now.Load()
	if (p == nil || !p.good(id)) && time.Since(r.asked) >= askEvery {
		r.failed = r.ask(ctx)
		if ctx.Err() == nil { // another's request is not answered for it
			r.asked = time.Now()
		}
		p = r.now.Load()
	}
	switch {
	case p != nil && time.Since(p.at) < staleFor:
		return p.keys, nil
	case r.failed != nil:
		return nil, r.failed
	}
	return nil, errors.New("the keys of the issuer are too old, and no newer ones can be had")
}

// good tells whether keys are fresh, and the one that is asked for among them.
func (p *published) good(id string) bool {
	return time.Since(p.at) < freshFor && (id == "" || p.keys.Has(id))
}

func (r *Remote) ask(ctx context.Context) error {
	from, err := r.find(ctx, r.client)
	if err != nil {
		return err
	}
	text, err := Fetch(ctx, r.client, from)
	if err != nil {
		return err
	}
	if p := r.now.Load(); p != nil && bytes.Equal(p.text, text) {
		// The same set: what was verified with it need not be verified again.
		r.now.Store(&published{p.keys, text, time.Now()})
		return nil
	}
	keys, err := token.ParseKeys(text)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	set, err := token.NewKeySet(keys...)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	r.now.Store(&published{set, text, time.Now()})
	return nil
}
