// Package kube speaks the Kubernetes API: it connects, and turns objects into
// the plain data that other packages decide on.
package kube
