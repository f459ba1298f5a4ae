package mtlsgrpc

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/mtls"
)

func credential(t *testing.T, name string) (*mtls.Snapshot, *tls.ConnectionState) {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	root, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: now, NotAfter: now.Add(time.Hour)}, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := issue.Sign(issue.Template{
		Subject: pkix.Name{CommonName: "jane"}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, NotBefore: now, NotAfter: now.Add(time.Hour),
	}, key.Public(), issue.Authority{Certificate: root, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := mtls.NewBundle(root)
	if err != nil {
		t.Fatal(err)
	}
	return &mtls.Snapshot{Bundle: bundle}, &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
}

// What is remembered is seen by putting another certificate where the first
// stood, which no connection does.
func TestVerdictsHoldForAConnectionASecondAndASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var v verdicts
		source, state := credential(t, "ca")
		other, strange := credential(t, "ca")
		wants := func(when string, now *mtls.Snapshot, state *tls.ConnectionState, good bool) {
			t.Helper()
			if _, err := v.verify(now, state); (err == nil) != good {
				t.Errorf("%s: %v", when, err)
			}
		}
		wants("a good one", source, state, true)
		wants("another connection", source, strange, false)
		state.PeerCertificates[0] = strange.PeerCertificates[0]
		time.Sleep(holds - time.Millisecond)
		wants("within the second", source, state, true)
		time.Sleep(time.Millisecond)
		wants("after it", source, state, false)
		wants("by the next snapshot", other, state, true)
		wants("nothing shown", source, &tls.ConnectionState{}, false)
		wants("no TLS", source, nil, false)
		for range 2 * remembered {
			v.of(new(*x509.Certificate))
		}
		if got := v.known.Len(); got != remembered {
			t.Errorf("%d connections are known", got)
		}
	})
}
