// Package layout is the disk edge of kubepki: it reads what a node's folders
// say about its credentials, and it creates files in one atomic transaction.
//
// [Read] turns the folders below a root into a [trust.Node], which is data
// without any private key, and a [Keyring] that holds the keys apart. What is
// wrong with a file (absent, too large, not PEM) is part of the node; an error
// means that nothing could be looked at.
//
// [Begin] starts a [Transaction]. Killed at any moment, it leaves no half
// written file and no key without its certificate; the next one finishes or
// removes what it left.
//
// All paths are absolute paths as on the node and stay below the root: an
// absolute symbolic link points below the root too, as it would on the node.
//
// The few fields of kubeconfigs, Pods and kubelet configurations that matter
// here are declared as small structs instead of importing k8s.io/api and
// client-go: a Kubernetes type with a []byte field reports bad base64 without
// naming the field, and core/v1 alone adds 9 MB and about 1.5 ms of start-up.
// They are decoded by the very decoder of the components (sigs.k8s.io/yaml and
// sigs.k8s.io/json, case-sensitive), and tests hold them against client-go.
package layout
