// Package k8sfrontproxy holds tests alone: the same requests through Kubernetes'
// own code of the aggregation layer and through mtls/frontproxy.
package k8sfrontproxy
