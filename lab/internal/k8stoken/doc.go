// Package k8stoken judges and makes tokens of service accounts with Kubernetes'
// own code, k8s.io/kubernetes/pkg/serviceaccount, put together as kube-apiserver
// puts it together: what package token says is compared with it.
package k8stoken
