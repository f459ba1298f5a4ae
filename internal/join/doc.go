// Package join is the client's side of TLS bootstrapping: it takes a node, or
// any other client, from a bootstrap token to a client certificate, and renews
// that certificate while it is valid.
//
// [Join] makes a key on the node, asks the API server for a certificate with a
// CertificateSigningRequest, waits for it, proves it by a call, and writes it as
// the kubelet does: a dated file with certificate and key, a symbolic link to
// it, and a kubeconfig that names the link. A real kubelet goes on from these
// files, and this package from a kubelet's. [Rotate] does the same with the
// credential that is there. [Run] is the loop of an agent that does both when
// their time comes.
//
// Whatever is interrupted is completed by the next run: the key is on the disk
// before the request is sent, the request's name is a digest of key and
// subject, and the link is replaced in one rename, so that there is a credential
// at every moment. client-go's own store is not used for writing, as it removes
// the link before it makes the new one (util/certificate/certificate_store.go).
//
// All paths are absolute paths as on the node, below [Options.Root].
package join
