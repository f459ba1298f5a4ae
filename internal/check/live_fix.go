package check

import "github.com/kubepki/kubepki/internal/trust"

// takeUpServing says what makes a process serve the certificate of its file.
// Sources: apiserver/pkg/server/dynamiccertificates/dynamic_serving_content.go
// (within a minute), etcd client/pkg/transport/listener.go (at each handshake),
// k/k pkg/kubelet/kubelet.go.
func takeUpServing(s trust.Server) string {
	switch s.Kind {
	case trust.ServesAPI, trust.ServesMetrics:
		return "wait a minute, in which it reads the file again; if it still presents the old one, it refuses the new pair (its log says why) or was started with another file: restart it"
	case trust.ServesEtcd, trust.ServesEtcdPeers:
		return "restart etcd: it reads this file at each handshake, so it was started with another file or cannot read this one"
	case trust.ServesKubelet:
		return "restart the kubelet"
	}
	return "restart it"
}

// takeUpTrust says what makes a process trust what its file says. etcd builds
// its pool of client authorities when it starts (etcd client/pkg/transport/listener.go,
// ServerConfig); the others read theirs again within a minute.
func takeUpTrust(s trust.Server) string {
	switch s.Kind {
	case trust.ServesEtcd, trust.ServesEtcdPeers:
		return "restart etcd, one member after the other: it reads the authorities of its clients and peers only when it starts"
	case trust.ServesAPI, trust.ServesKubelet, trust.ServesMetrics:
		return "wait a minute, in which it reads the file again; if nothing changes, restart it"
	}
	return "restart it"
}

// takeUpRefusal says what to do about a server that refuses every handshake.
func takeUpRefusal(o *trust.Observation) string {
	if o.Server.Kind == trust.ServesKubelet && o.Alert == "internal_error" {
		return "the kubelet has no serving certificate yet: approve its request (kubectl get csr), once it is sure that it is the node's"
	}
	return "see its log for the reason"
}
