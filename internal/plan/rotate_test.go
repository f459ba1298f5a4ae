package plan

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/provision"
	"github.com/kubepki/kubepki/internal/trust"
)

// TestMain lets rapid draw few clusters unless it is told how many: each is
// made on disk. `make test-long` draws more.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	checks := "15"
	if os.Getenv("KUBEPKI_LAB_LONG") != "" {
		checks = "150"
	}
	if !given {
		if err := flag.Set("rapid.checks", checks); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

var single = shape{controlPlanes: 1, authorities: catalog.Separate, manifests: true}

func TestPlanIsTheSameEachTime(t *testing.T) {
	eachPlan(t, func(t *testing.T, p *Plan, _ func([]Step) error, m func() *model) {
		again, err := Rotate(m().g, *m().r)
		if err != nil || again.String() != p.String() {
			t.Errorf("error %v, or another plan:\n%s\n%s", err, p, again)
		}
	})
}

func TestWithoutKnowledgeEverythingIsRestarted(t *testing.T) {
	g := catalog.Wire(nodesOf(t, single))
	_, r := rotation(t, single, catalog.ClusterCA)
	p, err := Rotate(g, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Steps {
		for _, l := range s.Loads {
			if l.How.Uptake != Restart && l.How.Uptake != Published {
				t.Errorf("%s: %s is trusted to take up %s: %+v", s.Kind, l.Component, l.Place, l.How)
			}
		}
	}
}

func TestASignerIsSeparatedOnlyWhereItSharesAFile(t *testing.T) {
	for name, c := range map[string]struct {
		shape
		replace string
		want    string
	}{
		"a signer that shares ca.crt":         {single, catalog.ClusterCA, "separate accept switch issue drop drop drop"},
		"an authority that no signer uses":    {single, catalog.EtcdCA, "accept switch issue drop"},
		"an authority whose key is elsewhere": {shape{controlPlanes: 1, authorities: catalog.Separate, manifests: true, keyless: true}, catalog.EtcdCA, "accept issue drop"},
		"the key of service accounts":         {single, ServiceAccounts, "accept switch issue drop"},
	} {
		t.Run(name, func(t *testing.T) {
			_, r := rotation(t, c.shape, c.replace)
			p, err := Rotate(catalog.Wire(nodesOf(t, c.shape)), r)
			if err != nil || kinds(p.Steps) != c.want {
				t.Errorf("error %v, steps %q, want %q", err, kinds(p.Steps), c.want)
			}
		})
	}
}

// TestWhatIsBrokenAlreadyIsNamedAndMended: somebody gave the apiserver a certificate of
// the new authority before anybody trusted it. The plan says what is broken and
// mends it.
func TestWhatIsBrokenAlreadyIsNamedAndMended(t *testing.T) {
	k, r := rotation(t, single, catalog.ClusterCA)
	r.Reloads = newest
	nodes := nodesOf(t, single)
	m, err := newModel(catalog.Wire(nodes), &r)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(k, nodes, m)
	by := r.New[catalog.ClusterCA]
	w.apply(Change{Place: trust.Place{Node: "cp1", Path: "/etc/kubernetes/pki/apiserver.crt"}, Role: trust.RoleCertificate, After: Content{IssuedBy: &by}})
	p, err := Rotate(w.graph(), r)
	if err != nil {
		t.Fatal(err)
	}
	broken := slices.ContainsFunc(p.Broken, func(h Half) bool { return h.Link == 5 && h.Side == "server" })
	if !broken || !strings.Contains(p.String(), "broken already: link 5 cp1/kube-controller-manager → cp1/kube-apiserver, server half") {
		t.Errorf("link 5 is broken and not named:\n%s", p)
	}
}

// newCA signs a certificate of an authority by itself after a change.
func newCA(t *testing.T, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	key := (&maker{t, map[string]crypto.Signer{}}).signer()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}, NotBefore: made, NotAfter: made.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	change(c)
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhatCannotReplaceAnAuthorityIsRefused(t *testing.T) {
	g := catalog.Wire(nodesOf(t, single))
	own := func(path string) *x509.Certificate {
		return g.Material(trust.Place{Node: "cp1", Path: "/etc/kubernetes/pki/" + path}).Leaf()
	}
	good := newCA(t, func(*x509.Certificate) {})
	ca := func(c *x509.Certificate, chain ...*x509.Certificate) Rotation {
		return Rotation{At: at, New: map[string]Authority{catalog.ClusterCA: {Certificate: c, Chain: chain}}}
	}
	for name, c := range map[string]struct {
		rotation Rotation
		want     string
	}{
		"nothing":                            {Rotation{At: at}, "nothing to replace"},
		"an authority and a key at once":     {Rotation{At: at, New: ca(good).New, NewKey: good.PublicKey}, "one after the other"},
		"an authority that is not there":     {Rotation{At: at, New: map[string]Authority{"kubelet-ca": {Certificate: good}}}, "the graph has no certificate of it"},
		"no certificate":                     {ca(nil), "is not given"},
		"a leaf":                             {ca(newCA(t, func(c *x509.Certificate) { c.IsCA = false })), "may not sign certificates"},
		"an authority without keyCertSign":   {ca(newCA(t, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })), "may not sign certificates"},
		"one that has expired":               {ca(newCA(t, func(c *x509.Certificate) { c.NotAfter = made.Add(1) })), "is not valid at"},
		"one that has not begun":             {ca(newCA(t, func(c *x509.Certificate) { c.NotBefore = at.AddDate(0, 0, 1) })), "is not valid at"},
		"one with name constraints":          {ca(newCA(t, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.test"} })), "constrains names or usages"},
		"one with usages":                    {ca(newCA(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })), "constrains names or usages"},
		"a chain that begins elsewhere":      {ca(good, newCA(t, func(*x509.Certificate) {})), "does not begin with its own certificate"},
		"the front proxy's authority":        {ca(own("front-proxy-ca.crt")), "could pass as the front proxy"},
		"the cluster's as the front proxy's": {Rotation{At: at, New: map[string]Authority{catalog.FrontProxyCA: {Certificate: own("ca.crt")}}}, "could pass as the front proxy"},
		"one new one for both": {Rotation{At: at, New: map[string]Authority{
			catalog.ClusterCA: {Certificate: good}, catalog.FrontProxyCA: {Certificate: good}}}, "could pass as the front proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Rotate(g, c.rotation)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("want an error with %q, got %v, %v", c.want, err, p)
			}
		})
	}
}

func TestARootIsNotReplacedWithoutWhatHangsBelowIt(t *testing.T) {
	s := shape{controlPlanes: 1, authorities: catalog.Intermediate, manifests: true}
	_, r := rotation(t, s, catalog.RootCA)
	delete(r.New, catalog.EtcdCA)
	if _, err := Rotate(catalog.Wire(nodesOf(t, s)), r); err == nil || !strings.Contains(err.Error(), "signed by an authority below it that is not replaced") {
		t.Errorf("got %v", err)
	}
}

func TestAnIntermediateWithoutItsChainIsRefused(t *testing.T) {
	s := shape{controlPlanes: 1, authorities: catalog.Intermediate, manifests: true}
	_, r := rotation(t, s, below+catalog.ClusterCA)
	by := r.New[catalog.ClusterCA]
	by.Chain = nil
	r.New[catalog.ClusterCA] = by
	_, err := Rotate(catalog.Wire(nodesOf(t, s)), r)
	var f *Fault
	if !errors.As(err, &f) || f.Kind != Switch {
		t.Errorf("kubeconfigs trust the root alone, a leaf without a chain breaks as soon as one is signed; got %v", err)
	}
}

func TestAKeyThatSignsAndVerifiesInOneFileIsRefused(t *testing.T) {
	k, r := rotation(t, single, ServiceAccounts)
	nodes := nodesOf(t, single)
	m, err := newModel(catalog.Wire(nodes), &r)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(k, nodes, m)
	for i := range w.nodes[0].Components {
		if c := &w.nodes[0].Components[i]; c.Name == catalog.APIServer {
			c.Flags["service-account-key-file"] = c.Flags["service-account-signing-key-file"]
		}
	}
	if _, err := Rotate(w.graph(), r); err == nil || !strings.Contains(err.Error(), "set --service-account-key-file to a file of public keys first") {
		t.Errorf("got %v", err)
	}
}

func TestWhatCouldNotBeReadIsNamed(t *testing.T) {
	k, r := rotation(t, single, catalog.ClusterCA)
	nodes := nodesOf(t, single)
	m, err := newModel(catalog.Wire(nodes), &r)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(k, nodes, m)
	at := trust.Place{Node: "cp1", Path: "/etc/kubernetes/pki/apiserver.crt"}
	for i, material := range w.nodes[0].Materials {
		if material.Place == at {
			w.nodes[0].Materials[i] = &trust.Material{Place: at, Role: trust.RoleCertificate, State: trust.Denied, Reason: "permission denied"}
		}
	}
	p, err := Rotate(w.graph(), r)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Unseen, []trust.Place{at}) || p.Unjudged == 0 || !strings.Contains(p.String(), "could not be read, and is not rotated: cp1:/etc/kubernetes/pki/apiserver.crt") {
		t.Errorf("unseen %v, %d halves unjudged:\n%s", p.Unseen, p.Unjudged, p)
	}
}

// TestASecondRotationFollowsTheFirst: the signer has a file of its own by now.
// Whether it was restarted since is not known, so that it is asked for again.
func TestASecondRotationFollowsTheFirst(t *testing.T) {
	s := shape{controlPlanes: 2, workers: 1, authorities: catalog.Separate, manifests: true, paths: true}
	k, r := rotation(t, s, catalog.ClusterCA)
	r.Reloads = newest
	nodes := nodesOf(t, s)
	m, err := newModel(catalog.Wire(nodes), &r)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(k, nodes, m)
	p, err := Rotate(w.graph(), r)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range p.Steps {
		for _, ch := range step.Changes {
			w.apply(ch)
		}
	}
	r.New = k.replace(w.graph(), catalog.ClusterCA)
	again, err := Rotate(w.graph(), r)
	if err != nil {
		t.Fatal(err)
	}
	if kinds(again.Steps) != kinds(p.Steps) || len(again.Steps[0].Changes) > 0 || len(again.Broken) > 0 {
		t.Errorf("want the same steps, with nothing to separate but a restart:\n%s", again)
	}
	r.Loaded = func(string, trust.Place) bool { return true }
	if again, err = Rotate(w.graph(), r); err != nil || again.Steps[0].Kind != Accept {
		t.Errorf("with what is loaded: error %v, want accept first:\n%s", err, again)
	}
}

// TestTwoServicesAreRotatedToo: nothing is known of how they reload.
func TestTwoServicesAreRotatedToo(t *testing.T) {
	dir := t.TempDir()
	p, err := provision.Plan(provision.Options{
		Cluster: &catalog.Cluster{Algorithm: string(issue.ECDSAP256), Validity: catalog.DefaultValidity, CAValidity: catalog.DefaultCAValidity},
		Service: &provision.Service{Names: []string{"billing.example.test"}}, Dir: dir, Now: made,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
	n, _, err := layout.Read(dir, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	g := catalog.Wire([]trust.Node{n})
	k := maker{t, map[string]crypto.Signer{}}
	plan, err := Rotate(g, Rotation{New: k.replace(g, catalog.ClusterCA), At: at})
	if err != nil || kinds(plan.Steps) != "accept switch issue drop" {
		t.Fatalf("error %v:\n%s", err, plan)
	}
	for i, s := range plan.Steps {
		if s.Kind != Switch && len(s.Loads) != 2 {
			t.Errorf("step %d: want both services restarted: %v", i+1, s.Loads)
		}
	}
}
