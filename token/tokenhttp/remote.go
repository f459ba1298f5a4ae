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
	// freshFor is for how long keys count as fresh, and recentFor for how long
	// nobody asks for newer ones.
	freshFor  = token.MaxAge * time.Second
	recentFor = freshFor * 5 / 6
	// askEvery is how often the issuer is asked at most.
	askEvery = 10 * time.Second
	// staleFor is for how long keys are used when no newer ones can be had.
	staleFor = 24 * time.Hour
	// patience is how long to wait for newer keys where there are older ones.
	patience = time.Second
	// maxWaiting is how many wait for an answer at most, when there are keys but
	// not the one that a token names: whoever sends tokens can make up names.
	maxWaiting = 64
)

// Remote gives the keys that an issuer publishes. They are asked for when the
// first token is verified, again before an hour is over, and when a token names a
// key that is not known, at most every ten seconds and by one at a time. When
// they cannot be had, those of before go on to verify for a day, and who names
// one of them does not wait for an issuer that is away. It may be used by
// several goroutines.
type Remote struct {
	client  *http.Client
	find    func(context.Context, *http.Client) (jwks string, err error)
	now     atomic.Pointer[published]
	waiting atomic.Int64

	mu     sync.Mutex    // guards what follows
	answer chan struct{} // closed when the issuer has answered; nil: it is not being asked
	asked  time.Time     // last
	failed error         // of the last time
}

// published is what an issuer published: keys is nil where that was no key of
// use, as when it has withdrawn all.
type published struct {
	keys *token.KeySet
	text []byte
	at   time.Time
}

// Discover returns the keys of an issuer, which is an https URL, by its metadata
// (OpenID Connect Discovery 1.0 section 4). The client may be nil: one that
// trusts the authorities of the system.
//
// The keys are those of this issuer alone: a [token.Verifier] that has them
// should accept no other.
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
			return "", fmt.Errorf("%s: it is of the issuer %.200q, not of %q", from, d.Issuer, issuer)
		}
		return d.JWKSURI, nil
	}}
}

// At returns the keys of a JSON Web Key Set at an https URL. The client is as for
// [Discover].
func At(jwks string, client *http.Client) *Remote {
	return &Remote{client: client, find: func(context.Context, *http.Client) (string, error) { return jwks, nil }}
}

// Keys returns the keys, and has the issuer asked when that is due. It waits for
// the answer, as long as its context allows, where there are no keys to return
// or none of the id. The error is the context's, or why there are no keys.
func (r *Remote) Keys(ctx context.Context, id string) (*token.KeySet, error) {
	p := r.now.Load()
	if p.within(freshFor) && p.has(id) {
		if !p.within(recentFor) {
			r.ask()
		}
		return p.keys, nil
	}
	if answer, failing := r.ask(); answer != nil {
		if err := r.wait(ctx, answer, p, id, failing); err != nil {
			return nil, err
		}
		p = r.now.Load()
	}
	switch {
	case p.within(staleFor):
		return p.keys, nil
	case p != nil && p.keys == nil:
		return nil, fmt.Errorf("the issuer publishes no key of use: %w", token.ErrNoKeys)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed != nil {
		return nil, r.failed
	}
	return nil, errors.New("the keys of the issuer are too old, and no newer ones can be had")
}

// within tells whether there are keys of that age at most.
func (p *published) within(age time.Duration) bool {
	return p != nil && p.keys != nil && time.Since(p.at) < age
}

// has tells whether there is the key that a token names, if it names one.
func (p *published) has(id string) bool { return id == "" || p.keys.Has(id) }

// wait waits for an answer: as long as it takes where there is nothing else to go
// by, and otherwise not for long, not while the issuer is failing, and not for
// many whose tokens name keys that nobody knows.
func (r *Remote) wait(ctx context.Context, answer <-chan struct{}, p *published, id string, failing bool) error {
	defer r.waiting.Add(-1)
	many := r.waiting.Add(1) > maxWaiting
	var enough <-chan time.Time // nil: never
	switch old := p.within(staleFor); {
	case old && p.has(id) && failing, old && many:
		return nil
	case old && p.has(id):
		timer := time.NewTimer(patience)
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case <-answer:
		return nil
	case <-enough:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask has the issuer asked, if that is due, and returns what is closed when it
// has answered, nil when it is not being asked, and whether it failed last time.
func (r *Remote) ask() (answer <-chan struct{}, failing bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answer != nil || (!r.asked.IsZero() && time.Since(r.asked) < askEvery) {
		return r.answer, r.failed != nil
	}
	r.asked = time.Now()
	answered := make(chan struct{})
	r.answer = answered
	// Not of the request that happens to be the first: it may be given up.
	go func() {
		err := r.fetch(context.Background())
		r.mu.Lock()
		r.answer, r.failed = nil, err
		r.mu.Unlock()
		close(answered)
	}()
	return answered, r.failed != nil
}

func (r *Remote) fetch(ctx context.Context) error {
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
	if errors.Is(err, token.ErrNoKeys) {
		r.now.Store(&published{nil, text, time.Now()})
		return nil
	}
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
