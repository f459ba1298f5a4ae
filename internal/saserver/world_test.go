package saserver_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/saserver"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/token"
)

const (
	issuer = "https://tokens.example.test/east"
	robot  = "system:serviceaccount:ci:robot"
)

// keys is a source of keys that tests change.
type keys struct{ now atomic.Pointer[token.KeySet] }

func (k *keys) Keys(context.Context, string) (*token.KeySet, error) { return k.now.Load(), nil }

func (k *keys) set(t testing.TB, all ...token.Key) {
	t.Helper()
	set, err := token.NewKeySet(all...)
	if err != nil {
		t.Fatal(err)
	}
	k.now.Store(set)
}

func newSigner(t testing.TB) *token.Signer {
	t.Helper()
	s, err := token.NewSigner(tlstest.Key(t, issue.ECDSAP256))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// world is a reviewer of one issuer's tokens, with its log and a clock.
type world struct {
	t        testing.TB
	signer   *token.Signer
	keys     keys
	at       time.Time
	reviewer *saserver.Reviewer
	registry *prometheus.Registry
	log      *safeBuffer
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, signer: newSigner(t), at: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), registry: prometheus.NewRegistry(), log: &safeBuffer{}}
	w.keys.set(t, w.signer.Key())
	verifier, err := token.NewVerifier(token.Config{
		Keys: &w.keys, Issuers: []string{issuer}, APIAudiences: []string{"api"}, Audiences: []string{"here"}, Legacy: true, Now: func() time.Time { return w.at },
	})
	if err != nil {
		t.Fatal(err)
	}
	cache, err := token.NewCache(verifier, token.CacheConfig{Size: 16, Life: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	w.reviewer = &saserver.Reviewer{
		Tokens: cache, Log: slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Metrics: saserver.NewMetrics(w.registry, &w.keys, &mtls.Snapshot{}),
	}
	return w
}

// claims are good ones, which a row of a table changes.
func (w *world) claims(change func(*token.Claims)) token.Claims {
	c := token.Claims{
		Issuer: issuer, Audiences: []string{"here", "there"}, ID: "2f2c9fb0", Expires: w.at.Add(time.Hour), NotBefore: w.at, IssuedAt: w.at,
		Namespace: "ci", ServiceAccount: token.Ref{Name: "robot", UID: "6f5c0c2e"}, Pod: &token.Ref{Name: "build-1", UID: "11d2a6a4"},
	}
	if change != nil {
		change(&c)
	}
	return c
}

func (w *world) token(change func(*token.Claims)) string {
	return sign(w.t, w.signer, w.claims(change))
}

func sign(t testing.TB, s *token.Signer, c token.Claims) string {
	t.Helper()
	text, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// post sends a body to the reviewer.
func (w *world) post(body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, saserver.ReviewPath, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return w.serve(r)
}

func (w *world) serve(r *http.Request) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	w.reviewer.ServeHTTP(answer, r)
	return answer
}

// safeBuffer is a log that a server's goroutines write.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
