package check_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/apitest"
	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/token"
)

// world is what the API of a cluster holds, free to be broken.
type world struct {
	t          *testing.T
	c          *testpki.Cluster
	maps       map[string]*corev1.ConfigMap // by NAMESPACE/NAME
	secrets    map[string]*corev1.Secret
	accounts   []*corev1.ServiceAccount
	namespaces []*corev1.Namespace
	nodes      []*corev1.Node
	webhook    *admissionv1.ValidatingWebhookConfiguration
	service    map[string]any // APIService
	definition map[string]any
	bundle     map[string]any // ClusterTrustBundle
	requests   []*certificatesv1.CertificateSigningRequest
	keys       string // /openid/v1/jwks
	status     map[string]int
	insecure   bool
	token      bootstrap.Token
}

const info = "kube-public/cluster-info"

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "uid-of-" + "it", CreationTimestamp: metav1.NewTime(testpki.Made)}
}

// newWorld is the API of a healthy cluster.
func newWorld(t *testing.T, c *testpki.Cluster) *world {
	t.Helper()
	w := &world{t: t, c: c, maps: map[string]*corev1.ConfigMap{}, secrets: map[string]*corev1.Secret{}, status: map[string]int{}}
	ca, clients := string(c.Read("cp1", "pki/ca.crt")), string(c.Read("cp1", "pki/ca.crt"))
	if _, err := os.Stat(c.Path("cp1", "pki/root-ca.crt")); err == nil {
		ca = string(c.Read("cp1", "pki/root-ca.crt"))
	}
	if _, err := os.Stat(c.Path("cp1", "pki/client-ca.crt")); err == nil {
		clients = string(c.Read("cp1", "pki/client-ca.crt"))
	}
	for _, ns := range []string{"default", "kube-public", "kube-system", "shop"} {
		w.namespaces = append(w.namespaces, &corev1.Namespace{ObjectMeta: meta("", ns)})
		w.accounts = append(w.accounts, &corev1.ServiceAccount{ObjectMeta: meta(ns, "default")})
		w.put(ns, "kube-root-ca.crt", map[string]string{"ca.crt": ca})
	}
	w.put("kube-system", "extension-apiserver-authentication", map[string]string{
		"client-ca-file": clients, "requestheader-client-ca-file": string(c.Read("cp1", "pki/front-proxy-ca.crt")), "requestheader-allowed-names": `["front-proxy-client"]`,
	})
	w.put("kube-system", "kubeadm-config", map[string]string{"ClusterConfiguration": "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nnetworking:\n  dnsDomain: cluster.local\n  serviceSubnet: 10.96.0.0/12\n"})
	w.token = w.bootstrapToken()
	w.sign(ca, "https://10.0.0.11:6443")
	w.tokenSecret("shop", "builder-token", w.legacy(w.signer("pki/sa.key"), "shop", "default", "builder-token"), ca)
	_, foreign := w.authority("ca of a webhook", testpki.Made.AddDate(5, 0, 0))
	hook := func(name string, service bool, caBundle []byte) admissionv1.ValidatingWebhook {
		h := admissionv1.ValidatingWebhook{Name: name, ClientConfig: admissionv1.WebhookClientConfig{CABundle: caBundle}}
		if service {
			h.ClientConfig.Service = &admissionv1.ServiceReference{Namespace: "shop", Name: "hook"}
		}
		return h
	}
	w.webhook = &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: meta("", "policy"), Webhooks: []admissionv1.ValidatingWebhook{
		hook("a.example.com", true, foreign), hook("b.example.com", true, foreign), hook("public.example.com", false, nil),
	}}
	w.service = map[string]any{"metadata": map[string]any{"name": "v1.metrics.example.com"},
		"spec":   map[string]any{"service": map[string]any{"namespace": "shop", "name": "metrics"}, "caBundle": foreign},
		"status": map[string]any{"conditions": []any{map[string]any{"type": "Available", "status": "True"}}}}
	w.definition = map[string]any{"metadata": map[string]any{"name": "things.example.com"}, "spec": map[string]any{"conversion": map[string]any{"strategy": "Webhook",
		"webhook": map[string]any{"clientConfig": map[string]any{"service": map[string]any{"namespace": "shop", "name": "convert"}, "caBundle": foreign}}}}}
	w.bundle = map[string]any{"metadata": map[string]any{"name": "kubernetes.io:kube-apiserver-serving:x"}, "spec": map[string]any{"signerName": "kubernetes.io/kube-apiserver-serving", "trustBundle": ca}}
	for name, ip := range map[string]string{"cp1": "10.0.0.11", "w1": "10.0.0.21"} {
		w.nodes = append(w.nodes, &corev1.Node{ObjectMeta: meta("", name), Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}, {Type: corev1.NodeHostName, Address: name}}}})
	}
	w.request("young", "kubernetes.io/kubelet-serving", "system:node:w1", testpki.At.Add(-5*time.Minute), x509.CertificateRequest{DNSNames: []string{"w1"}})
	w.keys = w.jwks(w.signer("pki/sa.key"))
	return w
}

func (w *world) put(namespace, name string, data map[string]string) {
	w.maps[namespace+"/"+name] = &corev1.ConfigMap{ObjectMeta: meta(namespace, name), Data: data}
}

// authority makes one that ends at a time.
func (w *world) authority(name string, end time.Time) (issue.Authority, []byte) {
	w.t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	w.must(err)
	cert, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: testpki.Made.AddDate(-1, 0, 0), NotAfter: end}, key)
	w.must(err)
	return issue.Authority{Certificate: cert, Key: key}, trust.EncodeCertificates(cert)
}

// old is an authority of a name that the cluster has too, with another key.
func (w *world) old() []byte {
	_, data := w.authority("kubernetes", testpki.Made.AddDate(5, 0, 0))
	return data
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) bootstrapToken() bootstrap.Token {
	t, err := bootstrap.GenerateToken()
	w.must(err)
	s := (&bootstrap.Spec{Token: t, Expires: testpki.At.Add(time.Hour), Usages: []string{bootstrap.Signing, bootstrap.Authentication}, Groups: []string{bootstrap.NodeGroup}}).Secret()
	s.CreationTimestamp = metav1.NewTime(testpki.Made)
	w.secrets["kube-system/bootstrap"] = s
	return t
}

// sign makes cluster-info of an authority and a URL, signed with the token.
func (w *world) sign(ca, server string) {
	config, err := bootstrap.ClusterInfoKubeconfig(server, []byte(ca))
	w.must(err)
	signature, err := bootstrap.Sign(config, w.token)
	w.must(err)
	w.put("kube-public", "cluster-info", map[string]string{"kubeconfig": string(config), bootstrap.SignatureKey(w.token.ID()): signature})
}

func (w *world) signer(file string) *token.Signer {
	key, err := issue.ParsePrivateKey(w.c.Read("cp1", file))
	w.must(err)
	s, err := token.NewSigner(key)
	w.must(err)
	return s
}

func (w *world) otherSigner() *token.Signer {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	w.must(err)
	s, err := token.NewSigner(key)
	w.must(err)
	return s
}

func (w *world) jwks(s *token.Signer) string {
	set, err := token.NewKeySet(s.Key())
	w.must(err)
	data, err := set.JWKS()
	w.must(err)
	return string(data)
}

func (w *world) legacy(s *token.Signer, namespace, account, secret string) string {
	text, err := s.Sign(token.Claims{Issuer: token.LegacyIssuer, Subject: "system:serviceaccount:" + namespace + ":" + account, Legacy: true,
		Namespace: namespace, ServiceAccount: token.Ref{Name: account, UID: "uid-of-it"}, Secret: &token.Ref{Name: secret}})
	w.must(err)
	return text
}

func (w *world) tokenSecret(namespace, name, text, ca string) *corev1.Secret {
	a := kube.AccountSecret{Namespace: namespace, Account: "default", UID: "uid-of-it", Name: name}
	s := a.Object(text, []byte(ca))
	s.CreationTimestamp = metav1.NewTime(testpki.Made)
	w.secrets[namespace+"/"+name] = s
	return s
}

func (w *world) request(name, signer, user string, created time.Time, template x509.CertificateRequest) *certificatesv1.CertificateSigningRequest {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	w.must(err)
	der, err := x509.CreateCertificateRequest(nil, &template, key)
	w.must(err)
	r := &certificatesv1.CertificateSigningRequest{ObjectMeta: meta("", name), Spec: certificatesv1.CertificateSigningRequestSpec{
		SignerName: signer, Username: user, Request: pem.EncodeToMemory(&pem.Block{Type: trust.RequestType, Bytes: der}),
	}}
	r.CreationTimestamp = metav1.NewTime(created)
	w.requests = append(w.requests, r)
	return r
}

// read is what kubepki reads of the world.
func (w *world) read() trust.Node {
	w.t.Helper()
	s := &apitest.Objects{Raw: map[string]string{}, Status: w.status, Page: 3}
	if w.keys != "" {
		s.Raw["/openid/v1/jwks"] = w.keys
	}
	for _, m := range w.maps {
		s.Put("/api/v1/configmaps", m)
	}
	for _, x := range w.secrets {
		s.Put("/api/v1/secrets", x)
	}
	for _, a := range w.accounts {
		s.Put("/api/v1/serviceaccounts", a)
	}
	for _, n := range w.namespaces {
		s.Put("/api/v1/namespaces", n)
	}
	for _, n := range w.nodes {
		s.Put("/api/v1/nodes", n)
	}
	s.Put("/api/v1/services", &corev1.Service{ObjectMeta: meta("default", "kubernetes"), Spec: corev1.ServiceSpec{ClusterIPs: []string{"10.96.0.1"}}})
	s.Put("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", w.webhook)
	s.Put("/apis/apiregistration.k8s.io/v1/apiservices", w.service, map[string]any{"metadata": map[string]any{"name": "v1."}, "spec": map[string]any{}})
	s.Put("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", w.definition, map[string]any{"metadata": map[string]any{"name": "plain.example.com"}, "spec": map[string]any{"conversion": map[string]any{"strategy": "None"}}})
	s.Put("/apis/certificates.k8s.io/v1beta1/clustertrustbundles", w.bundle)
	for _, r := range w.requests {
		s.Put("/apis/certificates.k8s.io/v1/certificatesigningrequests", r)
	}
	server := httptest.NewServer(s)
	defer server.Close()
	var keys []token.Key
	if w.c != nil {
		keys, _ = token.ParseKeys(w.c.Read("cp1", "pki/sa.pub"))
	}
	o := kube.ObjectOptions{At: testpki.At}
	for _, k := range keys {
		o.Keys = append(o.Keys, k.Public)
	}
	n, err := kube.ReadObjects(w.t.Context(), &rest.Config{Host: server.URL}, o)
	w.must(err)
	for _, asked := range s.Requests() {
		if !strings.HasPrefix(asked, "GET ") {
			w.t.Errorf("asked to %s", asked)
		}
	}
	w.keepsNoSecret(&n)
	return n
}

// keepsNoSecret looks for the tokens in what was read.
func (w *world) keepsNoSecret(n *trust.Node) {
	w.t.Helper()
	text, err := json.Marshal(n.Objects)
	w.must(err)
	_, secret, _ := strings.Cut(w.token.Reveal(), ".")
	hidden := []string{secret}
	for _, s := range w.secrets {
		if t := string(s.Data["token"]); len(t) > 20 {
			hidden = append(hidden, t[len(t)-20:])
		}
	}
	for _, h := range hidden {
		if strings.Contains(string(text), h) {
			w.t.Error("a token is in what was read")
		}
	}
}

// graph is of what the API holds without any file of a node: what the API server
// presented to this machine is all that is known beside it.
func (w *world) graph(presented []byte) *trust.Graph {
	w.t.Helper()
	n := w.read()
	chain, err := trust.ParseCertificates(presented)
	w.must(err)
	ca, err := trust.ParseCertificates(w.c.Read("cp1", "pki/ca.crt"))
	w.must(err)
	o := n.Objects
	o.Server, o.Presented, o.CA, o.Inside, o.Insecure = "https://10.0.0.11:6443", trust.Place{Node: trust.ClusterNode, Path: "https://10.0.0.11:6443"},
		trust.Place{Path: "/home/a/.kube/config", Field: "clusters[kubernetes].cluster.certificate-authority-data"}, slices.Contains(chain[0].DNSNames, "kubernetes.default.svc"), w.insecure
	n.Materials = append(n.Materials, &trust.Material{Place: o.Presented, Role: trust.RoleCertificate, State: trust.Present, Certificates: chain},
		&trust.Material{Place: o.CA, Role: trust.RoleAnchors, State: trust.Present, Certificates: ca})
	return catalog.Wire([]trust.Node{n})
}

// alone judges that.
func (w *world) alone(presented []byte) *check.Result {
	w.t.Helper()
	return check.Run(w.graph(presented), check.Options{At: testpki.At})
}

// objectRow breaks one thing in the API and names the one finding expected, with the
// files of the nodes and without.
type objectRow struct {
	name  string
	brk   func(w *world)
	id    string
	path  string
	field string
	links []int
	paths int // how many objects; 0: one
	// with and without the files; both unless one is set.
	files, alone bool
	says         string // a part of the cause
}

const (
	rootOf   = "configmap/%s/kube-root-ca.crt"
	authMap  = "configmap/kube-system/extension-apiserver-authentication"
	infoMap  = "configmap/" + info
	policy   = "validatingwebhookconfiguration/policy"
	caBundle = "webhooks[a.example.com].clientConfig.caBundle"
)

func setRoot(content string, namespaces ...string) func(*world) {
	return func(w *world) {
		for _, ns := range namespaces {
			w.maps[ns+"/kube-root-ca.crt"].Data["ca.crt"] = content
		}
	}
}

func bootstrapData(key, value string) func(*world) {
	return func(w *world) {
		w.secrets["kube-system/bootstrap"].Data[key] = []byte(value)
		if value == "" {
			delete(w.secrets["kube-system/bootstrap"].Data, key)
		}
	}
}

var objectRows = []objectRow{
	{name: "kube-root-ca.crt of one namespace is an old authority's", brk: func(w *world) { setRoot(string(w.old()), "shop")(w) },
		id: "bundle-stale", path: fmt.Sprintf(rootOf, "shop"), field: "data[ca.crt]", links: []int{17}, says: "does not verify with it"},
	{name: "kube-root-ca.crt of all namespaces is an old authority's", brk: func(w *world) {
		setRoot(string(w.old()), "default", "kube-public", "kube-system", "shop")(w)
	}, id: "bundle-stale", field: "data[ca.crt]", links: []int{17}, paths: 4},
	{name: "kube-root-ca.crt of two namespaces are two old authorities'", brk: func(w *world) {
		setRoot(string(w.old()), "default")(w)
		setRoot(string(w.old()), "shop")(w)
	}, id: "bundle-stale", links: []int{17}, paths: 2},
	{name: "kube-root-ca.crt of one namespace holds one authority more", brk: func(w *world) {
		_, more := w.authority("intruder", testpki.Made.AddDate(5, 0, 0))
		w.maps["shop/kube-root-ca.crt"].Data["ca.crt"] += string(more)
	}, id: "bundle-stale", path: fmt.Sprintf(rootOf, "shop"), links: []int{17}, says: `it holds certificate "intruder"`},
	{name: "kube-root-ca.crt of one namespace is junk", brk: setRoot("junk", "shop"), id: "cert-malformed", path: fmt.Sprintf(rootOf, "shop"), links: []int{17}},
	{name: "kube-root-ca.crt of one namespace is empty", brk: setRoot("", "shop"), id: "bundle-empty", path: fmt.Sprintf(rootOf, "shop"), links: []int{17}},
	{name: "kube-root-ca.crt of one namespace has expired", brk: func(w *world) {
		_, gone := w.authority("kubernetes", testpki.Made.AddDate(0, 0, -1))
		setRoot(string(gone), "shop")(w)
	}, id: "bundle-expired", path: fmt.Sprintf(rootOf, "shop"), links: []int{17}},
	{name: "one namespace has no kube-root-ca.crt", brk: func(w *world) { delete(w.maps, "shop/kube-root-ca.crt") },
		id: "file-missing", path: fmt.Sprintf(rootOf, "shop"), links: []int{17}},

	{name: "the ClusterTrustBundle of the API server is an old authority's", brk: func(w *world) { w.bundle["spec"].(map[string]any)["trustBundle"] = string(w.old()) },
		id: "bundle-stale", path: "clustertrustbundle/kubernetes.io:kube-apiserver-serving:x", field: "spec.trustBundle", links: []int{17}},
	{name: "a ClusterTrustBundle of somebody else has expired", brk: func(w *world) {
		_, gone := w.authority("gone", testpki.Made.AddDate(0, 0, -1))
		w.bundle["spec"] = map[string]any{"signerName": "example.com/pods", "trustBundle": string(gone)}
	}, id: "bundle-expired", path: "clustertrustbundle/kubernetes.io:kube-apiserver-serving:x", links: []int{}},

	{name: "cluster-info holds an old authority", brk: func(w *world) { w.sign(string(w.old()), "https://10.0.0.11:6443") },
		id: "bundle-stale", path: infoMap, field: "data[kubeconfig].certificate-authority-data", links: []int{16}},
	{name: "cluster-info sends nodes elsewhere", brk: func(w *world) { w.sign(string(w.c.Read("cp1", "pki/ca.crt")), "https://10.9.9.9:6443") },
		id: "endpoint-mismatch", path: infoMap, field: "data[kubeconfig].server", links: []int{16}},
	{name: "cluster-info is no kubeconfig", brk: func(w *world) {
		w.put("kube-public", "cluster-info", map[string]string{"kubeconfig": "a: ["})
	}, id: "kubeconfig-broken", path: infoMap, links: []int{16}},
	{name: "cluster-info was changed after it was signed", brk: func(w *world) { w.maps[info].Data["kubeconfig"] += "# x\n" },
		id: "bootstrap-token-usage", path: infoMap, links: []int{16}},
	{name: "cluster-info is signed with another token's secret", brk: func(w *world) {
		// The same id with another secret: the signature is as it was.
		w.secrets["kube-system/bootstrap"].Data["token-secret"] = []byte("0123456789abcdef")
	}, id: "bootstrap-token-usage", path: infoMap, links: []int{16}},
	{name: "cluster-info is not signed with a token that may sign", brk: func(w *world) { delete(w.maps[info].Data, bootstrap.SignatureKey(w.token.ID())) },
		id: "bootstrap-token-usage", path: infoMap, links: []int{16}},

	{name: "the published client authority is an old one", brk: func(w *world) {
		w.maps["kube-system/extension-apiserver-authentication"].Data["client-ca-file"] = string(w.old())
	},
		id: "bundle-stale", path: authMap, field: "data[client-ca-file]", links: []int{13}, files: true},
	{name: "the published front-proxy authority is an old one", brk: func(w *world) {
		w.maps["kube-system/extension-apiserver-authentication"].Data["requestheader-client-ca-file"] = string(w.old())
	},
		id: "bundle-stale", path: authMap, field: "data[requestheader-client-ca-file]", links: []int{13}, files: true},
	{name: "the published client authorities hold an old one beside", brk: func(w *world) {
		w.maps["kube-system/extension-apiserver-authentication"].Data["client-ca-file"] += string(w.old())
	}, id: "bundle-stale", path: authMap, field: "data[client-ca-file]", links: []int{13}, files: true, says: "still holds"},
	{name: "the front proxy's authority is the clients'", brk: func(w *world) {
		m := w.maps["kube-system/extension-apiserver-authentication"].Data
		m["requestheader-client-ca-file"] = m["client-ca-file"]
	}, id: "authority-shared", path: authMap, links: []int{13}, alone: true},
	{name: "any name may be the front proxy's", brk: func(w *world) {
		w.maps["kube-system/extension-apiserver-authentication"].Data["requestheader-allowed-names"] = "[]"
	}, id: "requestheader-any-name", path: authMap, links: []int{13}, alone: true},

	{name: "a webhook trusts an old authority of the cluster", brk: func(w *world) { w.webhook.Webhooks[0].ClientConfig.CABundle = w.old() },
		id: "bundle-stale", path: policy, field: caBundle, links: []int{14}},
	{name: "a webhook's caBundle has expired", brk: func(w *world) {
		_, gone := w.authority("gone", testpki.Made.AddDate(0, 0, -1))
		w.webhook.Webhooks[0].ClientConfig.CABundle = gone
	}, id: "bundle-expired", path: policy, field: caBundle, links: []int{14}},
	{name: "a webhook's caBundle is empty", brk: func(w *world) { w.webhook.Webhooks[0].ClientConfig.CABundle = nil },
		id: "bundle-empty", path: policy, field: caBundle, links: []int{14}},
	{name: "a webhook's caBundle is junk", brk: func(w *world) { w.webhook.Webhooks[0].ClientConfig.CABundle = []byte("junk") },
		id: "cert-malformed", path: policy, field: caBundle, links: []int{14}},
	{name: "a webhook's caBundle ends soon", brk: func(w *world) {
		_, soon := w.authority("soon", testpki.At.Add(48*time.Hour))
		w.webhook.Webhooks[0].ClientConfig.CABundle = soon
	}, id: "cert-expiring", path: policy, field: caBundle},
	{name: "a conversion webhook's caBundle is junk", brk: func(w *world) {
		w.definition["spec"].(map[string]any)["conversion"].(map[string]any)["webhook"].(map[string]any)["clientConfig"].(map[string]any)["caBundle"] = []byte("junk")
	}, id: "cert-malformed", path: "customresourcedefinition/things.example.com", links: []int{14}},
	{name: "an APIService is not verified", brk: func(w *world) {
		w.service["spec"] = map[string]any{"service": map[string]any{"namespace": "shop", "name": "metrics"}, "insecureSkipTLSVerify": true}
	}, id: "verify-off", path: "apiservice/v1.metrics.example.com", field: "spec.insecureSkipTLSVerify", links: []int{13}},
	{name: "an APIService is not available for TLS", brk: func(w *world) {
		w.service["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Available", "status": "False", "reason": "FailedDiscoveryCheck", "message": "tls: failed to verify certificate: x509: certificate signed by unknown authority"}}}
	}, id: "refused", path: "apiservice/v1.metrics.example.com", links: []int{13}},

	{name: "a token of a Secret is forged", brk: func(w *world) {
		w.tokenSecret("shop", "forged", w.legacy(w.otherSigner(), "shop", "default", "forged"), string(w.c.Read("cp1", "pki/ca.crt")))
	}, id: "sa-token-invalid", path: "secret/shop/forged", field: "data[token]", links: []int{12}},
	{name: "all tokens of Secrets are of an earlier key", brk: func(w *world) {
		old := w.otherSigner()
		for _, name := range []string{"builder-token", "second", "third"} {
			w.tokenSecret("shop", name, w.legacy(old, "shop", "default", name), string(w.c.Read("cp1", "pki/ca.crt")))
		}
	}, id: "sa-token-invalid", path: "secret/shop/builder-token", links: []int{12}, paths: 3},
	{name: "a token of a Secret is another account's", brk: func(w *world) {
		w.tokenSecret("shop", "swapped", w.legacy(w.signer("pki/sa.key"), "shop", "admin", "swapped"), string(w.c.Read("cp1", "pki/ca.crt")))
	}, id: "sa-token-invalid", path: "secret/shop/swapped", links: []int{12}, says: `it is of service account "shop"/"admin"`},
	{name: "a token was copied into another Secret", brk: func(w *world) {
		w.tokenSecret("shop", "copy", w.legacy(w.signer("pki/sa.key"), "shop", "default", "builder-token"), string(w.c.Read("cp1", "pki/ca.crt")))
	}, id: "sa-token-invalid", path: "secret/shop/copy", links: []int{12}},
	{name: "a token's account is gone", brk: func(w *world) {
		w.accounts = slices.DeleteFunc(w.accounts, func(a *corev1.ServiceAccount) bool { return a.Namespace == "shop" })
	}, id: "sa-token-invalid", path: "secret/shop/builder-token", links: []int{12}, says: "there is no service account shop/default"},
	{name: "a token is no token", brk: func(w *world) { w.secrets["shop/builder-token"].Data["token"] = []byte("junk") },
		id: "sa-token-invalid", path: "secret/shop/builder-token", links: []int{12}},
	{name: "nobody fills a Secret for a token", brk: func(w *world) { delete(w.secrets["shop/builder-token"].Data, "token") },
		id: "sa-token-invalid", path: "secret/shop/builder-token", links: []int{12}, says: "nobody fills it"},
	{name: "a token's key is on the disk alone", brk: func(w *world) { w.keys = w.jwks(w.otherSigner()) },
		id: "sa-token-invalid", path: "secret/shop/builder-token", links: []int{12}, says: "which the API server does not publish"},
	{name: "a stored token has expired", brk: func(w *world) {
		text, err := w.signer("pki/sa.key").Sign(token.Claims{Issuer: "https://kubernetes.default.svc.cluster.local", Subject: "system:serviceaccount:shop:default", Audiences: []string{"x"},
			Namespace: "shop", ServiceAccount: token.Ref{Name: "default", UID: "uid-of-it"}, NotBefore: testpki.Made, IssuedAt: testpki.Made, Expires: testpki.Made.Add(time.Hour)})
		w.must(err)
		w.secrets["shop/builder-token"].Data["token"] = []byte(text)
	}, id: "sa-token-expired", path: "secret/shop/builder-token", links: []int{12}},
	{name: "ca.crt of a token's Secret is an old authority's", brk: func(w *world) { w.secrets["shop/builder-token"].Data["ca.crt"] = w.old() },
		id: "bundle-stale", path: "secret/shop/builder-token", field: "data[ca.crt]", links: []int{17}},

	{name: "a bootstrap token has expired", brk: bootstrapData("expiration", "2026-06-01T12:00:00Z"), id: "bootstrap-token-expired", field: "data[expiration]", links: []int{16}},
	{name: "a bootstrap token never expires", brk: bootstrapData("expiration", ""), id: "bootstrap-token-unbounded", field: "data[expiration]", links: []int{16}},
	{name: "a bootstrap token has a group of administrators", brk: bootstrapData("auth-extra-groups", "system:masters"), id: "bootstrap-token-usage", field: "data[auth-extra-groups]", links: []int{16}},
	{name: "a bootstrap token has an id of another", brk: bootstrapData("token-id", "zzzzzz"), id: "bootstrap-token-malformed", field: "data[token-id]", links: []int{16}},

	{name: "a request waits for approval", brk: func(w *world) {
		w.request("old", "kubernetes.io/kubelet-serving", "system:node:w1", testpki.At.Add(-time.Hour), x509.CertificateRequest{DNSNames: []string{"w1"}})
	}, id: "csr-pending", path: "certificatesigningrequest/old", links: []int{10, 11}, says: "waits for approval since 60 minutes"},
	{name: "a request asks for a name that its node does not have", brk: func(w *world) {
		w.request("old", "kubernetes.io/kubelet-serving", "system:node:w1", testpki.At.Add(-time.Hour), x509.CertificateRequest{DNSNames: []string{"W1", "cp1"}})
	}, id: "csr-pending", path: "certificatesigningrequest/old", links: []int{10, 11}, says: "asks for cp1, which node w1 does not have"},
	{name: "an approved request is not signed", brk: func(w *world) {
		r := w.request("old", "kubernetes.io/kube-apiserver-client", "jane", testpki.At.Add(-time.Hour), x509.CertificateRequest{})
		r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: "True", LastTransitionTime: metav1.NewTime(testpki.At.Add(-30 * time.Minute))}}
	}, id: "csr-pending", path: "certificatesigningrequest/old", links: []int{}, says: "approved 30 minutes ago"},
	{name: "a request failed", brk: func(w *world) {
		r := w.request("old", "kubernetes.io/kube-apiserver-client", "jane", testpki.At.Add(-time.Minute), x509.CertificateRequest{})
		r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateFailed, Status: "True", Reason: "SignerValidationFailure", Message: "usages"}}
	}, id: "csr-pending", path: "certificatesigningrequest/old", links: []int{}, says: "failed: SignerValidationFailure: usages"},

	{name: "kubeadm-config has a name that the certificate lacks", brk: func(w *world) {
		w.maps["kube-system/kubeadm-config"].Data["ClusterConfiguration"] += "apiServer:\n  certSANs: [api.example.test]\n"
	}, id: "san-missing", links: []int{4}, paths: 2, says: "api.example.test, at which it is reached (apiServer.certSANs of kubeadm-config)"},
	{name: "kubeadm-config has an endpoint that the certificate lacks", brk: func(w *world) {
		w.maps["kube-system/kubeadm-config"].Data["ClusterConfiguration"] += "controlPlaneEndpoint: lb.example.test:6443\n"
	}, id: "san-missing", links: []int{4}, paths: 2, says: "controlPlaneEndpoint of kubeadm-config"},
	{name: "kubeadm-config makes certificates that outlive their authority", brk: func(w *world) {
		w.maps["kube-system/kubeadm-config"].Data["ClusterConfiguration"] += "certificateValidityPeriod: 90000h\ncaCertificateValidityPeriod: 80000h\n"
	}, id: "cert-outlives-ca", path: "configmap/kube-system/kubeadm-config", links: []int{}},
}

// TestWhatTheAPIHoldsIsJudged: each row breaks one thing, and one finding tells it,
// with the files of a control plane and from a laptop.
func TestWhatTheAPIHoldsIsJudged(t *testing.T) {
	for _, row := range objectRows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := testpki.New(t, testpki.Single)
			w := newWorld(t, c)
			row.brk(w)
			if !row.alone {
				row.judge(t, "with the files", c.VerifyWith(check.Options{}, w.read()))
			}
			if !row.files {
				row.judge(t, "alone", w.alone(c.Read("cp1", "pki/apiserver.crt")))
			}
		})
	}
}

func (row *objectRow) judge(t *testing.T, how string, r *check.Result) {
	t.Helper()
	got := weighty(r)
	if len(got) != 1 || got[0].ID != row.id {
		t.Errorf("%s: want %s alone, got:\n%s", how, row.id, describe(got))
		return
	}
	f := got[0]
	if row.path != "" && f.Path != row.path || row.field != "" && f.Field != row.field || len(f.Paths) != max(row.paths, 1) || !strings.Contains(f.Cause, row.says) {
		t.Errorf("%s: got %q %v at %s", how, f.Cause, f.Paths, f.Field)
	}
	if row.links != nil && !slices.Equal(f.Links, row.links) {
		t.Errorf("%s: links %v, want %v", how, f.Links, row.links)
	}
	if f.Fix == "" && !strings.Contains(f.Cause, "the API server refuses the token") {
		t.Errorf("%s: no fix for %q", how, f.Cause)
	}
}

// TestHealthyAPI: what is healthy, and what is unusual and healthy, is silent.
func TestHealthyAPI(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"as it is made": func(*world) {},
		"kube-root-ca.crt with another text around the same certificate": func(w *world) {
			m := w.maps["shop/kube-root-ca.crt"].Data
			m["ca.crt"] = "# the cluster\r\n" + strings.ReplaceAll(m["ca.crt"], "\n", "\r\n")
		},
		"a webhook that is its own authority, and no CA": func(w *world) {
			key, err := issue.GenerateKey(issue.ECDSAP256)
			w.must(err)
			cert, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "hook.shop.svc"}, NotBefore: testpki.Made, NotAfter: testpki.Made.AddDate(1, 0, 0)}, key)
			w.must(err)
			w.webhook.Webhooks[0].ClientConfig.CABundle = trust.EncodeCertificates(cert)
		},
		"a webhook by the cluster's own authority": func(w *world) { w.webhook.Webhooks[0].ClientConfig.CABundle = w.c.Read("cp1", "pki/ca.crt") },
		"a webhook with an old authority of the cluster beside its own": func(w *world) {
			w.webhook.Webhooks[0].ClientConfig.CABundle = append(w.old(), w.webhook.Webhooks[1].ClientConfig.CABundle...)
		},
		"a webhook with the old authority beside the new": func(w *world) {
			w.webhook.Webhooks[0].ClientConfig.CABundle = append(w.old(), w.c.Read("cp1", "pki/ca.crt")...)
		},
		"no cluster-info, no kubeadm-config, no bootstrap token": func(w *world) {
			delete(w.maps, info)
			delete(w.maps, "kube-system/kubeadm-config")
			delete(w.secrets, "kube-system/bootstrap")
		},
		"a token of kubeadm's upload-certs, which has no usage": func(w *world) {
			for _, key := range []string{"usage-bootstrap-signing", "usage-bootstrap-authentication", "auth-extra-groups"} {
				bootstrapData(key, "")(w)
			}
			delete(w.maps[info].Data, bootstrap.SignatureKey(w.token.ID()))
		},
		"the signature of a token that was deleted": func(w *world) { delete(w.secrets, "kube-system/bootstrap") },
		"a namespace that was made this moment": func(w *world) {
			n := &corev1.Namespace{ObjectMeta: meta("", "new")}
			n.CreationTimestamp = metav1.NewTime(testpki.At.Add(-time.Second))
			w.namespaces = append(w.namespaces, n)
		},
		"a request that was denied long ago, and one that was signed": func(w *world) {
			r := w.request("denied", "kubernetes.io/kubelet-serving", "system:node:w1", testpki.At.Add(-time.Hour), x509.CertificateRequest{})
			r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateDenied, Status: "True"}}
			w.request("signed", "kubernetes.io/kubelet-serving", "system:node:w1", testpki.At.Add(-time.Hour), x509.CertificateRequest{}).Status.Certificate = []byte("x")
		},
		"keys that may not be read, and tokens that cannot be judged": func(w *world) {
			w.status["/openid/v1/jwks"] = 403
		},
		"names in kubeadm-config in capitals and with leading zeros": func(w *world) {
			w.maps["kube-system/kubeadm-config"].Data["ClusterConfiguration"] += "controlPlaneEndpoint: CP1:6443\napiServer:\n  certSANs: [10.0.0.11, KUBERNETES]\n"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testpki.New(t, testpki.Single)
			w := newWorld(t, c)
			change(w)
			if got := weighty(c.VerifyWith(check.Options{}, w.read())); len(got) > 0 {
				t.Errorf("with the files:\n%s", describe(got))
			}
			if got := weighty(w.alone(c.Read("cp1", "pki/apiserver.crt"))); len(got) > 0 {
				t.Errorf("alone:\n%s", describe(got))
			}
		})
	}
}

// TestAPIOfEachShape: the shapes of authority, several control planes, and an
// endpoint.
func TestAPIOfEachShape(t *testing.T) {
	for _, kind := range []testpki.Kind{testpki.Bare, testpki.HA, testpki.Intermediate, testpki.KubeletCA, testpki.ExternalEtcd} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			c := testpki.New(t, kind)
			w := newWorld(t, c)
			if kind == testpki.HA {
				w.maps["kube-system/kubeadm-config"].Data["ClusterConfiguration"] += "controlPlaneEndpoint: api.example.test:6443\n"
				w.sign(string(c.Read("cp1", "pki/ca.crt")), "https://api.example.test:6443")
			}
			if got := weighty(c.VerifyWith(check.Options{}, w.read())); len(got) > 0 {
				t.Errorf("with the files:\n%s", describe(got))
			}
			if got := weighty(w.alone(c.Read("cp1", "pki/apiserver.crt"))); len(got) > 0 {
				t.Errorf("alone:\n%s", describe(got))
			}
		})
	}
}

// TestOneCauseInFilesAndAPI: what is wrong in a file and follows in the API is told at
// the file.
func TestOneCauseInFilesAndAPI(t *testing.T) {
	for name, row := range map[string]struct {
		brk      func(c *testpki.Cluster, w *world)
		id, path string
	}{
		"--root-ca-file is an old authority's, and so is all that is published": {func(c *testpki.Cluster, w *world) {
			old := w.old()
			c.Write("cp1", "pki/old.crt", old)
			c.Edit("cp1", "manifests/kube-controller-manager.yaml", "--root-ca-file=/etc/kubernetes/pki/ca.crt", "--root-ca-file=/etc/kubernetes/pki/old.crt")
			setRoot(string(old), "default", "kube-public", "kube-system", "shop")(w)
			w.secrets["shop/builder-token"].Data["ca.crt"] = old
		}, "root-ca-mismatch", manifest + "kube-controller-manager.yaml"},
		"the API server's certificate is of another authority": {func(c *testpki.Cluster, _ *world) {
			c.Reissue("cp1", "apiserver", "etcd/ca", nil)
		}, "authority-unknown", pki + "apiserver.crt"},
		"the API server's certificate lacks the service's address": {func(c *testpki.Cluster, _ *world) {
			c.Reissue("cp1", "apiserver", "ca", without("10.96.0.1"))
		}, "san-missing", pki + "apiserver.crt"},
		"the cluster's authority has expired, here and everywhere": {func(c *testpki.Cluster, w *world) {
			c.Resign("cp1", "ca", until(testpki.Made.Add(time.Hour)))
			ca := string(c.Read("cp1", "pki/ca.crt"))
			setRoot(ca, "default", "kube-public", "kube-system", "shop")(w)
			w.maps["kube-system/extension-apiserver-authentication"].Data["client-ca-file"] = ca
			w.secrets["shop/builder-token"].Data["ca.crt"] = []byte(ca)
			w.sign(ca, "https://10.0.0.11:6443")
		}, "cert-expired", pki + "ca.crt"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testpki.New(t, testpki.Single)
			w := newWorld(t, c)
			row.brk(c, w)
			got := slices.DeleteFunc(weighty(c.VerifyWith(check.Options{}, w.read())), func(f check.Finding) bool { return f.ID == "cert-outlives-ca" || f.ID == "bundle-expired" })
			if len(got) != 1 || got[0].ID != row.id || got[0].Path != row.path {
				t.Errorf("want %s at %s alone, got:\n%s", row.id, row.path, describe(got))
			}
		})
	}
}

// TestLegacyTokensAndDenials: infos, which break nothing.
func TestLegacyTokensAndDenials(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	w := newWorld(t, c)
	w.secrets["shop/builder-token"].Labels = map[string]string{"kubernetes.io/legacy-token-last-used": "2026-05-01"}
	w.status["/apis/certificates.k8s.io/v1/certificatesigningrequests"] = 403
	w.status["/api/v1/nodes"] = 500
	var said []string
	for _, f := range w.alone(c.Read("cp1", "pki/apiserver.crt")).Findings {
		said = append(said, f.ID+": "+f.Cause)
	}
	text := strings.Join(said, "\n")
	for _, want := range []string{
		"sa-token-legacy: tokens of Secrets that never expire: shop/builder-token (last used 2026-05-01)",
		"not-seen: could not look at certificate signing requests: whom the kubeconfig is for may not list certificatesigningrequests.certificates.k8s.io",
		"not-seen: could not look at nodes: 500 Internal Server Error",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestWhatStandsBeforeTheAPIServer: a proxy's certificate says nothing of what pods
// see, and an insecure kubeconfig nothing at all.
func TestWhatStandsBeforeTheAPIServer(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	w := newWorld(t, c)
	setRoot(string(w.old()), "default", "kube-public", "kube-system", "shop")(w)
	proxy := c.Authority("cp1", "front-proxy-ca")
	key, err := issue.GenerateKey(issue.ECDSAP256)
	w.must(err)
	leaf, err := issue.Sign(issue.Template{Subject: pkix.Name{CommonName: "gate"}, DNSNames: []string{"gate.example.test"}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: testpki.Made, NotAfter: testpki.Made.AddDate(1, 0, 0)}, key.Public(), proxy)
	w.must(err)
	r := w.alone(trust.EncodeCertificates(leaf))
	if got := weighty(r); len(got) > 0 && got[0].ID == "bundle-stale" {
		t.Errorf("judged by what a proxy presents:\n%s", describe(got))
	}
	if !slices.ContainsFunc(r.Findings, func(f check.Finding) bool {
		return f.ID == "not-seen" && strings.Contains(f.Cause, "is not what pods see")
	}) {
		t.Errorf("not said:\n%s", describe(r.Findings))
	}
	w.insecure = true
	r = w.alone(c.Read("cp1", "pki/apiserver.crt"))
	if got := weighty(r); len(got) != 1 || got[0].ID != "verify-off" {
		t.Errorf("insecure:\n%s", describe(got))
	}
}

// TestNodeAddresses: the address at which the API server dials a kubelet is its Node's,
// where the kubelet is verified at all.
func TestNodeAddresses(t *testing.T) {
	for name, row := range map[string]struct {
		kind testpki.Kind
		want int
	}{
		"a kubelet that is verified":                      {testpki.KubeletCA, 1},
		"a kubelet that nobody verifies, as is kubeadm's": {testpki.HA, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testpki.New(t, row.kind)
			w := newWorld(t, c)
			for _, n := range w.nodes {
				if n.Name == "w1" {
					n.Status.Addresses[0].Address = "10.0.0.99"
				}
			}
			got := weighty(c.VerifyWith(check.Options{}, w.read()))
			if len(got) != row.want || row.want > 0 && (got[0].ID != "san-missing" || got[0].Node != "w1" || !strings.Contains(got[0].Cause, "10.0.0.99")) {
				t.Errorf("got:\n%s", describe(got))
			}
		})
	}
}

// TestKubeletsSeenByTheAPIAlone: what the kubelets of Nodes present, whose files were
// not given.
func TestKubeletsSeenByTheAPIAlone(t *testing.T) {
	c := testpki.New(t, testpki.Single)
	w := newWorld(t, c)
	sign := func(a issue.Authority, change testpki.Change) []*x509.Certificate {
		key, err := issue.GenerateKey(issue.ECDSAP256)
		w.must(err)
		template := x509.Certificate{NotAfter: testpki.Made.AddDate(1, 0, 0), DNSNames: []string{"w1"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 21)}}
		change(&template)
		leaf, err := issue.Sign(issue.Template{Subject: pkix.Name{CommonName: "system:node:w1", Organization: []string{"system:nodes"}}, DNSNames: template.DNSNames, Addresses: template.IPAddresses,
			Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: testpki.Made.AddDate(-1, 0, 0), NotAfter: template.NotAfter}, key.Public(), a)
		w.must(err)
		return []*x509.Certificate{leaf}
	}
	ca := c.Authority("cp1", "ca")
	own, _ := w.authority("w1-ca@1760000000", testpki.Made.AddDate(1, 0, 0))
	moved := func(t *x509.Certificate) { t.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 77)} }
	for name, row := range map[string]struct {
		chain   []*x509.Certificate
		outcome trust.Outcome
		want    string
	}{
		"a good one":                               {sign(ca, func(*x509.Certificate) {}), trust.Answered, ""},
		"one that was at another address":          {sign(ca, moved), trust.Answered, "error san-missing node/w1: the certificate that the kubelet of w1 presents does not hold 10.0.0.21"},
		"one that has expired":                     {sign(ca, until(testpki.Made)), trust.Answered, "error cert-expired node/w1"},
		"one that made its certificate itself":     {sign(own, moved), trust.Answered, ""},
		"one that cannot be reached from a laptop": {nil, trust.Unreachable, "info not-seen node/w1: not proved live: kubelet of w1: cannot be reached from here"},
	} {
		t.Run(name, func(t *testing.T) {
			g := w.graph(c.Read("cp1", "pki/apiserver.crt"))
			servers := catalog.Servers(g)
			i := slices.IndexFunc(servers, func(s trust.Server) bool { return s.NodeName == "w1" })
			if len(servers) != 2 || i < 0 || servers[i].Address != "10.0.0.21:10250" {
				t.Fatalf("servers %+v", servers)
			}
			g.Observations = []trust.Observation{{Server: servers[i], Outcome: row.outcome, Chain: row.chain, Reason: "nobody answers"}}
			if row.outcome == trust.Answered {
				g.Observations[0].Reason = ""
			}
			var got []string
			for _, f := range check.Run(g, check.Options{At: testpki.At}).Findings {
				if f.ID != "sa-token-legacy" {
					got = append(got, fmt.Sprintf("%s %s %s: %s", f.Severity, f.ID, f.Path, f.Cause))
				}
			}
			if text := strings.Join(got, "\n"); len(got) > 1 || (row.want == "") != (text == "") || !strings.HasPrefix(text, row.want) {
				t.Errorf("want %q, got %q", row.want, text)
			}
		})
	}
}
