// Command client is a gRPC client with mutual TLS, as most examples have it: its
// files are read once.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

func main() {
	server := flag.String("server", "127.0.0.1:8443", "address of the server")
	folder := flag.String("folder", "tls", "what kubepki init --layout service has made")
	every := flag.Duration("every", 10*time.Millisecond, "how often to call")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := call(ctx, *server, *folder, *every); err != nil {
		log.Fatal(err)
	}
}

func call(ctx context.Context, server, folder string, every time.Duration) error {
	config, err := clientTLS(folder)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // at the end of the program
	calls, failed := 0, 0
	for last := ""; ctx.Err() == nil; time.Sleep(every) {
		var p peer.Peer
		calls++
		if _, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{}, grpc.Peer(&p)); err != nil {
			failed++
			fmt.Println("failed:", err)
			continue
		}
		if serial := p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].SerialNumber.Text(16); serial != last {
			last = serial
			fmt.Println("served by certificate", serial)
		}
	}
	fmt.Println(calls, "calls,", failed, "failed")
	return nil
}

func clientTLS(folder string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "client/client.crt"), filepath.Join(folder, "client/client.key"))
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
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool}, nil
}
