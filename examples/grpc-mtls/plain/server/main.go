// Command server is a gRPC server with mutual TLS, as most examples have it: its
// files are read once.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8443", "address to serve at")
	folder := flag.String("folder", "tls", "what kubepki init --layout service has made")
	flag.Parse()
	if err := serve(*listen, *folder); err != nil {
		log.Fatal(err)
	}
}

func serve(listen, folder string) error {
	config, err := serverTLS(folder)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Println("serving at", listener.Addr())
	return server.Serve(listener)
}

func serverTLS(folder string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "server/server.crt"), filepath.Join(folder, "server/server.key"))
	if err != nil {
		return nil, err
	}
	authorities, err := os.ReadFile(filepath.Join(folder, "ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("%s: no certificate", filepath.Join(folder, "ca.crt"))
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}, nil
}
