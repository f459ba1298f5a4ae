// Package cri is the container runtime of one node of the lab, as the node's
// kubelet calls it.
//
// Most of it is Kubernetes' own fake runtime, which keeps account of sandboxes
// and containers and runs nothing. Over it lies a process runtime: a container
// of an image lab.kubepki.dev/PROGRAM is a real process on the node. It stands
// in the node's network, whether its pod asks for that or not, and in a root
// folder of its own, which has the machine's folders, the programs of the lab
// and the container's volumes in their places. Its output goes to the file that
// the kubelet reads, its end is noticed, and commands run beside it. A
// container of any other image is a fake one: it runs nothing, until it is
// stopped.
//
// The lab is no place for strangers' programs: nothing but the root folder keeps
// a container from its node.
package cri

import "strings"

// Endpoint is where a node's kubelet finds its runtime, as a URL with a path on
// the node.
const Endpoint = "unix:///run/kubepki-lab/cri.sock"

// Registry begins the names of images that are programs of the lab.
const Registry = "lab.kubepki.dev/"

// program tells which program an image is, if it is one.
func program(image string) (string, bool) {
	rest, ok := strings.CutPrefix(image, Registry)
	name, _, _ := strings.Cut(rest, "@")
	name, _, _ = strings.Cut(name, ":")
	return name, ok && name != "" && !strings.Contains(name, "/")
}
