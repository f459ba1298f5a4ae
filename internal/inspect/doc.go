// Package inspect says what one file holds: certificates, requests, keys and
// service-account tokens, as PEM or DER, bare or inside kubeconfigs, Secrets
// and other Kubernetes manifests.
//
// It takes foreign input of any kind, bounded by [MaxSize], and never keeps or
// prints a private key, a token's signature or a password: of a key it gives
// the algorithm and the hash of the public half.
package inspect
