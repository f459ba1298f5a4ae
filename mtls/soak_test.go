package mtls_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
)

// Authority and certificates of both sides are rotated again and again, on the
// disk, in the three steps that a rotation takes, while clients connect all the
// time and streams that stand go on. Nothing may fail.
func TestRotationsUnderLoad(t *testing.T) {
	rotations, clients, streams := 3, 8, 50
	if os.Getenv("KUBEPKI_LAB_LONG") != "" {
		rotations, clients, streams = 100, 64, 1000
	}
	r := newRotating(t)
	l := &load{listener: listen(t, r.server.config()), clients: r.client.clients()}
	var all sync.WaitGroup
	for range streams {
		l.open(t)
	}
	for range clients {
		all.Go(func() { l.connect() })
	}
	for range 4 {
		all.Go(func() { l.talk() })
	}
	for range rotations {
		r.rotate(t, l.ended)
	}
	l.stop.Store(true)
	all.Wait()
	t.Logf("%d rotations, %d handshakes, %d messages on %d streams, %d failures", rotations, l.handshakes.Load(), l.messages.Load(), streams, len(l.failures))
	if len(l.failures) > 0 {
		t.Errorf("%d failures, the first: %s", len(l.failures), l.failures[0])
	}
	if n := l.handshakes.Load(); n < int64(rotations*clients) {
		t.Errorf("only %d handshakes", n)
	}
}

// side is the files of a server or a client.
type side struct {
	*disk
	source *mtls.FileSource
}

func (s *side) config() *tls.Config { return mtls.ServerConfig(s.source, mtls.RequireClients) }

// clients are those of a program that resumes sessions and of one that has one
// configuration for all.
func (s *side) clients() []func() *tls.Config {
	const name = "server.example.test"
	sessions, fixed := mtls.NewSessionCache(s.source, 8), mtls.ClientConfig(s.source, mtls.Named(name))
	return []func() *tls.Config{
		func() *tls.Config { return sessions.DialledAt(nil, name) },
		func() *tls.Config { return fixed },
	}
}

// rotating is both sides, and the authority that they trust.
type rotating struct {
	ca             issue.Authority
	server, client *side
}

func newRotating(t testing.TB) *rotating {
	r := &rotating{ca: tlstest.Authority(t, "ca")}
	for _, to := range []**side{&r.server, &r.client} {
		d := newDisk(t)
		d.writePair(t, leaf(t, r.ca, "one", forServers, forClients))
		d.writeBundle(t, r.ca)
		*to = &side{d, d.open(t)}
	}
	return r
}

// rotate replaces the authority and both certificates: accept, issue, drop. Each
// step is over when the handshakes have ended that began before.
func (r *rotating) rotate(t testing.TB, ended func()) {
	next := tlstest.Authority(t, "ca")
	r.both(t, func(s *side) { s.writeBundle(t, r.ca, next) })
	ended()
	r.both(t, func(s *side) { s.writePair(t, leaf(t, next, "one", forServers, forClients)) })
	ended()
	r.both(t, func(s *side) { s.writeBundle(t, next) })
	r.ca = next
}

// both changes both sides, as a copy that keeps times does, and waits until they
// have taken it up.
func (r *rotating) both(t testing.TB, change func(*side)) {
	t.Helper()
	before := map[*side]*mtls.Snapshot{}
	for _, s := range []*side{r.server, r.client} {
		before[s], _ = s.source.Snapshot()
		change(s)
		old := time.Now().Add(-time.Minute)
		for _, f := range []string{s.files.Certificate, s.files.Key, s.files.Bundle} {
			if err := os.Chtimes(f, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	for s, was := range before {
		for late := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if now, _ := s.source.Snapshot(); now != was {
				break
			}
			if time.Now().After(late) {
				t.Fatal("the change was not taken up")
			}
		}
	}
}

func listen(t testing.TB, config *tls.Config) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l = tls.NewListener(l, config)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for b := make([]byte, 1); ; {
					if _, err := c.Read(b); err != nil {
						return
					}
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l
}

// load is clients of a listener that answers with what it is sent.
type load struct {
	listener net.Listener
	clients  []func() *tls.Config
	stop     atomic.Bool
	under    sync.RWMutex // held for reading during a handshake

	streams              []*link
	next, turn           atomic.Int64
	handshakes, messages atomic.Int64

	mu       sync.Mutex
	failures []string
}

func (l *load) fail(what string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, fmt.Sprintf("%s: %v", what, err))
}

// ended waits until the handshakes have ended that are under way.
func (l *load) ended() {
	l.under.Lock()
	defer l.under.Unlock()
}

func (l *load) dial() (*link, error) {
	l.under.RLock()
	defer l.under.RUnlock()
	client := l.clients[l.turn.Add(1)%int64(len(l.clients))]
	c, err := tls.Dial("tcp", l.listener.Addr().String(), client())
	if err != nil {
		return nil, err
	}
	one := &link{client: c}
	return one, one.echo()
}

func (l *load) open(t testing.TB) {
	t.Helper()
	s, err := l.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	l.streams = append(l.streams, s)
}

func (l *load) connect() {
	for !l.stop.Load() {
		c, err := l.dial()
		if err != nil {
			l.fail("a handshake", err)
			return
		}
		c.close()
		l.handshakes.Add(1)
	}
}

// talk sends a message on each stream in turn. Those who talk have streams of
// their own.
func (l *load) talk() {
	first := int(l.next.Add(1) - 1)
	for !l.stop.Load() {
		for i := first; i < len(l.streams) && !l.stop.Load(); i += 4 {
			if err := l.streams[i].echo(); err != nil {
				l.fail("a stream", err)
				return
			}
			l.messages.Add(1)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Ten thousand times what is on the disk is another: nothing is kept of before.
func TestTenThousandReloads(t *testing.T) {
	reloads := 1000
	if os.Getenv("KUBEPKI_LAB_LONG") != "" {
		reloads = 10_000
	}
	synctest.Test(t, func(t *testing.T) {
		ca, other, d := tlstest.Authority(t, "ca"), tlstest.Authority(t, "other"), newDisk(t)
		var two []tls.Certificate
		for i := range 2 {
			two = append(two, odd(t, ca, func(x *issue.Template) { x.Subject.CommonName, x.NotAfter = fmt.Sprint(i), time.Now().AddDate(0, 1, 0) }))
		}
		d.writePair(t, two[0])
		d.writeBundle(t, ca)
		source, err := mtls.OpenFiles(d.files, nil)
		if err != nil {
			t.Fatal(err)
		}
		server, sessions := mtls.ServerConfig(source, mtls.RequireClients), mtls.NewSessionCache(source, 4)
		reload := func(i int) {
			d.writePair(t, two[i%2])
			d.writeBundle(t, []issue.Authority{ca, other}[i%2])
			looks(t, source, 3)
			config, err := server.GetConfigForClient(&tls.ClientHelloInfo{})
			if err != nil || config.Certificates[0].Leaf.Subject.CommonName != fmt.Sprint(i%2) {
				t.Fatalf("reload %d: %v", i, err)
			}
			sessions.DialledAt(nil, "server").ClientSessionCache.Put("server", &tls.ClientSessionState{})
		}
		for i := range 100 { // so that all is there that stays
			reload(i + 1)
		}
		memory, goroutines := inUse(), runtime.NumGoroutine()
		for i := range reloads {
			reload(i + 1)
		}
		if now := inUse(); now > memory+256<<10 {
			t.Errorf("%d bytes are in use, %d before", now, memory)
		}
		if now := runtime.NumGoroutine(); now > goroutines {
			t.Errorf("%d goroutines, %d before", now, goroutines)
		}
	})
}

func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
