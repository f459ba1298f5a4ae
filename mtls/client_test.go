package mtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
)

// odd makes a credential of which something is not as usual.
func odd(t testing.TB, a issue.Authority, change func(*issue.Template)) tls.Certificate {
	t.Helper()
	return *tlstest.Leaf(t, a, "server", tlstest.At("server.example.test"), tlstest.For(forServers, forClients), change)
}

func TestServerIsTakenOrNot(t *testing.T) {
	ca, foreign := tlstest.Authority(t, "ca"), tlstest.Authority(t, "ca") // of one name
	till := spiffeid.RequireFromString("spiffe://example.test/ns/shop/sa/till")
	id := func(all ...string) func(*issue.Template) {
		return func(x *issue.Template) {
			for _, one := range all {
				u, err := url.Parse(one)
				if err != nil {
					t.Fatal(err)
				}
				x.URIs = append(x.URIs, u)
			}
		}
	}
	usual := func(*issue.Template) {}
	rows := map[string]struct {
		by     issue.Authority
		change func(*issue.Template)
		dial   string
		server mtls.Authorizer
		want   string // of the error; empty: taken
	}{
		"the name that was dialled":                    {ca, usual, "server.example.test", nil, ""},
		"a name of a wildcard":                         {ca, func(x *issue.Template) { x.DNSNames = []string{"*.example.test"} }, "server.example.test", nil, ""},
		"another name":                                 {ca, usual, "other.example.test", nil, "not other.example.test"},
		"the common name alone":                        {ca, func(x *issue.Template) { x.DNSNames, x.Subject.CommonName = nil, "server.example.test" }, "server.example.test", nil, "legacy Common Name"},
		"an address that was dialled":                  {ca, func(x *issue.Template) { x.Addresses = []net.IP{{127, 0, 0, 1}} }, "127.0.0.1", nil, "mtls.Named"},
		"an address that is named":                     {ca, func(x *issue.Template) { x.Addresses = []net.IP{{127, 0, 0, 1}} }, "127.0.0.1", mtls.Named("127.0.0.1"), ""},
		"another address than the one named":           {ca, func(x *issue.Template) { x.Addresses = []net.IP{{127, 0, 0, 2}} }, "127.0.0.1", mtls.Named("127.0.0.1"), "127.0.0.2, not 127.0.0.1"},
		"one of two names":                             {ca, usual, "any.example.test", mtls.Named("a.example.test", "server.example.test"), ""},
		"no name is allowed":                           {ca, usual, "server.example.test", mtls.Named(), "nobody is allowed"},
		"the SPIFFE ID, whatever was dialled":          {ca, id("spiffe://example.test/ns/shop/sa/till"), "10.0.0.1", mtls.WithSPIFFEID(till), ""},
		"another SPIFFE ID":                            {ca, id("spiffe://example.test/ns/shop/sa/thief"), "server.example.test", mtls.WithSPIFFEID(till), "none of"},
		"two SPIFFE IDs":                               {ca, id("spiffe://example.test/ns/shop/sa/till", "spiffe://example.test/b"), "server.example.test", mtls.WithSPIFFEID(till), "more than one URI SAN"},
		"no SPIFFE ID":                                 {ca, usual, "server.example.test", mtls.WithSPIFFEID(till), "no URI SAN"},
		"the trust domain":                             {ca, id("spiffe://example.test/any"), "server.example.test", mtls.InTrustDomain(till.TrustDomain()), ""},
		"another trust domain":                         {ca, id("spiffe://example.test.evil/any"), "server.example.test", mtls.InTrustDomain(till.TrustDomain()), "is not in the trust domain"},
		"another authority of the same name":           {foreign, usual, "server.example.test", nil, "unknown authority"},
		"another authority, though anyone is let in":   {foreign, usual, "server.example.test", mtls.Anyone(), "unknown authority"},
		"a certificate for clients":                    {ca, func(x *issue.Template) { x.Usages = []x509.ExtKeyUsage{forClients} }, "server.example.test", nil, "incompatible key usage"},
		"a certificate that has expired":               {ca, func(x *issue.Template) { x.NotAfter = time.Now().Add(-time.Second) }, "server.example.test", nil, "has expired"},
		"a certificate that has expired, where anyone": {ca, func(x *issue.Template) { x.NotAfter = time.Now().Add(-time.Second) }, "server.example.test", mtls.Anyone(), "has expired"},
	}
	for name, row := range rows {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(fmt.Sprintf("%s, %s", name, tls.VersionName(version)), func(t *testing.T) {
				shown := odd(t, row.by, row.change)
				client := mtls.ClientConfig(&mtls.Snapshot{Bundle: tlstest.Bundle(t, ca)}, row.server)
				client.ServerName, client.MaxVersion = row.dial, version
				_, err := dial(t, &tls.Config{Certificates: []tls.Certificate{shown}}, client)
				if (err == nil) != (row.want == "") || (err != nil && !strings.Contains(err.Error(), row.want)) {
					t.Errorf("got %v, want %q", err, row.want)
				}
				if err != nil && !errors.As(err, new(*tls.CertificateVerificationError)) {
					t.Errorf("%T is not what crypto/tls says of a server that it does not take", err)
				}
			})
		}
	}
}

func TestAddressesAreDialled(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	server := &tls.Config{Certificates: []tls.Certificate{odd(t, ca, func(x *issue.Template) { x.Addresses = []net.IP{net.IPv6loopback, {127, 0, 0, 1}} })}}
	source := &mtls.Snapshot{Bundle: tlstest.Bundle(t, ca)}
	for address, good := range map[string]bool{"127.0.0.1:443": true, "[::1]:443": true, "::1": true, "server.example.test:443": true, "127.0.0.2:443": false, "[::2]:443": false, "example.test": false} {
		if _, err := dial(t, server, mtls.DialledAt(source, nil, address)); (err == nil) != good {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// What a client shows and whom it trusts is that of the newest snapshot; a
// session brings back neither an identity nor an authority of before.
func TestClientAfterARotation(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			ca, next := tlstest.Authority(t, "ca"), tlstest.Authority(t, "ca")
			var source changing
			server := mtls.ServerConfig(&mtls.Snapshot{Certificate: new(leaf(t, ca, "server", forServers)), Bundle: tlstest.Bundle(t, ca)}, mtls.RequireClients)
			sessions := mtls.NewSessionCache(&source, 4)
			client := func() *tls.Config {
				c := sessions.DialledAt(nil, "server.example.test:443")
				c.MaxVersion = version
				return c
			}
			as := func(want string, resumed bool) {
				t.Helper()
				l := connect(t, server, client(), resumed)
				if got := l.server.ConnectionState().PeerCertificates[0].Subject.CommonName; got != want {
					t.Errorf("the server saw %s, want %s", got, want)
				}
			}
			jane := leaf(t, ca, "jane", forClients)
			source.set(t, jane, ca)
			as("jane", false)
			as("jane", true)
			source.set(t, leaf(t, ca, "joan", forClients), ca, next)
			as("joan", false)
			as("joan", true)
			late := client()
			source.set(t, leaf(t, ca, "joan", forClients), next)
			connect(t, server, late, true) // it has begun before, and its session stays behind
			if _, err := dial(t, server, client()); err == nil || !strings.Contains(err.Error(), "unknown authority") {
				t.Errorf("the authority of before: %v", err)
			}
		})
	}
}

// Sessions of a cache that forgets nothing are judged all the same.
func TestResumedSessionsOfAServerAreJudged(t *testing.T) {
	ca, next := tlstest.Authority(t, "ca"), tlstest.Authority(t, "ca")
	var source changing
	client := mtls.ClientConfig(&source, nil)
	client.ServerName, client.ClientSessionCache = "server.example.test", tls.NewLRUClientSessionCache(4)
	server := &tls.Config{Certificates: []tls.Certificate{leaf(t, ca, "server", forServers)}}
	source.set(t, leaf(t, ca, "jane", forClients), ca)
	connect(t, server, client, false)
	connect(t, server, client, true)
	source.set(t, leaf(t, ca, "jane", forClients), next)
	if _, err := dial(t, server, client); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("the authority of before: %v", err)
	}
}

func TestClientWithoutWhatItTakes(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	server := &tls.Config{Certificates: []tls.Certificate{leaf(t, ca, "server", forServers)}, ClientAuth: tls.RequestClientCert}
	for name, row := range map[string]struct {
		source mtls.Source
		want   string
	}{
		"a bundle, and nothing to show":  {&mtls.Snapshot{Bundle: tlstest.Bundle(t, ca)}, ""},
		"no bundle":                      {&mtls.Snapshot{Certificate: new(leaf(t, ca, "jane", forClients))}, "no bundle to verify servers by"},
		"a bundle that nobody has made":  {&mtls.Snapshot{Bundle: &mtls.Bundle{}}, "no bundle to verify servers by"}, // not the system's
		"no snapshot, and no error":      {new(changing), "does not say why"},
		"two of them that are joined":    {mtls.Join(new(changing), new(changing)), "does not say why"},
		"a source that fails":            {failing{}, "the source of certificates"},
		"memory in which nothing is yet": {new(mtls.Memory), "nothing was set yet"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := dial(t, server, mtls.NewSessionCache(row.source, 1).DialledAt(nil, "server.example.test"))
			if (err == nil) != (row.want == "") || (err != nil && !strings.Contains(err.Error(), row.want)) {
				t.Fatalf("got %v, want %q", err, row.want)
			}
			if err == nil && len(l.server.ConnectionState().PeerCertificates) != 0 {
				t.Error("it has shown something")
			}
		})
	}
}

func TestMemoryTakesWhatFits(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	good, other := leaf(t, ca, "good", forServers), leaf(t, ca, "other", forServers)
	var m mtls.Memory
	if err := m.Set(mtls.Snapshot{Certificate: &good, Bundle: tlstest.Bundle(t, ca)}); err != nil {
		t.Fatal(err)
	}
	before, _ := m.Snapshot()
	for name, c := range map[string]tls.Certificate{
		"another's key":          {Certificate: good.Certificate, Leaf: good.Leaf, PrivateKey: other.PrivateKey},
		"no key":                 {Certificate: good.Certificate, Leaf: good.Leaf},
		"a key that cannot sign": {Certificate: good.Certificate, Leaf: good.Leaf, PrivateKey: "key"},
		"no leaf":                {Certificate: good.Certificate, PrivateKey: good.PrivateKey},
		"another leaf":           {Certificate: other.Certificate, Leaf: good.Leaf, PrivateKey: good.PrivateKey},
		"no certificate":         {Leaf: good.Leaf, PrivateKey: good.PrivateKey},
	} {
		if err := m.Set(mtls.Snapshot{Certificate: &c}); err == nil {
			t.Errorf("%s was taken", name)
		}
		if now, _ := m.Snapshot(); now != before {
			t.Errorf("%s took the place of what was good", name)
		}
	}
	if err := m.Set(mtls.Snapshot{Certificate: &other}); err != nil {
		t.Error(err)
	}
}
