package remote_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/remote"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

type trustPlace = trust.Place

// factsOf are the honest facts of a node, to be stolen from.
func factsOf(t *testing.T, c *testpki.Cluster, name string) *remote.Facts {
	t.Helper()
	n, err := apply.ReadNode(name, filepath.Join(c.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	f, err := remote.FactsOf(n.Nodes[0], nil, "")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// material is what facts tell of a path.
func material(t *testing.T, f *remote.Facts, path string) *remote.Material {
	t.Helper()
	for i := range f.Materials {
		if f.Materials[i].Place.Path == path && (f.Materials[i].Place.Field == "" || strings.Contains(f.Materials[i].Place.Field, "client-certificate")) && len(f.Materials[i].Certificates) > 0 {
			return &f.Materials[i]
		}
	}
	t.Fatalf("no material of %s", path)
	return nil
}

// forged is a certificate that nobody of the cluster signed.
func forged(t *testing.T, subject pkix.Name, life time.Duration, names ...string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: subject, DNSNames: names, NotBefore: testpki.At.Add(-time.Hour), NotAfter: testpki.At.Add(life), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

const kubeletConf = "/etc/kubernetes/kubelet.conf"

// TestWorkerThatLies gets nothing but what its name in the inventory stands for, and has
// no word in what others get.
func TestWorkerThatLies(t *testing.T) {
	// Nothing is written here, so that all rows share their clusters.
	clusters := map[testpki.Kind]*testpki.Cluster{testpki.HA: testpki.New(t, testpki.HA), testpki.KubeletCA: testpki.New(t, testpki.KubeletCA)}
	steal := func(t *testing.T, c *testpki.Cluster, f *remote.Facts, path string) {
		material(t, f, kubeletConf).Certificates = material(t, factsOf(t, c, "cp1"), path).Certificates
	}
	for name, row := range map[string]struct {
		kind testpki.Kind
		ids  []string
		lie  func(t *testing.T, c *testpki.Cluster, f *remote.Facts)
		says string // "": the honest twin
	}{
		"an honest worker gets its kubelet's certificate": {testpki.HA, []string{"w1/kubelet.conf"}, nil, ""},
		"it shows the certificate of another node as its own": {testpki.HA, []string{"w1/kubelet.conf"}, func(t *testing.T, c *testpki.Cluster, f *remote.Facts) {
			for i := range f.Told.Components { // nobody on it wants a node's name then
				f.Told.Components[i].Name = "admin"
			}
			steal(t, c, f, kubeletConf)
		}, `it would be node "cp1"`},
		"it says that it is called as a control plane": {testpki.HA, []string{"w1/kubelet.conf"}, func(t *testing.T, c *testpki.Cluster, f *remote.Facts) {
			f.Told.NodeName = "cp1"
			material(t, f, kubeletConf).Certificates = nil
		}, `it would be node "cp1"`},
		"it shows the administrator's certificate": {testpki.HA, []string{"w1/kubelet.conf"}, func(t *testing.T, c *testpki.Cluster, f *remote.Facts) {
			for i := range f.Told.Components {
				f.Told.Components[i].Name = "admin"
			}
			steal(t, c, f, "/etc/kubernetes/super-admin.conf")
		}, "system:masters is for nobody but control planes"},
		"it shows the scheduler's certificate": {testpki.HA, []string{"w1/kubelet.conf"}, func(t *testing.T, c *testpki.Cluster, f *remote.Facts) {
			for i := range f.Told.Components {
				f.Told.Components[i].Name = "admin"
			}
			steal(t, c, f, "/etc/kubernetes/scheduler.conf")
		}, "has not proved to hold a certificate of that name"},
		"its name stands beside another one in a subject": {testpki.HA, []string{"w1/kubelet.conf"}, func(t *testing.T, _ *testpki.Cluster, f *remote.Facts) {
			s := pkix.Name{Organization: []string{"system:nodes"}, CommonName: "system:node:w1", ExtraNames: nil}
			s.ExtraNames = []pkix.AttributeTypeAndValue{{Type: []int{2, 5, 4, 10}, Value: "system:nodes"}, {Type: []int{2, 5, 4, 3}, Value: "system:kube-controller-manager"}, {Type: []int{2, 5, 4, 3}, Value: "system:node:w1"}}
			material(t, f, kubeletConf).Certificates = [][]byte{forged(t, s, time.Hour)}
		}, "nothing but its own word"},
		"it is a member of one more group": {testpki.HA, []string{"w1/kubelet.conf"}, func(t *testing.T, _ *testpki.Cluster, f *remote.Facts) {
			material(t, f, kubeletConf).Certificates = [][]byte{forged(t, pkix.Name{CommonName: "system:node:w1", Organization: []string{"system:nodes", "cluster-admins"}}, time.Hour)}
		}, "nothing but its own word"},
		"it puts names of the API server into its old certificate": {testpki.HA, []string{"w1/kubelet.conf"}, func(t *testing.T, _ *testpki.Cluster, f *remote.Facts) {
			material(t, f, kubeletConf).Certificates = [][]byte{forged(t, pkix.Name{CommonName: "system:node:w1", Organization: []string{"system:nodes"}}, time.Hour, "kubernetes.default.svc")}
		}, `that "kubernetes.default.svc" is its name`},
		"it pretends to be a control plane, with all that cp1 tells": {testpki.HA, []string{"w1/apiserver"}, func(t *testing.T, c *testpki.Cluster, f *remote.Facts) {
			become(t, c, f, "cp1")
		}, "has not proved to hold"},
		"it pretends to be an etcd member": {testpki.HA, []string{"w1/etcd-peer"}, func(t *testing.T, c *testpki.Cluster, f *remote.Facts) {
			become(t, c, f, "cp1")
		}, "has not proved to hold"},
		"it asks for a front proxy": {testpki.HA, []string{"w1/front-proxy-client"}, func(t *testing.T, c *testpki.Cluster, f *remote.Facts) {
			become(t, c, f, "cp1")
		}, "has not proved to hold"},
		"it has its kubelet's certificate signed by the front proxies' authority": {testpki.HA, []string{"w1/kubelet.conf"}, func(t *testing.T, c *testpki.Cluster, f *remote.Facts) {
			become(t, c, f, "cp1")
			f.Told.NodeName = "w1"
			for i := range f.Told.Authorities {
				if f.Told.Authorities[i].Name == "front-proxy-ca" {
					f.Told.Authorities[i].Signs = []string{"kubelet.conf"}
				}
			}
			material(t, f, kubeletConf).Certificates = factsMaterial(t, c, "w1", kubeletConf)
		}, "has not proved to hold"},
		"an honest worker's kubelet serves":               {testpki.KubeletCA, []string{"w1/kubelet-server"}, nil, ""},
		"its kubelet serves under a control plane's name": {testpki.KubeletCA, []string{"w1/kubelet-server"}, servesAs("cp1"), `that "cp1" is its name`},
		"it tells of another node":                        {testpki.HA, nil, func(_ *testing.T, _ *testpki.Cluster, f *remote.Facts) { f.Materials[0].Place.Node = "cp1" }, `it tells of a node "cp1"`},
		"a component of it is on another node":            {testpki.HA, nil, func(_ *testing.T, _ *testpki.Cluster, f *remote.Facts) { f.Told.Components[0].Node = "cp1" }, `it tells of a node "cp1"`},
		"it calls itself as another node":                 {testpki.HA, nil, func(_ *testing.T, _ *testpki.Cluster, f *remote.Facts) { f.Told.Name = "cp1" }, `it tells of a node "cp1"`},
		"it tells twice of one file": {testpki.HA, nil, func(_ *testing.T, _ *testpki.Cluster, f *remote.Facts) {
			f.Materials = append(f.Materials, f.Materials[0])
		}, "it tells twice of"},
		"it tells of more than a node has": {testpki.HA, nil, func(_ *testing.T, _ *testpki.Cluster, f *remote.Facts) {
			f.Materials = make([]remote.Material, remote.MaxMaterials+1)
		}, "more than 10000 materials"},
		"it sends the proofs of a time before":                  {testpki.HA, nil, func(t *testing.T, c *testpki.Cluster, f *remote.Facts) { f.Proofs = oldProofs(t, c) }, "answers another question"},
		"it is of a layout that nobody knows":                   {testpki.HA, nil, func(_ *testing.T, _ *testpki.Cluster, f *remote.Facts) { f.Told.Layout = "own" }, "is no layout that is known here"},
		"it is of another distribution":                         {testpki.HA, nil, func(_ *testing.T, _ *testpki.Cluster, f *remote.Facts) { f.Told.Layout = "k3s" }, "they are not of one cluster"},
		"it brings an authority of its own, and proves its key": {testpki.HA, nil, ownAuthority, "have different authorities"},
	} {
		t.Run(name, func(t *testing.T) {
			c := clusters[row.kind]
			alter := func(a *remote.Answer) {
				if a.Facts != nil && row.lie != nil {
					row.lie(t, c, a.Facts)
				}
			}
			_, err := plan(t, remote.Options{IDs: row.ids}, far(t, c, "cp1", nil), far(t, c, "w1", alter))
			switch {
			case row.says == "" && err != nil:
				t.Error(err)
			case row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)):
				t.Errorf("want %q, got %v", row.says, err)
			}
		})
	}
}

func factsMaterial(t *testing.T, c *testpki.Cluster, node, path string) [][]byte {
	t.Helper()
	return material(t, factsOf(t, c, node), path).Certificates
}

// become makes facts those of another node, under their own name.
func become(t *testing.T, c *testpki.Cluster, f *remote.Facts, node string) {
	t.Helper()
	name := f.Told.Name
	stolen := factsOf(t, c, node)
	text := strings.ReplaceAll(mustJSON(t, stolen), `"Node":"`+node+`"`, `"Node":"`+name+`"`)
	text = strings.ReplaceAll(text, `"Name":"`+node+`"`, `"Name":"`+name+`"`)
	proofs := f.Proofs
	*f = remote.Facts{}
	mustParse(t, text, f)
	f.Proofs = proofs
}

func servesAs(name string) func(*testing.T, *testpki.Cluster, *remote.Facts) {
	return func(t *testing.T, _ *testpki.Cluster, f *remote.Facts) {
		for i := range f.Materials {
			if strings.HasSuffix(f.Materials[i].Place.Path, "kubelet.crt") {
				f.Materials[i].Certificates = [][]byte{forged(t, pkix.Name{CommonName: "system:node:w1", Organization: []string{"system:nodes"}}, time.Hour, name)}
			}
		}
	}
}

func oldProofs(t *testing.T, c *testpki.Cluster) []remote.Proof {
	t.Helper()
	n, err := apply.ReadNode("w1", filepath.Join(c.Dir, "w1"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := remote.FactsOf(n.Nodes[0], n.Keys, "yesterday")
	if err != nil {
		t.Fatal(err)
	}
	return f.Proofs
}

// ownAuthority shows an authority that the node made, as the cluster's.
func ownAuthority(t *testing.T, _ *testpki.Cluster, f *remote.Facts) {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "kubernetes"}, Authority: true, NotBefore: testpki.Made, NotAfter: testpki.Made.AddDate(10, 0, 0)}, key)
	if err != nil {
		t.Fatal(err)
	}
	material(t, f, "/etc/kubernetes/pki/ca.crt").Certificates = [][]byte{ca.Raw}
}

// TestLiesOfAWorkerDoNotReachOthers: what control planes get is what they would get
// without it.
func TestLiesOfAWorkerDoNotReachOthers(t *testing.T) {
	c := testpki.New(t, testpki.HA)
	names := func(nodes ...*remote.FarNode) string {
		f, err := plan(t, remote.Options{IDs: []string{"cp1/apiserver", "cp1/etcd-server"}}, nodes...)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, i := range f.Far[0].Items {
			all = append(all, strings.Join(i.DNSNames, " "), i.NotAfter.String(), i.Subject.String())
			for _, a := range i.Addresses {
				all = append(all, a.String())
			}
		}
		return strings.Join(all, "\n")
	}
	want := names(far(t, c, "cp1", nil))
	got := names(far(t, c, "cp1", nil), far(t, c, "w1", func(a *remote.Answer) {
		if a.Facts == nil {
			return
		}
		become(t, c, a.Facts, "cp2")
		for i := range a.Facts.Told.Kubeconfigs {
			a.Facts.Told.Kubeconfigs[i].Server = "https://evil.example:6443"
		}
		for i := range a.Facts.Told.Components {
			a.Facts.Told.Components[i].Flags["advertise-address"] = []string{"203.0.113.9"}
			a.Facts.Told.Components[i].Flags["advertise-client-urls"] = []string{"https://evil.example:2379"}
		}
	}))
	if got != want {
		t.Errorf("with the worker that lies:\n%s\nwithout:\n%s", got, want)
	}
}

// TestOldCertificatesGiveNoLongLife where the authority did not give it.
func TestOldCertificatesGiveNoLongLife(t *testing.T) {
	c := testpki.New(t, testpki.HA)
	f, err := plan(t, remote.Options{IDs: []string{"w1/kubelet.conf"}}, far(t, c, "cp1", nil), far(t, c, "w1", func(a *remote.Answer) {
		if a.Facts != nil {
			material(t, a.Facts, kubeletConf).Certificates = [][]byte{forged(t, pkix.Name{CommonName: "system:node:w1", Organization: []string{"system:nodes"}}, 90*365*24*time.Hour)}
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if i := f.Far[1].Items[0]; i.NotAfter.Sub(i.NotBefore) > 366*24*time.Hour {
		t.Errorf("it lives until %s", i.NotAfter)
	}
}

// TestRequestsThatLie: of a request the key alone counts, and that must be the node's.
func TestRequestsThatLie(t *testing.T) {
	for name, row := range map[string]struct {
		lie  func(t *testing.T, c *testpki.Cluster, a *remote.Answer)
		says string
	}{
		"a request that asks for more gets what was planned": {func(t *testing.T, _ *testpki.Cluster, a *remote.Answer) {
			// Of the node's own making, so that its key stays there: the write fails at the node.
			a.Requests = [][]byte{requestBy(t, newKey(t, issue.ECDSAP256), &x509.CertificateRequest{Subject: pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}, DNSNames: []string{"kubernetes"}})}
		}, "the certificate is not of the key that was made for it"},
		"a request that is not signed by its key": {func(t *testing.T, c *testpki.Cluster, a *remote.Answer) {
			der := slices.Clone(a.Requests[0])
			der[len(der)-1] ^= 1
			a.Requests = [][]byte{der}
		}, "the request:"},
		"a request by the authority's key": {func(t *testing.T, c *testpki.Cluster, a *remote.Answer) {
			a.Requests = [][]byte{requestBy(t, c.Authority("cp1", "ca").Key, &x509.CertificateRequest{})}
		}, "its key is that of an authority"},
		"a request by a weak key": {func(t *testing.T, c *testpki.Cluster, a *remote.Answer) {
			key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			a.Requests = [][]byte{requestBy(t, key, &x509.CertificateRequest{})}
		}, "too weak"},
		"a key of another kind than was asked for": {func(t *testing.T, c *testpki.Cluster, a *remote.Answer) {
			a.Requests = [][]byte{requestBy(t, newKey(t, issue.Ed25519), &x509.CertificateRequest{})}
		}, "the key is of Ed25519, and ECDSA-P256 was to be made"},
		"two requests for one key": {func(t *testing.T, c *testpki.Cluster, a *remote.Answer) {
			a.Requests = append(a.Requests, a.Requests[0])
		}, "2 requests for 1 keys"},
		"junk": {func(t *testing.T, c *testpki.Cluster, a *remote.Answer) { a.Requests = [][]byte{{1, 2, 3}} }, "the request:"},
	} {
		t.Run(name, func(t *testing.T) {
			c := testpki.New(t, testpki.HA)
			f, err := plan(t, remote.Options{IDs: []string{"w1/kubelet.conf"}}, far(t, c, "cp1", nil), far(t, c, "w1", func(a *remote.Answer) {
				if a.Requests != nil {
					row.lie(t, c, a)
				}
			}))
			if err != nil {
				t.Fatal(err)
			}
			before := c.Read("w1", kubeletConf)
			o, err := f.Renew(t.Context(), f.Far[1])
			if err == nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("want %q, got %v", row.says, err)
			}
			if o.State != remote.Same || string(before) != string(c.Read("w1", kubeletConf)) {
				t.Errorf("the state is %s", o.State)
			}
			for _, leaf := range o.Leaves {
				if leaf.Subject.CommonName != "system:node:w1" || len(leaf.DNSNames) > 0 || slices.Contains(leaf.Subject.Organization, "system:masters") {
					t.Errorf("it got %s", leaf.Subject)
				}
			}
		})
	}
}

func newKey(t *testing.T, a issue.Algorithm) crypto.Signer {
	t.Helper()
	key, err := issue.GenerateKey(a)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func requestBy(t *testing.T, key crypto.Signer, r *x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestSignersThatLie: what a node with the authority's key signs is compared with what
// was asked for.
func TestSignersThatLie(t *testing.T) {
	for name, row := range map[string]struct {
		lie  func(t *testing.T, c *testpki.Cluster, a *remote.Answer)
		says string
	}{
		"a certificate for somebody else": {func(t *testing.T, c *testpki.Cluster, a *remote.Answer) {
			a.Certificates = factsMaterial(t, c, "w1", kubeletConf)
		}, "was not issued for the key at hand"},
		"none": {func(_ *testing.T, _ *testpki.Cluster, a *remote.Answer) { a.Certificates = a.Certificates[:0] }, "0 certificates for 1 requests"},
		"too many": {func(_ *testing.T, _ *testpki.Cluster, a *remote.Answer) {
			a.Certificates = append(a.Certificates, a.Certificates...)
		}, "2 certificates for 1 requests"},
	} {
		t.Run(name, func(t *testing.T) {
			c := testpki.New(t, testpki.HA)
			f, err := plan(t, remote.Options{IDs: []string{"w1/kubelet.conf"}}, far(t, c, "cp1", func(a *remote.Answer) {
				if a.Certificates != nil {
					row.lie(t, c, a)
				}
			}), far(t, c, "w1", nil))
			if err != nil {
				t.Fatal(err)
			}
			if o, err := f.Renew(t.Context(), f.Far[1]); err == nil || !strings.Contains(err.Error(), row.says) || o.State != remote.Same {
				t.Errorf("want %q, got %v", row.says, err)
			}
		})
	}
}

// TestWhatIsWrongAfterwardsIsTakenBack when the node's files are not as they should be.
func TestWhatIsWrongAfterwardsIsTakenBack(t *testing.T) {
	c := testpki.New(t, testpki.HA)
	written := false
	f, err := plan(t, remote.Options{IDs: []string{"w1/kubelet.conf"}}, far(t, c, "cp1", nil), far(t, c, "w1", func(a *remote.Answer) {
		if written && a.Facts != nil { // somebody spoils the bundle meanwhile
			material(t, a.Facts, "/etc/kubernetes/pki/ca.crt").Certificates = [][]byte{forged(t, pkix.Name{CommonName: "kubernetes"}, time.Hour)}
		}
		written = written || a.Backup != ""
	}))
	if err != nil {
		t.Fatal(err)
	}
	before := c.Read("w1", kubeletConf)
	o, err := f.Renew(t.Context(), f.Far[1])
	if err == nil || o.State != remote.Undone || !strings.Contains(err.Error(), "it was taken back") {
		t.Fatalf("state %s: %v", o.State, err)
	}
	if string(before) != string(c.Read("w1", kubeletConf)) {
		t.Error("kubelet.conf is not the old one")
	}
}

// TestMay is what standing gives, without any wire.
func TestMay(t *testing.T) {
	c := testpki.New(t, testpki.HA)
	ca := c.Authority("cp1", "ca")
	key := newKey(t, issue.ECDSAP256)
	template := issue.Template{Subject: pkix.Name{CommonName: "scraper", Organization: []string{"metrics"}}, DNSNames: []string{"scraper.example"}, NotBefore: testpki.Made, NotAfter: testpki.Made.AddDate(1, 0, 0), Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	old, err := issue.Sign(template, key.Public(), ca)
	if err != nil {
		t.Fatal(err)
	}
	held := map[trust.Place]crypto.PublicKey{{Node: "w1", Path: "/k"}: key.Public()}
	item := func(change func(*renew.Item)) *renew.Item {
		i := renewItem(t, c, old)
		change(i)
		return i
	}
	none := func(*renew.Item) {}
	asNode := func(name string) *x509.Certificate {
		template := template
		template.Subject, template.DNSNames = pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}, nil
		leaf, err := issue.Sign(template, key.Public(), ca)
		if err != nil {
			t.Fatal(err)
		}
		return leaf
	}
	uri, _ := url.Parse("spiffe://evil/x")
	for name, row := range map[string]struct {
		standing remote.Standing
		item     *renew.Item
		now      time.Time
		ok       bool
	}{
		"what it has proved to hold, it may have longer":    {remote.Standing{Name: "w1", Proven: held}, item(none), testpki.At, true},
		"not without the proof":                             {remote.Standing{Name: "w1"}, item(none), testpki.At, false},
		"not when it has expired":                           {remote.Standing{Name: "w1", Proven: held}, item(none), testpki.Made.AddDate(2, 0, 0), false},
		"not with one more DNS name":                        {remote.Standing{Name: "w1", Proven: held}, item(func(i *renew.Item) { i.DNSNames = append(i.DNSNames, "kubernetes") }), testpki.At, false},
		"not with one more address":                         {remote.Standing{Name: "w1", Proven: held}, item(func(i *renew.Item) { i.Addresses = append(i.Addresses, net.IPv4(10, 96, 0, 1)) }), testpki.At, false},
		"not with a URI":                                    {remote.Standing{Name: "w1", Proven: held}, item(func(i *renew.Item) { i.URIs = append(i.URIs, uri) }), testpki.At, false},
		"not with an e-mail address":                        {remote.Standing{Name: "w1", Proven: held}, item(func(i *renew.Item) { i.Emails = []string{"a@b"} }), testpki.At, false},
		"not as a server too":                               {remote.Standing{Name: "w1", Proven: held}, item(func(i *renew.Item) { i.Usages = append(i.Usages, x509.ExtKeyUsageServerAuth) }), testpki.At, false},
		"with the address that the operator calls it by":    {remote.Standing{Name: "w1", Addresses: []string{"10.0.0.21"}, Proven: held}, item(func(i *renew.Item) { i.Addresses = append(i.Addresses, net.IPv4(10, 0, 0, 21)) }), testpki.At, true},
		"anything when the operator vouches for it":         {remote.Standing{Name: "w1", Vouched: true}, item(none), testpki.At, true},
		"anything when it holds the authority's key":        {remote.Standing{Name: "w1", Proven: map[trust.Place]crypto.PublicKey{{Path: "/ca"}: ca.Certificate.PublicKey}}, item(none), testpki.At, true},
		"not another node, whatever the inventory calls it": {remote.Standing{Name: "w2", Vouched: true, Proven: held}, renewItem(t, c, asNode("w1")), testpki.At, false},
		"the node that it is":                               {remote.Standing{Name: "w1", Proven: held}, renewItem(t, c, asNode("w1")), testpki.At, true},
	} {
		t.Run(name, func(t *testing.T) {
			if err := row.standing.May(row.item, "ca", row.now); (err == nil) != row.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestExtensionsAreKeptByWhoGrantedThem: an authority signs no extension, and no name of
// a kind that nothing here reads, because an untrusted node showed one.
func TestExtensionsAreKeptByWhoGrantedThem(t *testing.T) {
	c := testpki.New(t, testpki.HA)
	key := newKey(t, issue.ECDSAP256)
	// {1 3 6 1 4 1 32473} is for examples (RFC 5612); the name is of kind registeredID.
	names, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 8, Bytes: []byte{0x2a, 3}}})
	if err != nil {
		t.Fatal(err)
	}
	template := issue.Template{Subject: pkix.Name{CommonName: "system:node:w1", Organization: []string{"system:nodes"}}, NotBefore: testpki.Made, NotAfter: testpki.Made.AddDate(1, 0, 0), Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		Extensions: []pkix.Extension{{Id: []int{1, 3, 6, 1, 4, 1, 32473}, Value: []byte{5, 0}}, {Id: []int{2, 5, 29, 17}, Value: names}}}
	granted, err := issue.Sign(template, key.Public(), c.Authority("cp1", "ca"))
	if err != nil {
		t.Fatal(err)
	}
	forged, err := issue.SelfSign(template, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		old  *x509.Certificate
		kept int
	}{
		"the authority signed them":        {granted, 2},
		"the node has written them itself": {forged, 0},
	} {
		t.Run(name, func(t *testing.T) {
			i := renewItem(t, c, row.old)
			s := remote.Standing{Name: "w1", Proven: map[trust.Place]crypto.PublicKey{{Node: "w1", Path: "/k"}: key.Public()}}
			if err := s.May(i, "ca", testpki.At); err != nil {
				t.Fatal(err)
			}
			if got := i.Template().Extensions; len(got) != row.kept {
				t.Errorf("%v", got)
			}
		})
	}
}

// TestNoExtensionMakesAnAuthority on a node that signs for others.
func TestNoExtensionMakesAnAuthority(t *testing.T) {
	for name, row := range map[string]struct {
		extension pkix.Extension
		kept      bool
	}{
		"basicConstraints":         {pkix.Extension{Id: []int{2, 5, 29, 19}, Value: []byte{0x30, 3, 1, 1, 0xff}}, false},
		"keyUsage":                 {pkix.Extension{Id: []int{2, 5, 29, 15}, Value: []byte{3, 2, 2, 4}}, false},
		"extKeyUsage":              {pkix.Extension{Id: []int{2, 5, 29, 37}}, false},
		"nameConstraints":          {pkix.Extension{Id: []int{2, 5, 29, 30}}, false},
		"a critical one":           {pkix.Extension{Id: []int{1, 3, 6, 1, 4, 1, 32473}, Critical: true}, false},
		"one of an owner":          {pkix.Extension{Id: []int{1, 3, 6, 1, 4, 1, 32473}}, true},
		"names, in an own subject": {pkix.Extension{Id: []int{2, 5, 29, 17}, Critical: true}, true},
	} {
		if got := renew.Keeps(row.extension); got != row.kept {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// renewItem is the item of a kubeconfig of w1 that holds a certificate.
func renewItem(t *testing.T, c *testpki.Cluster, old *x509.Certificate) *renew.Item {
	t.Helper()
	cp1, err := apply.ReadNode("cp1", filepath.Join(c.Dir, "cp1"))
	if err != nil {
		t.Fatal(err)
	}
	w1, err := apply.ReadNode("w1", filepath.Join(c.Dir, "w1"))
	if err != nil {
		t.Fatal(err)
	}
	w := w1.Nodes[0]
	for i := range w.Components {
		w.Components[i].Name = "admin" // of whom nobody wants a name
	}
	for _, m := range w.Materials {
		if m.Place.Path == kubeletConf && m.Leaf() != nil && strings.Contains(m.Place.Field, "client-certificate") {
			m.Certificates = []*x509.Certificate{old}
		}
	}
	items, err := renew.Plan(catalog.Wire([]trust.Node{cp1.Nodes[0], w}), nil, []string{"w1/kubelet.conf"}, renew.Options{At: testpki.At, Keys: func(p trust.Place) crypto.Signer { return cp1.Keys[p] }})
	if err != nil {
		t.Fatal(err)
	}
	if items[0].Template().RawSubject == nil {
		t.Fatalf("the subject %s was not kept", items[0].Subject)
	}
	return items[0]
}
