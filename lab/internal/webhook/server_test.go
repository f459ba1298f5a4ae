package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/lab/internal/objects"
)

// folder is a webhook's folder with what a server needs.
func folder(t *testing.T, m *objects.Material) Options {
	t.Helper()
	dir := t.TempDir()
	o := Options{
		Listen: "127.0.0.1:0", Status: "127.0.0.1:0",
		CertificateFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), ClientCAFile: filepath.Join(dir, "ca.crt"),
	}
	replace(t, o.KeyFile, m.ServerKey)
	replace(t, o.CertificateFile, m.ServerCertificate)
	replace(t, o.ClientCAFile, m.Authority)
	return o
}

// replace puts a file in the place of another by a rename.
func replace(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// material makes credentials for a webhook.
func material(t *testing.T) *objects.Material {
	t.Helper()
	servers, err := objects.Provision(t.Context(), t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &servers.Webhook
}

// listen serves the options' TLS on a port of the machine.
func listen(t *testing.T, o Options) string {
	t.Helper()
	config, err := o.tlsConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", o.Listen, config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, listener, &judge{}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// call makes a request with what one authority has made.
func call(address string, m *objects.Material) error {
	pair, err := tls.X509KeyPair(m.ClientCertificate, m.ClientKey)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(m.Authority)
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", address, &tls.Config{
		RootCAs: roots, ServerName: "webhook.lab-webhook.svc",
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	// With TLS 1.3 the server's refusal comes with its first answer.
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	_, err = io.ReadAll(conn)
	return err
}

// until calls until it succeeds.
func until(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for range 500 {
		if err = f(); err == nil {
			return
		}
		select {
		case <-t.Context().Done():
		case <-time.After(20 * time.Millisecond): // the kernel tells of changed files in its own time
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func TestFilesAreReadAgain(t *testing.T) {
	first, second := material(t), material(t)
	o := folder(t, first)
	address := listen(t, o)
	if err := call(address, first); err != nil {
		t.Fatal(err)
	}
	if err := call(address, second); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Fatalf("a server of the first authority, trusted by the second: %v", err)
	}
	mixed := *first
	mixed.ClientCertificate, mixed.ClientKey = second.ClientCertificate, second.ClientKey
	if err := call(address, &mixed); err == nil || !strings.Contains(err.Error(), "unknown certificate authority") {
		t.Fatalf("a client of the second authority: %v", err)
	}
	replace(t, o.ClientCAFile, append(append([]byte{}, first.Authority...), second.Authority...))
	until(t, "the clients of both authorities", func() error { return call(address, &mixed) })
	// A certificate without its key is not taken: the last good pair is served.
	replace(t, o.CertificateFile, second.ServerCertificate)
	if err := call(address, first); err != nil {
		t.Errorf("between certificate and key: %v", err)
	}
	replace(t, o.KeyFile, second.ServerKey)
	until(t, "the pair of the second authority", func() error { return call(address, second) })
}

func TestAServerRefusesToStartOnBadFiles(t *testing.T) {
	good, other := material(t), material(t)
	tests := map[string]func(*Options){
		"no certificate":           func(o *Options) { o.CertificateFile += ".gone" },
		"the key of another":       func(o *Options) { replace(t, o.KeyFile, other.ServerKey) },
		"authorities without any":  func(o *Options) { replace(t, o.ClientCAFile, nil) },
		"authorities that are not": func(o *Options) { replace(t, o.ClientCAFile, []byte("none")) },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			o := folder(t, good)
			spoil(&o)
			if err := Run(t.Context(), o); err == nil {
				t.Error("it runs")
			}
		})
	}
}
