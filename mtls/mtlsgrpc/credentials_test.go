package mtlsgrpc_test

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/mtlsgrpc"
)

func TestServerIsTheRightOneOrNot(t *testing.T) {
	ca, foreign := tlstest.Authority(t, "ca"), tlstest.Authority(t, "ca") // of one name
	named := func(name string) []grpc.DialOption { return []grpc.DialOption{grpc.WithAuthority(name)} }
	id := func(text string) mtls.Authorizer { return mtls.WithSPIFFEID(spiffeid.RequireFromString(text)) }
	rows := map[string]struct {
		server     *tls.Certificate
		authorizer mtls.Authorizer
		options    []grpc.DialOption
		want       string // of the error; empty: it is the right one
	}{
		"dialled by its IP address":                 {leaf(t, ca, "server"), nil, nil, ""},
		"dialled by an IP address that is not its":  {leaf(t, ca, "server", elsewhere), nil, nil, "127.0.0.2, not 127.0.0.1"},
		"called by its name":                        {leaf(t, ca, "server"), nil, named("server.example.test"), ""},
		"called by its name and a port":             {leaf(t, ca, "server"), nil, named("server.example.test:443"), ""},
		"called by another name":                    {leaf(t, ca, "server"), nil, named("shop.example.test"), "not shop.example.test"},
		"of another authority":                      {leaf(t, foreign, "server"), nil, nil, "unknown authority"},
		"expired":                                   {leaf(t, ca, "server", tlstest.Expired), nil, nil, "expired"},
		"with a certificate for clients":            {leaf(t, ca, "server", tlstest.For(forClients)), nil, nil, "incompatible key usage"},
		"of the SPIFFE ID that is wanted":           {leaf(t, ca, "till", elsewhere), id("spiffe://example.test/till"), nil, ""},
		"of another SPIFFE ID, at the right name":   {leaf(t, ca, "server"), id("spiffe://example.test/till"), nil, "is none of"},
		"named otherwise than dialled, as demanded": {leaf(t, ca, "server", elsewhere), mtls.Named("other.example.test"), nil, ""},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			w := &world{source: &mtls.Snapshot{Certificate: row.server}, clients: mtls.NoClients}
			w.serve(t)
			mine := tlstest.Snapshot(t, nil, ca)
			_, err := call(t, w.dial(t, mine, row.authorizer, row.options...))
			if (err == nil) != (row.want == "") || (err != nil && (status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), row.want))) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}

// What a call claims to be for is held against the certificate too.
func TestAuthorityOfACall(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	w := &world{source: &mtls.Snapshot{Certificate: leaf(t, ca, "server")}, clients: mtls.NoClients}
	w.serve(t)
	mine := tlstest.Snapshot(t, nil, ca)
	client := w.dial(t, mine, nil)
	if _, err := call(t, client, grpc.CallAuthority("server.example.test")); err != nil {
		t.Error(err)
	}
	if _, err := call(t, client, grpc.CallAuthority("shop.example.test")); status.Code(err) != codes.Unavailable {
		t.Errorf("by a name that is not the server's: %v", err)
	}
}

func TestClientIsLetInOrNot(t *testing.T) {
	ca, foreign := tlstest.Authority(t, "ca"), tlstest.Authority(t, "ca")
	rows := map[string]struct {
		client *tls.Certificate
		logged string // empty: let in
	}{
		"with a certificate":          {leaf(t, ca, "jane"), ""},
		"without one":                 {nil, "didn't provide a certificate"},
		"with one of somebody else's": {leaf(t, foreign, "jane"), "unknown authority"},
		"with one that has expired":   {leaf(t, ca, "jane", tlstest.Expired), "expired or is not yet valid"},
		"with one for servers":        {leaf(t, ca, "jane", tlstest.For(forServers)), "incompatible key usage"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			its := tlstest.Snapshot(t, leaf(t, ca, "server"), ca)
			w := &world{source: its, clients: mtls.RequireClients}
			w.serve(t)
			mine := tlstest.Snapshot(t, row.client, ca)
			_, err := call(t, w.dial(t, mine, nil))
			if row.logged == "" {
				if err != nil || w.log.String() != "" {
					t.Errorf("got %v; the log says %s", err, &w.log)
				}
				return
			}
			// It hears of an alert, or only that the connection is gone.
			if status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "jane") {
				t.Errorf("got %v", err)
			}
			w.log.wants(t, row.logged)
			w.log.wants(t, "from=127.0.0.1")
			if shown := strings.Contains(w.log.String(), "CN=jane"); shown != (row.client != nil) {
				t.Errorf("the log names the client: %t: %s", shown, &w.log)
			}
		})
	}
}

// Both sides know what gRPC's own credentials would tell them.
func TestAuthInfo(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	its, mine := tlstest.Snapshot(t, leaf(t, ca, "server"), ca), tlstest.Snapshot(t, leaf(t, ca, "jane"), ca)
	w := &world{source: its, clients: mtls.RequireClients}
	w.serve(t)
	var p peer.Peer
	if _, err := call(t, w.dial(t, mine, nil), grpc.Peer(&p)); err != nil {
		t.Fatal(err)
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || info.SecurityLevel != credentials.PrivacyAndIntegrity || info.State.NegotiatedProtocol != "h2" || fmt.Sprint(info.SPIFFEID) != "spiffe://example.test/server" {
		t.Errorf("%T %+v", p.AuthInfo, info.SPIFFEID)
	}
}

// A client of HTTP/1.1 alone is sent away: crypto/tls lets it through, gRPC not.
func TestOnlyHTTP2IsSpoken(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	its := tlstest.Snapshot(t, leaf(t, ca, "server"), ca)
	w := &world{source: its, clients: mtls.NoClients}
	w.serve(t)
	for protocol, good := range map[string]bool{"h2": true, "http/1.1": false} {
		config := mtls.DialledAt(its, nil, w.address)
		config.NextProtos = []string{protocol}
		c, err := tls.Dial("tcp", w.address, config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = c.Read(make([]byte, 1)); (err == nil) != good {
			t.Errorf("%s: %v", protocol, err)
		}
		c.Close()
	}
	w.log.wants(t, "missing selected ALPN")
}

func TestCredentialsAreCopiedAndNamed(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	its := tlstest.Snapshot(t, leaf(t, ca, "server", elsewhere), ca)
	w := &world{source: its, clients: mtls.NoClients}
	w.serve(t)
	named := mtlsgrpc.ClientCredentials(its, nil)
	clone := named.Clone()
	if err := named.OverrideServerName("other.example.test"); err != nil { //nolint:staticcheck // who still uses it is served
		t.Fatal(err)
	}
	if clone.Info().SecurityProtocol != "tls" {
		t.Errorf("%+v", clone.Info())
	}
	if _, err := call(t, w.dial(t, its, nil, grpc.WithTransportCredentials(named))); err != nil {
		t.Error(err)
	}
	if _, err := call(t, w.dial(t, its, nil, grpc.WithTransportCredentials(clone))); err == nil {
		t.Error("the copy of before has the name that the other was given")
	}
	if _, _, err := named.ServerHandshake(nil); err == nil {
		t.Error("a client's credentials serve")
	}
}

// rotation is both sides of a service before its authority is replaced.
type rotation struct {
	*world
	old, new     issue.Authority
	server, mine mtls.Memory
}

func newRotation(t *testing.T) *rotation {
	r := &rotation{old: tlstest.Authority(t, "old"), new: tlstest.Authority(t, "new")}
	set(t, &r.server, leaf(t, r.old, "server-1"), r.old)
	set(t, &r.mine, leaf(t, r.old, "jane-1"), r.old)
	r.world = &world{source: &r.server, clients: mtls.RequireClients, guard: &mtlsgrpc.Guard{Source: &r.server, Allow: mtls.InGroup("tills")}}
	return r
}

// steps of a rotation, after each of which everything goes on.
func (r *rotation) steps(t *testing.T) []func() {
	server, mine := leaf(t, r.new, "server-2"), leaf(t, r.new, "jane-2")
	s1, m1 := leaf(t, r.old, "server-1b"), leaf(t, r.old, "jane-1b")
	return []func(){
		func() { set(t, &r.server, s1, r.old); set(t, &r.mine, m1, r.old) },
		func() { set(t, &r.server, s1, r.old, r.new) },
		func() { set(t, &r.mine, m1, r.old, r.new) },
		func() { set(t, &r.server, server, r.old, r.new) },
		func() { set(t, &r.mine, mine, r.old, r.new) },
		func() { set(t, &r.server, server, r.new) },
		func() { set(t, &r.mine, mine, r.new) },
	}
}
