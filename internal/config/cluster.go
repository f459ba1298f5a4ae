package config

import (
	"fmt"

	"github.com/kubepki/kubepki/internal/catalog"
)

// clusterDocument is kubepki's own configuration, described in
// docs/configuration.md.
type clusterDocument struct {
	typeMeta                    `json:",inline"`
	ClusterName                 string         `json:"clusterName,omitempty"`
	KubernetesVersion           string         `json:"kubernetesVersion,omitempty"`
	ControlPlaneEndpoint        string         `json:"controlPlaneEndpoint,omitempty"`
	CertificatesDir             string         `json:"certificatesDir,omitempty"`
	ImageRepository             string         `json:"imageRepository,omitempty"`
	Networking                  networking     `json:"networking,omitempty"`
	APIServer                   apiServer      `json:"apiServer,omitempty"`
	ControllerManager           component      `json:"controllerManager,omitempty"`
	Scheduler                   component      `json:"scheduler,omitempty"`
	Kubelet                     ownKubelet     `json:"kubelet,omitempty"`
	Authorities                 ownAuthorities `json:"authorities,omitempty"`
	EncryptionAlgorithm         string         `json:"encryptionAlgorithm,omitempty"`
	CertificateValidityPeriod   string         `json:"certificateValidityPeriod,omitempty"`
	CACertificateValidityPeriod string         `json:"caCertificateValidityPeriod,omitempty"`
	ControlPlanes               []ownNode      `json:"controlPlanes,omitempty"`
	Workers                     []ownWorker    `json:"workers,omitempty"`
	Etcd                        ownEtcd        `json:"etcd,omitempty"`
	Users                       []ownUser      `json:"users,omitempty"`
	StartupTimeout              string         `json:"startupTimeout,omitempty"`
	KubeProxy                   bool           `json:"kubeProxy,omitempty"`
}

type ownKubelet struct {
	ExtraArgs []arg `json:"extraArgs,omitempty"`
}

type ownAuthorities struct {
	Shape   string `json:"shape,omitempty"`
	Kubelet bool   `json:"kubelet,omitempty"`
}

type ownNode struct {
	Name     string      `json:"name"`
	Address  string      `json:"address,omitempty"`
	BindPort int32       `json:"bindPort,omitempty"`
	CertSANs []string    `json:"certSANs,omitempty"`
	Etcd     ownEtcdSANs `json:"etcd,omitempty"`
}

type ownEtcdSANs struct {
	ServerCertSANs []string `json:"serverCertSANs,omitempty"`
	PeerCertSANs   []string `json:"peerCertSANs,omitempty"`
}

type ownWorker struct {
	Name    string `json:"name"`
	Address string `json:"address,omitempty"`
}

type ownEtcd struct {
	DataDir   string        `json:"dataDir,omitempty"`
	Image     string        `json:"image,omitempty"`
	ExtraArgs []arg         `json:"extraArgs,omitempty"`
	ExtraEnvs []envVar      `json:"extraEnvs,omitempty"`
	Members   []ownMember   `json:"members,omitempty"`
	External  *externalEtcd `json:"external,omitempty"`
}

type ownMember struct {
	ownWorker   `json:",inline"`
	ownEtcdSANs `json:",inline"`
}

type ownUser struct {
	Name     string   `json:"name"`
	Groups   []string `json:"groups,omitempty"`
	Validity string   `json:"validity,omitempty"`
}

var ownNames = names{
	node: "name", address: "address", port: "bindPort",
	version: "kubernetesVersion", endpoint: "controlPlaneEndpoint", sans: "apiServer.certSANs",
	serviceSubnet: "networking.serviceSubnet", podSubnet: "networking.podSubnet", dnsDomain: "networking.dnsDomain",
	certificatesDir: "certificatesDir", algorithm: "encryptionAlgorithm", clusterName: "clusterName",
	validity: "certificateValidityPeriod", caValidity: "caCertificateValidityPeriod",
	etcdDataDir: "etcd.dataDir", imageRepository: "imageRepository",
	controlPlane: func(i int) string { return fmt.Sprintf("controlPlanes[%d].", i) },
	nodeSANs:     "certSANs", serverSANs: "etcd.serverCertSANs", peerSANs: "etcd.peerCertSANs",
	external: "etcd.external", shape: "authorities.shape",
}

// parseCluster takes nothing from the machine at hand: a list of nodes is
// rarely read on one of them.
func parseCluster(d document) (*catalog.Cluster, error) {
	var in clusterDocument
	if err := d.decode(&in); err != nil {
		return nil, err
	}
	out := &catalog.Cluster{
		Name: in.ClusterName, KubernetesVersion: in.KubernetesVersion, ControlPlaneEndpoint: in.ControlPlaneEndpoint,
		CertificatesDir: in.CertificatesDir, ServiceSubnet: in.Networking.ServiceSubnet, PodSubnet: in.Networking.PodSubnet,
		DNSDomain: in.Networking.DNSDomain, CertSANs: in.APIServer.CertSANs, Shape: catalog.Shape(in.Authorities.Shape),
		KubeletAuthority: in.Authorities.Kubelet, Algorithm: in.EncryptionAlgorithm, KubeProxy: in.KubeProxy,
		ImageRepository: in.ImageRepository,
		EtcdDataDir:     in.Etcd.DataDir, EtcdImage: in.Etcd.Image,
	}
	if err := lives(out, in.CertificateValidityPeriod, in.CACertificateValidityPeriod); err != nil {
		return nil, err
	}
	var err error
	if out.StartupTimeout, err = life("startupTimeout", in.StartupTimeout, 0); err != nil {
		return nil, err
	}
	if err := in.components(out); err != nil {
		return nil, err
	}
	if err := in.nodes(out); err != nil {
		return nil, err
	}
	if err := in.users(out); err != nil {
		return nil, err
	}
	return complete(out, Host{}, ownNames)
}

// components takes over what concerns flags and manifests, as of kubeadm's v1.
func (in *clusterDocument) components(out *catalog.Cluster) error {
	etcd := component{ExtraArgs: in.Etcd.ExtraArgs, ExtraEnvs: in.Etcd.ExtraEnvs}
	all := []namedComponent{
		{"apiServer.extraArgs", catalog.APIServer, in.APIServer.component}, {"controllerManager.extraArgs", catalog.ControllerManager, in.ControllerManager},
		{"scheduler.extraArgs", catalog.Scheduler, in.Scheduler}, {"etcd.extraArgs", catalog.Etcd, etcd},
		{"kubelet.extraArgs", catalog.Kubelet, component{ExtraArgs: in.Kubelet.ExtraArgs}},
	}
	for _, c := range all {
		if err := c.add(out, true); err != nil {
			return err
		}
	}
	return nil
}

func (in *clusterDocument) nodes(out *catalog.Cluster) error {
	if len(in.ControlPlanes) == 0 {
		return wrong("controlPlanes", "is empty: a cluster has at least one")
	}
	for i, n := range in.ControlPlanes {
		if err := in.contradictsEtcd(i, n.Etcd); err != nil {
			return err
		}
		a, err := parseAddress(fmt.Sprintf("controlPlanes[%d].address", i), n.Address)
		if err != nil {
			return err
		}
		out.ControlPlanes = append(out.ControlPlanes, catalog.ControlPlane{
			Name: n.Name, Address: a, BindPort: int(n.BindPort), CertSANs: n.CertSANs,
			EtcdServerSANs: n.Etcd.ServerCertSANs, EtcdPeerSANs: n.Etcd.PeerCertSANs,
		})
	}
	for i, w := range in.Workers {
		a, err := parseAddress(fmt.Sprintf("workers[%d].address", i), w.Address)
		if err != nil {
			return err
		}
		out.Workers = append(out.Workers, catalog.Worker{Name: w.Name, Address: a})
	}
	for i, m := range in.Etcd.Members {
		a, err := parseAddress(fmt.Sprintf("etcd.members[%d].address", i), m.Address)
		if err != nil {
			return err
		}
		out.EtcdMembers = append(out.EtcdMembers, catalog.EtcdMember{Name: m.Name, Address: a, ServerSANs: m.ServerCertSANs, PeerSANs: m.PeerCertSANs})
	}
	if e := in.Etcd.External; e != nil {
		if len(in.Etcd.Members) > 0 {
			return wrong("etcd", "members and external are both set")
		}
		out.ExternalEtcd = &catalog.ExternalEtcd{Endpoints: e.Endpoints, CAFile: e.CAFile, CertFile: e.CertFile, KeyFile: e.KeyFile}
	}
	return nil
}

// contradictsEtcd refuses names for the etcd of a control plane that runs none.
func (in *clusterDocument) contradictsEtcd(i int, sans ownEtcdSANs) error {
	other := ""
	switch {
	case len(sans.ServerCertSANs)+len(sans.PeerCertSANs) == 0:
	case len(in.Etcd.Members) > 0:
		other = "etcd.members"
	case in.Etcd.External != nil:
		other = "etcd.external"
	}
	if other == "" {
		return nil
	}
	return wrong(fmt.Sprintf("controlPlanes[%d].etcd", i), "has no effect beside %s: control planes run no etcd then", other)
}

func (in *clusterDocument) users(out *catalog.Cluster) error {
	for i, u := range in.Users {
		validity, err := life(fmt.Sprintf("users[%d].validity", i), u.Validity, 0)
		if err != nil {
			return err
		}
		out.Users = append(out.Users, catalog.User{Name: u.Name, Groups: u.Groups, Validity: validity})
	}
	return nil
}
