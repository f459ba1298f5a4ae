// Package mtls gives TLS servers and clients certificates and authorities that
// change while they run: three files in, a [*tls.Config] out that always has the
// newest.
//
// A server, and a client:
//
//	source, err := mtls.OpenFiles(mtls.Files{Certificate: "tls.crt", Key: "tls.key", Bundle: "ca.crt"}, nil)
//	...
//	server := &http.Server{TLSConfig: mtls.ServerConfig(source, mtls.RequireClients)}
//	err = server.ListenAndServeTLS("", "")
//
//	conn, err := tls.Dial("tcp", "shop.example.org:443", mtls.ClientConfig(source, nil))
//
// Packages mtlshttp and mtlsgrpc beside it have what net/http and gRPC take,
// mtlsmetrics metrics, and frontproxy what extension API servers of Kubernetes take.
//
// What is shown and who is trusted comes from a [Source]: files ([FileSource]), a
// kubeconfig ([KubeconfigSource]), an issuer of one's own or of a cluster
// ([Renewing]), the Kubernetes API (package kubesource), memory ([Memory]), two of
// them ([Join]), or anything else with that one method. Who is there is a [Peer],
// by [VerifyClient] and [VerifyServer]: a user as Kubernetes sees it, a SPIFFE ID,
// names. Who may is an [Authorizer].
//
// Promises:
//
//   - TLS 1.2 at least. A Source is asked at each handshake, and the handshake
//     is judged by what it had when it began.
//   - A certificate and a key that do not belong together, or a file half
//     written, never take the place of what was good before.
//   - No session brings back an authority that was taken out of the bundle: not a
//     client's with a server of [RequireClients], nor a server's with a client.
//   - Connections that stand are left alone by rotations. They can be asked about
//     ([VerifyClient]), or closed when they are no longer good ([Connections]).
//   - An alert says what TLS says; why somebody was refused is in the error, for
//     the own log.
//   - Nothing here starts a goroutine, and nothing has to be closed.
//   - No error holds key material.
package mtls
