// Package csr decides on the requests of certificates.k8s.io, and makes the
// certificates that they ask for.
//
// A decision is a pure function of the request, of facts about the cluster and
// of a policy. It has three values: what is not certainly right is never
// approved, and what is not certainly wrong is never denied.
//
// The package knows nothing of the Kubernetes API, of files or of the clock.
package csr
