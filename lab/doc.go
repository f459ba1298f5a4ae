// Package lab runs the real components of a Kubernetes control plane as plain
// processes of one machine, so that credentials are proved on the programs
// that use them.
//
// A program enters the lab with [Main]: it is started again inside user,
// network, mount and process namespaces of its own. There every node of the
// cluster is a network namespace with the node's real addresses on a bridge
// that leads nowhere else ([Network.Node]), and a component is a process whose
// file-system root is the node's root folder ([Node.Start]). A component can
// thus be started from the very argument list of its static-pod manifest:
// neither a path nor an address nor a port has to be rewritten, and it reads
// nothing but what stands in its node's folder.
//
// Nothing outlives the program: the kernel ends every process of the
// namespaces when it ends, however it ends. Nothing is reachable from outside.
//
// The lab needs Linux with user namespaces (or root), bridges and veth pairs,
// and the programs that build.sh makes. It is no part of the kubepki module:
// it has a go.mod of its own, so that the dependencies and replacements of
// Kubernetes never reach users.
package lab
