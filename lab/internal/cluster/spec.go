package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/config"
	"github.com/kubepki/kubepki/lab/internal/light"
)

// Addresses of a cluster that no configuration describes. They are private to
// the lab's network: another lab has the same ones, in a network of its own. They
// must not be among those of the services (10.96.0.0/12), which kube-proxy drops.
var (
	balancer         = netip.MustParseAddr("10.77.0.10")
	balancer6        = netip.MustParseAddr("fd77::10")
	firstPlane       = netip.MustParseAddr("10.77.0.11")
	firstWorker      = netip.MustParseAddr("10.77.0.21")
	loopbackBalancer = netip.MustParseAddr("127.77.0.10")
	loopbackPlane    = netip.MustParseAddr("127.77.0.11")
	firstLight       = netip.MustParseAddr("10.78.0.1")
	loopbackLight    = netip.MustParseAddr("127.78.0.1")
	maxControlPlanes = 9
	maxWorkers       = 200
	maxLight         = 5000
)

// year is kubeadm's life of a certificate.
const year = 365 * 24 * time.Hour

// Administrator are the addresses of whoever looks at the cluster from beside it.
var Administrator = []netip.Prefix{netip.MustParsePrefix("10.77.0.254/24"), netip.MustParsePrefix("fd77::fe/64")}

// Wanted is what the user asks for. The zero value of a field leaves it open.
type Wanted struct {
	// ControlPlanes and Workers count nodes that are named and addressed by the
	// lab: cp1, cp2, … and w1, w2, ….
	ControlPlanes int
	Workers       int
	// ConfigName and Config are a configuration, as kubepki init takes it, with
	// the name that messages call it by. It says which nodes there are; Workers
	// are added to its own.
	ConfigName string
	Config     []byte
	// Loopback is for a machine that allows no namespaces: control planes at
	// addresses of the machine's own loopback, WithoutKubelets.
	Loopback bool
	// WithoutKubelets is for a machine on which no kubelet can run, as none can on
	// loopback: the Workers are light nodes then, and nothing runs in pods.
	WithoutKubelets bool
	// LightNodes counts nodes that are what the control plane sees of one, for
	// load, beside the Workers.
	LightNodes int
	// WithoutPods leaves out what the lab runs in pods.
	WithoutPods bool
	// Signer approves and signs the nodes' certificates: [ManagerSigner], which is
	// the default, or [KubepkiSigner].
	Signer string `json:",omitempty"`
	// SigningDuration is the life of the nodes' certificates; 0: a year.
	SigningDuration time.Duration `json:",omitempty"`
}

// Who approves and signs the nodes' certificates.
const (
	// ManagerSigner is kube-controller-manager, with an approver of serving
	// certificates by the lab, for it has none.
	ManagerSigner = "kube-controller-manager"
	// KubepkiSigner is kubepki controller, in pods on the control planes, as
	// its manifests say. The controllers of kube-controller-manager are off.
	KubepkiSigner = "kubepki"
)

// Cluster returns the cluster that is wanted, with all defaults filled in. The
// errors name the flag or the field of the configuration.
func (w Wanted) Cluster() (*catalog.Cluster, error) {
	c, err := w.described()
	if err != nil {
		return nil, err
	}
	if w.Workers < 0 || w.Workers > maxWorkers {
		return nil, fmt.Errorf("--nodes %d: from 0 to %d are possible", w.Workers, maxWorkers)
	}
	if w.LightNodes < 0 || w.LightNodes > maxLight {
		return nil, fmt.Errorf("--light-nodes %d: from 0 to %d are possible", w.LightNodes, maxLight)
	}
	if !w.WithoutKubelets {
		c.Workers = append(c.Workers, w.named(c)...)
	}
	if c.ExternalEtcd != nil {
		return nil, fmt.Errorf("%s: etcd: the lab cannot reach an etcd outside of it; name members, or leave etcd to the control planes", w.ConfigName)
	}
	if len(w.Light()) > 0 {
		addArgs(c, "kube-controller-manager", light.ManagerFlags())
	}
	if err := w.sign(c); err != nil {
		return nil, err
	}
	if w.Loopback {
		return config.Complete(c, labHost)
	}
	setExtraArgs(c)
	c.KubeProxy = true // one of the lab's three ways to run kube-proxy is by certificate
	if c, err = config.Complete(c, labHost); err != nil {
		return nil, err
	}
	return c, checkAddresses(c)
}

// described is the cluster of the configuration, or one of the lab's own.
func (w Wanted) described() (*catalog.Cluster, error) {
	if w.Config != nil && w.Loopback {
		return nil, fmt.Errorf("--config: the addresses of %s need namespaces, and the lab runs on loopback", w.ConfigName)
	}
	if w.Config != nil {
		if w.ControlPlanes != 0 {
			return nil, fmt.Errorf("--control-planes: the configuration %s says which control planes there are", w.ConfigName)
		}
		return config.Parse(w.ConfigName, w.Config, labHost)
	}
	planes := w.ControlPlanes
	if planes == 0 {
		planes = 1
	}
	if planes%2 == 0 || planes < 0 || planes > maxControlPlanes {
		return nil, fmt.Errorf("--control-planes %d: 1 or 3 (or 5, 7, 9) keep etcd's majority", w.ControlPlanes)
	}
	c := &catalog.Cluster{
		KubernetesVersion: catalog.DefaultVersion, CertificatesDir: catalog.DefaultCertificatesDir,
		ServiceSubnet: catalog.DefaultServiceSubnet, DNSDomain: catalog.DefaultDNSDomain,
		// ECDSA, as keys are made at once with it.
		Shape: catalog.Separate, Algorithm: "ECDSA-P256", Validity: year, CAValidity: 10 * year,
	}
	if planes > 1 {
		c.ControlPlaneEndpoint = balancer.String() + ":6443"
		if w.Loopback {
			c.ControlPlaneEndpoint = loopbackBalancer.String() + ":6443"
		}
	}
	address := firstPlane
	if w.Loopback {
		address = loopbackPlane
	}
	for i := range planes {
		c.ControlPlanes = append(c.ControlPlanes, catalog.ControlPlane{Name: fmt.Sprintf("cp%d", i+1), Address: address})
		address = address.Next()
	}
	return c, nil
}

// labHost stands for the machine, where a configuration leaves the name or the
// address of its one control plane open.
var labHost = config.Host{
	Name:    func() (string, error) { return "cp1", nil },
	Address: func() (netip.Addr, error) { return firstPlane, nil },
}

// occupied are the names and addresses of a cluster's nodes.
func occupied(c *catalog.Cluster) (names []string, addresses []netip.Addr) {
	for _, n := range c.ControlPlanes {
		names, addresses = append(names, n.Name), append(addresses, n.Address)
	}
	for _, n := range c.Workers {
		names, addresses = append(names, n.Name), append(addresses, n.Address)
	}
	for _, n := range c.EtcdMembers {
		names, addresses = append(names, n.Name), append(addresses, n.Address)
	}
	return names, addresses
}

// named are the workers that are named by the lab, beside those of a
// configuration.
func (w Wanted) named(c *catalog.Cluster) []catalog.Worker {
	names, taken := occupied(c)
	taken = append(taken, balancer, Administrator[0].Addr())
	var workers []catalog.Worker
	address := firstWorker
	for i := 1; len(workers) < w.Workers; i++ {
		name := fmt.Sprintf("w%d", i)
		if slices.Contains(names, name) {
			continue
		}
		for slices.Contains(taken, address) {
			address = address.Next()
		}
		workers = append(workers, catalog.Worker{Name: name, Address: address})
		address = address.Next()
	}
	return workers
}

// Light are the light nodes.
func (w Wanted) Light() []light.Node {
	count, address := w.LightNodes, firstLight
	if w.WithoutKubelets {
		count += w.Workers
	}
	if w.Loopback {
		address = loopbackLight
	}
	nodes := make([]light.Node, count)
	for i := range nodes {
		nodes[i] = light.Node{Name: fmt.Sprintf("light%d", i+1), Address: address}
		address = address.Next()
	}
	return nodes
}
