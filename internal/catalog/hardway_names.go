package catalog

import (
	"slices"

	"github.com/kubepki/kubepki/internal/trust"
)

// hardwayFiles are the names that kubernetes-the-hard-way gives what the flags of
// its units name, the present one first (units/*.service, configs/*.yaml; docs/07
// to 09 before 1.27). A flag that ends in a key has none: its key stands beside.
var hardwayFiles = []struct {
	component, flag, keyFlag string
	files                    []string
}{
	{APIServer, "tls-cert-file", "tls-private-key-file", hardwayAPIServer},
	{APIServer, "kubelet-client-certificate", "kubelet-client-key", hardwayAPIServer},
	{APIServer, "client-ca-file", "", hardwayAuthority},
	{APIServer, "service-account-key-file", "service-account-signing-key-file", hardwayAccounts},
	{ControllerManager, "kubeconfig", "", []string{"/var/lib/kubernetes/kube-controller-manager.kubeconfig"}},
	{ControllerManager, "root-ca-file", "", hardwayAuthority},
	{Scheduler, "kubeconfig", "", []string{"/var/lib/kubernetes/kube-scheduler.kubeconfig"}},
	{Etcd, "cert-file", "key-file", []string{"/etc/etcd/kubernetes.pem"}},
	{Etcd, "peer-cert-file", "peer-key-file", []string{"/etc/etcd/kubernetes.pem"}},
	{Etcd, "trusted-ca-file", "", []string{"/etc/etcd/ca.pem"}},
	{Etcd, "peer-trusted-ca-file", "", []string{"/etc/etcd/ca.pem"}},
	{Kubelet, "kubeconfig", "", []string{"/var/lib/kubelet/kubeconfig"}},
	{Kubelet, "tls-cert-file", "tls-private-key-file", []string{"/var/lib/kubelet/kubelet.crt"}},
	{Kubelet, "client-ca-file", "", []string{"/var/lib/kubelet/ca.crt"}},
	{KubeProxy, "kubeconfig", "", []string{"/var/lib/kube-proxy/kubeconfig"}},
}

var (
	hardwayAPIServer = []string{"/var/lib/kubernetes/kube-api-server.crt", "/var/lib/kubernetes/kubernetes.pem"}
	hardwayAuthority = []string{"/var/lib/kubernetes/ca.crt", "/var/lib/kubernetes/ca.pem"}
	hardwayAccounts  = []string{"/var/lib/kubernetes/service-accounts.crt", "/var/lib/kubernetes/service-account.pem"}
	// hardwaySigns show that a component is there.
	hardwaySigns = []string{"tls-cert-file", "kubeconfig", "cert-file"}
)

// NamedHardway returns the components that the names of files tell, where no unit
// was given, each with the flags whose files are there.
func NamedHardway(node string, exists func(path string) bool) []trust.Component {
	var all []trust.Component
	for _, f := range hardwayFiles {
		at := slices.IndexFunc(f.files, exists)
		i := slices.IndexFunc(all, func(c trust.Component) bool { return c.Name == f.component })
		if at < 0 || i < 0 && !slices.Contains(hardwaySigns, f.flag) {
			continue
		}
		if i < 0 {
			i = len(all)
			all = append(all, trust.Component{Node: node, Name: f.component, Flags: map[string][]string{}})
		}
		all[i].Flags[f.flag] = []string{f.files[at]}
		if f.keyFlag != "" {
			all[i].Flags[f.keyFlag] = []string{keyBeside(f.files[at], exists)}
		}
	}
	return all
}
