package catalog

import "github.com/kubepki/kubepki/internal/trust"

// k0s keeps kubeadm's authorities below /var/lib/k0s/pki. Sources, in
// k0sproject/k0s: cmd/controller/certificates.go (files, subjects, names),
// pkg/component/controller/{apiserver,controllermanager,scheduler,etcd}.go (flags),
// pkg/component/worker/kubelet.go, pkg/config/cfgvars.go (paths),
// pkg/constant/constant_shared.go (modes). A worker has the authority's certificate
// alone, from its join token.
var k0s = Distribution{
	Name: LayoutK0s, Data: "/var/lib/k0s",
	Server: []Part{
		{Name: APIServer, Shows: []string{"./pki/server.crt", "./pki/server.key", "./pki/sa.pub", "./pki/ccm.conf"}, Flags: map[string]string{
			"tls-cert-file": "./pki/server.crt", "tls-private-key-file": "./pki/server.key", "client-ca-file": "./pki/ca.crt",
			"kubelet-client-certificate": "./pki/apiserver-kubelet-client.crt", "kubelet-client-key": "./pki/apiserver-kubelet-client.key",
			"requestheader-client-ca-file": "./pki/front-proxy-ca.crt", "requestheader-allowed-names": "front-proxy-client",
			"proxy-client-cert-file": "./pki/front-proxy-client.crt", "proxy-client-key-file": "./pki/front-proxy-client.key",
			"service-account-key-file": "./pki/sa.pub", "service-account-signing-key-file": "./pki/sa.key",
			"service-cluster-ip-range": DefaultServiceSubnet, "authorization-mode": "Node,RBAC", "secure-port": "6443",
		}},
		{Name: ControllerManager, Shows: []string{"./pki/ccm.conf", "./pki/ccm.key"}, Flags: map[string]string{
			"kubeconfig": "./pki/ccm.conf", "client-ca-file": "./pki/ca.crt", "root-ca-file": "./pki/ca.crt",
			"service-account-private-key-file": "./pki/sa.key", "requestheader-client-ca-file": "./pki/front-proxy-ca.crt",
			"cluster-signing-cert-file": "./pki/ca.crt", "cluster-signing-key-file": "./pki/ca.key", "bind-address": "127.0.0.1",
		}},
		{Name: Scheduler, Shows: []string{"./pki/scheduler.conf", "./pki/scheduler.key"}, Flags: map[string]string{"kubeconfig": "./pki/scheduler.conf", "bind-address": "127.0.0.1"}},
		// Where the datastore is kine, or an etcd elsewhere, its folder is not there.
		{Name: Etcd, Shows: []string{"./pki/etcd/server.crt", "./pki/etcd/server.key", "./pki/etcd/peer.crt", "./pki/etcd/peer.key"}, Flags: map[string]string{
			"cert-file": "./pki/etcd/server.crt", "key-file": "./pki/etcd/server.key", "trusted-ca-file": "./pki/etcd/ca.crt", "client-cert-auth": "true",
			"peer-cert-file": "./pki/etcd/peer.crt", "peer-key-file": "./pki/etcd/peer.key", "peer-trusted-ca-file": "./pki/etcd/ca.crt", "peer-client-cert-auth": "true",
			"listen-client-urls": "https://127.0.0.1:2379", "advertise-client-urls": "https://127.0.0.1:2379",
		}},
		{Name: Admin, Shows: []string{"./pki/admin.conf", "./pki/admin.key"}, Flags: map[string]string{"kubeconfig": "./pki/admin.conf"}},
		{Name: Konnectivity, Shows: []string{"./pki/konnectivity.conf"}, Flags: map[string]string{"kubeconfig": "./pki/konnectivity.conf"},
			Want: trust.Identity{Named: true, User: "kubernetes-konnectivity"}},
		{Name: ControlAPI, Shows: []string{"./pki/k0s-api.crt", "./pki/k0s-api.key"}, Flags: map[string]string{"tls-cert-file": "./pki/k0s-api.crt", "tls-private-key-file": "./pki/k0s-api.key"}},
	},
	Node: []Part{
		{Name: Kubelet, Shows: []string{"./kubelet.conf", "./kubelet/pki"}, Flags: map[string]string{"kubeconfig": "./kubelet.conf", "client-ca-file": "./pki/ca.crt"},
			IfThere: map[string][]string{
				"tls-cert-file":        {"./kubelet/pki/kubelet-server-current.pem", "./kubelet/pki/kubelet.crt"},
				"tls-private-key-file": {"./kubelet/pki/kubelet-server-current.pem", "./kubelet/pki/kubelet.key"},
				"bootstrap-kubeconfig": {"./kubelet-bootstrap.conf"},
			}},
	},
	Authorities: []AuthorityFile{
		{Name: ClusterCA, File: "pki/ca.crt", Key: "pki/ca.key", Signs: []string{Clients, "apiserver", "kubelet-server", ControlAPI}},
		{Name: FrontProxyCA, File: "pki/front-proxy-ca.crt", Key: "pki/front-proxy-ca.key", Signs: []string{"front-proxy-client"}},
		{Name: EtcdCA, File: "pki/etcd/ca.crt", Key: "pki/etcd/ca.key", Signs: []string{"etcd-server", "etcd-peer", "apiserver-etcd-client", "etcd-healthcheck-client"}},
	},
	NodeAuthorities: []AuthorityFile{
		{Name: ClusterCA, File: "pki/ca.crt", Key: "pki/ca.key", Signs: []string{Clients, "apiserver", "kubelet-server", ControlAPI}},
	},
	// 7443: node-local load balancing.
	Ports: []string{"6443", "7443"}, Balanced: true,
	ByDesign: []string{"kubelet-unverified"},
	Modes:    0o040, // CertSecureMode is 0640, for each component is a user of its own
	Mends: Mends{
		ServerUnit: "k0scontroller", NodeUnit: "k0sworker",
		Anew: []Mend{
			{Files: []string{"./pki/admin.*"}, Command: k0sAnew("admin")}, {Files: []string{"./pki/ccm.*"}, Command: k0sAnew("ccm")},
			{Files: []string{"./pki/scheduler.*"}, Command: k0sAnew("scheduler")}, {Files: []string{"./pki/konnectivity.*"}, Command: k0sAnew("konnectivity")},
			{Files: []string{"./pki/server.*"}, Command: k0sAnew("server")}, {Files: []string{"./pki/k0s-api.*"}, Command: k0sAnew("k0s-api")},
			{Files: []string{"./pki/apiserver-kubelet-client.*"}, Command: k0sAnew("apiserver-kubelet-client")},
			{Files: []string{"./pki/apiserver-etcd-client.*"}, Command: k0sAnew("apiserver-etcd-client")},
			{Files: []string{"./pki/front-proxy-client.*"}, Command: k0sAnew("front-proxy-client")},
			{Files: []string{"./pki/etcd/server.*"}, Command: k0sAnew("etcd/server")}, {Files: []string{"./pki/etcd/peer.*"}, Command: k0sAnew("etcd/peer")},
			{Files: []string{"./kubelet/pki/kubelet-server-*", "./kubelet/pki/kubelet.*"}, Command: "rm -f DATA/kubelet/pki/kubelet-server-* DATA/kubelet/pki/kubelet.* && systemctl restart UNIT # the kubelet asks for another"},
			{Files: []string{"./kubelet.conf", "./kubelet/pki/kubelet-client-*"}, Command: "k0s token create --role=worker on a controller; on this node k0s stop, rm -rf DATA/kubelet.conf DATA/kubelet/pki, and start k0s worker with that token"},
		},
		Authority: "replace the authority in pki on every controller with k0s stopped, and let every worker join anew – k0s has no command to rotate an authority",
		Restart:   "systemctl restart UNIT",
	},
}

// k0sAnew: what is absent is made at the next start
// (pkg/certificate/manager.go, EnsureCertificate).
func k0sAnew(pair string) string {
	return "rm -f DATA/pki/" + pair + ".crt DATA/pki/" + pair + ".key && systemctl restart UNIT # what is absent is made at the start"
}
