package mtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
)

// changing is a source that tests change.
type changing struct{ now atomic.Pointer[mtls.Snapshot] }

func (c *changing) Snapshot() (*mtls.Snapshot, error) { return c.now.Load(), nil }

// set is what files would hold.
func (c *changing) set(t testing.TB, pair tls.Certificate, trusted ...issue.Authority) {
	t.Helper()
	c.now.Store(tlstest.Snapshot(t, &pair, trusted...))
}

func TestRotatedPairIsShownAndConnectionsGoOn(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	var source changing
	source.set(t, leaf(t, ca, "one", forServers))
	server := mtls.ServerConfig(&source, mtls.NoClients)
	before := connect(t, server, clientOf(ca), false)
	source.set(t, leaf(t, ca, "two", forServers))
	if got := shown(connect(t, server, clientOf(ca), false)); got != "two" {
		t.Errorf("%s is shown", got)
	}
	if err := before.echo(); err != nil || shown(before) != "one" {
		t.Errorf("the connection of before: %v, with %s", err, shown(before))
	}
}

// A change of the server's own certificate does not take its clients' sessions.
func TestSessionsAreResumedAcrossARotationOfThePair(t *testing.T) {
	ca, clients := tlstest.Authority(t, "ca"), tlstest.Authority(t, "clients")
	var source changing
	source.set(t, leaf(t, ca, "one", forServers), clients)
	server, client := mtls.ServerConfig(&source, mtls.RequireClients), clientOf(ca, leaf(t, clients, "jane", forClients))
	connect(t, server, client, false)
	source.set(t, leaf(t, ca, "two", forServers), clients)
	connect(t, server, client, true)
}

func connect(t testing.TB, server, client *tls.Config, resumed bool) *link {
	t.Helper()
	l, err := dial(t, server, client)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.server.ConnectionState().DidResume; got != resumed {
		t.Fatalf("resumed: %t", got)
	}
	return l
}

func shown(l *link) string { return l.client.ConnectionState().PeerCertificates[0].Subject.CommonName }

func TestClientIsLetInOrNot(t *testing.T) {
	ca, foreign := tlstest.Authority(t, "ca"), tlstest.Authority(t, "ca") // of one name
	var source changing
	source.set(t, leaf(t, ca, "server", forServers), ca)
	none, good := []tls.Certificate(nil), []tls.Certificate{leaf(t, ca, "jane", forClients)}
	rows := map[string]struct {
		clients mtls.Clients
		show    []tls.Certificate
		want    string // of the error; empty: let in
	}{
		"with a certificate, where one is required":         {mtls.RequireClients, good, ""},
		"without one, where one is required":                {mtls.RequireClients, none, "didn't provide a certificate"},
		"with one of another authority, where it is needed": {mtls.RequireClients, []tls.Certificate{leaf(t, foreign, "jane", forClients)}, "unknown authority"},
		"with a server's certificate":                       {mtls.RequireClients, []tls.Certificate{leaf(t, ca, "server", forServers)}, "incompatible key usage"},
		"without one, where none is asked for":              {mtls.NoClients, none, ""},
	}
	for name, row := range rows {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(fmt.Sprintf("%s, %s", name, tls.VersionName(version)), func(t *testing.T) {
				client := clientOf(ca, row.show...)
				client.MaxVersion = version
				showAlways(client)
				_, err := dial(t, mtls.ServerConfig(&source, row.clients), client)
				if (err == nil) != (row.want == "") || (err != nil && !strings.Contains(err.Error(), row.want)) {
					t.Errorf("got %v, want %q", err, row.want)
				}
			})
		}
	}
}

// showAlways lets a client show its certificate to servers that would not know
// it too.
func showAlways(c *tls.Config) {
	if len(c.Certificates) > 0 {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.Certificates[0], nil }
	}
}

// Everybody is let in, and nobody is taken for somebody: at the first connection,
// at one by a session that is resumed, and when the authority is trusted no more.
func TestUnverifiedClientIsKnownByVerifyClientAlone(t *testing.T) {
	ca, clients, foreign := tlstest.Authority(t, "ca"), tlstest.Authority(t, "clients"), tlstest.Authority(t, "clients") // of one name
	pair := leaf(t, ca, "server", forServers)
	rows := map[string]struct {
		show []tls.Certificate
		want string // of the error; empty: it is known
	}{
		"with a certificate":               {[]tls.Certificate{leaf(t, clients, "jane", forClients)}, ""},
		"without one":                      {nil, mtls.ErrNoClient.Error()},
		"with one of another authority":    {[]tls.Certificate{leaf(t, foreign, "jane", forClients)}, "unknown authority"},
		"with a server's certificate":      {[]tls.Certificate{leaf(t, clients, "server", forServers)}, "incompatible key usage"},
		"with the chain of somebody else":  {[]tls.Certificate{withChain(leaf(t, foreign, "jane", forClients), leaf(t, clients, "john", forClients))}, "unknown authority"},
		"with a certificate of the server": {[]tls.Certificate{leaf(t, ca, "jane", forClients)}, "unknown authority"},
	}
	for name, row := range rows {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(fmt.Sprintf("%s, %s", name, tls.VersionName(version)), func(t *testing.T) {
				var source changing
				source.set(t, pair, clients)
				server, client := mtls.ServerConfig(&source, mtls.UnverifiedClients), clientOf(ca, row.show...)
				client.MaxVersion = version
				showAlways(client)
				known := func(want string, resumed bool) {
					t.Helper()
					state := connect(t, server, client, resumed).server.ConnectionState()
					if len(state.VerifiedChains) > 0 {
						t.Error("its chain counts as verified")
					}
					c, err := mtls.VerifyClient(&source, &state)
					if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) || (err == nil && c.Certificate.Subject.CommonName != "jane") {
						t.Errorf("resumed %t: got %v, want %q", resumed, err, want)
					}
				}
				known(row.want, false)
				known(row.want, true)
				source.set(t, pair, tlstest.Authority(t, "new"))
				if len(row.show) > 0 {
					known("unknown authority", true)
				}
				source.set(t, pair, clients)
				known(row.want, true)
			})
		}
	}
}

func withChain(c tls.Certificate, above ...tls.Certificate) tls.Certificate {
	for _, a := range above {
		c.Certificate = append(c.Certificate, a.Certificate...)
	}
	return c
}

// Who shows the certificate of somebody has not their key.
func TestUnverifiedClientMustHoldItsKey(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	var source changing
	source.set(t, leaf(t, ca, "server", forServers), ca)
	stolen := leaf(t, ca, "jane", forClients)
	stolen.PrivateKey = tlstest.Key(t, issue.ECDSAP256)
	_, err := dial(t, mtls.ServerConfig(&source, mtls.UnverifiedClients), clientOf(ca, stolen))
	if err == nil || !strings.Contains(err.Error(), "invalid signature") {
		t.Errorf("got %v", err)
	}
}

func TestVersionsAndProtocols(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	pair := leaf(t, ca, "server", forServers)
	server := mtls.ServerConfig(&mtls.Snapshot{Certificate: &pair}, mtls.NoClients)
	old := clientOf(ca)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if _, err := dial(t, server, old); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	for _, protocol := range []string{"h2", "http/1.1"} {
		client := clientOf(ca)
		client.NextProtos = []string{protocol}
		l, err := dial(t, server, client)
		if err != nil || l.client.ConnectionState().NegotiatedProtocol != protocol {
			t.Errorf("%s: %v", protocol, err)
		}
	}
}

// failing is a source that knows nothing yet.
type failing struct{}

func (failing) Snapshot() (*mtls.Snapshot, error) { return nil, errors.New("nothing yet") }

func TestNothingIsServedWithoutWhatItTakes(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	pair := leaf(t, ca, "server", forServers)
	rows := map[string]struct {
		source mtls.Source
		want   string
	}{
		"no bundle":                     {&mtls.Snapshot{Certificate: &pair}, "no bundle"},
		"no certificate":                {&mtls.Snapshot{}, "no certificate"},
		"an error":                      {failing{}, "nothing yet"},
		"a bundle that nobody has made": {&mtls.Snapshot{Certificate: &pair, Bundle: &mtls.Bundle{}}, "no bundle"},
		"no snapshot, and no error":     {new(changing), "does not say why"},
		"no source":                     {nil, "no source is set"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			for _, clients := range []mtls.Clients{mtls.RequireClients, mtls.UnverifiedClients} {
				_, err := dial(t, mtls.ServerConfig(row.source, clients), clientOf(ca))
				if err == nil || !strings.Contains(err.Error(), row.want) {
					t.Errorf("%d: got %v", clients, err)
				}
			}
		})
	}
	for _, anchors := range [][]*x509.Certificate{nil, {nil}, {ca.Certificate, nil}} {
		if _, err := mtls.NewBundle(anchors...); err == nil {
			t.Errorf("there is a bundle of %v", anchors)
		}
	}
	if _, err := mtls.NewBundle(ca.Certificate, nil); err == nil || !strings.Contains(err.Error(), "authority 2") {
		t.Errorf("got %v", err)
	}
}

// A session that was made while an authority was trusted does not let its client
// in when it is not trusted any more; other clients resume theirs.
func TestRemovedAuthorityRefusesResumedSessions(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) { removeAuthority(t, version) })
	}
}

func removeAuthority(t *testing.T, version uint16) {
	ca, stays, goes := tlstest.Authority(t, "ca"), tlstest.Authority(t, "stays"), tlstest.Authority(t, "goes")
	pair := leaf(t, ca, "server", forServers)
	var source changing
	source.set(t, pair, stays, goes)
	server := mtls.ServerConfig(&source, mtls.RequireClients)
	good, bad := clientOf(ca, leaf(t, stays, "good", forClients)), clientOf(ca, leaf(t, goes, "bad", forClients))
	good.MaxVersion, bad.MaxVersion = version, version
	showAlways(bad)
	connect(t, server, good, false)
	connect(t, server, good, true)
	connect(t, server, bad, false)
	standing := connect(t, server, bad, true)

	source.set(t, pair, stays)
	connect(t, server, good, true)
	if _, err := dial(t, server, bad); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("the other one: %v", err)
	}
	state := standing.server.ConnectionState()
	if _, err := mtls.VerifyClient(&source, &state); !errors.As(err, new(x509.UnknownAuthorityError)) {
		t.Errorf("the connection that stands: %v", err)
	}
}

// What crypto/tls does about resumed sessions has changed between its releases:
// the configuration's own check is called as it would be.
func TestOwnCheckOfResumedSessions(t *testing.T) {
	ca, goes := tlstest.Authority(t, "ca"), tlstest.Authority(t, "goes")
	pair := leaf(t, ca, "server", forServers)
	var source changing
	source.set(t, pair, ca, goes)
	server := mtls.ServerConfig(&source, mtls.RequireClients)
	client := clientOf(ca, leaf(t, goes, "jane", forClients))
	connect(t, server, client, false)
	resumed := connect(t, server, client, true).server.ConnectionState()
	config, err := server.GetConfigForClient(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	if err := config.VerifyConnection(resumed); err != nil {
		t.Error(err)
	}
	if err := config.VerifyConnection(tls.ConnectionState{}); !errors.Is(err, mtls.ErrNoClient) {
		t.Errorf("no certificate: %v", err)
	}
	source.set(t, pair, ca)
	if err := config.VerifyConnection(resumed); err != nil {
		t.Errorf("a handshake that began before: %v", err)
	}
	if config, err = server.GetConfigForClient(&tls.ClientHelloInfo{}); err != nil {
		t.Fatal(err)
	}
	if err := config.VerifyConnection(resumed); err == nil {
		t.Error("let in")
	}
}

func TestVerifyClientOfAConnectionThatStands(t *testing.T) {
	rows := map[string]struct {
		harm func(t *testing.T, d *disk, ca issue.Authority)
		want string
	}{
		"nothing has changed": {func(*testing.T, *disk, issue.Authority) {}, ""},
		"its authority was certified anew": {func(t *testing.T, d *disk, ca issue.Authority) {
			d.writeBundle(t, tlstest.Certify(t, "clients", ca.Key))
		}, ""},
		"its authority has a neighbour":       {func(t *testing.T, d *disk, ca issue.Authority) { d.writeBundle(t, tlstest.Authority(t, "new"), ca) }, ""},
		"its authority was made anew":         {func(t *testing.T, d *disk, _ issue.Authority) { d.writeBundle(t, tlstest.Authority(t, "clients")) }, "unknown authority"},
		"its certificate has come to its end": {func(*testing.T, *disk, issue.Authority) { time.Sleep(2 * time.Hour) }, "expired"},
		"the bundle was half written, and old": {func(t *testing.T, d *disk, _ issue.Authority) {
			tlstest.Put(t, d.files.Bundle, []byte("-----BEGIN CERT"))
		}, ""},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, clients, d := tlstest.Authority(t, "ca"), tlstest.Authority(t, "clients"), newDisk(t)
				d.writePair(t, leaf(t, ca, "server", forServers))
				d.writeBundle(t, clients)
				source := d.open(t)
				l := connect(t, mtls.ServerConfig(source, mtls.RequireClients), clientOf(ca, leaf(t, clients, "jane", forClients)), false)
				state := l.server.ConnectionState()
				l.close() // time does not go on in the bubble while somebody waits on a socket
				row.harm(t, d, clients)
				looks(t, source, 3)
				c, err := mtls.VerifyClient(source, &state)
				switch {
				case row.want == "" && (err != nil || c.Certificate.Subject.CommonName != "jane"):
					t.Errorf("got %v", err)
				case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
					t.Errorf("got %v, want %q", err, row.want)
				}
			})
		})
	}
	if _, err := mtls.VerifyClient(failing{}, nil); !errors.Is(err, mtls.ErrNoClient) {
		t.Errorf("without TLS: %v", err)
	}
}

// Real files, sockets and time: 8 clients connect all the while.
func TestManyHandshakesWhileFilesChange(t *testing.T) {
	ca, clients, d := tlstest.Authority(t, "ca"), tlstest.Authority(t, "clients"), newDisk(t)
	d.writePair(t, leaf(t, ca, "0", forServers))
	d.writeBundle(t, clients)
	server := mtls.ServerConfig(d.open(t), mtls.RequireClients)
	seen := make(chan string, 1)
	stop := make(chan struct{})
	var all sync.WaitGroup
	defer all.Wait()
	defer close(stop)
	for range 8 {
		client := clientOf(ca, leaf(t, clients, "jane", forClients))
		all.Go(func() {
			for {
				l, err := dial(t, server, client)
				if err != nil {
					t.Error(err)
					return
				}
				l.close()
				client.ClientSessionCache = tls.NewLRUClientSessionCache(1) // of no use from now on
				select {
				case <-stop:
					return
				case seen <- shown(l):
				default:
				}
			}
		})
	}
	for i := range 3 {
		name := fmt.Sprint(i + 1)
		pair := leaf(t, ca, name, forServers)
		d.writeKey(t, pair)
		d.writeCertificate(t, pair)
		d.writeBundle(t, clients, tlstest.Authority(t, "more"))
		waitFor(t, seen, name)
	}
}

func waitFor(t *testing.T, seen chan string, name string) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case got := <-seen:
			if got == name {
				return
			}
		case <-late:
			t.Fatalf("the certificate %s is not shown", name)
		}
	}
}

func BenchmarkVerifyClient(b *testing.B) {
	ca := tlstest.Authority(b, "ca")
	var source changing
	source.set(b, leaf(b, ca, "server", forServers), ca)
	for name, clients := range map[string]mtls.Clients{"of a handshake that has": mtls.RequireClients, "of one that has not": mtls.UnverifiedClients} {
		state := connect(b, mtls.ServerConfig(&source, clients), clientOf(ca, leaf(b, ca, "jane", forClients)), false).server.ConnectionState()
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := mtls.VerifyClient(&source, &state); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
