package mtlshttp

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/kubepki/kubepki/internal/remember"
	"github.com/kubepki/kubepki/mtls"
)

// Require hands on requests of clients that an authorizer lets in, and answers
// others itself, as a [Guard] without further settings does.
func Require(s mtls.Source, allow mtls.Authorizer, next http.Handler) http.Handler {
	return (&Guard{Source: s, Allow: allow}).Handler(next)
}

// Guard lets requests through by the certificate of their client. It must not be
// changed while it is used.
type Guard struct {
	// Source has the bundle that clients come from: that of the server, as a rule.
	Source mtls.Source
	// Allow says who may; nil: nobody. [mtls.Anyone] is each client of the bundle.
	Allow mtls.Authorizer
	// Log hears why requests are refused, which is not told to who sends them;
	// nil: slog.Default.
	Log *slog.Logger

	known remember.Clients
}

// Handler returns a handler that may be used by several goroutines. The next one
// finds who sent the request by [mtls.FromContext].
//
// Clients are verified now, by the newest bundle, for each request: one that has
// expired or whose authority was taken out of use does not live on by a connection
// that stands. What was found is remembered for each connection, a second long, and
// a refusal until there is another bundle.
//
// The answer is 401 without a certificate, 403 with one that is not good or whose
// client may not, and 503 while the source has no bundle. With a certificate that
// is not good, or none, the connection is closed after what is under way, so that
// a client that was renewed meanwhile comes with the new one.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := g.known.Verify(g.Source, r.TLS)
		if err != nil {
			g.unverified(w, r, err)
			return
		}
		if err := g.allowed(peer); err != nil {
			g.log(r, slog.LevelInfo, "client refused", err, slog.String("client", peer.String()))
			http.Error(w, "not allowed", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r.WithContext(mtls.NewContext(r.Context(), peer)))
	})
}

func (g *Guard) allowed(peer mtls.Peer) error {
	if g.Allow == nil {
		return errors.New("the guard allows nobody: it has no authorizer")
	}
	return g.Allow(peer)
}

func (g *Guard) unverified(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, remember.ErrNotJudged) {
		g.log(r, slog.LevelError, "client not judged", err)
		http.Error(w, "clients cannot be verified now", http.StatusServiceUnavailable)
		return
	}
	g.log(r, slog.LevelInfo, "client refused", err)
	w.Header().Set("Connection", "close")
	if errors.Is(err, mtls.ErrNoClient) {
		http.Error(w, "a client certificate is needed", http.StatusUnauthorized)
		return
	}
	http.Error(w, "not allowed", http.StatusForbidden)
}

func (g *Guard) log(r *http.Request, level slog.Level, what string, why error, more ...slog.Attr) {
	log := g.Log
	if log == nil {
		log = slog.Default()
	}
	log.LogAttrs(r.Context(), level, what, append(more, slog.String("reason", remember.ForLog(why.Error())), slog.String("from", r.RemoteAddr))...)
}
