package probe_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testpki.Clean()
	os.Exit(code)
}

// short is how long these tests wait for a peer that will not answer.
const short = 300 * time.Millisecond

// peer listens on loopback, and does something with each connection.
func peer(t *testing.T, do func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go do(conn)
		}
	}()
	return l.Addr().String()
}

// closedPort is an address of loopback at which nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// blackHole is a network in which packets are lost.
func blackHole(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
}

// TestDeadPeersAreNotWaitedFor: whatever a peer does, the look ends in time and
// says what it did.
func TestDeadPeersAreNotWaitedFor(t *testing.T) {
	for name, row := range map[string]struct {
		address string
		dial    probe.Dial
		want    string
	}{
		"nobody listens":                    {address: closedPort(t), want: "refuses the connection"},
		"packets are lost":                  {address: "192.0.2.1:6443", dial: blackHole, want: "does not answer within 300ms"},
		"it accepts and says nothing":       {address: peer(t, func(net.Conn) {}), want: "accepts the connection and says nothing within 300ms"},
		"it closes at once":                 {address: peer(t, func(c net.Conn) { c.Close() }), want: "closes the connection"},
		"it sends a byte now and then":      {address: peer(t, drip), want: "accepts the connection and says nothing within 300ms"},
		"it speaks plain HTTP":              {address: peer(t, plainHTTP), want: "answers in plain HTTP, not in TLS"},
		"it speaks something else":          {address: peer(t, func(c net.Conn) { c.Write([]byte("SSH-2.0-OpenSSH_9.9\r\n")) }), want: "does not speak TLS"},
		"it reads and never stops to write": {address: peer(t, func(c net.Conn) { flood(c) }), want: ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			seen := probe.Look(t.Context(), row.address, "", probe.Options{Dial: row.dial, Timeout: short})
			if took := time.Since(begin); took > 10*short {
				t.Errorf("took %s", took)
			}
			if seen.Outcome != trust.Unreachable || !strings.Contains(seen.Reason, row.want) {
				t.Errorf("got %s: %q, want %q", seen.Outcome, seen.Reason, row.want)
			}
		})
	}
}

// drip sends the head of a TLS record byte by byte, each in time.
func drip(c net.Conn) {
	for _, b := range append([]byte{22, 3, 3, 0x10, 0}, make([]byte, 4096)...) {
		if _, err := c.Write([]byte{b}); err != nil {
			return
		}
		time.Sleep(short / 4)
	}
}

func flood(c net.Conn) {
	block := slices.Repeat([]byte{23, 3, 3, 0x40, 0}, 4096)
	for {
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}

func plainHTTP(c net.Conn) {
	c.Read(make([]byte, 1024))
	c.Write([]byte("HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"))
	c.Close()
}

// TestUnknownNames are an error of the one who looks, but for the nodes of a
// cluster, which may know them.
func TestUnknownNames(t *testing.T) {
	dial := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "api.invalid", IsNotFound: true}}
	}
	for local, want := range map[bool]trust.Outcome{true: trust.Unreachable, false: trust.NotDialled} {
		servers := []trust.Server{{Address: "api.invalid:6443", Kind: trust.ServesEndpoint, Local: local}}
		seen := probe.Run(t.Context(), &trust.Graph{}, servers, nil, probe.Options{Dial: dial})
		if seen[0].Outcome != want {
			t.Errorf("local %v: %s (%s), want %s", local, seen[0].Outcome, seen[0].Reason, want)
		}
	}
}

// TestLookSeesWhatIsPresented, in every version of TLS, with the verdict on a
// client that shows nothing.
func TestLookSeesWhatIsPresented(t *testing.T) {
	c := testpki.New(t, testpki.Intermediate)
	r := c.Run()
	for _, row := range []struct {
		name     string
		change   func(*tls.Config)
		version  string
		alert    string
		asks     bool
		accepted int
	}{
		{"a server that demands a certificate", func(*tls.Config) {}, "TLS 1.3", "certificate_required", true, 1},
		{"the same in TLS 1.2", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, "TLS 1.2", "handshake_failure", true, 1},
		{"a server that would like one", func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert }, "TLS 1.3", "", true, 1},
		{"a server of old", func(c *tls.Config) {
			c.ClientAuth, c.MinVersion, c.MaxVersion = tls.NoClientCert, tls.VersionTLS10, tls.VersionTLS10
		}, "TLS 1.0", "", false, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := r.Etcd("cp1", "server")
			row.change(s.Config)
			r.Start("10.0.0.11:2379", s)
			seen := probe.Look(t.Context(), "10.0.0.11:2379", "", probe.Options{Dial: r.Dial, Timeout: 5 * time.Second})
			if seen.Outcome != trust.Answered || seen.Version != row.version || seen.Alert != row.alert || seen.AsksClient != row.asks || len(seen.Authorities) != row.accepted {
				t.Errorf("got %+v", seen)
			}
			if len(seen.Chain) != 2 || seen.Chain[0].Subject.CommonName != "cp1" {
				t.Errorf("chain of %d", len(seen.Chain))
			}
			if row.asks && trust.SubjectText(seen.Authorities[0]) != "CN=etcd-ca" {
				t.Errorf("named %q", trust.SubjectText(seen.Authorities[0]))
			}
		})
	}
}

// TestServerNameIsSent, for servers that present by name.
func TestServerNameIsSent(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	r := c.Run()
	s := r.APIServer("cp1")
	var mu sync.Mutex
	var asked []string
	s.Config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, h.ServerName)
		return nil, nil
	}
	r.Start("10.0.0.11:6443", s)
	r.Start("[fd00::11]:6443", s)
	r.Name("api.test", "10.0.0.11")
	for _, row := range [][2]string{{"10.0.0.11:6443", ""}, {"10.0.0.11:6443", "other.test"}, {"api.test:6443", ""}, {"[fd00::11]:6443", ""}} {
		// The apiserver asks for a certificate, so each is dialled once more.
		if seen := probe.Look(t.Context(), row[0], row[1], probe.Options{Dial: r.Dial}); seen.Outcome != trust.Answered {
			t.Errorf("%v: %s", row, seen.Reason)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff([]string{"", "", "other.test", "other.test", "api.test", "api.test", "", ""}, asked); diff != "" {
		t.Error(diff)
	}
}

// TestInterruptEndsALook, and all others that run beside it.
func TestInterruptEndsALook(t *testing.T) {
	address := peer(t, func(net.Conn) {})
	var servers []trust.Server
	for range 200 {
		servers = append(servers, trust.Server{Address: address, Kind: trust.ServesMetrics})
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(short, cancel)
	begin := time.Now()
	seen := probe.Run(ctx, &trust.Graph{}, servers, nil, probe.Options{Timeout: time.Minute})
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	if len(seen) != len(servers) || seen[0].Reason != "was not waited for" {
		t.Errorf("%d seen, the first %+v", len(seen), seen[0])
	}
}

// TestDeadPeersAreWaitedForTogether: forty silent servers take the time of one.
func TestDeadPeersAreWaitedForTogether(t *testing.T) {
	address := peer(t, func(net.Conn) {})
	servers := slices.Repeat([]trust.Server{{Address: address, Kind: trust.ServesMetrics}}, 40)
	begin, counted := time.Now(), 0
	probe.Run(t.Context(), &trust.Graph{}, servers, nil, probe.Options{Timeout: short, Seen: func(done, all int) { counted = done }})
	if took := time.Since(begin); took > 10*short {
		t.Errorf("took %s", took)
	}
	if counted != len(servers) {
		t.Errorf("%d were counted", counted)
	}
}

// TestAnswersAreBounded: a server that never stops to answer is not read to its end.
func TestAnswersAreBounded(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	r := c.Run()
	r.Identify(func(x *x509.Certificate) (string, []string) {
		return strings.Repeat("x", 16<<20), nil
	})
	g, keys := read(t, c)
	seen := observe(t, g, keys, r, time.Minute)
	api := find(t, seen, trust.ServesAPI)
	if len(api.Calls) == 0 {
		t.Fatal("nobody called")
	}
	for _, call := range api.Calls {
		if call.Outcome != trust.Answered || call.User != "" {
			t.Errorf("%s: %s, a name of %d bytes", call.Credential.ID, call.Outcome, len(call.User))
		}
	}
}
