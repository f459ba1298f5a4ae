// Package light makes many nodes of one process.
//
// A light node is what the control plane sees of a node: it joins by token,
// asks for its client and its serving certificate, registers, renews its lease,
// stays ready, renews its certificates and serves its port. The code that asks,
// stores and renews is the kubelet's own, of k8s.io/client-go/util/certificate
// and k8s.io/component-helpers. The files are those of a real node, in the same
// places below its root folder, so that whatever reads nodes reads light ones.
// It runs no pods: it takes none, by a taint.
//
// So it serves for two things: hundreds of nodes, for load, and nodes on a
// machine where the real kubelet cannot run. Kubernetes' hollow node
// (k8s.io/kubernetes/pkg/kubemark) was the other choice. It is a kubelet over
// mocks, which wants most of what the real one wants and has its memory, and it
// takes its certificates from its caller: what the lab is about it does not do.
//
// kube-controller-manager is slow for many nodes that join at once: with its
// limits of 20 calls in a second it approves and signs some ten requests in a
// second. [ManagerFlags] lift them.
package light

// ManagerFlags are flags of kube-controller-manager for a lab in which many
// nodes join at once.
func ManagerFlags() []string { return []string{"--kube-api-qps=1000", "--kube-api-burst=2000"} }
