// Server greets its client, over TLS that follows its files.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/mtlshttp"
)

func main() {
	dir := flag.String("dir", "tls", "folder that kubepki init --layout service has made")
	address := flag.String("listen", "localhost:8443", "address to listen on")
	flag.Parse()
	source, err := mtls.OpenFiles(mtls.Files{
		Certificate: filepath.Join(*dir, "server", "server.crt"), Key: filepath.Join(*dir, "server", "server.key"), Bundle: filepath.Join(*dir, "ca.crt"),
		Usage: x509.ExtKeyUsageServerAuth,
	}, func(r mtls.Reload) { log.Printf("files %q were read anew, error: %v", r.Files, r.Err) })
	if err != nil {
		log.Fatal(err)
	}
	hello := func(w http.ResponseWriter, r *http.Request) {
		peer, _ := mtls.FromContext(r.Context())
		fmt.Fprintf(w, "hello %s, by certificate %x", peer.Certificate.Subject.CommonName, peer.Certificate.SerialNumber)
	}
	server := mtlshttp.NewServer(source, mtls.RequireClients, mtlshttp.Require(source, mtls.UserNamed("client"), http.HandlerFunc(hello)))

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { _ = server.Close() }) // the process ends
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	connections := mtls.NewConnections(source, func(from net.Addr, why error) { log.Printf("closed the connection from %s: %v", from, why) })
	go connections.Run(ctx, 10*time.Second)
	log.Printf("listening on %s", listener.Addr())
	if err := server.ServeTLS(connections.Listener(listener), "", ""); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
