package remember

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/mtls"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// chain is an authority, and a client of it who is good from begin to end.
func chain(t testing.TB, begin, end time.Duration) (*mtls.Bundle, *tls.ConnectionState) {
	t.Helper()
	now := time.Now()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	check(t, err)
	root, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "ca"}, Authority: true, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0)}, key)
	check(t, err)
	leaf, err := issue.GenerateKey(issue.ECDSAP256)
	check(t, err)
	c, err := issue.Sign(issue.Template{Subject: pkix.Name{CommonName: "jane"}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore: now.Add(begin), NotAfter: now.Add(end)}, leaf.Public(), issue.Authority{Certificate: root, Key: key})
	check(t, err)
	bundle, err := mtls.NewBundle(root)
	check(t, err)
	return bundle, &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
}

func TestWhatIsRememberedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bundle, state := chain(t, -time.Minute, 10*time.Second)
		other, _ := chain(t, 0, time.Hour)
		var c Clients
		want := func(what string, by *mtls.Bundle, good bool) {
			t.Helper()
			if peer, err := c.Verify(by, state); (err == nil) != good || good && peer.Certificate != state.PeerCertificates[0] {
				t.Errorf("%s: %v, %v", what, peer, err)
			}
		}
		want("a client", bundle, true)
		want("another bundle, at once", other, false)
		want("the one of before, at once", bundle, true)
		time.Sleep(9 * time.Second)
		want("as long as it is good", bundle, true)
		time.Sleep(2 * time.Second)
		want("expired", bundle, false)
		if _, err := c.Verify(bundle, nil); !errors.Is(err, mtls.ErrNoClient) {
			t.Errorf("without TLS: %v", err)
		}
		if _, err := c.Verify(bundle, &tls.ConnectionState{}); !errors.Is(err, mtls.ErrNoClient) {
			t.Errorf("without a certificate: %v", err)
		}
	})
}

func TestConnectionsAreForgotten(t *testing.T) {
	bundle, state := chain(t, -time.Minute, time.Hour)
	var c Clients
	for range 1000 {
		one := *state
		if _, err := c.Verify(bundle, &one); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (n int) {
		c.of.Range(func(any, any) bool { n++; return true })
		return n
	}
	for late := time.Now().Add(20 * time.Second); left() > 10; runtime.Gosched() {
		if runtime.GC(); time.Now().After(late) {
			t.Fatalf("%d connections that are gone are remembered", left())
		}
	}
	if _, err := c.Verify(bundle, state); err != nil {
		t.Error(err)
	}
	runtime.KeepAlive(state)
}

func BenchmarkVerify(b *testing.B) {
	bundle, state := chain(b, -time.Minute, time.Hour)
	var c Clients
	for b.Loop() {
		if _, err := c.Verify(bundle, state); err != nil {
			b.Fatal(err)
		}
	}
}
