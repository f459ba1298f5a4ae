package tokenhttp_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
	"github.com/kubepki/kubepki/token/tokenhttp"
)

// What the middleware adds to a request whose token is remembered.
func BenchmarkRemembered(b *testing.B) {
	cache, err := token.NewCache(newVerifier(b), token.CacheConfig{Life: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	h := tokenhttp.Require(cache, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
	r.Header.Set("Authorization", "Bearer "+tokentest.Good(tokentest.Payload(time.Now())))
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
	if w.Code != http.StatusOK {
		b.Fatal(w.Code)
	}
}
