// Package shim says which Certificates are to be made of the annotations and TLS blocks of
// Ingresses, Gateways and ListenerSets, and what has to change where some are there. It is
// pure. Annotations and what comes of them are those of cert-manager's certificate-shim, so
// that Certificates that it has made stay as they are.
package shim
