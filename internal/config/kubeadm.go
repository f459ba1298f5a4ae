package config

import (
	"cmp"

	"github.com/kubepki/kubepki/internal/catalog"
)

// kubeadm collects the documents of kubeadm's configuration.
type kubeadm struct {
	version string
	init    *initConfiguration
	config  *clusterConfiguration
}

func (k *kubeadm) given() bool { return k.init != nil || k.config != nil }

func (k *kubeadm) add(d document) error {
	switch d.APIVersion {
	case "kubeadm.k8s.io/v1beta4", "kubeadm.k8s.io/v1":
	default:
		return &Error{Field: "apiVersion", Cause: d.APIVersion + " is not read: use kubeadm.k8s.io/v1beta4 or v1",
			Help: "kubeadm config migrate writes an old configuration anew"}
	}
	if k.version != "" && k.version != d.APIVersion {
		return wrong("apiVersion", "the documents are of %s and of %s", k.version, d.APIVersion)
	}
	k.version = d.APIVersion
	switch d.Kind {
	case "InitConfiguration":
		if k.init != nil {
			return wrong("kind", "there are two documents of kind InitConfiguration")
		}
		k.init = &initConfiguration{}
		return d.decode(k.init)
	case "ClusterConfiguration":
		if k.config != nil {
			return wrong("kind", "there are two documents of kind ClusterConfiguration")
		}
		k.config = &clusterConfiguration{}
		return d.decode(k.config)
	}
	return &Error{Field: "kind", Cause: "kubeadm's " + d.Kind + " says nothing about what init makes",
		Help: "leave the document out: InitConfiguration and ClusterConfiguration are read"}
}

// kubeadmNames are the fields that messages name.
var kubeadmNames = names{
	node: "nodeRegistration.name", address: "localAPIEndpoint.advertiseAddress", port: "localAPIEndpoint.bindPort",
	version: "kubernetesVersion", endpoint: "controlPlaneEndpoint", sans: "apiServer.certSANs",
	serviceSubnet: "networking.serviceSubnet", podSubnet: "networking.podSubnet", dnsDomain: "networking.dnsDomain",
	certificatesDir: "certificatesDir", algorithm: "encryptionAlgorithm", clusterName: "clusterName",
	validity: "certificateValidityPeriod", caValidity: "caCertificateValidityPeriod",
	etcdDataDir: "etcd.local.dataDir", imageRepository: "imageRepository",
	controlPlane: func(int) string { return "" }, serverSANs: "etcd.local.serverCertSANs", peerSANs: "etcd.local.peerCertSANs",
	external: "etcd.external",
}

// cluster converts the documents.
func (k *kubeadm) cluster(host Host) (*catalog.Cluster, error) {
	i, c := k.init, k.config
	if i == nil {
		i = &initConfiguration{}
	}
	if c == nil {
		c = &clusterConfiguration{}
	}
	if c.Etcd.Local != nil && c.Etcd.External != nil {
		return nil, wrong("etcd", "local and external are both set")
	}
	out := &catalog.Cluster{
		Name: c.ClusterName, KubernetesVersion: c.KubernetesVersion, ControlPlaneEndpoint: c.ControlPlaneEndpoint,
		CertificatesDir: c.CertificatesDir, ServiceSubnet: c.Networking.ServiceSubnet, PodSubnet: c.Networking.PodSubnet,
		DNSDomain: c.Networking.DNSDomain, CertSANs: c.APIServer.CertSANs, Shape: catalog.Separate, Algorithm: c.EncryptionAlgorithm,
		ImageRepository: c.ImageRepository,
		ExtraArgs:       map[string][]catalog.Arg{}, Pods: map[string]catalog.PodExtras{},
	}
	node := catalog.ControlPlane{Name: i.NodeRegistration.Name, BindPort: int(i.LocalAPIEndpoint.BindPort)}
	if err := lives(out, c.CertificateValidityPeriod, c.CACertificateValidityPeriod); err != nil {
		return nil, err
	}
	var err error
	if i.Timeouts != nil {
		out.StartupTimeout, err = life("timeouts.controlPlaneComponentHealthCheck", i.Timeouts.ControlPlaneComponentHealthCheck, 0)
		if err != nil {
			return nil, err
		}
	}
	if node.Address, err = parseAddress(kubeadmNames.address, i.LocalAPIEndpoint.AdvertiseAddress); err != nil {
		return nil, err
	}
	if err := k.components(i, c, out); err != nil {
		return nil, err
	}
	if l := c.Etcd.Local; l != nil {
		node.EtcdServerSANs, node.EtcdPeerSANs, out.EtcdDataDir = l.ServerCertSANs, l.PeerCertSANs, l.DataDir
		repository := cmp.Or(l.ImageRepository, c.ImageRepository, catalog.DefaultImageRepository)
		out.EtcdImage = repository + "/etcd:" + cmp.Or(l.ImageTag, catalog.DefaultEtcdVersion)
	}
	if e := c.Etcd.External; e != nil {
		out.ExternalEtcd = &catalog.ExternalEtcd{Endpoints: e.Endpoints, CAFile: e.CAFile, CertFile: e.CertFile, KeyFile: e.KeyFile}
	}
	out.ControlPlanes = []catalog.ControlPlane{node}
	return complete(out, host, kubeadmNames)
}

// lives reads the two validity periods, which both kinds of configuration have.
func lives(out *catalog.Cluster, leaf, authority string) error {
	var err error
	out.ValidityAssumed = leaf == ""
	if out.Validity, err = life("certificateValidityPeriod", leaf, catalog.DefaultValidity); err != nil {
		return err
	}
	out.CAValidity, err = life("caCertificateValidityPeriod", authority, catalog.DefaultCAValidity)
	return err
}

// components takes over what concerns flags and manifests.
func (k *kubeadm) components(i *initConfiguration, c *clusterConfiguration, out *catalog.Cluster) error {
	all := []namedComponent{
		{"apiServer.extraArgs", catalog.APIServer, c.APIServer.component}, {"controllerManager.extraArgs", catalog.ControllerManager, c.ControllerManager},
		{"scheduler.extraArgs", catalog.Scheduler, c.Scheduler},
		{"nodeRegistration.kubeletExtraArgs", catalog.Kubelet, component{ExtraArgs: i.NodeRegistration.KubeletExtraArgs}},
	}
	if l := c.Etcd.Local; l != nil {
		all = append(all, namedComponent{"etcd.local.extraArgs", catalog.Etcd, component{ExtraArgs: l.ExtraArgs, ExtraEnvs: l.ExtraEnvs}})
	}
	for _, n := range all {
		if err := n.add(out, k.version != "kubeadm.k8s.io/v1beta4"); err != nil {
			return err
		}
	}
	return nil
}
