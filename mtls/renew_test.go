package mtls_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
)

// signer is an issuer of certificates that live a while.
type signer struct {
	t      *testing.T
	ca     issue.Authority
	life   time.Duration
	before func(context.Context) error // nil: nothing
	change func(*issue.Template)       // nil: as it was asked
	after  func(*mtls.Issued)          // nil: as it was signed

	mu    sync.Mutex // guards all that is above, while it runs
	keys  map[string]bool
	calls []time.Time
}

// set changes the signer while it is in use.
func (s *signer) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *signer) called() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *signer) Issue(ctx context.Context, request []byte) (*mtls.Issued, error) {
	s.mu.Lock()
	s.calls = append(s.calls, time.Now())
	before := s.before
	s.mu.Unlock()
	if before != nil {
		if err := before(ctx); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := x509.ParseCertificateRequest(request)
	if err != nil || r.CheckSignature() != nil {
		s.t.Fatalf("the request: %v", err)
	}
	if s.keys[string(r.RawSubjectPublicKeyInfo)] {
		s.t.Error("a key is used twice")
	}
	s.keys[string(r.RawSubjectPublicKeyInfo)] = true
	now := time.Now()
	template := issue.Template{
		Subject: r.Subject, DNSNames: r.DNSNames, Addresses: r.IPAddresses, URIs: r.URIs, Usages: []x509.ExtKeyUsage{forServers, forClients},
		NotBefore: now.Add(-issue.Backdate), NotAfter: now.Add(s.life),
	}
	if s.change != nil {
		s.change(&template)
	}
	c, err := issue.Sign(template, r.PublicKey, s.ca)
	if err != nil {
		s.t.Fatal(err)
	}
	issued := &mtls.Issued{Chain: []*x509.Certificate{c}}
	if s.after != nil {
		s.after(issued)
	}
	return issued, nil
}

// renewing is a source that runs, with what it has told.
type renewing struct {
	*mtls.Renewing
	signer *signer
	told   []mtls.Renewed
	ended  chan error
}

func shopRequest() x509.CertificateRequest {
	return x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "till", Organization: []string{"shop"}},
		DNSNames: []string{"till.shop.svc"}, URIs: []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/ns/shop/sa/till"}},
	}
}

// renew starts a source within a bubble.
func renew(t *testing.T, change func(*mtls.Renewal, *signer)) *renewing {
	t.Helper()
	r := &renewing{signer: &signer{t: t, ca: tlstest.Authority(t, "ca"), life: time.Hour, keys: map[string]bool{}}, ended: make(chan error, 1)}
	config := mtls.Renewal{Issuer: r.signer, Request: shopRequest(), Usage: forServers, Told: func(x mtls.Renewed) { r.told = append(r.told, x) }}
	change(&config, r.signer)
	var err error
	if r.Renewing, err = mtls.NewRenewing(config); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { r.ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return r
}

// waitReady waits, no longer than an hour.
func (r *renewing) waitReady(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if err := r.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

func (r *renewing) leaf(t *testing.T) *x509.Certificate {
	t.Helper()
	s, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return s.Certificate.Leaf
}

func TestCertificateIsRenewedAtTwoThirdsOfItsLife(t *testing.T) {
	for name, row := range map[string]struct {
		jitter      float64
		early, late time.Duration
	}{
		"on the spot without jitter": {-1, 40 * time.Minute, 40 * time.Minute},
		"up to a tenth earlier":      {0, 34 * time.Minute, 40 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := renew(t, func(c *mtls.Renewal, _ *signer) { c.Jitter = row.jitter })
				r.waitReady(t)
				first := r.leaf(t)
				before, _ := r.Snapshot()
				if again, _ := r.Snapshot(); again != before {
					t.Error("another snapshot, and nothing has changed")
				}
				time.Sleep(24 * time.Hour)
				synctest.Wait()
				if r.leaf(t).Equal(first) || len(r.signer.called()) < 24*60/40 {
					t.Fatalf("issued %d times", len(r.signer.called()))
				}
				for i, at := range r.signer.called()[1:] {
					if life := at.Sub(r.signer.called()[i]); life < row.early-time.Second || life > row.late+time.Second {
						t.Errorf("certificate %d was renewed after %s", i, life)
					}
				}
				if s := r.Status(); int(s.Taken) != len(r.signer.called()) || s.Refused != 0 || s.Failing || time.Since(s.AsOf) > time.Hour {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestWhatIsIssuedIsNotTaken(t *testing.T) {
	rows := map[string]struct {
		change func(*issue.Template)
		after  func(*testing.T, *mtls.Issued)
		want   string
	}{
		"when it is for another key": {after: func(t *testing.T, i *mtls.Issued) {
			i.Chain = []*x509.Certificate{leaf(t, tlstest.Authority(t, "ca"), "till", forServers).Leaf}
		}, want: "not for the key"},
		"when there is none":           {after: func(_ *testing.T, i *mtls.Issued) { i.Chain = nil }, want: "1 to 10"},
		"when one of the chain is nil": {after: func(_ *testing.T, i *mtls.Issued) { i.Chain = append(i.Chain, nil) }, want: "1 to 10"},
		"when the chain is of another": {after: func(t *testing.T, i *mtls.Issued) {
			i.Chain = append(i.Chain, tlstest.Authority(t, "other").Certificate)
		}, want: "not signed by the next"},
		"when it is for clients alone": {change: func(c *issue.Template) { c.Usages = []x509.ExtKeyUsage{forClients} }, want: "lack serverAuth"},
		"when it has expired": {change: func(c *issue.Template) {
			c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
		}, want: "expired at"},
		"when it is good only later":   {change: func(c *issue.Template) { c.NotBefore = time.Now().Add(time.Minute) }, want: "compare the clocks"},
		"when a DNS name is missing":   {change: func(c *issue.Template) { c.DNSNames = []string{"other.shop.svc"} }, want: `DNS name "till.shop.svc"`},
		"when the URI is missing":      {change: func(c *issue.Template) { c.URIs = nil }, want: `URI "spiffe://example.org/ns/shop/sa/till"`},
		"when the user is another":     {change: func(c *issue.Template) { c.Subject.CommonName = "admin" }, want: `common name "till"`},
		"when it lacks the group":      {change: func(c *issue.Template) { c.Subject.Organization = nil }, want: `organization "shop"`},
		"when it is an authority":      {change: func(c *issue.Template) { c.Authority = true }, want: "an authority's"},
		"when it cannot sign in TLS":   {change: func(c *issue.Template) { u := x509.KeyUsageKeyEncipherment; c.KeyUsage = &u }, want: "digitalSignature"},
		"when it has more names: good": {change: func(c *issue.Template) { c.DNSNames = append(c.DNSNames, "more.shop.svc") }},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := renew(t, func(*mtls.Renewal, *signer) {})
				first := r.leaf(t)
				r.signer.set(func() {
					r.signer.change = row.change
					if row.after != nil {
						r.signer.after = func(i *mtls.Issued) { row.after(t, i) }
					}
				})
				r.Renew()
				synctest.Wait()
				last := r.told[len(r.told)-1]
				if row.want == "" {
					if last.Err != nil || r.leaf(t).Equal(first) {
						t.Fatalf("told of %v", last.Err)
					}
					return
				}
				if last.Err == nil || !strings.Contains(last.Err.Error(), row.want) {
					t.Errorf("told of %v, want %q", last.Err, row.want)
				}
				if !r.leaf(t).Equal(first) || !r.Status().Failing {
					t.Errorf("the one before is gone; %+v", r.Status())
				}
				r.signer.set(func() { r.signer.change, r.signer.after = nil, nil })
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if s := r.Status(); r.leaf(t).Equal(first) || s.Failing || s.Refused != 1 || s.Taken != 2 {
					t.Errorf("the next one is not taken: %+v", s)
				}
			})
		})
	}
}

func TestFailuresAreRetriedLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := renew(t, func(c *mtls.Renewal, s *signer) {
			s.life = 30 * 24 * time.Hour
			s.before = func(context.Context) error { return errors.New("nobody is there") }
		})
		if _, err := r.Snapshot(); err == nil || !strings.Contains(err.Error(), "yet") {
			t.Errorf("got %v", err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.WaitReady(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "nobody is there") {
			t.Errorf("waiting does not tell why: %v", err)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		for i, at := range r.signer.called()[1:] {
			pause, most := at.Sub(r.signer.called()[i]), min(time.Second<<min(i, 20), 5*time.Minute)
			if pause > most || pause < most*4/5 {
				t.Errorf("pause %d is %s", i, pause)
			}
		}
		if len(r.signer.called()) < 25 || len(r.signer.called()) > 45 {
			t.Errorf("asked %d times in two hours", len(r.signer.called()))
		}
		r.signer.set(func() { r.signer.before = nil })
		r.Renew()
		r.waitReady(t)
		r.leaf(t)
	})
}

// A certificate of ten minutes has three left when it is due: they must be enough
// for several tries.
func TestShortLivesAreRetriedSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := renew(t, func(c *mtls.Renewal, s *signer) { s.life = 10 * time.Minute })
		first := r.leaf(t)
		fail := errors.New("nobody is there")
		r.signer.set(func() { r.signer.before = func(context.Context) error { return fail } })
		time.Sleep(time.Until(first.NotAfter) - time.Second)
		synctest.Wait()
		if n := len(r.signer.called()); n < 12 {
			t.Errorf("asked %d times before it expired", n)
		}
		if !r.leaf(t).Equal(first) {
			t.Error("it is gone")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(r.signer.called()); n > 90 || !r.leaf(t).Equal(first) {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestIssuerThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := renew(t, func(c *mtls.Renewal, s *signer) {
			c.Timeout = time.Minute
			s.before = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(r.told) != 1 || !errors.Is(r.told[0].Err, context.DeadlineExceeded) {
			t.Errorf("told of %v", r.told)
		}
	})
}

func TestBundleOfTheIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		given, err := mtls.NewBundle(tlstest.Authority(t, "given").Certificate)
		if err != nil {
			t.Fatal(err)
		}
		issuers, err := mtls.NewBundle(tlstest.Authority(t, "issuer's").Certificate)
		if err != nil {
			t.Fatal(err)
		}
		r := renew(t, func(c *mtls.Renewal, _ *signer) { c.Bundle = given })
		trusts := func(want string) {
			t.Helper()
			r.Renew()
			synctest.Wait()
			if s, err := r.Snapshot(); err != nil || trusting(s) != want {
				t.Errorf("%v, %v, want %s", s, err, want)
			}
		}
		trusts("given")
		r.signer.set(func() { r.signer.after = func(i *mtls.Issued) { i.Bundle = issuers } })
		trusts("issuer's")
		r.signer.set(func() { r.signer.after = nil })
		trusts("issuer's")
	})
}

func TestRenewalsThatCannotBe(t *testing.T) {
	good := mtls.Renewal{Issuer: &signer{}, Request: shopRequest()}
	if _, err := mtls.NewRenewing(good); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*mtls.Renewal){
		"Issuer is not set": func(c *mtls.Renewal) { c.Issuer = nil },
		"After is not":      func(c *mtls.Renewal) { c.After = 1 },
		"Jitter not below":  func(c *mtls.Renewal) { c.Jitter = 0.9 },
		"Timeout":           func(c *mtls.Renewal) { c.Timeout = -1 },
		"Request":           func(c *mtls.Renewal) { c.Request.DNSNames = []string{"ü"} },
	} {
		c := good
		change(&c)
		if _, err := mtls.NewRenewing(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestRenewingRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := renew(t, func(*mtls.Renewal, *signer) {})
		if err := r.Run(t.Context()); err == nil {
			t.Error("it runs twice")
		}
	})
}

func TestJoin(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	pair := leaf(t, ca, "one", forServers)
	bundle, err := mtls.NewBundle(ca.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	var left, right mtls.Memory
	s := mtls.Join(&left, &right)
	if err := left.Set(mtls.Snapshot{Certificate: &pair}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Snapshot(); err == nil {
		t.Error("there is no bundle yet")
	}
	if err := right.Set(mtls.Snapshot{Bundle: bundle}); err != nil {
		t.Fatal(err)
	}
	now, err := s.Snapshot()
	if err != nil || now.Certificate != &pair || now.Bundle != bundle {
		t.Fatalf("%v, %v", now, err)
	}
	if again, _ := s.Snapshot(); again != now {
		t.Error("another snapshot, and nothing has changed")
	}
}
