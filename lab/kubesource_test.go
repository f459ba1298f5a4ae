//go:build linux

package lab_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/kubesource"
)

const (
	shop        = "shop"
	shopSecret  = "till-tls"
	shopSigner  = "shop.example.com/clients"
	shopAccount = "till"
)

// shopCluster is a control plane whose API holds what two TLS servers of the test
// show, and whom they trust. They watch it with no more rights than are documented.
type shopCluster struct {
	*controlPlane
	api  *kubernetes.Clientset // the administrator's
	till *rest.Config          // the servers'
	one  issue.Authority       // signs the servers', and clients
	two  issue.Authority
}

// shopServer tells its clients who they are.
type shopServer struct {
	*kubesource.Source
	address string

	mu   sync.Mutex
	told []string
}

func startShop(t *testing.T) *shopCluster {
	t.Helper()
	s := &shopCluster{controlPlane: &controlPlane{dir: initCluster(t, 1, "--key-algorithm=ECDSA-P256"), shape: "separate"}, one: shopAuthority(t, "one"), two: shopAuthority(t, "two")}
	node := addNode(t, newNetwork(t), "cp1", s.path("cp1", ""), "10.99.0.11/24")
	s.nodes = append(s.nodes, node)
	s.apiserver = start(t, node, "kube-apiserver")
	ready(t, start(t, node, "etcd", "--unsafe-no-fsync"), s.apiserver)
	s.admin = s.conf(t, "super-admin")
	s.api = s.client(t)
	s.till = rest.CopyConfig(s.admin)
	s.till.Impersonate.UserName, s.till.Timeout = shopAccount, 0 // of watches
	s.fill(t)
	return s
}

func shopAuthority(t *testing.T, name string) issue.Authority {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(24 * time.Hour)}, key)
	if err != nil {
		t.Fatal(err)
	}
	return issue.Authority{Certificate: c, Key: key}
}

func shopLeaf(t *testing.T, ca issue.Authority, name string, usage x509.ExtKeyUsage) (certificate, key []byte) {
	t.Helper()
	private, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c, err := issue.Sign(issue.Template{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"}, Usages: []x509.ExtKeyUsage{usage}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
	}, private.Public(), ca)
	if err != nil {
		t.Fatal(err)
	}
	return trust.EncodeCertificates(c), privatePEM(t, private)
}

func anchorsOf(all ...issue.Authority) string {
	var anchors []*x509.Certificate
	for _, a := range all {
		anchors = append(anchors, a.Certificate)
	}
	return string(trust.EncodeCertificates(anchors...))
}

func (s *shopCluster) secret(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	certificate, key := shopLeaf(t, s.one, name, x509.ExtKeyUsageServerAuth)
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: shopSecret}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": certificate, "tls.key": key},
	}
}

func shopConfigMap(all ...issue.Authority) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "clients"}, Data: map[string]string{"ca.crt": anchorsOf(all...)}}
}

func shopTrustBundle(name string, all ...issue.Authority) *certificatesv1.ClusterTrustBundle {
	return &certificatesv1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: strings.ReplaceAll(shopSigner, "/", ":") + ":" + name},
		Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: shopSigner, TrustBundle: anchorsOf(all...)},
	}
}

// fill makes the objects, and gives the rights that package kubesource documents.
func (s *shopCluster) fill(t *testing.T) {
	t.Helper()
	read := []string{"list", "watch"}
	subject := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: shopAccount}}
	meta, create := metav1.ObjectMeta{Name: "till"}, metav1.CreateOptions{}
	if _, err := s.api.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shop}}, create); err != nil {
		t.Fatal(err)
	}
	_, clusterRoleErr := s.api.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"clustertrustbundles"}, Verbs: read},
		{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"create", "list", "watch"}},
	}}, create)
	_, clusterBindingErr := s.api.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "till"}, Subjects: subject,
	}, create)
	role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{shopSecret}, Verbs: read},
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"clients"}, Verbs: read},
	}}
	binding := &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "till"}, Subjects: subject}
	_, roleErr := s.api.RbacV1().Roles(shop).Create(t.Context(), role, create)
	_, bindingErr := s.api.RbacV1().RoleBindings(shop).Create(t.Context(), binding, create)
	_, secretErr := s.api.CoreV1().Secrets(shop).Create(t.Context(), s.secret(t, "first"), create)
	_, mapErr := s.api.CoreV1().ConfigMaps(shop).Create(t.Context(), shopConfigMap(s.one), create)
	_, bundleErr := s.api.CertificatesV1().ClusterTrustBundles().Create(t.Context(), shopTrustBundle("a", s.one), create)
	if err := errors.Join(clusterRoleErr, clusterBindingErr, roleErr, bindingErr, secretErr, mapErr, bundleErr); err != nil {
		t.Fatal(err)
	}
}

// serve starts a server with the Secret and a bundle.
func (s *shopCluster) serve(t *testing.T, bundle kubesource.Bundle) *shopServer {
	t.Helper()
	server := &shopServer{}
	var err error
	server.Source, err = kubesource.New(kubernetes.NewForConfigOrDie(s.till), kubesource.Config{
		Pair: kubesource.Secret{Namespace: shop, Name: shopSecret}, Bundle: bundle, Usage: x509.ExtKeyUsageServerAuth, Told: server.hear,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server.address = listener.Addr().String()
	web := &http.Server{TLSConfig: mtls.ServerConfig(server, mtls.RequireClients), ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := mtls.VerifyClient(server, r.TLS)
		if err != nil {
			http.Error(w, "not allowed", http.StatusForbidden)
			return
		}
		fmt.Fprint(w, peer.Certificate.Subject.CommonName)
	})}
	go web.ServeTLS(listener, "", "") //nolint:errcheck // it is closed
	t.Cleanup(func() {
		web.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("told: %q", server.told)
		}
	})
	wait, stop := context.WithTimeout(t.Context(), readyWait)
	defer stop()
	if err := server.WaitReady(wait); err != nil {
		t.Fatal(err)
	}
	return server
}

func (s *shopServer) hear(c kubesource.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, fmt.Sprintf("%s: %v", c.Object, c.Err))
}

// said tells whether something was told of, and how often.
func (s *shopServer) said(text string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.told {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// visitor is a client with a certificate of an authority.
func visitor(t *testing.T, ca, trusts issue.Authority) *tls.Config {
	t.Helper()
	certificate, key := shopLeaf(t, ca, "of "+ca.Certificate.Subject.CommonName, x509.ExtKeyUsageClientAuth)
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(trusts.Certificate)
	return &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{pair}}
}

// visit makes a new connection, and returns whom the server shows.
func (s *shopServer) visit(ctx context.Context, who *tls.Config) (string, error) {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: who.Clone(), DisableKeepAlives: true}, Timeout: 10 * time.Second}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.address, nil)
	if err != nil {
		return "", err
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s, %w", answer.Status, err)
	}
	return answer.TLS.PeerCertificates[0].Subject.CommonName, nil
}

// until waits for a server to show a certificate to somebody, or to refuse them
// where it is "".
func (s *shopServer) until(t *testing.T, who *tls.Config, shows string) {
	t.Helper()
	began := time.Now()
	eventually(t, "the server shows "+shows, func(ctx context.Context) error {
		got, err := s.visit(ctx, who)
		switch {
		case shows == "" && err == nil:
			return errors.New("it lets in who must not come in")
		case shows == "":
			return nil
		case err == nil && got != shows:
			return fmt.Errorf("it shows %s", got)
		}
		return err
	})
	t.Logf("%q after %s", shows, time.Since(began).Round(time.Millisecond))
}

// always visits a server all the while a test changes things, and fails where one
// visit does.
func (s *shopServer) always(t *testing.T, who *tls.Config, change func()) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	visits := 0
	running.Go(func() {
		for ; ctx.Err() == nil; visits++ {
			if _, err := s.visit(context.Background(), who); err != nil {
				t.Errorf("visit %d: %v", visits, err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
	})
	defer func() {
		stop()
		running.Wait()
		t.Logf("%d visits", visits)
		if visits == 0 {
			t.Error("nobody came")
		}
	}()
	change()
}

func TestSourcesOfTheKubernetesAPI(t *testing.T) {
	s := startShop(t)
	byMap := s.serve(t, kubesource.ConfigMap(shop, "clients", "ca.crt"))
	byBundle := s.serve(t, kubesource.TrustBundles(shopSigner, &metav1.LabelSelector{}))
	servers := []*shopServer{byMap, byBundle}
	t.Run("they are rotated under a running server", func(t *testing.T) { s.testRotation(t, byMap, byBundle) })
	t.Run("the API server is killed, and comes back", func(t *testing.T) { s.testKilled(t, servers) })
	t.Run("what is deleted stays, and is told of", func(t *testing.T) { s.testDeleted(t, byMap, byBundle) })
	t.Run("a signer of the cluster issues, and denials are told", s.testIssuer)
}

// testRotation trusts both authorities before the clients change theirs.
func (s *shopCluster) testRotation(t *testing.T, byMap, byBundle *shopServer) {
	one, two := visitor(t, s.one, s.one), visitor(t, s.two, s.one)
	update, ctx := metav1.UpdateOptions{}, t.Context()
	byMap.until(t, one, "first")
	byBundle.until(t, two, "")
	byMap.always(t, one, func() {
		for i := range 10 {
			name := fmt.Sprintf("rotated %d", i)
			if _, err := s.api.CoreV1().Secrets(shop).Update(ctx, s.secret(t, name), update); err != nil {
				t.Fatal(err)
			}
			byMap.until(t, one, name)
			byBundle.until(t, one, name)
		}
		if _, err := s.api.CoreV1().ConfigMaps(shop).Update(ctx, shopConfigMap(s.one, s.two), update); err != nil {
			t.Fatal(err)
		}
		byMap.until(t, two, "rotated 9")
		if _, err := s.api.CertificatesV1().ClusterTrustBundles().Create(ctx, shopTrustBundle("b", s.two), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		byBundle.until(t, two, "rotated 9")
		byBundle.until(t, one, "rotated 9")
	})
	if err := s.api.CertificatesV1().ClusterTrustBundles().Delete(ctx, shopTrustBundle("a").Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	byBundle.until(t, one, "")
	byBundle.until(t, two, "rotated 9")
	broken := s.secret(t, "broken")
	broken.Data["tls.key"] = s.secret(t, "other").Data["tls.key"]
	if _, err := s.api.CoreV1().Secrets(shop).Update(ctx, broken, update); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is told", func(context.Context) error {
		if byMap.said("does not belong to the key") != 1 || !byMap.Status().Failing {
			return fmt.Errorf("%+v", byMap.Status())
		}
		return nil
	})
	byMap.until(t, two, "rotated 9")
}

func (s *shopCluster) testKilled(t *testing.T, servers []*shopServer) {
	two := visitor(t, s.two, s.one)
	servers[0].always(t, two, func() {
		if err := s.apiserver.Kill(); err != nil {
			t.Fatal(err)
		}
		for _, server := range servers {
			eventually(t, "it is told", func(context.Context) error {
				if server.said("could not be asked") == 0 {
					return errors.New("it is not")
				}
				return nil
			})
			server.until(t, two, "rotated 9")
		}
		// As if it were one of before, which serves ClusterTrustBundles in v1beta1 alone.
		s.apiserver = start(t, s.nodes[0], "kube-apiserver", "--runtime-config=certificates.k8s.io/v1/clustertrustbundles=false,certificates.k8s.io/v1beta1=true")
		ready(t, s.apiserver)
		if _, err := s.api.CertificatesV1().ClusterTrustBundles().List(t.Context(), metav1.ListOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("v1 is served: %v", err)
		}
		eventually(t, "the Secret is mended", func(ctx context.Context) error {
			_, err := s.api.CoreV1().Secrets(shop).Update(ctx, s.secret(t, "after the crash"), metav1.UpdateOptions{})
			return err
		})
		for _, server := range servers {
			server.until(t, two, "after the crash")
			if status := server.Status(); status.Failing || time.Since(status.AsOf) > readyWait {
				t.Errorf("%+v", status)
			}
			// Once for each object and kind of trouble, however long it was away.
			if n := server.said("could not be asked"); n > 10 {
				t.Errorf("told %d times", n)
			}
		}
	})
}

func (s *shopCluster) testDeleted(t *testing.T, byMap, byBundle *shopServer) {
	two, remove := visitor(t, s.two, s.one), metav1.DeleteOptions{}
	if err := errors.Join(
		s.api.CoreV1().Secrets(shop).Delete(t.Context(), shopSecret, remove),
		s.api.CoreV1().ConfigMaps(shop).Delete(t.Context(), "clients", remove),
		s.api.CertificatesV1beta1().ClusterTrustBundles().Delete(t.Context(), shopTrustBundle("b").Name, remove),
	); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is told", func(context.Context) error {
		for _, text := range []string{"secret shop/till-tls: there is none", "configmap shop/clients: there is none"} {
			if byMap.said(text) != 1 {
				return fmt.Errorf("not of %q", text)
			}
		}
		if byBundle.said("clustertrustbundles of signer "+shopSigner+": there is none") != 1 {
			return errors.New("not of the bundles")
		}
		return nil
	})
	for _, server := range []*shopServer{byMap, byBundle} {
		server.until(t, two, "after the crash")
		if !server.Status().Failing {
			t.Errorf("%+v", server.Status())
		}
	}
}

// testIssuer has certificates issued by the controller manager, and comes in at
// the API server with them.
func (s *shopCluster) testIssuer(t *testing.T) {
	s.manager = start(t, s.nodes[0], "kube-controller-manager") // now: it would not have outlived the API server
	issuer := &kubesource.Issuer{
		Client: kubernetes.NewForConfigOrDie(s.till), SignerName: certificatesv1.KubeAPIServerClientSignerName, Expiration: 10 * time.Minute, Prefix: "till-",
		Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
	}
	bundle, err := mtls.ParseBundle(read(t, s.pki("ca.crt")))
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan mtls.Renewed, 10)
	source, err := mtls.NewRenewing(mtls.Renewal{
		Issuer: issuer, Request: x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane", Organization: []string{"shop"}}}, Usage: x509.ExtKeyUsageClientAuth,
		Bundle: bundle, Told: func(r mtls.Renewed) { told <- r },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- source.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	s.decide(t, certificatesv1.CertificateApproved)
	first := s.issued(t, told)
	if first.Err != nil || first.Certificate.Subject.CommonName != "jane" || time.Until(first.Next) > 8*time.Minute {
		t.Fatalf("%+v", first)
	}
	config := rest.AnonymousClientConfig(s.admin)
	config.TLSClientConfig = rest.TLSClientConfig{}
	config.Transport = &http.Transport{TLSClientConfig: mtls.ClientConfig(source, mtls.Named("10.99.0.11"))}
	got, err := whoami(t, config)
	if err != nil || got.User != "jane" || !slices.Contains(got.Groups, "shop") {
		t.Errorf("%+v, %v", got, err)
	}

	source.Renew()
	s.decide(t, certificatesv1.CertificateDenied)
	if denied := s.issued(t, told); denied.Err == nil || !strings.Contains(denied.Err.Error(), `was denied: "Lab"`) {
		t.Errorf("%+v", denied)
	}
	s.decide(t, certificatesv1.CertificateApproved)
	if second := s.issued(t, told); second.Err != nil || second.Certificate.Equal(first.Certificate) {
		t.Errorf("%+v", second)
	}
}

func (s *shopCluster) issued(t *testing.T, told <-chan mtls.Renewed) mtls.Renewed {
	t.Helper()
	select {
	case r := <-told:
		return r
	case <-time.After(readyWait):
		t.Fatal("nothing is told")
	}
	return mtls.Renewed{}
}

// decide waits for the one request that waits, and decides on it.
func (s *shopCluster) decide(t *testing.T, verdict certificatesv1.RequestConditionType) {
	t.Helper()
	requests := s.api.CertificatesV1().CertificateSigningRequests()
	eventually(t, "a request is decided", func(ctx context.Context) error {
		all, err := requests.List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, r := range all.Items {
			if !strings.HasPrefix(r.Name, "till-") || len(r.Status.Conditions) > 0 {
				continue
			}
			r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: verdict, Status: corev1.ConditionTrue, Reason: "Lab", Message: "by the test"}}
			_, err := requests.UpdateApproval(ctx, r.Name, &r, metav1.UpdateOptions{})
			return err
		}
		return errors.New("there is none")
	})
}
