package check_test

import (
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

func b64(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

// microCluster is a cluster of MicroK8s.
type microCluster struct {
	nodes, workers []string
	rbac           bool
	old            bool // an older release: tokens in a file, one pair for server and kubelet client
}

const snapData = "/var/snap/microk8s/current"

func (c microCluster) address(node string) string {
	return fmt.Sprintf("10.0.2.%d", 10+slices.Index(append(slices.Clone(c.nodes), c.workers...), node))
}

func (c microCluster) build(t *testing.T) *tree {
	t.Helper()
	x := newTree(t)
	x.modes = 0o660
	for name, cn := range map[string]string{"ca": "10.152.183.1", "front-proxy-ca": "front-proxy-ca"} {
		x.ca(name, cn, 0, nil) // openssl req -x509 sets no usage
	}
	service, err := issue.EncodePrivateKey(x.newKey())
	x.must(err)
	for _, n := range c.nodes {
		c.snap(x, n)
		x.write(n, snapData+"/certs/serviceaccount.key", service, 0o660)
		c.server(x, n)
	}
	for _, n := range c.workers {
		c.snap(x, n)
		c.worker(x, n)
	}
	return x
}

// snap makes the link to the current revision, and the arguments.
func (c microCluster) snap(x *tree, node string) {
	x.must(os.MkdirAll(x.path(node, "/var/snap/microk8s/9072/certs"), 0o755))
	x.must(os.Symlink("9072", x.path(node, snapData)))
	arguments := func(name string, lines ...string) {
		x.write(node, snapData+"/args/"+name, []byte(strings.Join(lines, "\n")+"\n"), 0o660)
	}
	mode, client := "AlwaysAllow", "apiserver-kubelet-client"
	if c.rbac {
		mode = "RBAC,Node"
	}
	more := "--kubelet-certificate-authority=${SNAP_DATA}/certs/ca.crt"
	if c.old {
		client, more = "server", "--token-auth-file=${SNAP_DATA}/credentials/known_tokens.csv"
	}
	arguments("kube-apiserver", "--cert-dir=${SNAP_DATA}/certs", "--service-cluster-ip-range=10.152.183.0/24", "--authorization-mode="+mode,
		"--service-account-key-file=${SNAP_DATA}/certs/serviceaccount.key", "--client-ca-file=${SNAP_DATA}/certs/ca.crt",
		"--tls-cert-file=${SNAP_DATA}/certs/server.crt", "--tls-private-key-file=${SNAP_DATA}/certs/server.key",
		"--kubelet-client-certificate=${SNAP_DATA}/certs/"+client+".crt", "--kubelet-client-key=${SNAP_DATA}/certs/"+client+".key", "--secure-port=16443",
		`--etcd-servers="unix://${SNAP_DATA}/var/kubernetes/backend/kine.sock:12379"`, "--service-account-issuer='https://kubernetes.default.svc'",
		"--service-account-signing-key-file=${SNAP_DATA}/certs/serviceaccount.key", "", "# Enable the aggregation layer",
		"--requestheader-client-ca-file=${SNAP_DATA}/certs/front-proxy-ca.crt", "--requestheader-allowed-names=front-proxy-client",
		"--proxy-client-cert-file=${SNAP_DATA}/certs/front-proxy-client.crt", "--proxy-client-key-file=${SNAP_DATA}/certs/front-proxy-client.key",
		"#~Enable the aggregation layer", more)
	arguments("kube-controller-manager", "--kubeconfig=${SNAP_DATA}/credentials/controller.config", "--service-account-private-key-file=${SNAP_DATA}/certs/serviceaccount.key",
		"--root-ca-file=${SNAP_DATA}/certs/ca.crt", "--cluster-signing-cert-file=${SNAP_DATA}/certs/ca.crt", "--cluster-signing-key-file=${SNAP_DATA}/certs/ca.key",
		"--use-service-account-credentials", "--leader-elect-lease-duration=60s")
	arguments("kube-scheduler", "--kubeconfig=${SNAP_DATA}/credentials/scheduler.config")
	arguments("kube-proxy", "--kubeconfig=${SNAP_DATA}/credentials/proxy.config", "--healthz-bind-address=127.0.0.1")
	arguments("kubelet", "--resolv-conf=/run/systemd/resolve/resolv.conf", "--kubeconfig=${SNAP_DATA}/credentials/kubelet.config", "--cert-dir=${SNAP_DATA}/certs",
		"--client-ca-file=${SNAP_DATA}/certs/ca.crt", "--anonymous-auth=false", "--root-dir=${SNAP_COMMON}/var/lib/kubelet",
		`--eviction-hard="memory.available<100Mi,nodefs.available<1Gi,imagefs.available<1Gi"`, "--authentication-token-webhook=true", "--read-only-port=0")
}

// user makes a client by openssl x509 -req -days 3650, and its kubeconfig.
func (c microCluster) user(x *tree, node, pair, conf, ca, dial string, l leaf) {
	l.plain, l.life = true, 3650*24*time.Hour+30*time.Second+testpki.Made.AddDate(10, 0, 0).Sub(testpki.Made.AddDate(0, 0, 3650))
	x.pair(node, snapData+"/certs/"+pair, "ca", l)
	if conf != "" {
		x.embedded(node, snapData+"/credentials/"+conf, dial, trust.EncodeCertificates(x.cas[ca].cert), x.read(node, snapData+"/certs/"+pair+".crt"), x.read(node, snapData+"/certs/"+pair+".key"))
	}
}

func (c microCluster) server(x *tree, node string) {
	certs := snapData + "/certs/"
	x.putCA(node, certs+"ca", "ca")
	x.putCA(node, certs+"front-proxy-ca", "front-proxy-ca")
	names := append([]string{"kubernetes.default.svc.cluster", "127.0.0.1", "10.152.183.1", c.address(node)}, serviceNames...)
	x.pair(node, certs+"server", "ca", leaf{cn: "127.0.0.1", o: []string{"acme"}, usages: both, names: names})
	x.pair(node, certs+"front-proxy-client", "front-proxy-ca", leaf{cn: "front-proxy-client", usages: both, names: names})
	const local = "https://127.0.0.1:16443"
	c.user(x, node, "kubelet", "kubelet.config", "ca", local, leaf{cn: "system:node:" + node, o: []string{"system:nodes"}, names: []string{node, c.address(node)}})
	c.user(x, node, "client", "client.config", "ca", local, leaf{cn: "admin", o: []string{"system:masters"}})
	c.user(x, node, "proxy", "proxy.config", "ca", local, leaf{cn: "system:kube-proxy"})
	c.user(x, node, "scheduler", "scheduler.config", "ca", local, leaf{cn: "system:kube-scheduler"})
	c.user(x, node, "controller", "controller.config", "ca", local, leaf{cn: "system:kube-controller-manager"})
	c.user(x, node, "apiserver-kubelet-client", "", "ca", "", leaf{cn: "kube-apiserver-kubelet-client", o: []string{"system:masters"}})
	x.write(node, snapData+"/var/kubernetes/backend/cluster.crt", []byte("dqlite's\n"), 0o660)
}

// worker joins another cluster: what it was before stays, and is not gone by.
func (c microCluster) worker(x *tree, node string) {
	certs := snapData + "/certs/"
	before := x.ca("before-"+node, "10.152.183.1", 0, nil)
	x.write(node, certs+"ca.crt", trust.EncodeCertificates(before.cert), 0o660)
	x.write(node, certs+"ca.remote.crt", trust.EncodeCertificates(x.cas["ca"].cert), 0o660)
	x.write(node, snapData+"/var/lock/clustered.lock", nil, 0o660)
	x.edit(node, snapData+"/args/kubelet", "certs/ca.crt", "certs/ca.remote.crt")
	const dial = "https://127.0.0.1:16443"
	c.user(x, node, "kubelet", "kubelet.config", "ca", dial, leaf{cn: "system:node:" + node, o: []string{"system:nodes"}, names: []string{node, c.address(node)}})
	c.user(x, node, "proxy", "proxy.config", "ca", dial, leaf{cn: "system:kube-proxy"})
}

func TestHealthyClustersOfMicroK8sAreSilent(t *testing.T) {
	for name, c := range map[string]microCluster{
		"one node":                      {nodes: []string{"m1"}},
		"one node with RBAC":            {nodes: []string{"m1"}, rbac: true},
		"three nodes and a worker":      {nodes: []string{"m1", "m2", "m3"}, workers: []string{"w1"}, rbac: true},
		"one node of a release of 2022": {nodes: []string{"m1"}, old: true},
		"a worker alone":                {workers: []string{"w1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := c.build(t)
			r := x.verify("microk8s")
			if got := faults(r); len(got) > 0 {
				t.Errorf("not silent:\n%s", strings.Join(got, "\n"))
			}
			want := []int{4, 5, 6, 7, 8, 9, 12, 17}
			if !c.old {
				want = append(want, 11)
			}
			if len(c.nodes) == 0 {
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

func TestFaultsOfMicroK8sAreNamed(t *testing.T) {
	build, faults := microFaults()
	runMutations(t, "microk8s", build, faults)
}

func microFaults() (func(*testing.T) *tree, []distroMutation) {
	c := microCluster{nodes: []string{"m1"}, workers: []string{"w1"}, rbac: true}
	const certs, confs, arguments = snapData + "/certs/", snapData + "/credentials/", snapData + "/args/"
	const local = "https://127.0.0.1:16443"
	return c.build, []distroMutation{
		{name: "the apiserver's certificate has expired", brk: func(x *tree) { x.reissue("m1", certs+"server.crt", "ca", expired) },
			id: "cert-expired", node: "m1", path: certs + "server.crt", fix: "microk8s refresh-certs --cert server.crt"},
		{name: "the front proxy's certificate has expired", brk: func(x *tree) { x.reissue("m1", certs+"front-proxy-client.crt", "front-proxy-ca", expired) },
			id: "cert-expired", node: "m1", path: certs + "front-proxy-client.crt", fix: "microk8s refresh-certs --cert front-proxy-client.crt"},
		{name: "the apiserver's certificate lacks the service's address", brk: func(x *tree) { x.reissue("m1", certs+"server.crt", "ca", without("10.152.183.1")) },
			id: "san-missing", node: "m1", path: certs + "server.crt", fix: "--cert server.crt"},
		{name: "the scheduler is somebody else", brk: func(x *tree) {
			c.user(x, "m1", "scheduler", "scheduler.config", "ca", local, leaf{cn: "system:nobody"})
		},
			id: "identity-wrong", node: "m1", path: confs + "scheduler.config", fix: "refresh-certs"},
		{name: "the controller-manager trusts an authority of before", brk: func(x *tree) {
			old := x.ca("old", "10.152.183.1", caUsage, nil)
			x.edit("m1", confs+"controller.config", b64(trust.EncodeCertificates(x.cas["ca"].cert)), b64(trust.EncodeCertificates(old.cert)))
		}, id: "bundle-stale", node: "m1", path: confs + "controller.config", field: "clusters[local].cluster.certificate-authority-data"},
		{name: "arguments name the wrong key", brk: func(x *tree) {
			x.edit("m1", arguments+"kube-apiserver", "--proxy-client-key-file=${SNAP_DATA}/certs/front-proxy-client.key", "--proxy-client-key-file=${SNAP_DATA}/certs/server.key")
		}, id: "key-mismatch", node: "m1", path: arguments + "kube-apiserver", field: "--proxy-client-key-file", fix: certs + "front-proxy-client.key"},
		{name: "arguments let any name be the front proxy", brk: func(x *tree) {
			x.edit("m1", arguments+"kube-apiserver", "--requestheader-allowed-names=front-proxy-client\n", "")
		}, id: "requestheader-any-name", node: "m1", path: arguments + "kube-apiserver", field: "--requestheader-allowed-names"},
		{name: "arguments take the authority of clients away", brk: func(x *tree) {
			x.edit("m1", arguments+"kube-apiserver", "--client-ca-file=${SNAP_DATA}/certs/ca.crt\n", "")
		}, id: "client-auth-off", node: "m1", path: arguments + "kube-apiserver", field: "--client-ca-file"},
		{name: "the kubelet answers anybody", brk: func(x *tree) { x.edit("w1", arguments+"kubelet", "--anonymous-auth=false", "--anonymous-auth=true") },
			id: "anonymous-on", node: "w1", path: arguments + "kubelet", field: "--anonymous-auth"},
		{name: "a key belongs to another certificate", brk: func(x *tree) { x.write("m1", certs+"server.key", x.read("m1", certs+"client.key"), 0o660) },
			id: "key-mismatch", node: "m1", path: certs + "server.key", fix: "refresh-certs --cert server.crt"},
		{name: "the key of the authority was replaced", brk: func(x *tree) { x.write("m1", certs+"ca.key", x.read("m1", certs+"client.key"), 0o660) },
			id: "ca-key-mismatch", node: "m1", path: certs + "ca.key"},
		{name: "anybody may read a key", brk: func(x *tree) { x.must(os.Chmod(x.path("m1", certs+"server.key"), 0o664)) },
			id: "key-permissions", node: "m1", path: certs + "server.key", fix: "chmod 660"},
		{name: "the worker's kubelet lets in clients of another authority", brk: func(x *tree) {
			x.write("w1", certs+"ca.remote.crt", x.read("w1", certs+"ca.crt"), 0o660)
		}, id: "bundle-stale", node: "w1", path: certs + "ca.remote.crt"},
		{name: "the kubelet is of no node group", brk: func(x *tree) {
			c.user(x, "m1", "kubelet", "kubelet.config", "ca", local, leaf{cn: "system:node:m1", names: []string{"m1", c.address("m1")}})
		}, id: "identity-wrong", node: "m1", path: confs + "kubelet.config"},
		{name: "the file of the apiserver's certificate is gone", brk: func(x *tree) { x.remove("m1", certs+"server.crt") },
			id: "file-missing", node: "m1", path: certs + "server.crt", fix: "--cert server.crt"},
		{name: "the certificate outlives its authority by years", brk: func(x *tree) {
			x.reissue("m1", certs+"server.crt", "ca", func(l *x509.Certificate) { l.NotAfter = testpki.Made.AddDate(12, 0, 0) })
		}, id: "cert-outlives-ca", node: "m1", path: certs + "server.crt"},
	}
}
