package mtlshttp_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls"
)

// exampleSet is what the examples need that their readers need not see: the files
// of a server and of a client.
type exampleSet struct {
	dir            string
	server, client mtls.Files
	ca             issue.Authority
}

func exampleFiles() *exampleSet {
	dir, err := os.MkdirTemp("", "mtlshttp")
	check(err)
	key, err := issue.GenerateKey(issue.ECDSAP256)
	check(err)
	now := time.Now()
	root, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "ca"}, Authority: true, NotBefore: now, NotAfter: now.Add(time.Hour)}, key)
	check(err)
	s := &exampleSet{dir: dir, ca: issue.Authority{Certificate: root, Key: key}}
	check(os.WriteFile(filepath.Join(dir, "ca.crt"), trust.EncodeCertificates(root), 0o600))
	s.server, s.client = s.write("server", x509.ExtKeyUsageServerAuth), s.write("jane", x509.ExtKeyUsageClientAuth)
	return s
}

func (s *exampleSet) write(name string, usage x509.ExtKeyUsage) mtls.Files {
	f := mtls.Files{Certificate: filepath.Join(s.dir, name+".crt"), Key: filepath.Join(s.dir, name+".key"), Bundle: filepath.Join(s.dir, "ca.crt")}
	key, err := issue.GenerateKey(issue.ECDSAP256)
	check(err)
	now := time.Now()
	c, err := issue.Sign(issue.Template{
		Subject: pkix.Name{CommonName: name, Organization: []string{"tills"}}, Addresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		Usages: []x509.ExtKeyUsage{usage}, NotBefore: now, NotAfter: now.Add(time.Hour),
	}, key.Public(), s.ca)
	check(err)
	data, err := issue.EncodePrivateKey(key)
	check(err)
	check(os.WriteFile(f.Key, data, 0o600))
	check(os.WriteFile(f.Certificate, trust.EncodeCertificates(c), 0o600))
	return f
}

func (s *exampleSet) remove() { os.RemoveAll(s.dir) }

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
