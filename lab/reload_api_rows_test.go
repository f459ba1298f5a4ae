//go:build linux

package lab_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
)

// api is a client of the cluster with all rights.
func (b *bench) api() *kubernetes.Clientset { return b.client(b.t) }

// apiserverRows start the API server, with fronts in the place of an etcd, of
// kubelets and of an extension API server.
func (b *bench) apiserverRows() []*reloadRow {
	component := catalog.APIServer
	flags, rows := b.servedRows(component, "10.99.0.11:6443", "/api/v1/namespaces/kube-system")
	storageFlags, storage := b.storageRows()
	kubeletFlags, kubelets := b.kubeletClientRows()
	proxyFlags, extension := b.extensionRow()
	tokenFlags, tokens := b.tokenRows()
	sni := b.cluster.leaf(b.t, pkix.Name{CommonName: "sni"}, "sni.test")
	b.start(component, component, slices.Concat(flags, storageFlags, kubeletFlags, proxyFlags, tokenFlags, []string{
		"--tls-sni-cert-key=" + b.put(component, "sni.crt", sni.certificate) + "," + b.put(component, "sni.key", sni.key),
	})...)
	b.admin = b.conf(b.t, "super-admin")
	rows = append(rows, b.servingRow(component, "sni.crt", "sni.key", "10.99.0.11:6443", "sni.test", nil, b.cluster.again(b.t, sni.certificate)))
	return slices.Concat(rows, storage, kubelets(), extension(), tokens())
}

// storageRows: events are stored through one front of etcd, pod templates
// through another.
func (b *bench) storageRows() (flags []string, rows []*reloadRow) {
	component := catalog.APIServer
	servers := newAuthority(b.t, "etcd servers")
	onward := load(b.t, b.pki("etcd/healthcheck-client")).always(b.t, &tls.Config{RootCAs: b.etcd.pool(), MinVersion: tls.VersionTLS12})
	newEtcdFront := func() *front {
		return newFront(b.t, b.frontLeaf(b.etcd), b.frontLeaf(servers), tls.RequestClientCert).pipe("10.99.0.11:2379", onward)
	}
	trusting, showing := newEtcdFront(), newEtcdFront()
	old := load(b.t, b.pki("apiserver-etcd-client"))
	next := b.etcd.again(b.t, old.certificate)
	flags = append(b.givePair(component, "etcd-certfile", "etcd-keyfile", old), b.give(component, "etcd-cafile", b.etcd.pem),
		"--etcd-servers-overrides=/events#"+trusting.url()+",/podtemplates#"+showing.url())
	events := func(ctx context.Context) error {
		_, err := b.api().CoreV1().Events("default").List(ctx, metav1.ListOptions{Limit: 1})
		return err
	}
	return flags, []*reloadRow{
		trustRow(component, "etcd-cafile", trusting, 5*time.Second, b.swap(component, "etcd-cafile", b.etcd.pem, servers.pem), events),
		b.storageClientRow(showing, old, next),
	}
}

// storageClientRow: a live connection keeps the old certificate, a new one
// shows the new.
func (b *bench) storageClientRow(f *front, old, next credential) *reloadRow {
	list := func(ctx context.Context) error {
		_, err := b.api().CoreV1().PodTemplates("default").List(ctx, metav1.ListOptions{Limit: 1})
		return err
	}
	row := clientRow(catalog.APIServer, []string{"etcd-certfile", "etcd-keyfile"}, f, old, next, nil)
	shown := row.seen
	row.change = func(ctx context.Context) error {
		if err := b.swapPair(catalog.APIServer, "etcd-certfile", "etcd-keyfile", next, nil)(ctx); err != nil {
			return err
		}
		before, _ := f.count(old.serial())
		for range 5 {
			if err := list(ctx); err != nil {
				return err
			}
			time.Sleep(time.Second) // a connection that lives is to be seen to live
		}
		if after, connected := f.count(old.serial()); after != before || connected == 0 {
			return fmt.Errorf("the live connections did not stay: %d handshakes more, %d connections of the old certificate", after-before, connected)
		}
		f.disconnect()
		return nil
	}
	row.seen = func(ctx context.Context) (bool, error) {
		if err := list(ctx); err != nil {
			return false, err
		}
		return shown(ctx)
	}
	row.live = nil // looked at by change
	return row
}

// kubeletClientRows: two nodes at which fronts stand for kubelets. One asks for
// no certificate, so that what is presented there makes the API server read no
// certificate of its own.
func (b *bench) kubeletClientRows() (flags []string, rows func() []*reloadRow) {
	component := catalog.APIServer
	kubelets, others := newAuthority(b.t, "kubelets"), newAuthority(b.t, "other kubelets")
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	newKubelet := func(clients tls.ClientAuthType) *front {
		return newFront(b.t, b.frontLeaf(kubelets), b.frontLeaf(others), clients).handle(b.t, hello)
	}
	showing, trusting := newKubelet(tls.RequestClientCert), newKubelet(tls.NoClientCert)
	old := load(b.t, b.pki("apiserver-kubelet-client"))
	next := b.cluster.again(b.t, old.certificate)
	flags = append(b.givePair(component, "kubelet-client-certificate", "kubelet-client-key", old),
		b.give(component, "kubelet-certificate-authority", kubelets.pem))
	return flags, func() []*reloadRow {
		call := b.nodeCaller("reload-shows", showing)
		client := clientRow(component, []string{"kubelet-client-certificate", "kubelet-client-key"}, showing, old, next,
			b.swapPair(component, "kubelet-client-certificate", "kubelet-client-key", next, nil))
		shown := client.seen
		client.seen = func(ctx context.Context) (bool, error) {
			if err := call(ctx); err != nil {
				return false, err
			}
			return shown(ctx)
		}
		return []*reloadRow{client, trustRow(component, "kubelet-certificate-authority", trusting, 3*time.Second,
			b.swap(component, "kubelet-certificate-authority", kubelets.pem, others.pem), b.nodeCaller("reload-trusts", trusting))}
	}
}

// nodeCaller makes a node whose kubelet is a front, and returns a call that the
// API server hands on to it.
func (b *bench) nodeCaller(name string, f *front) func(context.Context) error {
	b.t.Helper()
	nodes := b.api().CoreV1().Nodes()
	node, err := nodes.Create(b.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ownAddress}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = f.port(b)
	if _, err := nodes.UpdateStatus(b.t.Context(), node, metav1.UpdateOptions{}); err != nil {
		b.t.Fatal(err)
	}
	return func(ctx context.Context) error {
		return b.api().CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes/" + name + "/proxy/pods").Do(ctx).Error()
	}
}

func (f *front) port(b *bench) int32 {
	b.t.Helper()
	_, port, err := net.SplitHostPort(f.address)
	if err != nil {
		b.t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		b.t.Fatal(err)
	}
	return int32(n)
}

// extensionRow: a front stands for an extension API server.
func (b *bench) extensionRow() (flags []string, rows func() []*reloadRow) {
	component := catalog.APIServer
	const group, version = "reload.test", "v1"
	servers := newAuthority(b.t, "extension servers")
	f := newFront(b.t, b.frontLeaf(servers), b.frontLeaf(servers), tls.RequestClientCert).handle(b.t,
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(metav1.APIResourceList{
				TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: group + "/" + version,
			})
		}))
	old := load(b.t, b.pki("front-proxy-client"))
	next := b.proxy.again(b.t, old.certificate)
	flags = append(b.givePair(component, "proxy-client-cert-file", "proxy-client-key-file", old), "--enable-aggregator-routing")
	return flags, func() []*reloadRow {
		b.register(f, group, version, servers)
		row := clientRow(component, []string{"proxy-client-cert-file", "proxy-client-key-file"}, f, old, next,
			b.swapPair(component, "proxy-client-cert-file", "proxy-client-key-file", next, nil))
		shown := row.seen
		row.seen = func(ctx context.Context) (bool, error) {
			if err := b.api().RESTClient().Get().AbsPath("/apis/" + group + "/" + version).Do(ctx).Error(); err != nil {
				return false, err
			}
			return shown(ctx)
		}
		row.live = nil // the old ones go on, unused
		return []*reloadRow{row}
	}
}

// register makes a front an extension API server of the cluster.
func (b *bench) register(f *front, group, version string, servers *authority) {
	b.t.Helper()
	ctx, port := b.t.Context(), f.port(b)
	meta := metav1.ObjectMeta{Name: "reload", Namespace: "kube-system", Labels: map[string]string{discoveryv1.LabelServiceName: "reload"}}
	_, err := b.api().CoreV1().Services("kube-system").Create(ctx, &corev1.Service{
		ObjectMeta: meta, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 443}}},
	}, metav1.CreateOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = b.api().DiscoveryV1().EndpointSlices("kube-system").Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{ownAddress}}},
		Ports:     []discoveryv1.EndpointPort{{Name: new(string), Port: &port}},
	}, metav1.CreateOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(b.admin)
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = client.Resource(schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}).Create(ctx,
		&unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": map[string]any{"name": version + "." + group},
			"spec": map[string]any{
				"group": group, "version": version, "groupPriorityMinimum": int64(100), "versionPriority": int64(100),
				"caBundle": base64.StdEncoding.EncodeToString(servers.pem),
				"service":  map[string]any{"namespace": "kube-system", "name": "reload", "port": int64(443)},
			},
		}}, metav1.CreateOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
}

// tokenRows: a token that a new key has signed is believed, and the API server
// signs with a new key.
func (b *bench) tokenRows() (flags []string, rows func() []*reloadRow) {
	component := catalog.APIServer
	believed, signing := newAuthority(b.t, "believed"), newAuthority(b.t, "signing")
	current := read(b.t, b.pki("sa.pub"))
	flags = []string{
		b.give(component, "service-account-key-file", current),
		b.give(component, "service-account-signing-key-file", read(b.t, b.pki("sa.key"))),
	}
	return flags, func() []*reloadRow {
		return []*reloadRow{
			{
				component: component, settings: []string{"service-account-key-file"}, every: time.Second,
				// The other row's key is among them, for what it signs.
				change: b.swap(component, "service-account-key-file", current, b.publicKey(believed), b.publicKey(signing)),
				seen:   func(ctx context.Context) (bool, error) { return b.believes(ctx, believed) },
			},
			{
				component: component, settings: []string{"service-account-signing-key-file"}, every: time.Second,
				change: b.swap(component, "service-account-signing-key-file", signing.key),
				seen: func(ctx context.Context) (bool, error) {
					token, err := b.token(ctx)
					if err != nil {
						return false, err
					}
					return signedBy(token, signing)
				},
			},
		}
	}
}

func (b *bench) publicKey(a *authority) []byte {
	b.t.Helper()
	data, err := issue.EncodePublicKey(a.Key.Public())
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

// token asks for a token of the service account that controllers of the API
// server make first.
func (b *bench) token(ctx context.Context) (string, error) {
	accounts := b.api().CoreV1().ServiceAccounts("kube-system")
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "reload"}}
	if _, err := accounts.Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return "", err
	}
	request, err := accounts.CreateToken(ctx, "reload", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return request.Status.Token, nil
}

// schedulerToken is a token of an account that may do what the scheduler does.
func (b *bench) schedulerToken() string {
	b.t.Helper()
	token, err := b.token(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = b.api().RbacV1().ClusterRoleBindings().Create(b.t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "reload"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "kube-system", Name: "reload"}},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		b.t.Fatal(err)
	}
	return token
}

// signedBy tells whether a token names an authority's key as the one that has
// signed it: client-go's and the API server's way, k/k pkg/serviceaccount/jwt.go.
func signedBy(token string, a *authority) (bool, error) {
	encoded, _, _ := strings.Cut(token, ".")
	data, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return false, err
	}
	var header struct {
		KeyID string `json:"kid"`
	}
	if err := json.Unmarshal(data, &header); err != nil {
		return false, err
	}
	der, err := x509.MarshalPKIXPublicKey(a.Key.Public())
	if err != nil {
		return false, err
	}
	digest := sha256.Sum256(der)
	return header.KeyID == base64.RawURLEncoding.EncodeToString(digest[:]), nil
}

// believes asks the API server for its verdict on a token that has the content
// of a true one and that another key has signed.
func (b *bench) believes(ctx context.Context, a *authority) (bool, error) {
	token, err := b.token(ctx)
	if err != nil {
		return false, err
	}
	claims := strings.Split(token, ".")[1]
	if token, err = signToken(claims, a); err != nil {
		return false, err
	}
	review, err := b.api().AuthenticationV1().TokenReviews().Create(ctx,
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Authenticated, nil
}

// signToken signs claims by an ECDSA-P256 key (RFC 7515, RFC 7518 section 3.4).
func signToken(claims string, a *authority) (string, error) {
	signed := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256"}`)) + "." + claims
	digest := sha256.Sum256([]byte(signed))
	key, ok := a.Key.(*ecdsa.PrivateKey)
	if !ok {
		return "", fmt.Errorf("a key of type %T cannot sign by ES256", a.Key)
	}
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}
