package plan

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/config"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/provision"
	"github.com/kubepki/kubepki/internal/trust"
)

var (
	made = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	at   = made.Add(24 * time.Hour)
)

// shape says what cluster to make. It is comparable.
type shape struct {
	controlPlanes, workers int
	externalEtcd           int // members; 0: stacked
	authorities            catalog.Shape
	kubeletCA              bool
	manifests              bool
	keyless                bool // authorities' keys are elsewhere, no controller-manager signs
	paths                  bool // kubelets show kubelet-client-current.pem
	users                  bool
}

func (s shape) String() string {
	return fmt.Sprintf("%d control planes, %d workers, %d etcd nodes, %s, kubelet CA %t, manifests %t, keyless %t, paths %t, users %t",
		s.controlPlanes, s.workers, s.externalEtcd, s.authorities, s.kubeletCA, s.manifests, s.keyless, s.paths, s.users)
}

func (s shape) cluster() *catalog.Cluster {
	c := &catalog.Cluster{
		Algorithm: string(issue.ECDSAP256), Validity: catalog.DefaultValidity, CAValidity: catalog.DefaultCAValidity,
		ControlPlaneEndpoint: "api.example.test:6443", Shape: s.authorities, KubeletAuthority: s.kubeletCA, KubeProxy: s.users,
	}
	address := func(net, i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(net), byte(i + 1)}) }
	for i := range s.controlPlanes {
		c.ControlPlanes = append(c.ControlPlanes, catalog.ControlPlane{Name: fmt.Sprintf("cp%d", i+1), Address: address(0, i)})
	}
	for i := range s.workers {
		c.Workers = append(c.Workers, catalog.Worker{Name: fmt.Sprintf("w%d", i+1), Address: address(1, i)})
	}
	for i := range s.externalEtcd {
		c.EtcdMembers = append(c.EtcdMembers, catalog.EtcdMember{Name: fmt.Sprintf("etcd%d", i+1), Address: address(2, i)})
	}
	return c
}

var (
	clusters sync.Map // shape → func() ([]trust.Node, error)
	rootKeys sync.Map // shape → crypto.Signer of the root authority
)

// below marks the name of an authority that is replaced below a root that stays.
const below = "below "

// nodesOf returns the facts of a cluster that `init` makes, read from disk. It
// is made once per test binary; the facts must not be changed in place.
func nodesOf(t testing.TB, s shape) []trust.Node {
	t.Helper()
	once, _ := clusters.LoadOrStore(s, sync.OnceValues(func() ([]trust.Node, error) { return provisioned(s) }))
	nodes, err := once.(func() ([]trust.Node, error))()
	if err != nil {
		t.Fatalf("making a cluster of %s: %v", s, err)
	}
	return nodes
}

// memory is a folder that no disk stands behind, where there is one: init syncs
// each of its files, which is most of the time that these tests would take.
func memory() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func provisioned(s shape) (nodes []trust.Node, err error) {
	dir, err := os.MkdirTemp(memory(), "kubepki-plan-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cluster, err := config.Complete(s.cluster(), config.Host{})
	if err != nil {
		return nil, err
	}
	p, err := provision.Plan(provision.Options{Cluster: cluster, Dir: dir, PerNode: true, Manifests: s.manifests, Now: made})
	if err != nil {
		return nil, err
	}
	if err := p.Apply(context.Background(), func() {}); err != nil {
		return nil, err
	}
	if text, err := os.ReadFile(filepath.Join(dir, catalog.AuthoritiesDir, "root-ca.key")); err == nil {
		key, err := issue.ParsePrivateKey(text)
		if err != nil {
			return nil, err
		}
		rootKeys.Store(s, key)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() == catalog.AuthoritiesDir || e.Name() == catalog.UsersDir || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if s.paths {
			if err := rotatedKubelet(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
		}
		n, _, err := layout.Read(filepath.Join(dir, e.Name()), layout.Options{Name: e.Name()})
		if err != nil {
			return nil, err
		}
		if s.keyless {
			takeKeys(&n)
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// rotatedKubelet makes a kubelet's kubeconfig name its certificate by path, as
// a kubelet does that has rotated.
func rotatedKubelet(root string) error {
	conf := filepath.Join(root, "etc/kubernetes/kubelet.conf")
	data, err := os.ReadFile(conf)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, materials, keys := layout.ParseKubeconfig(trust.Place{}, data)
	var pair []byte
	for _, m := range materials {
		if m.Role == trust.RoleCertificate {
			pair = trust.EncodeCertificates(m.Certificates...)
		}
	}
	for _, k := range keys {
		text, err := issue.EncodePrivateKey(k)
		if err != nil {
			return err
		}
		pair = append(pair, text...)
	}
	current := filepath.Join(catalog.KubeletDir, "pki/kubelet-client-current.pem")
	var lines []string
	for line := range strings.SplitSeq(string(data), "\n") {
		for _, field := range []string{"client-certificate", "client-key"} {
			if indent, _, ok := strings.Cut(line, field+"-data:"); ok {
				line = indent + field + ": " + current
			}
		}
		lines = append(lines, line)
	}
	if err := os.MkdirAll(filepath.Join(root, catalog.KubeletDir, "pki"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, current), pair, 0o600); err != nil {
		return err
	}
	return os.WriteFile(conf, []byte(strings.Join(lines, "\n")), 0o600)
}

// takeKeys leaves a node without the keys of its authorities.
func takeKeys(n *trust.Node) {
	var kept []*trust.Material
	for _, m := range n.Materials {
		if !strings.HasSuffix(m.Place.Path, "ca.key") {
			kept = append(kept, m)
		}
	}
	n.Materials = kept
	for i := range n.Components {
		for flag := range n.Components[i].Flags {
			if strings.HasPrefix(flag, "cluster-signing-") {
				delete(n.Components[i].Flags, flag)
			}
		}
	}
}

// maker holds the new authorities with their keys, which the planner never sees.
type maker struct {
	t    testing.TB
	keys map[string]crypto.Signer // by the DER of the certificate
}

func (k *maker) signer() crypto.Signer {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		k.t.Fatal(err)
	}
	return key
}

func (k *maker) authority(subject pkix.Name, above *x509.Certificate) *x509.Certificate {
	key := k.signer()
	template := issue.Template{Subject: subject, Authority: true, NotBefore: made, NotAfter: made.AddDate(20, 0, 0)}
	var c *x509.Certificate
	var err error
	if above == nil {
		c, err = issue.SelfSign(template, key)
	} else {
		c, err = issue.Sign(template, key.Public(), issue.Authority{Certificate: above, Key: k.keys[string(above.Raw)]})
	}
	if err != nil {
		k.t.Fatal(err)
	}
	k.keys[string(c.Raw)] = key
	return c
}

// leaf signs what the plan describes: the same identity, names and usages, by
// the authority that is named.
func (k *maker) leaf(old *x509.Certificate, by *Authority) []*x509.Certificate {
	key := k.signer()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: old.Subject, DNSNames: old.DNSNames, IPAddresses: old.IPAddresses,
		NotBefore: made, NotAfter: made.AddDate(1, 0, 0), KeyUsage: old.KeyUsage, ExtKeyUsage: old.ExtKeyUsage, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.Certificate, key.Public(), k.keys[string(by.Certificate.Raw)])
	if err != nil {
		k.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		k.t.Fatal(err)
	}
	return append([]*x509.Certificate{c}, by.Chain...)
}

// replace makes the new authorities of a rotation, with the same subjects, as
// kubeadm names them.
func (k *maker) replace(g *trust.Graph, name string) map[string]Authority {
	own := func(name string) *x509.Certificate {
		for _, a := range g.Authorities {
			if c := g.Material(a.Certificate).Leaf(); a.Name == name && c != nil {
				return c
			}
		}
		return nil
	}
	out := map[string]Authority{}
	if name, ok := strings.CutPrefix(name, below); ok {
		n := k.authority(own(name).Subject, own(catalog.RootCA))
		return map[string]Authority{name: {Certificate: n, Chain: []*x509.Certificate{n}}}
	}
	old := own(name)
	if own(catalog.RootCA) != nil && name != catalog.RootCA {
		return k.replace(g, below+name)
	}
	top := k.authority(old.Subject, nil)
	out[name] = Authority{Certificate: top}
	if name != catalog.RootCA {
		return out
	}
	for _, below := range []string{catalog.ClusterCA, catalog.EtcdCA, catalog.FrontProxyCA, catalog.KubeletCA} {
		if c := own(below); c != nil {
			n := k.authority(c.Subject, top)
			out[below] = Authority{Certificate: n, Chain: []*x509.Certificate{n}}
		}
	}
	return out
}

// newest and oldest are of the versions that were measured; of oldest it is not
// known what runs in pods.
var (
	newest = Measured(Versions{Kubernetes: "v1.37.2", Etcd: "3.7.3", Programs: "v1.37.2"})
	oldest = Measured(Versions{Kubernetes: "v1.35.4", Etcd: "3.6.5"})
)

// kubeadmShapes are clusters that have each kind of component and file.
func kubeadmShapes() []shape {
	var all []shape
	for i, authorities := range []catalog.Shape{catalog.Separate, catalog.Intermediate, catalog.Shared} {
		all = append(all,
			shape{controlPlanes: 1, workers: 1, authorities: authorities, kubeletCA: true, manifests: true, users: true, paths: true},
			shape{controlPlanes: 1, externalEtcd: 1, authorities: authorities, keyless: i == 0})
	}
	return all
}

func hasAuthority(g *trust.Graph, name string) bool {
	return name == ServiceAccounts || slices.ContainsFunc(g.Authorities, func(a trust.Authority) bool { return a.Name == name })
}
