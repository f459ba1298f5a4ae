// Package bootstrap knows bootstrap tokens and what is built on them: the
// Secrets that hold them, the signed ConfigMap cluster-info by which a node
// that knows nothing but a token and a pin learns whom to trust, and the roles
// that let the node ask for its certificate. Objects are those that kubeadm
// v1.37.2 makes, field by field.
//
// It reads and decides; others fetch, create and write.
package bootstrap
