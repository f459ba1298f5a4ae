package mtlshttp_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/mtlshttp"
)

// A whole service and its client. The files of both may be replaced while they run.
func Example() {
	files := exampleFiles() // tls.crt, tls.key and ca.crt of each
	defer files.remove()
	told := func(r mtls.Reload) { log.Printf("%q: %v", r.Files, r.Err) }

	its, err := mtls.OpenFiles(files.server, told)
	if err != nil {
		log.Fatal(err)
	}
	hello := func(w http.ResponseWriter, r *http.Request) {
		peer, _ := mtls.FromContext(r.Context())
		fmt.Fprintf(w, "hello %s", peer.Certificate.Subject.CommonName)
	}
	server := mtlshttp.NewServer(its, mtls.RequireClients, mtlshttp.Require(its, mtls.InGroup("tills"), http.HandlerFunc(hello)))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go server.ServeTLS(listener, "", "")
	defer server.Close()

	mine, err := mtls.OpenFiles(files.client, told)
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: mtlshttp.NewTransport(mine, nil), Timeout: 10 * time.Second}
	answer, err := client.Get("https://" + listener.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	fmt.Printf("%s, by %s\n", body, answer.Proto)
	// Output: hello jane, by HTTP/2.0
}

// Connections whose other side is trusted no longer are closed within ten seconds,
// what is under way on them included: of a server those that were upgraded, too.
func ExampleNewServer() {
	files := exampleFiles()
	defer files.remove()
	source, err := mtls.OpenFiles(files.server, nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	connections := mtls.NewConnections(source, func(from net.Addr, why error) { log.Printf("closed the connection from %s: %v", from, why) })
	go connections.Run(ctx, 10*time.Second)

	server := mtlshttp.NewServer(source, mtls.RequireClients, http.NotFoundHandler())
	server.WriteTimeout = time.Minute // nothing here is a stream
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	context.AfterFunc(ctx, func() { server.Close() })
	go server.ServeTLS(connections.Listener(listener), "", "")
	fmt.Println(connections.Len())
	// Output: 0
}

// A client that trusts the server by another name than that of the URL, gives up
// sooner, and speaks HTTP/1.1.
func ExampleNewTransport() {
	files := exampleFiles()
	defer files.remove()
	source, err := mtls.OpenFiles(files.client, nil)
	if err != nil {
		log.Fatal(err)
	}
	transport := mtlshttp.NewTransport(source, mtls.Named("orders.example.com", "orders.shop.svc"))
	transport.Base.TLSHandshakeTimeout = 2 * time.Second
	transport.Base.Protocols = new(http.Protocols)
	transport.Base.Protocols.SetHTTP1(true)
	transport.Connections = mtls.NewConnections(source, nil)
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	_, err = client.Get("http://orders.example.com/") //nolint:bodyclose // there is none
	fmt.Println(err)
	// Output: Get "http://orders.example.com/": not an https:// URL: this client speaks TLS alone
}

// What is for everybody, and what is for some: the server asks for certificates,
// and takes whoever comes.
func ExampleGuard() {
	files := exampleFiles()
	defer files.remove()
	source, err := mtls.OpenFiles(files.server, nil)
	if err != nil {
		log.Fatal(err)
	}
	admin := &mtlshttp.Guard{Source: source, Allow: mtls.AnyOf(mtls.UserNamed("jane"), mtls.InGroup("admins")), Log: slog.Default().With("path", "/admin")}
	mux := http.NewServeMux()
	mux.Handle("/healthz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	mux.Handle("/admin/", admin.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _ := mtls.FromContext(r.Context())
		fmt.Fprintf(w, "yes, %s", peer.Certificate.Subject.CommonName)
	})))
	server := mtlshttp.NewServer(source, mtls.UnverifiedClients, mux)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go server.ServeTLS(listener, "", "")
	defer server.Close()

	mine, err := mtls.OpenFiles(files.client, nil)
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: mtlshttp.NewTransport(mine, nil)}
	for _, path := range []string{"/healthz", "/admin/"} {
		answer, err := client.Get("https://" + listener.Addr().String() + path)
		if err != nil {
			log.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		fmt.Println(answer.StatusCode, string(body))
	}
	// Output:
	// 200 ok
	// 200 yes, jane
}
