package renew_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/testpki"
)

// office is an authority elsewhere.
type office struct {
	issue.Authority
	key crypto.Signer // of the leaf
}

// sign signs what an item wants, after a change.
func (o office) sign(t *testing.T, i *renew.Item, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	want := i.Template()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: want.Subject, RawSubject: want.RawSubject, DNSNames: want.DNSNames, IPAddresses: want.Addresses, URIs: want.URIs, EmailAddresses: want.Emails,
		NotBefore: want.NotBefore, NotAfter: want.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: want.Usages, BasicConstraintsValid: true,
	}
	if change != nil {
		change(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, o.Certificate, o.key.Public(), o.Key)
	if err != nil {
		t.Fatal(err)
	}
	c, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// below is an authority below another, with the same leaf's key.
func (o office) below(t *testing.T, name string, change func(*x509.Certificate)) office {
	t.Helper()
	key := newKey(t)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(8), Subject: pkix.Name{CommonName: name}, NotBefore: testpki.Made, NotAfter: testpki.Made.AddDate(5, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	if change != nil {
		change(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, o.Certificate, key.Public(), o.Key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return office{issue.Authority{Certificate: c, Key: key}, o.key}
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// elsewhere plans an item whose authority's key is away, and returns who has it.
func elsewhere(t *testing.T, c *testpki.Cluster, target, authority string) (*renew.Item, office) {
	t.Helper()
	o := office{c.Authority("cp1", authority), newKey(t)}
	if err := os.Remove(c.Path("cp1", "pki/"+authority+".key")); err != nil {
		t.Fatal(err)
	}
	items, err := plan(t, c, func(o *renew.Options) { o.Elsewhere = true }, target)
	if err != nil || len(items) != 1 {
		t.Fatalf("%d items: %v", len(items), err)
	}
	return items[0], o
}

func TestCertificatesSignedElsewhereAreJudged(t *testing.T) {
	rows := []struct {
		name, target, authority string
		change                  func(*x509.Certificate)
		fault, note             string // part of one; none: there is none
	}{
		{"as it was asked for", "apiserver", "ca", nil, "", ""},
		{"a client's, as it was asked for", "scheduler.conf", "ca", nil, "", ""},
		{"of another authority of the cluster's, as it was asked for", "etcd-peer", "etcd/ca", nil, "", ""},
		{"an authority instead of a leaf", "apiserver", "ca", func(c *x509.Certificate) { c.IsCA = true }, "it is an authority", ""},
		{"a leaf that may sign", "apiserver", "ca", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }, "it may sign certificates", ""},
		{"without extended usages", "apiserver", "ca", func(c *x509.Certificate) { c.ExtKeyUsage = nil }, "usage-missing: it has no extended key usage at all, wanted is serverAuth", ""},
		{"with the other extended usage", "scheduler.conf", "ca", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "lacks the extended key usage clientAuth", "good for more"},
		{"with one of two", "etcd-peer", "etcd/ca", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }, "usage-missing", ""},
		{"with both", "apiserver", "ca", func(c *x509.Certificate) {
			c.ExtKeyUsage = append(slices.Clone(c.ExtKeyUsage), x509.ExtKeyUsageClientAuth)
		}, "", "good for more than was asked for: clientAuth"},
		{"for any usage", "apiserver", "ca", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }, "", "any usage"},
		{"without digitalSignature", "apiserver", "ca", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }, "lacks digitalSignature", ""},
		{"without any key usage", "apiserver", "ca", func(c *x509.Certificate) { c.KeyUsage = 0 }, "", ""},
		{"for another name", "scheduler.conf", "ca", func(c *x509.Certificate) {
			c.RawSubject, c.Subject = nil, pkix.Name{CommonName: "system:kube-controller-manager"}
		}, "its common name (CN) is", ""},
		{"in one group more", "scheduler.conf", "ca", func(c *x509.Certificate) {
			c.RawSubject, c.Subject = nil, pkix.Name{CommonName: "system:kube-scheduler", Organization: []string{"system:masters"}}
		}, `its organizations (O), which are groups, are ["system:masters"]`, ""},
		{"without its group", "kubelet.conf", "ca", func(c *x509.Certificate) {
			c.RawSubject, c.Subject = nil, pkix.Name{CommonName: "system:node:cp1"}
		}, `wanted are ["system:nodes"]`, ""},
		{"with two common names, of which the last is right", "scheduler.conf", "ca", func(c *x509.Certificate) {
			name := func(v string) pkix.AttributeTypeAndValue {
				return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: v}
			}
			c.RawSubject, _ = asn1.Marshal(pkix.RDNSequence{{name("system:admin")}, {name("system:kube-scheduler")}})
		}, "2 common names", ""},
		{"with a country more, which nobody reads", "scheduler.conf", "ca", func(c *x509.Certificate) {
			c.RawSubject, c.Subject = nil, pkix.Name{CommonName: "system:kube-scheduler", Country: []string{"DE"}}
		}, "", "its subject is"},
		{"without an address", "apiserver", "ca", func(c *x509.Certificate) { c.IPAddresses = c.IPAddresses[:1] }, "san-missing: it lacks the alternative names IP:10.0.0.11", ""},
		{"without the names", "apiserver", "ca", func(c *x509.Certificate) { c.DNSNames = nil }, "DNS:kubernetes.default.svc.cluster.local", ""},
		{"with names in capitals", "apiserver", "ca", func(c *x509.Certificate) {
			c.DNSNames = slices.Clone(c.DNSNames)
			for i := range c.DNSNames {
				c.DNSNames[i] = strings.ToUpper(c.DNSNames[i])
			}
		}, "", ""},
		{"with a name more", "apiserver", "ca", func(c *x509.Certificate) { c.DNSNames = append(slices.Clone(c.DNSNames), "*.example.test") }, "", "not asked for: DNS:*.example.test"},
		{"with an address more", "apiserver", "ca", func(c *x509.Certificate) {
			c.IPAddresses = append(slices.Clone(c.IPAddresses), net.IPv4(192, 0, 2, 7))
		}, "", "not asked for: IP:192.0.2.7"},
		{"expired", "apiserver", "ca", func(c *x509.Certificate) { c.NotAfter = testpki.At.Add(-time.Second) }, "it expired at 2026-06-01T23:59:59Z", ""},
		{"not yet valid", "apiserver", "ca", func(c *x509.Certificate) { c.NotBefore = testpki.At.Add(time.Hour) }, "it begins at 2026-06-02T01:00:00Z", ""},
		{"for a day", "apiserver", "ca", func(c *x509.Certificate) { c.NotAfter = testpki.At.Add(24 * time.Hour) }, "", "asked was"},
		{"for ten years", "apiserver", "ca", func(c *x509.Certificate) { c.NotAfter = testpki.At.AddDate(9, 0, 0) }, "", "later than"},
		{"with a critical extension that nobody knows", "apiserver", "ca", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}, "does not verify", ""},
		{"with an extension that nobody needs", "apiserver", "ca", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: []byte{5, 0}}}
		}, "", ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			i, o := elsewhere(t, testpki.New(t, testpki.Single), r.target, r.authority)
			a := i.Judge(o.sign(t, i, r.change), nil, testpki.At)
			faults, notes := strings.Join(a.Faults, "\n"), strings.Join(a.Notes, "\n")
			if (r.fault == "") != (len(a.Faults) == 0) || !strings.Contains(faults, r.fault) {
				t.Errorf("faults are %q, want %q", faults, r.fault)
			}
			if (r.note == "") != (len(a.Notes) == 0) && r.fault == "" || !strings.Contains(notes, r.note) {
				t.Errorf("notes are %q, want %q", notes, r.note)
			}
		})
	}
}

func TestWayToTheAnchorIsFoundOrExplained(t *testing.T) {
	single := func(t *testing.T) (*testpki.Cluster, *renew.Item, office) {
		c := testpki.New(t, testpki.Single)
		i, o := elsewhere(t, c, "apiserver", "ca")
		return c, i, o
	}
	ends := func(t *testing.T, a renew.Answer, want ...*x509.Certificate) {
		t.Helper()
		if len(a.Faults) > 0 || !slices.EqualFunc(a.Chain[1:], want, (*x509.Certificate).Equal) {
			t.Errorf("faults %q, %d in the chain, want %d", a.Faults, len(a.Chain), 1+len(want))
		}
	}
	t.Run("by two authorities between, in any order, which are written after it", func(t *testing.T) {
		_, i, o := single(t)
		one := o.below(t, "one", nil)
		two := one.below(t, "two", nil)
		a := i.Judge(two.sign(t, i, nil), []*x509.Certificate{o.Certificate, one.Certificate, two.Certificate}, testpki.At)
		ends(t, a, two.Certificate, one.Certificate)
	})
	t.Run("the authority between was not sent along", func(t *testing.T) {
		_, i, o := single(t)
		one := o.below(t, "one", nil)
		a := i.Judge(one.sign(t, i, nil), nil, testpki.At)
		if len(a.Faults) != 1 || !strings.Contains(a.Faults[0], "authority-unknown: it is signed by CN=one") {
			t.Errorf("faults are %q", a.Faults)
		}
	})
	t.Run("what is between is no authority", func(t *testing.T) {
		_, i, o := single(t)
		one := o.below(t, "one", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
		if a := i.Judge(one.sign(t, i, nil), []*x509.Certificate{one.Certificate}, testpki.At); len(a.Faults) != 1 {
			t.Errorf("faults are %q", a.Faults)
		}
	})
	t.Run("what is between is for clients alone", func(t *testing.T) {
		_, i, o := single(t)
		one := o.below(t, "one", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
		if a := i.Judge(one.sign(t, i, nil), []*x509.Certificate{one.Certificate}, testpki.At); len(a.Faults) != 1 || !strings.Contains(a.Faults[0], "does not verify") {
			t.Errorf("faults are %q", a.Faults)
		}
	})
	t.Run("what is between excludes the names", func(t *testing.T) {
		_, i, o := single(t)
		one := o.below(t, "one", func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"example.test"}
		})
		if a := i.Judge(one.sign(t, i, nil), []*x509.Certificate{one.Certificate}, testpki.At); len(a.Faults) != 1 {
			t.Errorf("faults are %q", a.Faults)
		}
	})
	t.Run("another authority of the same name", func(t *testing.T) {
		_, i, o := single(t)
		other := office{testpki.New(t, testpki.Single).Recreate("cp1", "ca"), o.key}
		a := i.Judge(other.sign(t, i, nil), []*x509.Certificate{other.Certificate}, testpki.At)
		if len(a.Faults) != 1 || !strings.Contains(a.Faults[0], "another key of an authority of the same name") {
			t.Errorf("faults are %q", a.Faults)
		}
	})
	t.Run("the front proxy's authority for the apiserver", func(t *testing.T) {
		c, i, o := single(t)
		other := office{c.Authority("cp1", "front-proxy-ca"), o.key}
		a := i.Judge(other.sign(t, i, nil), []*x509.Certificate{other.Certificate}, testpki.At)
		if len(a.Faults) != 1 || !strings.Contains(a.Faults[0], "it is signed by CN=front-proxy-ca") {
			t.Errorf("faults are %q", a.Faults)
		}
	})
	t.Run("below an intermediate that the node has, which its leaves carry", func(t *testing.T) {
		c := testpki.New(t, testpki.Intermediate)
		i, o := elsewhere(t, c, "apiserver", "ca")
		ends(t, i.Judge(o.sign(t, i, nil), nil, testpki.At), o.Certificate)
	})
}

func TestRequestsTellAll(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	c.Reissue("cp1", "apiserver", "ca", func(c *x509.Certificate) { c.EmailAddresses = []string{"ops@example.test"} })
	i, o := elsewhere(t, c, "apiserver", "ca")
	r, err := i.Request(o.key)
	if err != nil {
		t.Fatal(err)
	}
	asked, err := issue.ReadRequest(r)
	if err != nil {
		t.Fatal(err)
	}
	if string(r.RawSubject) != string(i.Old.RawSubject) || !slices.Equal(asked.Usages, i.Usages) || asked.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(r.DNSNames, i.Old.DNSNames) || !slices.Equal(r.EmailAddresses, i.Old.EmailAddresses) {
		t.Errorf("it asks for %+v", asked)
	}
	if again, err := i.Request(o.key); err != nil || !renew.SameRequest(r, again) {
		t.Errorf("asked again, it is another: %v", err)
	}
	if other, err := i.Request(newKey(t)); err != nil || renew.SameRequest(r, other) {
		t.Errorf("with another key it is the same: %v", err)
	}
	plain, err := i.PlainRequest(o.key)
	if err != nil {
		t.Fatal(err)
	}
	if asked, err := issue.ReadRequest(plain); err != nil || len(asked.Usages) > 0 || asked.KeyUsage != 0 || len(plain.DNSNames) == 0 {
		t.Errorf("the plain one asks for %+v: %v", asked, err)
	}
}

func TestAnAuthorityThatExpiredElsewhereIsOfNoUse(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	c.Resign("cp1", "ca", func(c *x509.Certificate) { c.NotAfter = testpki.At.Add(-time.Hour) })
	_, err := plan(t, c, func(o *renew.Options) { o.Elsewhere = true }, "apiserver")
	if err == nil || !strings.Contains(err.Error(), "expired at") {
		t.Errorf("it says %v", err)
	}
}
