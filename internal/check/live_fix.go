package check

import "github.com/kubepki/kubepki/internal/trust"

// takeUpServing says what makes a process serve the certificate of its file.
// It is what catalog.Reload says of their serving pairs, measured in
// docs/reload.md: servers of Kubernetes learn of a change by the kernel's
// notification alone, and etcd reads its pair at each handshake.
func takeUpServing(s trust.Server) string {
	switch s.Kind {
	case trust.ServesAPI, trust.ServesMetrics:
		return know(restartCommand(s.Component), "it takes a new pair up within a second, so it refuses this one (its log says why), was started with another file, or was not told of the change (a network file system, a link that was switched)")
	case trust.ServesEtcd, trust.ServesEtcdPeers:
		return know(restartCommand(s.Component), "it reads this file at each handshake, so it was started with another file or cannot read this one")
	case trust.ServesKubelet:
		return restartCommand(s.Component)
	case trust.ServesNode:
		return "restart the kubelet"
	}
	return "restart it"
}

// takeUpTrust says what makes a process trust what its file says. etcd builds
// its pool of client authorities when it starts (etcd client/pkg/transport/listener.go,
// ServerConfig); the others learn of a change by the kernel's notification
// alone (catalog.Reload, docs/reload.md).
func takeUpTrust(s trust.Server) string {
	switch s.Kind {
	case trust.ServesEtcd, trust.ServesEtcdPeers:
		return know(restartCommand(s.Component), "one member after the other: it reads the authorities of its clients and peers only when it starts")
	case trust.ServesAPI, trust.ServesKubelet, trust.ServesMetrics:
		return know(restartCommand(s.Component), "it takes the file up within a second, unless it was not told of the change (a network file system, a link that was switched): writing the file again may do as well")
	}
	return "restart it"
}

// takeUpRefusal says what to do about a server that refuses every handshake.
func takeUpRefusal(o *trust.Observation) string {
	if (o.Server.Kind == trust.ServesKubelet || o.Server.Kind == trust.ServesNode) && o.Alert == "internal_error" {
		return "the kubelet has no serving certificate yet: approve its request (kubectl get csr), once it is sure that it is the node's"
	}
	return "see its log for the reason"
}
