package testpki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// Running is a cluster whose servers run on loopback, as far as TLS and who is
// let in go: etcd's two ports, the apiservers and the kubelets. Each reads its
// files when it starts, and never again.
type Running struct {
	c *Cluster

	mu        sync.Mutex
	listeners map[string]string // address of the cluster → on loopback
	servings  map[string]Serving
	names     map[string]string // host name → address
	objects   map[string]any    // what the apiservers answer, by path
	// Identify is who an apiserver takes a caller for; nil: whom its
	// certificate says.
	identify func(*x509.Certificate) (user string, groups []string)
}

// Run starts the servers of all nodes of the cluster.
func (c *Cluster) Run() *Running {
	c.t.Helper()
	r := &Running{c: c, listeners: map[string]string{}, servings: map[string]Serving{}, names: map[string]string{"api.example.test": "10.0.0.11"}, objects: map[string]any{}}
	entries, err := os.ReadDir(c.Dir)
	c.check(err)
	last := map[string]string{"cp1": "11", "cp2": "12", "cp3": "13", "w1": "21", "etcd1": "31"}
	for _, e := range entries {
		node := e.Name()
		if last[node] == "" {
			continue
		}
		address := "10.0.0." + last[node]
		if c.has(node, "pki/etcd/server.key") {
			r.Start(address+":2379", r.Etcd(node, "server"))
			r.Start(address+":2380", r.Etcd(node, "peer"))
		}
		if c.has(node, "pki/apiserver.key") {
			r.Start(address+":6443", r.APIServer(node))
			r.publish(node)
		}
		if c.has(node, "kubelet.conf") {
			r.node(node, address)
			r.Start(address+":10250", r.Kubelet(node))
		}
	}
	return r
}

func (c *Cluster) has(node, name string) bool {
	_, err := os.Stat(c.Path(node, name))
	return err == nil
}

// Serving is what one server does.
type Serving struct {
	Config  *tls.Config
	Handler http.Handler
	// Raw takes a connection instead of TLS; nil: TLS.
	Raw func(net.Conn)
}

// Etcd is the etcd member of a node, on its port for clients ("server") or
// peers ("peer").
func (r *Running) Etcd(node, pair string) Serving {
	config := r.config(node, "pki/etcd/"+pair)
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, r.pool(node, "pki/etcd/ca.crt")
	return Serving{Config: config, Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		answer(w, q, "/version", map[string]string{"etcdserver": "3.7.3"})
	})}
}

// APIServer is the apiserver of a node: it asks for certificates, and answers
// 401 to whom its --client-ca-file does not admit.
func (r *Running) APIServer(node string) Serving {
	clientCA := "pki/ca.crt"
	if r.c.has(node, "pki/client-ca.crt") {
		clientCA = "pki/client-ca.crt"
	}
	config, clients := r.config(node, "pki/apiserver"), r.pool(node, clientCA)
	config.ClientAuth, config.ClientCAs = tls.RequestClientCert, r.pool(node, clientCA, "pki/front-proxy-ca.crt")
	return Serving{Config: config, Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		leaf := admitted(q, clients)
		if leaf == nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if q.Method == http.MethodPost {
			user, groups := leaf.Subject.CommonName, append(leaf.Subject.Organization, "system:authenticated")
			if r.identify != nil {
				user, groups = r.identify(leaf)
			}
			answer(w, q, "/apis/authentication.k8s.io/v1/selfsubjectreviews",
				map[string]any{"status": map[string]any{"userInfo": map[string]any{"username": user, "groups": groups}}})
			return
		}
		object, ok := r.objects[q.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		answer(w, q, q.URL.Path, object)
	})}
}

// Kubelet is the kubelet of a node, which serves what it made itself where
// there is no authority of kubelets.
func (r *Running) Kubelet(node string) Serving {
	var config *tls.Config
	if r.c.has(node, "/var/lib/kubelet/pki/kubelet.key") {
		config = r.config(node, "/var/lib/kubelet/pki/kubelet")
	} else {
		key, err := issue.GenerateKey(issue.ECDSAP256)
		r.c.check(err)
		cert, err := issue.SelfSign(issue.Template{DNSNames: []string{node}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: Made, NotAfter: Made.AddDate(1, 0, 0)}, key)
		r.c.check(err)
		config = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
	}
	clients := r.pool(node, "pki/ca.crt")
	config.ClientAuth, config.ClientCAs = tls.RequestClientCert, clients
	return Serving{Config: config, Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if admitted(q, clients) == nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		answer(w, q, "/healthz", "ok")
	})}
}

func admitted(q *http.Request, clients *x509.CertPool) *x509.Certificate {
	if len(q.TLS.PeerCertificates) == 0 {
		return nil
	}
	o := x509.VerifyOptions{Roots: clients, Intermediates: x509.NewCertPool(), CurrentTime: At, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range q.TLS.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := q.TLS.PeerCertificates[0].Verify(o); err != nil {
		return nil
	}
	return q.TLS.PeerCertificates[0]
}

func answer(w http.ResponseWriter, q *http.Request, path string, object any) {
	if q.URL.Path != path {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(object) // the caller may be gone
}

func (r *Running) config(node, stem string) *tls.Config {
	r.c.t.Helper()
	pair, err := tls.LoadX509KeyPair(r.c.Path(node, stem+".crt"), r.c.Path(node, stem+".key"))
	r.c.check(err)
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

func (r *Running) pool(node string, names ...string) *x509.CertPool {
	r.c.t.Helper()
	pool := x509.NewCertPool()
	for _, name := range names {
		certs, err := trust.ParseCertificates(r.c.Read(node, name))
		r.c.check(err)
		for _, x := range certs {
			pool.AddCert(x)
		}
	}
	return pool
}

// Start lets a server answer at an address of the cluster, in the place of what
// answered there before.
func (r *Running) Start(address string, s Serving) {
	r.c.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.c.check(err)
	r.c.t.Cleanup(func() { l.Close() })
	r.mu.Lock()
	r.listeners[address], r.servings[address] = l.Addr().String(), s
	r.mu.Unlock()
	if s.Raw != nil {
		go acceptRaw(l, s.Raw)
		return
	}
	config := s.Config.Clone()
	if config.Time == nil {
		config.Time = func() time.Time { return At }
	}
	config.NextProtos = []string{"h2", "http/1.1"}
	server := &http.Server{Handler: s.Handler, TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0)}
	r.c.t.Cleanup(func() { server.Close() })
	go server.ServeTLS(l, "", "") //nolint:errcheck // it ends with the test
}

func acceptRaw(l net.Listener, do func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go do(conn)
	}
}

// Stop lets nobody answer at an address.
func (r *Running) Stop(address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.listeners, address)
}

// Dial opens a connection to an address of the cluster, for probe.Options.
func (r *Running) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	known, named := r.names[host]
	if known != "" {
		host = known
	}
	at := r.listeners[net.JoinHostPort(host, port)]
	r.mu.Unlock()
	if named && known == "" {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	if at == "" {
		at = "127.0.0.1:1" // where nobody listens
	}
	return new(net.Dialer).DialContext(ctx, network, at)
}

// Name lets a host name lead to an address; empty: nowhere.
func (r *Running) Name(name, address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names[name] = address
}

// Serving is what was started at an address.
func (r *Running) Serving(address string) Serving {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.servings[address]
}

// Identify lets the apiservers take callers for somebody else.
func (r *Running) Identify(who func(*x509.Certificate) (string, []string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.identify = who
}

// Publish sets what the apiservers answer to a path.
func (r *Running) Publish(path string, object any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.objects[path] = object
}

// publish sets what a cluster publishes of its files.
func (r *Running) publish(node string) {
	root := "pki/ca.crt"
	if r.c.has(node, "pki/root-ca.crt") {
		root = "pki/root-ca.crt"
	}
	clientCA := "pki/ca.crt"
	if r.c.has(node, "pki/client-ca.crt") {
		clientCA = "pki/client-ca.crt"
	}
	r.Publish("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", map[string]any{"data": map[string]string{
		"client-ca-file": string(r.c.Read(node, clientCA)), "requestheader-client-ca-file": string(r.c.Read(node, "pki/front-proxy-ca.crt")),
	}})
	r.Publish("/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt", map[string]any{"data": map[string]string{"ca.crt": string(r.c.Read(node, root))}})
	r.PublishAPIService(true, "Passed", "")
}

// PublishKeys sets the ids of the keys that the apiservers verify tokens with.
func (r *Running) PublishKeys(ids ...string) {
	keys := []map[string]string{}
	for _, id := range ids {
		keys = append(keys, map[string]string{"kid": id})
	}
	r.Publish("/openid/v1/jwks", map[string]any{"keys": keys})
}

// PublishAPIService sets the state of the one extension apiserver.
func (r *Running) PublishAPIService(available bool, reason, message string) {
	status := map[bool]string{true: "True", false: "False"}[available]
	r.Publish("/apis/apiregistration.k8s.io/v1/apiservices", map[string]any{"items": []any{
		map[string]any{"metadata": map[string]any{"name": "v1."}, "spec": map[string]any{}},
		map[string]any{"metadata": map[string]any{"name": "v1beta1.metrics.k8s.io"},
			"spec":   map[string]any{"service": map[string]any{"namespace": "kube-system", "name": "metrics-server"}},
			"status": map[string]any{"conditions": []any{map[string]any{"type": "Available", "status": status, "reason": reason, "message": message}}}},
	}})
}

func (r *Running) node(name, address string) {
	r.Publish("/api/v1/nodes/"+name, map[string]any{"status": map[string]any{
		"addresses":       []any{map[string]string{"type": "Hostname", "address": name}, map[string]string{"type": "InternalIP", "address": address}},
		"daemonEndpoints": map[string]any{"kubeletEndpoint": map[string]int{"Port": 10250}},
	}})
}
