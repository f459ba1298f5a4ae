//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
)

// errorWanted is an error that a component or client says, and what kubepki
// explain has to make of it.
type errorWanted struct {
	by   string // whose log: a name in real.logs, or "client"
	text string // what the line holds
	// component is given where the line cannot tell.
	component string
	class     string
	half      string
	link      int
	finding   string // "ID PATH"; empty: the files are good
}

// realErrors is a cluster of one control plane whose files are broken one after
// the other, and mended again.
type realErrors struct {
	*controlPlane
	t         *testing.T
	other     string // another cluster of the same shape
	healthy   map[string][]byte
	logs      map[string]*lab.Process
	from      map[string]int64 // where each log was when the case began
	clientErr string
}

var explainCases = []struct {
	name string
	do   func(*realErrors)
	want []errorWanted
}{
	{"a client certificate that has expired", func(r *realErrors) {
		r.show("scheduler.conf", r.signed("ca", "scheduler.conf", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = ago(48), ago(24) }))
		r.call("scheduler.conf")
	}, []errorWanted{
		{"kube-apiserver", "has expired", "", "expired", "client", 6, "cert-expired /etc/kubernetes/scheduler.conf"},
		{"client", "", "kube-scheduler", "token-refused", "client", 6, "cert-expired /etc/kubernetes/scheduler.conf"},
	}},
	{"a client certificate of another cluster", func(r *realErrors) {
		r.write("scheduler.conf", read(r.t, filepath.Join(r.other, "cp1/etc/kubernetes/scheduler.conf")))
		r.edit("scheduler.conf", "certificate-authority-data: ", base64.StdEncoding.EncodeToString(read(r.t, r.pki("ca.crt"))))
		r.call("scheduler.conf")
	}, []errorWanted{
		{"kube-apiserver", "signed by unknown authority", "", "other-authority", "client", 6, "authority-recreated /etc/kubernetes/scheduler.conf"},
	}},
	{"a client certificate for servers", func(r *realErrors) {
		r.show("scheduler.conf", r.signed("ca", "scheduler.conf", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }))
		r.call("scheduler.conf")
	}, []errorWanted{
		{"kube-apiserver", "incompatible key usage", "", "wrong-usage", "client", 6, "usage-missing /etc/kubernetes/scheduler.conf"},
	}},
	{"a kubeconfig that trusts an older authority", func(r *realErrors) {
		r.edit("controller-manager.conf", "certificate-authority-data: ", base64.StdEncoding.EncodeToString(read(r.t, filepath.Join(r.other, "cp1/etc/kubernetes/pki/ca.crt"))))
		r.call("controller-manager.conf")
	}, []errorWanted{
		{"client", "unknown authority", "kube-controller-manager", "other-authority", "server", 5, "bundle-stale /etc/kubernetes/controller-manager.conf"},
		{"kube-apiserver", "remote error: tls: bad certificate", "kube-apiserver", "refused-certificate", "server", 5, "bundle-stale /etc/kubernetes/controller-manager.conf"},
	}},
	{"a component that is somebody else", func(r *realErrors) {
		r.show("kubelet.conf", r.signed("ca", "kubelet.conf", func(c *x509.Certificate) { c.Subject.CommonName, c.Subject.Organization = "nobody", nil }))
		r.call("kubelet.conf")
	}, []errorWanted{
		{"client", "forbidden", "kubelet", "forbidden", "client", 8, "identity-wrong /etc/kubernetes/kubelet.conf"},
	}},
	{"plain HTTP to the API server", func(r *realErrors) {
		answer, err := http.Get("http://10.99.0.11:6443/livez") //nolint:noctx // it answers at once
		if err == nil {
			answer.Body.Close()
		}
	}, []errorWanted{
		{"kube-apiserver", "HTTP request to an HTTPS server", "", "plain-client", "", 9, ""},
	}},
	{"a kubeconfig that dials a port without TLS", func(r *realErrors) {
		plain := httptest.NewUnstartedServer(http.NotFoundHandler())
		plain.Listener.Close()
		var err error
		if plain.Listener, err = net.Listen("tcp", "10.99.0.254:0"); err != nil {
			r.t.Fatal(err)
		}
		plain.Start()
		defer plain.Close()
		r.edit("scheduler.conf", "server: ", "https://"+plain.Listener.Addr().String())
		r.call("scheduler.conf")
	}, []errorWanted{
		{"client", "", "kube-scheduler", "not-tls", "", 6, "endpoint-mismatch /etc/kubernetes/scheduler.conf"},
	}},
	{"a token of a key that nobody knows", func(r *realErrors) {
		r.write("pki/sa.key", read(r.t, filepath.Join(r.other, "cp1/etc/kubernetes/pki/sa.key")))
		r.bear(time.Hour)
	}, []errorWanted{
		{"kube-apiserver", "invalid bearer token", "", "token-signature", "client", 12, "sa-key-mismatch /etc/kubernetes/pki/sa.pub"},
		{"client", "", "pod", "token-refused", "client", 17, ""},
	}},
	{"a token that has expired", func(r *realErrors) { r.bear(-time.Hour) }, []errorWanted{
		{"kube-apiserver", "service account token has expired", "", "token-expired", "client", 17, ""},
	}},
	{"a front proxy whose name is not allowed", func(r *realErrors) {
		r.leaf("front-proxy-client", "front-proxy-ca", func(c *x509.Certificate) { c.Subject.CommonName = "other" })
		r.get("https://10.99.0.11:6443/api", r.pki("front-proxy-client"), "")
	}, []errorWanted{
		{"kube-apiserver", "not in the allowed list", "", "proxy-name", "client", 13, "requestheader-name-mismatch /etc/kubernetes/pki/front-proxy-client.crt"},
	}},
	{"an API server whose client certificate etcd does not know", func(r *realErrors) {
		r.leaf("apiserver-etcd-client", "ca", nil)
		r.second()
	}, []errorWanted{
		{"etcd", "rejected connection", "", "unknown-authority", "client", 3, "authority-unknown /etc/kubernetes/pki/apiserver-etcd-client.crt"},
		{"second", "remote error: tls", "", "refused-authority", "client", 3, "authority-unknown /etc/kubernetes/pki/apiserver-etcd-client.crt"},
	}},
	{"an API server that does not know etcd's authority", func(r *realErrors) {
		r.write("manifests/kube-apiserver.yaml", []byte(strings.Replace(string(r.healthy["manifests/kube-apiserver.yaml"]), "--etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt", "--etcd-cafile=/etc/kubernetes/pki/ca.crt", 1)))
		r.second()
	}, []errorWanted{
		{"second", "unknown authority", "", "unknown-authority", "server", 3, "authority-unknown /etc/kubernetes/manifests/kube-apiserver.yaml"},
		{"etcd", "bad certificate", "", "refused-certificate", "server", 3, "authority-unknown /etc/kubernetes/manifests/kube-apiserver.yaml"},
	}},
	{"an API server that does not start for its key", func(r *realErrors) {
		r.write("pki/apiserver.key", read(r.t, r.pki("front-proxy-client.key")))
		r.second()
	}, []errorWanted{
		{"second", "private key does not match", "", "key-mismatch", "", 4, "key-mismatch /etc/kubernetes/pki/apiserver.key"},
	}},
	{"a serving certificate without the address", func(r *realErrors) {
		r.serve(func(c *x509.Certificate) { c.IPAddresses = c.IPAddresses[:0:0] })
		r.eventually("admin.conf", "IP SANs")
	}, []errorWanted{
		{"client", "IP SANs", "kubectl", "name-mismatch", "server", 9, "san-missing /etc/kubernetes/pki/apiserver.crt"},
	}},
	{"a serving certificate that has expired", func(r *realErrors) {
		r.serve(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = ago(48), ago(24) })
		r.eventually("admin.conf", "has expired")
	}, []errorWanted{
		{"client", "has expired", "", "expired", "server", 9, "cert-expired /etc/kubernetes/pki/apiserver.crt"},
		{"kube-apiserver", "remote error: tls: bad certificate", "kube-apiserver", "refused-certificate", "server", 9, "cert-expired /etc/kubernetes/pki/apiserver.crt"},
	}},
	{"an API server that is gone", func(r *realErrors) {
		if err := r.apiserver.Kill(); err != nil {
			r.t.Fatal(err)
		}
		r.call("admin.conf")
	}, []errorWanted{
		{"client", "was refused", "", "unreachable", "", 9, ""},
	}},
}

// The true words of the true components, and of kubectl, for credentials that are
// broken one by one: explain names the link, the side and the file.
func TestExplainNamesTheLinkOfRealErrors(t *testing.T) {
	const algorithm = "--key-algorithm=ECDSA-P256"
	r := &realErrors{controlPlane: &controlPlane{dir: initCluster(t, 1, algorithm), shape: "separate"}, other: initCluster(t, 1, algorithm), healthy: map[string][]byte{}}
	node := addNode(t, newNetwork(t), "cp1", filepath.Join(r.dir, "cp1"), "10.99.0.11/24")
	r.nodes = []*lab.Node{node}
	etcd := start(t, node, "etcd", "--unsafe-no-fsync")
	r.apiserver = start(t, node, "kube-apiserver", "--v=5") // or it says nothing of handshakes
	ready(t, etcd, r.apiserver)
	r.logs = map[string]*lab.Process{"etcd": etcd, "kube-apiserver": r.apiserver}
	r.remember()
	for _, c := range explainCases {
		t.Run(c.name, func(t *testing.T) {
			r.t, r.clientErr, r.from = t, "", map[string]int64{}
			for name, p := range r.logs {
				r.from[name] = size(t, p.LogFile())
			}
			c.do(r)
			for _, w := range c.want {
				r.explained(w)
			}
			r.mend()
		})
	}
}

// A member of etcd whose certificate lacks the address that it comes from.
func TestExplainNamesThePeerOfRealErrors(t *testing.T) {
	r := &realErrors{controlPlane: &controlPlane{dir: initCluster(t, 2, "--key-algorithm=ECDSA-P256")}, t: t, healthy: map[string][]byte{}, logs: map[string]*lab.Process{}, from: map[string]int64{}}
	pki := r.path("cp2", "etc/kubernetes/pki")
	r.reissue(filepath.Join(pki, "etcd/peer"), filepath.Join(pki, "etcd/ca"), func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"cp2"} })
	network := newNetwork(t)
	for _, name := range []string{"cp1", "cp2"} {
		r.logs[name] = start(t, addNode(t, network, name, filepath.Join(r.dir, name), "10.99.0.1"+name[2:]+"/24"), "etcd", "--unsafe-no-fsync")
	}
	r.explained(errorWanted{"cp1", "DNSNames", "", "peer-address", "client", 1, "san-missing /etc/kubernetes/pki/etcd/peer.crt"})
	r.explained(errorWanted{"cp1", "IP SANs", "", "name-mismatch", "server", 1, "san-missing /etc/kubernetes/pki/etcd/peer.crt"})
}

// A kubelet that lets in the clients of another authority.
func TestExplainNamesTheBundleOfARealKubelet(t *testing.T) {
	if err := kubelet.Possible(); err != nil {
		t.Skip(err)
	}
	const algorithm = "--key-algorithm=ECDSA-P256"
	r := &realErrors{controlPlane: &controlPlane{dir: initCluster(t, 1, algorithm), shape: "separate"}, t: t, other: initCluster(t, 1, algorithm), from: map[string]int64{}}
	if err := os.WriteFile(r.path("w1", "etc/kubernetes/pki/ca.crt"), read(t, filepath.Join(r.other, "cp1/etc/kubernetes/pki/ca.crt")), 0o600); err != nil {
		t.Fatal(err)
	}
	w := startWorker(t, newNetwork(t), r.path("w1", ""), kubelet.Config{Name: "w1", Addresses: labNodes["w1"]})
	r.logs = map[string]*lab.Process{"kubelet": w.kubelet}
	refuses := func(with string) {
		eventually(t, "the kubelet refuses", func(context.Context) error {
			r.get("https://10.99.0.21:10250/pods", r.pki("apiserver-kubelet-client"), "")
			if !strings.Contains(r.clientErr, with) {
				return errors.New(r.clientErr)
			}
			return nil
		})
	}
	// No API server answers its request for a serving certificate.
	refuses("internal error")
	r.explained(errorWanted{"kubelet", "no serving certificate available", "", "no-serving-certificate", "server", 11, ""})
	r.explained(errorWanted{"client", "", "kube-apiserver", "refused-internal", "server", 11, ""})
	if err := w.kubelet.Stop(); err != nil {
		t.Fatal(err)
	}
	config := r.path("w1", "var/lib/kubelet/config.yaml")
	if err := os.WriteFile(config, bytes.Replace(read(t, config), []byte("serverTLSBootstrap: true"), []byte("serverTLSBootstrap: false"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	w.startKubelet(t)
	refuses("401")
	r.explained(errorWanted{"kubelet", "Unable to authenticate", "", "other-authority", "client", 11, "bundle-stale /etc/kubernetes/pki/ca.crt"})
}

func ago(hours int) time.Time { return time.Now().Add(-time.Duration(hours) * time.Hour) }

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// explained takes the line from whoever said it, and asks kubepki about it.
func (r *realErrors) explained(w errorWanted) {
	r.t.Helper()
	line := r.line(w)
	args := []string{"explain", "--error", line, "-o", "json"}
	if w.component != "" {
		args = append(args, "--component", w.component)
	}
	out := run(r.t, "kubepki", append(args, r.dir)...)
	var answer struct {
		Items []struct {
			Class, Half string
			Links       []int
			Found       struct {
				Says     string
				Findings []struct{ ID, Path string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out.stdout), &answer); err != nil || len(answer.Items) != 1 {
		r.t.Fatalf("%v\n%s", err, out.stdout)
	}
	got := answer.Items[0]
	finding := ""
	if f := got.Found.Findings; len(f) > 0 {
		finding = f[0].ID + " " + f[0].Path
	}
	if got.Class != w.class || got.Half != w.half || !slices.Contains(got.Links, w.link) || finding != w.finding {
		r.t.Errorf("%s: %s\nis %s, the %s half of links %d, %q (%s)\nwant %s, the %s half of link %d, %q", w.by, line, got.Class, got.Half, got.Links, finding, got.Found.Says,
			w.class, w.half, w.link, w.finding)
	}
	r.t.Logf("%s: %.300s\n→ %s", w.by, line, got.Found.Says)
}

// line is the last line of a log, since the case began, that holds the text and
// is not of before.
func (r *realErrors) line(w errorWanted) string {
	r.t.Helper()
	if w.by == "client" {
		if !strings.Contains(r.clientErr, w.text) || r.clientErr == "" {
			r.t.Fatalf("the client says %q, not %q", r.clientErr, w.text)
		}
		return r.clientErr
	}
	found := ""
	eventually(r.t, w.by+" says "+w.text, func(context.Context) error {
		data := read(r.t, r.logs[w.by].LogFile())
		for line := range strings.Lines(string(data[r.from[w.by]:])) {
			if strings.Contains(line, w.text) {
				found = strings.TrimSpace(line)
				return nil
			}
		}
		return fmt.Errorf("it does not")
	})
	return found
}

// remember keeps the files of the healthy cluster, by their paths below
// /etc/kubernetes.
func (r *realErrors) remember() {
	root := r.path("cp1", "etc/kubernetes")
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			r.healthy[strings.TrimPrefix(path, root+"/")], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		panic(err)
	}
}

// mend writes back what a case has changed.
func (r *realErrors) mend() {
	for name, data := range r.healthy {
		if string(read(r.t, r.path("cp1", "etc/kubernetes/"+name))) != string(data) {
			r.write(name, data)
		}
	}
}

func (r *realErrors) write(name string, data []byte) {
	r.t.Helper()
	if err := os.WriteFile(r.path("cp1", "etc/kubernetes/"+name), data, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// edit replaces the value of a field of a kubeconfig.
func (r *realErrors) edit(conf, field, value string) {
	r.t.Helper()
	text := string(read(r.t, r.path("cp1", "etc/kubernetes/"+conf)))
	r.write(conf, []byte(regexp.MustCompile(regexp.QuoteMeta(field)+`\S+`).ReplaceAllString(text, field+value)))
}

// show puts a client certificate into a kubeconfig.
func (r *realErrors) show(conf string, certificate []byte) {
	r.t.Helper()
	r.edit(conf, "client-certificate-data: ", base64.StdEncoding.EncodeToString(certificate))
}

// signed signs the certificate of a kubeconfig anew.
func (r *realErrors) signed(authority, conf string, change func(*x509.Certificate)) []byte {
	r.t.Helper()
	_, data, _ := strings.Cut(string(read(r.t, r.path("cp1", "etc/kubernetes/"+conf))), "client-certificate-data: ")
	text, _, _ := strings.Cut(data, "\n")
	old, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.again(certificatesIn(old)[0], r.pki(authority), change)
}

// leaf signs a certificate of cp1 anew, with its key.
func (r *realErrors) leaf(name, authority string, change func(*x509.Certificate)) {
	r.t.Helper()
	r.reissue(r.pki(name), r.pki(authority), change)
}

func (r *realErrors) reissue(stem, authority string, change func(*x509.Certificate)) {
	r.t.Helper()
	if err := os.WriteFile(stem+".crt", r.again(certificatesIn(read(r.t, stem+".crt"))[0], authority, change), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// again signs a certificate anew, for the same key, after a change.
func (r *realErrors) again(old *x509.Certificate, authority string, change func(*x509.Certificate)) []byte {
	r.t.Helper()
	issuer := certificatesIn(read(r.t, authority+".crt"))[0]
	block, _ := pem.Decode(read(r.t, authority+".key"))
	key, err := privateKey(block.Bytes)
	if err != nil {
		r.t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: old.Subject, NotBefore: old.NotBefore, NotAfter: old.NotAfter, KeyUsage: old.KeyUsage,
		ExtKeyUsage: old.ExtKeyUsage, DNSNames: old.DNSNames, IPAddresses: old.IPAddresses, BasicConstraintsValid: true}
	if change != nil {
		change(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, issuer, old.PublicKey, key)
	if err != nil {
		r.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// serve gives kube-apiserver another serving certificate, which it takes up by
// itself.
func (r *realErrors) serve(change func(*x509.Certificate)) { r.leaf("apiserver", "ca", change) }

// call is kubectl with one of cp1's kubeconfigs.
func (r *realErrors) call(conf string) {
	r.t.Helper()
	out, err := try(r.t, "kubectl", "--kubeconfig="+r.path("cp1", "etc/kubernetes/"+conf), "get", "--raw", "/api/v1/nodes")
	r.clientErr = strings.TrimSpace(out.stderr)
	if err == nil {
		r.clientErr = ""
	}
}

// eventually calls until the client says a text.
func (r *realErrors) eventually(conf, text string) {
	r.t.Helper()
	eventually(r.t, "kubectl says "+text, func(context.Context) error {
		if r.call(conf); !strings.Contains(r.clientErr, text) {
			return fmt.Errorf("it says %q", r.clientErr)
		}
		return nil
	})
}

// get asks a server with a client certificate, or a token, and verifies nothing.
func (r *realErrors) get(url, credential, token string) {
	r.t.Helper()
	config := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the caller's half is what is tried
	if credential != "" {
		pair, err := tls.LoadX509KeyPair(credential+".crt", credential+".key")
		if err != nil {
			r.t.Fatal(err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := client.Do(request)
	switch {
	case err != nil:
		r.clientErr = err.Error()
	default:
		answer.Body.Close()
		r.clientErr = answer.Status
	}
}

// bear calls with a token of a service account that ends after a time, signed with
// sa.key.
func (r *realErrors) bear(life time.Duration) {
	r.t.Helper()
	block, _ := pem.Decode(read(r.t, r.pki("sa.key")))
	signer, err := privateKey(block.Bytes)
	if err != nil {
		r.t.Fatal(err)
	}
	now := time.Now()
	claims := fmt.Sprintf(`{"iss":"https://kubernetes.default.svc.cluster.local","aud":["https://kubernetes.default.svc.cluster.local"],"sub":"system:serviceaccount:default:default","iat":%d,"nbf":%d,"exp":%d,`+
		`"kubernetes.io":{"namespace":"default","serviceaccount":{"name":"default","uid":"7"}}}`, now.Add(-2*time.Hour).Unix(), now.Add(-2*time.Hour).Unix(), now.Add(life).Unix())
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	r.get("https://10.99.0.11:6443/api", "", text+"."+base64.RawURLEncoding.EncodeToString(es256(r.t, signer, text)))
}

// es256 is the signature of RFC 7518 section 3.4.
func es256(t *testing.T, key crypto.Signer, text string) []byte {
	t.Helper()
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("sa.key is a %T", key)
	}
	hash := sha256.Sum256([]byte(text))
	x, y, err := ecdsa.Sign(rand.Reader, private, hash[:])
	if err != nil {
		t.Fatal(err)
	}
	return append(x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32))...)
}

// second starts another kube-apiserver beside the first, from the files as they
// are, until the end of the case.
func (r *realErrors) second() {
	r.t.Helper()
	manifest, err := lab.ReadManifest(r.nodes[0].Root, "kube-apiserver")
	if err != nil {
		r.t.Fatal(err)
	}
	manifest.Name = "second"
	manifest.Command = append(slices.Clone(manifest.Command), "--secure-port=7443")
	p, err := r.nodes[0].Run(manifest)
	if err != nil {
		r.t.Fatal(err)
	}
	r.logs["second"] = p
	r.from["second"] = 0
	if info, err := os.Stat(p.LogFile()); err == nil {
		r.from["second"] = info.Size()
	}
	r.t.Cleanup(func() {
		_ = p.Kill() // it may have ended by itself
	})
}
