package mtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
)

func peer(t testing.TB, change func(*issue.Template)) mtls.Peer {
	t.Helper()
	return mtls.Peer{Certificate: odd(t, tlstest.Authority(t, "ca"), change).Leaf}
}

func subject(name pkix.Name) func(*issue.Template) {
	return func(x *issue.Template) { x.Subject = name }
}

// lab/internal/k8suser compares it with what Kubernetes' own code says.
func TestUserOfACertificate(t *testing.T) {
	jane := peer(t, subject(pkix.Name{CommonName: "jane", Organization: []string{"dev", "ops"}}))
	u, err := jane.User()
	if err != nil || u.Name != "jane" || u.UID != "" || !slices.Equal(u.Groups, []string{"dev", "ops"}) || !strings.HasPrefix(u.Extra["authentication.kubernetes.io/credential-id"][0], "X509SHA256=") {
		t.Errorf("%+v, %v", u, err)
	}
	uid := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}
	u, err = peer(t, subject(pkix.Name{CommonName: "jane", ExtraNames: []pkix.AttributeTypeAndValue{{Type: uid, Value: "1234"}}})).User()
	if err != nil || u.UID != "1234" {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := peer(t, subject(pkix.Name{Organization: []string{"dev"}})).User(); err == nil {
		t.Error("a certificate without a common name has a user")
	}
	// Of three names the slice that crypto/x509 makes has room for a fourth.
	three := peer(t, subject(pkix.Name{CommonName: "jane", Organization: []string{"a", "b", "c"}}))
	u, _ = three.User()
	again, _ := three.User()
	all := append(u.Groups, "system:authenticated")
	if _ = append(again.Groups, "system:masters"); !slices.Equal(all, []string{"a", "b", "c", "system:authenticated"}) {
		t.Errorf("what one request has appended is another's: %q", all)
	}
}

func TestWhoMay(t *testing.T) {
	jane := peer(t, subject(pkix.Name{CommonName: "jane", Organization: []string{"dev"}}))
	nobody := peer(t, subject(pkix.Name{Organization: []string{"dev"}}))
	till := peer(t, func(x *issue.Template) {
		x.Subject = pkix.Name{}
		x.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.test", Path: "/till"}}
	})
	id := spiffeid.RequireFromString("spiffe://example.test/till")
	yes, no := mtls.Anyone(), mtls.UserNamed("joan")
	rows := map[string]struct {
		may  mtls.Authorizer
		who  mtls.Peer
		want string // of the error; empty: may
	}{
		"a user by name":                   {mtls.UserNamed("joan", "jane"), jane, ""},
		"another user":                     {mtls.UserNamed("joan"), jane, `the user "jane" is none of ["joan"]`},
		"no user is allowed":               {mtls.UserNamed(), jane, "none of"},
		"a certificate without a user":     {mtls.UserNamed(""), nobody, "no common name"},
		"a user by group":                  {mtls.InGroup("ops", "dev"), jane, ""},
		"a user of another group":          {mtls.InGroup("ops"), jane, "in none of the groups"},
		"a group's name as that of a user": {mtls.UserNamed("dev"), jane, "none of"},
		"a user's name as that of a group": {mtls.InGroup("jane"), jane, "in none of"},
		"groups without a user":            {mtls.InGroup("dev"), nobody, "no common name"},
		"a name of the certificate":        {mtls.Named("server.example.test"), jane, ""},
		"the common name as a name":        {mtls.Named("jane"), jane, "not jane"},
		"a SPIFFE ID":                      {mtls.WithSPIFFEID(id), till, ""},
		"no SPIFFE ID is allowed":          {mtls.WithSPIFFEID(), till, "none of"},
		"any of, the second":               {mtls.AnyOf(no, yes), jane, ""},
		"any of, neither":                  {mtls.AnyOf(no, mtls.InGroup("ops")), jane, "in none of the groups"},
		"any of, one is not set":           {mtls.AnyOf(nil, yes), jane, ""},
		"any of one that is not set":       {mtls.AnyOf(nil), jane, "nobody is allowed"},
		"all of, one is not set":           {mtls.AllOf(yes, nil), jane, "nobody is allowed"},
		"nobody, as a user":                {mtls.UserNamed("jane"), mtls.Peer{}, "no certificate was verified"},
		"nobody, by group":                 {mtls.InGroup("dev"), mtls.Peer{}, "no certificate was verified"},
		"nobody, by name":                  {mtls.Named("server.example.test"), mtls.Peer{}, "no certificate was verified"},
		"nobody, by SPIFFE ID":             {mtls.WithSPIFFEID(id), mtls.Peer{}, "no certificate was verified"},
		"any of nothing":                   {mtls.AnyOf(), jane, "nobody is allowed"},
		"all of, both":                     {mtls.AllOf(yes, mtls.InGroup("dev")), jane, ""},
		"all of, one not":                  {mtls.AllOf(yes, no), jane, "none of"},
		"all of nothing":                   {mtls.AllOf(), jane, "nobody is allowed"},
		"a SPIFFE ID of a certificate with two": {mtls.WithSPIFFEID(id), peer(t, func(x *issue.Template) {
			x.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.test", Path: "/till"}, {Scheme: "https", Host: "example.test"}}
		}), "more than one URI"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			err := row.may(row.who)
			if (err == nil) != (row.want == "") || (err != nil && !strings.Contains(err.Error(), row.want)) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}

func TestAnAuthorityHasNoSPIFFEID(t *testing.T) {
	if _, err := (mtls.Peer{Certificate: tlstest.Authority(t, "ca").Certificate}).SPIFFEID(); err == nil || !strings.Contains(err.Error(), "authority") {
		t.Errorf("%v", err)
	}
	till := func(usage x509.KeyUsage) mtls.Peer {
		return mtls.Peer{Certificate: &x509.Certificate{KeyUsage: usage, URIs: []*url.URL{{Scheme: "spiffe", Host: "example.test", Path: "/till"}}}}
	}
	for _, usage := range []x509.KeyUsage{x509.KeyUsageCertSign, x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature} {
		if id, err := till(usage).SPIFFEID(); err == nil || !strings.Contains(err.Error(), "keyCertSign") {
			t.Errorf("%b: %v, %v", usage, id, err)
		}
	}
	for _, usage := range []x509.KeyUsage{0, x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment} {
		if _, err := till(usage).SPIFFEID(); err != nil {
			t.Errorf("%b: %v", usage, err)
		}
	}
}

func TestPeersInLogs(t *testing.T) {
	long := peer(t, subject(pkix.Name{CommonName: strings.Repeat("x\n", 500)}))
	for want, p := range map[string]mtls.Peer{
		`"CN=server"`: peer(t, func(*issue.Template) {}),
		`"spiffe://example.test/till"`: peer(t, func(x *issue.Template) {
			x.Subject = pkix.Name{}
			x.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.test", Path: "/till"}}
		}),
		"nobody": {},
	} {
		if got := p.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := long.String(); len(got) > 200 || strings.Contains(got, "\n") {
		t.Errorf("%d bytes", len(got))
	}
}

func TestPeersInContexts(t *testing.T) {
	if _, ok := mtls.FromContext(t.Context()); ok {
		t.Error("an empty context has a peer")
	}
	jane := peer(t, func(*issue.Template) {})
	if p, ok := mtls.FromContext(mtls.NewContext(t.Context(), jane)); !ok || p != jane {
		t.Error("it is lost")
	}
}

// What was verified once is not for another usage, another time or other
// certificates.
func TestVerifiedChainsAreRememberedForWhatTheyWere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, foreign := tlstest.Authority(t, "ca"), tlstest.Authority(t, "ca")
		source := &mtls.Snapshot{Bundle: tlstest.Bundle(t, ca)}
		shows := func(all ...tls.Certificate) *tls.ConnectionState {
			var c tls.ConnectionState
			for _, one := range all {
				c.PeerCertificates = append(c.PeerCertificates, one.Leaf)
			}
			return &c
		}
		server, stranger := leaf(t, ca, "server", forServers), leaf(t, foreign, "server", forServers)
		for range 2 {
			if _, err := mtls.VerifyServer(source, shows(server)); err != nil {
				t.Fatal(err)
			}
			if _, err := mtls.VerifyClient(source, shows(server)); err == nil || !strings.Contains(err.Error(), "usage") {
				t.Errorf("as a client: %v", err)
			}
			if p, err := mtls.VerifyServer(source, shows(server, stranger)); err != nil || p.Certificate != server.Leaf {
				t.Errorf("with one more that is of no use: %v", err)
			}
			if _, err := mtls.VerifyServer(source, shows(stranger, server)); err == nil {
				t.Error("a stranger that shows a good one behind it")
			}
			if _, err := mtls.VerifyServer(&mtls.Snapshot{Bundle: tlstest.Bundle(t, foreign)}, shows(server)); err == nil {
				t.Error("by another bundle")
			}
		}
		time.Sleep(2 * time.Hour)
		if _, err := mtls.VerifyServer(source, shows(server)); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("expired: %v", err)
		}
	})
}
