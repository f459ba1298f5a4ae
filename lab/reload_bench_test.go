//go:build linux

package lab_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/lab"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// bench is a control plane on which files are replaced. Each setting has a file
// of its own, so that each can be replaced without the others.
type bench struct {
	*controlPlane
	t         *testing.T
	network   *lab.Network
	node      *lab.Node
	workers   map[string]*lab.Node    // by instance, where it is not node
	roots     string                  // of workers
	processes map[string]*lab.Process // by instance: a component, or a second one of it

	cluster, etcd, proxy *authority // of the cluster that kubepki init made
}

// joining is the kubelet that has no client certificate.
const joining = "kubelet-joining"

// instances are restarted in this order.
var instances = []string{
	"etcd", "kube-apiserver", "kube-controller-manager", "controller-manager-paths", "kube-scheduler",
	"kubelet", "kubelet-embedded", joining,
}

func newBench(t *testing.T) *bench {
	dir := initCluster(t, 1, "--key-algorithm=ECDSA-P256")
	b := &bench{t: t, workers: map[string]*lab.Node{}, processes: map[string]*lab.Process{}, controlPlane: &controlPlane{dir: dir, shape: "separate"}}
	b.cluster, b.etcd, b.proxy = loadAuthority(t, b.pki("ca")), loadAuthority(t, b.pki("etcd/ca")), loadAuthority(t, b.pki("front-proxy-ca"))
	b.roots = t.TempDir() // before the network: it is removed after all is unmounted
	b.network = newNetwork(t)
	b.node = addNode(t, b.network, "cp1", b.path("cp1", ""), "10.99.0.11/24")
	b.nodes = []*lab.Node{b.node}
	b.admin = b.conf(t, "super-admin")
	return b
}

// onNode is the path, on the node, of the file of an instance's setting.
func onNode(instance, setting string) string { return filepath.Join("/reload", instance, setting) }

// file is the same path as the test sees it.
func (b *bench) file(instance, setting string) string {
	return filepath.Join(b.at(instance).Root, onNode(instance, setting))
}

// at is the node of an instance.
func (b *bench) at(instance string) *lab.Node {
	if node, ok := b.workers[instance]; ok {
		return node
	}
	return b.node
}

// put fills the file of an instance's setting and returns its path on the node.
func (b *bench) put(instance, setting string, content []byte) string {
	b.t.Helper()
	path := b.file(instance, setting)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	write(b.t, path, string(content))
	return onNode(instance, setting)
}

// give is put for a flag; it returns the argument.
func (b *bench) give(instance, flag string, content []byte) string {
	b.t.Helper()
	return "--" + flag + "=" + b.put(instance, flag, content)
}

// givePair is give for a certificate and its key.
func (b *bench) givePair(instance, certificate, key string, c credential) []string {
	b.t.Helper()
	return []string{b.give(instance, certificate, c.certificate), b.give(instance, key, c.key)}
}

// start starts a component as an instance, with more flags.
func (b *bench) start(instance, component string, more ...string) {
	b.t.Helper()
	manifest, err := lab.ReadManifest(b.node.Root, component)
	if err != nil {
		b.t.Fatal(err)
	}
	if manifest.Name != instance { // a second one, at another port: ready as long as it runs
		manifest.Name, manifest.Probe = instance, nil
	}
	manifest.Command = append(slices.Clone(manifest.Command), more...)
	b.run(manifest)
}

// run starts an instance and waits until it is ready.
func (b *bench) run(manifest *lab.Manifest) {
	b.t.Helper()
	p, err := b.at(manifest.Name).Run(manifest)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.t.Logf("%s:\n%s", manifest.Name, p.Log())
		}
	})
	b.processes[manifest.Name] = p
	ready(b.t, p)
}

// restart ends an instance and starts it again as it was.
func (b *bench) restart(instance string) {
	b.t.Helper()
	p := b.processes[instance]
	if err := p.Stop(); err != nil {
		b.t.Fatal(err)
	}
	b.run(p.Manifest)
}

// kubeconfig makes a kubeconfig for a server from a cluster and a user.
func (b *bench) kubeconfig(cluster clientcmdapi.Cluster, user clientcmdapi.AuthInfo) []byte {
	b.t.Helper()
	data, err := clientcmd.Write(clientcmdapi.Config{
		CurrentContext: "c",
		Clusters:       map[string]*clientcmdapi.Cluster{"c": &cluster},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": &user},
		Contexts:       map[string]*clientcmdapi.Context{"c": {Cluster: "c", AuthInfo: "u"}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

// apiFront is a front of the API server.
func (b *bench) apiFront(usual, other credential) *front {
	b.t.Helper()
	api, err := url.Parse(b.admin.Host)
	if err != nil {
		b.t.Fatal(err)
	}
	roots := b.cluster.pool()
	transport := func(config *tls.Config) http.RoundTripper {
		config.RootCAs = roots
		return &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	}
	// A certificate of its own: the one that is replaced must not matter here.
	proxy := b.proxy.leaf(b.t, pkix.Name{CommonName: "front-proxy-client"})
	return newFront(b.t, usual, other, tls.RequestClientCert).forward(b.t, api,
		transport(proxy.always(b.t, &tls.Config{})), transport(&tls.Config{}))
}

// pool trusts the authority.
func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate)
	return pool
}

// dial makes a connection from the node and a handshake that judges nothing.
func (b *bench) dial(ctx context.Context, address, serverName string, show *credential) (*tls.Conn, error) {
	raw, err := b.node.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{InsecureSkipVerify: true, ServerName: serverName} //nolint:gosec // what is shown is looked at
	if show != nil {
		show.always(b.t, config)
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

// presents tells whether a server presents the credential at a new handshake.
func (b *bench) presents(ctx context.Context, address, serverName string, show *credential, c credential) (bool, error) {
	conn, err := b.dial(ctx, address, serverName, show)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	return serialOf(conn.ConnectionState()) == c.serial(), nil
}

// alive asks for a page on a connection.
func alive(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET /version HTTP/1.1\r\nHost: reload\r\n\r\n"); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<20))
	return err
}

// caller calls one page again and again, on one connection as long as it lasts.
type caller struct {
	client *http.Client
	url    string
	header http.Header
	reused bool // the last call was on the connection of one before
}

// caller makes a caller from the node with a credential.
func (b *bench) caller(show credential, url string, header http.Header) *caller {
	client, transport := b.node.Client()
	transport.TLSClientConfig = show.always(b.t, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the client half is looked at
	// Over HTTP/2 the API servers end the connection of whoever they do not
	// know, so that no connection could be called again.
	transport.ForceAttemptHTTP2 = false
	client.Timeout = 10 * time.Second
	return &caller{client: client, url: url, header: header}
}

// accepted tells whether the server takes the caller for who it is: 200 and not
// 401 or 403.
func (c *caller) accepted(ctx context.Context) (bool, error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { c.reused = i.Reused }})
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return false, err
	}
	request.Header = c.header.Clone()
	answer, err := c.client.Do(request)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<20)); err != nil {
		return false, err
	}
	switch answer.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusUnauthorized, http.StatusForbidden:
		return false, nil
	}
	return false, fmt.Errorf("%s answers %s", c.url, answer.Status)
}

// onTheSameConnection tells that the last call was made on a connection that
// was there before.
func (c *caller) onTheSameConnection(context.Context) error {
	if !c.reused {
		return fmt.Errorf("%s: the connection is another", c.url)
	}
	return nil
}

// version is what a program of the build folder says that it is.
func version(t *testing.T, program string) string {
	t.Helper()
	line, _, _ := strings.Cut(run(t, program, "--version").stdout, "\n")
	fields := strings.Fields(line)
	return fields[len(fields)-1]
}
