package mtlshttp_test

import (
	"crypto/x509"
	"log"
	"os"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
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
	if err != nil {
		log.Fatal(err)
	}
	s := &exampleSet{dir: dir, ca: tlstest.Authority(tlstest.Panics, "ca")}
	s.server, s.client = s.write("server", forServers), s.write("jane", forClients)
	tlstest.Put(tlstest.Panics, s.server.Bundle, tlstest.PEM(s.ca))
	return s
}

func (s *exampleSet) write(name string, usage x509.ExtKeyUsage) mtls.Files {
	f := tlstest.Files(s.dir, name)
	tlstest.PutPair(tlstest.Panics, f, tlstest.Leaf(tlstest.Panics, s.ca, name, tlstest.In("tills"), tlstest.At("127.0.0.1"), tlstest.For(usage)))
	return f
}

func (s *exampleSet) remove() { os.RemoveAll(s.dir) }
