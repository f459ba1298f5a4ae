package check_test

import (
	"crypto/x509"
	"testing"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/testpki"
)

// TestFaultsOfTheHardWayAreNamed: one thing broken in kubernetes-the-hard-way's own
// form is one finding, beside what that form is by design: etcd without TLS on
// loopback, or one authority for all.
func TestFaultsOfTheHardWayAreNamed(t *testing.T) {
	const lib, openssl, cfssl = "/var/lib/kubernetes/", testpki.HardwayOpenssl, testpki.HardwayCfssl
	reissue := func(node, file string, change testpki.Change) func(*testpki.Cluster) {
		return func(c *testpki.Cluster) {
			old := certificates(c, node, file)[0]
			c.Write(node, file, c.Sign(old, c.AuthorityAt("server", lib+"ca.crt", lib+"ca.key"), change))
		}
	}
	conf := func(file, cn string, groups ...string) func(*testpki.Cluster) {
		return func(c *testpki.Cluster) {
			ca := c.AuthorityAt("server", lib+"ca.crt", lib+"ca.key")
			c.NewConf("node-0", file, "https://server.kubernetes.local:6443", ca, testpki.Named(cn, groups...))
		}
	}
	for _, row := range []struct {
		name, form     string
		brk            func(*testpki.Cluster)
		id, node, path string // none: healthy
	}{
		{name: "nothing is broken", form: openssl, brk: func(*testpki.Cluster) {}},
		{name: "the apiserver lacks its name", form: openssl, brk: reissue("server", lib+"kube-api-server.crt", without("server.kubernetes.local")),
			id: "san-missing", node: "server", path: lib + "kube-api-server.crt"},
		{name: "a kubelet lacks its node's name", form: openssl, brk: reissue("node-0", "/var/lib/kubelet/kubelet.crt", without("node-0")),
			id: "san-missing", node: "node-0", path: "/var/lib/kubelet/kubelet.crt"},
		{name: "a kubelet is another node", form: openssl, brk: conf("/var/lib/kubelet/kubeconfig", "system:node:node-1", "system:nodes"),
			id: "identity-wrong", node: "node-0", path: "/var/lib/kubelet/kubeconfig"},
		{name: "a kubelet has a longer name, which its certificate holds too", form: openssl, brk: func(c *testpki.Cluster) {
			conf("/var/lib/kubelet/kubeconfig", "system:node:node-0.example.test", "system:nodes")(c)
			reissue("node-0", "/var/lib/kubelet/kubelet.crt", func(x *x509.Certificate) { x.DNSNames = append(x.DNSNames, "node-0.example.test") })(c)
		}},
		{name: "kube-proxy is a master", form: openssl, brk: conf("/var/lib/kube-proxy/kubeconfig", "system:kube-proxy", "system:masters"),
			id: "identity-privileged", node: "node-0", path: "/var/lib/kube-proxy/kubeconfig"},
		{name: "kube-proxy dials nobody", form: openssl, brk: func(c *testpki.Cluster) {
			c.Edit("node-0", "/var/lib/kube-proxy/kubeconfig", "server.kubernetes.local", "old.kubernetes.local")
		}, id: "endpoint-mismatch", node: "node-0", path: "/var/lib/kube-proxy/kubeconfig"},
		{name: "etcd's copy of the key is another", form: cfssl, brk: func(c *testpki.Cluster) { c.NewKey("controller-0", "/etc/etcd/kubernetes-key.pem", issue.ECDSAP256) },
			id: "key-mismatch", node: "controller-0", path: "/etc/etcd/kubernetes-key.pem"},
		{name: "a worker holds the authority's key", form: cfssl, brk: func(c *testpki.Cluster) { c.Copy("controller-0", lib+"ca-key.pem", "worker-0", lib+"ca-key.pem") },
			id: "ca-key-present", node: "worker-0", path: lib + "ca-key.pem"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := testpki.NewHardway(t, row.form)
			row.brk(c)
			var found []check.Finding
			for _, f := range weighty(c.Verify(check.Options{})) {
				if f.Severity != check.Warning || f.ID != "plain-http" && f.ID != "authority-shared" {
					found = append(found, f)
				}
			}
			if row.id == "" && len(found) == 0 {
				return
			}
			if len(found) != 1 || found[0].ID != row.id || found[0].Node != row.node || found[0].Path != row.path {
				t.Errorf("want exactly %s of %s at %s, got:\n%s", row.id, row.node, row.path, describe(found))
			}
		})
	}
}
