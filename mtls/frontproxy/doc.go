// Package frontproxy is Kubernetes' aggregation layer, both sides: an extension
// API server that learns from kube-apiserver who calls, and a proxy that tells
// one.
//
// An extension API server:
//
//	certificate, err := mtls.OpenFiles(mtls.Files{Certificate: "tls.crt", Key: "tls.key"}, nil)
//	settings := live.New(clientset, nil) // of kubepki/mtls/frontproxy/live
//	go settings.Run(ctx)
//	guard := &frontproxy.Guard{Settings: settings}
//	server := &http.Server{Handler: guard.Handler(handler), TLSConfig: frontproxy.ServerConfig(certificate, settings)}
//	err = server.ListenAndServeTLS("", "")
//
// and in the handler, frontproxy.FromContext(r.Context()). A proxy sends by
// [RoundTripper].
//
// Promises:
//
//   - Headers name a user only on a connection whose certificate is of the bundle
//     of proxies, for clients, and of an allowed name. This is judged at each
//     request by the newest settings and the time: a proxy whose authority was
//     taken out is not believed any more on connections that stand.
//   - No header that names a user reaches a handler, whoever has sent it, and in
//     whatever spelling.
//   - Who is let in is whom k8s.io/apiserver lets in, by the same name, or nobody
//     (package headerrequest and its tests are run beside this one). Refused here
//     alone: a user or a UID that stands twice, settings that [Settings.Check]
//     finds unsafe, and anonymous callers.
//   - Who may do what is not judged: kube-apiserver has asked its authorizer about
//     requests that come by it, and about others nobody has.
//   - Nothing here starts a goroutine. A request costs no signature, but for one a
//     second for each connection.
package frontproxy
