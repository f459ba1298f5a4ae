// Package k8suser compares whom package mtls sees in a client certificate with
// whom Kubernetes' own code does (k8s.io/apiserver/pkg/authentication/request/x509).
// It has tests alone.
package k8suser
