package light

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/kubepki/kubepki/lab/internal/kubelet"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Port is the kubelet's.
const Port = 10250

// atOnce bounds how many nodes ask for their first certificate at a time, so that
// the API server need not refuse any.
const atOnce = 100

// Node is a light node.
type Node struct {
	Name    string
	Address netip.Addr
}

// Options tell [Run] what to run.
type Options struct {
	// Dir is the folder, as an absolute path, in which each node has its root
	// folder, DIR/NAME. What is there already is used.
	Dir   string
	Nodes []Node
	// Join tells how to join the cluster. Nodes that have joined show no token.
	Join kubelet.Join
	// Dial connects to the API server; nil: from where the program stands.
	Dial dialFunc
	// Listen makes a node's listener, at its own address; nil: they serve nothing.
	Listen func(network, address string) (net.Listener, error)
	Log    *slog.Logger
}

// fleet is what the nodes share.
type fleet struct {
	Options
	bootstrap kubernetes.Interface // shows the token
	joining   chan struct{}
	server    *http.Server
}

// Run runs nodes until ctx ends. A node that fails tries again; the error tells
// what could not even be begun.
func Run(ctx context.Context, o Options) error {
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	f := &fleet{Options: o, joining: make(chan struct{}, atOnce)}
	var err error
	if f.bootstrap, err = f.bootstrapClient(); err != nil {
		return fmt.Errorf("light nodes: %w", err)
	}
	f.server = &http.Server{Handler: http.HandlerFunc(serve), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug)}
	var nodes []*node
	for _, n := range o.Nodes {
		node, err := f.newNode(n)
		if err != nil {
			return fmt.Errorf("light node %q: %w", n.Name, err)
		}
		nodes = append(nodes, node)
	}
	var running sync.WaitGroup
	for _, node := range nodes {
		running.Go(func() { node.run(ctx) })
	}
	<-ctx.Done()
	err = f.server.Close()
	running.Wait()
	return err
}

// bootstrapClient is the one client of all nodes that have no certificate.
func (f *fleet) bootstrapClient() (kubernetes.Interface, error) {
	config := f.config(f.transport(f.Dial, f.Join.Authority, nil))
	config.BearerToken = f.Join.Token
	return kubernetes.NewForConfig(config)
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// transport is one to the API server, with an authority as PEM, and, unless it is
// nil, a client's certificate.
func (f *fleet) transport(dial dialFunc, authority []byte, current func() (*tls.Certificate, error)) *http.Transport {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	if current != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return current() }
	}
	// With HTTP/2, and its check whether the other end is still there.
	// Compression would cost each node more memory than all else.
	return utilnet.SetTransportDefaults(&http.Transport{TLSClientConfig: config, DialContext: dial, DisableCompression: true})
}

// config is how a node calls the API server: without limits of its own.
func (f *fleet) config(transport http.RoundTripper) *rest.Config {
	const protobuf = "application/vnd.kubernetes.protobuf"
	return &rest.Config{
		Host: f.Join.Server, QPS: -1, UserAgent: "kubepki-lab light node", Transport: transport,
		ContentConfig: rest.ContentConfig{ContentType: protobuf, AcceptContentTypes: protobuf + ",application/json"},
	}
}

// serve answers what the API server may ask of a light node.
func serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case len(r.TLS.VerifiedChains) == 0:
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	case r.URL.Path == "/healthz":
		_, _ = w.Write([]byte("ok"))
	default:
		http.Error(w, "this is a light node: it runs no pods", http.StatusNotFound)
	}
}

var errNoCertificate = errors.New("no certificate yet")
