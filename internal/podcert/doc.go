// Package podcert decides on the requests of pods for certificates
// (PodCertificateRequest of certificates.k8s.io), and makes the certificates.
//
// A decision is a pure function of the request, of facts about the pod and of a
// policy. It has three values: what is not certainly right is never issued, and
// what is not certainly wrong is never denied. For a kubelet takes a denial as
// final: the pod gets no certificate until it is made anew (k/k
// pkg/kubelet/podcertificate/podcertificatemanager.go). The same holds for the
// condition Failed, which is why nothing here ever fails a request.
//
// A certificate says who a pod is as an X.509-SVID of SPIFFE does: by one URI,
// spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT. It has no subject, so
// that kube-apiserver takes nobody for a user by it, whatever authority signs.
//
// The package knows nothing of the Kubernetes API, of files or of the clock.
package podcert
