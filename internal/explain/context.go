package explain

import (
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
)

// Direction tells what the writer of a line did.
type Direction string

// The directions.
const (
	Serving  Direction = "serving"  // it was called
	Dialling Direction = "dialling" // it called
)

// Names of programs whose logs tell of links and which are no components of a
// node's files.
const (
	Kubectl       = "kubectl"
	Pod           = "pod"
	Webhook       = "webhook"
	Extension     = "extension-apiserver"
	MetricsServer = "metrics-server"
	Kubeadm       = "kubeadm"
)

// Components are those whose logs are understood.
func Components() []string {
	return []string{catalog.APIServer, catalog.ControllerManager, catalog.Scheduler, catalog.Kubelet, catalog.KubeProxy, catalog.Etcd, catalog.Etcdctl,
		Kubectl, Kubeadm, Pod, Webhook, Extension, MetricsServer}
}

// componentOf returns the component that a name of a unit, container or program
// stands for; empty when it is none of them.
func componentOf(name string) string {
	name = strings.TrimSuffix(name, ".service")
	switch {
	case slices.Contains(Components(), name):
		return name
	case strings.HasPrefix(name, "k3s"), strings.HasPrefix(name, "rke2"), strings.HasPrefix(name, "k0s"):
		return "" // one process that is all of them
	case name == "apiserver":
		return catalog.APIServer
	case name == "controller-manager":
		return catalog.ControllerManager
	case name == "scheduler":
		return catalog.Scheduler
	}
	return ""
}

// context is whose log a line is of, what it did, and which links that leaves.
type context struct {
	component string
	direction Direction
	links     []int
}

// marks are texts that tell whose log a line is of, what that component did and
// of which links, the more exact before the less. Sources: Kubernetes 1.37, etcd
// 3.7; kubectl of the same.
var marks = []struct {
	text string
	context
}{
	{"authentication.go:", context{catalog.APIServer, Serving, nil}},
	{"rejected connection on client endpoint", context{catalog.Etcd, Serving, []int{2, 3, 15}}},
	{"rejected connection on peer endpoint", context{catalog.Etcd, Serving, []int{1}}},
	{"rejected connection", context{catalog.Etcd, Serving, []int{1, 2, 3, 15}}},
	{"does not match any of DNSNames", context{catalog.Etcd, Serving, []int{1}}},
	{"prober detected unhealthy status", context{catalog.Etcd, Dialling, []int{1}}},
	{"prober found high clock drift", context{catalog.Etcd, Dialling, []int{1}}},
	{"health check for peer", context{catalog.Etcd, Dialling, []int{1}}},
	{"peer became inactive", context{catalog.Etcd, Dialling, []int{1}}},
	{"dial to peer", context{catalog.Etcd, Dialling, []int{1}}},
	{"remote-peer-id", context{catalog.Etcd, Dialling, []int{1}}},
	{"failed to get cluster response", context{catalog.Etcd, Dialling, []int{1}}},
	{"cluster ID mismatch", context{catalog.Etcd, Dialling, []int{1}}},
	{"failed calling webhook", context{catalog.APIServer, Dialling, []int{14}}},
	{"conversion webhook for", context{catalog.APIServer, Dialling, []int{14}}},
	{"failing or missing response from", context{catalog.APIServer, Dialling, []int{13}}},
	{"error trying to reach service", context{catalog.APIServer, Dialling, []int{13}}},
	{"subject with cn=", context{"", Serving, []int{13}}},
	{"requestheader", context{"", "", []int{13}}},
	{"/containerLogs/", context{catalog.APIServer, Dialling, []int{11}}},
	{"error dialing backend", context{catalog.APIServer, Dialling, []int{11}}},
	{"10250/exec/", context{catalog.APIServer, Dialling, []int{11}}},
	{"10250/attach/", context{catalog.APIServer, Dialling, []int{11}}},
	{"10250/portForward/", context{catalog.APIServer, Dialling, []int{11}}},
	{"unable to fully scrape metrics", context{MetricsServer, Dialling, []int{20}}},
	{"Failed to scrape node", context{MetricsServer, Dialling, []int{20}}},
	{"part of the existing bootstrap client certificate", context{catalog.Kubelet, Dialling, []int{8}}},
	{"unable to load bootstrap kubeconfig", context{catalog.Kubelet, Dialling, []int{8, 16}}},
	{"existing bootstrap client config", context{catalog.Kubelet, Dialling, []int{8, 16}}},
	{"none of the public keys", context{Kubeadm, Dialling, []int{16}}},
	{"token CA hash does not match", context{catalog.Kubelet, Dialling, []int{16}}},
	{"cluster-info ConfigMap", context{Kubeadm, Dialling, []int{16}}},
	{"error reading CA cert file", context{catalog.ControllerManager, "", []int{5, 8}}},
	{"error auto signing csr", context{catalog.ControllerManager, "", []int{5, 8}}},
	{"cannot create certificate signing request", context{catalog.Kubelet, Dialling, []int{16}}},
	{"matching bearer token", context{catalog.APIServer, Serving, []int{16}}},
	{"to match bootstrap bearer token", context{catalog.APIServer, Serving, []int{16}}},
	{"Expired bootstrap token", context{catalog.APIServer, Serving, []int{16}}},
	{"Unparseable expiration time", context{catalog.APIServer, Serving, []int{16}}},
	{"JWS signature", context{Kubeadm, Dialling, []int{16}}},
	{"is invalid for this cluster or it has expired", context{Kubeadm, Dialling, []int{16}}},
	{"couldn't validate the identity of the API Server", context{Kubeadm, Dialling, []int{16}}},
	{"no serving certificate available for the kubelet", context{catalog.Kubelet, Serving, []int{10, 11}}},
	{"Failed to ensure lease exists", context{catalog.Kubelet, Dialling, []int{8}}},
	{"Unable to register node with API server", context{catalog.Kubelet, Dialling, []int{8}}},
	{"kubelet_node_status.go", context{catalog.Kubelet, Dialling, []int{8}}},
	{"certificate_manager.go", context{catalog.Kubelet, Dialling, []int{8, 16}}},
	{"kubernetes.io/kube-apiserver-client-kubelet", context{catalog.Kubelet, Dialling, []int{8, 16}}},
	{"Unhandled Error\" err=\"kubernetes.io/kubelet-serving", context{catalog.Kubelet, Dialling, []int{8}}},
	{"client certificate is found and the server is", context{catalog.Kubelet, Dialling, []int{8}}},
	{"client certificate has expired", context{catalog.Kubelet, Dialling, []int{8}}},
	{"error retrieving resource lock kube-system/kube-controller-manager", context{catalog.ControllerManager, Dialling, []int{5}}},
	{"error retrieving resource lock kube-system/kube-scheduler", context{catalog.Scheduler, Dialling, []int{6}}},
	{"leases/kube-controller-manager", context{catalog.ControllerManager, Dialling, []int{5}}},
	{"leases/kube-scheduler", context{catalog.Scheduler, Dialling, []int{6}}},
	{"Unable to connect to the server", context{Kubectl, Dialling, []int{9}}},
	{"The connection to the server", context{Kubectl, Dialling, []int{9}}},
	{"You must be logged in to the server", context{Kubectl, Dialling, []int{9}}},
	{"couldn't get current server API group list", context{Kubectl, Dialling, []int{9}}},
	{"Error from server", context{Kubectl, Dialling, []int{9}}},
	{"etcd-client", context{"", Dialling, []int{3, 15}}},
	{"etcd-endpoints://", context{"", Dialling, []int{3, 15}}},
	{"Unable to authenticate the request due to an error", context{catalog.Kubelet, Serving, []int{11, 20}}},
	{"Unable to authenticate the request", context{catalog.APIServer, Serving, nil}},
	{"invalid bearer token", context{"", Serving, nil}},
	{"service account token", context{"", Serving, nil}},
	{"TLS handshake error from", context{"", Serving, nil}},
	{"client didn't provide a certificate", context{"", Serving, nil}},
	{"failed to list *", context{"", Dialling, nil}},
	{"Failed to watch", context{"", Dialling, nil}},
	{"reflector.go", context{"", Dialling, nil}},
	{"leaderelection.go", context{"", Dialling, nil}},
	{"createTransport failed to connect", context{"", Dialling, nil}},
	{"transport: authentication handshake failed", context{"", Dialling, nil}},
	{"error reading server preface", context{"", Dialling, nil}},
	{"dial tcp", context{"", Dialling, nil}},
	{"curl: (", context{"", Dialling, nil}},
	{"server gave HTTP response to HTTPS client", context{"", Dialling, nil}},
	{"sent an HTTP request to an HTTPS server", context{"", "", nil}},
	{"the server has asked for the client to provide credentials", context{"", Dialling, nil}},
}

// Ports at which components serve (kubeadm's constants; k3s, MicroK8s for the
// API server), and who that is.
var servedBy = map[string]string{
	"2379": catalog.Etcd, "2380": catalog.Etcd, "2381": catalog.Etcd,
	"6443": catalog.APIServer, "443": catalog.APIServer, "8443": catalog.APIServer, "16443": catalog.APIServer, "6444": catalog.APIServer, "9345": catalog.APIServer,
	"10250": catalog.Kubelet, "10257": catalog.ControllerManager, "10259": catalog.Scheduler,
}

// serves tells whether an address has a port at which a component serves.
func serves(address string) bool { return servedBy[portOf(address)] != "" }

// readContext gathers whose log a line is of and which links that leaves.
// component is what the user says; empty: nothing.
func readContext(l *line, f *Facts, component string) context {
	c := context{component: component}
	if c.component == "" {
		c.component = componentOf(l.component)
	}
	var marked []int
	for i := range marks {
		m := &marks[i]
		if !strings.Contains(l.text, m.text) {
			continue
		}
		if c.component != "" && m.component != "" && m.component != c.component {
			// Of a text that is quoted; or of kubectl with the kubeconfig of another.
			if m.component == Kubectl && c.direction == "" {
				c.direction = m.direction
			}
			continue
		}
		if c.component == "" {
			c.component = m.component
		}
		if c.direction == "" {
			c.direction = m.direction
		}
		if marked == nil && m.links != nil {
			marked = m.links
		}
	}
	if c.direction == "" && f.Peer != "" && f.Dialled == "" {
		c.direction = Serving
	}
	if c.direction == "" && f.Dialled != "" {
		c.direction = Dialling
	}
	c.links = linksOf(c.component, c.direction, f)
	if c.component == "" && c.direction == Serving && (l.klog || strings.Contains(l.text, "http: TLS handshake error")) {
		c.links = slices.DeleteFunc(c.links, func(n int) bool { return linkOf(n).callee == catalog.Etcd }) // etcd logs otherwise
	}
	if marked != nil {
		if both := intersect(c.links, marked); len(both) > 0 {
			c.links = both
		} else {
			c.links = marked
		}
	}
	return c
}

func intersect(a, b []int) []int {
	var both []int
	for _, n := range a {
		if slices.Contains(b, n) {
			both = append(both, n)
		}
	}
	return both
}

// linksOf are the links that a component has in a direction, towards what was
// dialled where that is told.
func linksOf(component string, d Direction, f *Facts) []int {
	var all []int
	for _, k := range knownLinks {
		calls := slices.Contains(k.callers, component)
		serves := k.callee == component
		switch {
		case component == "" && d == Dialling, d == Dialling && calls, d == Serving && serves, d == Serving && component == "", d == "" && (calls || serves || component == ""):
			all = append(all, k.number)
		}
	}
	if d != Serving && f.Dialled != "" {
		all = towards(all, component, f)
	}
	return all
}

// towards keeps the links to who serves at the port that was dialled.
func towards(links []int, component string, f *Facts) []int {
	callee := servedBy[portOf(f.Dialled)]
	host := hostOf(f.Dialled)
	var kept []int
	for _, n := range links {
		k := linkOf(n)
		switch {
		case strings.HasSuffix(host, ".svc") && !strings.HasPrefix(host, "kubernetes.") && component == catalog.APIServer:
			// A Service that kube-apiserver dials is a webhook's or an
			// extension API server's.
			if n == 13 || n == 14 {
				kept = append(kept, n)
			}
		case callee == "":
			kept = append(kept, n)
		case callee == k.callee && (n == 1) == (portOf(f.Dialled) == "2380"):
			kept = append(kept, n)
		}
	}
	if len(kept) == 0 {
		return links
	}
	return kept
}
