package tokenhttp

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/token"
	"github.com/kubepki/kubepki/token/internal/bearer"
)

// Verifier judges tokens: a [*token.Verifier], or a [*token.Cache] in front of
// one.
type Verifier interface {
	Verify(ctx context.Context, token string) (*token.Verified, error)
}

// Require hands on requests that show a good token, and answers others itself,
// as a [Guard] without further settings does.
func Require(v Verifier, next http.Handler) http.Handler { return (&Guard{Verifier: v}).Handler(next) }

// Guard lets requests with a good bearer token through (RFC 6750 section 2.1).
// It must not be changed while it is used.
type Guard struct {
	Verifier Verifier
	// Log hears why requests are refused, which is not told to who sends them;
	// nil: slog.Default.
	Log *slog.Logger
}

// Handler returns a handler that may be used by several goroutines. The next one
// finds who sent the request by [token.FromContext], and no Authorization header
// any more, so that the token is passed on to nobody by mistake.
//
// The answer is 401 without a good token, and 503 when the keys cannot be had.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := bearer.Token(authorization(r.Header))
		if !ok {
			g.refuse(w, "Bearer")
			return
		}
		v, err := g.Verifier.Verify(r.Context(), text)
		if err != nil {
			g.failed(w, r, err)
			return
		}
		r = r.WithContext(token.NewContext(r.Context(), v))
		r.Header = withoutAuthorization(r.Header)
		next.ServeHTTP(w, r)
	})
}

// authorization returns the values of all Authorization headers, also of those
// that something before did not write in the canonical form.
func authorization(h http.Header) (all []string) {
	for name, values := range h {
		if isAuthorization(name) {
			if all == nil {
				all = values
			} else {
				all = slices.Concat(all, values)
			}
		}
	}
	return all
}

func isAuthorization(name string) bool {
	return len(name) == len("Authorization") && strings.EqualFold(name, "Authorization")
}

func withoutAuthorization(h http.Header) http.Header {
	h = maps.Clone(h)
	for name, values := range h {
		if isAuthorization(name) {
			delete(h, name)
		} else {
			h[name] = slices.Clone(values)
		}
	}
	return h
}

func (g *Guard) failed(w http.ResponseWriter, r *http.Request, err error) {
	if bearer.Log(r.Context(), g.Log, err, slog.String("from", r.RemoteAddr)) {
		g.refuse(w, `Bearer error="invalid_token"`)
		return
	}
	http.Error(w, "tokens cannot be verified now", http.StatusServiceUnavailable)
}

func (*Guard) refuse(w http.ResponseWriter, challenge string) {
	w.Header().Set("WWW-Authenticate", challenge)
	http.Error(w, "Unauthorized", http.StatusUnauthorized)
}
