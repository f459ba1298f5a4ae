// Package mtls gives TLS servers certificates and client authorities that change
// while they run: files in, a [*tls.Config] out that always has the newest.
//
//	source, err := mtls.OpenFiles(mtls.Files{
//		Certificate: "tls.crt", Key: "tls.key", Bundle: "client-ca.crt",
//	}, nil)
//	...
//	server := &http.Server{TLSConfig: mtls.ServerConfig(source, mtls.RequireClients)}
//	err = server.ListenAndServeTLS("", "")
//
// Promises:
//
//   - TLS 1.2 at least. What is shown and who is trusted is asked of a [Source]
//     at each handshake; connections that stand are left alone.
//   - A certificate and a key that do not belong together, or a file half
//     written, never take the place of what was good before.
//   - With [RequireClients] a client whose authority was taken out of the bundle
//     does not come in again by resuming a session. Its connections that still
//     stand can be asked about with [VerifyClient].
//   - Nothing here starts a goroutine, and nothing has to be closed.
//   - No error holds key material.
package mtls
