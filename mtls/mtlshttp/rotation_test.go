package mtlshttp_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/mtlshttp"
)

// stream answers with a line at once, and with the rest when it is let.
type stream struct{ rest chan struct{} }

func (s *stream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/stream" {
		hello(w, r)
		return
	}
	fmt.Fprintln(w, "first")
	w.(http.Flusher).Flush()
	select {
	case <-s.rest:
		fmt.Fprintln(w, "rest")
	case <-r.Context().Done():
	}
}

// begin asks for a stream and reads its first line.
func begin(t testing.TB, c *http.Client, url string) (answer *http.Response, r *bufio.Reader) {
	t.Helper()
	answer, err := c.Get(url + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	r = bufio.NewReader(answer.Body)
	if line, err := r.ReadString('\n'); line != "first\n" {
		t.Fatalf("%q %v", line, err)
	}
	return answer, r
}

// The client's certificate is rotated while a request is under way, which with
// HTTP/2 keeps its connection from being idle.
func TestNoRequestShowsAReplacedCertificate(t *testing.T) {
	for protocol, speak := range protocols {
		t.Run(protocol, func(t *testing.T) {
			ca := tlstest.Authority(t, "ca")
			s := &stream{make(chan struct{})}
			v := serve(t, source(t, leaf(t, ca, "server", forServers), ca), mtls.RequireClients, mtls.Anyone(), s)
			mine := source(t, leaf(t, ca, "before", forClients), ca)
			c, url := client(t, mine, nil, speak), "https://"+v.addr
			answer, rest := begin(t, c, url)
			if _, body := get(t, c, url); body != "before "+protocol {
				t.Error(body)
			}
			set(t, mine, leaf(t, ca, "after", forClients), ca)
			for range 3 {
				if _, body := get(t, c, url); body != "after "+protocol {
					t.Error(body)
				}
			}
			close(s.rest)
			if line, err := rest.ReadString('\n'); line != "rest\n" {
				t.Errorf("%q %v", line, err)
			}
			if _, err := rest.ReadByte(); err != io.EOF {
				t.Error(err)
			}
			answer.Body.Close()
			eventually(t, "connections of before are closed", func() bool { _, stand := v.connections(); return stand == 1 })
			if _, body := get(t, c, url); body != "after "+protocol {
				t.Error(body)
			}
			came, stand := v.connections()
			if want := map[string]int{"HTTP/1.1": 3, "HTTP/2.0": 2}[protocol]; came != want || stand != 1 {
				t.Errorf("%d connections, %d stand, want %d and 1", came, stand, want)
			}
		})
	}
}

func TestNoRequestGoesToAServerThatIsTrustedNoLonger(t *testing.T) {
	for protocol, speak := range protocols {
		t.Run(protocol, func(t *testing.T) {
			ca, other := tlstest.Authority(t, "ca"), tlstest.Authority(t, "other")
			v := serve(t, source(t, leaf(t, ca, "server", forServers), ca), mtls.RequireClients, mtls.Anyone(), hello)
			show := leaf(t, ca, "jane", forClients)
			mine := source(t, show, ca)
			c, url := client(t, mine, nil, speak), "https://"+v.addr
			get(t, c, url)
			set(t, mine, show, ca, other)
			get(t, c, url)
			set(t, mine, show, other)
			if _, _, err := try(c, url); err == nil || !strings.Contains(err.Error(), "unknown authority") {
				t.Error(err)
			}
		})
	}
}

// A source that fails closes nothing: it is not known what is so.
func TestWhatStandsOutlivesASourceThatFails(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	v := serve(t, source(t, leaf(t, ca, "server", forServers), ca), mtls.RequireClients, mtls.Anyone(), hello)
	failing := &failing{Source: source(t, leaf(t, ca, "jane", forClients), ca)}
	failing.now.Store(true)
	c := client(t, failing, nil)
	if _, _, err := try(c, "https://"+v.addr); !errors.Is(err, errAway) {
		t.Error(err)
	}
	for _, now := range []bool{false, true, false} {
		failing.now.Store(now)
		get(t, c, "https://"+v.addr)
	}
	if _, stand := v.connections(); stand != 1 {
		t.Errorf("%d connections", stand)
	}
}

var errAway = errors.New("the API is away")

type failing struct {
	mtls.Source
	now atomic.Bool
}

func (f *failing) Snapshot() (*mtls.Snapshot, error) {
	if f.now.Load() {
		return nil, errAway
	}
	return f.Source.Snapshot()
}

// A client of the standard library, which knows nothing of rotations.
func TestClientsComeAnewWhenTheServersCertificateIsReplaced(t *testing.T) {
	for protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			ca := tlstest.Authority(t, "ca")
			its := source(t, leaf(t, ca, "before", forServers), ca)
			s := &stream{make(chan struct{})}
			v := serve(t, its, mtls.RequireClients, mtls.Anyone(), s)
			transport := &http.Transport{TLSClientConfig: mtls.DialledAt(source(t, leaf(t, ca, "jane", forClients), ca), nil, v.addr), ForceAttemptHTTP2: protocol == "HTTP/2.0"}
			defer transport.CloseIdleConnections()
			c, url := &http.Client{Transport: transport}, "https://"+v.addr
			shown := func() string {
				t.Helper()
				answer, err := c.Get(url)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
				if answer.Proto != protocol {
					t.Error(answer.Proto)
				}
				return answer.TLS.PeerCertificates[0].Subject.CommonName
			}
			answer, rest := begin(t, c, url)
			defer answer.Body.Close()
			shown()
			if got := shown(); got != "before" {
				t.Error(got)
			}
			set(t, its, leaf(t, ca, "after", forServers), ca)
			if got := shown(); got != "before" {
				t.Errorf("the request that tells it shows %s", got)
			}
			eventually(t, "it comes anew", func() bool { return shown() == "after" })
			came, _ := v.connections()
			if shown(); shown() != "after" {
				t.Error("it went back")
			}
			if again, _ := v.connections(); again != came {
				t.Error("it came once more")
			}
			close(s.rest)
			if line, err := rest.ReadString('\n'); line != "rest\n" {
				t.Errorf("what was under way was cut off: %q %v", line, err)
			}
		})
	}
}

// The connection of a client whose authority is trusted no longer stands, and
// its requests are refused; the renewed client, of the standard library, comes in
// by itself.
func TestNoHandlerIsCalledForAClientThatIsTrustedNoLonger(t *testing.T) {
	for _, clients := range []mtls.Clients{mtls.RequireClients, mtls.UnverifiedClients} {
		for protocol := range protocols {
			t.Run(fmt.Sprint(protocol, clients), func(t *testing.T) {
				ca, before, after := tlstest.Authority(t, "ca"), tlstest.Authority(t, "before"), tlstest.Authority(t, "after")
				pair := leaf(t, ca, "server", forServers)
				its, mine := source(t, pair, before), source(t, leaf(t, before, "jane", forClients), ca)
				v := serve(t, its, clients, mtls.Anyone(), hello)
				transport := &http.Transport{TLSClientConfig: mtls.ClientConfig(mine, mtls.Named("127.0.0.1")), ForceAttemptHTTP2: protocol == "HTTP/2.0"}
				defer transport.CloseIdleConnections()
				c, url := &http.Client{Transport: transport}, "https://"+v.addr
				for range 2 {
					if status, body := get(t, c, url); status != 200 || body != "jane "+protocol {
						t.Fatalf("%d %s", status, body)
					}
				}
				set(t, its, pair, after)
				set(t, mine, leaf(t, after, "jane", forClients), ca)
				if status, body := get(t, c, url); status != 403 || body != "not allowed" || !strings.Contains(v.log.String(), "unknown authority") {
					t.Errorf("%d %s; the log: %s", status, body, v.log.String())
				}
				eventually(t, "the renewed client comes in", func() bool { status, _ := get(t, c, url); return status == 200 })
			})
		}
	}
}

// What is expired while the connection stands: by the clock of a bubble, and so on a
// network in memory. When the bubble ends, a goroutine that is left fails the test.
func TestExpiryOfConnectionsThatStand(t *testing.T) {
	short := func(x *issue.Template) { x.NotAfter = time.Now().Add(10 * time.Minute) }
	still := func(*issue.Template) {}
	for name, row := range map[string]struct {
		client, server func(*issue.Template)
		status         int
		told           string
	}{
		"neither":  {still, still, 200, ""},
		"client's": {short, still, 403, ""},
		"server's": {still, short, 0, "expired"},
	} {
		for protocol, speak := range protocols {
			t.Run(name+" over "+protocol, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ca := tlstest.Authority(t, "ca")
					network := newNetwork()
					var told text
					guarded := (&mtlshttp.Guard{Source: source(t, nil, ca), Allow: mtls.Anyone(), Log: slog.New(slog.NewTextHandler(&told, nil))}).Handler(hello)
					server := mtlshttp.NewServer(source(t, leaf(t, ca, "server", forServers, row.server), ca), mtls.RequireClients, guarded)
					server.IdleTimeout, server.ErrorLog = time.Hour, log.New(&told, "", 0)
					go server.ServeTLS(network, "", "")
					mine := source(t, leaf(t, ca, "jane", forClients, row.client), ca)
					var closed []string
					connections := mtls.NewConnections(mine, func(_ net.Addr, why error) { closed = append(closed, why.Error()) })
					c := client(t, mine, nil, speak, func(x *mtlshttp.Transport) {
						x.Base.IdleConnTimeout, x.Base.DialContext, x.Connections = time.Hour, network.Dial, connections
					})
					if status, body := get(t, c, "https://localhost"); status != 200 || body != "jane "+protocol {
						t.Errorf("%d %s", status, body)
					}
					time.Sleep(11 * time.Minute)
					if row.told != "" {
						connections.CloseStale()
						if len(closed) != 1 || !strings.Contains(closed[0], row.told) {
							t.Errorf("closed: %q", closed)
						}
					}
					status, body, err := try(c, "https://localhost")
					if status != row.status || (err != nil) != (row.status == 0) {
						t.Errorf("%d %s %v", status, body, err)
					}
					c.CloseIdleConnections()
					server.Close()
					time.Sleep(10 * time.Second) // connections say good-bye for some of it
				})
			})
		}
	}
}

// A connection that was upgraded belongs to who has upgraded it, on both sides,
// and rotations leave it alone.
func TestUpgradesOutliveRotations(t *testing.T) {
	ca, after := tlstest.Authority(t, "ca"), tlstest.Authority(t, "after")
	its, mine := source(t, leaf(t, ca, "server", forServers), ca), source(t, leaf(t, ca, "jane", forClients), ca)
	v := serve(t, its, mtls.RequireClients, mtls.Anyone(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			hello(w, r)
			return
		}
		c, both, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer c.Close()
		fmt.Fprint(both, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		both.Flush()
		io.Copy(c, both)
	}))
	connections := mtls.NewConnections(mine, nil)
	c, url := client(t, mine, nil, func(x *mtlshttp.Transport) { x.Connections = connections }), "https://"+v.addr
	if _, body := get(t, c, url); body != "jane HTTP/2.0" {
		t.Error(body)
	}
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Connection", "keep-alive, Upgrade")
	r.Header.Set("Upgrade", "WebSocket")
	answer, err := c.Transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	both, ok := answer.Body.(io.ReadWriter)
	if !ok || answer.StatusCode != http.StatusSwitchingProtocols || answer.Request != r {
		t.Fatalf("%s, %T", answer.Status, answer.Body)
	}
	echo := func() {
		t.Helper()
		got := make([]byte, 4)
		if _, err := both.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(both, got); err != nil || string(got) != "ping" {
			t.Fatalf("%q %v", got, err)
		}
	}
	echo()
	set(t, its, leaf(t, ca, "server", forServers), ca, after)
	set(t, mine, leaf(t, ca, "joe", forClients), ca, after)
	if _, body := get(t, c, url); body != "joe HTTP/2.0" {
		t.Error(body)
	}
	echo()
	// Whoever wants it closed says so: it is one of the connections that are looked at.
	set(t, mine, leaf(t, ca, "joe", forClients), after)
	if n := connections.CloseStale(); n == 0 {
		t.Error("it was not closed")
	}
	if _, err := io.ReadFull(both, make([]byte, 1)); err == nil {
		t.Error("it stands")
	}
}

// The authority of both sides is rotated again and again under requests of both
// protocols, the way each rotation goes: trust, show, distrust.
func TestNoRequestFailsInARotation(t *testing.T) {
	old := tlstest.Authority(t, "ca 0")
	its, mine := source(t, leaf(t, old, "server", forServers), old), source(t, leaf(t, old, "jane", forClients), old)
	v := serve(t, its, mtls.RequireClients, mtls.UserNamed("jane"), hello)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var all []*atomic.Int64
	for _, speak := range protocols {
		c := client(t, mine, nil, speak)
		for range 2 {
			done := new(atomic.Int64)
			all = append(all, done)
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					answer, err := c.Post("https://"+v.addr, "text/plain", strings.NewReader("x"))
					if err != nil {
						t.Error(err)
						return
					}
					body, err := io.ReadAll(answer.Body)
					answer.Body.Close()
					if err != nil || answer.StatusCode != 200 {
						t.Errorf("%s %s %v", answer.Status, body, err)
						return
					}
					done.Add(1)
				}
			})
		}
	}
	served, shown := leaf(t, old, "server", forServers), leaf(t, old, "jane", forClients)
	step := func() { // until what has begun before has ended, for everybody
		for _, done := range all {
			at := done.Load()
			eventually(t, "requests go on", func() bool { return done.Load() >= at+2 || t.Failed() })
		}
	}
	for i := range 4 {
		next := tlstest.Authority(t, fmt.Sprint("ca ", i+1))
		set(t, its, served, old, next)
		set(t, mine, shown, old, next)
		step()
		served, shown = leaf(t, next, "server", forServers), leaf(t, next, "jane", forClients)
		set(t, its, served, old, next)
		set(t, mine, shown, old, next)
		step()
		set(t, mine, shown, next)
		step()
		set(t, its, served, next)
		step()
		old = next
	}
	close(stop)
	wg.Wait()
	if log := v.log.String(); strings.Contains(log, "certificate") { // a handshake that nobody needed any more may be in it
		t.Errorf("the server's log: %s", log)
	}
}

// A request that waits for its answer has no handshake before it: only who looks
// at connections can end it.
func TestRequestsUnderWayAreEndedByConnections(t *testing.T) {
	for protocol, speak := range protocols {
		t.Run(protocol, func(t *testing.T) {
			ca, other := tlstest.Authority(t, "ca"), tlstest.Authority(t, "other")
			s := &stream{make(chan struct{})}
			v := serve(t, source(t, leaf(t, ca, "server", forServers), ca), mtls.RequireClients, mtls.Anyone(), s)
			show := leaf(t, ca, "jane", forClients)
			mine := source(t, show, ca)
			connections := mtls.NewConnections(mine, nil)
			c := client(t, mine, nil, speak, func(x *mtlshttp.Transport) { x.Connections = connections })
			answer, rest := begin(t, c, "https://"+v.addr)
			defer answer.Body.Close()
			set(t, mine, show, ca, other)
			if n := connections.CloseStale(); n != 0 {
				t.Errorf("%d were closed that are good", n)
			}
			set(t, mine, show, other)
			if n := connections.CloseStale(); n != 1 {
				t.Errorf("%d were closed", n)
			}
			if _, err := rest.ReadByte(); err == nil || err == io.EOF {
				t.Error(err)
			}
			c.CloseIdleConnections()
			eventually(t, "no connection is left", func() bool { return connections.Len() == 0 })
		})
	}
}

// A server that takes connections and says nothing, as one behind a firewall.
func TestHandshakesThatDoNotEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ca := tlstest.Authority(t, "ca")
	mine := source(t, leaf(t, ca, "jane", forClients), ca)
	connections := mtls.NewConnections(mine, nil)
	c := client(t, mine, nil, func(x *mtlshttp.Transport) {
		x.Base.TLSHandshakeTimeout, x.Connections = 50*time.Millisecond, connections
	})
	_, _, err = try(c, "https://"+l.Addr().String())
	var late net.Error
	if err == nil || !strings.Contains(err.Error(), "the TLS handshake took longer than 50ms") || !errors.As(err, &late) || !late.Timeout() {
		t.Error(err)
	}
	eventually(t, "the connection is closed", func() bool { return connections.Len() == 0 })
}
