package check_test

import (
	"bytes"
	"crypto/x509"
	"os"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/testpki"
)

// configurationMutations break flags, configuration and addresses.
var configurationMutations = []mutation{
	// The front proxy's names.
	{name: "an allowed name of front proxies begins with a blank", brk: setFlag("kube-apiserver", "requestheader-allowed-names", "front-proxy-client", "aggregator, front-proxy-client"),
		id: "requestheader-name-mismatch", path: apiserverManifest, field: "--requestheader-allowed-names", links: []int{13}},
	{name: "the allowed names of front proxies are a comma", brk: setFlag("kube-apiserver", "requestheader-allowed-names", "front-proxy-client", `","`),
		id: "requestheader-name-mismatch", path: apiserverManifest, field: "--requestheader-allowed-names", links: []int{13}},
	{name: "allowed names of front proxies are not set", brk: func(c *testpki.Cluster) {
		dropFlag(c, "kube-apiserver", "requestheader-allowed-names", "front-proxy-client")
	}, id: "requestheader-any-name", path: apiserverManifest, field: "--requestheader-allowed-names"},
	{name: "any name may be the front proxy, on one node of three", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		c.Edit("cp2", "manifests/kube-apiserver.yaml", "--requestheader-allowed-names=front-proxy-client", "--requestheader-allowed-names=")
	}, id: "requestheader-any-name", node: "cp2", path: apiserverManifest},

	// Who is let in.
	{name: "the apiserver verifies no client", brk: func(c *testpki.Cluster) { dropFlag(c, "kube-apiserver", "client-ca-file", pki+"ca.crt") },
		id: "client-auth-off", path: apiserverManifest, field: "--client-ca-file"},
	{name: "etcd verifies no peer", brk: func(c *testpki.Cluster) {
		dropFlag(c, "etcd", "peer-trusted-ca-file", pki+"etcd/ca.crt")
		dropFlag(c, "etcd", "peer-client-cert-auth", "true")
	}, id: "client-auth-off", path: etcdManifest, field: "--peer-trusted-ca-file"},
	{name: "etcd demands peers' certificates and knows no authority", brk: func(c *testpki.Cluster) {
		dropFlag(c, "etcd", "peer-trusted-ca-file", pki+"etcd/ca.crt")
	}, id: "flag-conflict", path: etcdManifest, field: "--peer-trusted-ca-file"},
	{name: "one member of etcd verifies no client", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		c.Edit("cp3", "manifests/etcd.yaml", "    - --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt\n", "")
		c.Edit("cp3", "manifests/etcd.yaml", "    - --client-cert-auth=true\n", "    - --client-cert-auth=false\n")
	}, id: "client-auth-off", node: "cp3", path: etcdManifest, field: "--trusted-ca-file"},
	{name: "the kubelet's configuration names no authority for clients", brk: func(c *testpki.Cluster) {
		kubelet(c, "authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {}}\nauthorization: {mode: Webhook}")
	}, id: "client-auth-off", path: kubeletConfig, field: "authentication.x509.clientCAFile"},
	{name: "anonymous users may do everything", brk: func(c *testpki.Cluster) {
		setFlag("kube-apiserver", "authorization-mode", "Node,RBAC", "AlwaysAllow")(c)
	}, id: "authorization-open", path: apiserverManifest, field: "--authorization-mode"},
	{name: "the apiserver allows everything after all else", brk: setFlag("kube-apiserver", "authorization-mode", "Node,RBAC", "Node,RBAC,AlwaysAllow"),
		id: "authorization-open", path: apiserverManifest, field: "--authorization-mode"},

	// Addresses.
	{name: "etcd's peers speak without TLS", brk: setFlag("etcd", "listen-peer-urls", "https://10.0.0.11:2380", "http://10.0.0.11:2380"),
		id: "plain-http", path: etcdManifest, field: "--listen-peer-urls"},
	{name: "etcd's clients speak without TLS on loopback", brk: setFlag("etcd", "listen-client-urls", "https://127.0.0.1:2379,https://10.0.0.11:2379", "http://127.0.0.1:2379,https://10.0.0.11:2379"),
		id: "plain-http", path: etcdManifest, field: "--listen-client-urls", severity: check.Warning},
	{name: "etcd's clients speak without TLS on loopback and beyond", brk: setFlag("etcd", "listen-client-urls", "https://127.0.0.1:2379,https://10.0.0.11:2379", "http://127.0.0.1:2379,http://10.0.0.11:2379"),
		id: "plain-http", path: etcdManifest, field: "--listen-client-urls", says: "10.0.0.11"},
	{name: "etcd's clients speak without TLS at every address", brk: setFlag("etcd", "listen-client-urls", "https://127.0.0.1:2379,https://10.0.0.11:2379", "http://0.0.0.0:2379,https://10.0.0.11:2379"),
		id: "plain-http", path: etcdManifest, field: "--listen-client-urls"},
	{name: "the apiserver dials etcd without TLS", brk: setFlag("kube-apiserver", "etcd-servers", "https://127.0.0.1:2379", "http://10.0.0.11:2379"),
		id: "plain-http", path: apiserverManifest, field: "--etcd-servers"},
	{name: "a kubeconfig dials loopback without TLS", brk: func(c *testpki.Cluster) { dial(c, "http://localhost:8080", "scheduler.conf") },
		id: "plain-http", path: "/etc/kubernetes/scheduler.conf", severity: check.Warning},
	{name: "a worker dials a port of nobody", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		c.Edit("w1", "kubelet.conf", "api.example.test:6443", "api.example.test:443")
	}, id: "endpoint-mismatch", node: "w1", path: "/etc/kubernetes/kubelet.conf", links: []int{8}},
	{name: "a kubeconfig dials an IPv6 address of nobody", brk: func(c *testpki.Cluster) { dial(c, "https://[fd00::99]:6443", "admin.conf") },
		id: "endpoint-mismatch", path: "/etc/kubernetes/admin.conf", links: []int{9}},
	{name: "the apiserver is reached at an IPv6 address that its certificate lacks", brk: func(c *testpki.Cluster) {
		setFlag("kube-apiserver", "advertise-address", "10.0.0.11", "fd00::11")(c)
		dial(c, "https://[fd00:0::11]:6443", allConfs...)
	}, id: "san-missing", path: pki + "apiserver.crt", says: "fd00::11"},
	{name: "the advertise address was moved", brk: setFlag("kube-apiserver", "advertise-address", "10.0.0.11", "10.0.0.12"),
		id: "san-missing", path: pki + "apiserver.crt", links: []int{4}, says: "10.0.0.12"},
	{name: "a kubelet's serving certificate lacks its node's name", kind: testpki.KubeletCA, brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/kubelet.crt", c.Read("w1", "/var/lib/kubelet/pki/kubelet.crt"))
		c.Reissue("cp1", "kubelet", "kubelet-ca", func(x *x509.Certificate) { x.DNSNames = []string{"other"} })
		c.Write("w1", "/var/lib/kubelet/pki/kubelet.crt", c.Read("cp1", "pki/kubelet.crt"))
		c.Remove("cp1", "pki/kubelet.crt")
	}, id: "san-missing", node: "w1", path: "/var/lib/kubelet/pki/kubelet.crt"},

	{name: "the endpoint has another name, in every kubeconfig", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		for _, n := range []string{"cp1", "cp2", "cp3", "w1"} {
			for _, conf := range allConfs {
				if text, err := os.ReadFile(c.Path(n, conf)); err == nil && bytes.Contains(text, []byte("api.example.test")) {
					c.Edit(n, conf, "api.example.test", "api2.example.test")
				}
			}
		}
	}, id: "san-missing", node: "cp1", path: pki + "apiserver.crt", links: []int{4, 8, 9}, says: "of 3 nodes does not hold api2.example.test", wide: true},
	{name: "the apiserver's port was moved", brk: setFlag("kube-apiserver", "secure-port", "6443", "7443"),
		id: "endpoint-mismatch", path: apiserverManifest, field: "--secure-port", links: []int{5, 6, 8, 9}, says: "7443"},

	// Flags that name wrong files.
	{name: "the apiserver serves with etcd's pair", brk: func(c *testpki.Cluster) {
		setFlag("kube-apiserver", "tls-cert-file", pki+"apiserver.crt", pki+"etcd/server.crt")(c)
		setFlag("kube-apiserver", "tls-private-key-file", pki+"apiserver.key", pki+"etcd/server.key")(c)
	}, id: "authority-unknown", path: apiserverManifest, field: "--tls-cert-file"},
	{name: "the apiserver shows its serving pair to kubelets", brk: func(c *testpki.Cluster) {
		setFlag("kube-apiserver", "kubelet-client-certificate", pki+"apiserver-kubelet-client.crt", pki+"apiserver.crt")(c)
		setFlag("kube-apiserver", "kubelet-client-key", pki+"apiserver-kubelet-client.key", pki+"apiserver.key")(c)
	}, id: "usage-missing", path: apiserverManifest, field: "--kubelet-client-certificate"},
	{name: "the apiserver shows its client for kubelets to etcd", brk: func(c *testpki.Cluster) {
		setFlag("kube-apiserver", "etcd-certfile", pki+"apiserver-etcd-client.crt", pki+"apiserver-kubelet-client.crt")(c)
		setFlag("kube-apiserver", "etcd-keyfile", pki+"apiserver-etcd-client.key", pki+"apiserver-kubelet-client.key")(c)
	}, id: "authority-unknown", path: apiserverManifest, field: "--etcd-certfile", links: []int{3}},
	{name: "a flag names the certificate of another role", brk: setFlag("kube-apiserver", "etcd-certfile", pki+"apiserver-etcd-client.crt", pki+"front-proxy-client.crt"),
		id: "key-mismatch", path: apiserverManifest, field: "--etcd-certfile", links: []int{3}},
	{name: "tokens are verified with the cluster's authority", brk: setFlag("kube-apiserver", "service-account-key-file", pki+"sa.pub", pki+"ca.crt"),
		id: "sa-verify-key-missing", path: apiserverManifest, field: "--service-account-key-file", links: []int{12}},
	{name: "the apiserver signs tokens with another key", brk: setFlag("kube-apiserver", "service-account-signing-key-file", pki+"sa.key", pki+"apiserver.key"),
		id: "sa-verify-key-missing", path: apiserverManifest, field: "--service-account-signing-key-file", links: []int{12}},
	{name: "the controller-manager signs tokens with another key", brk: setFlag("kube-controller-manager", "service-account-private-key-file", pki+"sa.key", pki+"ca.key"),
		id: "sa-verify-key-missing", path: managerManifest, field: "--service-account-private-key-file", links: []int{12}},
	{name: "the controller-manager has the scheduler's kubeconfig by flag", brk: setFlag("kube-controller-manager", "kubeconfig", "/etc/kubernetes/controller-manager.conf", "/etc/kubernetes/scheduler.conf"),
		id: "identity-wrong", path: managerManifest, field: "--kubeconfig", links: []int{5}},
	{name: "a flag names a file that is not there", brk: setFlag("kube-apiserver", "tls-cert-file", pki+"apiserver.crt", pki+"gone.crt"),
		id: "file-missing", path: pki + "gone.crt"},
	{name: "the apiserver verifies etcd with a leaf", brk: setFlag("kube-apiserver", "etcd-cafile", pki+"etcd/ca.crt", pki+"etcd/peer.crt"),
		id: "flag-conflict", path: apiserverManifest, field: "--etcd-cafile", links: []int{3}},
	{name: "the last of a repeated flag is wrong", brk: setFlag("kube-apiserver", "etcd-cafile", pki+"etcd/ca.crt", pki+"etcd/ca.crt\n    - --etcd-cafile="+pki+"front-proxy-ca.crt"),
		id: "authority-unknown", path: apiserverManifest, field: "--etcd-cafile", links: []int{3}},
	{name: "a key stands where an authority is needed, by flag", brk: setFlag("kube-apiserver", "client-ca-file", pki+"ca.crt", pki+"ca.key"),
		id: "flag-conflict", path: apiserverManifest, field: "--client-ca-file"},
	{name: "all kubeconfigs of a node hold an authority that expired", brk: func(c *testpki.Cluster) {
		old := expiredAnchor(c, "kubernetes")
		for _, conf := range allConfs {
			c.SetConfCA("cp1", conf, old)
		}
	}, id: "bundle-expired", path: "/etc/kubernetes/admin.conf", links: []int{5, 6, 8, 9}, wide: true},
	{name: "a certificate stands where a key is needed, by flag", brk: setFlag("kube-apiserver", "tls-private-key-file", pki+"apiserver.key", pki+"apiserver.crt"),
		id: "flag-conflict", path: apiserverManifest, field: "--tls-private-key-file"},
	{name: "the key of tokens stands where an authority is needed, by flag", brk: setFlag("kube-controller-manager", "root-ca-file", pki+"ca.crt", pki+"sa.pub"),
		id: "flag-conflict", path: managerManifest, field: "--root-ca-file"},
	{name: "the kubelet's configuration, complete otherwise, answers anybody", brk: func(c *testpki.Cluster) {
		kubelet(c, "authentication: {anonymous: {enabled: true}, webhook: {enabled: true}, x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}")
	}, id: "anonymous-on", path: kubeletConfig},
	{name: "etcd verifies peers with the cluster's authority", brk: setFlag("etcd", "peer-trusted-ca-file", pki+"etcd/ca.crt", pki+"ca.crt"),
		id: "authority-unknown", path: etcdManifest, field: "--peer-trusted-ca-file", links: []int{1}},

	{name: "kubelets serve certificates of an authority, and the apiserver does not look", kind: testpki.KubeletCA, brk: func(c *testpki.Cluster) {
		dropFlag(c, "kube-apiserver", "kubelet-certificate-authority", pki+"kubelet-ca.crt")
	}, id: "kubelet-unverified", node: "cp1", path: apiserverManifest, field: "--kubelet-certificate-authority", severity: check.Warning},

	// Flags of which one needs another.
	{name: "the apiserver's serving key is not named", brk: func(c *testpki.Cluster) {
		dropFlag(c, "kube-apiserver", "tls-private-key-file", pki+"apiserver.key")
	}, id: "flag-conflict", path: apiserverManifest, field: "--tls-private-key-file"},
	{name: "the certificate for etcd is not named, its key is", brk: func(c *testpki.Cluster) {
		dropFlag(c, "kube-apiserver", "etcd-certfile", pki+"apiserver-etcd-client.crt")
	}, id: "flag-conflict", path: apiserverManifest, field: "--etcd-certfile"},
	{name: "the authority of front proxies is not named, the proxy's pair is", brk: func(c *testpki.Cluster) {
		dropFlag(c, "kube-apiserver", "requestheader-client-ca-file", pki+"front-proxy-ca.crt")
	}, id: "flag-conflict", path: apiserverManifest, field: "--requestheader-client-ca-file"},
	{name: "etcd is to speak TLS and has no certificate", brk: func(c *testpki.Cluster) {
		dropFlag(c, "etcd", "cert-file", pki+"etcd/server.crt")
		dropFlag(c, "etcd", "key-file", pki+"etcd/server.key")
	}, id: "flag-conflict", path: etcdManifest, field: "--cert-file"},
	{name: "the apiserver is told no authority for etcd", brk: func(c *testpki.Cluster) { dropFlag(c, "kube-apiserver", "etcd-cafile", pki+"etcd/ca.crt") },
		id: "authority-unknown", path: apiserverManifest, field: "--etcd-cafile", links: []int{3}},

	// Keys where they should not be, and what signs.
	{name: "the cluster's authority has its key on a member of etcd", kind: testpki.ExternalEtcd, brk: func(c *testpki.Cluster) {
		c.Copy("cp1", "pki/ca.crt", "etcd1", "pki/ca.crt")
		c.Copy("cp1", "pki/ca.key", "etcd1", "pki/ca.key")
	}, id: "ca-key-present", node: "etcd1", path: pki + "ca.key"},
	{name: "the front proxy's authority has its key on a worker", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		c.Copy("cp1", "pki/front-proxy-ca.key", "w1", "pki/front-proxy-ca.key")
	}, id: "ca-key-present", node: "w1", path: pki + "front-proxy-ca.key"},
	{name: "an authority's key stands where the cluster signs elsewhere", brk: func(c *testpki.Cluster) {
		setFlag("kube-controller-manager", "cluster-signing-cert-file", pki+"ca.crt", "")(c)
		setFlag("kube-controller-manager", "cluster-signing-key-file", pki+"ca.key", "")(c)
	}, id: "ca-key-present", path: pki + "ca.key"},
	{name: "the controller-manager signs with a bundle in the authority's own file", brk: func(c *testpki.Cluster) {
		c.Write("cp1", "pki/ca.crt", append(c.Read("cp1", "pki/ca.crt"), oldAuthority(c, "ca")...))
	}, id: "signer-not-single", path: pki + "ca.crt"},
	{name: "the controller-manager signs with a leaf", brk: func(c *testpki.Cluster) {
		setFlag("kube-controller-manager", "cluster-signing-cert-file", pki+"ca.crt", pki+"apiserver.crt")(c)
		setFlag("kube-controller-manager", "cluster-signing-key-file", pki+"ca.key", pki+"apiserver.key")(c)
	}, id: "flag-conflict", path: managerManifest, field: "--cluster-signing-cert-file"},
	{name: "two apiservers of three issue under different names", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", "--service-account-issuer=https://kubernetes.default.svc.cluster.local", "--service-account-issuer=https://kubernetes.default.svc.example.test")
	}, id: "sa-issuer-mismatch", node: "cp1", path: apiserverManifest},
	{name: "a worker joined with a kubeconfig of a bootstrap token that is left", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		c.Copy("w1", "kubelet.conf", "w1", "bootstrap-kubelet.conf")
	}, id: "bootstrap-leftover", node: "w1", path: "/etc/kubernetes/bootstrap-kubelet.conf", wide: true},
	{name: "the kubelet's flag gives the node another name", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		c.Write("w1", "/var/lib/kubelet/kubeadm-flags.env", []byte("KUBELET_KUBEADM_ARGS=\"--hostname-override=worker-one\"\n"))
	}, id: "identity-wrong", node: "w1", path: "/etc/kubernetes/kubelet.conf", links: []int{8}},
	{name: "three control planes sign tokens with three keys", kind: testpki.HA, brk: func(c *testpki.Cluster) {
		for _, n := range []string{"cp2", "cp3"} {
			c.Write(n, "pki/sa.pub", publicKey(c.NewKey(n, "pki/sa.key", issue.ECDSAP256)))
		}
	}, id: "sa-verify-key-missing", node: "cp1", path: pki + "sa.pub", wide: true},
	{name: "all kubeconfigs of a node hold an old authority", brk: func(c *testpki.Cluster) {
		old := oldAuthority(c, "ca")
		for _, conf := range allConfs {
			c.SetConfCA("cp1", conf, old)
		}
	}, id: "bundle-stale", path: "/etc/kubernetes/admin.conf", wide: true, says: "4 more"},
}
