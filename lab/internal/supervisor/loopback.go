package supervisor

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/lab"
)

// nodeFolders are the folders of a node that arguments of its components name.
var nodeFolders = []string{"/etc/kubernetes/", "/var/lib/etcd"}

// onLoopback makes a component, described for a node of its own, one that shares
// the machine with others: its files are below the node's root folder, and it
// listens at the node's address alone.
func onLoopback(m *lab.Manifest, root string, address netip.Addr) {
	for i, argument := range m.Command {
		m.Command[i] = localArgument(argument, root, address)
	}
	if m.Name == "kube-apiserver" {
		// It would publish its address as that of the service, and no such address
		// may be loopback.
		m.Command = append(m.Command, "--bind-address="+address.String(), "--endpoint-reconciler-type=none")
	}
	if m.Probe != nil {
		m.Probe.Host = strings.ReplaceAll(m.Probe.Host, "127.0.0.1", address.String())
	}
}

// localArgument is an argument on loopback. A list that names the node's address
// twice then, for the node's own callers and for others, names it once.
func localArgument(argument, root string, address netip.Addr) string {
	name, value, found := strings.Cut(argument, "=")
	if !found {
		return argument
	}
	values := strings.Split(strings.ReplaceAll(value, "127.0.0.1", address.String()), ",")
	for i, v := range values {
		for _, folder := range nodeFolders {
			if strings.HasPrefix(v, folder) {
				values[i] = filepath.Join(root, v)
			}
		}
	}
	slices.Sort(values)
	return name + "=" + strings.Join(slices.Compact(values), ",")
}
