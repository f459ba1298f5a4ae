package explain_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/explain"
)

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// sign makes a certificate; without an issuer one that signs itself.
func sign(t *testing.T, issuer *pair, change func(*x509.Certificate)) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "leaf"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{"server.test"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 11)}, BasicConstraintsValid: true}
	if issuer == nil {
		c.IsCA, c.KeyUsage, c.ExtKeyUsage, c.DNSNames, c.IPAddresses = true, x509.KeyUsageCertSign, nil, nil, nil
		c.Subject.CommonName = "kubernetes"
	}
	if change != nil {
		change(c)
	}
	by, parent := key, c
	if issuer != nil {
		by, parent = issuer.key, issuer.cert
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{made, key}
}

func (p *pair) tls() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key}
}

func trusting(authorities ...*pair) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, a := range authorities {
		pool.AddCert(a.cert)
	}
	return pool
}

// What both ends of a true handshake say, and which half it is about: the client
// is a component that dials, the server one that serves.
func TestBothEndsOfTrueHandshakesAreExplained(t *testing.T) {
	ca, same, other := sign(t, nil, nil), sign(t, nil, nil), sign(t, nil, func(c *x509.Certificate) { c.Subject.CommonName = "other" })
	good := func() (*tls.Config, *tls.Config) {
		leaf := sign(t, ca, nil)
		return &tls.Config{Certificates: []tls.Certificate{leaf.tls()}, RootCAs: trusting(ca), ServerName: "server.test"},
			&tls.Config{Certificates: []tls.Certificate{leaf.tls()}, ClientCAs: trusting(ca), ClientAuth: tls.RequireAndVerifyClientCert}
	}
	past := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	future := func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }
	for name, c := range map[string]struct {
		do             func(client, server *tls.Config)
		client, server string // classes; empty: that end says nothing
		half           string
	}{
		"an expired serving certificate":    {func(_, s *tls.Config) { s.Certificates[0] = sign(t, ca, past).tls() }, "expired", "refused-certificate", explain.HalfServer},
		"a serving certificate of tomorrow": {func(_, s *tls.Config) { s.Certificates[0] = sign(t, ca, future).tls() }, "not-yet-valid", "refused-certificate", explain.HalfServer},
		"a server of another authority":     {func(c, _ *tls.Config) { c.RootCAs = trusting(other) }, "unknown-authority", "refused-certificate", explain.HalfServer},
		"an authority that was made anew":   {func(c, _ *tls.Config) { c.RootCAs = trusting(same) }, "other-authority", "refused-certificate", explain.HalfServer},
		"a name that is missing":            {func(c, _ *tls.Config) { c.ServerName = "api.test" }, "name-mismatch", "refused-certificate", explain.HalfServer},
		"an address that is missing":        {func(c, _ *tls.Config) { c.ServerName = "10.0.0.12" }, "name-mismatch", "refused-certificate", explain.HalfServer},
		"a server with a client's usage": {func(_, s *tls.Config) {
			s.Certificates[0] = sign(t, ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }).tls()
		}, "wrong-usage", "refused-certificate", explain.HalfServer},
		"an expired client certificate": {func(c, _ *tls.Config) { c.Certificates[0] = sign(t, ca, past).tls() }, "refused-expired", "expired", explain.HalfClient},
		"a client of another authority": {func(c, _ *tls.Config) {
			leaf := sign(t, other, nil).tls()
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &leaf, nil }
		}, "refused-authority", "unknown-authority", explain.HalfClient},
		"a client without a certificate": {func(c, _ *tls.Config) { c.Certificates = nil }, "refused-nothing", "no-client-certificate", explain.HalfClient},
		"a client with a server's usage": {func(c, _ *tls.Config) {
			c.Certificates[0] = sign(t, ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }).tls()
		}, "refused-certificate", "wrong-usage", explain.HalfClient},
		"no TLS version in common": {func(c, s *tls.Config) { c.MaxVersion, s.MinVersion = tls.VersionTLS12, tls.VersionTLS13 }, "refused-protocol", "negotiation", ""},
		"a server without a certificate": {func(_, s *tls.Config) {
			s.Certificates = nil
			s.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return nil, fmt.Errorf("no serving certificate available for the kubelet")
			}
		},
			"refused-internal", "no-serving-certificate", explain.HalfServer},
		"a key that is another's": {func(_, s *tls.Config) { s.Certificates[0].PrivateKey = other.key }, "bad-proof", "", explain.HalfServer},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := good()
			c.do(client, server)
			clientSays, serverSays := shake(t, client, server)
			explained(t, `failed to list *v1.Node: Get "https://10.0.0.11:6443/api": `, clientSays, "kubelet", c.client, c.half)
			explained(t, "http: TLS handshake error from 10.0.0.21:41234: ", serverSays, "kube-apiserver", c.server, c.half)
		})
	}
	t.Run("both ends are good", func(t *testing.T) {
		client, server := good()
		if clientSays, serverSays := shake(t, client, server); clientSays != nil || serverSays != nil {
			t.Error(clientSays, serverSays)
		}
	})
}

func explained(t *testing.T, before string, err error, component, class, half string) {
	t.Helper()
	if class == "" {
		return
	}
	if err == nil {
		t.Errorf("%s says nothing", component)
		return
	}
	e := explain.Line(before+err.Error(), component)
	switch {
	case e == nil:
		t.Errorf("%s: %v is not explained", component, err)
	case e.Class != class || half != "" && e.Half != half:
		t.Errorf("%s: %v is %s of the %s half, want %s of %s", component, err, e.Class, e.Half, class, half)
	case component == "kubelet" && !slices.Contains(e.Links, 8):
		t.Errorf("%s: %v is of links %d", component, err, e.Links)
	}
}

// shake returns what both ends say of a handshake over loopback.
func shake(t *testing.T, client, server *tls.Config) (clientSays, serverSays error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	said := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			said <- err
			return
		}
		defer conn.Close()
		s := tls.Server(conn, server)
		err = s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("ok"))
		}
		said <- err
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := tls.Client(conn, client)
	clientSays = c.Handshake()
	if clientSays == nil {
		// In TLS 1.3 a client learns of a refusal when it reads.
		_, clientSays = c.Read(make([]byte, 2))
	}
	conn.Close()
	return clientSays, <-said
}

// All forms of what crypto/x509 says of names, made by itself.
func TestAllFormsOfNameErrorsAreExplained(t *testing.T) {
	ca := sign(t, nil, nil)
	many := func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses = nil, nil
		for i := range 120 {
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("n%d.test", i))
			c.IPAddresses = append(c.IPAddresses, net.IPv4(10, 1, 0, byte(i)))
		}
	}
	without := func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil }
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		host   string
		names  []string
	}{
		"a name among others":         {nil, "api.test", []string{"server.test"}},
		"an address among others":     {nil, "10.0.0.12", []string{"10.0.0.11"}},
		"an IPv6 address":             {nil, "fd00::12", []string{"10.0.0.11"}},
		"an address, where names are": {func(c *x509.Certificate) { c.IPAddresses = nil }, "10.0.0.12", nil},
		"a name of too many":          {many, "api.test", nil},
		"an address of too many":      {many, "10.0.0.12", nil},
		"no name at all":              {without, "api.test", nil},
		"a common name alone":         {func(c *x509.Certificate) { without(c); c.Subject.CommonName = "api.test" }, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			host := c.host
			if host == "" {
				host = "api.test"
			}
			err := sign(t, ca, c.change).cert.VerifyHostname(host)
			e := explain.Line(fmt.Sprintf(`Get "https://%s:6443/": tls: failed to verify certificate: %v`, bracketed(host), err), "kubelet")
			if e == nil || e.Class != "name-mismatch" || e.Half != explain.HalfServer || e.Facts.Name != c.host || !slices.Equal(e.Facts.Names, c.names) || e.Facts.Dialled != bracketed(host)+":6443" {
				t.Errorf("%v: %+v", err, e)
			}
		})
	}
}

func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}
