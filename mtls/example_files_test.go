package mtls_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
)

// exampleSet is what the examples need that their readers need not see.
type exampleSet struct {
	dir, certificate, key, bundle string
	ca                            issue.Authority
	server, jane                  tls.Certificate
}

func exampleFiles() *exampleSet {
	dir, err := os.MkdirTemp("", "mtls")
	check(err)
	s := &exampleSet{dir: dir, certificate: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key"), bundle: filepath.Join(dir, "client-ca.crt")}
	s.ca = tlstest.Authority(tlstest.Panics, "ca")
	s.server, s.jane = s.leaf("server", forServers), s.leaf("jane", forClients)
	s.write(s.server, s.certificate, s.key)
	tlstest.Put(tlstest.Panics, s.bundle, s.bundlePEM())
	return s
}

func (s *exampleSet) write(c tls.Certificate, certificate, key string) {
	tlstest.PutPair(tlstest.Panics, mtls.Files{Certificate: certificate, Key: key}, &c)
}

// janes returns the files of a client.
func (s *exampleSet) janes() mtls.Files {
	f := mtls.Files{Certificate: filepath.Join(s.dir, "jane.crt"), Key: filepath.Join(s.dir, "jane.key"), Bundle: s.bundle}
	s.write(s.jane, f.Certificate, f.Key)
	return f
}

// serve greets each client and closes the connection.
func (s *exampleSet) serve() (address string, stop func()) {
	bundle, err := mtls.ParseBundle(s.bundlePEM())
	check(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	l = tls.NewListener(l, mtls.ServerConfig(&mtls.Snapshot{Certificate: &s.server, Bundle: bundle}, mtls.RequireClients))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if err := c.(*tls.Conn).Handshake(); err == nil {
				fmt.Fprintf(c, "hello %s", c.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName)
			}
			c.Close()
		}
	}()
	return l.Addr().String(), func() { l.Close() }
}

func (s *exampleSet) leaf(name string, usage x509.ExtKeyUsage) tls.Certificate {
	return *tlstest.Leaf(tlstest.Panics, s.ca, name, tlstest.At("localhost", "127.0.0.1"), tlstest.For(usage))
}

func (s *exampleSet) remove() { os.RemoveAll(s.dir) }

func (s *exampleSet) bundlePEM() []byte { return tlstest.PEM(s.ca) }

func (s *exampleSet) pair() *tls.Certificate { return &s.server }

func (s *exampleSet) https() *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(s.ca.Certificate)
	config := &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{s.jane}}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
}

// pair is a certificate of an issuer, and its key.
func (i *Issuer) pair(id spiffeid.ID) (*x509.Certificate, crypto.Signer, error) {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		return nil, nil, err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{id.URL()}}, key)
	if err != nil {
		return nil, nil, err
	}
	issued, err := i.Issue(context.Background(), request)
	if err != nil {
		return nil, nil, err
	}
	return issued.Chain[0], key, nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
