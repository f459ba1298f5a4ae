package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/lab/internal/paired"
	"github.com/kubepki/kubepki/mtls"
)

const name = "server.example.test"

type algorithm struct {
	name     string
	generate func() (crypto.Signer, error)
}

func algorithms() []algorithm {
	return []algorithm{
		{"RSA-2048", func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }},
		{"P-256", func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }},
	}
}

// world is an authority, and a server and a client that it knows.
type world struct {
	algorithm
	folder         string
	ca             *x509.Certificate
	server, client tls.Certificate
	ours           [2]*mtls.FileSource // the server's and the client's
	servers        []*server
}

func newWorld(a algorithm) (*world, error) {
	w := &world{algorithm: a}
	key, err := a.generate()
	if err != nil {
		return nil, err
	}
	w.ca, err = issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "ca"}, Authority: true, NotBefore: time.Now().Add(-issue.Backdate), NotAfter: time.Now().Add(time.Hour)}, key)
	if err != nil {
		return nil, err
	}
	for side, c := range map[string]*tls.Certificate{"server": &w.server, "client": &w.client} {
		if *c, err = w.leaf(side, issue.Authority{Certificate: w.ca, Key: key}); err != nil {
			return nil, err
		}
	}
	return w, w.write()
}

func (w *world) leaf(side string, ca issue.Authority) (tls.Certificate, error) {
	key, err := w.generate()
	if err != nil {
		return tls.Certificate{}, err
	}
	c, err := issue.Sign(issue.Template{
		Subject: pkix.Name{CommonName: side}, DNSNames: []string{name}, URIs: []*url.URL{{Scheme: "spiffe", Host: "example.test", Path: "/" + side}},
		Usages:    []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-issue.Backdate), NotAfter: time.Now().Add(time.Hour),
	}, key.Public(), ca)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}, nil
}

// write writes the files of both sides, and opens them as a program would.
func (w *world) write() error {
	var err error
	if w.folder, err = os.MkdirTemp("", "bench-mtls-"); err != nil {
		return err
	}
	certificate := func(c *x509.Certificate) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	for i, c := range []tls.Certificate{w.server, w.client} {
		key, err := issue.EncodePrivateKey(c.PrivateKey.(crypto.Signer))
		if err != nil {
			return err
		}
		dir := filepath.Join(w.folder, c.Leaf.Subject.CommonName)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		files := mtls.Files{Certificate: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), Bundle: filepath.Join(dir, "ca.crt")}
		for path, data := range map[string][]byte{files.Certificate: certificate(c.Leaf), files.Key: key, files.Bundle: certificate(w.ca)} {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				return err
			}
		}
		if w.ours[i], err = mtls.OpenFiles(files, nil); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) close() {
	for _, s := range w.servers {
		s.close()
	}
	os.RemoveAll(w.folder)
}

// both is the two sides of a handshake: the client's is asked for each.
type both struct {
	server *tls.Config
	client func() *tls.Config
}

// fixed is what a textbook writes.
func (w *world) fixed(sessions tls.ClientSessionCache) both {
	pool := x509.NewCertPool()
	pool.AddCert(w.ca)
	client := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{w.client}, RootCAs: pool, ServerName: name, ClientSessionCache: sessions}
	return both{
		&tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{w.server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool},
		func() *tls.Config { return client },
	}
}

func (w *world) rotating() both {
	client := mtls.ClientConfig(w.ours[1], mtls.Named(name))
	return both{mtls.ServerConfig(w.ours[0], mtls.RequireClients), func() *tls.Config { return client }}
}

// resuming has a configuration for each connection.
func (w *world) resuming() both {
	sessions := mtls.NewSessionCache(w.ours[1], 4)
	return both{mtls.ServerConfig(w.ours[0], mtls.RequireClients), func() *tls.Config { return sessions.DialledAt(nil, name) }}
}

func (w *world) spiffe() both {
	domain := spiffeid.RequireTrustDomainFromString("example.test")
	bundle := x509bundle.FromX509Authorities(domain, []*x509.Certificate{w.ca})
	svid := func(c tls.Certificate) *x509svid.SVID {
		return &x509svid.SVID{ID: spiffeid.RequireFromURI(c.Leaf.URIs[0]), Certificates: []*x509.Certificate{c.Leaf}, PrivateKey: c.PrivateKey.(crypto.Signer)}
	}
	client := tlsconfig.MTLSClientConfig(svid(w.client), bundle, tlsconfig.AuthorizeMemberOf(domain))
	return both{tlsconfig.MTLSServerConfig(svid(w.server), bundle, tlsconfig.AuthorizeMemberOf(domain)), func() *tls.Config { return client }}
}

func (w *world) comparisons() []paired.Comparison {
	return []paired.Comparison{
		{What: "handshake, " + w.name, Beside: "fixed", Ours: w.handshake(w.rotating(), false), Theirs: w.handshake(w.fixed(nil), false), Ratio: 0.98},
		{What: "handshake resumed, " + w.name, Beside: "fixed", Ours: w.handshake(w.resuming(), true), Theirs: w.handshake(w.fixed(tls.NewLRUClientSessionCache(4)), true), Ratio: 0.98},
		{What: "handshake, " + w.name, Beside: "go-spiffe", Ours: w.handshake(w.rotating(), false), Theirs: w.handshake(w.spiffe(), false)},
	}
}
