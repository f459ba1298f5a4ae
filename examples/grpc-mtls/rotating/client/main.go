// Command client is a gRPC client with mutual TLS whose files are replaced while
// it runs.
package main

import (
	"context"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/mtlsgrpc"
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
	source, err := mtls.OpenFiles(mtls.Files{
		Certificate: filepath.Join(folder, "client/client.crt"), Key: filepath.Join(folder, "client/client.key"), Bundle: filepath.Join(folder, "ca.crt"),
		Usage: x509.ExtKeyUsageClientAuth,
	}, told)
	if err != nil {
		return err
	}
	connections := mtls.NewConnections(source, func(peer net.Addr, why error) { fmt.Printf("closed %s: %v\n", peer, why) })
	go connections.Run(ctx, time.Second)
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(mtlsgrpc.WatchedCredentials(connections, nil)))
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

func told(r mtls.Reload) {
	if r.Err != nil {
		fmt.Println("not taken up:", r.Err)
		return
	}
	fmt.Println("taken up", r.Files)
}
