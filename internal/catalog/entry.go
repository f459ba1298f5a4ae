package catalog

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind tells what an [Entry] is made of.
type Kind string

// The kinds of an [Entry].
const (
	KindAuthority  Kind = "authority"  // Path.crt and Path.key
	KindAnchors    Kind = "anchors"    // Path.crt alone: certificates of Authorities, no key
	KindLeaf       Kind = "leaf"       // Path.crt and Path.key, signed by Authorities[0]
	KindKubeconfig Kind = "kubeconfig" // Path with a client certificate signed by Authorities[0]
	KindSigningKey Kind = "signing"    // Path.key and Path.pub: the service-account key pair
)

// Names of authorities, as kubeadm has them; root and kubelet are ours.
const (
	RootCA       = "root-ca"
	ClusterCA    = "ca"
	EtcdCA       = "etcd-ca"
	FrontProxyCA = "front-proxy-ca"
	KubeletCA    = "kubelet-ca"
)

// Folders beside the node roots of `init --out`: what no node may hold.
const (
	AuthoritiesDir = "authorities"
	UsersDir       = "users"
)

// Entry is one thing that a wanted cluster needs on one node.
type Entry struct {
	Name string // as kubeadm names it: apiserver, etcd-server, admin.conf, ...
	Kind Kind
	// Path is absolute on the node, without .crt, .key or .pub; of a
	// kubeconfig it is the whole path.
	Path string
	// Authorities names the signer; of KindAnchors, whose certificates to hold.
	Authorities  []string
	CommonName   string
	Organization []string
	DNSNames     []string
	Addresses    []netip.Addr
	Server       bool // serverAuth
	Client       bool // clientAuth
	Validity     time.Duration
	// Common entries are one and the same on every node that has them.
	Common bool
	// NoKey leaves the key of an authority out: the node may not hold it.
	NoKey bool
	// SameAs names the authority whose certificate and key this one copies.
	SameAs string
	// URL and User are of a kubeconfig; Anchors names the authority that it trusts.
	URL, User, Anchors string
}

// NodeEntries are the entries of one node, or of one of the folders beside the
// node roots (then Role is empty).
type NodeEntries struct {
	Node    string
	Role    string // control-plane, worker, etcd
	Entries []Entry
}

// Entries returns what the cluster needs, node by node, authorities before
// what they sign. Names and order follow kubeadm's list
// (k/k cmd/kubeadm/app/phases/certs/certlist.go, phases/kubeconfig/kubeconfig.go).
// The error names the field that does not parse.
func (c *Cluster) Entries() ([]NodeEntries, error) {
	var all []NodeEntries
	for i := range c.ControlPlanes {
		entries, err := c.controlPlaneEntries(&c.ControlPlanes[i])
		if err != nil {
			return nil, err
		}
		all = append(all, NodeEntries{Node: c.ControlPlanes[i].Name, Role: "control-plane", Entries: entries})
	}
	for i := range c.EtcdMembers {
		all = append(all, NodeEntries{Node: c.EtcdMembers[i].Name, Role: "etcd", Entries: c.etcdMemberEntries(&c.EtcdMembers[i])})
	}
	for i := range c.Workers {
		entries, err := c.workerEntries(&c.Workers[i])
		if err != nil {
			return nil, err
		}
		all = append(all, NodeEntries{Node: c.Workers[i].Name, Role: "worker", Entries: entries})
	}
	return all, nil
}

// Authority returns the entry of an authority at its usual path.
func (c *Cluster) Authority(name string) Entry {
	e := Entry{Name: name, Kind: KindAuthority, Common: true, Validity: c.CAValidity, Path: c.PKI(name)}
	switch name {
	case ClusterCA:
		e.CommonName = "kubernetes"
	case EtcdCA:
		e.CommonName, e.Path = "etcd-ca", c.PKI("etcd/ca")
		if c.Shape == Shared {
			e.SameAs = ClusterCA
		}
	case RootCA:
		e.CommonName = "kubernetes-root-ca"
	default:
		e.CommonName = name
	}
	e.DNSNames = []string{e.CommonName}
	if c.Shape == Intermediate && name != RootCA {
		e.Authorities = []string{RootCA}
		// Only the name of a self-signed authority is also a DNS name with
		// kubeadm; an intermediate needs none.
		e.DNSNames = nil
	}
	return e
}

func (c *Cluster) controlPlaneEntries(n *ControlPlane) ([]Entry, error) {
	apiserverDNS, apiserverIP, err := c.apiserverNames(n)
	if err != nil {
		return nil, err
	}
	var entries []Entry
	add := func(e ...Entry) { entries = append(entries, e...) }
	if c.Shape == Intermediate {
		add(c.Authority(RootCA))
	}
	add(c.Authority(ClusterCA))
	add(c.leaf("apiserver", ClusterCA, "kube-apiserver", server).names(apiserverDNS, apiserverIP))
	add(c.leaf("apiserver-kubelet-client", ClusterCA, "kube-apiserver-kubelet-client", client))
	add(c.Authority(FrontProxyCA))
	add(c.leaf("front-proxy-client", FrontProxyCA, "front-proxy-client", client))
	if c.KubeletAuthority {
		add(c.Authority(KubeletCA))
		add(Entry{Name: "client-ca", Kind: KindAnchors, Path: c.PKI("client-ca"), Authorities: []string{ClusterCA, KubeletCA}, Common: true})
	}
	switch {
	case c.ExternalEtcd != nil:
	case len(c.EtcdMembers) > 0:
		ca := c.Authority(EtcdCA)
		ca.NoKey = true
		add(ca, c.leaf("apiserver-etcd-client", EtcdCA, "kube-apiserver-etcd-client", client))
	default:
		add(c.Authority(EtcdCA))
		add(c.etcdLeaves(n.Name, n.Address, n.EtcdServerSANs, n.EtcdPeerSANs)...)
		add(c.leaf("apiserver-etcd-client", EtcdCA, "kube-apiserver-etcd-client", client))
	}
	add(Entry{Name: "sa", Kind: KindSigningKey, Path: c.PKI("sa"), Common: true})
	add(c.controlPlaneKubeconfigs(n)...)
	return append(entries, c.kubeletServing(n.Name, n.Address)...), nil
}

// AdminGroup is the group that kubeadm binds to cluster-admin, since 1.29.
const AdminGroup = "kubeadm:cluster-admins"

func (c *Cluster) controlPlaneKubeconfigs(n *ControlPlane) []Entry {
	endpoint, local := c.EndpointURL(n), "https://"+hostPort(n.Address.String(), n.BindPort)
	entries := []Entry{
		c.kubeconfig("admin.conf", "kubernetes-admin", endpoint).groups(AdminGroup),
		c.kubeconfig("super-admin.conf", "kubernetes-super-admin", endpoint).groups("system:masters"),
		c.kubelet(n.Name, local), // as runKubeConfigFile in k/k cmd/kubeadm/app/cmd/phases/init/kubeconfig.go
		c.kubeconfig("controller-manager.conf", "system:kube-controller-manager", local),
		c.kubeconfig("scheduler.conf", "system:kube-scheduler", local),
	}
	if c.KubeProxy {
		entries = append(entries, c.kubeProxy(endpoint))
	}
	return entries
}

func (c *Cluster) workerEntries(w *Worker) ([]Entry, error) {
	if len(c.ControlPlanes) == 0 {
		return nil, fmt.Errorf("worker %q has no control plane to talk to: name at least one in controlPlanes", w.Name)
	}
	endpoint := c.EndpointURL(&c.ControlPlanes[0])
	ca := c.Authority(ClusterCA)
	ca.NoKey = true
	entries := []Entry{ca, c.kubelet(w.Name, endpoint)}
	if c.KubeProxy {
		entries = append(entries, c.kubeProxy(endpoint))
	}
	return append(entries, c.kubeletServing(w.Name, w.Address)...), nil
}

func (c *Cluster) etcdMemberEntries(m *EtcdMember) []Entry {
	ca := c.Authority(EtcdCA)
	ca.NoKey = true
	return append([]Entry{ca}, c.etcdLeaves(m.Name, m.Address, m.ServerSANs, m.PeerSANs)...)
}

// etcdLeaves: both serve and dial with the same pair (etcd-io/etcd#9785).
func (c *Cluster) etcdLeaves(name string, address netip.Addr, serverSANs, peerSANs []string) []Entry {
	dns := []string{name, "localhost"}
	ips := []netip.Addr{address, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	return []Entry{
		c.leaf("etcd-server", EtcdCA, name, server|client).at("etcd/server", c).names(dns, ips).more(serverSANs),
		c.leaf("etcd-peer", EtcdCA, name, server|client).at("etcd/peer", c).names(dns, ips).more(peerSANs),
		c.leaf("etcd-healthcheck-client", EtcdCA, "kube-etcd-healthcheck-client", client).at("etcd/healthcheck-client", c),
	}
}

func (c *Cluster) kubelet(node, endpoint string) Entry {
	e := c.kubeconfig("kubelet.conf", "system:node:"+node, endpoint).groups("system:nodes")
	if c.KubeletAuthority {
		e.Authorities = []string{KubeletCA}
	}
	return e
}

func (c *Cluster) kubeProxy(endpoint string) Entry {
	return c.kubeconfig("kube-proxy.conf", "system:kube-proxy", endpoint)
}

// kubeletServing is where the kubelet itself looks when no flag names a pair
// (k/k cmd/kubelet/app/server.go, initializeServerTLS).
func (c *Cluster) kubeletServing(node string, address netip.Addr) []Entry {
	if !c.KubeletAuthority {
		return nil
	}
	e := c.leaf("kubelet-server", KubeletCA, "system:node:"+node, server).groups("system:nodes")
	e.Path = path.Join(KubeletDir, "pki", "kubelet")
	e.DNSNames = []string{node}
	if address.IsValid() {
		e.Addresses = []netip.Addr{address}
	}
	return []Entry{e}
}

// UserEntry returns the kubeconfig of a user; it stands below the users folder.
func (c *Cluster) UserEntry(u User) Entry {
	endpoint := ""
	if len(c.ControlPlanes) > 0 {
		endpoint = c.EndpointURL(&c.ControlPlanes[0])
	}
	e := c.kubeconfig(u.Name+".conf", u.Name, endpoint).groups(u.Groups...)
	if u.Validity > 0 {
		e.Validity = u.Validity
	}
	return e
}

type usages int

const (
	server usages = 1 << iota
	client
)

func (c *Cluster) leaf(name, authority, commonName string, u usages) Entry {
	return Entry{
		Name: name, Kind: KindLeaf, Path: c.PKI(name), Authorities: []string{authority}, CommonName: commonName,
		Server: u&server != 0, Client: u&client != 0, Validity: c.Validity,
	}
}

func (c *Cluster) kubeconfig(file, user, url string) Entry {
	anchors := ClusterCA
	if c.Shape == Intermediate {
		anchors = RootCA
	}
	return Entry{
		Name: file, Kind: KindKubeconfig, Path: Conf(file), Authorities: []string{ClusterCA}, CommonName: user,
		Client: true, Validity: c.Validity, URL: url, User: user, Anchors: anchors,
	}
}

func (e Entry) groups(g ...string) Entry { e.Organization = g; return e }

func (e Entry) at(name string, c *Cluster) Entry { e.Path = c.PKI(name); return e }

func (e Entry) names(dns []string, ips []netip.Addr) Entry {
	e.DNSNames, e.Addresses = unique(dns), unique(ips)
	// Sorted, as kubeadm's RemoveDuplicateAltNames leaves them.
	slices.Sort(e.DNSNames)
	return e
}

func (e Entry) more(sans []string) Entry {
	dns, ips := SplitNames(sans)
	return e.names(append(e.DNSNames, dns...), append(e.Addresses, ips...))
}

// apiserverNames follows GetAPIServerAltNames in
// k/k cmd/kubeadm/app/util/pkiutil/pki_helpers.go, order included.
func (c *Cluster) apiserverNames(n *ControlPlane) ([]string, []netip.Addr, error) {
	service, err := ServiceAddress(c.ServiceSubnet)
	if err != nil {
		return nil, nil, err
	}
	dns := []string{n.Name, "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	if c.DNSDomain != "" {
		dns = append(dns, "kubernetes.default.svc."+c.DNSDomain)
	}
	ips := []netip.Addr{service, n.Address}
	var more []string
	if c.ControlPlaneEndpoint != "" {
		host, _ := SplitHostPort(c.ControlPlaneEndpoint)
		more = append(more, host)
	}
	moreDNS, moreIPs := SplitNames(slices.Concat(more, c.CertSANs, n.CertSANs))
	return unique(append(dns, moreDNS...)), unique(append(ips, moreIPs...)), nil
}

// ServiceAddress returns the address of the service "kubernetes": the first
// of the first service subnet.
func ServiceAddress(subnets string) (netip.Addr, error) {
	first, _, _ := strings.Cut(subnets, ",")
	prefix, err := netip.ParsePrefix(strings.TrimSpace(first))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("networking.serviceSubnet: %w", err)
	}
	return prefix.Masked().Addr().Next(), nil
}

// EndpointURL returns the URL at which clients reach the control plane: the
// endpoint of the cluster or else the node's own address
// (k/k cmd/kubeadm/app/util/endpoint.go).
func (c *Cluster) EndpointURL(n *ControlPlane) string {
	host, port := n.Address.String(), strconv.Itoa(n.BindPort)
	if c.ControlPlaneEndpoint != "" {
		h, p := SplitHostPort(c.ControlPlaneEndpoint)
		host = h
		if p != "" {
			port = p
		}
	}
	return "https://" + joinHostPort(host, port)
}

// SplitNames sorts subject alternative names into DNS names and addresses.
func SplitNames(names []string) (dns []string, ips []netip.Addr) {
	for _, n := range names {
		if a, err := ParseAddress(n); err == nil {
			ips = append(ips, a.Unmap())
		} else {
			dns = append(dns, n)
		}
	}
	return dns, ips
}

// ParseAddress parses an address as Kubernetes does (k8s.io/utils/net,
// ParseIPSloppy): the numbers of an IPv4 address may have leading zeros, which
// are decimal. A zone is an error.
func ParseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if parts := strings.Split(s, "."); err != nil && len(parts) == 4 {
		for i, p := range parts {
			parts[i] = strings.TrimLeft(p, "0")
			if parts[i] == "" && p != "" {
				parts[i] = "0"
			}
		}
		a, err = netip.ParseAddr(strings.Join(parts, "."))
	}
	if err == nil && a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("address %q has a zone", s)
	}
	return a, err
}

// SplitHostPort splits "host", "host:port", "[v6]", "[v6]:port" or a bare IPv6
// address; the port is empty when there is none.
func SplitHostPort(s string) (host, port string) {
	if _, err := netip.ParseAddr(s); err == nil {
		return s, ""
	}
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
	} else {
		host = s
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), port
}

func hostPort(host string, port int) string { return joinHostPort(host, strconv.Itoa(port)) }

func joinHostPort(host, port string) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + port
}

// unique keeps the first of each value.
func unique[T comparable](in []T) []T {
	var out []T
	for _, v := range in {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}
