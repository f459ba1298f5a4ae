package catalog

import (
	"net/netip"
	"path"
	"time"
)

// Shape says how a cluster's authorities hang together.
type Shape string

// The shapes of authority.
const (
	Separate     Shape = "separate"     // three self-signed authorities, as kubeadm
	Intermediate Shape = "intermediate" // three intermediates below one root
	Shared       Shape = "shared"       // one authority for cluster and etcd; the front proxy's stays apart
)

// Defaults of kubeadm (k/k cmd/kubeadm/app/apis/kubeadm/v1/defaults.go and
// cmd/kubeadm/app/constants/constants.go).
const (
	DefaultCertificatesDir = "/etc/kubernetes/pki"
	DefaultClusterName     = "kubernetes"
	DefaultServiceSubnet   = "10.96.0.0/12"
	DefaultDNSDomain       = "cluster.local"
	DefaultBindPort        = 6443
	DefaultVersion         = "v1.37.2"
	DefaultValidity        = 365 * 24 * time.Hour
	DefaultCAValidity      = 10 * 365 * 24 * time.Hour
	DefaultEtcdDataDir     = "/var/lib/etcd"
	DefaultImageRepository = "registry.k8s.io"
	DefaultEtcdVersion     = "3.7.0-0"

	KubernetesDir = "/etc/kubernetes"
	ManifestsDir  = "/etc/kubernetes/manifests"
	KubeletDir    = "/var/lib/kubelet"
)

// Cluster is a wanted cluster: the configuration with all defaults filled in.
type Cluster struct {
	Name                 string
	KubernetesVersion    string
	ControlPlaneEndpoint string // host or host:port; empty: each node's own address
	CertificatesDir      string // absolute path on the nodes
	ServiceSubnet        string // one or two CIDRs, separated by a comma
	PodSubnet            string
	DNSDomain            string
	CertSANs             []string // more names or addresses of the apiserver
	Shape                Shape
	KubeletAuthority     bool   // kubelets have an authority of their own
	Algorithm            string // as issue.Algorithm names it
	Validity             time.Duration
	CAValidity           time.Duration
	// AlgorithmAssumed and ValidityAssumed tell that nobody has said which: what is made
	// for the first time is made so, and what is there is not wrong for being otherwise.
	AlgorithmAssumed, ValidityAssumed bool
	ControlPlanes                     []ControlPlane
	Workers                           []Worker
	EtcdMembers                       []EtcdMember  // external etcd whose credentials are made here
	ExternalEtcd                      *ExternalEtcd // external etcd whose credentials are somebody else's
	Users                             []User
	KubeProxy                         bool // make kube-proxy.conf with a certificate
	// ExternalCA tells that no cluster authority key is at hand, so that the
	// controller-manager cannot sign.
	ExternalCA bool
	// ExtraArgs are appended to, or replace, the flags of a component, by its name.
	ExtraArgs map[string][]Arg
	// Pods holds what the static-pod manifests have beyond flags, by component.
	Pods map[string]PodExtras
	// StartupTimeout bounds the startup probes of the static pods; 0: 4 minutes.
	StartupTimeout  time.Duration
	ImageRepository string
	EtcdImage       string // repository/etcd:tag; empty: kubeadm's default
	EtcdDataDir     string
}

// Arg is one flag of a component, without dashes. Merge says how its value
// joins the one that the flag has already: empty replaces it, "append" and
// "prepend" put it behind or before, as it is (kubeadm's mergeMethod).
type Arg struct{ Name, Value, Merge string }

// ControlPlane is a node that runs kube-apiserver and, unless etcd is
// external, an etcd member.
type ControlPlane struct {
	Name           string
	Address        netip.Addr // advertise address
	BindPort       int
	CertSANs       []string // of this node's apiserver alone
	EtcdServerSANs []string
	EtcdPeerSANs   []string
}

// Worker is a node that runs a kubelet alone.
type Worker struct {
	Name    string
	Address netip.Addr // may be the zero Addr: only kubelet serving certificates need it
}

// EtcdMember is a node of an external etcd cluster.
type EtcdMember struct {
	Name       string
	Address    netip.Addr
	ServerSANs []string
	PeerSANs   []string
}

// ExternalEtcd names endpoints and files that somebody else provides.
type ExternalEtcd struct {
	Endpoints                 []string // URLs
	CAFile, CertFile, KeyFile string   // absolute paths on the nodes, may be empty
}

// User is a person or program with a kubeconfig of its own.
type User struct {
	Name     string
	Groups   []string
	Validity time.Duration // 0: the cluster's
}

// EtcdIsExternal tells whether control planes run no etcd of their own.
func (c *Cluster) EtcdIsExternal() bool { return c.ExternalEtcd != nil || len(c.EtcdMembers) > 0 }

// PKI returns the absolute path of a file in the certificates folder.
func (c *Cluster) PKI(name string) string { return path.Join(c.CertificatesDir, name) }

// Conf returns the absolute path of a kubeconfig file on a node.
func Conf(name string) string { return path.Join(KubernetesDir, name) }
