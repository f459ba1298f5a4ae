// Package supervisor runs the cluster of a lab: it makes the network and the
// nodes, keeps every component running as a kubelet or systemd would, sets the
// cluster up as kubeadm does, and answers what [Client] asks.
//
// It runs inside the namespaces that lab.Main makes. Whoever ends it ends all
// that it started.
package supervisor
