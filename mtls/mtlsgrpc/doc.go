// Package mtlsgrpc brings package mtls to gRPC: credentials of servers and
// clients that change while they run, and interceptors that give handlers the
// client, judged anew at each call.
//
//	server := grpc.NewServer(
//		grpc.Creds(mtlsgrpc.ServerCredentials(source, mtls.RequireClients, nil)),
//		grpc.UnaryInterceptor(mtlsgrpc.Unary(source, mtls.InGroup("tills"), nil)),
//		grpc.StreamInterceptor(mtlsgrpc.Stream(source, mtls.InGroup("tills"), nil)),
//	)
//
//	client, err := grpc.NewClient("shop.example.com:443",
//		grpc.WithTransportCredentials(mtlsgrpc.ClientCredentials(source, nil)))
//
// In a handler, mtls.FromContext(ctx) tells who called.
//
// Promises:
//
//   - Each handshake has the newest certificate and the newest bundle of the
//     source. Connections that stand are not touched by a change, and no call is
//     lost by it; [mtls.Connections] closes those that are no longer good.
//   - A call on a connection whose client is no longer good is refused, however
//     long the connection stands.
//   - Who is refused in a handshake gets the alert of TLS, and who is refused at a
//     call a code and a fixed text. Why is for the server's log.
//   - Nobody is let in because something is missing: neither without an authorizer,
//     nor without TLS, nor while the source has nothing.
package mtlsgrpc
