package catalog

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// Names of the components, as their programs and manifests are called.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Kubelet           = "kubelet"
	KubeProxy         = "kube-proxy"
)

// Ports that kubeadm gives the components
// (k/k cmd/kubeadm/app/constants/constants.go).
const (
	EtcdClientPort        = 2379
	EtcdPeerPort          = 2380
	EtcdMetricsPort       = 2381
	ControllerManagerPort = 10257
	SchedulerPort         = 10259
)

// Components lists the programs of a control-plane node, in the order in which
// they start.
func Components() []string { return []string{Etcd, APIServer, ControllerManager, Scheduler} }

// Command returns the program and flags of a component on a control-plane
// node, with every credential and trust flag, sorted by name as kubeadm sorts
// them (k/k cmd/kubeadm/app/phases/controlplane/manifests.go,
// phases/etcd/local.go). Extra arguments of the configuration come last, or
// are merged into the flag that they name. Kubelet and KubeProxy are known as
// well: their flags stand in for the configuration files that kubeadm uploads.
func (c *Cluster) Command(component string, node *ControlPlane) ([]string, error) {
	var flags map[string]string
	switch component {
	case Etcd:
		if c.EtcdIsExternal() {
			return nil, fmt.Errorf("control plane %q runs no etcd: the cluster's etcd is external", node.Name)
		}
		flags = c.etcdFlags(node.Name, node.Address)
	case APIServer:
		flags = c.apiserverFlags(node)
	case ControllerManager:
		flags = c.controllerManagerFlags()
	case Scheduler:
		flags = schedulerFlags()
	case Kubelet:
		return c.NodeCommand(component, node.Name)
	case KubeProxy:
		return c.NodeCommand(component, node.Name)
	default:
		return nil, unknownComponent(component)
	}
	return c.command(component, flags), nil
}

// EtcdCommand returns the program and flags of an external etcd member.
func (c *Cluster) EtcdCommand(m *EtcdMember) []string {
	return c.command(Etcd, c.etcdFlags(m.Name, m.Address))
}

// NodeCommand returns the program and flags of what every node runs: Kubelet
// or KubeProxy.
func (c *Cluster) NodeCommand(component, node string) ([]string, error) {
	switch component {
	case Kubelet:
		return c.command(component, c.kubeletFlags(node)), nil
	case KubeProxy:
		flags := map[string]string{"kubeconfig": Conf("kube-proxy.conf"), "hostname-override": node}
		if c.PodSubnet != "" {
			flags["cluster-cidr"] = c.PodSubnet
		}
		return c.command(component, flags), nil
	}
	return nil, unknownComponent(component)
}

func unknownComponent(name string) error {
	return fmt.Errorf("unknown component %q: use one of %s", name,
		strings.Join(append(Components(), Kubelet, KubeProxy), ", "))
}

func (c *Cluster) apiserverFlags(n *ControlPlane) map[string]string {
	flags := map[string]string{
		"advertise-address":                  n.Address.String(),
		"allow-privileged":                   "true",
		"authorization-mode":                 "Node,RBAC",
		"client-ca-file":                     c.clientCA(),
		"enable-admission-plugins":           "NodeRestriction",
		"enable-bootstrap-token-auth":        "true",
		"kubelet-client-certificate":         c.PKI("apiserver-kubelet-client.crt"),
		"kubelet-client-key":                 c.PKI("apiserver-kubelet-client.key"),
		"kubelet-preferred-address-types":    "InternalIP,ExternalIP,Hostname",
		"proxy-client-cert-file":             c.PKI("front-proxy-client.crt"),
		"proxy-client-key-file":              c.PKI("front-proxy-client.key"),
		"requestheader-allowed-names":        "front-proxy-client",
		"requestheader-client-ca-file":       c.PKI("front-proxy-ca.crt"),
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-username-headers":     "X-Remote-User",
		"secure-port":                        fmt.Sprint(n.BindPort),
		"service-account-issuer":             "https://kubernetes.default.svc." + c.DNSDomain,
		"service-account-key-file":           c.PKI("sa.pub"),
		"service-account-signing-key-file":   c.PKI("sa.key"),
		"service-cluster-ip-range":           c.ServiceSubnet,
		"tls-cert-file":                      c.PKI("apiserver.crt"),
		"tls-private-key-file":               c.PKI("apiserver.key"),
	}
	if c.KubeletAuthority {
		flags["kubelet-certificate-authority"] = c.PKI(KubeletCA + ".crt")
	}
	if c.hasArg(APIServer, "authorization-config") {
		delete(flags, "authorization-mode") // the two exclude each other
	}
	maps.Copy(flags, c.etcdClientFlags(n))
	return flags
}

// clientCA is the bundle that the apiserver and controller-manager recognise
// clients by: with an authority of their own, kubelets' is in it too.
func (c *Cluster) clientCA() string {
	if c.KubeletAuthority {
		return c.PKI("client-ca.crt")
	}
	return c.PKI("ca.crt")
}

func (c *Cluster) etcdClientFlags(n *ControlPlane) map[string]string {
	if e := c.ExternalEtcd; e != nil {
		flags := map[string]string{"etcd-servers": strings.Join(e.Endpoints, ",")}
		if e.CAFile != "" {
			flags["etcd-cafile"] = e.CAFile
		}
		if e.CertFile != "" && e.KeyFile != "" {
			flags["etcd-certfile"], flags["etcd-keyfile"] = e.CertFile, e.KeyFile
		}
		return flags
	}
	servers := "https://" + hostPort(loopback(n.Address), EtcdClientPort)
	if len(c.EtcdMembers) > 0 {
		var urls []string
		for _, m := range c.EtcdMembers {
			urls = append(urls, "https://"+hostPort(m.Address.String(), EtcdClientPort))
		}
		servers = strings.Join(urls, ",")
	} else if a := c.lastArg(Etcd, "advertise-client-urls"); a != nil {
		servers = merge(servers, *a)
	}
	return map[string]string{
		"etcd-servers":  servers,
		"etcd-cafile":   c.PKI("etcd/ca.crt"),
		"etcd-certfile": c.PKI("apiserver-etcd-client.crt"),
		"etcd-keyfile":  c.PKI("apiserver-etcd-client.key"),
	}
}

func (c *Cluster) controllerManagerFlags() map[string]string {
	kubeconfig := Conf("controller-manager.conf")
	flags := map[string]string{
		"authentication-kubeconfig":        kubeconfig,
		"authorization-kubeconfig":         kubeconfig,
		"bind-address":                     "127.0.0.1",
		"client-ca-file":                   c.clientCA(),
		"controllers":                      "*,bootstrapsigner,tokencleaner",
		"kubeconfig":                       kubeconfig,
		"leader-elect":                     "true",
		"requestheader-client-ca-file":     c.PKI("front-proxy-ca.crt"),
		"root-ca-file":                     c.PKI("ca.crt"),
		"service-account-private-key-file": c.PKI("sa.key"),
		"use-service-account-credentials":  "true",
	}
	if c.Shape == Intermediate {
		flags["root-ca-file"] = c.PKI(RootCA + ".crt")
	}
	maps.Copy(flags, c.signingFlags())
	if c.PodSubnet != "" {
		flags["allocate-node-cidrs"] = "true"
		flags["cluster-cidr"] = c.PodSubnet
		flags["service-cluster-ip-range"] = c.ServiceSubnet
	}
	if c.Name != "" {
		flags["cluster-name"] = c.Name
	}
	return flags
}

// signingFlags name the authority that signs requests of the certificates API.
// The generic pair excludes the four specific ones
// (k/k cmd/kube-controller-manager/app/options/csrsigningcontroller.go).
func (c *Cluster) signingFlags() map[string]string {
	cluster, kubelet := c.PKI("ca"), c.PKI(KubeletCA)
	if c.ExternalCA {
		// Both empty, so that the signing controller does not start.
		return map[string]string{"cluster-signing-cert-file": "", "cluster-signing-key-file": ""}
	}
	if !c.KubeletAuthority {
		return map[string]string{"cluster-signing-cert-file": cluster + ".crt", "cluster-signing-key-file": cluster + ".key"}
	}
	flags := map[string]string{}
	for signer, authority := range map[string]string{
		"kubelet-serving": kubelet, "kubelet-client": kubelet, "kube-apiserver-client": cluster, "legacy-unknown": cluster,
	} {
		flags["cluster-signing-"+signer+"-cert-file"] = authority + ".crt"
		flags["cluster-signing-"+signer+"-key-file"] = authority + ".key"
	}
	return flags
}

func schedulerFlags() map[string]string {
	kubeconfig := Conf("scheduler.conf")
	return map[string]string{
		"authentication-kubeconfig": kubeconfig,
		"authorization-kubeconfig":  kubeconfig,
		"bind-address":              "127.0.0.1",
		"kubeconfig":                kubeconfig,
		"leader-elect":              "true",
	}
}

func (c *Cluster) etcdFlags(name string, address netip.Addr) map[string]string {
	client := "https://" + hostPort(address.String(), EtcdClientPort)
	peer := "https://" + hostPort(address.String(), EtcdPeerPort)
	local := loopback(address)
	listen := "https://" + hostPort(local, EtcdClientPort)
	if listen != client {
		listen += "," + client
	}
	flags := map[string]string{
		"advertise-client-urls":          client,
		"cert-file":                      c.PKI("etcd/server.crt"),
		"client-cert-auth":               "true",
		"data-dir":                       cmp.Or(c.EtcdDataDir, DefaultEtcdDataDir),
		"feature-gates":                  "InitialCorruptCheck=true",
		"initial-advertise-peer-urls":    peer,
		"initial-cluster":                strings.Join(c.etcdPeers(), ","),
		"key-file":                       c.PKI("etcd/server.key"),
		"listen-client-urls":             listen,
		"listen-metrics-urls":            "http://" + hostPort(local, EtcdMetricsPort),
		"listen-peer-urls":               peer,
		"name":                           name,
		"peer-cert-file":                 c.PKI("etcd/peer.crt"),
		"peer-client-cert-auth":          "true",
		"peer-key-file":                  c.PKI("etcd/peer.key"),
		"peer-trusted-ca-file":           c.PKI("etcd/ca.crt"),
		"snapshot-count":                 "10000",
		"trusted-ca-file":                c.PKI("etcd/ca.crt"),
		"watch-progress-notify-interval": "5s",
	}
	if len(c.etcdPeers()) > 1 {
		// kubeadm starts one member and adds the others as learners; here all
		// are made at once and start together.
		flags["initial-cluster-state"] = "new"
	}
	return flags
}

// etcdPeers lists name=URL of all members, in the order of the configuration.
func (c *Cluster) etcdPeers() []string {
	var peers []string
	add := func(name string, address netip.Addr) {
		peers = append(peers, name+"=https://"+hostPort(address.String(), EtcdPeerPort))
	}
	for _, m := range c.EtcdMembers {
		add(m.Name, m.Address)
	}
	if len(c.EtcdMembers) == 0 {
		for _, n := range c.ControlPlanes {
			add(n.Name, n.Address)
		}
	}
	return peers
}

// kubeletFlags are what kubeadm writes into the kubelet's drop-in and its
// KubeletConfiguration (k/k cmd/kubeadm/app/componentconfigs/kubelet.go). All
// exist as flags too, deprecated but working.
func (c *Cluster) kubeletFlags(node string) map[string]string {
	flags := map[string]string{
		"anonymous-auth":               "false",
		"authentication-token-webhook": "true",
		"authorization-mode":           "Webhook",
		"cert-dir":                     path.Join(KubeletDir, "pki"),
		"client-ca-file":               c.PKI("ca.crt"),
		"cluster-domain":               c.DNSDomain,
		"hostname-override":            node,
		"kubeconfig":                   Conf("kubelet.conf"),
		"read-only-port":               "0",
		"rotate-certificates":          "true",
	}
	if c.KubeletAuthority {
		flags["tls-cert-file"] = path.Join(KubeletDir, "pki", "kubelet.crt")
		flags["tls-private-key-file"] = path.Join(KubeletDir, "pki", "kubelet.key")
	}
	return flags
}

// command sorts the flags, and merges the extra arguments as kubeadm does
// (ArgumentsToCommand in k/k cmd/kubeadm/app/util/arguments.go): without a
// merge method they replace the flag and stand at the end in their order. One
// to be merged with a flag that is not there is ignored, as kubeadm's v1 says
// (Arg in k/k cmd/kubeadm/app/apis/kubeadm/v1/types.go).
func (c *Cluster) command(component string, flags map[string]string) []string {
	extra := c.ExtraArgs[component]
	command := []string{component}
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		a, value := c.lastArg(component, name), flags[name]
		switch {
		case a == nil:
		case a.Merge == "":
			continue
		default:
			value = merge(value, *a)
		}
		command = append(command, "--"+name+"="+value)
	}
	for _, a := range extra {
		if a.Merge == "" {
			command = append(command, "--"+a.Name+"="+a.Value)
		}
	}
	return command
}

func merge(base string, a Arg) string {
	switch a.Merge {
	case "append":
		return base + a.Value
	case "prepend":
		return a.Value + base
	}
	return a.Value
}

func (c *Cluster) lastArg(component, name string) *Arg {
	args := c.ExtraArgs[component]
	for i := range slices.Backward(args) {
		if args[i].Name == name {
			return &args[i]
		}
	}
	return nil
}

func (c *Cluster) hasArg(component, name string) bool { return c.lastArg(component, name) != nil }

// loopback returns the loopback address of the same family.
func loopback(a netip.Addr) string {
	if a.Is6() {
		return "::1"
	}
	return "127.0.0.1"
}
