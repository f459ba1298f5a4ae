package config

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
)

// Host is what kubeadm takes from the machine where the configuration is
// silent. The functions are called only when they are needed.
type Host struct {
	// Name returns the host name.
	Name func() (string, error)
	// Address returns an address at which other machines reach this one.
	Address func() (netip.Addr, error)
}

// names are the fields of one kind of configuration, for messages.
type names struct {
	node, address, port, version, endpoint, sans, serviceSubnet, podSubnet, dnsDomain string
	certificatesDir, algorithm, clusterName, validity, caValidity, etcdDataDir, shape string
	imageRepository, nodeSANs, serverSANs, peerSANs, external                         string
	// controlPlane returns what stands before the fields of a control plane.
	controlPlane func(i int) string
}

var flagNames = names{
	node: "--node-name", address: "--apiserver-advertise-address", port: "--apiserver-bind-port",
	version: "--kubernetes-version", endpoint: "--control-plane-endpoint", sans: "--apiserver-cert-extra-sans",
	serviceSubnet: "--service-cidr", podSubnet: "--pod-network-cidr", dnsDomain: "--service-dns-domain",
	certificatesDir: "--cert-dir", algorithm: "--key-algorithm", clusterName: "clusterName",
	validity: "--validity", caValidity: "--ca-validity", shape: "--authorities",
	controlPlane: func(int) string { return "" },
}

// Complete fills in the defaults of a cluster that was said by flags, and
// validates it. Errors are [*Error]s whose Field is the flag. A cluster
// without control planes gets one from the host.
func Complete(c *catalog.Cluster, host Host) (*catalog.Cluster, error) {
	n := flagNames
	if len(c.ControlPlanes) == 0 {
		c.ControlPlanes = []catalog.ControlPlane{{}}
	} else if len(c.ControlPlanes) > 1 {
		n.node, n.address = "--control-plane", "--control-plane"
	}
	return complete(c, host, n)
}

// complete fills in kubeadm's defaults and validates.
func complete(c *catalog.Cluster, host Host, n names) (*catalog.Cluster, error) {
	c.Name = cmp.Or(c.Name, catalog.DefaultClusterName)
	c.KubernetesVersion = cmp.Or(c.KubernetesVersion, catalog.DefaultVersion)
	c.CertificatesDir = cmp.Or(c.CertificatesDir, catalog.DefaultCertificatesDir)
	c.ServiceSubnet = cmp.Or(c.ServiceSubnet, catalog.DefaultServiceSubnet)
	c.DNSDomain = cmp.Or(c.DNSDomain, catalog.DefaultDNSDomain)
	c.Shape = cmp.Or(c.Shape, catalog.Separate)
	c.ImageRepository = cmp.Or(c.ImageRepository, catalog.DefaultImageRepository)
	c.EtcdDataDir = cmp.Or(c.EtcdDataDir, catalog.DefaultEtcdDataDir)
	algorithm, err := issue.ParseAlgorithm(c.Algorithm)
	if err != nil {
		return nil, wrong(n.algorithm, "%v", err)
	}
	c.AlgorithmAssumed = c.Algorithm == ""
	c.Algorithm = string(algorithm)
	if !strings.HasPrefix(c.KubernetesVersion, "v") {
		c.KubernetesVersion = "v" + c.KubernetesVersion
	}
	for i := range c.ControlPlanes {
		// Only a lone node may be the machine at hand.
		if err := completeNode(&c.ControlPlanes[i], host, n, n.controlPlane(i), len(c.ControlPlanes) == 1); err != nil {
			return nil, err
		}
	}
	// As kubeadm: LowercaseSANs in k/k cmd/kubeadm/app/util/config/common.go.
	c.CertSANs = lowerCase(c.CertSANs)
	for i := range c.ControlPlanes {
		c.ControlPlanes[i].CertSANs = lowerCase(c.ControlPlanes[i].CertSANs)
	}
	if err := validate(c, n); err != nil {
		return nil, err
	}
	return c, nil
}

func lowerCase(names []string) []string {
	names = slices.Clone(names)
	for i, n := range names {
		names[i] = strings.ToLower(n)
	}
	return names
}

func completeNode(node *catalog.ControlPlane, host Host, n names, prefix string, alone bool) error {
	if node.BindPort == 0 {
		node.BindPort = catalog.DefaultBindPort
	}
	if node.Name == "" {
		if !alone || host.Name == nil {
			return wrong(prefix+n.node, "is not set")
		}
		name, err := host.Name()
		if err != nil {
			return &Error{Field: prefix + n.node, Cause: "is not set, and the host name cannot be had: " + err.Error(), Help: "name the node"}
		}
		node.Name = name
	}
	// As kubeadm: nodes are called by lower-case names.
	node.Name = strings.ToLower(strings.TrimSpace(node.Name))
	if node.Address.IsValid() {
		return nil
	}
	if !alone || host.Address == nil {
		return wrong(prefix+n.address, "is not set")
	}
	a, err := host.Address()
	if err != nil {
		return &Error{Field: prefix + n.address, Cause: "is not set, and no address of this machine will do: " + err.Error(), Help: "give the address at which the API server is reached"}
	}
	node.Address = a
	return nil
}

// parseAddress reads an IP address; the empty text is the zero Addr.
func parseAddress(field, text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return a, wrong(field, "%q is not an IP address", text)
	}
	return a.Unmap(), nil
}
