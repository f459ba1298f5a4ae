package catalog

import (
	"path"
	"slices"

	"github.com/kubepki/kubepki/internal/trust"
)

// Names of clients that people and probes run; they are components too.
const (
	Admin      = "admin"
	SuperAdmin = "super-admin"
	Etcdctl    = "etcdctl"
)

// RoleKubeconfig marks a flag that names a kubeconfig file.
const RoleKubeconfig trust.Role = "kubeconfig"

// RoleRemoteKubeconfig marks a flag that names the kubeconfig of a webhook.
const RoleRemoteKubeconfig trust.Role = "webhook kubeconfig"

// Numbers of the links to servers beside the cluster's components.
const (
	LinkWebhook      = 14
	LinkKonnectivity = 21
)

// ServerTLSBootstrap is the name under which a kubelet's serverTLSBootstrap stands
// among its flags; on the command line it is --rotate-server-certificates.
const ServerTLSBootstrap = "server-tls-bootstrap"

// Flags of etcd with which it makes certificates for itself.
const (
	EtcdAutoTLS     = "auto-tls"
	EtcdPeerAutoTLS = "peer-auto-tls"
)

// FlagUse says what the file that a flag names is used as.
type FlagUse struct {
	Flag     string
	Role     trust.Role
	Optional bool // the component makes the file itself when it is absent
}

// FlagUses returns the flags of a component that name files of credentials or
// trust. Sources: k/k cmd/kube-apiserver/app/options, cmd/kube-controller-manager/app/options,
// cmd/kubelet/app/options; etcd server/etcdmain/config.go.
func FlagUses(component string) []FlagUse { return slices.Clone(flagUses[component]) }

var servingFlags = []FlagUse{
	{Flag: "tls-cert-file", Role: trust.RoleCertificate},
	{Flag: "tls-private-key-file", Role: trust.RoleKey},
}

var kubeconfigFlags = []FlagUse{
	{Flag: "kubeconfig", Role: RoleKubeconfig},
	{Flag: "authentication-kubeconfig", Role: RoleKubeconfig},
	{Flag: "authorization-kubeconfig", Role: RoleKubeconfig},
	{Flag: "client-ca-file", Role: trust.RoleBundle},
	{Flag: "requestheader-client-ca-file", Role: trust.RoleBundle},
}

var flagUses = map[string][]FlagUse{
	APIServer: slices.Concat(servingFlags, []FlagUse{
		{Flag: "client-ca-file", Role: trust.RoleBundle},
		{Flag: "kubelet-client-certificate", Role: trust.RoleCertificate},
		{Flag: "kubelet-client-key", Role: trust.RoleKey},
		{Flag: "kubelet-certificate-authority", Role: trust.RoleBundle},
		{Flag: "etcd-cafile", Role: trust.RoleBundle},
		{Flag: "etcd-certfile", Role: trust.RoleCertificate},
		{Flag: "etcd-keyfile", Role: trust.RoleKey},
		{Flag: "requestheader-client-ca-file", Role: trust.RoleBundle},
		{Flag: "proxy-client-cert-file", Role: trust.RoleCertificate},
		{Flag: "proxy-client-key-file", Role: trust.RoleKey},
		{Flag: "service-account-key-file", Role: trust.RoleVerifyKeys},
		{Flag: "service-account-signing-key-file", Role: trust.RoleKey},
	}),
	ControllerManager: slices.Concat(servingFlags, kubeconfigFlags, signingFlags(), []FlagUse{
		{Flag: "root-ca-file", Role: trust.RoleBundle},
		{Flag: "service-account-private-key-file", Role: trust.RoleKey},
	}),
	Scheduler: slices.Concat(servingFlags, kubeconfigFlags),
	Etcd: {
		{Flag: "cert-file", Role: trust.RoleCertificate},
		{Flag: "key-file", Role: trust.RoleKey},
		{Flag: "trusted-ca-file", Role: trust.RoleBundle},
		{Flag: "peer-cert-file", Role: trust.RoleCertificate},
		{Flag: "peer-key-file", Role: trust.RoleKey},
		{Flag: "peer-trusted-ca-file", Role: trust.RoleBundle},
	},
	Kubelet: {
		{Flag: "kubeconfig", Role: RoleKubeconfig},
		{Flag: "bootstrap-kubeconfig", Role: RoleKubeconfig, Optional: true},
		{Flag: "client-ca-file", Role: trust.RoleBundle},
		{Flag: "tls-cert-file", Role: trust.RoleCertificate},
		{Flag: "tls-private-key-file", Role: trust.RoleKey},
	},
	KubeProxy:  {{Flag: "kubeconfig", Role: RoleKubeconfig}},
	Admin:      {{Flag: "kubeconfig", Role: RoleKubeconfig}},
	SuperAdmin: {{Flag: "kubeconfig", Role: RoleKubeconfig}},
	Etcdctl: {
		{Flag: "cacert", Role: trust.RoleBundle},
		{Flag: "cert", Role: trust.RoleCertificate},
		{Flag: "key", Role: trust.RoleKey},
	},
}

// rareUses are the flags that no cluster needs: they are judged where they are
// set, and how a running process takes their files up is not among [Reloads].
var rareUses = map[string][]FlagUse{
	APIServer: {
		{Flag: "oidc-ca-file", Role: trust.RoleBundle},
		{Flag: "peer-ca-file", Role: trust.RoleBundle},
		{Flag: "authentication-token-webhook-config-file", Role: RoleRemoteKubeconfig},
		{Flag: "authorization-webhook-config-file", Role: RoleRemoteKubeconfig},
		{Flag: "audit-webhook-config-file", Role: RoleRemoteKubeconfig},
	},
	Etcd: {
		{Flag: "client-cert-file", Role: trust.RoleCertificate},
		{Flag: "client-key-file", Role: trust.RoleKey},
		{Flag: "peer-client-cert-file", Role: trust.RoleCertificate},
		{Flag: "peer-client-key-file", Role: trust.RoleKey},
	},
}

// Signers are the parts of the --cluster-signing-* flags that name one of the
// signers of certificates.k8s.io; the empty one serves all of them.
func Signers() []string {
	return []string{"", "kube-apiserver-client-", "kubelet-client-", "kubelet-serving-", "legacy-unknown-"}
}

func signingFlags() []FlagUse {
	var uses []FlagUse
	for _, s := range Signers() {
		uses = append(uses,
			FlagUse{Flag: "cluster-signing-" + s + "cert-file", Role: trust.RoleAuthority},
			FlagUse{Flag: "cluster-signing-" + s + "key-file", Role: trust.RoleKey})
	}
	return uses
}

// Complete adds to a node the components that its manifests and units do not
// configure, with the flags that its layout would give them, and the layout's
// authorities. A component is added when a file that only it needs exists.
func Complete(n *trust.Node, exists func(path string) bool) {
	n.Authorities = AuthoritiesOf(n)
	followEtcd(n, exists)
	defaults := layoutOf(n).defaults
	if defaults == nil {
		return
	}
	dir := certificatesDir(n)
	for _, d := range defaults(dir) {
		at := slices.IndexFunc(n.Components, func(c trust.Component) bool { return c.Name == d.name })
		switch {
		case at >= 0 && d.name == Kubelet:
			// The kubelet's configuration file names no kubeconfig. A command line
			// that does is all of it.
			if _, told := n.Components[at].Flag("kubeconfig"); told {
				continue
			}
			for flag, value := range d.flags {
				if _, set := n.Components[at].Flag(flag); !set && flag != "client-ca-file" {
					n.Components[at].Flags[flag] = []string{value}
				}
			}
		case at < 0 && slices.ContainsFunc(d.signs, exists):
			flags := map[string][]string{}
			for flag, value := range d.flags {
				flags[flag] = []string{value}
			}
			n.Components = append(n.Components, trust.Component{Node: n.Name, Name: d.name, Flags: flags})
		}
	}
	if worker, ok := workerOf(n, dir, exists); ok {
		n.Components = append(n.Components, worker)
	}
	completeKubelet(n, exists)
	dropGuesses(n, dir, exists)
}

// workerOf is the kubelet of a node that has nothing but the cluster's authority:
// kubeadm leaves that alone beside kubelet.conf, so that kubelet.conf is missed.
func workerOf(n *trust.Node, dir string, exists func(string) bool) (trust.Component, bool) {
	if len(n.Components) > 0 || !exists(path.Join(dir, "ca.crt")) || exists(path.Join(dir, "ca.key")) {
		return trust.Component{}, false
	}
	return trust.Component{Node: n.Name, Name: Kubelet, Flags: map[string][]string{
		"kubeconfig": {Conf("kubelet.conf")}, "client-ca-file": {path.Join(dir, "ca.crt")},
	}}, true
}

// dropGuesses takes back what kubeadm's defaults guess of components without a
// manifest, where the files tell otherwise: etcd may be external, and the
// cluster's authority may sign elsewhere.
func dropGuesses(n *trust.Node, dir string, exists func(string) bool) {
	etcd := []string{path.Join(dir, "etcd/ca.crt"), path.Join(dir, "apiserver-etcd-client.crt"), path.Join(dir, "apiserver-etcd-client.key")}
	for i := range n.Components {
		c := &n.Components[i]
		if !c.Source.IsZero() {
			continue
		}
		if c.Name == APIServer && !slices.ContainsFunc(etcd, exists) {
			delete(c.Flags, "etcd-cafile")
			delete(c.Flags, "etcd-certfile")
			delete(c.Flags, "etcd-keyfile")
		}
		if c.Name == ControllerManager && !exists(path.Join(dir, "ca.key")) {
			delete(c.Flags, "cluster-signing-cert-file")
			delete(c.Flags, "cluster-signing-key-file")
		}
		addShape(c, dir, exists)
	}
}

// addShape follows what stands beside kubeadm's files where the authorities
// have another shape: the flags are those of [Cluster.Command].
func addShape(c *trust.Component, dir string, exists func(string) bool) {
	set := func(component, flag, file string) {
		if at := path.Join(dir, file); c.Name == component && exists(at) {
			c.Flags[flag] = []string{at}
		}
	}
	set(APIServer, "client-ca-file", "client-ca.crt")
	set(ControllerManager, "client-ca-file", "client-ca.crt")
	set(APIServer, "kubelet-certificate-authority", "kubelet-ca.crt")
	set(ControllerManager, "root-ca-file", "root-ca.crt")
}

// completeKubelet drops what the kubelet would make by itself and has not.
func completeKubelet(n *trust.Node, exists func(string) bool) {
	for i := range n.Components {
		c := &n.Components[i]
		if c.Name != Kubelet {
			continue
		}
		for _, u := range flagUses[Kubelet] {
			if v, set := c.Flag(u.Flag); set && u.Optional && c.Source.IsZero() && !exists(v) {
				delete(c.Flags, u.Flag)
			}
		}
		if v, set := c.Flag("bootstrap-kubeconfig"); set && !exists(v) {
			delete(c.Flags, "bootstrap-kubeconfig")
		}
		_, cert := c.Flag("tls-cert-file")
		dir := path.Join(KubeletDir, "pki")
		if v, set := c.Flag("cert-dir"); set && path.IsAbs(v) {
			dir = path.Clean(v)
		}
		if asks, _ := c.Flag(ServerTLSBootstrap); asks == "true" {
			// What it asks of the API is kept beside, and goes before the pair of a
			// flag; the pair that it once made itself is not served any more (k/k
			// pkg/kubelet/certificate/kubelet.go).
			if current := path.Join(dir, "kubelet-server-current.pem"); exists(current) {
				c.Flags["tls-cert-file"], c.Flags["tls-private-key-file"] = []string{current}, []string{current}
			}
			continue
		}
		made := path.Join(dir, "kubelet")
		if !cert && (exists(made+".key") || exists(made+".crt")) {
			c.Flags["tls-cert-file"] = []string{made + ".crt"}
			c.Flags["tls-private-key-file"] = []string{made + ".key"}
		}
	}
}

type componentDefaults struct {
	name  string
	signs []string // any of these files shows that the component is there
	flags map[string]string
}

func kubeadmDefaults(dir string) []componentDefaults {
	pki := func(name string) string { return path.Join(dir, name) }
	conf := func(name string) map[string]string { return map[string]string{"kubeconfig": Conf(name)} }
	kubeletFlags := conf("kubelet.conf")
	kubeletFlags["client-ca-file"] = pki("ca.crt")
	kubeletFlags["bootstrap-kubeconfig"] = Conf("bootstrap-kubelet.conf")
	// Where one of them is, kubeadm made the others too. admin.conf is not
	// missed: operators take it away on purpose.
	controlPlaneConfs := []string{Conf("controller-manager.conf"), Conf("scheduler.conf")}
	return []componentDefaults{
		{APIServer, []string{pki("apiserver.crt"), pki("apiserver.key"), pki("sa.pub"), Conf("controller-manager.conf")}, map[string]string{
			"tls-cert-file": pki("apiserver.crt"), "tls-private-key-file": pki("apiserver.key"), "client-ca-file": pki("ca.crt"),
			"kubelet-client-certificate": pki("apiserver-kubelet-client.crt"), "kubelet-client-key": pki("apiserver-kubelet-client.key"),
			"etcd-cafile": pki("etcd/ca.crt"), "etcd-certfile": pki("apiserver-etcd-client.crt"), "etcd-keyfile": pki("apiserver-etcd-client.key"),
			"requestheader-client-ca-file": pki("front-proxy-ca.crt"), "requestheader-allowed-names": "front-proxy-client",
			"proxy-client-cert-file": pki("front-proxy-client.crt"), "proxy-client-key-file": pki("front-proxy-client.key"),
			"service-account-key-file": pki("sa.pub"), "service-account-signing-key-file": pki("sa.key"),
			"service-cluster-ip-range": DefaultServiceSubnet,
		}},
		{ControllerManager, controlPlaneConfs, map[string]string{
			"kubeconfig": Conf("controller-manager.conf"), "root-ca-file": pki("ca.crt"), "client-ca-file": pki("ca.crt"),
			"service-account-private-key-file": pki("sa.key"), "requestheader-client-ca-file": pki("front-proxy-ca.crt"),
			"cluster-signing-cert-file": pki("ca.crt"), "cluster-signing-key-file": pki("ca.key"),
		}},
		{Scheduler, controlPlaneConfs, conf("scheduler.conf")},
		{Etcd, []string{pki("etcd/server.crt"), pki("etcd/server.key"), pki("etcd/peer.crt"), pki("etcd/peer.key")}, map[string]string{
			"cert-file": pki("etcd/server.crt"), "key-file": pki("etcd/server.key"), "trusted-ca-file": pki("etcd/ca.crt"),
			"peer-cert-file": pki("etcd/peer.crt"), "peer-key-file": pki("etcd/peer.key"), "peer-trusted-ca-file": pki("etcd/ca.crt"),
			"client-cert-auth": "true", "peer-client-cert-auth": "true",
		}},
		{Etcdctl, []string{pki("etcd/healthcheck-client.crt"), pki("etcd/healthcheck-client.key")}, map[string]string{
			"cacert": pki("etcd/ca.crt"), "cert": pki("etcd/healthcheck-client.crt"), "key": pki("etcd/healthcheck-client.key"),
		}},
		{Kubelet, append([]string{Conf("kubelet.conf"), Conf("bootstrap-kubelet.conf")}, controlPlaneConfs...), kubeletFlags},
		{KubeProxy, []string{Conf("kube-proxy.conf")}, conf("kube-proxy.conf")},
		{Admin, []string{Conf("admin.conf")}, conf("admin.conf")},
		{SuperAdmin, []string{Conf("super-admin.conf")}, conf("super-admin.conf")},
	}
}

// FileUse is one file that a node's configuration names.
type FileUse struct {
	Path     string // absolute as on the node
	Role     trust.Role
	Optional bool // absence is no fault
}

// FilesOf lists the files that the components of a node use, and those of its
// authorities, which may stand beside them, each path once per role.
func FilesOf(n *trust.Node) []FileUse {
	var files []FileUse
	add := func(f FileUse) {
		same := func(g FileUse) bool { return g.Path == f.Path && g.Role == f.Role }
		if i := slices.IndexFunc(files, same); i >= 0 {
			files[i].Optional = files[i].Optional && f.Optional
		} else {
			files = append(files, f)
		}
	}
	for i := range n.Components {
		c := &n.Components[i]
		for _, u := range slices.Concat(flagUses[c.Name], rareUses[c.Name]) {
			for _, v := range c.Flags[u.Flag] {
				if path.IsAbs(v) {
					add(FileUse{Path: path.Clean(v), Role: u.Role, Optional: u.Optional})
				}
			}
		}
	}
	for _, f := range slices.Concat(remoteFiles(n), sniFiles(n)) {
		add(f)
	}
	for _, a := range n.Authorities {
		for _, f := range []FileUse{{Path: a.Certificate, Role: trust.RoleAuthority, Optional: true}, {Path: a.Key, Role: trust.RoleKey, Optional: true}} {
			if f.Path != "" {
				add(f)
			}
		}
	}
	return files
}
