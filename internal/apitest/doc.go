// Package apitest is, for tests alone, an API server over real TLS that knows
// what TLS bootstrapping needs: bootstrap tokens, client certificates,
// cluster-info, SelfSubjectReviews and CertificateSigningRequests, which it
// answers as told; and one that holds any objects, to be read. Tests on the real components are in lab/.
package apitest
