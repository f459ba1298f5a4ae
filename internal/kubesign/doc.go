// Package kubesign has what is made anew signed by certificates.k8s.io of a cluster:
// which built-in signer signs what, the request and its approval, the wait for the
// certificate, and the proof that the API server takes it. It says nothing: who calls it
// does, a command or a daemon.
package kubesign
