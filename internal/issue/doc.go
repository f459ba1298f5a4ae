// Package issue makes keys, certificate requests and certificates.
//
// It knows cryptography and nothing of Kubernetes' catalogue, of files or of
// the clock: times come in as arguments. Randomness is crypto/rand's alone.
package issue
