package frontproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/kubepki/kubepki/internal/remember"
	"github.com/kubepki/kubepki/mtls"
)

// Caller is who has sent a request.
type Caller struct {
	// User is whom the proxy has named, or the user of the certificate. As in
	// kube-apiserver, the group system:authenticated is among the groups, but for
	// system:anonymous.
	User mtls.User
	// Peer is who the connection comes from: the proxy, or the user.
	Peer mtls.Peer
	// Proxied tells that it comes from a proxy.
	Proxied bool
}

type callerKey struct{}

// NewContext returns a context that carries a caller, for tests of handlers.
func NewContext(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// FromContext returns the caller that [Guard] has put into a request's context.
// There is none, and ok is false, where no Guard has let the request through.
func FromContext(ctx context.Context) (c Caller, ok bool) {
	c, ok = ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// Guard lets requests through of which it knows who has sent them. It must not be
// changed while it is used, nor copied.
type Guard struct {
	// Settings says whose word is taken.
	Settings Source
	// Otherwise gets the requests that come neither from a proxy nor with a
	// certificate of their own, such as those with a token; nil: the answer is 401.
	// It finds no header in which a proxy names a user either.
	Otherwise http.Handler
	// Log hears why requests are refused, which is not told to who sends them;
	// nil: slog.Default.
	Log *slog.Logger

	now     atomic.Pointer[rules]
	proxies remember.Clients
	clients remember.Clients
}

// Handler returns a handler that may be used by several goroutines. The next one
// finds who has sent the request by [FromContext].
//
// A request whose connection shows a proxy's certificate, of the bundle, for
// clients, and of an allowed name, comes from whom its headers name. Where they
// name nobody, and on each other connection, it comes from the user of the
// certificate, if ClientBundle has it. The answer to all others is 401, and their
// connection is closed; it is 503 while the settings cannot be had or have a
// fault. No answer says why.
//
// Whoever it comes from, the next handler finds neither the headers of the
// settings nor those that kube-apiserver uses, in no spelling, no Authorization
// header, and no trailers, which come after all that was judged. The request of
// before is not changed.
func (g *Guard) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rules, err := g.rules()
		if err != nil {
			g.log().ErrorContext(r.Context(), "callers cannot be told apart now", "err", err)
			http.Error(w, "callers cannot be verified now", http.StatusServiceUnavailable)
			return
		}
		caller, err := g.caller(rules, r)
		clean := *r
		clean.Header, clean.Trailer = rules.theirs.without(r.Header), nil
		switch {
		case err == nil:
			deleteFold(clean.Header, "Authorization")
			next.ServeHTTP(w, clean.WithContext(NewContext(r.Context(), caller)))
		case g.Otherwise != nil && !errors.Is(err, errAmbiguous):
			g.Otherwise.ServeHTTP(w, &clean)
		default:
			g.log().InfoContext(r.Context(), "request refused", "from", r.RemoteAddr, "err", remember.ForLog(err.Error()))
			// A certificate that was renewed meanwhile comes by a new connection.
			w.Header().Set("Connection", "close")
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
		}
	})
}

func (g *Guard) log() *slog.Logger {
	if g.Log != nil {
		return g.Log
	}
	return slog.Default()
}

// rules are made once of each settings.
func (g *Guard) rules() (*rules, error) {
	if g.Settings == nil {
		return nil, errNoSettings
	}
	s, err := g.Settings.Settings()
	if err != nil {
		return nil, fmt.Errorf("the source of settings: %w", err)
	}
	if now := g.now.Load(); now != nil && now.Settings == s {
		return now, nil
	}
	now, err := newRules(s)
	if err != nil {
		return nil, err
	}
	g.now.Store(now)
	return now, nil
}

// caller tries the proxy first, as k8s.io/apiserver does
// (pkg/authentication/authenticatorfactory/delegating.go).
func (g *Guard) caller(rules *rules, r *http.Request) (Caller, error) {
	c, err := g.proxied(rules, r)
	if err == nil || errors.Is(err, errAmbiguous) {
		return c, err
	}
	c, own := g.own(rules, r)
	if own == nil {
		return c, nil
	}
	return Caller{}, errors.Join(err, own)
}

func (g *Guard) proxied(rules *rules, r *http.Request) (Caller, error) {
	if rules.Bundle == nil {
		return Caller{}, errors.New("no proxy is believed: there is no " + keyBundle)
	}
	peer, err := g.proxies.Verify(&mtls.Snapshot{Bundle: rules.Bundle}, r.TLS)
	if err != nil {
		return Caller{}, fmt.Errorf("as a proxy: %w", err)
	}
	if err := rules.allows(peer); err != nil {
		return Caller{}, err
	}
	user, ok, err := rules.named(r.Header)
	if err != nil {
		return Caller{}, err
	}
	if !ok {
		return Caller{}, fmt.Errorf("the proxy %s names no user", peer)
	}
	return Caller{withAuthenticated(user), peer, true}, nil
}

func (g *Guard) own(rules *rules, r *http.Request) (Caller, error) {
	if rules.ClientBundle == nil {
		return Caller{}, errors.New("no user may come without a proxy: there is no " + keyClientBundle)
	}
	peer, err := g.clients.Verify(&mtls.Snapshot{Bundle: rules.ClientBundle}, r.TLS)
	if err != nil {
		return Caller{}, fmt.Errorf("as a user: %w", err)
	}
	user, err := peer.User()
	if err != nil {
		return Caller{}, err
	}
	return Caller{withAuthenticated(user), peer, false}, nil
}

// withAuthenticated adds a group as
// k8s.io/apiserver/pkg/authentication/group/authenticated_group_adder.go does.
func withAuthenticated(u mtls.User) mtls.User {
	const authenticated = "system:authenticated"
	known := func(group string) bool { return group == authenticated || group == "system:unauthenticated" }
	if u.Name != "system:anonymous" && !slices.ContainsFunc(u.Groups, known) {
		u.Groups = append(slices.Clone(u.Groups), authenticated)
	}
	return u
}

// deleteFold deletes a header in each spelling of capitals.
func deleteFold(h http.Header, header string) {
	for name := range h {
		if strings.EqualFold(name, header) {
			delete(h, name)
		}
	}
}
