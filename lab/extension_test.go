//go:build linux

package lab_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kubepki/kubepki/lab"
)

const (
	extensionAddress = "10.99.0.11:8443"
	callersMe        = "/apis/hello.example.com/v1/callers/me"
)

// extended is a cluster with examples/extension-apiserver in its aggregation
// layer.
type extended struct {
	*controlPlane
	servers *authority // of the extension API server's certificate
	server  *lab.Process
}

func TestExtensionAPIServerLearnsWhoCalls(t *testing.T) {
	e := startExtended(t)
	t.Run("by kube-apiserver", e.testProxied)
	t.Run("kubectl", e.testKubectl)
	t.Run("directly", e.testDirect)
	t.Run("the front proxy's authority is rotated", e.testRotation)
	select {
	case <-e.server.Done():
		t.Error("the extension API server has ended")
	default:
	}
}

func startExtended(t *testing.T) *extended {
	t.Helper()
	e := &extended{controlPlane: &controlPlane{dir: initCluster(t, 1, "--key-algorithm=ECDSA-P256")}, servers: newAuthority(t, "extension servers")}
	node := addNode(t, newNetwork(t), "cp1", e.path("cp1", ""), "10.99.0.11/24")
	e.nodes = []*lab.Node{node}
	e.admin = e.conf(t, "super-admin")
	ready(t, start(t, node, "etcd", "--unsafe-no-fsync"))
	// kubeadm sets no header for UIDs, without which none is taken.
	e.apiserver = start(t, node, "kube-apiserver", "--enable-aggregator-routing", "--requestheader-uid-headers=X-Remote-Uid")
	ready(t, e.apiserver)
	e.makeRights(t)
	e.startServer(t)
	e.register(t)
	return e
}

func (e *extended) api(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(e.admin)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// makeRights: everybody who is known may ask, and the server may read settings.
func (e *extended) makeRights(t *testing.T) {
	t.Helper()
	api, ctx := e.api(t).RbacV1(), t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := api.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "hello"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"hello.example.com"}, Resources: []string{"callers"}, Verbs: []string{"get", "list"}},
	}}, metav1.CreateOptions{})
	must(err)
	_, err = api.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "hello"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "hello"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "system:authenticated"}},
	}, metav1.CreateOptions{})
	must(err)
	eventually(t, "the role of kube-system", func(ctx context.Context) error {
		_, err := api.Roles("kube-system").Get(ctx, "extension-apiserver-authentication-reader", metav1.GetOptions{})
		return err
	})
	_, err = api.RoleBindings("kube-system").Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "hello"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "extension-apiserver-authentication-reader"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "extension-apiserver"}},
	}, metav1.CreateOptions{})
	must(err)
}

func (e *extended) startServer(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	serving := e.servers.leaf(t, pkix.Name{CommonName: "hello"}, "hello.kube-system.svc", "10.99.0.11")
	write(t, in("tls.crt"), string(serving.certificate))
	write(t, in("tls.key"), string(serving.key))
	user := forge(t, e.authority("ca"), "extension-apiserver")
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: e.admin.Host, CertificateAuthorityData: read(t, e.pki("ca.crt"))}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{ClientCertificateData: user.certificate, ClientKeyData: user.key}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	if err := clientcmd.WriteToFile(*config, in("kubeconfig")); err != nil {
		t.Fatal(err)
	}
	var err error
	e.server, err = e.nodes[0].Run(&lab.Manifest{Name: "extension-apiserver", Probe: &url.URL{Scheme: "https", Host: extensionAddress, Path: "/readyz"}, Command: []string{
		"extension-apiserver", "--listen=" + extensionAddress, "--tls-cert-file=" + in("tls.crt"), "--tls-private-key-file=" + in("tls.key"), "--kubeconfig=" + in("kubeconfig"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the extension API server:\n%s", e.server.Log())
		}
	})
	ready(t, e.server)
}

// register makes the server one of the cluster's.
func (e *extended) register(t *testing.T) {
	t.Helper()
	ctx, api, port := t.Context(), e.api(t), int32(8443)
	meta := metav1.ObjectMeta{Name: "hello", Namespace: "kube-system", Labels: map[string]string{discoveryv1.LabelServiceName: "hello"}}
	_, err := api.CoreV1().Services("kube-system").Create(ctx, &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 443}}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = api.DiscoveryV1().EndpointSlices("kube-system").Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.99.0.11"}}},
		Ports:     []discoveryv1.EndpointPort{{Name: new(string), Port: &port}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	service := strings.ReplaceAll(documentedIn(t, filepath.Join("..", "examples", "extension-apiserver", "README.md"), "APIService"),
		"CA_BUNDLE", base64.StdEncoding.EncodeToString(e.servers.pem))
	err = api.CoreV1().RESTClient().Post().AbsPath("/apis/apiregistration.k8s.io/v1/apiservices").SetHeader("Content-Type", "application/yaml").Body([]byte(service)).Do(ctx).Error()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the extension API server is available", func(context.Context) error {
		_, err := e.caller(t, e.admin)
		return err
	})
}

// documentedIn returns the YAML of a kind in a page.
func documentedIn(t *testing.T, page, kind string) string {
	t.Helper()
	for _, block := range strings.Split(string(read(t, page)), "```yaml\n")[1:] {
		if text, _, _ := strings.Cut(block, "```"); strings.Contains("\n"+text, "\nkind: "+kind+"\n") {
			return text
		}
	}
	t.Fatalf("%s shows no %s", page, kind)
	return ""
}

// callerObject is what the extension API server says of who calls.
type callerObject struct {
	User authenticationv1.UserInfo `json:"user"`
	From string                    `json:"from"`
}

// caller asks by kube-apiserver.
func (e *extended) caller(t *testing.T, config *rest.Config) (callerObject, error) {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	data, err := client.CoreV1().RESTClient().Get().AbsPath(callersMe).DoRaw(t.Context())
	if err != nil {
		return callerObject{}, err
	}
	var c callerObject
	if err := json.Unmarshal(data, &c); err != nil {
		return callerObject{}, fmt.Errorf("%w in %q", err, data)
	}
	slices.Sort(c.User.Groups)
	return c, nil
}

// users call in each way in which users of a cluster do.
func (e *extended) users(t *testing.T) map[string]*rest.Config {
	t.Helper()
	accounts := e.api(t).CoreV1().ServiceAccounts("default")
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	token, err := accounts.CreateToken(t.Context(), "robot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	robot := &rest.Config{Host: e.admin.Host, QPS: -1, Timeout: e.admin.Timeout, BearerToken: token.Status.Token,
		TLSClientConfig: rest.TLSClientConfig{CAData: e.admin.CAData, CAFile: e.admin.CAFile}}
	other := rest.CopyConfig(e.admin)
	other.Impersonate = rest.ImpersonationConfig{UserName: "Jürgen, of sales", UID: "42", Groups: []string{"sales", "système"},
		Extra: map[string][]string{"scopes": {"a", "b"}, "example.com/with space%2f": {"ü"}}}
	return map[string]*rest.Config{
		"a certificate without groups":   forge(t, e.authority("ca"), "joe").as(e.admin),
		"a certificate with groups":      forge(t, e.authority("ca"), "jane", "dev", "ops").as(e.admin),
		"the administrator":              e.admin,
		"the token of a service account": robot,
		"who acts as another":            other,
	}
}

// spoofed says that it is the administrator, in each spelling.
var spoofed = map[string]string{
	"X-Remote-User": "admin", "X-Remote-Group": "system:masters", "X-Remote-Uid": "0", "X-Remote-Extra-Evil": "1", "X_Remote_User": "admin", "X_Remote_Group": "system:masters",
	"X-REMOTE-EXTRA-Scopes": "all",
}

// stripped asks each proxy on the way to take out what the next is told.
var stripped = map[string]string{"Connection": "X-Remote-User, X-Remote-Group, X-Remote-Uid, X-Remote-Extra-Scopes"}

// testProxied: what kube-apiserver says of each user the extension says too, and
// no header of the client changes it.
func (e *extended) testProxied(t *testing.T) {
	for name, config := range e.users(t) {
		t.Run(name, func(t *testing.T) {
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				t.Fatal(err)
			}
			review, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			want := review.Status.UserInfo
			slices.Sort(want.Groups)
			if want.Extra == nil {
				want.Extra = map[string]authenticationv1.ExtraValue{}
			}
			lying := rest.CopyConfig(config)
			lying.Wrap(func(next http.RoundTripper) http.RoundTripper { return headers{spoofed, next} })
			taking := rest.CopyConfig(lying)
			taking.NextProtos = []string{"http/1.1"} // HTTP/2 has no such header
			taking.Wrap(func(next http.RoundTripper) http.RoundTripper { return headers{stripped, next} })
			for how, c := range map[string]*rest.Config{"as it is": config, "lying": lying, "lying, and taking out": taking} {
				got, err := e.caller(t, c)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(want, got.User); d != "" {
					t.Errorf("%s: %s", how, d)
				}
				if !strings.Contains(got.From, "CN=front-proxy-client") {
					t.Errorf("%s: it came from %s", how, got.From)
				}
			}
		})
	}
}

func (e *extended) testKubectl(t *testing.T) {
	kubectl := func(args ...string) string {
		t.Helper()
		return run(t, "kubectl", append([]string{"--kubeconfig=" + e.path("cp1", "etc/kubernetes/super-admin.conf")}, args...)...).stdout
	}
	if got := kubectl("get", "callers", "me", "-o", "jsonpath={.user.username}"); got != "kubernetes-super-admin" {
		t.Errorf("kubectl get callers me: %q", got)
	}
	if got := kubectl("get", "callers"); !strings.Contains(got, "NAME") || !strings.Contains(got, "me") {
		t.Errorf("kubectl get callers: %q", got)
	}
	if got := kubectl("api-resources", "--api-group=hello.example.com"); !strings.Contains(got, "hello.example.com/v1") {
		t.Errorf("kubectl api-resources: %q", got)
	}
}

// directly asks without kube-apiserver, over one connection, by a credential.
func (e *extended) directly(t *testing.T, show *credential) func(set map[string]string) (int, callerObject) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(e.servers.pem)
	config := &tls.Config{RootCAs: roots}
	if show != nil {
		pair := show.pair(t)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return func(set map[string]string) (int, callerObject) {
		t.Helper()
		client := &http.Client{Transport: headers{set, transport}, Timeout: 10 * time.Second}
		answer, err := client.Get("https://" + extensionAddress + callersMe)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		data, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		var c callerObject
		if answer.StatusCode == http.StatusOK {
			if err := json.Unmarshal(data, &c); err != nil {
				t.Fatalf("%v in %q", err, data)
			}
		} else if text := strings.TrimSpace(string(data)); text != "Unauthorized" {
			t.Errorf("the answer tells %q", text)
		}
		return answer.StatusCode, c
	}
}

var asAdmin = map[string]string{"X-Remote-User": "admin", "X-Remote-Group": "system:masters"}

func (e *extended) testDirect(t *testing.T) {
	proxies := loadAuthority(t, e.authority("front-proxy-ca"))
	shows := func(c credential) *credential { return &c }
	for name, c := range map[string]struct {
		show   *credential
		user   string // empty: nobody
		groups []string
	}{
		"no certificate":                                                         {},
		"a user of the cluster":                                                  {shows(forge(t, e.authority("ca"), "jane", "dev")), "jane", []string{"dev", "system:authenticated"}},
		"a user with the proxy's name":                                           {shows(forge(t, e.authority("ca"), "front-proxy-client")), "front-proxy-client", []string{"system:authenticated"}},
		"another client of the proxy's authority":                                {show: shows(forge(t, e.authority("front-proxy-ca"), "somebody"))},
		"the proxy's name from the etcd authority":                               {show: shows(forge(t, e.authority("etcd/ca"), "front-proxy-client"))},
		"the proxy's name from an authority so called":                           {show: shows(newAuthority(t, proxies.Certificate.Subject.CommonName).leaf(t, pkix.Name{CommonName: "front-proxy-client"}))},
		"the proxy itself, which shows that the rest is not refused for nothing": {shows(load(t, e.pki("front-proxy-client"))), "admin", []string{"system:masters", "system:authenticated"}},
	} {
		t.Run(name, func(t *testing.T) {
			status, got := e.directly(t, c.show)(asAdmin)
			if c.user == "" {
				if status != http.StatusUnauthorized {
					t.Errorf("%d, %+v", status, got)
				}
				return
			}
			if status != http.StatusOK || got.User.Username != c.user || !slices.Equal(got.User.Groups, c.groups) || len(got.User.UID) > 0 {
				t.Errorf("%d, %+v", status, got)
			}
		})
	}
}

// testRotation replaces the front proxy's authority as docs/frontproxy.md says,
// while somebody calls all the time: the old and the new are trusted, the proxy
// shows the new, the old is not trusted any more.
func (e *extended) testRotation(t *testing.T) {
	old, next := load(t, e.pki("front-proxy-client")), newAuthority(t, "front-proxy-ca-2")
	proxies := read(t, e.pki("front-proxy-ca.crt"))
	formerly, other := e.directly(t, &old), next.leaf(t, pkix.Name{CommonName: "front-proxy-client"})
	newly := e.directly(t, &other)
	if status, _ := newly(asAdmin); status != http.StatusUnauthorized {
		t.Fatalf("an authority that nobody trusts yet: %d", status)
	}

	ctx, stop := context.WithCancel(t.Context())
	var calls, failed atomic.Int64
	var calling sync.WaitGroup
	jane := forge(t, e.authority("ca"), "jane", "dev").as(e.admin)
	calling.Go(func() {
		for ctx.Err() == nil {
			got, err := e.caller(t, jane)
			calls.Add(1)
			if err != nil || got.User.Username != "jane" {
				failed.Add(1)
				t.Errorf("a call in the rotation: %+v, %v", got.User, err)
			}
		}
	})
	defer calling.Wait()
	defer stop()

	goOn := func() {
		t.Helper()
		until := calls.Load() + 50
		eventually(t, "calls go on", func(context.Context) error {
			if n := calls.Load(); n < until {
				return fmt.Errorf("%d calls, of %d", n, until)
			}
			return nil
		})
	}
	replace := func(name string, data []byte) {
		t.Helper()
		goOn()
		if err := os.Rename(write(t, e.pki(name+".new"), string(data)), e.pki(name)); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	replace("front-proxy-ca.crt", slices.Concat(proxies, next.pem))
	eventually(t, "both are trusted", func(context.Context) error {
		if status, got := newly(asAdmin); status != http.StatusOK || got.User.Username != "admin" {
			return fmt.Errorf("%d, %+v", status, got)
		}
		return nil
	})
	t.Logf("kube-apiserver published the new authority, and it was taken up, in %s", time.Since(begin).Round(time.Millisecond))
	if status, _ := formerly(asAdmin); status != http.StatusOK {
		t.Errorf("the old proxy: %d", status)
	}

	replace("front-proxy-client.key", other.key)
	replace("front-proxy-client.crt", other.certificate)
	serial := fmt.Sprintf("%x", certificatesIn(other.certificate)[0].SerialNumber)
	eventually(t, "kube-apiserver shows the new certificate", func(context.Context) error {
		got, err := e.caller(t, jane)
		if err == nil && !strings.HasSuffix(got.From, ", "+serial) {
			err = fmt.Errorf("it came from %s", got.From)
		}
		return err
	})

	// kube-apiserver adds to the ConfigMap and takes nothing out: people do.
	replace("front-proxy-ca.crt", next.pem)
	maps := e.api(t).CoreV1().ConfigMaps("kube-system")
	begin = time.Now()
	eventually(t, "the old one is not trusted any more, on the connection that stands", func(ctx context.Context) error {
		config, err := maps.Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if config.Data["requestheader-client-ca-file"] != string(next.pem) {
			config.Data["requestheader-client-ca-file"] = string(next.pem)
			if _, err := maps.Update(ctx, config, metav1.UpdateOptions{}); err != nil {
				return err
			}
		}
		if status, _ := formerly(asAdmin); status != http.StatusUnauthorized {
			return fmt.Errorf("the old proxy: %d", status)
		}
		return nil
	})
	t.Logf("the old authority was out of use in %s", time.Since(begin).Round(time.Millisecond))
	if status, got := newly(asAdmin); status != http.StatusOK || got.User.Username != "admin" {
		t.Errorf("the new proxy: %d, %+v", status, got)
	}
	goOn()
	stop()
	calling.Wait()
	t.Logf("%d calls in the rotation, %d failed", calls.Load(), failed.Load())
}
