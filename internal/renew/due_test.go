package renew_test

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/config"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// due is what is due on the nodes of a cluster, by its ids, with the reasons.
func due(t *testing.T, c *testpki.Cluster, change func(*renew.Options)) (map[string]*renew.Item, []renew.Left) {
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
	items, left := renew.Due(g, check.Run(g, check.Options{At: o.At}).Findings, o)
	byID := map[string]*renew.Item{}
	for _, i := range items {
		byID[i.ID()] = i
	}
	return byID, left
}

// configured gives a plan a configuration, as the command does.
func configured(text string) func(*renew.Options) {
	return func(o *renew.Options) {
		o.Configured = func(_, name string, address netip.Addr) (*catalog.Cluster, error) {
			return config.Parse("wanted.yaml", []byte(text), config.Host{
				Name: func() (string, error) { return name, nil }, Address: func() (netip.Addr, error) { return address, nil },
			})
		}
	}
}

const kubeadmConfiguration = `apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.37.2
encryptionAlgorithm: ECDSA-P256
`

func TestWhatIsDueIsWhatIsOtherThanItShouldBe(t *testing.T) {
	shortly := func(x *x509.Certificate) {
		x.NotBefore, x.NotAfter = testpki.At.AddDate(0, 0, -360), testpki.At.AddDate(0, 0, 5)
	}
	rows := []struct {
		name   string
		brk    func(c *testpki.Cluster)
		change func(*renew.Options)
		want   map[string]string // id to how a reason begins
	}{
		{"nothing of a cluster that was just made", nil, nil, nil},
		{"nothing either by the configuration that it was made by", nil, configured(kubeadmConfiguration), nil},
		{"nothing by one that says nothing of keys and lives, whatever they are", func(c *testpki.Cluster) {
			c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) { x.NotAfter = x.NotBefore.AddDate(9, 0, 0) })
		}, configured("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.37.2\n"), nil},
		{"a long life by one that says another", func(c *testpki.Cluster) {
			c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) { x.NotAfter = x.NotBefore.AddDate(9, 0, 0) })
		}, configured(kubeadmConfiguration + "certificateValidityPeriod: 8760h0m0s\n"), map[string]string{"apiserver": "validity"}},
		{"a certificate that verify says ends soon", func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", shortly) }, nil,
			map[string]string{"apiserver": "cert-expiring"}},
		{"one with less than a third of its life left", func(c *testpki.Cluster) {
			c.Reissue("cp1", "etcd/peer", "etcd/ca", func(x *x509.Certificate) {
				x.NotBefore = testpki.At.AddDate(0, 0, -250)
				x.NotAfter = testpki.At.AddDate(0, 0, 115)
			})
		}, nil, map[string]string{"etcd-peer": "ends-soon: 115 days of 365 days left"}},
		{"but not one with more", func(c *testpki.Cluster) {
			c.Reissue("cp1", "etcd/peer", "etcd/ca", func(x *x509.Certificate) {
				x.NotBefore = testpki.At.AddDate(0, 0, -240)
				x.NotAfter = testpki.At.AddDate(0, 0, 125)
			})
		}, nil, nil},
		{"one within the days that were asked for", func(c *testpki.Cluster) {
			c.Reissue("cp1", "etcd/peer", "etcd/ca", func(x *x509.Certificate) { x.NotAfter = testpki.At.AddDate(0, 0, 300) })
		}, func(o *renew.Options) { o.Within = 301 * 24 * time.Hour }, map[string]string{"etcd-peer": "ends-soon"}},
		{"a weak key", func(c *testpki.Cluster) { c.WeakKey("cp1", "front-proxy-client", "front-proxy-ca") }, nil, map[string]string{"front-proxy-client": "key-weak"}},
		{"a wrong name", func(c *testpki.Cluster) {
			c.ReissueConf("cp1", "scheduler.conf", "ca", func(x *x509.Certificate) { x.Subject = pkix.Name{CommonName: "x"} })
		}, nil, map[string]string{"scheduler.conf": "identity-wrong"}},
		{"a name at which it is reached", func(c *testpki.Cluster) {
			c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) { x.IPAddresses = []net.IP{net.ParseIP("10.96.0.1")} })
		}, nil, map[string]string{"apiserver": "san-missing"}},
		{"what an authority of before signed", func(c *testpki.Cluster) { c.Recreate("cp1", "front-proxy-ca") }, nil, map[string]string{"front-proxy-client": "authority-"}},
		{"a kubeconfig that trusts an authority of before", func(c *testpki.Cluster) {
			c.SetConfCA("cp1", "scheduler.conf", c.Read("cp1", "pki/etcd/ca.crt"))
		}, nil, map[string]string{"scheduler.conf": "bundle-stale"}},
		{"a certificate that is gone", func(c *testpki.Cluster) { c.Remove("cp1", "pki/etcd/server.crt") }, nil, map[string]string{"etcd-server": "file-missing"}},
		{"a new name of the configuration, kubeadm's that names no node", nil, configured(kubeadmConfiguration + "apiServer:\n  certSANs: [api.example.test, 192.0.2.9]\n"),
			map[string]string{"apiserver": "san-missing: it lacks api.example.test, 192.0.2.9"}},
		{"a new name of etcd", nil, configured(kubeadmConfiguration + "etcd:\n  local:\n    serverCertSANs: [etcd.example.test]\n"), map[string]string{"etcd-server": "san-missing: it lacks etcd.example.test"}},
		{"another domain and subnet of services", nil, configured(kubeadmConfiguration + "networking:\n  dnsDomain: k8s.example.test\n  serviceSubnet: 10.43.0.0/16\n"),
			map[string]string{"apiserver": "san-missing: it lacks kubernetes.default.svc.k8s.example.test, 10.43.0.1"}},
		{"a shorter life", nil, configured(kubeadmConfiguration + "certificateValidityPeriod: 2160h0m0s\n"), map[string]string{
			"apiserver": "validity: it is valid for 365 days, configured are 90 days", "apiserver-kubelet-client": "validity", "apiserver-etcd-client": "validity", "front-proxy-client": "validity",
			"etcd-server": "validity", "etcd-peer": "validity", "etcd-healthcheck-client": "validity",
			"admin.conf": "validity", "super-admin.conf": "validity", "controller-manager.conf": "validity", "scheduler.conf": "validity", "kubelet.conf": "validity"}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			c := testpki.New(t, testpki.Single)
			if r.brk != nil {
				r.brk(c)
			}
			items, left := due(t, c, func(o *renew.Options) {
				if r.change != nil {
					r.change(o)
				}
			})
			if len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			want := map[string]string{}
			for id, why := range r.want {
				want["cp1/"+id] = why
			}
			for id, i := range items {
				if why, ok := want[id]; !ok || !slices.ContainsFunc(i.Why, func(w string) bool { return strings.HasPrefix(w, why) }) {
					t.Errorf("%s is due: %q, want %q", id, i.Why, why)
				}
			}
			for id := range want {
				if items[id] == nil {
					t.Errorf("%s is not due", id)
				}
			}
		})
	}
}

// TestNothingIsDueOfAnyClusterThatWasJustMade, whatever its authorities.
func TestNothingIsDueOfAnyClusterThatWasJustMade(t *testing.T) {
	for _, k := range []testpki.Kind{testpki.Bare, testpki.HA, testpki.Intermediate, testpki.KubeletCA, testpki.Shared, testpki.ExternalEtcd} {
		t.Run(string(k), func(t *testing.T) {
			items, left := due(t, testpki.New(t, k), nil)
			for id, i := range items {
				t.Errorf("%s is due: %q", id, i.Why)
			}
			if len(left) > 0 {
				t.Errorf("left: %+v", left)
			}
		})
	}
	for _, form := range []string{testpki.HardwayOpenssl, testpki.HardwayCfssl} {
		t.Run(form, func(t *testing.T) {
			items, left := due(t, testpki.NewHardway(t, form), nil)
			for id, i := range items {
				t.Errorf("%s is due: %q", id, i.Why)
			}
			if len(left) > 0 {
				t.Errorf("left: %+v", left)
			}
		})
	}
}

// TestTheConfigurationsWishesAreMet: what was made anew is as it should be.
func TestTheConfigurationsWishesAreMet(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) { x.DNSNames = append(x.DNSNames, "of-old.example.test") })
	for name, row := range map[string]struct {
		prune bool
		want  func(*x509.Certificate) bool
	}{
		"the names of the old one stay":   {false, func(x *x509.Certificate) bool { return x.VerifyHostname("of-old.example.test") == nil }},
		"they go where that is asked for": {true, func(x *x509.Certificate) bool { return x.VerifyHostname("of-old.example.test") != nil }},
		"the new name is there":           {false, func(x *x509.Certificate) bool { return x.VerifyHostname("api.example.test") == nil }},
		"so it is where others go":        {true, func(x *x509.Certificate) bool { return x.VerifyHostname("api.example.test") == nil }},
		"what is dialled stays": {true, func(x *x509.Certificate) bool {
			return x.VerifyHostname("10.0.0.11") == nil && x.VerifyHostname("10.96.0.1") == nil
		}},
		"the key is of the kind that is asked for": {false, func(x *x509.Certificate) bool { return issue.AlgorithmOf(x.PublicKey) == issue.ECDSAP384 }},
	} {
		t.Run(name, func(t *testing.T) {
			items, left := due(t, c, func(o *renew.Options) {
				configured(strings.Replace(kubeadmConfiguration, "P256", "P384", 1) + "apiServer:\n  certSANs: [api.example.test]\n")(o)
				o.PruneNames = row.prune
			})
			i := items["cp1/apiserver"]
			if i == nil || len(left) > 0 {
				t.Fatalf("due are %v, left %v", slices.Sorted(maps.Keys(items)), left)
			}
			made, err := i.Make(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !row.want(made.Chain[0]) {
				t.Errorf("names %v %v", made.Chain[0].DNSNames, made.Chain[0].IPAddresses)
			}
		})
	}
}

func TestAConfigurationOfManyNodesIsReadForEach(t *testing.T) {
	c := testpki.New(t, testpki.HA)
	const head = "apiVersion: kubepki.dev/v1alpha1\nkind: Cluster\nencryptionAlgorithm: ECDSA-P256\ncontrolPlaneEndpoint: api.example.test:6443\ncontrolPlanes:\n"
	all := head + "- {name: cp1, address: 10.0.0.11}\n- {name: cp2, address: 10.0.0.12, certSANs: [second.example.test]}\n- {name: cp3, address: 10.0.0.13}\nworkers:\n- {name: w1, address: 10.0.0.21}\n"
	items, left := due(t, c, configured(all))
	if len(items) != 1 || items["cp2/apiserver"] == nil || len(left) > 0 {
		t.Errorf("due are %v, left %v", slices.Sorted(maps.Keys(items)), left)
	}
	// One that does not know a node says nothing of it, and that is said.
	items, left = due(t, c, configured(head+"- {name: cp1, address: 10.0.0.11}\n- {name: cp2, address: 10.0.0.12}\n"))
	if len(items) > 0 || len(left) != 1 || left[0].ID != "cp3" || !strings.Contains(left[0].Err.Error(), "names no such node") {
		t.Errorf("due are %v, left %+v", slices.Sorted(maps.Keys(items)), left)
	}
	// Nor does one that cannot be read.
	_, left = due(t, c, configured(head+"- {name: cp1, addr: 10.0.0.11}\n"))
	if len(left) != 4 {
		t.Errorf("left: %+v", left)
	}
}

func TestWhatIsDueAndCannotBeIsSaid(t *testing.T) {
	shortly := func(x *x509.Certificate) {
		x.NotBefore, x.NotAfter = testpki.At.AddDate(0, 0, -360), testpki.At.AddDate(0, 0, 5)
	}
	rows := []struct {
		name, id, want string
		authority      bool
		brk            func(c *testpki.Cluster)
	}{
		{"the authority's key is elsewhere", "cp1/apiserver", "is not at hand", false, func(c *testpki.Cluster) {
			c.Reissue("cp1", "apiserver", "ca", shortly)
			c.Remove("cp1", "pki/ca.key")
		}},
		{"the authority ends as soon", "cp1/etcd-peer", "would end no later", false, func(c *testpki.Cluster) {
			c.Resign("cp1", "etcd/ca", func(x *x509.Certificate) { x.NotAfter = testpki.At.AddDate(0, 0, 60) })
			c.Reissue("cp1", "etcd/peer", "etcd/ca", func(x *x509.Certificate) {
				x.NotAfter = testpki.At.AddDate(0, 0, 60)
				x.NotBefore = testpki.At.AddDate(0, 0, -300)
			})
		}},
		{"a name of the configuration, and the authority's key is elsewhere", "cp1/apiserver", "is not at hand", false, func(c *testpki.Cluster) {
			c.Remove("cp1", "pki/ca.key")
		}},
		{"an authority itself", "cp1/etcd-ca", "only where it is named", true, func(c *testpki.Cluster) {
			c.Resign("cp1", "etcd/ca", func(x *x509.Certificate) {
				x.NotBefore, x.NotAfter = testpki.At.AddDate(-9, 0, 0), testpki.At.AddDate(0, 0, 20)
			})
		}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			c := testpki.New(t, testpki.Single)
			r.brk(c)
			var change func(*renew.Options)
			if strings.Contains(r.name, "configuration") {
				change = configured(kubeadmConfiguration + "apiServer:\n  certSANs: [api.example.test]\n")
			}
			items, left := due(t, c, change)
			i := slices.IndexFunc(left, func(l renew.Left) bool { return l.ID == r.id })
			if i < 0 || left[i].Authority != r.authority || !strings.Contains(left[i].Err.Error(), r.want) || !renew.IsRefusal(left[i].Err) || len(left[i].Why) == 0 {
				t.Errorf("left: %+v", left)
			}
			if items[r.id] != nil {
				t.Errorf("%s is planned", r.id)
			}
		})
	}
}
