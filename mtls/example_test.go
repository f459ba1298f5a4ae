package mtls_test

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

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

	answer, err := files.client().Get("https://" + listener.Addr().String())
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
