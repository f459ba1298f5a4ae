package mtls_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/kubepki/kubepki/mtls"
)

// A server that knows its clients, and whose files are rotated while it runs.
func ExampleServerConfig() {
	files := exampleFiles() // tls.crt, tls.key and client-ca.crt
	defer files.remove()
	source, err := mtls.OpenFiles(mtls.Files{Certificate: files.certificate, Key: files.key, Bundle: files.bundle}, func(r mtls.Reload) {
		log.Printf("%q: %v", r.Files, r.Err)
	})
	if err != nil {
		log.Fatal(err)
	}
	hello := func(w http.ResponseWriter, r *http.Request) {
		// The handshake has verified the client. Asked again for each request, one
		// whose authority is trusted no longer does not live on by its connection.
		client, err := mtls.VerifyClient(source, r.TLS)
		if err != nil {
			http.Error(w, "not allowed", http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, "hello %s", client.Certificate.Subject.CommonName)
	}
	server := &http.Server{Handler: http.HandlerFunc(hello), TLSConfig: mtls.ServerConfig(source, mtls.RequireClients)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go server.ServeTLS(listener, "", "")
	defer server.Close()

	answer, err := files.https().Get("https://" + listener.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	fmt.Printf("%s, by %s\n", body, answer.Proto)
	// Output: hello jane, by HTTP/2.0
}

// A source that never changes.
func ExampleSnapshot() {
	files := exampleFiles()
	defer files.remove()
	bundle, err := mtls.ParseBundle(files.bundlePEM())
	if err != nil {
		log.Fatal(err)
	}
	var source mtls.Source = &mtls.Snapshot{Certificate: files.pair(), Bundle: bundle}
	config := mtls.ServerConfig(source, mtls.RequireClients)
	fmt.Println(config.NextProtos, len(bundle.Anchors()))
	// Output: [h2 http/1.1] 1
}

// A client in three files, with one configuration for all its connections.
func ExampleClientConfig() {
	files := exampleFiles() // of the user jane
	defer files.remove()
	address, stop := files.serve()
	defer stop()

	source, err := mtls.OpenFiles(files.janes(), func(r mtls.Reload) { log.Printf("%q: %v", r.Files, r.Err) })
	if err != nil {
		log.Fatal(err)
	}
	c, err := tls.Dial("tcp", address, mtls.ClientConfig(source, mtls.Named("localhost")))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	answer, _ := io.ReadAll(c)
	fmt.Printf("%s", answer)
	// Output: hello jane
}

// A client that dials many servers, by name or address, and resumes sessions.
func ExampleSessionCache() {
	files := exampleFiles()
	defer files.remove()
	address, stop := files.serve() // 127.0.0.1 and a port
	defer stop()

	source, err := mtls.OpenFiles(files.janes(), nil)
	if err != nil {
		log.Fatal(err)
	}
	sessions := mtls.NewSessionCache(source, 64)
	for range 2 {
		c, err := tls.Dial("tcp", address, sessions.DialledAt(nil, address))
		if err != nil {
			log.Fatal(err)
		}
		answer, _ := io.ReadAll(c)
		fmt.Printf("%s, resumed: %t\n", answer, c.ConnectionState().DidResume)
		c.Close()
	}
	// Output:
	// hello jane, resumed: false
	// hello jane, resumed: true
}

// A program that has its certificates from elsewhere.
func ExampleMemory() {
	files := exampleFiles()
	defer files.remove()
	bundle, err := mtls.ParseBundle(files.bundlePEM())
	if err != nil {
		log.Fatal(err)
	}
	var source mtls.Memory
	config := mtls.ServerConfig(&source, mtls.RequireClients) // handshakes fail until there is something
	if err := source.Set(mtls.Snapshot{Certificate: files.pair(), Bundle: bundle}); err != nil {
		log.Fatal(err)
	}
	now, _ := source.Snapshot()
	fmt.Println(now.Certificate.Leaf.Subject, config.MinVersion == tls.VersionTLS12)
	// Output: CN=server true
}

// Who may is a small function, made of others or written by hand.
func ExampleAuthorizer() {
	files := exampleFiles()
	defer files.remove()
	operators := mtls.AnyOf(
		mtls.InGroup("ops"),
		mtls.WithSPIFFEID(spiffeid.RequireFromString("spiffe://example.org/ns/shop/sa/till")),
	)
	jane := mtls.Peer{Certificate: files.jane.Leaf} // as VerifyClient returns it
	fmt.Println(operators(jane))
	// Output:
	// the user "jane" is in none of the groups ["ops"]
	// certificate contains no URI SAN
}

// Connections whose client is trusted no more are closed.
func ExampleConnections() {
	files := exampleFiles()
	defer files.remove()
	source, err := mtls.OpenFiles(mtls.Files{Certificate: files.certificate, Key: files.key, Bundle: files.bundle}, nil)
	if err != nil {
		log.Fatal(err)
	}
	connections := mtls.NewConnections(source, func(client net.Addr, why error) { log.Printf("%s: closed: %v", client, why) })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go connections.Run(ctx, 10*time.Second)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	server := &http.Server{Handler: http.NotFoundHandler(), TLSConfig: mtls.ServerConfig(source, mtls.RequireClients)}
	go server.ServeTLS(connections.Listener(listener), "", "")
	defer server.Close()

	answer, err := files.https().Get("https://" + listener.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	answer.Body.Close()
	fmt.Println(answer.Proto, connections.Len(), "connection,", connections.CloseStale(), "closed")
	// Output: HTTP/2.0 1 connection, 0 closed
}
