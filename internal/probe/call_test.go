package probe_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/probe"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

func read(t *testing.T, c *testpki.Cluster) (*trust.Graph, layout.Keyring) {
	t.Helper()
	node, keys, err := layout.Read(c.Path("cp1", "/"), layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return catalog.Wire([]trust.Node{node}), keys
}

func observe(t *testing.T, g *trust.Graph, keys layout.Keyring, r *testpki.Running, timeout time.Duration) []trust.Observation {
	t.Helper()
	return probe.Run(t.Context(), g, catalog.Servers(g), probe.Keys(keys), probe.Options{Dial: r.Dial, Timeout: timeout, At: testpki.At})
}

func find(t *testing.T, seen []trust.Observation, kind trust.ServerKind) *trust.Observation {
	t.Helper()
	for i := range seen {
		if seen[i].Server.Kind == kind {
			return &seen[i]
		}
	}
	t.Fatalf("no %s was looked at", kind)
	return nil
}

// TestRefusalsHaveTheirAlert: as a server of Go sends them, in both versions of
// TLS, and however early it closes.
func TestRefusalsHaveTheirAlert(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	r := c.Run()
	g, keys := read(t, c)
	for name, row := range map[string]struct {
		change func(*tls.Config)
		alert  string
	}{
		"an unknown authority": {func(c *tls.Config) { c.ClientCAs = r.APIServer("cp1").Config.ClientCAs }, "unknown_ca"},
		"a clock far ahead":    {func(c *tls.Config) { c.Time = func() time.Time { return testpki.Made.AddDate(9, 0, 0) } }, "certificate_expired"},
		"its own reasons":      {func(c *tls.Config) { c.VerifyConnection = func(tls.ConnectionState) error { return errors.New("no") } }, "bad_certificate"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+" in "+tls.VersionName(version), func(t *testing.T) {
				s := r.Etcd("cp1", "server")
				s.Config.MaxVersion = version
				row.change(s.Config)
				if row.alert == "bad_certificate" {
					// The look shows no certificate, and must not be refused for that.
					s.Config.ClientAuth = tls.RequireAnyClientCert
				}
				r.Start("10.0.0.11:2379", s)
				seen := find(t, observe(t, g, keys, r, 5*time.Second), trust.ServesEtcd)
				if seen.Outcome != trust.Answered || len(seen.Calls) != 2 {
					t.Fatalf("got %+v", seen)
				}
				for _, call := range seen.Calls {
					if call.Outcome != trust.Refused || call.Alert != row.alert {
						t.Errorf("%s: %s, %q (%s), want %q", call.Credential.ID, call.Outcome, call.Alert, call.Reason, row.alert)
					}
				}
			})
		}
	}
}

// TestCallsThatComeToNothing: what is not known is not said.
func TestCallsThatComeToNothing(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	r := c.Run()
	g, keys := read(t, c)
	for name, row := range map[string]struct {
		handler http.HandlerFunc
		outcome trust.Outcome
	}{
		"it shakes hands and is silent":    {func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() }, trust.Unreachable},
		"it has trouble of its own":        {status(http.StatusInternalServerError), trust.NotDialled},
		"it does not know the caller":      {status(http.StatusUnauthorized), trust.Refused},
		"it knows the caller, who may not": {status(http.StatusForbidden), trust.Answered},
		"it is older than the review":      {status(http.StatusNotFound), trust.Answered},
		"it answers with what is no JSON":  {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, trust.Answered},
		"it closes without a word": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.(*tls.Conn).NetConn().Close()
		}, trust.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			s := r.APIServer("cp1")
			s.Handler, s.Config.NextProtos = row.handler, nil
			r.Start("10.0.0.11:6443", s)
			timeout := 3 * time.Second
			if row.outcome == trust.Unreachable {
				timeout = short // it is to run out
			}
			for _, call := range find(t, observe(t, g, keys, r, timeout), trust.ServesAPI).Calls {
				if call.Outcome != row.outcome || call.User != "" {
					t.Errorf("%s: %s (%s), want %s", call.Credential.ID, call.Outcome, call.Reason, row.outcome)
				}
			}
		})
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// TestPeerFromElsewhereIsNotRefused: etcd closes on a peer whose certificate
// holds other addresses than the one it dials from, without an alert.
func TestPeerFromElsewhereIsNotRefused(t *testing.T) {
	for _, elsewhere := range []bool{true, false} {
		c := testpki.New(t, testpki.Single)
		if elsewhere {
			c.Reissue("cp1", "etcd/peer", "etcd/ca", withoutLoopback)
		}
		r := c.Run()
		s := r.Etcd("cp1", "peer")
		s.Config.Time = func() time.Time { return testpki.At }
		s.Raw = func(conn net.Conn) {
			tls.Server(conn, s.Config).Handshake()
			conn.Close()
		}
		r.Start("10.0.0.11:2380", s)
		g, keys := read(t, c)
		want := trust.Refused
		if elsewhere {
			want = trust.NotDialled
		}
		calls := find(t, observe(t, g, keys, r, 10*time.Second), trust.ServesEtcdPeers).Calls
		if len(calls) != 1 || calls[0].Outcome != want {
			t.Errorf("elsewhere %v: %+v", elsewhere, calls)
		}
	}
}

// TestWhatAnUnverifiedServerSaysIsNotTaken: an apiserver whose certificate does not
// verify is not asked what it publishes.
func TestWhatAnUnverifiedServerSaysIsNotTaken(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	r := c.Run()
	r.PublishKeys("one")
	g, keys := read(t, c)
	good := find(t, observe(t, g, keys, r, 5*time.Second), trust.ServesAPI)
	if good.Published == nil || len(good.Published.KeyIDs) != 1 || len(good.Published.APIServices) != 1 || len(good.Published.RootCAs) != 1 {
		t.Fatalf("got %+v", good.Published)
	}
	s := r.APIServer("cp1")
	s.Config.Certificates = r.Etcd("cp1", "server").Config.Certificates
	r.Start("10.0.0.11:6443", s)
	if bad := find(t, observe(t, g, keys, r, 5*time.Second), trust.ServesAPI); bad.Outcome != trust.Answered || bad.Published != nil {
		t.Errorf("got %+v", bad.Published)
	}
}

// TestWithoutKeysNobodyCalls, and what is presented is seen all the same.
func TestWithoutKeysNobodyCalls(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	g, _ := read(t, c)
	for _, o := range observe(t, g, nil, c.Run(), 5*time.Second) {
		if o.Server.Skip == "" && (len(o.Chain) == 0 || len(o.Calls) > 0) {
			t.Errorf("%s: %d certificates, %d calls", o.Server.Component, len(o.Chain), len(o.Calls))
		}
	}
}

func withoutLoopback(x *x509.Certificate) {
	x.DNSNames = []string{"cp1"}
	x.IPAddresses = []net.IP{net.ParseIP("10.0.0.11")}
}
