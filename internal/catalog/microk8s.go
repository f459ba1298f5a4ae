package catalog

import "time"

// microK8s takes all flags from files of arguments; the parts say what is there
// beside them. Sources, in canonical/microk8s: microk8s-resources/default-args,
// microk8s-resources/actions/common/utils.sh (produce_certs,
// create_user_certificates, create_kubeconfig_x509), microk8s-resources/certs.
var microK8s = Distribution{
	Name: LayoutMicroK8s, Data: "/var/snap/microk8s/current",
	Server: []Part{
		{Name: APIServer}, {Name: ControllerManager}, {Name: Scheduler}, {Name: Etcd},
		{Name: Admin, Shows: []string{"./credentials/client.config"}, Flags: map[string]string{"kubeconfig": "./credentials/client.config"}},
	},
	Node: []Part{
		// Without flags it takes the pair of this name in its --cert-dir
		// (k/k cmd/kubelet/app/server.go).
		{Name: Kubelet, IfThere: map[string][]string{"tls-cert-file": {"./certs/kubelet.crt"}, "tls-private-key-file": {"./certs/kubelet.key"}}},
		{Name: KubeProxy},
	},
	Authorities: []AuthorityFile{
		{Name: ClusterCA, File: "certs/ca.crt", Key: "certs/ca.key", Signs: []string{Clients, "apiserver", "kubelet-server", "kubelet.config", "apiserver-kubelet-client", "etcd-server", "apiserver-etcd-client"}},
		{Name: FrontProxyCA, File: "certs/front-proxy-ca.crt", Key: "certs/front-proxy-ca.key", Signs: []string{"front-proxy-client"}},
	},
	// What a node that joined as a worker keeps of the cluster; its own authority
	// of before, beside it, signs nothing any more.
	NodeAuthorities: []AuthorityFile{{Name: ClusterCA, File: "certs/ca.remote.crt", Signs: []string{Clients, "apiserver", "kubelet-server", "kubelet.config"}}},
	Ports:           []string{"16443"}, Balanced: true,
	Modes:    0o060, // the group microk8s administers the cluster by reading its files
	Outlives: 24 * time.Hour,
	// Authorization comes with the rbac addon, and tokens in a file were the
	// default of older releases.
	ByDesign: []string{"authorization-open", "kubelet-unverified", "static-token-file"},
	Unseen: []UnseenSource{
		{"var/kubernetes/backend", "dqlite's members know each other by a certificate of their own (cluster.crt), which is no Kubernetes credential: its links are not judged"},
	},
	Mends: Mends{
		ServerUnit: "snap.microk8s.daemon-kubelite", NodeUnit: "snap.microk8s.daemon-kubelite",
		Anew: []Mend{
			{Files: []string{"./certs/server.*"}, Command: "microk8s refresh-certs --cert server.crt"},
			{Files: []string{"./certs/front-proxy-client.*"}, Command: "microk8s refresh-certs --cert front-proxy-client.crt"},
			{Files: []string{"./certs/*", "./credentials/*"}, Command: "microk8s refresh-certs --cert ca.crt # the authority and all below it: nodes that joined must join again"},
		},
		Authority: "microk8s refresh-certs --cert ca.crt, on one node; the others leave and join again",
		Restart:   "microk8s stop && microk8s start",
	},
}
