package testpki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// The forms of a cluster as kelseyhightower/kubernetes-the-hard-way makes it.
const (
	// HardwayOpenssl is the present one: server and node-0, ca.crt beside ca.key,
	// etcd without TLS on loopback, one certificate for all that kube-apiserver
	// shows (units/, configs/ and ca.conf of that repository).
	HardwayOpenssl = "openssl"
	// HardwayCfssl is that of its versions before 1.27: controller-0, worker-0,
	// ca.pem and ca-key.pem, kubernetes.pem for kube-apiserver and etcd, one
	// authority for all (docs/04, 07, 08, 09).
	HardwayCfssl = "cfssl"
)

// NewHardway makes a healthy cluster of a form. Files are named by absolute
// paths.
func NewHardway(t *testing.T, form string) *Cluster {
	t.Helper()
	c := &Cluster{t: t, Dir: filepath.Join(t.TempDir(), form)}
	if form == HardwayCfssl {
		c.cfsslController()
		c.cfsslWorker()
		return c
	}
	c.opensslServer()
	c.opensslNode()
	return c
}

// Unit writes a unit below /etc/systemd/system that starts a command.
func (c *Cluster) Unit(node, name, command string) {
	c.t.Helper()
	c.Write(node, "/etc/systemd/system/"+name+".service", []byte("[Unit]\nDescription="+name+"\n\n[Service]\nExecStart="+command+"\nRestart=on-failure\n\n[Install]\nWantedBy=multi-user.target\n"))
	c.Chmod(node, "/etc/systemd/system/"+name+".service", 0o644)
}

// NewAuthority makes an authority at the paths of its certificate and key.
func (c *Cluster) NewAuthority(node, cert, key, commonName string) issue.Authority {
	c.t.Helper()
	signer := c.NewKey(node, key, issue.ECDSAP256)
	return c.writeAuthority(node, cert, signer, commonName)
}

// SignPair makes a key and a certificate for it at their paths.
func (c *Cluster) SignPair(node, cert, key string, a issue.Authority, subject pkix.Name, names ...string) {
	c.t.Helper()
	t := issue.Template{Subject: subject, NotBefore: Made, NotAfter: Made.AddDate(1, 0, 0),
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.Addresses = append(t.Addresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	signed, err := issue.Sign(t, c.NewKey(node, key, issue.ECDSAP256).Public(), a)
	c.check(err)
	c.Write(node, cert, trust.EncodeCertificates(signed))
}

// ReissueAt signs a certificate at a path anew, with the same key and after a
// change, by the authority at two other paths.
func (c *Cluster) ReissueAt(node, cert, caCert, caKey string, change Change) {
	c.t.Helper()
	certs, err := trust.ParseCertificates(c.Read(node, cert))
	c.check(err)
	c.Write(node, cert, trust.EncodeCertificates(c.resign(certs[0], certs[0].PublicKey, c.AuthorityAt(node, caCert, caKey), change)))
}

// AuthorityAt reads an authority by the paths of its certificate and key.
func (c *Cluster) AuthorityAt(node, cert, key string) issue.Authority {
	c.t.Helper()
	certs, err := trust.ParseCertificates(c.Read(node, cert))
	c.check(err)
	signer, err := issue.ParsePrivateKey(c.Read(node, key))
	c.check(err)
	return issue.Authority{Certificate: certs[0], Key: signer}
}

// NewConf writes a kubeconfig with all embedded, for a fresh certificate.
func (c *Cluster) NewConf(node, path, server string, a issue.Authority, subject pkix.Name) {
	c.t.Helper()
	c.SignPair(node, path+".crt", path+".key", a, subject)
	text := func(data []byte) string { return base64.StdEncoding.EncodeToString(data) }
	c.Write(node, path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: kubernetes-the-hard-way
  cluster:
    certificate-authority-data: %s
    server: %s
contexts:
- name: default
  context: {cluster: kubernetes-the-hard-way, user: %s}
current-context: default
users:
- name: %[3]s
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
`, text(trust.EncodeCertificates(a.Certificate)), server, subject.CommonName, text(c.Read(node, path+".crt")), text(c.Read(node, path+".key"))))
	c.Remove(node, path+".crt")
	c.Remove(node, path+".key")
}

// Named is a subject by its name and groups.
func Named(cn string, groups ...string) pkix.Name {
	return pkix.Name{CommonName: cn, Organization: groups}
}

func (c *Cluster) opensslServer() {
	const n, lib, api = "server", "/var/lib/kubernetes", "https://server.kubernetes.local:6443"
	ca := c.NewAuthority(n, lib+"/ca.crt", lib+"/ca.key", "CA")
	c.SignPair(n, lib+"/kube-api-server.crt", lib+"/kube-api-server.key", ca, Named("kubernetes"), "127.0.0.1", "10.32.0.1", "kubernetes", "kubernetes.default",
		"kubernetes.default.svc", "kubernetes.default.svc.cluster", "kubernetes.svc.cluster.local", "server.kubernetes.local", "api-server.kubernetes.local")
	c.SignPair(n, lib+"/service-accounts.crt", lib+"/service-accounts.key", ca, Named("service-accounts"))
	c.NewConf(n, lib+"/kube-controller-manager.kubeconfig", api, ca, Named("system:kube-controller-manager", "system:kube-controller-manager"))
	c.NewConf(n, lib+"/kube-scheduler.kubeconfig", api, ca, Named("system:kube-scheduler", "system:system:kube-scheduler"))
	c.NewConf(n, "/root/admin.kubeconfig", "https://127.0.0.1:6443", ca, Named("admin", "system:masters"))
	c.Unit(n, "etcd", lines(`/usr/local/bin/etcd --name controller --initial-advertise-peer-urls http://127.0.0.1:2380 --listen-peer-urls http://127.0.0.1:2380
--listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 --initial-cluster-token etcd-cluster-0
--initial-cluster controller=http://127.0.0.1:2380 --initial-cluster-state new --data-dir=/var/lib/etcd`))
	c.Unit(n, "kube-apiserver", lines(`/usr/local/bin/kube-apiserver --allow-privileged=true --apiserver-count=1 --authorization-mode=Node,RBAC --bind-address=0.0.0.0
--client-ca-file=/var/lib/kubernetes/ca.crt --enable-admission-plugins=NamespaceLifecycle,NodeRestriction --etcd-servers=http://127.0.0.1:2379
--encryption-provider-config=/var/lib/kubernetes/encryption-config.yaml --kubelet-certificate-authority=/var/lib/kubernetes/ca.crt
--kubelet-client-certificate=/var/lib/kubernetes/kube-api-server.crt --kubelet-client-key=/var/lib/kubernetes/kube-api-server.key --runtime-config='api/all=true'
--service-account-key-file=/var/lib/kubernetes/service-accounts.crt --service-account-signing-key-file=/var/lib/kubernetes/service-accounts.key
--service-account-issuer=https://server.kubernetes.local:6443 --service-cluster-ip-range=10.32.0.0/24
--tls-cert-file=/var/lib/kubernetes/kube-api-server.crt --tls-private-key-file=/var/lib/kubernetes/kube-api-server.key --v=2`))
	c.Write(n, lib+"/encryption-config.yaml", []byte("kind: EncryptionConfiguration\napiVersion: apiserver.config.k8s.io/v1\nresources: [{resources: [secrets], providers: [{identity: {}}]}]\n"))
	c.controllerManager(n, lib+"/ca.crt", lib+"/ca.key", lib+"/service-accounts.key")
	c.scheduler(n)
}

func (c *Cluster) controllerManager(n, ca, key, accounts string) {
	c.Unit(n, "kube-controller-manager", lines(`/usr/local/bin/kube-controller-manager --bind-address=0.0.0.0 --cluster-cidr=10.200.0.0/16 --cluster-name=kubernetes
--cluster-signing-cert-file=`+ca+` --cluster-signing-key-file=`+key+` --kubeconfig=/var/lib/kubernetes/kube-controller-manager.kubeconfig --root-ca-file=`+ca+`
--service-account-private-key-file=`+accounts+` --service-cluster-ip-range=10.32.0.0/24 --use-service-account-credentials=true --v=2`))
}

func (c *Cluster) scheduler(n string) {
	c.Write(n, "/etc/kubernetes/config/kube-scheduler.yaml", []byte(`apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection:
  kubeconfig: "/var/lib/kubernetes/kube-scheduler.kubeconfig"
leaderElection:
  leaderElect: true
`))
	c.Unit(n, "kube-scheduler", lines(`/usr/local/bin/kube-scheduler --config=/etc/kubernetes/config/kube-scheduler.yaml --v=2`))
}

func (c *Cluster) opensslNode() {
	const n, api = "node-0", "https://server.kubernetes.local:6443"
	ca := c.AuthorityAt("server", "/var/lib/kubernetes/ca.crt", "/var/lib/kubernetes/ca.key")
	c.Write(n, "/var/lib/kubelet/ca.crt", trust.EncodeCertificates(ca.Certificate))
	c.SignPair(n, "/var/lib/kubelet/kubelet.crt", "/var/lib/kubelet/kubelet.key", ca, Named("system:node:node-0", "system:nodes"), "node-0", "127.0.0.1")
	c.workerFiles(n, api, ca, "/var/lib/kubelet/ca.crt", "/var/lib/kubelet/kubelet.crt", "/var/lib/kubelet/kubelet.key")
}

func (c *Cluster) workerFiles(n, api string, ca issue.Authority, caFile, cert, key string) {
	c.NewConf(n, "/var/lib/kubelet/kubeconfig", api, ca, Named("system:node:"+n, "system:nodes"))
	c.NewConf(n, "/var/lib/kube-proxy/kubeconfig", api, ca, Named("system:kube-proxy", "system:node-proxier"))
	c.Write(n, "/var/lib/kubelet/kubelet-config.yaml", fmt.Appendf(nil, `kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  webhook:
    enabled: true
  x509:
    clientCAFile: %q
authorization:
  mode: Webhook
tlsCertFile: %q
tlsPrivateKeyFile: %q
`, caFile, cert, key))
	c.Write(n, "/var/lib/kube-proxy/kube-proxy-config.yaml", []byte(`kind: KubeProxyConfiguration
apiVersion: kubeproxy.config.k8s.io/v1alpha1
clientConnection:
  kubeconfig: "/var/lib/kube-proxy/kubeconfig"
mode: "iptables"
clusterCIDR: "10.200.0.0/16"
`))
	c.Unit(n, "kubelet", lines(`/usr/local/bin/kubelet --config=/var/lib/kubelet/kubelet-config.yaml --kubeconfig=/var/lib/kubelet/kubeconfig --v=2`))
	c.Unit(n, "kube-proxy", lines(`/usr/local/bin/kube-proxy --config=/var/lib/kube-proxy/kube-proxy-config.yaml`))
}

func (c *Cluster) cfsslController() {
	const n, lib, etcd, local = "controller-0", "/var/lib/kubernetes", "/etc/etcd", "https://127.0.0.1:6443"
	ca := c.NewAuthority(n, lib+"/ca.pem", lib+"/ca-key.pem", "Kubernetes")
	c.SignPair(n, lib+"/kubernetes.pem", lib+"/kubernetes-key.pem", ca, Named("kubernetes", "Kubernetes"), "10.32.0.1", "10.240.0.10", "203.0.113.7", "127.0.0.1",
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster", "kubernetes.svc.cluster.local")
	for _, f := range []string{"ca.pem", "kubernetes.pem", "kubernetes-key.pem"} {
		c.Copy(n, lib+"/"+f, n, etcd+"/"+f)
	}
	c.SignPair(n, lib+"/service-account.pem", lib+"/service-account-key.pem", ca, Named("service-accounts", "Kubernetes"))
	c.NewConf(n, lib+"/kube-controller-manager.kubeconfig", local, ca, Named("system:kube-controller-manager", "system:kube-controller-manager"))
	c.NewConf(n, lib+"/kube-scheduler.kubeconfig", local, ca, Named("system:kube-scheduler", "system:kube-scheduler"))
	c.NewConf(n, "/root/admin.kubeconfig", local, ca, Named("admin", "system:masters"))
	c.Unit(n, "etcd", lines(`/usr/local/bin/etcd --name controller-0 --cert-file=/etc/etcd/kubernetes.pem --key-file=/etc/etcd/kubernetes-key.pem --peer-cert-file=/etc/etcd/kubernetes.pem
--peer-key-file=/etc/etcd/kubernetes-key.pem --trusted-ca-file=/etc/etcd/ca.pem --peer-trusted-ca-file=/etc/etcd/ca.pem --peer-client-cert-auth --client-cert-auth
--initial-advertise-peer-urls https://10.240.0.10:2380 --listen-peer-urls https://10.240.0.10:2380 --listen-client-urls https://10.240.0.10:2379,https://127.0.0.1:2379
--advertise-client-urls https://10.240.0.10:2379 --initial-cluster controller-0=https://10.240.0.10:2380 --initial-cluster-state new --data-dir=/var/lib/etcd`))
	c.Unit(n, "kube-apiserver", lines(`/usr/local/bin/kube-apiserver --advertise-address=10.240.0.10 --allow-privileged=true --apiserver-count=3 --authorization-mode=Node,RBAC
--bind-address=0.0.0.0 --client-ca-file=/var/lib/kubernetes/ca.pem --etcd-cafile=/var/lib/kubernetes/ca.pem --etcd-certfile=/var/lib/kubernetes/kubernetes.pem
--etcd-keyfile=/var/lib/kubernetes/kubernetes-key.pem --etcd-servers=https://10.240.0.10:2379 --kubelet-certificate-authority=/var/lib/kubernetes/ca.pem
--kubelet-client-certificate=/var/lib/kubernetes/kubernetes.pem --kubelet-client-key=/var/lib/kubernetes/kubernetes-key.pem --runtime-config='api/all=true'
--service-account-key-file=/var/lib/kubernetes/service-account.pem --service-account-signing-key-file=/var/lib/kubernetes/service-account-key.pem
--service-account-issuer=https://203.0.113.7:6443 --service-cluster-ip-range=10.32.0.0/24 --tls-cert-file=/var/lib/kubernetes/kubernetes.pem
--tls-private-key-file=/var/lib/kubernetes/kubernetes-key.pem --v=2`))
	c.controllerManager(n, lib+"/ca.pem", lib+"/ca-key.pem", lib+"/service-account-key.pem")
	c.scheduler(n)
}

func (c *Cluster) cfsslWorker() {
	const n = "worker-0"
	ca := c.AuthorityAt("controller-0", "/var/lib/kubernetes/ca.pem", "/var/lib/kubernetes/ca-key.pem")
	c.Write(n, "/var/lib/kubernetes/ca.pem", trust.EncodeCertificates(ca.Certificate))
	c.SignPair(n, "/var/lib/kubelet/worker-0.pem", "/var/lib/kubelet/worker-0-key.pem", ca, Named("system:node:worker-0", "system:nodes"), "worker-0", "10.240.0.20", "203.0.113.20")
	c.workerFiles(n, "https://203.0.113.7:6443", ca, "/var/lib/kubernetes/ca.pem", "/var/lib/kubelet/worker-0.pem", "/var/lib/kubelet/worker-0-key.pem")
}

// lines writes each flag on a line of its own, as that repository's units do.
func lines(command string) string {
	return strings.ReplaceAll(strings.ReplaceAll(command, "\n", " "), " --", " \\\n  --")
}
