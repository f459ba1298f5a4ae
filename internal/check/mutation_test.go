package check_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testpki.Clean()
	cleanTools()
	os.Exit(code)
}

// cleanTools removes what a test has made for all of its rows.
var cleanTools = func() {}

const (
	pki      = "/etc/kubernetes/pki/"
	manifest = "/etc/kubernetes/manifests/"
)

// mutation breaks one thing and names the one finding expected.
type mutation struct {
	name string
	kind testpki.Kind
	at   time.Time
	brk  func(c *testpki.Cluster)
	// live runs the servers, before brk is called, and breaks one thing more
	// after it; nil: the files alone are looked at.
	live  func(c *testpki.Cluster, r *testpki.Running)
	id    string
	node  string
	path  string // of the finding
	field string
	links []int  // that it breaks, exactly
	says  string // a part of its cause; empty: any
	// severity is the rule's own when it is empty.
	severity check.Severity
	// wide tells that the fault touches more than one part of the cluster, so
	// that no other is independent of it.
	wide bool
}

// mutations are all rows.
var mutations = slices.Concat(commonMutations, fileMutations, authorityMutations, configurationMutations)

func days(n int) time.Time { return testpki.Made.AddDate(0, 0, n) }

func until(t time.Time) testpki.Change { return func(c *x509.Certificate) { c.NotAfter = t } }

func from(t time.Time) testpki.Change { return func(c *x509.Certificate) { c.NotBefore = t } }

func usages(u ...x509.ExtKeyUsage) testpki.Change {
	return func(c *x509.Certificate) { c.ExtKeyUsage = u }
}

func without(name string) testpki.Change {
	return func(c *x509.Certificate) {
		c.DNSNames = slices.DeleteFunc(slices.Clone(c.DNSNames), func(n string) bool { return n == name })
		c.IPAddresses = slices.DeleteFunc(slices.Clone(c.IPAddresses), func(a net.IP) bool { return a.String() == name })
	}
}

func named(cn string, o ...string) testpki.Change {
	return func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: cn, Organization: o} }
}

var commonMutations = []mutation{
	// Files.
	{name: "a leaf's certificate is missing", brk: func(c *testpki.Cluster) { c.Remove("cp1", "pki/apiserver.crt") },
		id: "file-missing", path: pki + "apiserver.crt", links: []int{4, 5, 6, 8, 9, 17}},
	{name: "a leaf's key is missing", brk: func(c *testpki.Cluster) { c.Remove("cp1", "pki/front-proxy-client.key") },
		id: "file-missing", path: pki + "front-proxy-client.key", links: []int{13}},
	{name: "a leaf's key is missing, without manifests", kind: testpki.Bare, brk: func(c *testpki.Cluster) { c.Remove("cp1", "pki/apiserver-etcd-client.key") },
		id: "file-missing", path: pki + "apiserver-etcd-client.key", links: []int{3}},
	{name: "the cluster's authority is missing", brk: func(c *testpki.Cluster) { c.Remove("cp1", "pki/ca.crt") },
		id: "file-missing", path: pki + "ca.crt"},
	{name: "sa.pub is missing", brk: func(c *testpki.Cluster) { c.Remove("cp1", "pki/sa.pub") },
		id: "file-missing", path: pki + "sa.pub", links: []int{12}},
	{name: "a kubeconfig is missing", brk: func(c *testpki.Cluster) { c.Remove("cp1", "scheduler.conf") },
		id: "file-missing", path: "/etc/kubernetes/scheduler.conf", links: []int{6}},
	{name: "a kubeconfig is missing, without manifests", kind: testpki.Bare, brk: func(c *testpki.Cluster) { c.Remove("cp1", "scheduler.conf") },
		id: "file-missing", path: "/etc/kubernetes/scheduler.conf", links: []int{6}},
	{name: "the kubelet's kubeconfig is missing, without manifests", kind: testpki.Bare, brk: func(c *testpki.Cluster) { c.Remove("cp1", "kubelet.conf") },
		id: "file-missing", path: "/etc/kubernetes/kubelet.conf", links: []int{8}},
	{name: "a certificate is a dangling link", brk: func(c *testpki.Cluster) {
		c.Remove("cp1", "pki/apiserver.crt")
		os.Symlink("gone.crt", c.Path("cp1", "pki/apiserver.crt"))
	}, id: "file-missing", path: pki + "apiserver.crt"},
	{name: "a certificate is a link loop", brk: func(c *testpki.Cluster) {
		c.Remove("cp1", "pki/apiserver.crt")
		os.Symlink("apiserver.crt", c.Path("cp1", "pki/apiserver.crt"))
	}, id: "file-unreadable", path: pki + "apiserver.crt"},
	{name: "a certificate is a folder", brk: func(c *testpki.Cluster) {
		c.Remove("cp1", "pki/etcd/peer.crt")
		os.Mkdir(c.Path("cp1", "pki/etcd/peer.crt"), 0o755)
	}, id: "file-unreadable", path: pki + "etcd/peer.crt", links: []int{1}},
	{name: "a certificate is junk", brk: func(c *testpki.Cluster) { c.Write("cp1", "pki/apiserver.crt", []byte("junk\n")) },
		id: "cert-malformed", path: pki + "apiserver.crt"},
	{name: "a certificate file holds a key", brk: func(c *testpki.Cluster) { c.Copy("cp1", "pki/apiserver.key", "cp1", "pki/apiserver.crt") },
		id: "cert-malformed", path: pki + "apiserver.crt"},
	{name: "an authority's file is empty", brk: func(c *testpki.Cluster) { c.Write("cp1", "pki/front-proxy-ca.crt", nil) },
		id: "bundle-empty", path: pki + "front-proxy-ca.crt", links: []int{13}},
	{name: "a key is junk", brk: func(c *testpki.Cluster) { c.Write("cp1", "pki/apiserver.key", []byte("-----BEGIN")) },
		id: "key-malformed", path: pki + "apiserver.key"},
	{name: "sa.pub is junk", brk: func(c *testpki.Cluster) { c.Write("cp1", "pki/sa.pub", []byte("junk")) },
		id: "key-malformed", path: pki + "sa.pub", links: []int{12}},
	{name: "a kubeconfig is no YAML", brk: func(c *testpki.Cluster) { c.Write("cp1", "scheduler.conf", []byte("a: [")) },
		id: "kubeconfig-broken", path: "/etc/kubernetes/scheduler.conf", links: []int{6}},
	{name: "a kubeconfig's context names no user", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "scheduler.conf", "    user: system:kube-scheduler\n", "    user: nobody\n")
	}, id: "kubeconfig-broken", path: "/etc/kubernetes/scheduler.conf", links: []int{6}},
	{name: "others may read a key", brk: func(c *testpki.Cluster) { c.Chmod("cp1", "pki/sa.key", 0o644) },
		id: "key-permissions", path: pki + "sa.key"},
	{name: "others may read a kubeconfig", brk: func(c *testpki.Cluster) { c.Chmod("cp1", "admin.conf", 0o604) },
		id: "key-permissions", path: "/etc/kubernetes/admin.conf"},
	{name: "a group may read a key", brk: func(c *testpki.Cluster) { c.Chmod("cp1", "pki/ca.key", 0o640) },
		id: "key-permissions", path: pki + "ca.key", severity: check.Warning},
	{name: "others may write into the folder of keys", brk: func(c *testpki.Cluster) { c.Chmod("cp1", "pki/etcd", 0o777) },
		id: "key-permissions", path: pki + "etcd"},

	// Keys.
	{name: "a key belongs to another certificate", brk: func(c *testpki.Cluster) { c.NewKey("cp1", "pki/apiserver.key", issue.ECDSAP256) },
		id: "key-mismatch", path: pki + "apiserver.key", links: []int{4, 5, 6, 8, 9, 17}},
	{name: "a kubeconfig holds another's key", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "scheduler.conf", confField(c, "scheduler.conf", "client-key-data: "), confField(c, "admin.conf", "client-key-data: "))
	}, id: "key-mismatch", path: "/etc/kubernetes/scheduler.conf", field: "users[system:kube-scheduler].user.client-key-data", links: []int{6}},
	{name: "an authority's key was replaced", brk: func(c *testpki.Cluster) { c.NewKey("cp1", "pki/ca.key", issue.ECDSAP256) },
		id: "ca-key-mismatch", path: pki + "ca.key", links: nil},
	{name: "an authority's certificate was replaced", brk: func(c *testpki.Cluster) {
		key := c.Read("cp1", "pki/etcd/ca.key")
		c.Recreate("cp1", "etcd/ca")
		c.Write("cp1", "pki/etcd/ca.key", key)
	}, id: "ca-key-mismatch", path: pki + "etcd/ca.crt", links: []int{1, 2, 3, 15}},
	{name: "sa.pub is of another key", brk: func(c *testpki.Cluster) {
		pub, err := issue.EncodePublicKey(c.NewKey("cp1", "unused.key", issue.ECDSAP256).Public())
		if err != nil {
			panic(err)
		}
		c.Remove("cp1", "unused.key")
		c.Write("cp1", "pki/sa.pub", pub)
	}, id: "sa-key-mismatch", path: pki + "sa.pub", links: []int{12}},
	{name: "sa.key was replaced", brk: func(c *testpki.Cluster) { c.NewKey("cp1", "pki/sa.key", issue.ECDSAP256) },
		id: "sa-key-mismatch", path: pki + "sa.pub", links: []int{12}},
	{name: "one control plane signs with a key of its own", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		pub, err := issue.EncodePublicKey(c.NewKey("cp2", "pki/sa.key", issue.ECDSAP256).Public())
		if err != nil {
			panic(err)
		}
		// cp2 itself verifies both; the others do not know the new key.
		c.Write("cp2", "pki/sa.pub", append(pub, c.Read("cp1", "pki/sa.pub")...))
	}, id: "sa-verify-key-missing", node: "cp1", path: pki + "sa.pub", links: []int{12}},
	{name: "a leaf's key is weak", brk: func(c *testpki.Cluster) { c.WeakKey("cp1", "front-proxy-client", "front-proxy-ca") },
		id: "key-weak", path: pki + "front-proxy-client.crt"},

	// Dates.
	{name: "a leaf has expired", at: days(3), brk: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver-kubelet-client", "ca", until(days(2))) },
		id: "cert-expired", path: pki + "apiserver-kubelet-client.crt", links: []int{11}},
	{name: "a kubeconfig's certificate has expired", at: days(3), brk: func(c *testpki.Cluster) { c.ReissueConf("cp1", "controller-manager.conf", "ca", until(days(2))) },
		id: "cert-expired", path: "/etc/kubernetes/controller-manager.conf", field: "users[system:kube-controller-manager].user.client-certificate-data", links: []int{5}},
	{name: "an authority has expired", at: days(3), brk: func(c *testpki.Cluster) { c.Resign("cp1", "front-proxy-ca", until(days(2))) },
		id: "cert-expired", path: pki + "front-proxy-ca.crt", links: []int{13}},
	{name: "a leaf is not valid yet", brk: func(c *testpki.Cluster) { c.Reissue("cp1", "etcd/server", "etcd/ca", from(days(5))) },
		id: "cert-not-yet-valid", path: pki + "etcd/server.crt", links: []int{2, 3, 15}},
	{name: "a leaf expires soon", at: days(300), brk: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", until(days(310))) },
		id: "cert-expiring", path: pki + "apiserver.crt"},
	{name: "a leaf outlives its authority", brk: func(c *testpki.Cluster) { c.Reissue("cp1", "etcd/peer", "etcd/ca", until(days(4000))) },
		id: "cert-outlives-ca", path: pki + "etcd/peer.crt"},
	{name: "a kubeconfig holds the expired certificate of a renewed authority", at: days(30), brk: func(c *testpki.Cluster) {
		renewed, key := c.Read("cp1", "pki/ca.crt"), c.Read("cp1", "pki/ca.key")
		c.Resign("cp1", "ca", until(days(20)))
		old := c.Read("cp1", "pki/ca.crt")
		c.Write("cp1", "pki/ca.crt", renewed)
		c.Write("cp1", "pki/ca.key", key)
		c.SetConfCA("cp1", "scheduler.conf", old)
	}, id: "bundle-expired", path: "/etc/kubernetes/scheduler.conf", links: []int{6}},

	// Kubeconfigs that parse and cannot work.
	{name: "a kubeconfig holds no credential", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "scheduler.conf", "    client-certificate-data: "+confField(c, "scheduler.conf", "client-certificate-data: ")+"\n", "")
		c.Edit("cp1", "scheduler.conf", "client-key-data: "+confField(c, "scheduler.conf", "client-key-data: "), "{}")
	}, id: "kubeconfig-broken", path: "/etc/kubernetes/scheduler.conf", links: []int{6}},
	{name: "a kubeconfig holds a key alone", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "scheduler.conf", "    client-certificate-data: "+confField(c, "scheduler.conf", "client-certificate-data: ")+"\n", "")
	}, id: "kubeconfig-broken", path: "/etc/kubernetes/scheduler.conf", field: "users[system:kube-scheduler].user.client-certificate-data", links: []int{6}},
	{name: "a kubeconfig names no authority", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "scheduler.conf", "    certificate-authority-data: "+confField(c, "scheduler.conf", "certificate-authority-data: ")+"\n", "")
	}, id: "kubeconfig-broken", path: "/etc/kubernetes/scheduler.conf", links: []int{6}},
	{name: "a kubeconfig dials no URL", brk: func(c *testpki.Cluster) { c.Edit("cp1", "scheduler.conf", "https://10.0.0.11:6443", "10.0.0.11:6443") },
		id: "kubeconfig-broken", path: "/etc/kubernetes/scheduler.conf", field: "clusters[kubernetes].cluster.server", links: []int{6}},
	{name: "a kubeconfig dials without TLS", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "scheduler.conf", "https://10.0.0.11:6443", "http://10.0.0.11:6443")
	},
		id: "plain-http", path: "/etc/kubernetes/scheduler.conf", field: "clusters[kubernetes].cluster.server"},
	{name: "a kubeconfig asks for a name that nobody has", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "scheduler.conf", "    server: https://10.0.0.11:6443\n", "    server: https://10.0.0.11:6443\n    tls-server-name: foo.bar\n")
	}, id: "endpoint-mismatch", path: "/etc/kubernetes/scheduler.conf", field: "clusters[kubernetes].cluster.tls-server-name", links: []int{6}},

	// Usages and identities.
	{name: "a server's certificate is for clients alone", brk: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", usages(x509.ExtKeyUsageClientAuth)) },
		id: "usage-missing", path: pki + "apiserver.crt", links: []int{4, 5, 6, 8, 9, 17}},
	{name: "etcd's server certificate is for servers alone, and its gateway dials with it", brk: func(c *testpki.Cluster) {
		c.Reissue("cp1", "etcd/server", "etcd/ca", usages(x509.ExtKeyUsageServerAuth))
	},
		id: "usage-missing", path: pki + "etcd/server.crt"},
	{name: "a leaf's key is on a curve that TLS does not know", brk: func(c *testpki.Cluster) { c.CurveKey("cp1", "apiserver", "ca") },
		id: "key-weak", path: pki + "apiserver.crt", links: []int{4, 5, 6, 8, 9, 17}},
	{name: "a peer's certificate is for servers alone", brk: func(c *testpki.Cluster) { c.Reissue("cp1", "etcd/peer", "etcd/ca", usages(x509.ExtKeyUsageServerAuth)) },
		id: "usage-missing", path: pki + "etcd/peer.crt", links: []int{1}},
	{name: "a kubeconfig's certificate is for servers alone", brk: func(c *testpki.Cluster) {
		c.ReissueConf("cp1", "scheduler.conf", "ca", usages(x509.ExtKeyUsageServerAuth))
	}, id: "usage-missing", path: "/etc/kubernetes/scheduler.conf", links: []int{6}},
	{name: "a leaf may sign", brk: func(c *testpki.Cluster) {
		c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) { x.IsCA = true; x.KeyUsage |= x509.KeyUsageCertSign })
	}, id: "usage-excess", path: pki + "apiserver.crt"},
	{name: "a leaf has any usage", brk: func(c *testpki.Cluster) {
		c.Reissue("cp1", "apiserver-etcd-client", "etcd/ca", usages(x509.ExtKeyUsageAny))
	},
		id: "usage-excess", path: pki + "apiserver-etcd-client.crt"},
	{name: "the scheduler is somebody else", brk: func(c *testpki.Cluster) { c.ReissueConf("cp1", "scheduler.conf", "ca", named("system:scheduler")) },
		id: "identity-wrong", path: "/etc/kubernetes/scheduler.conf", links: []int{6}},
	{name: "a kubelet is not among the nodes", brk: func(c *testpki.Cluster) { c.ReissueConf("cp1", "kubelet.conf", "ca", named("system:node:cp1")) },
		id: "identity-wrong", path: "/etc/kubernetes/kubelet.conf", links: []int{8}},
	{name: "a kubelet is another node", brk: func(c *testpki.Cluster) {
		c.ReissueConf("cp1", "kubelet.conf", "ca", named("system:node:other", "system:nodes"))
	}, id: "identity-wrong", path: "/etc/kubernetes/kubelet.conf", links: []int{8}},
	{name: "the controller-manager is a master", brk: func(c *testpki.Cluster) {
		c.ReissueConf("cp1", "controller-manager.conf", "ca", named("system:kube-controller-manager", "system:masters"))
	}, id: "identity-privileged", path: "/etc/kubernetes/controller-manager.conf"},
	{name: "the front proxy has another name", brk: func(c *testpki.Cluster) { c.Reissue("cp1", "front-proxy-client", "front-proxy-ca", named("proxy")) },
		id: "requestheader-name-mismatch", path: pki + "front-proxy-client.crt", links: []int{13}},
	{name: "two certificates have one serial", brk: func(c *testpki.Cluster) {
		one := func(x *x509.Certificate) { x.SerialNumber = big.NewInt(7) }
		c.Reissue("cp1", "apiserver", "ca", one)
		c.Reissue("cp1", "apiserver-kubelet-client", "ca", one)
	}, id: "serial-duplicate", path: pki + "apiserver.crt"},

	// Names.
	{name: "the apiserver lacks its advertise address", brk: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", without("10.0.0.11")) },
		id: "san-missing", path: pki + "apiserver.crt", links: []int{4, 5, 6, 8, 9}},
	{name: "the apiserver lacks its advertise address, without manifests", kind: testpki.Bare, brk: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", without("10.0.0.11")) },
		id: "san-missing", path: pki + "apiserver.crt", links: []int{4, 5, 6, 8, 9}},
	{name: "the apiserver lacks the service's name", brk: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", without("kubernetes.default.svc")) },
		id: "san-missing", path: pki + "apiserver.crt", links: []int{4, 17}},
	{name: "the apiserver lacks the service's address", brk: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", without("10.96.0.1")) },
		id: "san-missing", path: pki + "apiserver.crt", links: []int{4, 17}},
	{name: "the apiserver lacks its node's name", brk: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", without("cp1")) },
		id: "san-missing", path: pki + "apiserver.crt", links: []int{4}},
	{name: "the apiserver lacks the service's full name", brk: func(c *testpki.Cluster) {
		c.Reissue("cp1", "apiserver", "ca", without("kubernetes.default.svc.cluster.local"))
	},
		id: "san-missing", path: pki + "apiserver.crt", links: []int{4, 17}},
	{name: "the apiserver lacks its node's name, without manifests", kind: testpki.Bare, brk: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", without("cp1")) },
		id: "san-missing", path: pki + "apiserver.crt", links: []int{4}},
	{name: "the apiserver lacks the service's address, without manifests", kind: testpki.Bare, brk: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", without("10.96.0.1")) },
		id: "san-missing", path: pki + "apiserver.crt", links: []int{4, 17}},
	{name: "the apiserver lacks the service's full name, without manifests", kind: testpki.Bare, brk: func(c *testpki.Cluster) {
		c.Reissue("cp1", "apiserver", "ca", without("kubernetes.default.svc.cluster.local"))
	},
		id: "san-missing", path: pki + "apiserver.crt", links: []int{4, 17}},
	{name: "a certificate's key may not sign handshakes", brk: func(c *testpki.Cluster) {
		c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) { x.KeyUsage = x509.KeyUsageKeyEncipherment })
	}, id: "usage-missing", path: pki + "apiserver.crt"},
	{name: "a kubelet is another node, without manifests", kind: testpki.Bare, brk: func(c *testpki.Cluster) {
		c.ReissueConf("cp1", "kubelet.conf", "ca", named("system:node:other", "system:nodes"))
	}, id: "identity-wrong", path: "/etc/kubernetes/kubelet.conf", links: []int{8}},
	{name: "one apiserver lacks the endpoint", kind: testpki.HA, brk: func(c *testpki.Cluster) { c.Reissue("cp2", "apiserver", "ca", without("api.example.test")) },
		id: "san-missing", node: "cp2", path: pki + "apiserver.crt", links: []int{4, 8, 9}},
	{name: "etcd lacks loopback", brk: func(c *testpki.Cluster) { c.Reissue("cp1", "etcd/server", "etcd/ca", without("127.0.0.1")) },
		id: "san-missing", path: pki + "etcd/server.crt", links: []int{2, 3, 15}},
	{name: "an etcd peer lacks its address", kind: testpki.HA, brk: func(c *testpki.Cluster) { c.Reissue("cp3", "etcd/peer", "etcd/ca", without("10.0.0.13")) },
		id: "san-missing", node: "cp3", path: pki + "etcd/peer.crt", links: []int{1}},
	{name: "a kubeconfig dials an address of nobody", brk: func(c *testpki.Cluster) { c.Edit("cp1", "scheduler.conf", "10.0.0.11:6443", "10.0.0.99:6443") },
		id: "endpoint-mismatch", path: "/etc/kubernetes/scheduler.conf", field: "clusters[kubernetes].cluster.server", links: []int{6}},
	{name: "a kubeconfig dials a port of nobody", brk: func(c *testpki.Cluster) { c.Edit("cp1", "scheduler.conf", "10.0.0.11:6443", "10.0.0.11:8443") },
		id: "endpoint-mismatch", path: "/etc/kubernetes/scheduler.conf", links: []int{6}},
	{name: "a worker dials an address of nobody", kind: testpki.HA, brk: func(c *testpki.Cluster) { c.Edit("w1", "kubelet.conf", "api.example.test", "old.example.test") },
		id: "endpoint-mismatch", node: "w1", path: "/etc/kubernetes/kubelet.conf", links: []int{8}},

	// Authorities.
	{name: "the cluster's authority was made anew", brk: func(c *testpki.Cluster) { c.Recreate("cp1", "ca") },
		id: "authority-recreated", path: pki + "ca.crt"},
	{name: "etcd's authority was made anew", brk: func(c *testpki.Cluster) { c.Recreate("cp1", "etcd/ca") },
		id: "authority-recreated", path: pki + "etcd/ca.crt", links: []int{1, 2, 3, 15}},
	{name: "the front proxy's authority was made anew", brk: func(c *testpki.Cluster) { c.Recreate("cp1", "front-proxy-ca") },
		id: "authority-recreated", path: pki + "front-proxy-client.crt", links: []int{13}},
	{name: "a leaf is of an older authority of the same name", brk: func(c *testpki.Cluster) { fromOld(c, "apiserver-kubelet-client", "ca") },
		id: "authority-recreated", path: pki + "apiserver-kubelet-client.crt", links: []int{11}},
	{name: "a leaf is of a foreign authority", brk: func(c *testpki.Cluster) { fromForeign(c, "apiserver", "ca") },
		id: "authority-unknown", path: pki + "apiserver.crt", links: []int{4, 5, 6, 8, 9, 17}},
	{name: "an etcd client is of the cluster's authority", brk: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver-etcd-client", "ca", nil) },
		id: "authority-unknown", path: pki + "apiserver-etcd-client.crt", links: []int{3}},
	{name: "a kubeconfig holds an old authority", brk: func(c *testpki.Cluster) { c.SetConfCA("cp1", "scheduler.conf", oldAuthority(c, "ca")) },
		id: "bundle-stale", path: "/etc/kubernetes/scheduler.conf", field: "clusters[kubernetes].cluster.certificate-authority-data", links: []int{6}},
	{name: "a kubeconfig holds a foreign authority", brk: func(c *testpki.Cluster) { c.SetConfCA("cp1", "admin.conf", c.Read("cp1", "pki/etcd/ca.crt")) },
		id: "bundle-stale", path: "/etc/kubernetes/admin.conf", links: []int{9}},
	{name: "a worker holds an old authority", kind: testpki.HA, brk: func(c *testpki.Cluster) { c.Write("w1", "pki/ca.crt", oldAuthority(c, "ca")) },
		id: "bundle-stale", node: "w1", path: pki + "ca.crt", links: []int{11}},
	{name: "the authority of etcd was overwritten with the cluster's", brk: func(c *testpki.Cluster) { c.Copy("cp1", "pki/ca.crt", "cp1", "pki/etcd/ca.crt") },
		id: "ca-key-mismatch", path: pki + "etcd/ca.crt"},
	{name: "one peer of three is of an older authority", kind: testpki.HA, brk: func(c *testpki.Cluster) { fromOld(c, "etcd/peer", "etcd/ca") },
		id: "authority-recreated", node: "cp1", path: pki + "etcd/peer.crt", links: []int{1}},
	{name: "one apiserver's client for kubelets is of an older authority", kind: testpki.HA, brk: func(c *testpki.Cluster) { fromOld(c, "apiserver-kubelet-client", "ca") },
		id: "authority-recreated", node: "cp1", path: pki + "apiserver-kubelet-client.crt", links: []int{11}},
	{name: "one control plane's authority was made anew", kind: testpki.HA, brk: func(c *testpki.Cluster) { c.Recreate("cp2", "ca") },
		id: "authority-recreated", node: "cp2", path: pki + "ca.crt"},
	{name: "one control plane's authority was made anew: etcd", kind: testpki.HA, brk: func(c *testpki.Cluster) { c.Recreate("cp3", "etcd/ca") },
		id: "authority-recreated", node: "cp3", path: pki + "etcd/ca.crt", links: []int{1, 2, 3, 15}},
	{name: "a kubeconfig is of an older cluster as a whole", brk: func(c *testpki.Cluster) { oldConf(c, "cp1", "admin.conf") },
		id: "bundle-stale", path: "/etc/kubernetes/admin.conf", links: []int{9}},
	{name: "a worker's kubeconfig is of an older cluster as a whole", kind: testpki.HA, brk: func(c *testpki.Cluster) { oldConf(c, "w1", "kubelet.conf") },
		id: "bundle-stale", node: "w1", path: "/etc/kubernetes/kubelet.conf", links: []int{8}},
	{name: "a worker's kubeconfig is a copy of another node's", kind: testpki.HA, brk: func(c *testpki.Cluster) { c.Copy("cp1", "kubelet.conf", "w1", "kubelet.conf") },
		id: "identity-wrong", node: "w1", path: "/etc/kubernetes/kubelet.conf"},
	{name: "the controller-manager has the scheduler's kubeconfig", brk: func(c *testpki.Cluster) { c.Copy("cp1", "scheduler.conf", "cp1", "controller-manager.conf") },
		id: "identity-wrong", path: "/etc/kubernetes/controller-manager.conf", links: []int{5}},
	{name: "one control plane has a service-account key pair of its own", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		pub, err := issue.EncodePublicKey(c.NewKey("cp2", "pki/sa.key", issue.ECDSAP256).Public())
		if err != nil {
			panic(err)
		}
		c.Write("cp2", "pki/sa.pub", pub)
	}, id: "sa-verify-key-missing", node: "cp2", path: pki + "sa.pub", links: []int{12}},
	{name: "the control planes have authorities of their own", kind: testpki.HA, brk: separate("cp2"),
		id: "ha-divergence", path: pki + "ca.crt"},
	{name: "the apiserver is told a wrong authority for etcd", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", "--etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt", "--etcd-cafile=/etc/kubernetes/pki/ca.crt")
	}, id: "authority-unknown", path: manifest + "kube-apiserver.yaml", field: "--etcd-cafile", links: []int{3}},
	{name: "an authority is none", brk: func(c *testpki.Cluster) {
		c.Resign("cp1", "front-proxy-ca", func(x *x509.Certificate) { x.IsCA = false })
	}, id: "ca-invalid", path: pki + "front-proxy-ca.crt", links: []int{13}},
	{name: "an authority may not sign", brk: func(c *testpki.Cluster) {
		c.Resign("cp1", "etcd/ca", func(x *x509.Certificate) { x.KeyUsage = x509.KeyUsageDigitalSignature })
	}, id: "ca-invalid", path: pki + "etcd/ca.crt", links: []int{1, 2, 3, 15}},
	{name: "an authority is constrained to other names", brk: func(c *testpki.Cluster) {
		c.Resign("cp1", "etcd/ca", func(x *x509.Certificate) {
			x.PermittedDNSDomainsCritical = true
			x.PermittedDNSDomains = []string{"example.test"}
		})
		c.Remove("cp1", "pki/etcd/peer.crt")
		c.Remove("cp1", "pki/etcd/peer.key")
		c.Copy("cp1", "pki/etcd/server.crt", "cp1", "pki/etcd/peer.crt")
		c.Copy("cp1", "pki/etcd/server.key", "cp1", "pki/etcd/peer.key")
		c.Chmod("cp1", "pki/etcd/peer.key", 0o600)
	}, id: "constraint-violated", path: pki + "etcd/ca.crt", links: []int{1, 2, 3, 15}},
	{name: "front proxy and clients share an authority", brk: func(c *testpki.Cluster) {
		c.Copy("cp1", "pki/ca.crt", "cp1", "pki/front-proxy-ca.crt")
		c.Copy("cp1", "pki/ca.key", "cp1", "pki/front-proxy-ca.key")
		c.Reissue("cp1", "front-proxy-client", "ca", nil)
	}, id: "authority-shared", path: pki + "front-proxy-ca.crt"},
	{name: "the front proxy's bundle holds the shared root", kind: testpki.Intermediate, brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/both.crt", append(c.Read("cp1", "pki/front-proxy-ca.crt"), c.Read("cp1", "pki/root-ca.crt")...))
		for _, m := range []string{"kube-apiserver", "kube-controller-manager"} {
			c.Edit("cp1", "manifests/"+m+".yaml", "--requestheader-client-ca-file=/etc/kubernetes/pki/front-proxy-ca.crt", "--requestheader-client-ca-file=/etc/kubernetes/pki/both.crt")
		}
	}, id: "authority-shared", path: pki + "both.crt"},
	{name: "a leaf lacks the intermediate", kind: testpki.Intermediate, brk: func(c *testpki.Cluster) {
		certs, err := trust.ParseCertificates(c.Read("cp1", "pki/apiserver.crt"))
		if err != nil {
			panic(err)
		}
		c.Write("cp1", "pki/apiserver.crt", trust.EncodeCertificates(certs[0]))
	}, id: "chain-incomplete", path: pki + "apiserver.crt"},
	{name: "the intermediate stands before the leaf", kind: testpki.Intermediate, brk: func(c *testpki.Cluster) {
		certs, err := trust.ParseCertificates(c.Read("cp1", "pki/apiserver.crt"))
		if err != nil {
			panic(err)
		}
		slices.Reverse(certs)
		c.Write("cp1", "pki/apiserver.crt", trust.EncodeCertificates(certs...))
	}, id: "chain-order", path: pki + "apiserver.crt"},

	// Configuration.
	{name: "any name may be the front proxy", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", "--requestheader-allowed-names=front-proxy-client", "--requestheader-allowed-names=")
	}, id: "requestheader-any-name", path: manifest + "kube-apiserver.yaml", field: "--requestheader-allowed-names"},
	{name: "etcd verifies no client", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/etcd.yaml", "    - --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt\n", "")
		c.Edit("cp1", "manifests/etcd.yaml", "    - --client-cert-auth=true\n", "")
	}, id: "client-auth-off", path: manifest + "etcd.yaml", field: "--trusted-ca-file"},
	{name: "etcd demands certificates and knows no authority", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/etcd.yaml", "    - --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt\n", "")
	}, id: "flag-conflict", path: manifest + "etcd.yaml", field: "--trusted-ca-file"},
	{name: "the front proxy's usual name is not allowed", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", "--requestheader-allowed-names=front-proxy-client", "--requestheader-allowed-names=foo,bar")
	}, id: "requestheader-name-mismatch", path: manifest + "kube-apiserver.yaml", field: "--requestheader-allowed-names", links: []int{13}},
	{name: "a flag names the key of another certificate", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", "--etcd-keyfile=/etc/kubernetes/pki/apiserver-etcd-client.key", "--etcd-keyfile=/etc/kubernetes/pki/apiserver.key")
	}, id: "key-mismatch", path: manifest + "kube-apiserver.yaml", field: "--etcd-keyfile", links: []int{3}},
	{name: "pods are given etcd's authority", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-controller-manager.yaml", "--root-ca-file=/etc/kubernetes/pki/ca.crt", "--root-ca-file=/etc/kubernetes/pki/etcd/ca.crt")
	}, id: "root-ca-mismatch", path: manifest + "kube-controller-manager.yaml", field: "--root-ca-file", links: []int{17}},
	{name: "a kubeconfig verifies nothing", brk: func(c *testpki.Cluster) {
		ca := confField(c, "admin.conf", "certificate-authority-data: ")
		c.Edit("cp1", "admin.conf", "certificate-authority-data: "+ca, "insecure-skip-tls-verify: true")
	}, id: "verify-off", path: "/etc/kubernetes/admin.conf"},
	{name: "etcd's clients speak without TLS", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/etcd.yaml", "--listen-client-urls=https://127.0.0.1:2379,https://10.0.0.11:2379", "--listen-client-urls=https://127.0.0.1:2379,http://10.0.0.11:2379")
	}, id: "plain-http", path: manifest + "etcd.yaml"},
	{name: "the controller-manager signs with a bundle", brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/signers.crt", append(c.Read("cp1", "pki/ca.crt"), c.Read("cp1", "pki/etcd/ca.crt")...))
		c.Edit("cp1", "manifests/kube-controller-manager.yaml", "--cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt", "--cluster-signing-cert-file=/etc/kubernetes/pki/signers.crt")
	}, id: "signer-not-single", path: pki + "signers.crt"},
	{name: "the controller-manager signs with an untrusted authority", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-controller-manager.yaml", "--cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt", "--cluster-signing-cert-file=/etc/kubernetes/pki/etcd/ca.crt")
		c.Edit("cp1", "manifests/kube-controller-manager.yaml", "--cluster-signing-key-file=/etc/kubernetes/pki/ca.key", "--cluster-signing-key-file=/etc/kubernetes/pki/etcd/ca.key")
	}, id: "signer-untrusted", path: manifest + "kube-controller-manager.yaml", field: "--cluster-signing-cert-file"},
	{name: "the controller-manager signs with a foreign certificate and the right key", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-controller-manager.yaml", "--cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt", "--cluster-signing-cert-file=/etc/kubernetes/pki/etcd/ca.crt")
	}, id: "ca-key-mismatch", path: manifest + "kube-controller-manager.yaml", field: "--cluster-signing-cert-file"},
	{name: "the controller-manager signs with a foreign key", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-controller-manager.yaml", "--cluster-signing-key-file=/etc/kubernetes/pki/ca.key", "--cluster-signing-key-file=/etc/kubernetes/pki/sa.key")
	}, id: "ca-key-mismatch", path: manifest + "kube-controller-manager.yaml", field: "--cluster-signing-key-file"},
	{name: "the apiserver admits the front proxy's clients instead of the cluster's", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", "--client-ca-file=/etc/kubernetes/pki/ca.crt", "--client-ca-file=/etc/kubernetes/pki/front-proxy-ca.crt")
	}, id: "authority-unknown", path: manifest + "kube-apiserver.yaml", field: "--client-ca-file", links: []int{5, 6, 8, 9}},
	{name: "a client's certificate has no subject", brk: func(c *testpki.Cluster) { c.ReissueConf("cp1", "admin.conf", "ca", named("")) },
		id: "identity-wrong", path: "/etc/kubernetes/admin.conf", links: []int{9}},
	{name: "an authority may sign for servers alone", brk: func(c *testpki.Cluster) {
		c.Resign("cp1", "front-proxy-ca", usages(x509.ExtKeyUsageServerAuth))
	}, id: "usage-missing", path: pki + "front-proxy-ca.crt", links: []int{13}},
	{name: "the cluster's authority was overwritten with etcd's, key and all", brk: func(c *testpki.Cluster) {
		c.Copy("cp1", "pki/etcd/ca.crt", "cp1", "pki/ca.crt")
		c.Copy("cp1", "pki/etcd/ca.key", "cp1", "pki/ca.key")
	}, id: "authority-unknown", path: pki + "ca.crt"},
	{name: "the front proxy has the certificate for kubelets", brk: func(c *testpki.Cluster) {
		c.Copy("cp1", "pki/apiserver-kubelet-client.crt", "cp1", "pki/front-proxy-client.crt")
		c.Copy("cp1", "pki/apiserver-kubelet-client.key", "cp1", "pki/front-proxy-client.key")
	}, id: "authority-unknown", path: pki + "front-proxy-client.crt", links: []int{13}},
	{name: "the workers' kubeconfigs are swapped for another's", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		c.ReissueConf("cp1", "kubelet.conf", "ca", named("system:node:zzz", "system:nodes"))
		c.Copy("cp1", "kubelet.conf", "w1", "kubelet.conf")
		c.ReissueConf("cp1", "kubelet.conf", "ca", named("system:node:cp1", "system:nodes"))
	}, id: "identity-wrong", node: "w1", path: "/etc/kubernetes/kubelet.conf", links: []int{8}},
	{name: "a worker holds an old authority, and the cluster's key is elsewhere", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		old := oldAuthority(c, "ca")
		for _, n := range []string{"cp1", "cp2", "cp3"} {
			c.Remove(n, "pki/ca.key")
			for _, half := range []string{"cert", "key"} {
				file := map[string]string{"cert": "ca.crt", "key": "ca.key"}[half]
				c.Edit(n, "manifests/kube-controller-manager.yaml", "    - --cluster-signing-"+half+"-file=/etc/kubernetes/pki/"+file+"\n", "")
			}
		}
		c.Write("w1", "pki/ca.crt", old)
	}, id: "bundle-stale", node: "w1", path: pki + "ca.crt", links: []int{11}},
	{name: "a worker is of another cluster", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		oldConf(c, "w1", "kubelet.conf")
		c.Write("w1", "pki/ca.crt", c.ConfCA("w1", "kubelet.conf"))
	}, id: "bundle-stale", node: "w1", path: "/etc/kubernetes/kubelet.conf"},
	{name: "one control plane's front proxy has an authority of its own", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		c.Recreate("cp3", "front-proxy-ca")
		c.Reissue("cp3", "front-proxy-client", "front-proxy-ca", nil)
	}, id: "ha-divergence", node: "cp3", path: pki + "front-proxy-ca.crt"},
	{name: "a certificate was altered after it was signed", brk: func(c *testpki.Cluster) { c.Alter("cp1", "pki/apiserver.crt") },
		id: "authority-unknown", path: pki + "apiserver.crt", links: []int{4, 5, 6, 8, 9, 17}},
	{name: "a kubelet's serving certificate is missing beside its key", kind: testpki.KubeletCA, brk: func(c *testpki.Cluster) { c.Remove("w1", "/var/lib/kubelet/pki/kubelet.crt") },
		id: "file-missing", node: "w1", path: "/var/lib/kubelet/pki/kubelet.crt", links: []int{10, 11}},
	{name: "front proxy's bundle became the shared root", kind: testpki.Intermediate, brk: func(c *testpki.Cluster) { c.Copy("cp1", "pki/root-ca.crt", "cp1", "pki/front-proxy-ca.crt") },
		id: "authority-shared", path: pki + "front-proxy-ca.crt"},
	{name: "pods are given a foreign authority", brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/pods.crt", oldAuthority(c, "ca"))
		c.Edit("cp1", "manifests/kube-controller-manager.yaml", "--root-ca-file=/etc/kubernetes/pki/ca.crt", "--root-ca-file=/etc/kubernetes/pki/pods.crt")
	}, id: "root-ca-mismatch", path: manifest + "kube-controller-manager.yaml", field: "--root-ca-file", links: []int{17}},
	{name: "an authority's key is on a worker", kind: testpki.HA, brk: func(c *testpki.Cluster) { c.Copy("cp1", "pki/ca.key", "w1", "pki/ca.key") },
		id: "ca-key-present", node: "w1", path: pki + "ca.key"},
	{name: "one control plane issues tokens under another name", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		c.Edit("cp2", "manifests/kube-apiserver.yaml", "--service-account-issuer=https://kubernetes.default.svc.cluster.local", "--service-account-issuer=https://issuer.example.test")
	}, id: "sa-issuer-mismatch", node: "cp2", path: manifest + "kube-apiserver.yaml", field: "--service-account-issuer"},
	{name: "tokens are accepted from a file", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", "    - --allow-privileged=true\n", "    - --allow-privileged=true\n    - --token-auth-file=/etc/kubernetes/tokens.csv\n")
	}, id: "static-token-file", path: manifest + "kube-apiserver.yaml", field: "--token-auth-file"},
	{name: "the apiserver allows everything", brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", "--authorization-mode=Node,RBAC", "--authorization-mode=AlwaysAllow")
	}, id: "authorization-open", path: manifest + "kube-apiserver.yaml", field: "--authorization-mode"},
	{name: "the kubelet answers anybody", brk: func(c *testpki.Cluster) { kubelet(c, "authentication: {anonymous: {enabled: true}}") },
		id: "anonymous-on", path: kubeletConfig},
	{name: "the kubelet allows everything", brk: func(c *testpki.Cluster) { kubelet(c, "authorization: {mode: AlwaysAllow}") },
		id: "authorization-open", path: kubeletConfig},
	{name: "the kubelet has a port for everybody to read", brk: func(c *testpki.Cluster) { kubelet(c, "readOnlyPort: 10255") },
		id: "authorization-open", path: kubeletConfig},
	{name: "a kubelet serves what it made itself, and is to be verified", kind: testpki.KubeletCA, brk: func(c *testpki.Cluster) { c.SelfMade("w1", "/var/lib/kubelet/pki/kubelet") },
		id: "kubelet-serving-self-signed", node: "w1", path: "/var/lib/kubelet/pki/kubelet.crt", severity: check.Warning},
	{name: "the bootstrap kubeconfig is still there", brk: func(c *testpki.Cluster) { c.Copy("cp1", "kubelet.conf", "cp1", "bootstrap-kubelet.conf") },
		id: "bootstrap-leftover", path: "/etc/kubernetes/bootstrap-kubelet.conf", wide: true},

	// What runs.
	{name: "the apiserver presents another certificate than its file holds", brk: func(c *testpki.Cluster) { c.Reissue("cp1", "apiserver", "ca", nil) }, live: asItIs,
		id: "serving-stale", path: pki + "apiserver.crt", links: []int{}},
	{name: "etcd presents an expired certificate, and its file holds a good one", at: days(3), live: func(c *testpki.Cluster, r *testpki.Running) {
		good := c.Read("cp1", "pki/etcd/server.crt")
		c.Reissue("cp1", "etcd/server", "etcd/ca", until(days(2)))
		r.Start("10.0.0.11:2379", r.Etcd("cp1", "server"))
		c.Write("cp1", "pki/etcd/server.crt", good)
	}, id: "serving-stale", path: pki + "etcd/server.crt", links: []int{2, 3, 15}},
	{name: "a kubelet presents another certificate than its file holds", kind: testpki.KubeletCA, brk: func(c *testpki.Cluster) {
		c.Write("w1", "/var/lib/kubelet/pki/kubelet.crt", kubeletServing(c))
	}, live: asItIs, id: "serving-stale", node: "w1", path: "/var/lib/kubelet/pki/kubelet.crt", links: []int{}},
	{name: "etcd still trusts an authority of the same name that was made anew", brk: func(c *testpki.Cluster) {
		c.Recreate("cp1", "etcd/ca")
		for _, leaf := range []string{"etcd/server", "etcd/peer", "etcd/healthcheck-client", "apiserver-etcd-client"} {
			c.Reissue("cp1", leaf, "etcd/ca", nil)
		}
	}, live: func(_ *testpki.Cluster, r *testpki.Running) {
		// The pairs are read at each handshake, the authorities are not.
		for port, pair := range map[string]string{"2379": "server", "2380": "peer"} {
			fresh, old := r.Etcd("cp1", pair), r.Serving("10.0.0.11:"+port)
			fresh.Config.ClientCAs = old.Config.ClientCAs
			r.Start("10.0.0.11:"+port, fresh)
		}
	}, id: "trust-stale", path: pki + "etcd/ca.crt", links: []int{1, 3, 15}},
	{name: "the apiserver still trusts an authority of another name", live: func(_ *testpki.Cluster, r *testpki.Running) {
		s := r.APIServer("cp1")
		s.Config.ClientCAs = r.Serving("10.0.0.11:2379").Config.ClientCAs
		r.Start("10.0.0.11:6443", s)
	}, id: "trust-stale", path: pki + "ca.crt", links: []int{}},
	{name: "the apiserver verifies tokens with an old key", live: func(_ *testpki.Cluster, r *testpki.Running) { r.PublishKeys("old") },
		id: "trust-stale", path: pki + "sa.pub", links: []int{12}},
	{name: "the apiserver takes one more key for tokens", live: func(c *testpki.Cluster, r *testpki.Running) {
		r.PublishKeys(keyID(c, "cp1"), "old")
	}, id: "trust-stale", path: pki + "sa.pub", links: []int{}},
	{name: "pods are still told of an old authority", live: func(c *testpki.Cluster, r *testpki.Running) {
		r.Publish("/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt", map[string]any{"data": map[string]string{"ca.crt": string(oldAuthority(c, "ca"))}})
	}, id: "trust-stale", path: pki + "ca.crt", links: []int{}},
	{name: "extension apiservers are not told of the authority of clients", live: func(c *testpki.Cluster, r *testpki.Running) {
		r.Publish("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", map[string]any{"data": map[string]string{
			"client-ca-file": "", "requestheader-client-ca-file": string(c.Read("cp1", "pki/front-proxy-ca.crt")),
		}})
	}, id: "trust-stale", path: pki + "ca.crt", links: []int{}},
	{name: "extension apiservers still trust an old front proxy beside the new", live: func(c *testpki.Cluster, r *testpki.Running) {
		both := append(c.Read("cp1", "pki/front-proxy-ca.crt"), oldAuthority(c, "front-proxy-ca")...)
		r.Publish("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", map[string]any{"data": map[string]string{
			"client-ca-file": string(c.Read("cp1", "pki/ca.crt")), "requestheader-client-ca-file": string(both),
		}})
	}, id: "trust-stale", path: pki + "front-proxy-ca.crt", links: []int{}, severity: check.Warning},
	{name: "nobody answers for the apiserver", live: func(_ *testpki.Cluster, r *testpki.Running) { r.Stop("10.0.0.11:6443") },
		id: "unreachable", path: manifest + "kube-apiserver.yaml", links: []int{4, 5, 6, 8, 9, 17}},
	{name: "a member of etcd is dead, on both its ports", kind: testpki.HA, live: func(_ *testpki.Cluster, r *testpki.Running) {
		r.Stop("10.0.0.12:2379")
		r.Stop("10.0.0.12:2380")
	}, id: "unreachable", node: "cp2", path: manifest + "etcd.yaml", links: []int{1, 2, 3, 15}},
	{name: "the apiserver takes connections and says nothing", live: raw(func(net.Conn) {}),
		id: "unreachable", path: manifest + "kube-apiserver.yaml"},
	{name: "the apiserver shakes hands and answers nobody", live: func(_ *testpki.Cluster, r *testpki.Running) {
		s := r.APIServer("cp1")
		s.Handler = http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() })
		r.Start("10.0.0.11:6443", s)
	}, id: "unreachable", path: manifest + "kube-apiserver.yaml", links: []int{5, 6, 8, 9}},
	{name: "the apiserver is down for want of a certificate that parses", brk: func(c *testpki.Cluster) { c.Write("cp1", "pki/apiserver.crt", []byte("junk")) },
		live: func(_ *testpki.Cluster, r *testpki.Running) { r.Stop("10.0.0.11:6443") }, id: "cert-malformed", path: pki + "apiserver.crt"},
	{name: "a file is gone, and its process goes on with it", brk: func(c *testpki.Cluster) { c.Remove("cp1", "pki/etcd/server.crt") }, live: asItIs,
		id: "file-missing", path: pki + "etcd/server.crt", links: []int{2, 3, 15}},
	{name: "a kubelet does not know the apiserver's certificate", kind: testpki.KubeletCA, live: func(_ *testpki.Cluster, r *testpki.Running) {
		s := r.Kubelet("w1")
		s.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
		r.Start("10.0.0.21:10250", s)
	}, id: "trust-stale", node: "w1", path: pki + "ca.crt", links: []int{11}},
	{name: "a kubelet has no serving certificate yet", kind: testpki.KubeletCA, live: func(_ *testpki.Cluster, r *testpki.Running) {
		s := r.Kubelet("w1")
		s.Config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return nil, errors.New("no serving certificate available")
		}
		r.Start("10.0.0.21:10250", s)
	}, id: "refused", node: "w1", path: "/var/lib/kubelet/pki/kubelet.crt", links: []int{10, 11}},
	{name: "a plain HTTP server answers for the apiserver", live: raw(func(conn net.Conn) {
		fmt.Fprint(conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
		conn.Close()
	}), id: "unreachable", path: manifest + "kube-apiserver.yaml"},
	{name: "the balancer before the apiservers is dead", kind: testpki.HA, live: func(_ *testpki.Cluster, r *testpki.Running) { r.Name("api.example.test", "10.0.0.99") },
		id: "unreachable", node: "w1", path: "/etc/kubernetes/kubelet.conf", field: "clusters[kubernetes].cluster.server", links: []int{8, 9}},
	{name: "another cluster answers at the endpoint", kind: testpki.HA, live: func(_ *testpki.Cluster, r *testpki.Running) {
		r.Start("10.0.0.99:6443", r.Etcd("cp1", "peer"))
		r.Name("api.example.test", "10.0.0.99")
	}, id: "authority-unknown", node: "w1", path: "/etc/kubernetes/kubelet.conf", links: []int{8, 9}},
	{name: "the apiserver shakes hands with nobody", live: func(_ *testpki.Cluster, r *testpki.Running) {
		s := r.APIServer("cp1")
		s.Config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errors.New("not now") }
		r.Start("10.0.0.11:6443", s)
	}, id: "refused", path: manifest + "kube-apiserver.yaml", links: []int{4, 5, 6, 8, 9, 17}},
	{name: "etcd's clock is years ahead", live: func(_ *testpki.Cluster, r *testpki.Running) {
		s := r.Etcd("cp1", "server")
		s.Config.Time = func() time.Time { return days(3000) }
		r.Start("10.0.0.11:2379", s)
	}, id: "refused", path: manifest + "etcd.yaml", links: []int{3, 15}},
	{name: "etcd refuses one caller", live: func(c *testpki.Cluster, r *testpki.Running) {
		s := r.Etcd("cp1", "server")
		s.Config.VerifyConnection = func(state tls.ConnectionState) error {
			if state.PeerCertificates[0].Subject.CommonName == "kube-etcd-healthcheck-client" {
				return errors.New("not you")
			}
			return nil
		}
		r.Start("10.0.0.11:2379", s)
	}, id: "trust-stale", path: pki + "etcd/ca.crt", links: []int{15}},
	{name: "something takes every caller for nobody", live: func(_ *testpki.Cluster, r *testpki.Running) { r.Identify(onlyScheduler) },
		id: "identity-wrong", path: "/etc/kubernetes/scheduler.conf", links: []int{6}},
}

func asItIs(*testpki.Cluster, *testpki.Running) {}

// raw lets the apiserver's port do something else than TLS.
func raw(do func(net.Conn)) func(*testpki.Cluster, *testpki.Running) {
	return func(_ *testpki.Cluster, r *testpki.Running) { r.Start("10.0.0.11:6443", testpki.Serving{Raw: do}) }
}

// onlyScheduler takes the scheduler for nobody.
func onlyScheduler(c *x509.Certificate) (string, []string) {
	if c.Subject.CommonName == "system:kube-scheduler" {
		return "system:anonymous", []string{"system:unauthenticated"}
	}
	return c.Subject.CommonName, append(c.Subject.Organization, "system:authenticated")
}

// kubeletServing is w1's serving certificate, signed once more.
func kubeletServing(c *testpki.Cluster) []byte {
	c.Write("cp1", "pki/kubelet.crt", c.Read("w1", "/var/lib/kubelet/pki/kubelet.crt"))
	c.Reissue("cp1", "kubelet", "kubelet-ca", nil)
	fresh := c.Read("cp1", "pki/kubelet.crt")
	c.Remove("cp1", "pki/kubelet.crt")
	return fresh
}

// TestOneFaultIsOneFinding breaks one thing in a healthy cluster and wants the
// one finding, at its place, and nothing else of weight.
func TestOneFaultIsOneFinding(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			kind := m.kind
			if kind == "" {
				kind = testpki.Single
			}
			c := testpki.New(t, kind)
			r := m.verify(t, c)
			got := weighty(r)
			if len(got) != 1 {
				t.Fatalf("want the one finding %s at %s, got:\n%s", m.id, m.path, describe(got))
			}
			f := got[0]
			if f.ID != m.id || f.Path != m.path || m.node != "" && f.Node != m.node || m.field != "" && f.Field != m.field {
				t.Errorf("want %s at %s %s %s, got:\n%s", m.id, m.node, m.path, m.field, describe(got))
			}
			if m.links != nil && !slices.Equal(f.Links, m.links) {
				t.Errorf("links: want %v, got %v", m.links, f.Links)
			}
			if f.Cause == "" || f.Fix == "" || !strings.Contains(f.Cause, m.says) {
				t.Errorf("a finding says its cause (%s) and its fix: %+v", m.says, f)
			}
			if want := m.wantSeverity(); f.Severity != want {
				t.Errorf("severity: want %s, got %s", want, f.Severity)
			}
			explained(t, r)
		})
	}
}

func (m *mutation) wantSeverity() check.Severity {
	if m.severity != "" {
		return m.severity
	}
	rules := check.Rules()
	return rules[slices.IndexFunc(rules, func(r check.Rule) bool { return r.ID == m.id })].Severity
}

func (m *mutation) verify(t *testing.T, c *testpki.Cluster) *check.Result {
	t.Helper()
	if m.live == nil {
		m.brk(c)
		return c.Verify(check.Options{At: m.at})
	}
	running := run(t, c)
	if m.brk != nil {
		m.brk(c)
	}
	m.live(c, running)
	return c.VerifyLive(check.Options{At: m.at}, running)
}

// explained: each broken half has a finding, and each link named is broken.
func explained(t *testing.T, r *check.Result) {
	t.Helper()
	for i := range r.Links {
		l := &r.Links[i]
		if l.OK() != (len(l.Findings) == 0) {
			t.Errorf("link %d %s → %s: ok is %v, findings are %v", l.Number, l.Caller, l.Callee, l.OK(), l.Findings)
		}
	}
}

func weighty(r *check.Result) []check.Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f check.Finding) bool { return f.Severity == check.Info })
}

func describe(findings []check.Finding) string {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "  %s %s %s:%s %s links %v\n    %s\n    hence %v\n", f.Severity, f.ID, f.Node, f.Path, f.Field, f.Links, f.Cause, f.Consequences)
	}
	return b.String()
}

// TestHealthyClustersHaveNoFinding: not an error, not a warning, but for the
// shape that is a weakness by itself.
func TestHealthyClustersHaveNoFinding(t *testing.T) {
	for kind, want := range map[testpki.Kind][]string{
		testpki.Single: nil, testpki.Bare: nil, testpki.HA: nil, testpki.Intermediate: nil, testpki.KubeletCA: nil, testpki.ExternalEtcd: nil,
		testpki.Shared: {"authority-shared"},
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			r := testpki.New(t, kind).Verify(check.Options{})
			var got []string
			for _, f := range weighty(r) {
				got = append(got, f.ID)
			}
			if !slices.Equal(got, want) {
				t.Errorf("want %v, got:\n%s", want, describe(weighty(r)))
			}
			for i := range r.Links {
				for _, h := range r.Links[i].Halves {
					if h.State == check.OK && h.Proof != check.ByHandshake && h.Proof != check.BySignature {
						t.Errorf("link %d %s → %s, %s: proved only by %s", r.Links[i].Number, r.Links[i].Caller, r.Links[i].Callee, h.Side, h.Proof)
					}
				}
			}
		})
	}
}

const kubeletConfig = "/var/lib/kubelet/config.yaml"

// kubelet writes the kubelet's configuration with a line more than kubeadm's.
func kubelet(c *testpki.Cluster, line string) {
	c.Write("cp1", kubeletConfig, []byte("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"+line+"\n"))
}

// withoutRow are the rules that no mutation shows: what they find are infos.
var withoutRow = []string{"not-seen", "sa-token-legacy"}

// TestEveryRuleHasItsMutation: a rule that no row breaks something for is a
// rule that nobody knows to work.
func TestEveryRuleHasItsMutation(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range check.Rules() {
		if seen[r.ID] {
			t.Errorf("rule %s is there twice", r.ID)
		}
		seen[r.ID] = true
		has := slices.ContainsFunc(mutations, func(m mutation) bool { return m.id == r.ID }) || slices.ContainsFunc(objectRows, func(o objectRow) bool { return o.id == r.ID })
		if exempt := slices.Contains(withoutRow, r.ID); has == exempt {
			t.Errorf("rule %s: a row %v, exempt %v", r.ID, has, exempt)
		}
	}
	for _, m := range mutations {
		if !seen[m.id] {
			t.Errorf("%s: no rule is called %s", m.name, m.id)
		}
	}
}

func confField(c *testpki.Cluster, conf, field string) string {
	_, rest, _ := strings.Cut(string(c.Read("cp1", conf)), field)
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// oldAuthority returns the certificate of an authority of the same name with
// another key.
func oldAuthority(c *testpki.Cluster, name string) []byte {
	cert, key := c.Read("cp1", "pki/"+name+".crt"), c.Read("cp1", "pki/"+name+".key")
	c.Recreate("cp1", name)
	old := c.Read("cp1", "pki/"+name+".crt")
	c.Write("cp1", "pki/"+name+".crt", cert)
	c.Write("cp1", "pki/"+name+".key", key)
	return old
}

func fromOld(c *testpki.Cluster, leaf, name string) {
	cert, key := c.Read("cp1", "pki/"+name+".crt"), c.Read("cp1", "pki/"+name+".key")
	c.Recreate("cp1", name)
	c.Reissue("cp1", leaf, name, nil)
	c.Write("cp1", "pki/"+name+".crt", cert)
	c.Write("cp1", "pki/"+name+".key", key)
}

func fromForeign(c *testpki.Cluster, leaf, name string) {
	cert, key := c.Read("cp1", "pki/"+name+".crt"), c.Read("cp1", "pki/"+name+".key")
	c.Recreate("cp1", name)
	c.Rename("cp1", name, "somebody else")
	c.Reissue("cp1", leaf, name, nil)
	c.Write("cp1", "pki/"+name+".crt", cert)
	c.Write("cp1", "pki/"+name+".key", key)
}

// oldConf gives a kubeconfig the authority and certificate of an older cluster.
func oldConf(c *testpki.Cluster, node, conf string) {
	cert, key := c.Read("cp1", "pki/ca.crt"), c.Read("cp1", "pki/ca.key")
	c.Recreate("cp1", "ca")
	c.Copy("cp1", "pki/ca.crt", node, "pki/ca.crt")
	c.Copy("cp1", "pki/ca.key", node, "pki/ca.key")
	c.ReissueConf(node, conf, "ca", nil)
	c.SetConfCA(node, conf, c.Read(node, "pki/ca.crt"))
	if node != "cp1" {
		c.Remove(node, "pki/ca.key")
	}
	c.Write(node, "pki/ca.crt", cert)
	c.Write("cp1", "pki/ca.crt", cert)
	c.Write("cp1", "pki/ca.key", key)
}

// separate gives a control plane authorities and certificates of its own.
func separate(node string) func(c *testpki.Cluster) {
	return func(c *testpki.Cluster) {
		c.Recreate(node, "ca")
		for _, leaf := range []string{"apiserver", "apiserver-kubelet-client"} {
			c.Reissue(node, leaf, "ca", nil)
		}
		for _, conf := range []string{"admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf"} {
			c.ReissueConf(node, conf, "ca", nil)
			c.SetConfCA(node, conf, c.Read(node, "pki/ca.crt"))
		}
	}
}
