package podcert_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/podcert"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"pgregory.net/rapid"
)

// root makes an authority for ten years, with a change.
func root(t testing.TB, change func(*x509.Certificate)) issue.Authority {
	t.Helper()
	return below(t, issue.Authority{}, change)
}

// below makes an authority that another has signed.
func below(t testing.TB, parent issue.Authority, change func(*x509.Certificate)) issue.Authority {
	t.Helper()
	key := generate(t, issue.ECDSAP256)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pods"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: now.Add(-time.Hour).Truncate(time.Second), NotAfter: now.AddDate(10, 0, 0).Truncate(time.Second),
	}
	if parent.Certificate != nil {
		c.Subject.CommonName = "pods below " + parent.Certificate.Subject.CommonName
	}
	change(c)
	signs, by := c, key
	if parent.Certificate != nil {
		signs, by = parent.Certificate, parent.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, signs, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a := issue.Authority{Certificate: c, Key: key}
	if parent.Certificate != nil {
		a.Chain = append([]*x509.Certificate{c}, parent.Chain...)
	}
	return a
}

func same(*x509.Certificate) {}

// accepted is what kube-apiserver demands of an answer (k/k
// pkg/apis/certificates/validation/validation.go,
// ValidatePodCertificateRequestStatusUpdate), and SPIFFE of an X.509-SVID.
func accepted(t testing.TB, w *world, c *podcert.Certificate, anchor *x509.Certificate) {
	t.Helper()
	chain, err := trust.ParseCertificates(c.Chain)
	if err != nil {
		t.Fatal(err)
	}
	leaf := chain[0]
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	switch {
	case !trust.SameKey(leaf.PublicKey, w.key.Public()):
		t.Error("the certificate is for another key")
	case !leaf.NotBefore.After(now.Add(-5*time.Minute)) || !leaf.NotBefore.Before(now):
		t.Errorf("notBefore is %s, now is %s", leaf.NotBefore, now)
	case life < time.Hour || life > w.policy.MaxLife || w.request.MaxExpirationSeconds != nil && life > time.Duration(*w.request.MaxExpirationSeconds)*time.Second:
		t.Errorf("the life is %s", life)
	case c.BeginRefreshAt.Before(leaf.NotBefore.Add(10*time.Minute)) || c.BeginRefreshAt.After(leaf.NotAfter.Add(-10*time.Minute)) || c.BeginRefreshAt.Nanosecond() != 0:
		t.Errorf("beginRefreshAt is %s, in a life from %s to %s", c.BeginRefreshAt, leaf.NotBefore, leaf.NotAfter)
	case leaf.Subject.String() != "" || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) > 0:
		t.Errorf("the certificate says %q %q %q", leaf.Subject, leaf.DNSNames, leaf.IPAddresses)
	case leaf.NotAfter.After(anchor.NotAfter):
		t.Error("the certificate outlives its anchor")
	}
	domain := spiffeid.RequireTrustDomainFromString("example.org")
	id, _, err := x509svid.Verify(chain, x509bundle.FromX509Authorities(domain, []*x509.Certificate{anchor}), x509svid.WithTime(now))
	if want := "spiffe://example.org/ns/" + w.request.Namespace + "/sa/" + w.request.ServiceAccount.Name; err != nil || id.String() != want {
		t.Errorf("go-spiffe says %q, %v; want %s", id, err, want)
	}
	if slices.ContainsFunc(chain, anchor.Equal) {
		t.Error("the chain holds the anchor")
	}
}

func TestCertificatesThatPeersAccept(t *testing.T) {
	top := root(t, same)
	middle := below(t, top, same)
	for name, a := range map[string]issue.Authority{
		"below a root":                         top,
		"below an intermediate":                middle,
		"below two":                            below(t, middle, same),
		"below an intermediate, with the root": {Certificate: middle.Certificate, Key: middle.Key, Chain: []*x509.Certificate{top.Certificate}},
		"below a root that is its own chain":   {Certificate: top.Certificate, Key: top.Key, Chain: []*x509.Certificate{top.Certificate}},
		"below an authority for TLS both ways": below(t, top, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
		}),
		"below an authority for the trust domain":  below(t, top, func(c *x509.Certificate) { c.PermittedURIDomains = []string{"example.org"} }),
		"below an authority that ends in two days": below(t, top, func(c *x509.Certificate) { c.NotAfter = now.Add(48 * time.Hour) }),
	} {
		t.Run(name, func(t *testing.T) {
			for _, asked := range []int32{3600, 3601, 86400, 91 * 86400} {
				w := good(t)
				w.request.MaxExpirationSeconds = seconds(asked)
				c, err := podcert.Sign(w.request, w.policy, a, now)
				if err != nil {
					t.Fatal(err)
				}
				accepted(t, w, c, top.Certificate)
			}
		})
	}
}

func TestAskingForNamesGivesNone(t *testing.T) {
	w, a := good(t), root(t, same)
	w.request.PKCS10 = stub(t, w.key, greedy())
	c, err := podcert.Sign(w.request, w.policy, a, now)
	if err != nil {
		t.Fatal(err)
	}
	accepted(t, w, c, a.Certificate)
}

func TestAuthoritiesThatCannotVouch(t *testing.T) {
	top := root(t, same)
	for name, c := range map[string]struct {
		a    issue.Authority
		want string
	}{
		"an authority with an hour left, less what the life began early": {below(t, top, func(c *x509.Certificate) { c.NotAfter = now.Add(time.Hour - podcert.Backdate - time.Second) }), "too soon"},
		"an authority below one that ends soon":                          {below(t, below(t, top, func(c *x509.Certificate) { c.NotAfter = now.Add(time.Minute) }), same), "too soon"},
		"an authority that has ended":                                    {below(t, top, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }), "too soon"},
		"an authority that has not begun":                                {below(t, top, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }), "cannot vouch"},
		"an authority for clients alone":                                 {below(t, top, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), "cannot vouch"},
		"an authority for servers alone":                                 {below(t, top, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "cannot vouch"},
		"an authority for another trust domain":                          {below(t, top, func(c *x509.Certificate) { c.PermittedURIDomains = []string{"example.net"} }), "cannot vouch"},
		"an authority above this is for another trust domain":            {below(t, below(t, top, func(c *x509.Certificate) { c.ExcludedURIDomains = []string{"example.org"} }), same), "cannot vouch"},
		"a certificate that is no authority":                             {below(t, top, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }), "not an authority"},
		"an authority whose key is elsewhere":                            {issue.Authority{Certificate: top.Certificate}, "not at hand"},
		"a chain that is too long for the API":                           {issue.Authority{Certificate: top.Certificate, Key: top.Key, Chain: long(top.Certificate)}, "the API takes"},
	} {
		w := good(t)
		if _, err := podcert.Sign(w.request, w.policy, c.a, now); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
	w := good(t)
	exact := below(t, top, func(c *x509.Certificate) { c.NotAfter = now.Truncate(time.Second).Add(time.Hour - podcert.Backdate) })
	if c, err := podcert.Sign(w.request, w.policy, exact, now); err != nil {
		t.Errorf("an authority with just enough left: %v", err)
	} else {
		accepted(t, w, c, top.Certificate)
	}
}

// long is a chain in which each certificate differs from the one before.
func long(c *x509.Certificate) (chain []*x509.Certificate) {
	for size := 0; size < 150_000; size += len(c.Raw) {
		other := *c
		other.Raw = append(bytes.Clone(c.Raw), byte(size), byte(size>>8), byte(size>>16))
		chain = append(chain, &other)
	}
	return append(chain, c)
}

// Whatever was issued is accepted, and whatever was denied or left has a reason
// that is true: the oracle of the first is crypto/x509 and go-spiffe.
func TestWhateverIsIssuedIsAccepted(t *testing.T) {
	top := root(t, same)
	keys := []*world{good(t), good(t)}
	rapid.Check(t, func(rt *rapid.T) {
		w := *keys[rapid.IntRange(0, 1).Draw(rt, "key")]
		word := rapid.StringMatching(`[a-z0-9]([-a-z0-9.]{0,20}[a-z0-9])?`)
		w.request.Namespace, w.request.ServiceAccount.Name = word.Draw(rt, "namespace"), word.Draw(rt, "account")
		pod := *w.facts.Pod
		pod.ServiceAccount = w.request.ServiceAccount.Name
		w.facts.Pod = &pod
		w.request.MaxExpirationSeconds = seconds(rapid.Int32().Draw(rt, "seconds"))
		w.policy.MaxLife = time.Duration(rapid.Int64Range(int64(podcert.MinLife), int64(podcert.MaxLife)).Draw(rt, "maximum"))
		end := now.Add(time.Duration(rapid.Int64Range(-int64(time.Hour), int64(200*24*time.Hour)).Draw(rt, "end")))
		a := below(t, top, func(c *x509.Certificate) { c.NotAfter = end })
		review := w.decide()
		if short := *w.request.MaxExpirationSeconds < 3600; short != (review.ID == podcert.InvalidExpiration) && review.Verdict != podcert.Deny {
			rt.Fatalf("%d seconds: %+v", *w.request.MaxExpirationSeconds, review)
		}
		if review.Verdict != podcert.Issue {
			return
		}
		c, err := podcert.Sign(w.request, w.policy, a, now)
		if enough := end.Sub(now) > time.Hour; err != nil && enough {
			rt.Fatal(err)
		} else if err != nil {
			return
		}
		accepted(t, &w, c, top.Certificate)
		if t.Failed() {
			rt.FailNow()
		}
	})
}
