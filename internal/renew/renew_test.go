package renew_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

func TestMain(m *testing.M) {
	_ = flag.Set("rapid.checks", "25") // each reads a node from the disk; the command line may ask for more
	code := m.Run()
	testpki.Clean()
	os.Exit(code)
}

// plan plans targets on the nodes of a cluster, which stands below its folder.
func plan(t *testing.T, c *testpki.Cluster, change func(*renew.Options), targets ...string) ([]*renew.Item, error) {
	t.Helper()
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var nodes []trust.Node
	keys := layout.Keyring{}
	for _, e := range entries {
		if !layout.IsRoot(c.Path(e.Name(), "/")) {
			continue
		}
		n, ring, err := layout.Read(c.Path(e.Name(), "/"), layout.Options{Name: e.Name()})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
		maps.Copy(keys, ring)
	}
	g := catalog.Wire(nodes)
	o := renew.Options{At: testpki.At, Keys: func(p trust.Place) crypto.Signer { return keys[p] }}
	if change != nil {
		change(&o)
	}
	return renew.Plan(g, check.Run(g, check.Options{At: o.At}).Findings, targets, o)
}

// one plans and makes one target.
func one(t *testing.T, c *testpki.Cluster, target string) (*renew.Item, renew.Made) {
	t.Helper()
	items, err := plan(t, c, nil, target)
	if err != nil {
		t.Fatal(err)
	}
	if len(items) != 1 {
		t.Fatalf("%s: want one item, got %d", target, len(items))
	}
	made, err := items[0].Make(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return items[0], made
}

// pick returns some of a list.
func pick[T any](r *rand.Rand, all ...T) []T {
	return slices.DeleteFunc(all, func(T) bool { return r.IntN(2) == 0 })
}

// decorated gives a certificate whatever somebody may have put into it.
func decorated(r *rand.Rand) testpki.Change {
	return func(c *x509.Certificate) {
		c.DNSNames = append(slices.Clone(c.DNSNames), pick(r, "lb.example.test", "*.apps.example.test", "api.EXAMPLE.test")...)
		c.IPAddresses = append(slices.Clone(c.IPAddresses), pick(r, net.ParseIP("192.0.2.7").To4(), net.ParseIP("2001:db8::7"))...)
		c.EmailAddresses = pick(r, "ops@example.test", "night@example.test")
		for _, u := range pick(r, "spiffe://example.test/ns/a/sa/b", "https://example.test/x") {
			parsed, _ := url.Parse(u)
			c.URIs = append(c.URIs, parsed)
		}
		s := c.Subject
		s.OrganizationalUnit, s.Country, s.Province = pick(r, "ops", "night shift"), pick(r, "DE"), pick(r, "Bayern", "Tirol")
		s.Locality, s.StreetAddress, s.PostalCode = pick(r, "Füssen"), pick(r, "Hof 1"), pick(r, "87629")
		s.ExtraNames = pick(r, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, Value: "example"})
		c.Subject = s
		c.NotAfter = c.NotBefore.Add(time.Duration(1+r.IntN(400)) * 24 * time.Hour)
	}
}

func TestEverythingOfAGoodCertificateIsKept(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 8))
			c := testpki.New(t, testpki.Single)
			for leaf, authority := range map[string]string{"apiserver": "ca", "apiserver-kubelet-client": "ca", "etcd/peer": "etcd/ca"} {
				c.Reissue("cp1", leaf, authority, decorated(r))
			}
			c.ReissueConf("cp1", "scheduler.conf", "ca", decorated(r))
			for _, target := range []string{"apiserver", "apiserver-kubelet-client", "etcd-peer", "scheduler.conf"} {
				item, made := one(t, c, target)
				was, is := item.Old, made.Chain[0]
				if !bytes.Equal(was.RawSubject, is.RawSubject) {
					t.Errorf("%s: the subject was %s and is %s", target, was.Subject, is.Subject)
				}
				if a, b := fmt.Sprint(was.DNSNames, was.IPAddresses, was.URIs, was.EmailAddresses), fmt.Sprint(is.DNSNames, is.IPAddresses, is.URIs, is.EmailAddresses); a != b {
					t.Errorf("%s: the names were %s and are %s", target, a, b)
				}
				if !slices.Equal(was.ExtKeyUsage, is.ExtKeyUsage) || was.KeyUsage != is.KeyUsage || is.IsCA {
					t.Errorf("%s: the usages were %v and are %v", target, was.ExtKeyUsage, is.ExtKeyUsage)
				}
				if a, b := was.NotAfter.Sub(was.NotBefore), is.NotAfter.Sub(is.NotBefore); a != b {
					t.Errorf("%s: it was valid for %v and is for %v", target, a, b)
				}
				if trust.SameKey(was.PublicKey, is.PublicKey) || was.SerialNumber.Cmp(is.SerialNumber) == 0 {
					t.Errorf("%s: key or serial are the old ones", target)
				}
			}
		})
	}
}

func TestWhatIsAtFaultIsNotKept(t *testing.T) {
	rows := []struct {
		name, target string
		brk          func(c *testpki.Cluster)
		want         func(i *renew.Item, c *x509.Certificate) bool
	}{
		{"a wrong name and groups go, the unit stays", "scheduler.conf", func(c *testpki.Cluster) {
			c.ReissueConf("cp1", "scheduler.conf", "ca", func(x *x509.Certificate) {
				x.Subject = pkix.Name{CommonName: "somebody", Organization: []string{"system:masters"}, OrganizationalUnit: []string{"ops"}}
			})
		}, func(_ *renew.Item, c *x509.Certificate) bool {
			return c.Subject.String() == "CN=system:kube-scheduler,OU=ops"
		}},
		{"masters go out of a component's groups", "controller-manager.conf", func(c *testpki.Cluster) {
			c.ReissueConf("cp1", "controller-manager.conf", "ca", func(x *x509.Certificate) { x.Subject.Organization = []string{"system:masters"} })
		}, func(_ *renew.Item, c *x509.Certificate) bool {
			return c.Subject.String() == "CN=system:kube-controller-manager"
		}},
		{"masters go out of a server's groups, which nobody looks at", "apiserver", func(c *testpki.Cluster) {
			c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) {
				x.Subject = pkix.Name{CommonName: "api", Organization: []string{"ops", "system:masters"}}
				x.ExtKeyUsage = append(x.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
			})
		}, func(_ *renew.Item, c *x509.Certificate) bool { return c.Subject.String() == "CN=api,O=ops" }},
		{"a server's other groups stay", "apiserver", func(c *testpki.Cluster) {
			c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) { x.Subject.Organization = []string{"ops"} })
		}, func(_ *renew.Item, c *x509.Certificate) bool { return c.Subject.String() == "CN=kube-apiserver,O=ops" }},
		{"masters stay where older kubeadm put them", "admin.conf", func(c *testpki.Cluster) {
			c.ReissueConf("cp1", "admin.conf", "ca", func(x *x509.Certificate) { x.Subject.Organization = []string{"system:masters"} })
		}, func(_ *renew.Item, c *x509.Certificate) bool {
			return slices.Contains(c.Subject.Organization, "system:masters")
		}},
		{"the front proxy gets a name that is let in", "front-proxy-client", func(c *testpki.Cluster) {
			c.Edit("cp1", "manifests/kube-apiserver.yaml", "--requestheader-allowed-names=front-proxy-client", "--requestheader-allowed-names=aggregator")
		}, func(_ *renew.Item, c *x509.Certificate) bool { return c.Subject.CommonName == "aggregator" }},
		{"the right to sign and any usage go", "apiserver", func(c *testpki.Cluster) {
			c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) {
				x.IsCA, x.KeyUsage, x.ExtKeyUsage = true, x.KeyUsage|x509.KeyUsageCertSign, []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
			})
		}, func(_ *renew.Item, c *x509.Certificate) bool {
			return !c.IsCA && c.KeyUsage&x509.KeyUsageCertSign == 0 && slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
		}},
		{"a name that is dialled comes in", "apiserver", func(c *testpki.Cluster) {
			c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) { x.DNSNames, x.IPAddresses = []string{"lb"}, nil })
		}, func(_ *renew.Item, c *x509.Certificate) bool {
			return c.VerifyHostname("10.0.0.11") == nil && c.VerifyHostname("10.96.0.1") == nil && c.VerifyHostname("lb") == nil && c.VerifyHostname("kubernetes.default.svc.cluster.local") == nil
		}},
		{"a name that somebody mistyped does not", "apiserver", func(c *testpki.Cluster) { c.Edit("cp1", "scheduler.conf", "10.0.0.11:6443", "10.0.0.99:6443") },
			func(_ *renew.Item, c *x509.Certificate) bool { return c.VerifyHostname("10.0.0.99") != nil }},
		{"a missing certificate has the usual names", "etcd-server", func(c *testpki.Cluster) { c.Remove("cp1", "pki/etcd/server.crt") },
			func(_ *renew.Item, c *x509.Certificate) bool {
				return c.Subject.CommonName == "cp1" && c.VerifyHostname("localhost") == nil && c.VerifyHostname("::1") == nil && c.VerifyHostname("10.0.0.11") == nil && len(c.ExtKeyUsage) == 2
			}},
		{"names of a certificate that is nobody's here are kept, and it is said", "apiserver", func(c *testpki.Cluster) {
			c.Recreate("cp1", "etcd/ca")
			c.Reissue("cp1", "apiserver", "etcd/ca", func(x *x509.Certificate) { x.DNSNames = append(x.DNSNames, "lb") })
		}, func(i *renew.Item, c *x509.Certificate) bool {
			return c.VerifyHostname("lb") == nil && strings.Contains(strings.Join(i.Warnings, " "), "its names are kept, see that they are right")
		}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			c := testpki.New(t, testpki.Single)
			r.brk(c)
			item, made := one(t, c, r.target)
			if !r.want(item, made.Chain[0]) {
				t.Errorf("%s: %s %v %v %v, warnings %q", r.target, made.Chain[0].Subject, made.Chain[0].DNSNames, made.Chain[0].IPAddresses, made.Chain[0].ExtKeyUsage, item.Warnings)
			}
		})
	}
}

func TestALifeEndsWithTheAuthoritys(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	end := testpki.Made.AddDate(0, 1, 0)
	c.Resign("cp1", "ca", func(x *x509.Certificate) { x.NotAfter = end })
	item, made := one(t, c, "apiserver")
	if !made.Chain[0].NotAfter.Equal(end) || len(item.Warnings) == 0 {
		t.Errorf("it ends at %s, warnings %q", made.Chain[0].NotAfter, item.Warnings)
	}
}

// TestAKubeconfigTrustsWhoIsInUse: the authority's own file, and an older one as
// long as an apiserver shows a certificate of it.
func TestAKubeconfigTrustsWhoIsInUse(t *testing.T) {
	for name, still := range map[string]bool{"an apiserver is of the old authority": true, "no apiserver is": false} {
		t.Run(name, func(t *testing.T) {
			c := testpki.New(t, testpki.Single)
			old := c.Read("cp1", "pki/ca.crt")
			c.Recreate("cp1", "ca")
			if !still {
				c.Reissue("cp1", "apiserver", "ca", nil)
			}
			c.SetConfCA("cp1", "scheduler.conf", append(old, c.Read("cp1", "pki/ca.crt")...))
			item, _ := one(t, c, "scheduler.conf")
			want := c.Read("cp1", "pki/ca.crt")
			if still {
				want = append(want, old...)
			}
			if got := trust.EncodeCertificates(item.Anchors...); !bytes.Equal(got, want) {
				t.Errorf("%d anchors, not those that are in use", len(item.Anchors))
			}
		})
	}
}

func TestAnAuthorityStaysWhoItIs(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	c.Resign("cp1", "front-proxy-ca", func(x *x509.Certificate) {
		x.SubjectKeyId, x.MaxPathLenZero = []byte("as somebody else made it"), true
		x.IsCA, x.KeyUsage, x.NotAfter = true, x509.KeyUsageCertSign, testpki.Made.AddDate(0, 0, 20)
	})
	item, made := one(t, c, "front-proxy-ca")
	is := made.Chain[0]
	if !trust.SameKey(item.Old.PublicKey, is.PublicKey) || !bytes.Equal(item.Old.RawSubject, is.RawSubject) || !bytes.Equal(item.Old.SubjectKeyId, is.SubjectKeyId) || !is.MaxPathLenZero {
		t.Errorf("key, name, key id or path length changed: %v", is.Subject)
	}
	leaf, err := trust.ParseCertificates(c.Read("cp1", "pki/front-proxy-client.crt"))
	if err != nil || leaf[0].CheckSignatureFrom(is) != nil {
		t.Errorf("what it signed does not verify: %v", err)
	}
	if !slices.ContainsFunc(item.Why, func(w string) bool { return strings.HasPrefix(w, "cert-outlives-ca") || w == "asked for" }) {
		t.Errorf("why: %q", item.Why)
	}
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	rows := []struct {
		name, target, want string
		brk                func(c *testpki.Cluster)
		change             func(*renew.Options)
	}{
		{"no key", "apiserver", "is not at hand", func(c *testpki.Cluster) { c.Remove("cp1", "pki/ca.key") }, nil},
		{"an authority that has expired", "apiserver", "expired at", func(c *testpki.Cluster) {
			c.Resign("cp1", "ca", func(x *x509.Certificate) { x.NotAfter = testpki.Made.Add(time.Hour) })
		}, nil},
		{"an authority that is none", "front-proxy-client", "is not an authority", func(c *testpki.Cluster) {
			c.Resign("cp1", "front-proxy-ca", func(x *x509.Certificate) { x.IsCA = false })
		}, nil},
		{"an authority with constraints", "etcd-ca", "name constraints", func(c *testpki.Cluster) {
			c.Resign("cp1", "etcd/ca", func(x *x509.Certificate) { x.PermittedDNSDomains = []string{"example.test"} })
		}, nil},
		{"a weak key that shall be kept", "front-proxy-client", "too weak", func(c *testpki.Cluster) { c.WeakKey("cp1", "front-proxy-client", "front-proxy-ca") },
			func(o *renew.Options) { o.ReuseKey = true }},
		{"nobody of this name", "apiserver2", "no credential of this name", func(*testpki.Cluster) {}, nil},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			c := testpki.New(t, testpki.Single)
			r.brk(c)
			_, err := plan(t, c, r.change, r.target)
			var hint interface{ Hint() string }
			if err == nil || !strings.Contains(err.Error(), r.want) || !errors.As(err, &hint) || hint.Hint() == "" {
				t.Errorf("want an error of %q with a hint, got %v", r.want, err)
			}
		})
	}
}

func TestAllLeavesOutWhatIsNotAsked(t *testing.T) {
	c := testpki.New(t, testpki.HA)
	items, err := plan(t, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range items {
		if i.Kind == renew.Authority {
			t.Errorf("%s is an authority", i.ID())
		}
	}
	for _, want := range []string{"cp1/apiserver", "cp3/etcd-peer", "w1/kubelet.conf"} {
		if !slices.ContainsFunc(items, func(i *renew.Item) bool { return i.ID() == want }) {
			t.Errorf("%s is not among them", want)
		}
	}
}
