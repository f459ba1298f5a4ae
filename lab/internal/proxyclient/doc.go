// Package proxyclient stands in for kube-proxy where the machine lets nobody
// program packet filters: it is kube-proxy's client alone (link 7). With
// kube-proxy's credential it lists and watches what kube-proxy does (Services,
// EndpointSlices and its own Node), and programs nothing.
//
// [CanProgram] tells whether a true kube-proxy can run.
package proxyclient
