// Package handover takes what all control planes of a cluster share (authorities,
// the keys of service accounts) from one to the next, encrypted, in the form of
// kubeadm's upload-certs: the Secret kube-system/kubeadm-certs, readable both ways
// (k8s.io/kubernetes/cmd/kubeadm/app/phases/copycerts).
//
// It touches neither disk nor network: content goes in and comes out.
package handover
