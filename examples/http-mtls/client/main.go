// Client asks a server all the while, over TLS that follows its files.
package main

import (
	"context"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
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
	url := flag.String("url", "https://localhost:8443", "whom to ask")
	flag.Parse()
	source, err := mtls.OpenFiles(mtls.Files{
		Certificate: filepath.Join(*dir, "client", "client.crt"), Key: filepath.Join(*dir, "client", "client.key"), Bundle: filepath.Join(*dir, "ca.crt"),
		Usage: x509.ExtKeyUsageClientAuth,
	}, func(r mtls.Reload) { log.Printf("files %q were read anew, error: %v", r.Files, r.Err) })
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: mtlshttp.NewTransport(source, nil), Timeout: 10 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	asked, failed, last := 0, 0, ""
	for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		answer, err := ask(client, *url)
		asked++
		if err != nil {
			failed, answer = failed+1, err.Error()
		}
		if answer != last {
			log.Print(answer)
			last = answer
		}
	}
	fmt.Printf("%d requests, %d failed\n", asked, failed)
}

func ask(client *http.Client, url string) (string, error) {
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }() // it was only read
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, body)
	}
	return fmt.Sprintf("%s; the server's is %x", body, answer.TLS.PeerCertificates[0].SerialNumber), err
}
