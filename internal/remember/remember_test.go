package remember

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
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

// What is found of a client is remembered for its connection and who asks: a
// verdict for as long as it is certain, a refusal for good.
func TestClientOfAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trusted, client := authorityOf(t)
		other, _ := authorityOf(t)
		ctx := Context(context.Background(), nil)
		me, somebody := new(int), new(int)
		wants := func(who *int, source mtls.Source, good bool) (verified time.Time) {
			t.Helper()
			c, err := Client(ctx, who, source, client)
			at := ctx.Value(connectionKey{}).(*connection).of(who).at
			if (err == nil) != good || (good && c.Certificate.Subject.CommonName != "west") {
				t.Errorf("after %s: %v, %v", time.Since(at), c, err)
			}
			return at
		}
		first := wants(me, trusted, true)
		time.Sleep(recheck - time.Millisecond)
		if !wants(me, trusted, true).Equal(first) {
			t.Error("it was verified again")
		}
		time.Sleep(time.Millisecond)
		if wants(me, trusted, true).Equal(first) {
			t.Error("it was not verified again")
		}
		wants(me, other, false) // at once
		wants(me, trusted, false)
		wants(somebody, trusted, true) // who has asked nothing yet

		ctx = Context(context.Background(), nil)
		wants(me, trusted, true)
		time.Sleep(time.Hour)
		wants(me, trusted, false) // it has expired
	})
}

// A source that has nothing is no verdict on anybody, and is forgotten when it
// has something.
func TestNobodyIsJudgedByNothing(t *testing.T) {
	trusted, client := authorityOf(t)
	for name, ctx := range map[string]context.Context{"a connection": Context(context.Background(), nil), "no connection": context.Background()} {
		t.Run(name, func(t *testing.T) {
			var source mtls.Memory
			ask := func() error {
				_, err := Client(ctx, t, &source, client)
				return err
			}
			if err := ask(); !errors.Is(err, ErrNotJudged) {
				t.Error(err)
			}
			if err := source.Set(mtls.Snapshot{}); err != nil {
				t.Fatal(err)
			}
			if err := ask(); !errors.Is(err, ErrNotJudged) {
				t.Error(err)
			}
			if err := source.Set(*trusted); err != nil {
				t.Fatal(err)
			}
			if err := ask(); err != nil {
				t.Error(err)
			}
			if _, err := Client(ctx, new(int), &source, nil); !errors.Is(err, mtls.ErrNoClient) {
				t.Error(err)
			}
		})
	}
}
