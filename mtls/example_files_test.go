package mtls_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
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
	key, err := issue.GenerateKey(issue.ECDSAP256)
	check(err)
	now := time.Now()
	root, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "ca"}, Authority: true, NotBefore: now, NotAfter: now.Add(time.Hour)}, key)
	check(err)
	s.ca = issue.Authority{Certificate: root, Key: key}
	s.server, s.jane = s.leaf("server", forServers), s.leaf("jane", forClients)
	private, err := issue.EncodePrivateKey(s.server.PrivateKey.(crypto.Signer))
	check(err)
	check(os.WriteFile(s.key, private, 0o600))
	check(os.WriteFile(s.certificate, trust.EncodeCertificates(s.server.Leaf), 0o600))
	check(os.WriteFile(s.bundle, s.bundlePEM(), 0o600))
	return s
}

func (s *exampleSet) leaf(name string, usage x509.ExtKeyUsage) tls.Certificate {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	check(err)
	now := time.Now()
	c, err := issue.Sign(issue.Template{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"}, Usages: []x509.ExtKeyUsage{usage}, NotBefore: now, NotAfter: now.Add(time.Hour),
	}, key.Public(), s.ca)
	check(err)
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

func (s *exampleSet) remove() { os.RemoveAll(s.dir) }

func (s *exampleSet) bundlePEM() []byte { return trust.EncodeCertificates(s.ca.Certificate) }

func (s *exampleSet) pair() *tls.Certificate { return &s.server }

func (s *exampleSet) client() *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(s.ca.Certificate)
	config := &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{s.jane}}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
