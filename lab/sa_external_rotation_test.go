//go:build linux

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/token"
	authenticationv1 "k8s.io/api/authentication/v1"
)

// tokenTraffic asks for tokens without a pause, shows each to the other API server,
// and shows the first one again and again; what a verifier elsewhere has kept of
// the published keys, two seconds at most, must verify each too.
type tokenTraffic struct {
	made   atomic.Int64
	newest sync.Map // the key of the newest token, by API server
	stop   func() int64
}

func (s *signedOutside) startTraffic(t *testing.T, old string) *tokenTraffic {
	t.Helper()
	run := &tokenTraffic{}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	fail := func(format string, args ...any) {
		if ctx.Err() == nil {
			t.Errorf(format, args...)
			cancel()
		}
	}
	for i := range s.apis {
		all.Go(func() {
			var kept *token.KeySet
			var keptAt time.Time
			for ctx.Err() == nil {
				if time.Since(keptAt) > 2*time.Second {
					at := time.Now()
					set, _, err := s.jwks(ctx, 1-i)
					if err != nil {
						fail("the published keys of cp%d: %v", 2-i, err)
						return
					}
					kept, keptAt = set, at
				}
				text, err := s.ask(ctx, i, authenticationv1.TokenRequestSpec{})
				if err != nil {
					fail("a token of cp%d: %v", i+1, err)
					return
				}
				if err := s.show(ctx, 1-i, text); err != nil {
					fail("a new token of cp%d at cp%d: %v", i+1, 2-i, err)
				}
				if err := s.show(ctx, i, old); err != nil {
					fail("an old token at cp%d: %v", i+1, err)
				}
				v, err := token.NewVerifier(token.Config{Keys: kept, Issuers: []string{labIssuer}})
				if err != nil {
					fail("%v", err)
					return
				}
				got, err := v.Verify(ctx, text)
				if err != nil {
					fail("a new token of cp%d elsewhere: %v", i+1, err)
					return
				}
				run.newest.Store(i, got.Key.ID)
				run.made.Add(1)
			}
		})
	}
	run.stop = func() int64 {
		cancel()
		all.Wait()
		return run.made.Load()
	}
	t.Cleanup(func() { run.stop() })
	return run
}

// signs waits until the tokens of both API servers are of a key.
func (run *tokenTraffic) signs(t *testing.T, id string) {
	t.Helper()
	eventually(t, "tokens are signed by "+id, func(context.Context) error {
		if t.Failed() {
			t.FailNow()
		}
		for i := range 2 {
			if got, _ := run.newest.Load(i); got != id {
				return fmt.Errorf("at cp%d it is %v", i+1, got)
			}
		}
		return nil
	})
}

// replace puts a file in the place of that of each vault.
func (s *signedOutside) replace(t *testing.T, name string, data []byte) {
	t.Helper()
	for _, v := range s.vaults {
		if err := replace(filepath.Join(v, name), data); err != nil {
			t.Fatal(err)
		}
	}
}

// published waits until both API servers publish some keys.
func (s *signedOutside) published(t *testing.T, ids ...string) {
	t.Helper()
	slices.Sort(ids)
	for i := range s.apis {
		eventually(t, "keys are published", func(ctx context.Context) error {
			set, _, err := s.jwks(ctx, i)
			if err != nil {
				return err
			}
			var got []string
			for _, k := range set.All() {
				got = append(got, k.ID)
			}
			if slices.Sort(got); !slices.Equal(got, ids) {
				return fmt.Errorf("cp%d publishes %q; want %q", i+1, got, ids)
			}
			return nil
		})
	}
}

// testRotation goes through the rotation of docs/sa-external-signer.md.
func (s *signedOutside) testRotation(t *testing.T) {
	oldID, next := idOfFile(t, filepath.Join(s.vaults[0], "sa.key")), newSigningKey(t, issue.ECDSAP256)
	nextID := idOfKey(t, next)
	old := read(t, filepath.Join(s.vaults[0], "keys.pem"))
	run := s.startTraffic(t, s.first)
	run.signs(t, oldID)
	s.replace(t, "keys.pem", append(slices.Clone(old), publicPEM(t, next)...))
	s.published(t, oldID, nextID)
	time.Sleep(6 * time.Second) // --publish-first: it would wait for itself, too
	s.replace(t, "sa.key", privatePEM(t, next))
	s.keep(privatePEM(t, next))
	run.signs(t, nextID)
	t.Logf("%d tokens, and not one failure", run.stop())
	// The end of the old key is the end of its tokens.
	s.replace(t, "keys.pem", publicPEM(t, next))
	s.published(t, nextID)
	for i := range s.apis {
		eventually(t, "tokens of the old key are refused", func(ctx context.Context) error {
			if s.show(ctx, i, s.first) == nil {
				return errors.New("it is taken") // for ten seconds it is remembered
			}
			return nil
		})
	}
}

// testHastyRotation replaces the signing key of both control planes, and does
// nothing else.
func (s *signedOutside) testHastyRotation(t *testing.T) {
	old, err := s.ask(t.Context(), 0, authenticationv1.TokenRequestSpec{})
	if err != nil {
		t.Fatal(err)
	}
	oldID, next := idOfFile(t, filepath.Join(s.vaults[0], "sa.key")), newSigningKey(t, issue.RSA2048)
	run := s.startTraffic(t, old)
	run.signs(t, oldID)
	s.replace(t, "sa.key", privatePEM(t, next))
	s.keep(privatePEM(t, next))
	s.published(t, oldID, idOfKey(t, next))
	run.signs(t, oldID) // still: --publish-first
	run.signs(t, idOfKey(t, next))
	t.Logf("%d tokens, and not one failure", run.stop())
}
