// Package jwtsigner signs the tokens of service accounts for
// kube-apiserver, so that the key need not lie where kube-apiserver can read it:
// the gRPC service ExternalJWTSigner (KEP-740, k8s.io/externaljwt).
//
// Whoever may call it can have tokens signed for any service account of the
// issuer. So it judges each payload, and signs nothing but what kube-apiserver
// has signed: tokens of service accounts, of its issuers, that live no longer
// than is allowed.
package jwtsigner
