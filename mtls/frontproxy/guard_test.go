package frontproxy_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/frontproxy"
)

type headers = map[string][]string

var admin = headers{"X-Remote-User": {"admin"}, "X-Remote-Group": {"system:masters"}}

func TestWhoIsBelieved(t *testing.T) {
	w := newWorld()
	foreign := authority("front-proxy-ca") // of the same name, with another key
	proxy, other, jane := client(w.proxies, "front-proxy-client"), client(w.proxies, "somebody"), client(w.cluster, "jane", "dev")
	forged, serving := client(foreign, "front-proxy-client"), leaf(w.proxies, x509.ExtKeyUsageServerAuth, "front-proxy-client")
	sameName := client(w.cluster, "front-proxy-client")
	nameless := client(w.cluster, "", "dev")
	for name, c := range map[string]struct {
		show    *tls.Certificate
		headers headers
		change  func(*frontproxy.Settings)
		user    string // empty: refused
		groups  []string
		proxied bool
		why     string // in the log
	}{
		"a proxy":                                        {show: &proxy, headers: admin, user: "admin", groups: []string{"system:masters", "system:authenticated"}, proxied: true},
		"no certificate":                                 {headers: admin, why: "no certificate"},
		"no headers and no certificate":                  {why: "no certificate"},
		"a user's own certificate":                       {show: &jane, user: "jane", groups: []string{"dev", "system:authenticated"}},
		"a user who says that she is the admin":          {show: &jane, headers: admin, user: "jane", groups: []string{"dev", "system:authenticated"}},
		"a proxy's name from the users' authority":       {show: &sameName, headers: admin, user: "front-proxy-client", groups: []string{"system:authenticated"}},
		"a proxy of a name that is not allowed":          {show: &other, headers: admin, why: "none of those that are allowed"},
		"any name where none is told":                    {show: &other, headers: admin, change: func(s *frontproxy.Settings) { s.AllowedNames = nil }, user: "admin", groups: []string{"system:masters", "system:authenticated"}, proxied: true},
		"an authority of the same name":                  {show: &forged, headers: admin, why: "unknown authority"},
		"a proxy's certificate for servers":              {show: &serving, headers: admin, why: "incompatible key usage"},
		"a proxy where none is believed":                 {show: &proxy, headers: admin, change: func(s *frontproxy.Settings) { s.Bundle = nil }, why: "no proxy is believed"},
		"a user where none may come alone":               {show: &jane, headers: admin, change: func(s *frontproxy.Settings) { s.ClientBundle = nil }, why: "no user may come without a proxy"},
		"a user whose certificate has no name":           {show: &nameless, why: "no common name"},
		"a proxy that names nobody":                      {show: &proxy, headers: headers{"X-Remote-Group": {"system:masters"}}, why: "names no user"},
		"a proxy that names nobody by an empty text":     {show: &proxy, headers: headers{"X-Remote-User": {""}}, why: "names no user"},
		"a proxy that writes with underscores":           {show: &proxy, headers: headers{"X_Remote_User": {"admin"}}, why: "names no user"},
		"a proxy that hands on the client's user beside": {show: &proxy, headers: headers{"X-Remote-User": {"admin", "jane"}}, why: "stands 2 times"},
		"a proxy that hands on another UID":              {show: &proxy, headers: headers{"X-Remote-User": {"jane"}, "X-Remote-Uid": {"1", "2"}}, why: "stands 2 times"},
		"a second user header that says otherwise": {show: &proxy, headers: headers{"X-Remote-User": {"jane"}, "X-User": {"admin"}},
			change: func(s *frontproxy.Settings) { s.UserHeaders = []string{"X-User", "X-Remote-User"} }, why: "differ"},
		"a second user header that says the same": {show: &proxy, headers: headers{"X-Remote-User": {"jane"}, "X-User": {"jane"}},
			change: func(s *frontproxy.Settings) { s.UserHeaders = []string{"X-User", "X-Remote-User"} }, user: "jane", groups: []string{"system:authenticated"}, proxied: true},
		"a proxy that says two things, of an authority of users too": {show: &proxy, headers: headers{"X-Remote-User": {"admin", "jane"}},
			change: func(s *frontproxy.Settings) { s.ClientBundle = bundle(w.cluster, w.proxies) }, why: "stands 2 times"},
		"a proxy that names nobody, of an authority of users too": {show: &proxy,
			change: func(s *frontproxy.Settings) { s.ClientBundle = bundle(w.cluster, w.proxies) }, user: "front-proxy-client", groups: []string{"system:authenticated"}},
		"a header of another name": {show: &proxy, headers: admin, change: func(s *frontproxy.Settings) { s.UserHeaders = []string{"X-User"} }, why: "names no user"},
		"anonymous, by a proxy": {show: &proxy, headers: headers{"X-Remote-User": {"system:anonymous"}, "X-Remote-Group": {"system:unauthenticated"}},
			user: "system:anonymous", groups: []string{"system:unauthenticated"}, proxied: true},
	} {
		t.Run(name, func(t *testing.T) {
			w.log.Reset()
			settings := *w.settings
			if c.change != nil {
				c.change(&settings)
			}
			got := ask(w.guard(&settings), request(c.show, c.headers))
			if c.user == "" {
				if got.status != http.StatusUnauthorized || got.caller != nil || !got.close || !strings.Contains(w.log.String(), c.why) {
					t.Errorf("%+v, and in the log, which should hold %q:\n%s", got, c.why, w.log.String())
				}
				return
			}
			if got.caller == nil {
				t.Fatalf("%d: %s", got.status, w.log.String())
			}
			if u := got.caller.User; u.Name != c.user || !slices.Equal(u.Groups, c.groups) || got.caller.Proxied != c.proxied {
				t.Errorf("%+v", got.caller)
			}
			if !got.caller.Peer.Certificate.Equal(c.show.Leaf) {
				t.Errorf("the connection is said to come from %s", got.caller.Peer)
			}
		})
	}
}

// What strangers write into their certificates is as long as they like.
func TestStrangersDoNotFillTheLog(t *testing.T) {
	w := newWorld()
	long := strings.Repeat("x\n", 20_000)
	stranger := client(authority(long), "jane")
	r := request(&stranger, nil)
	r.TLS.PeerCertificates = append(r.TLS.PeerCertificates, authority(long).Certificate) // of that name, and another key
	if got := ask(w.guard(w.settings), r); got.status != http.StatusUnauthorized {
		t.Errorf("%d", got.status)
	}
	if said := w.log.String(); len(said) > 5000 || strings.Count(said, "\n") != 1 || !strings.Contains(said, "unknown authority") {
		t.Errorf("the log has %d bytes: %.500s", len(said), said)
	}
}

func TestNoSpellingReachesTheHandler(t *testing.T) {
	w := newWorld()
	settings := *w.settings
	settings.UserHeaders, settings.ExtraPrefixes = append(settings.UserHeaders, "X-My-User"), []string{"X-My-Extra-"}
	good := headers{"X-Remote": {"1"}, "X-Remote-Users": {"1"}, "Accept": {"a", "b"}, "Remote-User": {"1"}}
	sent := headers{"Authorization": {"Bearer secret"}, "authorization": {"Bearer secret"}}
	for _, name := range []string{
		"X-Remote-User", "x-remote-user", "X_Remote_User", "X_REMOTE-USER", "X.Remote.User", "X-My-User", "X_My_User", "X-Remote-Uid", "X-Remote-Group", "x_remote_group",
		"X-Remote-Extra-Scopes", "x-remote-extra-scopes", "X_Remote_Extra_Scopes", "X-Remote-Extra-", "X-My-Extra-A", "x_my_extra-a",
	} {
		sent[name] = []string{"admin"}
	}
	maps.Copy(sent, good)
	jane, proxy, stranger := client(w.cluster, "jane"), client(w.proxies, "front-proxy-client"), client(authority("?"), "x")
	for name, show := range map[string]*tls.Certificate{"a user": &jane, "a proxy": &proxy} {
		r := request(show, sent)
		r.Trailer = http.Header{"X-Remote-User": nil}
		before := r.Header.Clone()
		if got := ask(w.guard(&settings), r); !cmp.Equal(got.header, http.Header(good)) {
			t.Errorf("%s: %v, %d", name, got.header, got.status)
		}
		if !cmp.Equal(before, r.Header) {
			t.Errorf("%s: the request was changed to %v", name, r.Header)
		}
	}

	// Who is not known goes on with a token, and without a name.
	g, status := w.guard(&settings), 0
	var reached *http.Request
	g.Otherwise = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reached = r })
	for name, show := range map[string]*tls.Certificate{"nobody": nil, "a stranger": &stranger} {
		status, reached = ask(g, request(show, sent)).status, nil
		if ask(g, request(show, sent)); reached == nil || status != http.StatusOK {
			t.Fatalf("%s: %d", name, status)
		}
		left := reached.Header.Clone()
		if left.Get("Authorization") == "" {
			t.Errorf("%s: the token is gone", name)
		}
		delete(left, "Authorization")
		delete(left, "authorization")
		if _, ok := frontproxy.FromContext(reached.Context()); ok || !cmp.Equal(left, http.Header(good)) {
			t.Errorf("%s: %v", name, left)
		}
	}
	reached = nil
	if got := ask(g, request(&proxy, headers{"X-Remote-User": {"admin", "jane"}})); got.status != http.StatusUnauthorized || reached != nil {
		t.Errorf("a proxy that says two things goes on: %d", got.status)
	}
}

func TestTrailersAreNotHandedOn(t *testing.T) {
	w := newWorld()
	cluster := client(w.cluster, "jane")
	var trailer http.Header
	g := w.guard(w.settings)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cluster.Leaf}}
		g.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if data, err := io.ReadAll(r.Body); err != nil || string(data) != "body" {
				t.Errorf("%q, %v", data, err)
			}
			trailer = r.Trailer
		})).ServeHTTP(rw, r)
	}))
	defer server.Close()
	r, err := http.NewRequest(http.MethodPost, server.URL, io.MultiReader(strings.NewReader("body")))
	check(err)
	r.Trailer = http.Header{"X-Remote-User": {"admin"}}
	answer, err := server.Client().Do(r)
	check(err)
	answer.Body.Close()
	if len(trailer) > 0 || answer.StatusCode != http.StatusOK {
		t.Errorf("%d, %v", answer.StatusCode, trailer)
	}
}

// switched are settings that a test changes.
type switched struct {
	now atomic.Pointer[frontproxy.Settings]
}

func (s *switched) Settings() (*frontproxy.Settings, error) {
	if now := s.now.Load(); now != nil {
		return now, nil
	}
	return nil, errors.New("nothing was read yet")
}

// The aggregation layer over sockets: TLS, HTTP/2 and HTTP/1.1, and a connection
// that stands while the authority of proxies is replaced.
func TestSettingsChangeUnderConnectionsThatStand(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/2.0": true, "HTTP/1.1": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			var settings switched
			serving := leaf(w.servers, x509.ExtKeyUsageServerAuth, "hello")
			connections := map[string]bool{}
			states := map[*tls.ConnectionState]bool{}
			guard := w.guard(&settings)
			server := &http.Server{TLSConfig: frontproxy.ServerConfig(&mtls.Snapshot{Certificate: &serving}, &settings), ErrorLog: nil,
				Handler: guard.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					connections[r.RemoteAddr], states[r.TLS] = true, true
					caller, _ := frontproxy.FromContext(r.Context())
					io.WriteString(rw, caller.User.Name+" "+r.Proto)
				}))}
			address := serve(t, server)
			proxy := client(w.proxies, "front-proxy-client")
			config := mtls.ClientConfig(&mtls.Snapshot{Certificate: &proxy, Bundle: bundle(w.servers)}, mtls.Named("hello.default.svc"))
			transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: h2}
			defer transport.CloseIdleConnections()
			if !h2 {
				config.NextProtos = []string{"http/1.1"}
			}
			as := &http.Client{Transport: frontproxy.RoundTripper(transport, func(*http.Request) (mtls.User, error) { return mtls.User{Name: "jane"}, nil })}
			get := func() (string, error) {
				answer, err := as.Get("https://" + address)
				if err != nil {
					return "", err
				}
				defer answer.Body.Close()
				body, err := io.ReadAll(answer.Body)
				return strings.TrimSpace(string(body)), err
			}
			want := func(text string) {
				t.Helper()
				if got, err := get(); err != nil || got != text {
					t.Fatalf("%q, %v, want %q", got, err, text)
				}
			}
			if got, err := get(); err == nil {
				t.Fatalf("without settings: %q", got)
			}
			settings.now.Store(w.settings)
			want("jane " + name)
			want("jane " + name)
			next := *w.settings
			next.Bundle = bundle(authority("front-proxy-ca"), w.proxies)
			settings.now.Store(&next)
			want("jane " + name)
			if len(connections) != 1 || len(states) != 1 {
				t.Errorf("%d connections, %d states: what is remembered is of no use", len(connections), len(states))
			}
			next2 := next
			next2.Bundle = bundle(authority("front-proxy-ca"))
			settings.now.Store(&next2)
			want("Unauthorized")
			settings.now.Store(&next)
			want("jane " + name)
			if len(connections) != 2 {
				t.Errorf("%d connections: that of who was refused goes on", len(connections))
			}
		})
	}
}

// Some clients show a certificate only to who says that it knows the authority.
func TestClientsAreToldOfBothBundles(t *testing.T) {
	w := newWorld()
	var settings switched
	settings.now.Store(w.settings)
	serving := leaf(w.servers, x509.ExtKeyUsageServerAuth, "hello")
	server := &http.Server{TLSConfig: frontproxy.ServerConfig(&mtls.Snapshot{Certificate: &serving}, &settings), Handler: http.NotFoundHandler()}
	address := serve(t, server)
	told := func() (all [][]byte) {
		t.Helper()
		config := mtls.ClientConfig(&mtls.Snapshot{Bundle: bundle(w.servers)}, mtls.Named("hello.default.svc"))
		config.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			all = r.AcceptableCAs
			return &tls.Certificate{}, nil
		}
		c, err := tls.Dial("tcp", address, config)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		return all
	}
	want := [][]byte{w.proxies.Certificate.RawSubject, w.cluster.Certificate.RawSubject}
	if got := told(); !cmp.Equal(got, want) {
		t.Errorf("%q", got)
	}
	settings.now.Store(&frontproxy.Settings{ClientBundle: w.settings.ClientBundle})
	if got := told(); !cmp.Equal(got, want[1:]) {
		t.Errorf("after a change: %q", got)
	}
}

func TestSettingsThatAreUnsafeLetNobodyIn(t *testing.T) {
	w := newWorld()
	proxy := client(w.proxies, "front-proxy-client")
	below, anew := certify(authority("kubernetes-ca"), w.proxies), certify(w.proxies, authority("root"))
	for name, change := range map[string]func(*frontproxy.Settings){
		"no bundle":                     func(s *frontproxy.Settings) { s.Bundle, s.ClientBundle = nil, nil },
		"every header":                  func(s *frontproxy.Settings) { s.ExtraPrefixes = []string{""} },
		"a name with a space":           func(s *frontproxy.Settings) { s.UserHeaders = []string{"X-Remote-User "} },
		"each client is a proxy":        func(s *frontproxy.Settings) { s.AllowedNames, s.ClientBundle = nil, bundle(w.cluster, w.proxies) },
		"an authority below both":       func(s *frontproxy.Settings) { s.AllowedNames, s.ClientBundle = nil, bundle(below) },
		"one authority, certified anew": func(s *frontproxy.Settings) { s.AllowedNames, s.ClientBundle = nil, bundle(anew) },
		"a thousand names":              func(s *frontproxy.Settings) { s.GroupHeaders = slices.Repeat([]string{"X-Group"}, 1000) },
	} {
		settings := *w.settings
		change(&settings)
		if got := ask(w.guard(&settings), request(&proxy, admin)); got.status != http.StatusServiceUnavailable || got.caller != nil || settings.Check() == nil {
			t.Errorf("%s: %+v, %v", name, got, settings.Check())
		}
	}
	shared := *w.settings
	shared.ClientBundle = bundle(w.cluster, w.proxies)
	if got := ask(w.guard(&shared), request(&proxy, admin)); got.caller == nil || got.caller.User.Name != "admin" {
		t.Errorf("one authority for both, where proxies are named: %+v", got)
	}
	if got := ask(w.guard(&switched{}), request(&proxy, admin)); got.status != http.StatusServiceUnavailable {
		t.Errorf("without settings: %+v", got)
	}
	if got := ask(w.guard(nil), request(&proxy, admin)); got.status != http.StatusServiceUnavailable {
		t.Errorf("without a source of settings: %+v", got)
	}
	// A bundle that nobody has made is not that of the system.
	empty := *w.settings
	empty.Bundle, empty.ClientBundle = new(mtls.Bundle), new(mtls.Bundle)
	if got := ask(w.guard(&empty), request(&proxy, admin)); got.status != http.StatusUnauthorized || strings.Count(w.log.String(), "no bundle to verify clients by") == 0 {
		t.Errorf("with empty bundles: %+v\n%s", got, w.log.String())
	}
}

func BenchmarkGuard(b *testing.B) {
	w := newWorld()
	proxy := client(w.proxies, "front-proxy-client")
	h := w.guard(w.settings).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := request(&proxy, headers{"X-Remote-User": {"jane"}, "X-Remote-Group": {"dev", "system:authenticated"}, "Accept": {"*/*"}, "User-Agent": {"kubectl"}})
	answer := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(answer, r)
	}
	if answer.Code != http.StatusOK {
		b.Fatal(answer.Code)
	}
}

// serve serves at the address that it returns until the test ends.
func serve(t *testing.T, s *http.Server) string {
	t.Helper()
	listener := listen()
	s.ReadHeaderTimeout = time.Minute
	ended := make(chan error, 1)
	go func() { ended <- s.ServeTLS(listener, "", "") }()
	t.Cleanup(func() {
		s.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}
