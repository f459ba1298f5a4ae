package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// Options say where a webhook server listens and what it shows.
type Options struct {
	Listen          string // host:port for reviews, over TLS
	CertificateFile string // PEM, the leaf first; read again when it changes
	KeyFile         string // PEM; read again when it changes
	// ClientCAFile holds the authorities, in PEM, of the clients that may call.
	// It is read again when it changes. Empty: everybody may.
	ClientCAFile string
	// Status is the host:port of /healthz and /counts, in plain HTTP: the kubelet
	// has no certificate to show to a probe. It belongs on loopback.
	Status string
}

// Main runs a webhook server with the flags of a command line, without the
// program's name, until it is interrupted. It returns the exit code.
func Main(args []string) int {
	var o Options
	flags := flag.NewFlagSet("webhook", flag.ContinueOnError)
	flags.StringVar(&o.Listen, "listen", ":9443", "address for reviews, over TLS")
	flags.StringVar(&o.CertificateFile, "tls-cert-file", "", "serving certificate")
	flags.StringVar(&o.KeyFile, "tls-private-key-file", "", "its key")
	flags.StringVar(&o.ClientCAFile, "client-ca-file", "", "authorities of the clients that may call (default: everybody may)")
	flags.StringVar(&o.Status, "status", "127.0.0.1:9444", "address of /healthz and /counts")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := Run(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "webhook: %v\n", err)
		return 1
	}
	return 0
}

const (
	readTimeout     = 10 * time.Second
	shutdownTimeout = 5 * time.Second
)

// Run serves until the context ends. An error tells that it could not listen,
// or that the files that it starts with cannot be used; files that become
// unusable later are logged, and the last good ones served.
func Run(ctx context.Context, o Options) error {
	config, err := o.tlsConfig(ctx)
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", o.Listen, config)
	if err != nil {
		return err
	}
	status, err := net.Listen("tcp", o.Status)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	j := &judge{}
	reviews := http.NewServeMux()
	reviews.Handle("POST /validate", j)
	inspection := http.NewServeMux()
	inspection.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	inspection.HandleFunc("GET /counts", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, j.counts()) })
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return serve(ctx, listener, reviews) })
	group.Go(func() error { return serve(ctx, status, inspection) })
	return group.Wait()
}

// tlsConfig follows the files by kube-apiserver's own means: it is told of
// changes by the kernel and looks every minute besides.
func (o Options) tlsConfig(ctx context.Context) (*tls.Config, error) {
	base := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	pair, err := dynamiccertificates.NewDynamicServingContentFromFiles("serving-cert", o.CertificateFile, o.KeyFile)
	if err != nil {
		return nil, err
	}
	var clients *dynamiccertificates.DynamicFileCAContent
	var provider dynamiccertificates.CAContentProvider // no interface around a nil pointer
	if o.ClientCAFile != "" {
		if clients, err = dynamiccertificates.NewDynamicCAContentFromFile("client-ca", o.ClientCAFile); err != nil {
			return nil, err
		}
		base.ClientAuth, provider = tls.RequireAndVerifyClientCert, clients
	}
	controller := dynamiccertificates.NewDynamicServingCertificateController(base, provider, pair, nil, nil)
	pair.AddListener(controller)
	if clients != nil {
		clients.AddListener(controller)
		go clients.Run(ctx, 1)
	}
	if err := controller.RunOnce(); err != nil {
		return nil, err
	}
	go pair.Run(ctx, 1)
	go controller.Run(1, ctx.Done())
	config := base.Clone()
	config.GetConfigForClient = controller.GetConfigForClient
	return config, nil
}

// serve serves on a listener until the context ends, and then lets the answers
// under way finish.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadTimeout: readTimeout}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		stopped <- server.Shutdown(last)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}
