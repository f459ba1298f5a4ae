// Package proxywatch shows whether kube-proxy does its work (link 7). Its health
// endpoint does not: a kube-proxy whose watches are dead has nothing to do and
// says that it is well. A service that has never been there can be reached from
// a node only if the node's kube-proxy has been told of it, and has programmed
// it.
package proxywatch
