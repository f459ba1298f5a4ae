package acmeissuer

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"

	"github.com/kubepki/kubepki/internal/connlimit"
)

// wellKnown is where servers look (RFC 8555 section 8.3).
const wellKnown = "/.well-known/acme-challenge/"

// Tokens answers the requests of HTTP-01: for each token its key. It is an
// http.Handler, for plain HTTP, and safe for concurrent use. The zero value is ready.
type Tokens struct {
	// Client is asked for the challenges that other processes have presented, another
	// replica or one that has ended while a server looks: at most once a second,
	// whatever strangers ask for. nil: nobody is asked.
	Client *Client

	mu   sync.RWMutex
	keys map[string]answerTo

	others  sync.Mutex
	read    time.Time
	foreign map[string]answerTo
}

type answerTo struct{ host, key string }

func (t *Tokens) put(token, host, key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keys == nil {
		t.keys = make(map[string]answerTo)
	}
	t.keys[token] = answerTo{host, key}
}

func (t *Tokens) remove(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.keys, token)
}

func (t *Tokens) has(token string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	_, ok := t.keys[token]
	return ok
}

// find returns what to answer to a token.
func (t *Tokens) find(ctx context.Context, token string) (answerTo, bool) {
	t.mu.RLock()
	answer, ok := t.keys[token]
	t.mu.RUnlock()
	if ok || t.Client == nil || token == "" {
		return answer, ok
	}
	t.others.Lock()
	defer t.others.Unlock()
	if time.Since(t.read) >= time.Second {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		found := make(map[string]answerTo)
		err := t.Client.eachChallenge(ctx, "", func(c *cmacme.Challenge) {
			if c.Spec.Type == cmacme.ACMEChallengeTypeHTTP01 && c.Status.Presented && !final(c.Status.State) {
				found[c.Spec.Token] = answerTo{c.Spec.DNSName, c.Spec.Key}
			}
		})
		if t.read = time.Now(); err == nil {
			t.foreign = found
		}
	}
	answer, ok = t.foreign[token]
	return answer, ok
}

// ServeHTTP answers with the key of a token, to who asks for it by the name that is to
// be proved. A token is a random number that the ACME server drew, and its key is
// public: nothing here is secret.
func (t *Tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache, no-store, must-revalidate")
	if r.URL.Path == "/" || r.URL.Path == "/healthz" {
		// Load balancers ask before they send anything else.
		return
	}
	token, ok := strings.CutPrefix(r.URL.Path, wellKnown)
	if !ok || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.NotFound(w, r)
		return
	}
	answer, ok := t.find(r.Context(), token)
	if !ok || !strings.EqualFold(hostOf(r.Host), answer.host) {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, answer.key)
}

// hostOf takes the port and the brackets off.
func hostOf(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

// maxConnections bounds who is answered at the same time. ACME servers come with a
// handful, from several places at once.
const maxConnections = 512

// Serve answers on a listener until the context ends.
func (t *Tokens) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: t, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(connlimit.HTTP(server, l, maxConnections)); ctx.Err() == nil {
		return err
	}
	return nil
}

// httpSolver presents HTTP-01 by a route from the name to this process.
type httpSolver struct {
	*Solvers
	route route
}

// route leads requests for a challenge to a service.
type route interface {
	ensure(ctx context.Context, c *cmacme.Challenge, service string) error
	// remove takes away what does not go with the challenge.
	remove(ctx context.Context, c *cmacme.Challenge) error
}

func (h *httpSolver) present(ctx context.Context, c *cmacme.Challenge) error {
	if err := h.ensureService(ctx, c); err != nil {
		return err
	}
	if err := h.route.ensure(ctx, c, routeName(c)); err != nil {
		return err
	}
	h.Tokens.put(c.Spec.Token, c.Spec.DNSName, c.Spec.Key)
	return nil
}

func (h *httpSolver) cleanUp(ctx context.Context, c *cmacme.Challenge) error {
	h.Tokens.remove(c.Spec.Token)
	if err := h.route.remove(ctx, c); err != nil {
		return err
	}
	return h.removeService(ctx, c)
}

const (
	// checks is how often the key has to come back, each time by a connection of its
	// own: behind a name there may be several ingress controllers, not all of which
	// have taken up the route.
	checks = 3
	// maxKey bounds what is read of an answer.
	maxKey = 1024
	// checkTimeout bounds one look.
	checkTimeout = 10 * time.Second
)

func (h *httpSolver) seen(ctx context.Context, c *cmacme.Challenge) error {
	// What was presented may be gone, or lead to another process's host.
	if err := h.present(ctx, c); err != nil {
		return err
	}
	host := c.Spec.DNSName
	if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		host = "[" + host + "]"
	}
	where := (&url.URL{Scheme: "http", Host: host, Path: wellKnown + c.Spec.Token}).String()
	client := h.checkClient()
	defer client.CloseIdleConnections()
	for range checks {
		if err := look(ctx, client, where, c.Spec.Key); err != nil {
			return err
		}
	}
	return nil
}

// look asks for a key as the ACME server will. What else comes back is not shown: who
// writes the name chooses whom this process asks.
func look(ctx context.Context, client *http.Client, where, key string) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return fmt.Errorf("%s is no URL", where)
	}
	request.Header.Set("User-Agent", "kubepki-acme")
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("GET %s: %s", where, sayWeb(err))
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: HTTP %d, not 200: does the route lead to this controller?", where, response.StatusCode)
	}
	got, err := io.ReadAll(io.LimitReader(response.Body, maxKey))
	if err != nil {
		return fmt.Errorf("GET %s: the answer breaks off", where)
	}
	// RFC 8555 section 8.3 has white space at the end ignored.
	if strings.TrimRight(string(got), " \t\r\n") != key {
		return fmt.Errorf("GET %s: the answer is not the key: something else answers for this name", where)
	}
	return nil
}

// sayWeb tells of a failed look without the words of who answered.
func sayWeb(err error) string {
	if isTimeout(err) {
		return "no answer in time"
	}
	return say(err)
}

// checkClient asks as ACME servers do: redirects are followed, to whatever certificate,
// for one that would do is just being asked for.
func (h *httpSolver) checkClient() *http.Client {
	dial := h.dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 5 * time.Second, Resolver: h.resolver()}).DialContext
	}
	return &http.Client{
		Timeout: checkTimeout,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: dial, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
			TLSHandshakeTimeout: 5 * time.Second,
			TLSClientConfig:     &tls.Config{InsecureSkipVerify: true}, // #nosec G402 -- HTTP-01 is followed to hosts whose certificate is yet to come
		},
	}
}

// resolver asks the chosen name servers in turn; nil: the system's.
func (s *Solvers) resolver() *net.Resolver {
	if len(s.Nameservers) == 0 {
		return nil
	}
	var turn atomic.Uint32
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		next := s.Nameservers[int(turn.Add(1)-1)%len(s.Nameservers)]
		return (&net.Dialer{Timeout: 3 * time.Second}).DialContext(ctx, network, next)
	}}
}
