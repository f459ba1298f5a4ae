package check_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// ranchers is a cluster of k3s or RKE2.
type ranchers struct {
	program      string
	servers      []string
	agents       []string
	store        string // etcd, sqlite, or none in the copy
	intermediate bool   // authorities of an own root, as for rotate-ca with one
	crossed      bool   // authorities cross-signed by those of before
	bare         bool   // no configuration in the copy
	tlsSAN       string
	old          bool // a release of 2021: fewer files, and the kubelet's flags on its command line
}

func (c ranchers) data() string { return "/var/lib/rancher/" + c.program }

// address is that of a node: servers first.
func (c ranchers) address(node string) string {
	return fmt.Sprintf("10.0.0.%d", 10+slices.Index(append(slices.Clone(c.servers), c.agents...), node))
}

func (c ranchers) build(t *testing.T) *tree {
	t.Helper()
	x := newTree(t)
	var root *authority
	if c.intermediate {
		root = x.ca("root", "an own root", caUsage, nil)
	}
	for name, cn := range map[string]string{
		"client-ca": c.program + "-client", "server-ca": c.program + "-server", "request-header-ca": c.program + "-request-header",
		"etcd-server-ca": "etcd-server", "etcd-peer-ca": "etcd-peer",
	} {
		a := x.ca(name, fmt.Sprintf("%s-ca@%d", cn, testpki.Made.Unix()), caUsage, root)
		if c.crossed {
			before := x.ca("before-"+name, fmt.Sprintf("%s-ca@%d", cn, testpki.Made.AddDate(-1, 0, 0).Unix()), caUsage, nil)
			crossed := x.sign(&x509.Certificate{Subject: a.cert.Subject, NotBefore: testpki.Made, NotAfter: testpki.Made.AddDate(9, 0, 0), SubjectKeyId: a.cert.SubjectKeyId,
				KeyUsage: caUsage, BasicConstraintsValid: true, IsCA: true}, a.key.Public(), before.cert, before.key)
			a.chain = []*x509.Certificate{a.cert, crossed, before.cert}
		}
	}
	service, err := issue.EncodePrivateKey(x.newKey())
	x.must(err)
	for _, s := range c.servers {
		c.server(x, s, service)
		c.agent(x, s, true)
	}
	for _, a := range c.agents {
		c.agent(x, a, false)
	}
	return x
}

// sans are those that the certificates of the supervisor, kube-apiserver and etcd
// share (pkg/cli/server/server.go).
func (c ranchers) sans(node string) []string {
	names := []string{"10.43.0.1", "127.0.0.1", "::1", "localhost", node, c.address(node)}
	if c.tlsSAN != "" {
		names = append(names, c.tlsSAN)
	}
	return names
}

var serviceNames = []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}

func (c ranchers) server(x *tree, node string, service []byte) {
	tls, cred := c.data()+"/server/tls/", c.data()+"/server/cred/"
	for name, file := range map[string]string{"client-ca": "client-ca", "server-ca": "server-ca", "request-header-ca": "request-header-ca", "etcd-server-ca": "etcd/server-ca", "etcd-peer-ca": "etcd/peer-ca"} {
		x.putCA(node, tls+file, name)
	}
	for _, name := range []string{"client-ca", "server-ca"} {
		x.write(node, tls+name+".nochain.crt", trust.EncodeCertificates(x.cas[name].cert), 0o644)
	}
	x.write(node, tls+"service.key", service, 0o600)
	x.write(node, tls+"service.current.key", service, 0o600)
	own := "https://127.0.0.1:6444"
	if c.program == "rke2" {
		own = "https://127.0.0.1:6443"
	}
	for _, client := range []struct {
		pair, cn string
		o        []string
		conf     string
	}{
		{"client-admin", "system:admin", []string{"system:masters"}, "admin"},
		{"client-supervisor", "system:" + c.program + "-supervisor", []string{"system:masters"}, "supervisor"},
		{"client-controller", "system:kube-controller-manager", nil, "controller"},
		{"client-scheduler", "system:kube-scheduler", nil, "scheduler"},
		{"client-kube-apiserver", "system:apiserver", []string{"system:masters"}, "api-server"},
		{"client-" + c.program + "-cloud-controller", c.program + "-cloud-controller-manager", nil, "cloud-controller"},
		{"client-kube-proxy", "system:kube-proxy", nil, ""},
		{"client-" + c.program + "-controller", "system:" + c.program + "-controller", nil, ""},
	} {
		x.pair(node, tls+client.pair, "client-ca", leaf{cn: client.cn, o: client.o, usages: clients})
		if client.conf != "" {
			x.kubeconfig(node, cred+client.conf+".kubeconfig", own, tls+"server-ca.crt", tls+client.pair)
		}
	}
	x.pair(node, tls+"serving-kube-apiserver", "server-ca", leaf{cn: "kube-apiserver", usages: servers, names: append(slices.Clone(serviceNames), c.sans(node)...)})
	x.pair(node, tls+"client-auth-proxy", "request-header-ca", leaf{cn: "system:auth-proxy", usages: clients})
	x.pair(node, tls+"etcd/client", "etcd-server-ca", leaf{cn: "etcd-client", usages: clients})
	x.pair(node, tls+"etcd/peer-server-client", "etcd-peer-ca", leaf{cn: "etcd-peer", usages: both, names: append(c.sans(node), "kine.sock")})
	x.pair(node, tls+"etcd/server-client", "etcd-server-ca", leaf{cn: "etcd-server", usages: both, names: append(c.sans(node), "kine.sock")})
	c.dynamic(x, node)
	x.embedded(node, "/etc/rancher/"+c.program+"/"+c.program+".yaml", "https://127.0.0.1:6443", trust.EncodeCertificates(x.cas["server-ca"].chain...),
		x.read(node, tls+"client-admin.crt"), x.read(node, tls+"client-admin.key"))
	if !c.bare {
		c.configuration(x, node)
	}
	c.datastore(x, node)
	if c.old {
		for _, file := range []string{tls + "client-ca.nochain.crt", tls + "server-ca.nochain.crt", tls + "service.current.key", tls + "client-supervisor.crt", tls + "client-supervisor.key",
			cred + "supervisor.kubeconfig", tls + "dynamic-cert.json"} {
			x.remove(node, file)
		}
	}
}

// dynamic is the Secret in which dynamiclistener caches what the supervisor serves.
func (c ranchers) dynamic(x *tree, node string) {
	certificate, key := x.issue("server-ca", leaf{cn: c.program, o: []string{c.program}, usages: servers, names: append(slices.Clone(serviceNames), c.sans(node)...)})
	x.putDynamic(node, c.data()+"/server/tls/dynamic-cert.json", certificate, key)
}

func (x *tree) putDynamic(node, file string, certificate, key []byte) {
	b64 := base64.StdEncoding.EncodeToString
	text, err := json.Marshal(map[string]any{"kind": "Secret", "apiVersion": "v1", "type": "kubernetes.io/tls",
		"data": map[string]string{"tls.crt": b64(certificate), "tls.key": b64(key)}})
	x.must(err)
	x.write(node, file, text, 0o600)
}

func (c ranchers) configuration(x *tree, node string) {
	config := fmt.Sprintf("node-name: %s\nnode-ip: %s\ntoken: a-secret\n", node, c.address(node))
	if c.tlsSAN != "" {
		config += "tls-san:\n- " + c.tlsSAN + "\n"
	}
	x.write(node, "/etc/rancher/"+c.program+"/config.yaml", []byte(config), 0o600)
}

func (c ranchers) datastore(x *tree, node string) {
	tls, db := c.data()+"/server/tls/etcd/", c.data()+"/server/db/"
	switch c.store {
	case "sqlite":
		x.write(node, db+"state.db", []byte("SQLite"), 0o600)
	case "etcd":
		a := c.address(node)
		x.write(node, db+"etcd/config", fmt.Appendf(nil, `name: %s-1a2b3c4d
listen-client-urls: https://127.0.0.1:2379,https://%s:2379
advertise-client-urls: https://%s:2379
listen-peer-urls: https://127.0.0.1:2380,https://%s:2380
initial-advertise-peer-urls: https://%s:2380
client-transport-security:
  cert-file: %sserver-client.crt
  client-cert-auth: true
  key-file: %sserver-client.key
  trusted-ca-file: %sserver-ca.crt
peer-transport-security:
  cert-file: %speer-server-client.crt
  client-cert-auth: true
  key-file: %speer-server-client.key
  trusted-ca-file: %speer-ca.crt
`, node, a, a, a, a, tls, tls, tls, tls, tls, tls), 0o600)
	}
	if c.program == "rke2" {
		c.manifests(x, node)
	}
}

// manifests are RKE2's static pods (pkg/podtemplate).
func (c ranchers) manifests(x *tree, node string) {
	tls, cred := c.data()+"/server/tls/", c.data()+"/server/cred/"
	pod := func(name string, args ...string) {
		x.write(node, c.data()+"/agent/pod-manifests/"+name+".yaml", fmt.Appendf(nil, "apiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\n  namespace: kube-system\nspec:\n  containers:\n  - name: %s\n    image: index.docker.io/rancher/hardened-kubernetes:v1.33.1-rke2r1\n    command:\n    - %s\n    args:\n    - %s\n",
			name, name, name, strings.Join(args, "\n    - ")), 0o600)
	}
	pod("kube-apiserver", "--advertise-address="+c.address(node), "--anonymous-auth=false", "--authorization-mode=Node,RBAC", "--bind-address=0.0.0.0",
		"--client-ca-file="+tls+"client-ca.crt", "--etcd-cafile="+tls+"etcd/server-ca.crt", "--etcd-certfile="+tls+"etcd/client.crt", "--etcd-keyfile="+tls+"etcd/client.key",
		"--etcd-servers=https://127.0.0.1:2379", "--kubelet-certificate-authority="+tls+"server-ca.crt", "--kubelet-client-certificate="+tls+"client-kube-apiserver.crt",
		"--kubelet-client-key="+tls+"client-kube-apiserver.key", "--proxy-client-cert-file="+tls+"client-auth-proxy.crt", "--proxy-client-key-file="+tls+"client-auth-proxy.key",
		"--requestheader-allowed-names=system:auth-proxy", "--requestheader-client-ca-file="+tls+"request-header-ca.crt", "--secure-port=6443",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local", "--service-account-key-file="+tls+"service.key",
		"--service-account-signing-key-file="+tls+"service.current.key", "--service-cluster-ip-range=10.43.0.0/16",
		"--tls-cert-file="+tls+"serving-kube-apiserver.crt", "--tls-private-key-file="+tls+"serving-kube-apiserver.key")
	conf := cred + "controller.kubeconfig"
	pod("kube-controller-manager", "--authentication-kubeconfig="+conf, "--authorization-kubeconfig="+conf, "--kubeconfig="+conf, "--bind-address=127.0.0.1",
		"--cluster-signing-kube-apiserver-client-cert-file="+tls+"client-ca.nochain.crt", "--cluster-signing-kube-apiserver-client-key-file="+tls+"client-ca.key",
		"--cluster-signing-kubelet-client-cert-file="+tls+"client-ca.nochain.crt", "--cluster-signing-kubelet-client-key-file="+tls+"client-ca.key",
		"--cluster-signing-kubelet-serving-cert-file="+tls+"server-ca.nochain.crt", "--cluster-signing-kubelet-serving-key-file="+tls+"server-ca.key",
		"--cluster-signing-legacy-unknown-cert-file="+tls+"server-ca.nochain.crt", "--cluster-signing-legacy-unknown-key-file="+tls+"server-ca.key",
		"--root-ca-file="+tls+"server-ca.crt", "--service-account-private-key-file="+tls+"service.current.key")
	conf = cred + "scheduler.kubeconfig"
	pod("kube-scheduler", "--authentication-kubeconfig="+conf, "--authorization-kubeconfig="+conf, "--bind-address=127.0.0.1", "--kubeconfig="+conf)
	pod("etcd", "--config-file="+c.data()+"/server/db/etcd/config")
	pod("kube-proxy", "--cluster-cidr=10.42.0.0/16", "--hostname-override="+node, "--kubeconfig="+c.data()+"/agent/kubeproxy.kubeconfig", "--proxy-mode=iptables")
	pod("cloud-controller-manager", "--cloud-provider=rke2", "--kubeconfig="+cred+"cloud-controller.kubeconfig", "--bind-address=127.0.0.1")
}

func (c ranchers) agent(x *tree, node string, server bool) {
	agent := c.data() + "/agent/"
	for _, name := range []string{"client-ca", "server-ca"} {
		x.write(node, agent+name+".crt", trust.EncodeCertificates(x.cas[name].chain...), 0o600)
	}
	x.pair(node, agent+"client-kubelet", "client-ca", leaf{cn: "system:node:" + node, o: []string{"system:nodes"}, usages: clients})
	x.pair(node, agent+"serving-kubelet", "server-ca", leaf{cn: node, usages: servers, names: []string{node, "localhost", "127.0.0.1", c.address(node)}})
	x.pair(node, agent+"client-kube-proxy", "client-ca", leaf{cn: "system:kube-proxy", usages: clients})
	x.pair(node, agent+"client-"+c.program+"-controller", "client-ca", leaf{cn: "system:" + c.program + "-controller", usages: clients})
	dial := "https://127.0.0.1:6444"
	if server || c.program == "rke2" {
		dial = "https://127.0.0.1:6443"
	}
	for conf, pair := range map[string]string{"kubelet": "client-kubelet", "kubeproxy": "client-kube-proxy", c.program + "controller": "client-" + c.program + "-controller"} {
		x.kubeconfig(node, agent+conf+".kubeconfig", dial, agent+"server-ca.crt", agent+pair)
	}
	if c.old {
		return
	}
	x.write(node, agent+"etc/kubelet.conf.d/00-"+c.program+"-defaults.conf", fmt.Appendf(nil, `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 0.0.0.0
authentication:
  anonymous:
    enabled: false
  webhook:
    enabled: true
  x509:
    clientCAFile: %sclient-ca.crt
authorization:
  mode: Webhook
tlsCertFile: %sserving-kubelet.crt
tlsPrivateKeyFile: %sserving-kubelet.key
`, agent, agent, agent), 0o600)
}

func TestHealthyClustersOfK3sAndRKE2AreSilent(t *testing.T) {
	three := []string{"s1", "s2", "s3"}
	for name, c := range map[string]ranchers{
		"k3s, a server with SQLite":                     {program: "k3s", servers: three[:1], store: "sqlite"},
		"k3s, a server and an agent with SQLite":        {program: "k3s", servers: three[:1], agents: []string{"a1"}, store: "sqlite"},
		"k3s, three servers with etcd and two agents":   {program: "k3s", servers: three, agents: []string{"a1", "a2"}, store: "etcd"},
		"k3s, an agent alone":                           {program: "k3s", agents: []string{"a1"}},
		"k3s, authorities below an own root":            {program: "k3s", servers: three, agents: []string{"a1"}, store: "etcd", intermediate: true},
		"k3s, authorities cross-signed by the old ones": {program: "k3s", servers: three[:1], agents: []string{"a1"}, store: "etcd", crossed: true},
		"k3s, a copy of the data folder alone":          {program: "k3s", servers: three[:1], bare: true},
		"k3s, a name of its own":                        {program: "k3s", servers: three[:1], store: "etcd", tlsSAN: "k3s.example.com"},
		"k3s, a server and an agent of 2021":            {program: "k3s", servers: three[:1], agents: []string{"a1"}, store: "sqlite", old: true},
		"RKE2, a server":                                {program: "rke2", servers: three[:1], store: "etcd"},
		"RKE2, three servers and two agents":            {program: "rke2", servers: three, agents: []string{"a1", "a2"}, store: "etcd"},
		"RKE2, an agent alone":                          {program: "rke2", agents: []string{"a1"}},
		"RKE2, a copy without the datastore":            {program: "rke2", servers: three[:1]},
		"RKE2, authorities below an own root":           {program: "rke2", servers: three[:1], agents: []string{"a1"}, store: "etcd", intermediate: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := c.build(t)
			r := x.verify(c.program)
			if got := faults(r); len(got) > 0 {
				t.Errorf("not silent:\n%s", strings.Join(got, "\n"))
			}
			want := []int{4, 5, 6, 7, 8, 9, 11, 12, 17}
			if c.store == "etcd" {
				want = append(want, 1, 3, 15)
			}
			if len(c.servers) == 0 {
				want = nil
			}
			if c.old { // what the supervisor serves is not there to be judged
				want = []int{4, 5, 6, 11, 12, 17}
			}
			for _, n := range want {
				if !slices.Contains(proved(r), n) {
					t.Errorf("link %d is not proved; proved are %v", n, proved(r))
				}
			}
			for _, l := range r.Links {
				if !l.OK() {
					t.Errorf("link %d %s → %s is broken", l.Number, l.Caller, l.Callee)
				}
			}
		})
	}
}

func expired(c *x509.Certificate) { c.NotAfter = testpki.Made.Add(time.Hour) }

func TestFaultsOfK3sAreNamed(t *testing.T) {
	build, faults := k3sFaults()
	runMutations(t, "k3s", build, faults)
}

func k3sFaults() (func(*testing.T) *tree, []distroMutation) {
	c := ranchers{program: "k3s", servers: []string{"s1"}, agents: []string{"a1"}, store: "etcd", tlsSAN: "k3s.example.com"}
	const tls, agent, cred = "/var/lib/rancher/k3s/server/tls/", "/var/lib/rancher/k3s/agent/", "/var/lib/rancher/k3s/server/cred/"
	return c.build, []distroMutation{
		{name: "the apiserver's certificate has expired", brk: func(x *tree) { x.reissue("s1", tls+"serving-kube-apiserver.crt", "server-ca", expired) },
			id: "cert-expired", node: "s1", path: tls + "serving-kube-apiserver.crt", fix: "k3s certificate rotate --service api-server && systemctl start k3s"},
		{name: "the kubelet's client certificate of an agent has expired", brk: func(x *tree) { x.reissue("a1", agent+"client-kubelet.crt", "client-ca", expired) },
			id: "cert-expired", node: "a1", path: agent + "client-kubelet.crt", fix: "systemctl stop k3s-agent && k3s certificate rotate --service kubelet"},
		{name: "the supervisor's certificate has expired", brk: func(x *tree) {
			l := leaf{cn: "k3s", o: []string{"k3s"}, usages: servers, life: time.Hour, names: append(slices.Clone(serviceNames), c.sans("s1")...)}
			certificate, key := x.issue("server-ca", l)
			x.putDynamic("s1", tls+"dynamic-cert.json", certificate, key)
		}, id: "cert-expired", node: "s1", path: tls + "dynamic-cert.json", field: "data[tls.crt]", fix: "--service k3s-server"},
		{name: "the supervisor's Secret is junk", brk: func(x *tree) { x.write("s1", tls+"dynamic-cert.json", []byte("{"), 0o600) },
			id: "cert-malformed", node: "s1", path: tls + "dynamic-cert.json", fix: "--service k3s-server"},
		{name: "a configured name is not in the apiserver's certificate", brk: func(x *tree) {
			x.reissue("s1", tls+"serving-kube-apiserver.crt", "server-ca", without("k3s.example.com"))
		}, id: "san-missing", node: "s1", path: tls + "serving-kube-apiserver.crt", fix: "--service api-server"},
		{name: "the scheduler shows a certificate of the serving authority", brk: func(x *tree) {
			x.pair("s1", tls+"client-scheduler", "server-ca", leaf{cn: "system:kube-scheduler", usages: clients})
		}, id: "authority-unknown", node: "s1", path: tls + "client-scheduler.crt", fix: "--service scheduler"},
		{name: "the controller-manager is somebody else", brk: func(x *tree) {
			x.reissue("s1", tls+"client-controller.crt", "client-ca", named("system:nobody"))
		}, id: "identity-wrong", node: "s1", path: tls + "client-controller.crt", fix: "--service controller-manager"},
		{name: "k3s' own client is somebody else", brk: func(x *tree) {
			x.reissue("s1", tls+"client-supervisor.crt", "client-ca", named("system:admin", "system:masters"))
		}, id: "identity-wrong", node: "s1", path: tls + "client-supervisor.crt", fix: "--service supervisor"},
		{name: "the front proxy has another name", brk: func(x *tree) {
			x.reissue("s1", tls+"client-auth-proxy.crt", "request-header-ca", named("front-proxy-client"))
		}, id: "requestheader-name-mismatch", node: "s1", path: tls + "client-auth-proxy.crt"},
		{name: "a key belongs to another certificate", brk: func(x *tree) {
			x.write("s1", tls+"etcd/server-client.key", x.read("s1", tls+"etcd/client.key"), 0o600)
		}, id: "key-mismatch", node: "s1", path: tls + "etcd/server-client.key"},
		{name: "tokens are signed with a key that nobody verifies", brk: func(x *tree) {
			key, err := issue.EncodePrivateKey(x.newKey())
			x.must(err)
			x.write("s1", tls+"service.current.key", key, 0o600)
		}, id: "sa-verify-key-missing", node: "s1", path: tls + "service.key"},
		{name: "an agent trusts an authority of before", brk: func(x *tree) {
			old := x.ca("old", "k3s-server-ca@1", caUsage, nil)
			x.write("a1", agent+"server-ca.crt", trust.EncodeCertificates(old.cert), 0o600)
		}, id: "bundle-stale", node: "a1", path: agent + "server-ca.crt", fix: "systemctl restart k3s-agent"},
		{name: "an agent lets in clients of an authority of before", brk: func(x *tree) {
			old := x.ca("old", "k3s-client-ca@1", caUsage, nil)
			x.write("a1", agent+"client-ca.crt", trust.EncodeCertificates(old.cert), 0o600)
		}, id: "bundle-stale", node: "a1", path: agent + "client-ca.crt", fix: "systemctl restart k3s-agent"},
		{name: "the kubelet of an agent serves a certificate of an authority of before", brk: func(x *tree) {
			x.ca("old", "k3s-server-ca@1", caUsage, nil)
			x.pair("a1", agent+"serving-kubelet", "old", leaf{cn: "a1", usages: servers, names: []string{"a1", "localhost", "127.0.0.1", c.address("a1")}})
		}, id: "authority-recreated", node: "a1", path: agent + "serving-kubelet.crt", fix: "--service kubelet"},
		{name: "a kubeconfig dials a port where nothing serves", brk: func(x *tree) { x.edit("s1", cred+"scheduler.kubeconfig", ":6444", ":6445") },
			id: "endpoint-mismatch", node: "s1", path: cred + "scheduler.kubeconfig", field: "clusters[local].cluster.server", fix: "--service scheduler"},
		{name: "anybody may read the administrator's kubeconfig", brk: func(x *tree) { x.must(os.Chmod(x.path("s1", "/etc/rancher/k3s/k3s.yaml"), 0o644)) },
			id: "key-permissions", node: "s1", path: "/etc/rancher/k3s/k3s.yaml", fix: "write-kubeconfig-mode"},
		{name: "the configuration opens the apiserver", brk: func(x *tree) {
			x.edit("s1", "/etc/rancher/k3s/config.yaml", "node-name:", "kube-apiserver-arg:\n- authorization-mode=AlwaysAllow\nnode-name:")
		}, id: "authorization-open", node: "s1", path: "/etc/rancher/k3s/config.yaml", field: "--authorization-mode"},
		{name: "a drop-in of the kubelet lets anybody in", brk: func(x *tree) {
			x.write("a1", agent+"etc/kubelet.conf.d/50-own.conf", []byte("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nauthentication:\n  anonymous:\n    enabled: true\n"), 0o600)
		}, id: "anonymous-on", node: "a1", path: agent + "etc/kubelet.conf.d/50-own.conf", field: "authentication.anonymous.enabled"},
		{name: "a drop-in of the kubelet says of no version", brk: func(x *tree) {
			x.write("a1", agent+"etc/kubelet.conf.d/50-own.conf", []byte("kind: KubeletConfiguration\nport: 10250\n"), 0o600)
		}, id: "flag-conflict", node: "a1", path: agent + "etc/kubelet.conf.d/50-own.conf", field: "apiVersion"},
		{name: "etcd lets in whoever comes", brk: func(x *tree) {
			x.edit("s1", "/var/lib/rancher/k3s/server/db/etcd/config", "  trusted-ca-file: "+tls+"etcd/server-ca.crt\n", "")
			x.edit("s1", "/var/lib/rancher/k3s/server/db/etcd/config", "client-cert-auth: true\n  key-file: "+tls+"etcd/server-client.key", "key-file: "+tls+"etcd/server-client.key")
		}, id: "client-auth-off", node: "s1", path: "/var/lib/rancher/k3s/server/db/etcd/config"},
		{name: "the authority's key is missing beside its certificate's another", brk: func(x *tree) {
			key, err := issue.EncodePrivateKey(x.newKey())
			x.must(err)
			x.write("s1", tls+"client-ca.key", key, 0o600)
		}, id: "ca-key-mismatch", node: "s1", path: tls + "client-ca.key"},
		{name: "a pair is missing", brk: func(x *tree) { x.remove("s1", tls+"client-auth-proxy.key") },
			id: "file-missing", node: "s1", path: tls + "client-auth-proxy.key", fix: "--service auth-proxy"},
		{name: "the key of an authority is on an agent", brk: func(x *tree) {
			x.write("a1", agent+"client-ca.key", x.read("s1", tls+"client-ca.key"), 0o600)
		}, id: "ca-key-present", node: "a1", path: agent + "client-ca.key"},
		{name: "a node shows the certificate of another", brk: func(x *tree) {
			x.reissue("a1", agent+"client-kubelet.crt", "client-ca", named("system:node:s9", "system:nodes"))
		}, id: "identity-wrong", node: "a1", path: agent + "client-kubelet.crt", fix: "--service kubelet"},
	}
}

func TestFaultsOfThreeServersOfK3sAreNamed(t *testing.T) {
	c := ranchers{program: "k3s", servers: []string{"s1", "s2", "s3"}, store: "etcd"}
	const tls = "/var/lib/rancher/k3s/server/tls/"
	runMutations(t, "k3s", c.build, []distroMutation{
		{name: "a member's peer certificate lacks its address", brk: func(x *tree) {
			x.reissue("s2", tls+"etcd/peer-server-client.crt", "etcd-peer-ca", func(l *x509.Certificate) {
				l.IPAddresses = slices.DeleteFunc(slices.Clone(l.IPAddresses), func(ip net.IP) bool { return ip.String() == c.address("s2") })
			})
		}, id: "san-missing", node: "s2", path: tls + "etcd/peer-server-client.crt", fix: "--service etcd"},
		{name: "one server verifies tokens with a key of its own", brk: func(x *tree) {
			key, err := issue.EncodePrivateKey(x.newKey())
			x.must(err)
			x.write("s3", tls+"service.key", key, 0o600)
			x.write("s3", tls+"service.current.key", key, 0o600)
		}, id: "sa-verify-key-missing", node: "s3", path: tls + "service.key"},
		{name: "a server's kubelet is of no node group", brk: func(x *tree) {
			x.reissue("s2", "/var/lib/rancher/k3s/agent/client-kubelet.crt", "client-ca", func(l *x509.Certificate) { l.Subject = pkix.Name{CommonName: "system:node:s2"} })
		}, id: "identity-wrong", node: "s2", path: "/var/lib/rancher/k3s/agent/client-kubelet.crt"},
	})
}

func TestFaultsOfRKE2AreNamed(t *testing.T) {
	build, faults := rke2Faults()
	runMutations(t, "rke2", build, faults)
}

func rke2Faults() (func(*testing.T) *tree, []distroMutation) {
	c := ranchers{program: "rke2", servers: []string{"s1"}, agents: []string{"a1"}, store: "etcd"}
	const data = "/var/lib/rancher/rke2/"
	const tls, agent, pods = data + "server/tls/", data + "agent/", data + "agent/pod-manifests/"
	return c.build, []distroMutation{
		{name: "the apiserver's certificate has expired", brk: func(x *tree) { x.reissue("s1", tls+"serving-kube-apiserver.crt", "server-ca", expired) },
			id: "cert-expired", node: "s1", path: tls + "serving-kube-apiserver.crt", fix: "systemctl stop rke2-server && rke2 certificate rotate --service api-server"},
		{name: "the supervisor's certificate lacks the node's address", brk: func(x *tree) {
			certificate, key := x.issue("server-ca", leaf{cn: "rke2", o: []string{"rke2"}, usages: servers,
				names: slices.DeleteFunc(append(slices.Clone(serviceNames), c.sans("s1")...), func(s string) bool { return s == c.address("s1") })})
			x.putDynamic("s1", tls+"dynamic-cert.json", certificate, key)
		}, id: "san-missing", node: "s1", path: tls + "dynamic-cert.json", fix: "--service rke2-server"},
		{name: "a manifest names the authority of servers for clients", brk: func(x *tree) {
			x.edit("s1", pods+"kube-apiserver.yaml", "--client-ca-file="+tls+"client-ca.crt", "--client-ca-file="+tls+"server-ca.crt")
		}, id: "authority-unknown", node: "s1", path: pods + "kube-apiserver.yaml", field: "--client-ca-file", fix: tls + "client-ca.crt"},
		{name: "a manifest names another root for pods", brk: func(x *tree) {
			x.edit("s1", pods+"kube-controller-manager.yaml", "--root-ca-file="+tls+"server-ca.crt", "--root-ca-file="+tls+"client-ca.crt")
		}, id: "root-ca-mismatch", node: "s1", path: pods + "kube-controller-manager.yaml", field: "--root-ca-file"},
		{name: "a manifest lets any name be the front proxy", brk: func(x *tree) {
			x.edit("s1", pods+"kube-apiserver.yaml", "--requestheader-allowed-names=system:auth-proxy", "--requestheader-allowed-names=")
		}, id: "requestheader-any-name", node: "s1", path: pods + "kube-apiserver.yaml"},
		{name: "the front proxy's authority is that of clients", brk: func(x *tree) {
			x.edit("s1", pods+"kube-apiserver.yaml", "--requestheader-client-ca-file="+tls+"request-header-ca.crt", "--requestheader-client-ca-file="+tls+"client-ca.crt")
		}, id: "authority-shared", node: "s1", path: tls + "client-ca.crt"},
		{name: "etcd's clients are of the authority of peers", brk: func(x *tree) {
			x.pair("s1", tls+"etcd/client", "etcd-peer-ca", leaf{cn: "etcd-client", usages: clients})
		}, id: "authority-unknown", node: "s1", path: tls + "etcd/client.crt", fix: "--service etcd"},
		{name: "kube-proxy's certificate is for servers", brk: func(x *tree) {
			x.reissue("a1", agent+"client-kube-proxy.crt", "client-ca", usages(x509.ExtKeyUsageServerAuth))
		}, id: "usage-missing", node: "a1", path: agent + "client-kube-proxy.crt", fix: "systemctl stop rke2-agent && rke2 certificate rotate --service kube-proxy"},
		{name: "the kubelet serves a certificate without its name", brk: func(x *tree) {
			x.reissue("s1", agent+"serving-kubelet.crt", "server-ca", func(l *x509.Certificate) { l.DNSNames = []string{"localhost"} })
		}, id: "san-missing", node: "s1", path: agent + "serving-kubelet.crt", fix: "systemctl stop rke2-server && rke2 certificate rotate --service kubelet"},
		{name: "a key is open to others", brk: func(x *tree) { x.must(os.Chmod(x.path("s1", tls+"server-ca.key"), 0o644)) },
			id: "key-permissions", node: "s1", path: tls + "server-ca.key"},
		{name: "the scheduler has everything", brk: func(x *tree) {
			x.reissue("s1", tls+"client-scheduler.crt", "client-ca", named("system:kube-scheduler", "system:masters"))
		}, id: "identity-privileged", node: "s1", path: tls + "client-scheduler.crt", fix: "--service scheduler"},
		{name: "etcd's peers are not asked for certificates", brk: func(x *tree) {
			x.edit("s1", data+"server/db/etcd/config", "  trusted-ca-file: "+tls+"etcd/peer-ca.crt\n", "")
			x.edit("s1", data+"server/db/etcd/config", "client-cert-auth: true\n  key-file: "+tls+"etcd/peer-server-client.key", "key-file: "+tls+"etcd/peer-server-client.key")
		}, id: "client-auth-off", node: "s1", path: data + "server/db/etcd/config"},
	}
}
