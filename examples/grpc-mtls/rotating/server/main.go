// Command server is a gRPC server with mutual TLS whose files are replaced while
// it runs.
package main

import (
	"context"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/mtlsgrpc"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8443", "address to serve at")
	folder := flag.String("folder", "tls", "what kubepki init --layout service has made")
	age := flag.Duration("connection-age", 10*time.Minute, "how old connections become")
	flag.Parse()
	if err := serve(context.Background(), *listen, *folder, *age); err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context, listen, folder string, age time.Duration) error {
	source, err := mtls.OpenFiles(mtls.Files{
		Certificate: filepath.Join(folder, "server/server.crt"), Key: filepath.Join(folder, "server/server.key"), Bundle: filepath.Join(folder, "ca.crt"),
		Usage: x509.ExtKeyUsageServerAuth,
	}, told)
	if err != nil {
		return err
	}
	guard := &mtlsgrpc.Guard{Source: source, Allow: mtls.UserNamed("client"), Again: time.Second}
	server := grpc.NewServer(
		grpc.Creds(mtlsgrpc.ServerCredentials(source, mtls.RequireClients, nil)),
		grpc.UnaryInterceptor(guard.Unary), grpc.StreamInterceptor(guard.Stream),
		// Connections end by themselves, and no call with them, long before anything
		// that they were made with is taken out of use.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: age}),
	)
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	// What is no longer good nevertheless is closed.
	connections := mtls.NewConnections(source, func(peer net.Addr, why error) { fmt.Printf("closed %s: %v\n", peer, why) })
	go connections.Run(ctx, time.Second)
	fmt.Println("serving at", listener.Addr())
	return server.Serve(connections.Listener(listener))
}

func told(r mtls.Reload) {
	if r.Err != nil {
		fmt.Println("not taken up:", r.Err)
		return
	}
	fmt.Println("taken up", r.Files)
}
