package cluster

import (
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/kubepki/kubepki/internal/catalog"
)

// Role is what a machine of the cluster is there for.
type Role string

// The roles.
const (
	ControlPlane Role = "control-plane"
	Worker       Role = "worker"
	Etcd         Role = "etcd" // a member of an external etcd
	Balancer     Role = "load-balancer"
)

// Machine is a node of the cluster, or the load balancer before it.
type Machine struct {
	Name    string
	Role    Role
	Address netip.Addr
	// Static are the components that run from static-pod manifests.
	Static []string
	// Kubelet tells that a kubelet runs there.
	Kubelet bool
}

// Machines lists the machines of a cluster: control planes, workers, etcd
// members, and the load balancer where the cluster has an endpoint of its own.
func Machines(c *catalog.Cluster) []Machine {
	var all []Machine
	static := []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"}
	if !c.EtcdIsExternal() {
		static = append([]string{"etcd"}, static...)
	}
	for _, m := range c.EtcdMembers {
		all = append(all, Machine{Name: m.Name, Role: Etcd, Address: m.Address, Static: []string{"etcd"}})
	}
	for _, n := range c.ControlPlanes {
		all = append(all, Machine{Name: n.Name, Role: ControlPlane, Address: n.Address, Static: static, Kubelet: true})
	}
	for _, n := range c.Workers {
		all = append(all, Machine{Name: n.Name, Role: Worker, Address: n.Address, Kubelet: true})
	}
	if endpoint, ok := endpoint(c); ok {
		all = append(all, Machine{Name: "lb", Role: Balancer, Address: endpoint.Addr()})
	}
	return all
}

// endpoint is where the load balancer listens. A cluster whose endpoint is one
// of its control planes, or that has none, needs no load balancer.
func endpoint(c *catalog.Cluster) (netip.AddrPort, bool) {
	if c.ControlPlaneEndpoint == "" {
		return netip.AddrPort{}, false
	}
	host, port := catalog.SplitHostPort(c.ControlPlaneEndpoint)
	number := uint64(catalog.DefaultBindPort)
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return netip.AddrPort{}, false // config has refused it
		}
		number = n
	}
	address, err := catalog.ParseAddress(host)
	if err != nil {
		address = balancerOf(c) // a name, which the hosts files of the nodes resolve
	}
	if slices.ContainsFunc(c.ControlPlanes, func(n catalog.ControlPlane) bool { return n.Address == address && n.BindPort == int(number) }) {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(address, uint16(number)), true
}

// balancerOf is an address for the load balancer that no node has, of the family
// of the first control plane.
func balancerOf(c *catalog.Cluster) netip.Addr {
	address := balancer
	if c.ControlPlanes[0].Address.Is6() {
		address = balancer6
	}
	_, taken := occupied(c)
	for slices.Contains(taken, address) {
		address = address.Next()
	}
	return address
}

// Endpoint is the address of the load balancer and the API servers behind it,
// each HOST:PORT; ok tells whether there is one.
func Endpoint(c *catalog.Cluster) (listen string, behind []string, ok bool) {
	at, ok := endpoint(c)
	if !ok {
		return "", nil, false
	}
	for _, n := range c.ControlPlanes {
		behind = append(behind, net.JoinHostPort(n.Address.String(), strconv.Itoa(n.BindPort)))
	}
	return at.String(), behind, true
}

// Hosts are the names that every machine resolves, besides its own: names of
// machines, and of the endpoint.
func Hosts(c *catalog.Cluster) map[string]netip.Addr {
	hosts := map[string]netip.Addr{}
	for _, m := range Machines(c) {
		hosts[m.Name] = m.Address
	}
	host, _ := catalog.SplitHostPort(c.ControlPlaneEndpoint)
	if _, err := catalog.ParseAddress(host); host != "" && err != nil {
		if at, ok := endpoint(c); ok {
			hosts[host] = at.Addr()
		}
	}
	return hosts
}
