package mtlshttp_test

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/mtlshttp"
)

// Each client is refused at the place that says so, and told nothing of why.
func TestWhoIsLetIn(t *testing.T) {
	ca, clients := tlstest.Authority(t, "ca"), tlstest.Authority(t, "clients")
	server := source(t, leaf(t, ca, "server", forServers), clients)
	jane := leaf(t, clients, "jane", forClients)
	stranger, old := leaf(t, tlstest.Authority(t, "clients"), "jane", forClients), leaf(t, clients, "jane", forClients, tlstest.Expired)
	const handshake = 0 // refused there
	rows := map[string]struct {
		show   *tls.Certificate
		want   mtls.Clients
		allow  mtls.Authorizer
		status int
		answer string
		log    string
	}{
		"a client of the bundle":              {jane, mtls.RequireClients, mtls.Anyone(), 200, "jane", ""},
		"the user who may":                    {jane, mtls.RequireClients, mtls.UserNamed("joe", "jane"), 200, "jane", ""},
		"another user":                        {jane, mtls.RequireClients, mtls.UserNamed("joe"), 403, "not allowed", "is none of"},
		"a user of the group that may":        {jane, mtls.RequireClients, mtls.InGroup("janes"), 200, "jane", ""},
		"a user of another group":             {jane, mtls.RequireClients, mtls.InGroup("joes"), 403, "not allowed", "in none of the groups"},
		"a guard without an authorizer":       {jane, mtls.RequireClients, nil, 403, "not allowed", "it has no authorizer"},
		"a client of another authority":       {stranger, mtls.RequireClients, mtls.Anyone(), handshake, "", "unknown authority"},
		"a client that has expired":           {old, mtls.RequireClients, mtls.Anyone(), handshake, "", "has expired"},
		"a server's certificate":              {leaf(t, clients, "jane", forServers), mtls.RequireClients, mtls.Anyone(), handshake, "", "usage"},
		"no certificate":                      {nil, mtls.RequireClients, mtls.Anyone(), handshake, "", "didn't provide a certificate"},
		"a client of the bundle, unverified":  {jane, mtls.UnverifiedClients, mtls.Anyone(), 200, "jane", ""},
		"one of another authority, likewise":  {stranger, mtls.UnverifiedClients, mtls.Anyone(), 403, "not allowed", "unknown authority"},
		"one that has expired, likewise":      {old, mtls.UnverifiedClients, mtls.Anyone(), 403, "not allowed", "has expired"},
		"one without a certificate, likewise": {nil, mtls.UnverifiedClients, mtls.Anyone(), 401, "a client certificate is needed", "no certificate"},
		"a server that asks for none":         {jane, mtls.NoClients, mtls.Anyone(), 401, "a client certificate is needed", "no certificate"},
	}
	for name, row := range rows {
		for protocol, speak := range protocols {
			t.Run(name+" over "+protocol, func(t *testing.T) {
				v := serve(t, server, row.want, row.allow, hello)
				c := client(t, source(t, row.show, ca), nil, speak)
				status, body, err := try(c, "https://"+v.addr)
				want := row.answer
				if row.status == 200 {
					want += " " + protocol
				}
				if status != row.status || body != want || (err != nil) != (row.status == handshake) {
					t.Errorf("%d %q %v, want %d %q", status, body, err, row.status, want)
				}
				eventually(t, "the log says "+row.log, func() bool { return strings.Contains(v.log.String(), row.log) })
				if row.log == "" && v.log.String() != "" {
					t.Errorf("the log says %s", v.log.String())
				}
				if err != nil && strings.Contains(err.Error(), row.log) {
					t.Errorf("the client is told: %v", err)
				}
			})
		}
	}
}

// What strangers write into their certificates is as long as they like.
func TestStrangersDoNotFillTheLog(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	v := serve(t, source(t, leaf(t, ca, "server", forServers), ca), mtls.UnverifiedClients, mtls.Anyone(), hello)
	long := strings.Repeat("x\n", 20_000)
	shown := leaf(t, tlstest.Authority(t, long), "jane", forClients)
	shown.Certificate = append(shown.Certificate, tlstest.Authority(t, long).Certificate.Raw) // of that name, and another key
	if status, body := get(t, client(t, source(t, shown, ca), nil), "https://"+v.addr); status != 403 || body != "not allowed" {
		t.Errorf("%d %s", status, body)
	}
	if said := v.log.String(); len(said) > 5000 || strings.Count(said, "\n") != 1 || !strings.Contains(said, "unknown authority") {
		t.Errorf("the log has %d bytes: %.500s", len(said), said)
	}
}

func TestNobodyIsJudgedWithoutABundle(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	v := serve(t, source(t, leaf(t, ca, "server", forServers), ca), mtls.RequireClients, mtls.Anyone(), hello)
	c := client(t, source(t, leaf(t, ca, "jane", forClients), ca), nil)
	var empty mtls.Memory
	v.Handler = (&mtlshttp.Guard{Source: &empty, Allow: mtls.Anyone(), Log: slog.New(slog.DiscardHandler)}).Handler(hello)
	for _, now := range []*mtls.Snapshot{nil, {}} {
		if now != nil {
			empty.Set(*now)
		}
		if status, body := get(t, c, "https://"+v.addr); status != 503 || body != "clients cannot be verified now" {
			t.Errorf("%d %s", status, body)
		}
	}
	set(t, &empty, nil, ca) // and the same connection is good
	if status, body := get(t, c, "https://"+v.addr); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	if came, _ := v.connections(); came != 1 {
		t.Errorf("%d connections", came)
	}
}

// Servers are the one of the URL, or the one that the program says.
func TestWhichServerIsTrusted(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	good := leaf(t, ca, "server", forServers)
	nameOnly := leaf(t, ca, "server", forServers, func(x *issue.Template) { x.Addresses = nil })
	addressOnly := leaf(t, ca, "server", forServers, func(x *issue.Template) { x.DNSNames = nil })
	elsewhere := leaf(t, ca, "server", forServers, func(x *issue.Template) {
		x.DNSNames, x.Addresses = []string{"elsewhere.example.test"}, []net.IP{net.IPv4(127, 0, 0, 2)}
	})
	rows := map[string]struct {
		show   *tls.Certificate
		host   string
		server mtls.Authorizer
		err    string
	}{
		"by its name":                              {good, "localhost", nil, ""},
		"by its address":                           {good, "127.0.0.1", nil, ""},
		"by its name, and it has no address":       {nameOnly, "localhost", nil, ""},
		"by an address that it does not have":      {nameOnly, "127.0.0.1", nil, "another server than was asked for"},
		"by its address, and it has no name":       {addressOnly, "127.0.0.1", nil, ""},
		"by a name that it does not have":          {addressOnly, "localhost", nil, "another server than was asked for"},
		"of another address":                       {elsewhere, "127.0.0.1", nil, "another server than was asked for"},
		"of another name":                          {elsewhere, "localhost", nil, "another server than was asked for"},
		"as the program calls it, wherever it is":  {elsewhere, "127.0.0.1", mtls.Named("elsewhere.example.test"), ""},
		"of the name, and the program says other":  {good, "localhost", mtls.Named("elsewhere.example.test"), "another server than was asked for"},
		"of another authority":                     {leaf(t, tlstest.Authority(t, "ca"), "server", forServers), "localhost", nil, "unknown authority"},
		"with a client's certificate":              {leaf(t, ca, "server", forClients), "localhost", nil, "usage"},
		"with a certificate that has expired":      {leaf(t, ca, "server", forServers, tlstest.Expired), "localhost", nil, "expired"},
		"with one expired, and any server is good": {leaf(t, ca, "server", forServers, tlstest.Expired), "localhost", mtls.Anyone(), "expired"},
	}
	jane := source(t, leaf(t, ca, "jane", forClients), ca)
	for name, row := range rows {
		for protocol, speak := range protocols {
			t.Run(name+" over "+protocol, func(t *testing.T) {
				v := serve(t, source(t, row.show, ca), mtls.RequireClients, mtls.Anyone(), hello)
				status, body, err := try(client(t, jane, row.server, speak), "https://"+net.JoinHostPort(row.host, v.port))
				if row.err == "" {
					if err != nil || status != 200 || body != "jane "+protocol {
						t.Errorf("%d %q %v", status, body, err)
					}
					return
				}
				var why *tls.CertificateVerificationError
				if err == nil || !strings.Contains(err.Error(), row.err) || !errors.As(err, &why) {
					t.Errorf("%d %q %v, want %q", status, body, err, row.err)
				}
			})
		}
	}
}

// A redirection could lead out of TLS, to whoever is between.
func TestNothingGoesOutWithoutTLS(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	var asked text
	plain := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Write([]byte("asked")) })}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go plain.Serve(l)
	defer plain.Close()
	v := serve(t, source(t, leaf(t, ca, "server", forServers), ca), mtls.RequireClients, mtls.Anyone(), http.RedirectHandler("http://"+l.Addr().String(), http.StatusFound))
	c := client(t, source(t, leaf(t, ca, "jane", forClients), ca), nil)
	for _, from := range []string{"http://" + l.Addr().String(), "https://" + v.addr} {
		if _, _, err := try(c, from); err == nil || !strings.Contains(err.Error(), "not an https:// URL") {
			t.Errorf("%s: %v", from, err)
		}
	}
	if asked.String() != "" {
		t.Error("the server without TLS was asked")
	}
}

// Sessions of TLS are kept by the program's cache, and not beyond a rotation: a session
// shows the certificate that it was made with.
func TestSessionsDoNotOutliveACertificate(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	var resumed atomic.Bool
	v := serve(t, source(t, leaf(t, ca, "server", forServers), ca), mtls.RequireClients, mtls.Anyone(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resumed.Store(r.TLS.DidResume)
		hello(w, r)
	}))
	for protocol, speak := range protocols {
		jane := source(t, leaf(t, ca, "jane", forClients), ca)
		c := client(t, jane, nil, speak, func(x *mtlshttp.Transport) {
			x.Base.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(0)
		})
		ask := func(want string, again bool) {
			t.Helper()
			c.CloseIdleConnections()
			if status, body := get(t, c, "https://"+v.addr); status != 200 || body != want+" "+protocol || resumed.Load() != again {
				t.Errorf("%d %s, resumed: %t; want %s %s", status, body, resumed.Load(), want, protocol)
			}
		}
		ask("jane", false)
		ask("jane", true)
		set(t, jane, leaf(t, ca, "joan", forClients), ca)
		ask("joan", false)
		ask("joan", true)
	}
}

// A client that would speak HTTP/2 must not be offered it by a server that does not.
func TestServerWithoutHTTP2(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	show := source(t, leaf(t, ca, "server", forServers), ca)
	for name, row := range map[string]struct {
		change func(*http.Server)
		want   string
	}{
		"as it is":                          {func(*http.Server) {}, "jane HTTP/2.0"},
		"it is switched on":                 {func(s *http.Server) { s.Protocols = new(http.Protocols); s.Protocols.SetHTTP2(true) }, "jane HTTP/2.0"},
		"it is not among the protocols":     {func(s *http.Server) { s.Protocols = new(http.Protocols); s.Protocols.SetHTTP1(true) }, "jane HTTP/1.1"},
		"it is switched off in another way": {func(s *http.Server) { s.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){} }, "jane HTTP/1.1"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := mtlshttp.NewServer(show, mtls.RequireClients, mtlshttp.Require(show, mtls.Anyone(), hello))
			row.change(s)
			go s.ServeTLS(l, "", "")
			defer s.Close()
			if status, body, err := try(client(t, source(t, leaf(t, ca, "jane", forClients), ca), nil), "https://"+l.Addr().String()); err != nil || status != 200 || body != row.want {
				t.Errorf("%d %q %v, want %q", status, body, err, row.want)
			}
		})
	}
}

// What connects may be replaced; whom it trusts and what it shows may not.
func TestAnotherBase(t *testing.T) {
	ca, proxy := tlstest.Authority(t, "ca"), newProxy(t)
	jane := source(t, leaf(t, ca, "jane", forClients), ca)
	through := http.ProxyURL(&url.URL{Scheme: "http", Host: proxy.addr})
	for name, base := range map[string]func() *http.Transport{
		"empty":           func() *http.Transport { return &http.Transport{} },
		"through a proxy": func() *http.Transport { return &http.Transport{Proxy: through} },
		"through one, verifying nothing": func() *http.Transport {
			return &http.Transport{Proxy: through, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			replace := func(x *mtlshttp.Transport) { x.Base = base() }
			good := serve(t, source(t, leaf(t, ca, "server", forServers), ca), mtls.RequireClients, mtls.Anyone(), hello)
			if status, body, err := try(client(t, jane, nil, replace), "https://localhost:"+good.port); err != nil || status != 200 || !strings.HasPrefix(body, "jane ") {
				t.Errorf("%d %s %v", status, body, err)
			}
			bad := serve(t, source(t, leaf(t, tlstest.Authority(t, "ca"), "server", forServers), ca), mtls.RequireClients, mtls.Anyone(), hello)
			var why *tls.CertificateVerificationError
			if status, body, err := try(client(t, jane, nil, replace), "https://localhost:"+bad.port); !errors.As(err, &why) {
				t.Errorf("a server of another authority: %d %s %v", status, body, err)
			}
			if status, body, err := try(client(t, jane, mtls.Named("elsewhere.example.test"), replace), "https://localhost:"+good.port); !errors.As(err, &why) {
				t.Errorf("another server than the program says: %d %s %v", status, body, err)
			}
		})
	}
}

func TestThroughProxies(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	v := serve(t, source(t, leaf(t, ca, "server", forServers), ca), mtls.RequireClients, mtls.Anyone(), hello)
	name, address := "https://localhost:"+v.port, "https://"+v.addr
	proxy := newProxy(t)
	rows := map[string]struct {
		scheme, to string
		server     mtls.Authorizer
		show       *tls.Certificate
		err        string
	}{
		"CONNECT to a name":                         {"http", name, nil, leaf(t, ca, "jane", forClients), ""},
		"CONNECT to a name that is another's":       {"http", name, mtls.Named("elsewhere.example.test"), leaf(t, ca, "jane", forClients), "another server than was asked for"},
		"CONNECT to an address that is named":       {"http", address, mtls.Named("127.0.0.1"), leaf(t, ca, "jane", forClients), ""},
		"CONNECT to an address that is not":         {"http", address, nil, leaf(t, ca, "jane", forClients), "say which server is meant, by mtls.Named"},
		"CONNECT without a certificate":             {"http", name, nil, nil, "Get "},
		"SOCKS to a name":                           {"socks5", name, nil, leaf(t, ca, "jane", forClients), ""},
		"SOCKS to a name that is another's":         {"socks5", name, mtls.Named("elsewhere.example.test"), leaf(t, ca, "jane", forClients), "another server than was asked for"},
		"a proxy that is spoken to by TLS, CONNECT": {"https", name, nil, leaf(t, ca, "jane", forClients), "use http:// or socks5://"},
	}
	for what, row := range rows {
		for protocol, speak := range protocols {
			t.Run(what+" over "+protocol, func(t *testing.T) {
				before := proxy.count.Load()
				at := &url.URL{Scheme: row.scheme, Host: proxy.addr, User: url.UserPassword("me", "s3cret")}
				c := client(t, source(t, row.show, ca), row.server, speak, func(x *mtlshttp.Transport) { x.Base.Proxy = http.ProxyURL(at) })
				status, body, err := try(c, row.to)
				switch {
				case row.err == "" && (err != nil || status != 200 || body != "jane "+protocol):
					t.Errorf("%d %q %v", status, body, err)
				case row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err) || strings.Contains(err.Error(), "s3cret")):
					t.Errorf("%d %q %v, want %q", status, body, err, row.err)
				}
				if through := proxy.count.Load() > before; through != (row.scheme != "https") {
					t.Errorf("through the proxy: %t", through)
				}
			})
		}
	}
}
