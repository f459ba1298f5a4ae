// Package mtlshttp brings package mtls to net/http: a client and a server whose
// certificates and authorities change while they run, and a middleware that tells
// handlers who calls.
//
// A server:
//
//	source, err := mtls.OpenFiles(mtls.Files{Certificate: "tls.crt", Key: "tls.key", Bundle: "ca.crt"}, nil)
//	...
//	hello := func(w http.ResponseWriter, r *http.Request) {
//		peer, _ := mtls.FromContext(r.Context())
//		fmt.Fprintln(w, "hello,", peer)
//	}
//	handler := mtlshttp.Require(source, mtls.InGroup("tills"), http.HandlerFunc(hello))
//	err = mtlshttp.NewServer(source, mtls.RequireClients, handler).ListenAndServeTLS("", "")
//
// A client:
//
//	client := &http.Client{Transport: mtlshttp.NewTransport(source, nil), Timeout: 10 * time.Second}
//
// Promises:
//
//   - No request goes out on a connection that shows a certificate which the
//     source has replaced, or that was verified by another bundle than that of now.
//     Requests that have begun come to their end: a rotation in which both sides
//     overlap fails none. (With HTTP/2 one may, that is sent at the moment when the
//     server asks for a new connection, if its body cannot be had once more:
//     [http.Request].GetBody.)
//   - A handler behind a [Guard] is not called for a client that has expired, or
//     whose authority was taken out of the bundle, however long its connection
//     stands; of expiry that is true to the second.
//   - HTTP/2 and HTTP/1.1, DNS names and IP addresses, upgrades to WebSocket,
//     proxies of http:// and socks5://. Nothing goes out without TLS.
//   - Why somebody is refused is in the log of the side that refuses. The other
//     side learns that it is, and in a handshake what an alert of TLS says.
//   - No goroutine but those of net/http: Close and CloseIdleConnections end them.
package mtlshttp
