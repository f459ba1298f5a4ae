// Package cri is the container runtime of one node of the lab.
package cri

// Endpoint is where a node's kubelet finds its runtime, as a URL with a path on
// the node.
const Endpoint = "unix:///run/kubepki-lab/cri.sock"
