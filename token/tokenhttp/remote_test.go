package tokenhttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
	"github.com/kubepki/kubepki/token/tokenhttp"
)

const issuer = "https://issuer.example.com"

func keySet(t testing.TB, names ...string) *token.KeySet {
	t.Helper()
	var keys []token.Key
	for _, name := range names {
		k, err := token.NewKey(tokentest.Key(name).Public())
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	set, err := token.NewKeySet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func idOf(t testing.TB, name string) string { return keySet(t, name).All()[0].ID }

// site answers as an issuer, without a network, so that time can be made to pass.
type site struct {
	mu    sync.Mutex
	keys  *token.KeySet
	away  bool
	asked int
}

func (s *site) set(keys *token.KeySet, away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys, s.away = keys, away
}

func (s *site) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return nil, errors.New("the issuer is away")
	}
	var body []byte
	var err error
	switch r.URL.String() {
	case issuer + token.DiscoveryPath:
		body = fmt.Appendf(nil, `{"issuer":%q,"jwks_uri":%q}`, issuer, issuer+token.JWKSPath)
	case issuer + token.JWKSPath:
		s.asked++
		body, err = s.keys.JWKS()
	default:
		return &http.Response{StatusCode: 404, Status: "404 Not Found", Body: http.NoBody}, nil
	}
	return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(string(body)))}, err
}

func TestPublishedKeysFollowTheIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		old, both, fresh := keySet(t, tokentest.RSA), keySet(t, tokentest.RSA, tokentest.P256), keySet(t, tokentest.P256)
		oldID, newID := idOf(t, tokentest.RSA), idOf(t, tokentest.P256)
		r := tokenhttp.Discover(issuer, &http.Client{Transport: s})
		want := func(id string, has bool, asked int) *token.KeySet {
			t.Helper()
			set, err := r.Keys(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if set.Has(id) != has || s.asked != asked {
				t.Fatalf("the key is there: %v, want %v; asked %d times, want %d", set.Has(id), has, s.asked, asked)
			}
			return set
		}
		s.set(old, false)
		first := want(oldID, true, 1)
		want(oldID, true, 1)

		// A key that nobody knows does not make it ask with each token.
		time.Sleep(time.Minute)
		want(newID, false, 2)
		want(newID, false, 2)
		time.Sleep(11 * time.Second)
		if want(newID, false, 3) != first {
			t.Error("the same keys are another set: what was remembered is lost")
		}

		// A new key is found by the first token that names it.
		s.set(both, false)
		time.Sleep(11 * time.Second)
		want(newID, true, 4)
		want(oldID, true, 4)

		// A retired key is dropped within the hour.
		s.set(fresh, false)
		want(oldID, true, 4)
		time.Sleep(time.Hour)
		want(oldID, false, 5)

		// While the issuer is away, its keys are good for a day.
		s.set(nil, true)
		time.Sleep(23 * time.Hour)
		want(newID, true, 5)
		time.Sleep(2 * time.Hour)
		if _, err := r.Keys(t.Context(), newID); err == nil || !strings.Contains(err.Error(), "away") {
			t.Errorf("a day later: %v", err)
		}
		s.set(fresh, false)
		time.Sleep(11 * time.Second)
		want(newID, true, 6)
	})
}

func TestAnIssuerThatIsAwayIsAskedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		r := tokenhttp.At(issuer+"/keys", &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			calls++
			return nil, errors.New("connection refused")
		})})
		for range 100 {
			if _, err := r.Keys(t.Context(), ""); err == nil {
				t.Fatal("there are keys")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if calls != 1 {
			t.Errorf("asked %d times in ten seconds", calls)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestARequestThatGivesUpIsNotAnAnswer(t *testing.T) {
	s := &site{keys: keySet(t, tokentest.RSA)}
	r := tokenhttp.Discover(issuer, &http.Client{Transport: roundTrip(func(q *http.Request) (*http.Response, error) {
		if err := q.Context().Err(); err != nil {
			return nil, err
		}
		return s.RoundTrip(q)
	})})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Keys(gone, ""); err == nil {
		t.Error("a request that was given up has keys")
	}
	if _, err := r.Keys(t.Context(), ""); err != nil {
		t.Errorf("the next one pays for it: %v", err)
	}
}

// An issuer that hangs keeps nobody waiting whose key is known.
func TestAnIssuerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, hangs := &site{keys: keySet(t, tokentest.RSA)}, atomic.Bool{}
		asked := atomic.Int64{}
		r := tokenhttp.Discover(issuer, &http.Client{Transport: roundTrip(func(q *http.Request) (*http.Response, error) {
			if hangs.Load() {
				asked.Add(1)
				<-q.Context().Done()
				return nil, q.Context().Err()
			}
			return s.RoundTrip(q)
		})})
		known, unknown := idOf(t, tokentest.RSA), idOf(t, tokentest.P256)
		if _, err := r.Keys(t.Context(), known); err != nil {
			t.Fatal(err)
		}
		hangs.Store(true)
		time.Sleep(2 * time.Hour)
		var longest time.Duration
		for range 600 { // ten minutes
			start := time.Now()
			if set, err := r.Keys(t.Context(), known); err != nil || !set.Has(known) {
				t.Fatal(err)
			}
			longest = max(longest, time.Since(start))
			time.Sleep(time.Second)
		}
		if longest > time.Second {
			t.Errorf("somebody waited for %s", longest)
		}
		if n := asked.Load(); n < 20 || n > 70 {
			t.Errorf("the issuer was asked %d times in ten minutes", n)
		}

		// Those who name what nobody knows wait, but few of them, and no longer than
		// they care to.
		time.Sleep(11 * time.Second)
		var group sync.WaitGroup
		var waited atomic.Int64
		for range 500 {
			group.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				start := time.Now()
				if _, err := r.Keys(ctx, unknown); err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				if d := time.Since(start); d > 3*time.Second {
					t.Errorf("waited for %s", d)
				} else if d > 0 {
					waited.Add(1)
				}
			})
		}
		group.Wait()
		if n := waited.Load(); n == 0 || n > 64 {
			t.Errorf("%d of 500 waited", n)
		}
		time.Sleep(time.Minute) // what is under way ends
	})
}

// Requests that give up do not make it ask more often.
func TestRequestsThatAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, asked := &site{keys: keySet(t, tokentest.RSA)}, atomic.Int64{}
		r := tokenhttp.At(issuer+token.JWKSPath, &http.Client{Transport: roundTrip(func(q *http.Request) (*http.Response, error) {
			asked.Add(1)
			time.Sleep(time.Second)
			return s.RoundTrip(q)
		})})
		for range 1000 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			_, _ = r.Keys(ctx, "nobody")
			cancel()
		}
		time.Sleep(5 * time.Second)
		if n := asked.Load(); n > 2 {
			t.Errorf("asked %d times in ten seconds", n)
		}
	})
}

// An issuer that withdraws all its keys has none.
func TestAnIssuerThatWithdrawsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := atomic.Pointer[string]{}
		good, err := keySet(t, tokentest.RSA).JWKS()
		if err != nil {
			t.Fatal(err)
		}
		put := func(s string) { text.Store(&s) }
		put(string(good))
		r := tokenhttp.At(issuer, &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(*text.Load()))}, nil
		})})
		id := idOf(t, tokentest.RSA)
		if _, err := r.Keys(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		put(`{"keys":[]}`)
		time.Sleep(time.Hour)
		if _, err := r.Keys(t.Context(), id); !errors.Is(err, token.ErrNoKeys) {
			t.Errorf("withdrawn: %v", err)
		}
		put(`<html>`) // which says nothing
		time.Sleep(time.Minute)
		if _, err := r.Keys(t.Context(), id); !errors.Is(err, token.ErrNoKeys) {
			t.Errorf("withdrawn before: %v", err)
		}
		put(string(good))
		time.Sleep(time.Minute)
		if _, err := r.Keys(t.Context(), id); err != nil {
			t.Errorf("published again: %v", err)
		}
	})
}

func TestManyAskOnce(t *testing.T) {
	s := &site{keys: keySet(t, tokentest.RSA)}
	r := tokenhttp.Discover(issuer, &http.Client{Transport: s})
	var group sync.WaitGroup
	var failed atomic.Int64
	for range 50 {
		group.Go(func() {
			if set, err := r.Keys(t.Context(), ""); err != nil || set == nil {
				failed.Add(1)
			}
		})
	}
	group.Wait()
	if failed.Load() > 0 || s.asked != 1 {
		t.Errorf("%d failed, asked %d times", failed.Load(), s.asked)
	}
}

// What is published is refused for what is wrong with it, over true TLS.
func TestBadIssuers(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	var server *httptest.Server
	document := func(format string, args ...any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, format, args...) }
	}
	for name, row := range map[string]struct {
		handler func() http.HandlerFunc
		want    string
	}{
		"metadata of another issuer": {func() http.HandlerFunc {
			return document(`{"issuer":"https://other.example","jwks_uri":%q}`, server.URL)
		}, "not of"},
		"keys over plain http":        {func() http.HandlerFunc { return document(`{"issuer":%q,"jwks_uri":%q}`, server.URL, plain.URL) }, "not a URL like https"},
		"no URI of the keys":          {func() http.HandlerFunc { return document(`{"issuer":%q}`, server.URL) }, "jwks_uri is missing"},
		"the issuer twice":            {func() http.HandlerFunc { return document(`{"issuer":%q,"issuer":"x","jwks_uri":"x"}`, server.URL) }, "twice"},
		"no JSON":                     {func() http.HandlerFunc { return document(`<html>`) }, "syntax"},
		"more than a megabyte":        {func() http.HandlerFunc { return document("%s", strings.Repeat(" ", 1<<20+1)) }, "larger than"},
		"an error":                    {func() http.HandlerFunc { return http.NotFound }, "404"},
		"a redirection to plain http": {func() http.HandlerFunc { return http.RedirectHandler(plain.URL, http.StatusFound).ServeHTTP }, "not https"},
		"a redirection to a URL with a user": {func() http.HandlerFunc {
			return http.RedirectHandler("https://u:p@"+server.Listener.Addr().String()+"/x", http.StatusFound).ServeHTTP
		}, "a user in the URL"},
		"a redirection without end":    {func() http.HandlerFunc { return http.RedirectHandler("/again", http.StatusFound).ServeHTTP }, "too often"},
		"metadata instead of the keys": {func() http.HandlerFunc { return document(`{"issuer":%q,"jwks_uri":"%s/keys"}`, server.URL, server.URL) }, "no keys"},
	} {
		t.Run(name, func(t *testing.T) {
			server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { row.handler()(w, r) }))
			defer server.Close()
			_, err := tokenhttp.Discover(server.URL, server.Client()).Keys(t.Context(), "")
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %q", err, row.want)
			}
		})
	}
	t.Run("a server that nobody trusts", func(t *testing.T) {
		server = httptest.NewTLSServer(http.NotFoundHandler())
		defer server.Close()
		if _, err := tokenhttp.Discover(server.URL, nil).Keys(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "authority") {
			t.Errorf("%v", err)
		}
	})
	if _, err := tokenhttp.At("https://user:secret@127.0.0.1:1/keys", nil).Keys(t.Context(), ""); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "a user in the URL") {
		t.Errorf("a URL with a password: %v", err)
	}
	for _, bad := range []string{"http://issuer.example.com", "issuer", "", "https://issuer.example.com?x=y", "https://user:secret@issuer.example.com"} {
		if _, err := tokenhttp.Discover(bad, nil).Keys(t.Context(), ""); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("issuer %q is asked", bad)
		}
	}
}
