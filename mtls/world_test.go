package mtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls"
)

const (
	forServers = x509.ExtKeyUsageServerAuth
	forClients = x509.ExtKeyUsageClientAuth
)

// leaf makes a credential that lives an hour from now on.
func leaf(t testing.TB, a issue.Authority, name string, usages ...x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	return *tlstest.Leaf(t, a, name, tlstest.At("server.example.test"), tlstest.For(usages...))
}

// disk is the files of a server, with what told has said of them.
type disk struct {
	files mtls.Files

	mu       sync.Mutex
	taken    []string // the base names of the first files
	problems []string
}

func newDisk(t testing.TB) *disk { return &disk{files: tlstest.Files(t.TempDir(), "tls")} }

func (d *disk) told(r mtls.Reload) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.Err != nil {
		d.problems = append(d.problems, r.Err.Error())
		return
	}
	d.taken = append(d.taken, filepath.Base(r.Files[0]))
}

func (d *disk) want(t testing.TB, taken, problem string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if got := strings.Join(d.taken, " "); got != taken {
		t.Errorf("taken up %q, want %q", got, taken)
	}
	switch {
	case problem == "" && len(d.problems) > 0:
		t.Errorf("told of %q", d.problems)
	case problem != "" && (len(d.problems) != 1 || !strings.Contains(d.problems[0], problem)):
		t.Errorf("told of %q, want %q once", d.problems, problem)
	}
}

func (d *disk) writeCertificate(t testing.TB, c tls.Certificate) {
	t.Helper()
	tlstest.Put(t, d.files.Certificate, trust.EncodeCertificates(c.Leaf))
}

func (d *disk) writeKey(t testing.TB, c tls.Certificate) {
	t.Helper()
	tlstest.Put(t, d.files.Key, tlstest.KeyPEM(t, &c))
}

func (d *disk) writePair(t testing.TB, c tls.Certificate) {
	t.Helper()
	tlstest.PutPair(t, d.files, &c)
}

func (d *disk) writeBundle(t testing.TB, all ...issue.Authority) {
	t.Helper()
	tlstest.Put(t, d.files.Bundle, tlstest.PEM(all...))
}

func (d *disk) open(t testing.TB) *mtls.FileSource {
	t.Helper()
	s, err := mtls.OpenFiles(d.files, d.told)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// looks lets the source look at its files, a second apart.
func looks(t testing.TB, s mtls.Source, n int) *mtls.Snapshot {
	t.Helper()
	var now *mtls.Snapshot
	for range n {
		time.Sleep(time.Second)
		var err error
		if now, err = s.Snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	return now
}

// link is a connection of TLS over a socket, whose server answers with what it
// is sent.
type link struct {
	client, server *tls.Conn
	served         chan error // how the server's handshake ended
}

// dial connects a client; the error is that of both sides.
func dial(t testing.TB, server, client *tls.Config) (*link, error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	near, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l := &link{client: tls.Client(near, client), server: tls.Server(far, server), served: make(chan error, 1)}
	go func() {
		defer far.Close()
		err := l.server.Handshake()
		l.served <- err
		if err == nil {
			_, _ = io.Copy(l.server, l.server)
		}
	}()
	t.Cleanup(l.close)
	err = l.client.Handshake()
	if err == nil {
		err = l.echo()
	}
	if err != nil {
		l.close()
		return nil, errors.Join(err, <-l.served)
	}
	return l, nil
}

func (l *link) close() { l.client.NetConn().Close() }

// echo sends a byte and waits for it to come back, by which time a client of TLS
// 1.3 has its session ticket.
func (l *link) echo() error {
	if _, err := l.client.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(l.client, make([]byte, 1))
	return err
}

// clientOf trusts an authority, and shows a certificate if one is given.
func clientOf(a issue.Authority, show ...tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(a.Certificate)
	return &tls.Config{RootCAs: roots, ServerName: "server.example.test", Certificates: show, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
}
