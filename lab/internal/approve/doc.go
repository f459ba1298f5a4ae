// Package approve approves the kubelets' requests for serving certificates, for
// which Kubernetes has a signer but, on purpose, no approver.
//
// It knows better than the API server which node has which addresses: the lab
// has made the nodes. A node's own word, in its status, counts for nothing, as a
// node writes it itself. What is not certainly right is left alone, neither
// approved nor denied, for an administrator to judge.
package approve
