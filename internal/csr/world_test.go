package csr_test

import (
	"crypto/sha256"
	"errors"
	"net/netip"
	"slices"

	"github.com/kubepki/kubepki/internal/csr"
)

// world is a request, who sends it, and where it arrives.
type world struct {
	shape   shape
	request csr.Request
	nodes   []csr.Node
	facts   csr.Facts
	policy  csr.Policy
	noNodes bool                // the nodes are not known
	text    func([]byte) []byte // changes the PEM
}

func (w *world) review() csr.Review {
	w.assemble()
	return csr.Decide(w.request, w.facts, w.policy)
}

func (w *world) assemble() {
	w.request.PEM = encode(w.shape.der())
	if w.text != nil {
		w.request.PEM = w.text(w.request.PEM)
	}
	if !w.noNodes {
		w.facts.Nodes = csr.NewInventory(w.nodes...)
	}
}

func (w *world) node(name string) *csr.Node {
	i := slices.IndexFunc(w.nodes, func(n csr.Node) bool { return n.Name == name })
	return &w.nodes[i]
}

func subjectOf(node string) [][]attribute {
	return [][]attribute{text(oidO, "system:nodes"), text(oidCN, "system:node:"+node)}
}

func cluster() []csr.Node {
	return []csr.Node{
		{Name: "cp1", Names: []string{"cp1"}, Addresses: []string{"192.0.2.1"}, ControlPlane: true, Ready: true},
		{Name: "cp2", Names: []string{"cp2"}, Addresses: []string{"192.0.2.2"}, ControlPlane: true, Ready: true},
		{Name: "w1", Names: []string{"w1", "W1.example.test"}, Addresses: []string{"192.0.2.11", "2001:db8::11"}, Ready: true},
		{Name: "w2", Names: []string{"w2"}, Addresses: []string{"192.0.2.12"}, Ready: true},
	}
}

func newWorld() *world {
	return &world{
		shape: shape{key: keyP256(), subject: subjectOf("w1")},
		request: csr.Request{Name: "csr-1", SignerName: csr.KubeAPIServerClientKubeletSigner, State: csr.Pending,
			Usages: []string{"digital signature", "client auth"}},
		nodes: cluster(),
		facts: csr.Facts{Authorized: csr.Yes, Landed: true, Cluster: csr.Cluster{
			Endpoints: []string{"api.example.test:6443", "192.0.2.1", "192.0.2.100"}}},
		policy: csr.DefaultPolicy(),
	}
}

// bootstrap: a bootstrapper asks for a node that is not there yet.
func bootstrap() *world {
	w := newWorld()
	w.shape.subject = subjectOf("w9")
	w.request.Username = "system:bootstrap:abcdef"
	w.request.Groups = []string{"system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token", "system:authenticated"}
	return w
}

// renewal: a node asks for its next client certificate.
func renewal() *world {
	w := newWorld()
	w.request.Username = "system:node:w1"
	w.request.Groups = []string{"system:nodes", "system:authenticated"}
	return w
}

// serving: a node asks to serve.
func serving() *world {
	w := renewal()
	w.request.SignerName = csr.KubeletServingSigner
	w.request.Usages = []string{"digital signature", "server auth"}
	w.shape.names = []name{dns("w1"), dns("w1.example.test"), ip("192.0.2.11"), ip("2001:db8::11")}
	return w
}

// servingAs is serving by another node.
func servingAs(node string, names ...name) *world {
	w := serving()
	w.shape.subject, w.shape.names = subjectOf(node), names
	w.request.Username = "system:node:" + node
	return w
}

// ruled: a user asks for a certificate of a signer that a rule is for.
func ruled() *world {
	w := newWorld()
	w.shape.subject = [][]attribute{text(oidCN, "alice"), text(oidO, "dev"), text(oidO, "ops"), text(oidOU, "unit")}
	w.request.SignerName = csr.KubeAPIServerClientSigner
	w.request.Username = "alice"
	w.policy.Rules = []csr.Rule{{Name: "users", SignerName: csr.KubeAPIServerClientSigner,
		Approve: func(csr.Request, *csr.Asked) (bool, error) { return true, nil }}}
	return w
}

// confirmed: serving, with every second source.
func confirmed() *world {
	w := serving()
	w.policy.AddressRanges = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")}
	w.policy.Addresses = map[string][]string{"w1": {"w1", "w1.Example.test", "192.0.2.11", "2001:db8:0::11"}}
	w.policy.DNS = true
	own := []netip.Addr{netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("2001:db8::11")}
	w.facts.Resolved = map[string][]netip.Addr{"w1": own, "w1.example.test": own[:1]}
	return w
}

func seconds(n int32) *int32 { return &n }

// usedBy says who has used the key of the request.
func (w *world) usedBy(users ...string) {
	key := sha256.Sum256(marshalKey(w.shape.key.Public()))
	w.facts.Keys = func(sum [32]byte) []string {
		if sum == key {
			return users
		}
		return nil
	}
}

func ruleThat(approves bool, fails string) csr.Rule {
	return csr.Rule{Name: "a rule", SignerName: csr.KubeAPIServerClientSigner, Approve: func(csr.Request, *csr.Asked) (bool, error) {
		if fails != "" {
			return approves, errors.New(fails)
		}
		return approves, nil
	}}
}
