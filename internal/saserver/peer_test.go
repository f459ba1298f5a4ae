package saserver

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

// authorityOf makes an authority, and a client of it that lives for an hour.
func authorityOf(t *testing.T) (*mtls.Snapshot, *tls.ConnectionState) {
	t.Helper()
	var err error
	check := func() {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	check()
	root, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "ca"}, Authority: true, NotBefore: now, NotAfter: now.AddDate(1, 0, 0)}, key)
	check()
	client, err := issue.Sign(issue.Template{
		Subject: pkix.Name{CommonName: "west"}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, NotBefore: now, NotAfter: now.Add(time.Hour),
	}, key.Public(), issue.Authority{Certificate: root, Key: key})
	check()
	bundle, err := mtls.NewBundle(root)
	check()
	return &mtls.Snapshot{Bundle: bundle}, &tls.ConnectionState{PeerCertificates: []*x509.Certificate{client}}
}

// What is found of a client is remembered for its connection: a verdict for as
// long as it is certain, a refusal for good.
func TestClientOfAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trusted, client := authorityOf(t)
		other, _ := authorityOf(t)
		var p peer
		wants := func(source mtls.Source, good bool) {
			t.Helper()
			if c, err := p.verify(source, client); (err == nil) != good || (good && c.Certificate.Subject.CommonName != "west") {
				t.Errorf("after %s: %v, %v", time.Since(p.at), c, err)
			}
		}
		wants(trusted, true)
		verified := p.at
		time.Sleep(recheck - time.Millisecond)
		wants(trusted, true)
		if !p.at.Equal(verified) {
			t.Error("it was verified again")
		}
		time.Sleep(time.Millisecond)
		wants(trusted, true)
		if p.at.Equal(verified) {
			t.Error("it was not verified again")
		}
		wants(other, false) // at once
		wants(trusted, false)

		p = peer{}
		wants(trusted, true)
		time.Sleep(time.Hour)
		wants(trusted, false) // it has expired
	})
}
