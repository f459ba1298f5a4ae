package remember

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
)

// authorityOf makes an authority, and a connection of a client of it that lives
// for an hour.
func authorityOf(t testing.TB) (*mtls.Snapshot, *tls.ConnectionState) {
	t.Helper()
	ca := tlstest.Authority(t, "ca")
	client := tlstest.Leaf(t, ca, "west", tlstest.For(x509.ExtKeyUsageClientAuth))
	return tlstest.Snapshot(t, nil, ca), &tls.ConnectionState{PeerCertificates: []*x509.Certificate{client.Leaf}}
}

// What is remembered is seen by putting another certificate where the first
// stood, which no connection does.
func TestWhatIsFoundHoldsForASecondOrABundle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Clients
		trusted, west := authorityOf(t)
		other, east := authorityOf(t)
		wants := func(when string, now *mtls.Snapshot, state *tls.ConnectionState, good bool) {
			t.Helper()
			if p, err := c.Verify(now, state); (err == nil) != good || (good && p.Certificate.Subject.CommonName != "west") {
				t.Errorf("%s: %v, %v", when, p, err)
			}
		}
		good, bad := west.PeerCertificates[0], east.PeerCertificates[0]
		wants("a client", trusted, west, true)
		wants("another connection", trusted, east, false)
		west.PeerCertificates[0] = bad
		time.Sleep(recheck - time.Millisecond)
		again := *west
		wants("within the second, by a copy of the state", trusted, &again, true)
		time.Sleep(time.Millisecond)
		wants("after it", trusted, west, false)
		west.PeerCertificates[0] = good
		time.Sleep(time.Hour - recheck - time.Minute)
		wants("a refusal, while the bundle is the same", trusted, west, false)
		wants("by another bundle", other, west, false)
		wants("by the one of before", trusted, west, true)
		time.Sleep(2 * time.Minute)
		wants("expired", trusted, west, false)
	})
}

// A source that has nothing is no verdict on anybody, and is forgotten when it
// has something.
func TestRefusalIsNewsOnceForAConnectionAndABundle(t *testing.T) {
	var c Clients
	trusted, west := authorityOf(t)
	other, _ := authorityOf(t)
	third, _ := authorityOf(t)
	wants := func(when string, now *mtls.Snapshot, state *tls.ConnectionState, want bool) {
		t.Helper()
		if _, err := c.Verify(now, state); err == nil {
			t.Errorf("%s: it is let in", when)
		}
		if got := c.News(state); got != want {
			t.Errorf("%s: %v", when, got)
		}
	}
	wants("the first time", other, west, true)
	wants("the second time", other, west, false)
	another := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{west.PeerCertificates[0]}}
	wants("another connection, of the same client", other, another, true)
	wants("by another bundle", third, west, true)
	if _, err := c.Verify(trusted, west); err != nil {
		t.Error(err)
	}
	wants("refused after it was good", third, west, true)
	wants("who shows nothing", other, &tls.ConnectionState{}, true)
	wants("who shows nothing, again", other, &tls.ConnectionState{}, true)
}

func TestNobodyIsJudgedByNothing(t *testing.T) {
	var c Clients
	trusted, client := authorityOf(t)
	var source mtls.Memory
	ask := func(want error) {
		t.Helper()
		if _, err := c.Verify(&source, client); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	ask(ErrNotJudged)
	if err := source.Set(mtls.Snapshot{}); err != nil {
		t.Fatal(err)
	}
	ask(ErrNotJudged)
	if err := source.Set(*trusted); err != nil {
		t.Fatal(err)
	}
	ask(nil)
	for _, none := range []mtls.Source{nil, (*mtls.Snapshot)(nil)} {
		if _, err := c.Verify(none, client); !errors.Is(err, ErrNotJudged) {
			t.Errorf("%T: %v", none, err)
		}
	}
	for _, state := range []*tls.ConnectionState{nil, {}} {
		if _, err := c.Verify(&source, state); !errors.Is(err, mtls.ErrNoClient) {
			t.Error(err)
		}
	}
}

func TestConnectionsAreForgotten(t *testing.T) {
	var c Clients
	trusted, state := authorityOf(t)
	for range 1000 {
		one := tls.ConnectionState{PeerCertificates: []*x509.Certificate{state.PeerCertificates[0]}}
		if _, err := c.Verify(trusted, &one); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Verify(trusted, state); err != nil {
		t.Fatal(err)
	}
	left := func() (n int) {
		c.of.Range(func(any, any) bool { n++; return true })
		return n
	}
	for late := time.Now().Add(20 * time.Second); left() > 1; runtime.Gosched() {
		if runtime.GC(); time.Now().After(late) {
			t.Fatalf("%d connections that are gone are remembered", left())
		}
	}
	if left() != 1 {
		t.Error("the one that stands was forgotten")
	}
	runtime.KeepAlive(state)
}

func BenchmarkVerify(b *testing.B) {
	var c Clients
	trusted, state := authorityOf(b)
	for b.Loop() {
		if _, err := c.Verify(trusted, state); err != nil {
			b.Fatal(err)
		}
	}
}
