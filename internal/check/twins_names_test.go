package check_test

import (
	"crypto/x509"
	"encoding/base64"
	"net"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/testpki"
)

// dial lets kubeconfigs of cp1 dial another host or URL.
func dial(c *testpki.Cluster, url string, confs ...string) {
	for _, conf := range confs {
		c.Edit("cp1", conf, "https://10.0.0.11:6443", url)
	}
}

// plugin takes the certificate out of a kubeconfig of cp1, and names a program that
// gets a credential instead.
func plugin(c *testpki.Cluster, conf string) {
	for _, f := range []string{"client-certificate-data", "client-key-data"} {
		c.Edit("cp1", conf, "    "+f+": "+confField(c, conf, f+": ")+"\n", "")
	}
	c.Edit("cp1", conf, "\n  user:", "\n  user:\n    exec:\n      apiVersion: client.authentication.k8s.io/v1\n      command: oidc-login\n      interactiveMode: Never")
}

func more(names ...string) testpki.Change {
	return func(x *x509.Certificate) {
		for _, n := range names {
			if a := net.ParseIP(n); a != nil {
				x.IPAddresses = append(x.IPAddresses, a)
			} else {
				x.DNSNames = append(x.DNSNames, n)
			}
		}
	}
}

// nameTwins are unusual forms of names and addresses.
var nameTwins = []twin{
	{name: "a kubeconfig dials an IPv4 address in its IPv6 form", change: func(t *testing.T, c *testpki.Cluster) {
		dial(c, "https://[::ffff:10.0.0.11]:6443", "admin.conf", "scheduler.conf")
	}},
	{name: "an apiserver is reached at an IPv6 address in several forms", change: func(t *testing.T, c *testpki.Cluster) {
		c.Edit("cp1", "manifests/kube-apiserver.yaml", "--advertise-address=10.0.0.11", "--advertise-address=fd00:0:0:0::11")
		dial(c, "https://[fd00::11]:6443", "admin.conf")
		dial(c, "https://[FD00::0011]:6443", "scheduler.conf", "controller-manager.conf")
		dial(c, "https://[fd00:0:0:0:0:0:0:11]:6443", "kubelet.conf", "super-admin.conf")
		c.Reissue("cp1", "apiserver", "ca", more("fd00::11"))
	}},
	{name: "three apiservers are reached at IPv6 addresses in another form each", kind: testpki.HA, change: func(t *testing.T, c *testpki.Cluster) {
		for i, forms := range [][2]string{{"fd00::11", "FD00:0:0::11"}, {"fd00::12", "fd00:0::0012"}, {"fd00::13", "fd00:0:0:0:0:0:0:13"}} {
			n := []string{"cp1", "cp2", "cp3"}[i]
			c.Edit(n, "manifests/kube-apiserver.yaml", "--advertise-address=10.0.0.1"+forms[0][7:], "--advertise-address="+forms[0])
			for _, conf := range []string{"scheduler.conf", "controller-manager.conf", "kubelet.conf"} {
				c.Edit(n, conf, "https://10.0.0.1"+forms[0][7:]+":6443", "https://["+forms[1]+"]:6443")
			}
			c.Reissue(n, "apiserver", "ca", more(forms[0]))
		}
	}},
	{name: "kubeconfigs dial in capitals, with a trailing dot", change: func(t *testing.T, c *testpki.Cluster) {
		c.Reissue("cp1", "apiserver", "ca", more("api.example.test"))
		dial(c, "https://API.example.test:6443", "admin.conf", "super-admin.conf")
		dial(c, "https://api.example.test.:6443", "kubelet.conf")
	}},
	{name: "a kubeconfig dials the usual port of https without naming it", change: func(t *testing.T, c *testpki.Cluster) {
		c.Reissue("cp1", "apiserver", "ca", more("lb.example.test"))
		dial(c, "https://lb.example.test", "admin.conf")
	}},
	{name: "a kubeconfig's URL ends with a slash, another has a path", change: func(t *testing.T, c *testpki.Cluster) {
		dial(c, "https://10.0.0.11:6443/", "admin.conf")
		dial(c, "https://10.0.0.11:6443/k8s/clusters/c1", "super-admin.conf")
	}},
	{name: "a load balancer's names are in the certificate, wildcards too, and are dialled", kind: testpki.HA, change: func(t *testing.T, c *testpki.Cluster) {
		for _, n := range []string{"cp1", "cp2", "cp3"} {
			c.Reissue(n, "apiserver", "ca", more("*.lb.example.test", "lb.example.test", "203.0.113.7", "2001:db8::7"))
		}
		c.Edit("cp1", "admin.conf", "https://api.example.test:6443", "https://eu.lb.example.test:443")
		c.Edit("cp2", "admin.conf", "https://api.example.test:6443", "https://203.0.113.7:443")
		c.Edit("cp3", "admin.conf", "https://api.example.test:6443", "https://[2001:db8:0::7]:443")
	}},
	{name: "kubeconfigs dial an address and ask for the name", change: func(t *testing.T, c *testpki.Cluster) {
		c.Edit("cp1", "scheduler.conf", "    server: https://10.0.0.11:6443\n", "    server: https://10.0.0.11:6443\n    tls-server-name: kubernetes.default.svc\n")
	}},
	{name: "a kubeconfig dials loopback, where a proxy of the node listens", change: func(t *testing.T, c *testpki.Cluster) {
		c.Reissue("cp1", "apiserver", "ca", more("127.0.0.1"))
		dial(c, "https://127.0.0.1:7443", "kubelet.conf")
	}},
	{name: "a worker dials a proxy of its own on loopback", kind: testpki.HA, change: func(t *testing.T, c *testpki.Cluster) {
		c.Edit("w1", "kubelet.conf", "https://api.example.test:6443", "https://localhost:6443")
	}},
	{name: "a kubeconfig has several contexts, and the others are broken", change: func(t *testing.T, c *testpki.Cluster) {
		c.Edit("cp1", "admin.conf", "contexts:\n", "contexts:\n- context:\n    cluster: gone\n    user: nobody\n  name: other\n")
	}},
	{name: "a kubeconfig goes through a proxy, another has a token beside its certificate", change: func(t *testing.T, c *testpki.Cluster) {
		c.Edit("cp1", "admin.conf", "    server: https://10.0.0.11:6443\n", "    server: https://10.0.0.11:6443\n    proxy-url: http://proxy.example.test:3128\n")
		confLine(c, "super-admin.conf", "  user:\n", "    token: abc\n")
	}},
	{name: "a user's credential comes from a plugin", change: func(t *testing.T, c *testpki.Cluster) {
		plugin(c, "admin.conf")
	}},
	{name: "kubeconfigs name files relative to themselves", change: func(t *testing.T, c *testpki.Cluster) {
		for field, file := range map[string]string{"client-certificate": "scheduler.crt", "client-key": "scheduler.key"} {
			value := confField(c, "scheduler.conf", field+"-data: ")
			c.Write("cp1", "pki/"+file, must(base64.StdEncoding.DecodeString(value)))
			c.Edit("cp1", "scheduler.conf", field+"-data: "+value, field+": ./pki/../pki/"+file)
		}
		c.Edit("cp1", "scheduler.conf", "certificate-authority-data: "+confField(c, "scheduler.conf", "certificate-authority-data: "), "certificate-authority: pki/ca.crt")
	}},
	{name: "a kubeconfig is JSON", change: func(t *testing.T, c *testpki.Cluster) {
		ca, cert, key := confField(c, "admin.conf", "certificate-authority-data: "), confField(c, "admin.conf", "client-certificate-data: "), confField(c, "admin.conf", "client-key-data: ")
		c.Write("cp1", "admin.conf", []byte(`{"kind":"Config","apiVersion":"v1","current-context":"a","clusters":[{"name":"c","cluster":{"server":"https://10.0.0.11:6443","certificate-authority-data":"`+ca+
			`"}}],"contexts":[{"name":"a","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u","user":{"client-certificate-data":"`+cert+`","client-key-data":"`+key+`"}}]}`))
	}},
	{name: "certificates of etcd have more names in other forms", change: func(t *testing.T, c *testpki.Cluster) {
		c.Reissue("cp1", "etcd/server", "etcd/ca", more("etcd.example.test", "::ffff:10.0.0.11", "ETCD.kube-system.svc"))
	}},
	{name: "etcd listens on a unix socket and at a plain port for metrics", change: func(t *testing.T, c *testpki.Cluster) {
		setFlag("etcd", "listen-client-urls", "https://127.0.0.1:2379,https://10.0.0.11:2379", "unix:///run/etcd.sock,unixs:///run/etcd-tls.sock,https://10.0.0.11:2379,https://127.0.0.1:2379")(c)
		setFlag("etcd", "listen-metrics-urls", "http://127.0.0.1:2381", "http://0.0.0.0:2381")(c)
	}},
	{name: "the node's name is written in the certificate in capitals", change: func(t *testing.T, c *testpki.Cluster) {
		c.Reissue("cp1", "apiserver", "ca", func(x *x509.Certificate) {
			for i := range x.DNSNames {
				x.DNSNames[i] = strings.ToUpper(x.DNSNames[i])
			}
		})
		c.Reissue("cp1", "etcd/server", "etcd/ca", func(x *x509.Certificate) { x.DNSNames = []string{"LOCALHOST", "CP1"} })
	}},
	{name: "the front proxy is in groups of its own", change: func(t *testing.T, c *testpki.Cluster) {
		c.Reissue("cp1", "front-proxy-client", "front-proxy-ca", named("front-proxy-client", "system:masters", "proxies"))
	}},
	{name: "an admin has another name and group, as operators give them", change: func(t *testing.T, c *testpki.Cluster) {
		c.ReissueConf("cp1", "admin.conf", "ca", named("alice", "kubeadm:cluster-admins"))
	}},
}
