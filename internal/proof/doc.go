// Package proof proves links by true TLS handshakes in memory, with the private
// keys at hand: the callee requires and verifies the caller's certificate, the
// caller verifies the name that it dials. crypto/tls is what the components
// themselves use, so what passes here passes there.
package proof
