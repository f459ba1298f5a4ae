package check_test

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// k0sCluster is a cluster of k0s; controllers run a kubelet too where worker says so.
type k0sCluster struct {
	controllers, workers []string
	worker               bool
	kine                 bool
	bare                 bool   // no k0s.yaml
	dial                 string // where workers find the API
}

const k0sPKI = "/var/lib/k0s/pki/"

func (c k0sCluster) address(node string) string {
	return fmt.Sprintf("10.0.1.%d", 10+slices.Index(append(slices.Clone(c.controllers), c.workers...), node))
}

func (c k0sCluster) build(t *testing.T) *tree {
	t.Helper()
	x := newTree(t)
	x.modes = 0o640
	for name, cn := range map[string]string{"ca": "kubernetes-ca", "front-proxy-ca": "kubernetes-front-proxy-ca", "etcd-ca": "etcd-ca"} {
		x.ca(name, cn, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, nil) // as cfssl makes them
	}
	key := x.newKey()
	private, err := issue.EncodePrivateKey(key)
	x.must(err)
	public, err := issue.EncodePublicKey(key.Public())
	x.must(err)
	for _, n := range c.controllers {
		x.write(n, k0sPKI+"sa.key", private, 0o640)
		x.write(n, k0sPKI+"sa.pub", public, 0o644)
		c.controller(x, n)
		if c.worker {
			c.node(x, n, "https://localhost:6443")
		}
	}
	for _, n := range c.workers {
		x.write(n, k0sPKI+"ca.crt", trust.EncodeCertificates(x.cas["ca"].cert), 0o644)
		c.node(x, n, c.dial)
	}
	return x
}

func (c k0sCluster) controller(x *tree, node string) {
	for name, file := range map[string]string{"ca": "ca", "front-proxy-ca": "front-proxy-ca", "etcd-ca": "etcd/ca"} {
		if name != "etcd-ca" || !c.kine {
			x.putCA(node, k0sPKI+file, name)
		}
	}
	local := []string{"127.0.0.1", "localhost"}
	names := append([]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster", "kubernetes.svc.cluster.local", "10.96.0.1", c.address(node)}, local...)
	// cfssl's one profile serves both sides (pkg/certificate/manager.go).
	x.pair(node, k0sPKI+"server", "ca", leaf{cn: "kubernetes", o: []string{"kubernetes"}, usages: both, names: names})
	x.pair(node, k0sPKI+"k0s-api", "ca", leaf{cn: "k0s-api", o: []string{"kubernetes"}, usages: both, names: names})
	x.pair(node, k0sPKI+"apiserver-kubelet-client", "ca", leaf{cn: "apiserver-kubelet-client", o: []string{"system:masters"}, usages: both})
	x.pair(node, k0sPKI+"front-proxy-client", "front-proxy-ca", leaf{cn: "front-proxy-client", o: []string{"front-proxy-client"}, usages: both})
	for name, l := range map[string]leaf{
		"admin": {cn: "kubernetes-admin", o: []string{"system:masters"}}, "ccm": {cn: "system:kube-controller-manager", o: []string{"system:kube-controller-manager"}},
		"scheduler": {cn: "system:kube-scheduler", o: []string{"system:kube-scheduler"}}, "konnectivity": {cn: "kubernetes-konnectivity", o: []string{"system:masters"}},
	} {
		l.usages = both
		x.pair(node, k0sPKI+name, "ca", l)
		c.conf(x, node, name)
	}
	config := "apiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\nmetadata:\n  name: k0s\nspec:\n  api:\n    address: " + c.address(node) + "\n    port: 6443\n"
	if c.kine {
		config += "  storage:\n    type: kine\n"
	} else {
		x.pair(node, k0sPKI+"apiserver-etcd-client", "etcd-ca", leaf{cn: "apiserver-etcd-client", o: []string{"apiserver-etcd-client"}, usages: both, names: local})
		x.pair(node, k0sPKI+"etcd/server", "etcd-ca", leaf{cn: "etcd-server", o: []string{"etcd-server"}, usages: both, names: local})
		x.pair(node, k0sPKI+"etcd/peer", "etcd-ca", leaf{cn: c.address(node), o: []string{"etcd-peer"}, usages: both, names: []string{c.address(node)}})
		config += "  storage:\n    type: etcd\n    etcd:\n      peerAddress: " + c.address(node) + "\n"
	}
	if !c.bare {
		x.write(node, "/etc/k0s/k0s.yaml", []byte(config), 0o600)
	}
}

// conf writes a kubeconfig from the pair of its name, as each start does.
func (c k0sCluster) conf(x *tree, node, name string) {
	x.embedded(node, k0sPKI+name+".conf", "https://localhost:6443", trust.EncodeCertificates(x.cas["ca"].cert), x.read(node, k0sPKI+name+".crt"), x.read(node, k0sPKI+name+".key"))
}

func (c k0sCluster) node(x *tree, node, dial string) {
	const pki = "/var/lib/k0s/kubelet/pki/"
	for name, l := range map[string]leaf{"kubelet-client": {usages: clients}, "kubelet-server": {usages: servers, names: []string{node, c.address(node)}}} {
		l.cn, l.o = "system:node:"+node, []string{"system:nodes"}
		certificate, key := x.issue("ca", l)
		x.write(node, pki+name+"-2026-06-01-00-00-00.pem", append(certificate, key...), 0o600)
		x.must(os.Symlink(pki+name+"-2026-06-01-00-00-00.pem", x.path(node, pki+name+"-current.pem")))
	}
	x.write(node, "/var/lib/k0s/kubelet.conf", fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: default-cluster
  cluster:
    server: %s
    certificate-authority-data: %s
contexts:
- name: default-context
  context:
    cluster: default-cluster
    user: default-auth
current-context: default-context
users:
- name: default-auth
  user:
    client-certificate: %skubelet-client-current.pem
    client-key: %skubelet-client-current.pem
`, dial, b64(trust.EncodeCertificates(x.cas["ca"].cert)), pki, pki), 0o600)
	x.write(node, "/var/lib/k0s/kubelet-config.yaml", []byte(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous:
    enabled: false
  x509:
    clientCAFile: /var/lib/k0s/pki/ca.crt
authorization:
  mode: Webhook
rotateCertificates: true
serverTLSBootstrap: true
`), 0o644)
}

func TestHealthyClustersOfK0sAreSilent(t *testing.T) {
	three := []string{"c1", "c2", "c3"}
	for name, c := range map[string]k0sCluster{
		"a controller": {controllers: three[:1]},
		"a controller that is a worker, with kine":    {controllers: three[:1], worker: true, kine: true},
		"three controllers and a worker":              {controllers: three, workers: []string{"w1"}, dial: "https://10.0.1.10:6443"},
		"workers behind node-local load balancing":    {controllers: three, workers: []string{"w1", "w2"}, dial: "https://127.0.0.1:7443"},
		"a worker alone":                              {workers: []string{"w1"}, dial: "https://10.0.1.99:6443"},
		"a controller whose configuration is not set": {controllers: three[:1], workers: []string{"w1"}, dial: "https://10.0.1.10:6443", bare: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := c.build(t)
			r := x.verify("k0s")
			if got := faults(r); len(got) > 0 {
				t.Errorf("not silent:\n%s", strings.Join(got, "\n"))
			}
			want := []int{4, 5, 6, 9, 12, 17}
			if !c.kine {
				want = append(want, 1, 3)
			}
			if len(c.workers) > 0 {
				want = append(want, 8)
			}
			if len(c.controllers) == 0 {
				want = nil
			}
			for _, n := range want {
				if !slices.Contains(proved(r), n) {
					t.Errorf("link %d is not proved; proved are %v", n, proved(r))
				}
			}
		})
	}
}

func TestFaultsOfK0sAreNamed(t *testing.T) {
	build, faults := k0sFaults()
	runMutations(t, "k0s", build, faults)
}

func k0sFaults() (func(*testing.T) *tree, []distroMutation) {
	c := k0sCluster{controllers: []string{"c1"}, workers: []string{"w1"}, dial: "https://10.0.1.10:6443"}
	const pki, kubelet = k0sPKI, "/var/lib/k0s/kubelet/pki/"
	return c.build, []distroMutation{
		{name: "the apiserver's certificate has expired", brk: func(x *tree) { x.reissue("c1", pki+"server.crt", "ca", expired) },
			id: "cert-expired", node: "c1", path: pki + "server.crt", fix: "rm -f /var/lib/k0s/pki/server.crt /var/lib/k0s/pki/server.key && systemctl restart k0scontroller"},
		{name: "the apiserver's certificate lacks the configured address", brk: func(x *tree) {
			x.reissue("c1", pki+"server.crt", "ca", without("10.0.1.10"))
		}, id: "san-missing", node: "c1", path: pki + "server.crt"},
		{name: "the administrator's certificate has expired", brk: func(x *tree) {
			x.reissue("c1", pki+"admin.crt", "ca", expired)
			c.conf(x, "c1", "admin")
		}, id: "cert-expired", node: "c1", path: pki + "admin.conf", fix: "admin.crt"},
		{name: "the controller-manager is somebody else", brk: func(x *tree) {
			x.reissue("c1", pki+"ccm.crt", "ca", named("system:nobody"))
			c.conf(x, "c1", "ccm")
		}, id: "identity-wrong", node: "c1", path: pki + "ccm.conf", fix: "pki/ccm.crt"},
		{name: "konnectivity is somebody else", brk: func(x *tree) {
			x.reissue("c1", pki+"konnectivity.crt", "ca", named("kubernetes-admin", "system:masters"))
			c.conf(x, "c1", "konnectivity")
		}, id: "identity-wrong", node: "c1", path: pki + "konnectivity.conf"},
		{name: "etcd's peer certificate lacks its address", brk: func(x *tree) {
			x.reissue("c1", pki+"etcd/peer.crt", "etcd-ca", func(l *x509.Certificate) { l.IPAddresses = []net.IP{net.ParseIP("10.0.1.99")} })
		}, id: "san-missing", node: "c1", path: pki + "etcd/peer.crt", fix: "etcd/peer.key"},
		{name: "etcd's client is of the cluster's authority", brk: func(x *tree) {
			x.pair("c1", pki+"apiserver-etcd-client", "ca", leaf{cn: "apiserver-etcd-client", usages: both})
		}, id: "authority-unknown", node: "c1", path: pki + "apiserver-etcd-client.crt"},
		{name: "a key belongs to another certificate", brk: func(x *tree) { x.write("c1", pki+"server.key", x.read("c1", pki+"k0s-api.key"), 0o640) },
			id: "key-mismatch", node: "c1", path: pki + "server.key"},
		{name: "sa.pub is of another key", brk: func(x *tree) {
			public, err := issue.EncodePublicKey(x.newKey().Public())
			x.must(err)
			x.write("c1", pki+"sa.pub", public, 0o644)
		}, id: "sa-key-mismatch", node: "c1", path: pki + "sa.pub", fix: "systemctl restart k0scontroller"},
		{name: "others may read a key", brk: func(x *tree) { x.must(os.Chmod(x.path("c1", pki+"ca.key"), 0o644)) },
			id: "key-permissions", node: "c1", path: pki + "ca.key", fix: "chmod 640"},
		{name: "the worker's kubelet.conf trusts an authority of before", brk: func(x *tree) {
			old := x.ca("old", "kubernetes-ca", caUsage, nil)
			x.edit("w1", "/var/lib/k0s/kubelet.conf", b64(trust.EncodeCertificates(x.cas["ca"].cert)), b64(trust.EncodeCertificates(old.cert)))
		}, id: "bundle-stale", node: "w1", path: "/var/lib/k0s/kubelet.conf", fix: "k0s token create --role=worker"},
		{name: "the worker lets in clients of an authority of before", brk: func(x *tree) {
			old := x.ca("old", "kubernetes-ca", caUsage, nil)
			x.write("w1", pki+"ca.crt", trust.EncodeCertificates(old.cert), 0o644)
		}, id: "bundle-stale", node: "w1", path: pki + "ca.crt"},
		{name: "the key of the authority is on a worker", brk: func(x *tree) { x.write("w1", pki+"ca.key", x.read("c1", pki+"ca.key"), 0o600) },
			id: "ca-key-present", node: "w1", path: pki + "ca.key"},
		{name: "the kubelet's client certificate has expired", brk: func(x *tree) {
			certificate, key := x.issue("ca", leaf{cn: "system:node:w1", o: []string{"system:nodes"}, usages: clients, life: testpki.At.Sub(testpki.Made) / 2})
			x.write("w1", kubelet+"kubelet-client-2026-06-01-00-00-00.pem", append(certificate, key...), 0o600)
		}, id: "cert-expired", node: "w1", path: kubelet + "kubelet-client-current.pem", fix: "k0s token create"},
		{name: "the configuration opens the apiserver", brk: func(x *tree) {
			x.edit("c1", "/etc/k0s/k0s.yaml", "    port: 6443\n", "    port: 6443\n    extraArgs:\n      authorization-mode: AlwaysAllow\n")
		}, id: "authorization-open", node: "c1", path: "/etc/k0s/k0s.yaml"},
		{name: "a kubeconfig dials a port where nothing serves", brk: func(x *tree) { x.edit("c1", pki+"scheduler.conf", "localhost:6443", "localhost:16443") },
			id: "endpoint-mismatch", node: "c1", path: pki + "scheduler.conf"},
	}
}
