// Package controller runs the loops that take the place of controllers of
// kube-controller-manager: [CSR] approves and signs the requests of
// certificates.k8s.io, and [Cleaner] removes old ones.
//
// What a loop knows it has from the objects of the API alone, so that a process
// that ends at any moment loses nothing: the next one lists, and goes on.
package controller
