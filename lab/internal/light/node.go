package light

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/kubepki/kubepki/lab/internal/kubelet"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/certificate"
	"k8s.io/client-go/util/connrotation"
	"k8s.io/component-helpers/apimachinery/lease"
	"k8s.io/utils/clock"
)

const (
	// As the kubelet's defaults (k/k pkg/kubelet/apis/config/v1beta1/defaults.go
	// and pkg/kubelet/kubelet.go): a lease for 40 s is renewed after a quarter of
	// it, and the status written every five minutes.
	leaseSeconds = 40
	renewEvery   = leaseSeconds * time.Second / 4
	statusEvery  = 5 * time.Minute
	retryEvery   = 2 * time.Second
	callWait     = 10 * time.Second
)

// node is a light node that runs.
type node struct {
	Node
	fleet *fleet
	root  string
	log   *slog.Logger

	client, server   *store
	clients, servers certificate.Manager
	calls            *rest.Config // as the node
	authority        []byte
}

// newNode writes what a node begins with.
func (f *fleet) newNode(n Node) (*node, error) {
	root := filepath.Join(f.Dir, n.Name)
	if _, err := kubelet.Prepare(root, kubelet.Config{Name: n.Name, Addresses: addresses(n), Join: &f.Join}); err != nil {
		return nil, err
	}
	dir := filepath.Join(root, kubelet.CertificatesDir)
	node := &node{Node: n, fleet: f, root: root, log: f.Log.With("node", n.Name)}
	var err error
	if node.client, err = newStore("kubelet-client", dir); err != nil {
		return nil, err
	}
	if node.server, err = newStore("kubelet-server", dir); err != nil {
		return nil, err
	}
	if node.authority, err = os.ReadFile(filepath.Join(root, kubelet.AuthorityFile)); err != nil {
		return nil, err
	}
	node.call()
	return node, node.manage()
}

// call prepares calls of the API server as the node. When there is a newer
// certificate the connections with the old one are closed, as the kubelet does
// (k/k pkg/kubelet/certificate/transport.go).
func (n *node) call() {
	dialer := connrotation.NewDialer(connrotation.DialFunc(n.fleet.Dial))
	n.client.changed = dialer.CloseAll
	n.calls = n.fleet.config(n.fleet.transport(dialer.DialContext, n.authority, n.client.current))
}

// manage makes the managers of both certificates, as the kubelet's
// (k/k pkg/kubelet/certificate/kubelet.go).
func (n *node) manage() error {
	subject := pkix.Name{Organization: []string{"system:nodes"}, CommonName: "system:node:" + n.Name}
	var err error
	n.clients, err = certificate.NewManager(&certificate.Config{
		Name:             n.Name + " client",
		Template:         &x509.CertificateRequest{Subject: subject},
		SignerName:       certificatesv1.KubeAPIServerClientKubeletSignerName,
		GetUsages:        certificate.DefaultKubeletClientGetUsages,
		CertificateStore: n.client,
		ClientsetFn: func(current *tls.Certificate) (kubernetes.Interface, error) {
			if current == nil {
				return n.fleet.bootstrap, nil
			}
			return kubernetes.NewForConfig(n.calls)
		},
	})
	if err != nil {
		return err
	}
	n.servers, err = certificate.NewManager(&certificate.Config{
		Name:             n.Name + " server",
		Template:         &x509.CertificateRequest{Subject: subject, DNSNames: []string{n.Name}, IPAddresses: []net.IP{n.Address.AsSlice()}},
		SignerName:       certificatesv1.KubeletServingSignerName,
		GetUsages:        certificate.DefaultKubeletServingGetUsages,
		CertificateStore: n.server,
		ClientsetFn:      func(*tls.Certificate) (kubernetes.Interface, error) { return kubernetes.NewForConfig(n.calls) },
	})
	return err
}

// run runs the node until ctx ends.
func (n *node) run(ctx context.Context) {
	defer n.clients.Stop()
	defer n.servers.Stop()
	if !n.join(ctx) {
		return
	}
	n.servers.Start()
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { n.listen(ctx) })
	config := rest.CopyConfig(n.calls)
	config.Timeout = callWait
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		n.log.Error("no client", "error", err)
		return
	}
	var uid types.UID
	n.retry(ctx, "register", func(ctx context.Context) (err error) {
		uid, err = n.register(ctx, client)
		return err
	})
	running.Go(func() { n.renewLease(ctx, client, uid) })
	wait.JitterUntilWithContext(ctx, func(ctx context.Context) {
		n.retry(ctx, "report", func(ctx context.Context) error { return n.report(ctx, client) })
	}, statusEvery, 0.1, true)
}

// join gets the first client certificate. It tells whether it did before the end.
func (n *node) join(ctx context.Context) bool {
	select {
	case n.fleet.joining <- struct{}{}:
		defer func() { <-n.fleet.joining }()
	case <-ctx.Done():
		return false
	}
	n.clients.Start()
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(context.Context) (bool, error) {
		_, err := n.client.current()
		return err == nil, nil
	})
	if err != nil {
		return false
	}
	n.retry(ctx, "finish joining", func(context.Context) error {
		if err := kubelet.WriteKubeconfig(n.root, n.fleet.Join.Server, n.authority); err != nil {
			return err
		}
		_, err := kubelet.Finish(n.root)
		return err
	})
	return true
}

// retry does something until it succeeds or ctx ends.
func (n *node) retry(ctx context.Context, what string, do func(context.Context) error) {
	_ = wait.PollUntilContextCancel(ctx, retryEvery, true, func(ctx context.Context) (bool, error) {
		err := do(ctx)
		if err != nil && ctx.Err() == nil {
			n.log.Warn("a light node could not "+what+"; it will try again", "error", err)
		}
		return err == nil, nil
	})
}

func (n *node) renewLease(ctx context.Context, client kubernetes.Interface, uid types.UID) {
	owner := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: uid}}
	lease.NewController(clock.RealClock{}, client, n.Name, leaseSeconds, nil, renewEvery, n.Name, corev1.NamespaceNodeLease,
		func(l *coordinationv1.Lease) error {
			l.OwnerReferences = owner
			return nil
		}).Run(ctx)
}

// listen serves the node's port with its newest serving certificate.
func (n *node) listen(ctx context.Context) {
	if n.fleet.Listen == nil {
		return
	}
	n.retry(ctx, "listen", func(context.Context) error {
		listener, err := n.fleet.Listen("tcp", net.JoinHostPort(n.Address.String(), strconv.Itoa(Port)))
		if err != nil {
			return err
		}
		_ = n.fleet.server.Serve(tls.NewListener(listener, &tls.Config{GetConfigForClient: n.serving}))
		return nil // it ends with the program
	})
}

// serving reads the authority of clients anew for each, as a kubelet does when
// the file has changed.
func (n *node) serving(*tls.ClientHelloInfo) (*tls.Config, error) {
	certificate, err := n.server.current()
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(n.root, kubelet.AuthorityFile))
	if err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(data)
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*certificate},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients, NextProtos: []string{"http/1.1"},
	}, nil
}
