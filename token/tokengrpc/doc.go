// Package tokengrpc brings package token to gRPC: interceptors that give handlers
// a verified user.
//
//	server := grpc.NewServer(grpc.UnaryInterceptor(tokengrpc.Unary(verifier)), grpc.StreamInterceptor(tokengrpc.Stream(verifier)))
//
// In a handler, token.FromContext(ctx) tells who called.
package tokengrpc
