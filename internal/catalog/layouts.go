package catalog

import (
	"path"
	"slices"

	"github.com/kubepki/kubepki/internal/trust"
)

// Names of the layouts, as trust.Node.Layout has them.
const (
	LayoutKubeadm  = "kubeadm"  // static pods, /etc/kubernetes/pki
	LayoutHardway  = "hardway"  // systemd units with flags, files wherever these say
	LayoutK3s      = "k3s"      // /var/lib/rancher/k3s, one process
	LayoutRKE2     = "rke2"     // /var/lib/rancher/rke2, static pods of its own
	LayoutK0s      = "k0s"      // /var/lib/k0s
	LayoutMicroK8s = "microk8s" // /var/snap/microk8s, files of arguments
	LayoutService  = "service"  // ca.crt, client/ and server/ for two services
	LayoutUsers    = "users"    // kubeconfigs beside the node roots; no node
)

// Clients stands in AuthorityFile.Signs for every credential that a client of
// kube-apiserver shows and that no other authority names.
const Clients = "clients"

// Layout is what all nodes of one layout have in common. See docs/layouts.md
// for the source of each fact.
type Layout struct {
	Name string
	// Distribution is the same for layouts whose nodes make up one cluster.
	Distribution string
	// Dir is the certificates folder; where FollowsFlag, the folder of the API
	// server's --tls-cert-file comes before it.
	Dir         string
	FollowsFlag bool
	Authorities []AuthorityFile
	// NodeNames tells that the API server's certificate holds the node's name.
	NodeNames bool

	// defaults are the components whose flags no manifest or unit tells.
	defaults func(dir string) []componentDefaults
}

// AuthorityFile is where a layout keeps an authority.
type AuthorityFile struct {
	Name string
	// File is the certificate, Key its key, below the certificates folder.
	File, Key string
	// Signs are the names of the credentials that are of it, and Clients for
	// all clients; nil where the name of the authority tells (kubeadm's names).
	Signs []string
}

// layouts in the order in which they are looked for.
var layouts = []Layout{
	{Name: LayoutKubeadm, Distribution: LayoutKubeadm, Dir: DefaultCertificatesDir, FollowsFlag: true, NodeNames: true, Authorities: kubeadmAuthorities, defaults: kubeadmDefaults},
	{Name: LayoutHardway, Distribution: LayoutKubeadm, Dir: "/var/lib/kubernetes", FollowsFlag: true},
	{Name: LayoutService, Distribution: LayoutService, Dir: "/", Authorities: []AuthorityFile{{Name: ClusterCA, File: "ca.crt", Key: "ca.key"}}},
	{Name: LayoutUsers, Distribution: LayoutKubeadm},
}

// kubeadmAuthorities are the authorities' own files below the certificates
// folder (k/k cmd/kubeadm/app/constants/constants.go), and those of kubepki init.
var kubeadmAuthorities = []AuthorityFile{
	{Name: RootCA, File: "root-ca.crt", Key: "root-ca.key"}, {Name: ClusterCA, File: "ca.crt", Key: "ca.key"},
	{Name: FrontProxyCA, File: "front-proxy-ca.crt", Key: "front-proxy-ca.key"}, {Name: EtcdCA, File: "etcd/ca.crt", Key: "etcd/ca.key"},
	{Name: KubeletCA, File: "kubelet-ca.crt", Key: "kubelet-ca.key"},
}

// LayoutNamed returns the layout of a name.
func LayoutNamed(name string) (Layout, bool) {
	i := slices.IndexFunc(layouts, func(l Layout) bool { return l.Name == name })
	if i < 0 {
		return Layout{}, false
	}
	return layouts[i], true
}

// layoutOf is a node's layout; kubeadm's where none is said, as for the nodes
// that a program makes up itself.
func layoutOf(n *trust.Node) Layout {
	if l, ok := LayoutNamed(n.Layout); ok {
		return l
	}
	l, _ := LayoutNamed(LayoutKubeadm)
	return l
}

// DistributionOf tells which nodes make up one cluster: those whose layouts have
// the same distribution.
func DistributionOf(layout string) string {
	if l, ok := LayoutNamed(layout); ok {
		return l.Distribution
	}
	return layout
}

// certificatesDir is where the API server's own flag says, where the layout
// follows it, else the layout's folder.
func certificatesDir(n *trust.Node) string {
	l := layoutOf(n)
	for i := range n.Components {
		if c := &n.Components[i]; l.FollowsFlag && c.Name == APIServer {
			if f, ok := c.Flag("tls-cert-file"); ok {
				return path.Dir(f)
			}
		}
	}
	return l.Dir
}

// AuthoritiesOf are the authorities that a node's layout arranges, whether their
// files are there or not.
func AuthoritiesOf(n *trust.Node) []trust.NodeAuthority {
	dir := certificatesDir(n)
	var all []trust.NodeAuthority
	for _, a := range layoutOf(n).Authorities {
		all = append(all, trust.NodeAuthority{Name: a.Name, Certificate: path.Join(dir, a.File), Key: path.Join(dir, a.Key), Signs: slices.Clone(a.Signs)})
	}
	return all
}
