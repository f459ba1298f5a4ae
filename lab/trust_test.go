//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/lab"
)

// platform is a management platform with an authority of its own.
type platform struct {
	*authority
	file   string // its certificate
	client *kubernetes.Clientset
}

// newPlatform makes one whose client calls the API server of cp1, and keeps its
// connection.
func newPlatform(t *testing.T, name, root string) *platform {
	t.Helper()
	p := &platform{authority: newAuthority(t, name)}
	p.file = write(t, filepath.Join(t.TempDir(), name+".crt"), string(p.pem))
	return p.at(t, root, "10.99.0.11")
}

// at is the platform whose client calls another API server.
func (p *platform) at(t *testing.T, root, address string) *platform {
	t.Helper()
	cluster := x509.NewCertPool()
	cluster.AppendCertsFromPEM(read(t, filepath.Join(root, "etc/kubernetes/pki/ca.crt")))
	shown := p.leaf(t, pkix.Name{CommonName: p.Certificate.Subject.CommonName + "-agent", Organization: []string{"agents"}})
	client, err := kubernetes.NewForConfigAndClient(&rest.Config{Host: "https://" + address + ":6443"}, &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: shown.always(t, &tls.Config{RootCAs: cluster, MinVersion: tls.VersionTLS12})},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &platform{p.authority, p.file, client}
}

// accepted tells whether the API server knows the platform's client; false is 401.
func (p *platform) accepted(ctx context.Context) (bool, error) {
	review, err := p.client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if apierrors.IsUnauthorized(err) {
		return false, nil
	}
	return err == nil && strings.HasSuffix(review.Status.UserInfo.Username, "-agent"), err
}

// becomes waits until the API server judges the client so, and returns how long.
func (p *platform) becomes(t *testing.T, want bool) time.Duration {
	t.Helper()
	begun := time.Now()
	for {
		got, err := p.accepted(t.Context())
		if err == nil && got == want {
			return time.Since(begun)
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatalf("the client is accepted: %t (%v), want %t", got, err, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestTrustOfAPlatform: kubeadm's own node, a real kube-apiserver, and a client that is
// refused, let in and refused again, the second time without a restart.
func TestTrustOfAPlatform(t *testing.T) {
	root := kubeadmNode(t, plainConfig)
	node := addNode(t, newNetwork(t), "cp1", root, "10.99.0.11/24")
	etcd := start(t, node, "etcd", "--unsafe-no-fsync")
	apiserver := start(t, node, "kube-apiserver")
	ready(t, etcd, apiserver)
	admin := filepath.Join(root, "etc/kubernetes/super-admin.conf")
	first, second := newPlatform(t, "first", root), newPlatform(t, "second", root)
	const target = "kube-apiserver/client-ca-file"

	// pki/ca.crt is what kube-controller-manager signs with, too.
	before := read(t, filepath.Join(root, "etc/kubernetes/pki/ca.crt"))
	out, err := try(t, "kubepki", "trust", "add", target, first.file, "--root="+root, "--yes")
	if exitCode(err) != 1 || !strings.Contains(out.stderr, "signer-not-single") || !strings.Contains(out.stderr, "--separate") || !strings.Contains(out.stderr, "system:masters") {
		t.Errorf("adding to the shared file ends with %v:\n%s", err, out.stderr)
	}
	if !bytes.Equal(before, read(t, filepath.Join(root, "etc/kubernetes/pki/ca.crt"))) {
		t.Error("ca.crt was changed")
	}
	first.becomes(t, false)

	out = run(t, "kubepki", "trust", "add", target, first.file, "--root="+root, "--separate", "--yes")
	t.Log(out.stderr)
	first.becomes(t, false) // nobody has read the manifest yet
	apiserver = replaced(t, node, apiserver)
	t.Logf("accepted after one restart: %v", first.becomes(t, true))

	// From now on the API server takes changes up by itself.
	pid := apiserver.Pid()
	second.becomes(t, false)
	run(t, "kubepki", "trust", "add", target, second.file, "--root="+root, "--yes")
	t.Logf("accepted without a restart after %v", second.becomes(t, true))
	run(t, "kubepki", "trust", "remove", target, second.file, "--root="+root, "--yes")
	t.Logf("refused without a restart after %v, on the connection that was open", second.becomes(t, false))
	if got, err := first.accepted(t.Context()); err != nil || !got {
		t.Errorf("the first platform is accepted: %t, %v", got, err)
	}
	run(t, "kubepki", "trust", "remove", target, bundle.Fingerprint(first.Certificate)[:12], "--root="+root, "--yes")
	first.becomes(t, false)
	if err := apiserver.Probe(t.Context()); err != nil || apiserver.Pid() != pid {
		t.Errorf("kube-apiserver did not live through it: %v", err)
	}
	// What the cluster needs is not taken away, and names its reason.
	out, err = try(t, "kubepki", "trust", "remove", "kubelet/client-ca-file", filepath.Join(root, "etc/kubernetes/pki/ca.crt"), "--root="+root, "--yes", "--force")
	if exitCode(err) != 1 || !strings.Contains(out.stderr, "left empty") {
		t.Errorf("emptying ends with %v:\n%s", err, out.stderr)
	}
	run(t, "kubepki", "verify", "--root="+root)

	config := restConfig(t, admin)
	t.Run("published", func(t *testing.T) { testPublishedTrust(t, config, admin, second) })
	t.Run("objects", func(t *testing.T) { testTrustOfObjects(t, config, admin, first, second) })
}

// One command for two control planes, whose --client-ca-file is a file of its own from
// the start: neither API server is started anew.
func TestTrustOfAPlatformOnEachControlPlane(t *testing.T) {
	dir := initCluster(t, 2, "--kubelet-authority")
	c := startCluster(t, dir, "separate", 2)
	servers := []*lab.Process{c.apiserver, start(t, c.nodes[1], "kube-apiserver")}
	ready(t, servers[1])
	first := newPlatform(t, "platform", c.path("cp1", ""))
	both := []*platform{first, first.at(t, c.path("cp2", ""), "10.99.0.12")}
	pids := []int{servers[0].Pid(), servers[1].Pid()}
	trust := func(what string, more ...string) output {
		t.Helper()
		nodes := []string{"--root=cp1=" + c.path("cp1", ""), "--root=cp2=" + c.path("cp2", "")}
		return run(t, "kubepki", append(append([]string{"trust", what, "kube-apiserver/client-ca-file", first.file}, nodes...), more...)...)
	}
	become := func(want bool) {
		t.Helper()
		for i, p := range both {
			t.Logf("cp%d: %t after %v", i+1, want, p.becomes(t, want))
		}
	}
	become(false)
	trust("add", "--dry-run")
	become(false)
	trust("add", "--yes")
	become(true)
	if out := trust("add", "--yes"); strings.Count(out.stdout, "unchanged") != 2 {
		t.Errorf("adding it again says %s", out.stdout)
	}
	trust("remove", "--yes")
	become(false)
	for i, p := range servers {
		if err := p.Probe(t.Context()); err != nil || p.Pid() != pids[i] {
			t.Errorf("kube-apiserver of cp%d did not live through it: %v", i+1, err)
		}
	}
	run(t, "kubepki", "verify", dir)
}

// replaced starts a component anew from its manifest, as a kubelet does that sees it
// changed.
func replaced(t *testing.T, node *lab.Node, old *lab.Process) *lab.Process {
	t.Helper()
	if err := old.Stop(); err != nil {
		t.Fatal(err)
	}
	p := start(t, node, "kube-apiserver")
	ready(t, p)
	return p
}

// testPublishedTrust: what kube-apiserver has published for extension API servers it
// never takes back, so that it is removed there too, and stays away.
func testPublishedTrust(t *testing.T, config *rest.Config, admin string, gone *platform) {
	maps := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps(metav1.NamespaceSystem)
	holds := func() bool {
		o, err := maps.Get(t.Context(), "extension-apiserver-authentication", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		text, err := bundle.Parse([]byte(o.Data["client-ca-file"]))
		if err != nil {
			t.Fatal(err)
		}
		return text.Holds(gone.Certificate)
	}
	for begun := time.Now(); !holds(); time.Sleep(100 * time.Millisecond) {
		if time.Since(begun) > 10*time.Second {
			t.Fatal("it was never published: the warning of trust remove says otherwise")
		}
	}
	const target = "configmap/kube-system/extension-apiserver-authentication/client-ca-file"
	if out, err := try(t, "kubepki", "trust", "remove", target, gone.file, "--kubeconfig="+admin, "--yes"); exitCode(err) != 1 || !strings.Contains(out.stderr, "kube-apiserver") {
		t.Errorf("without --force it ends with %v:\n%s", err, out.stderr)
	}
	run(t, "kubepki", "trust", "remove", target, gone.file, "--kubeconfig="+admin, "--yes", "--force")
	for range 30 { // kube-apiserver looks at the object whenever it changes
		if holds() {
			t.Fatal("kube-apiserver put it back")
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// testTrustOfObjects adds to, compares and removes from each kind of object.
func testTrustOfObjects(t *testing.T, config *rest.Config, admin string, old, next *platform) {
	client := kubernetes.NewForConfigOrDie(config)
	ctx, create := t.Context(), metav1.CreateOptions{}
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	none, fail := admissionv1.SideEffectClassNone, admissionv1.Ignore
	hook := func(name string) admissionv1.ValidatingWebhook {
		return admissionv1.ValidatingWebhook{
			Name: name, SideEffects: &none, FailurePolicy: &fail, AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: "default", Name: "hook"}, CABundle: old.pem},
		}
	}
	must(client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "roots"}, Data: map[string]string{"roots.pem": "# ours\n" + string(old.pem), "note": "x"}}, create))
	must(client.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Data: map[string][]byte{"ca.crt": old.pem, "tls.crt": old.pem, "tls.key": old.key}}, create))
	must(client.CertificatesV1().ClusterTrustBundles().Create(ctx, &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "roots"}, Spec: certificatesv1.ClusterTrustBundleSpec{TrustBundle: string(old.pem)}}, create))
	must(client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "policy"}, Webhooks: []admissionv1.ValidatingWebhook{hook("a.example.com"), hook("b.example.com")},
	}, create))
	objects := dynamic.NewForConfigOrDie(config)
	must(objects.Resource(schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}).Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": map[string]any{"name": "v1.shop.example.com"},
		"spec": map[string]any{"group": "shop.example.com", "version": "v1", "groupPriorityMinimum": int64(1000), "versionPriority": int64(10), "service": map[string]any{"namespace": "default", "name": "shop"}},
	}}, create))
	must(objects.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}).Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": "goods.shop.test"},
		"spec": map[string]any{
			"group": "shop.test", "scope": "Cluster", "names": map[string]any{"plural": "goods", "kind": "Goods"},
			"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true, "schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object"}}}},
			"conversion": map[string]any{"strategy": "Webhook", "webhook": map[string]any{"conversionReviewVersions": []any{"v1"},
				"clientConfig": map[string]any{"url": "https://shop.test", "caBundle": base64.StdEncoding.EncodeToString(old.pem)}}},
		},
	}}, create))
	for _, row := range []struct {
		target string
		flags  []string
	}{
		{"customresourcedefinition/goods.shop.test", nil},
		{"configmap/default/roots", nil},
		{"secret/default/web", nil},
		{"clustertrustbundle/roots", nil},
		{"validatingwebhookconfiguration/policy/a.example.com", nil},
		{"apiservice/v1.shop.example.com", []string{"--force"}}, // its caBundle was empty
	} {
		t.Run(row.target, func(t *testing.T) {
			call := func(what string, args ...string) (output, error) {
				return try(t, "kubepki", append([]string{"trust", what, row.target, "--kubeconfig=" + admin}, args...)...)
			}
			expect := func(code int, what string, args ...string) output {
				t.Helper()
				out, err := call(what, args...)
				if exitCode(err) != code {
					t.Fatalf("trust %s %q ends with %v, want %d:\n%s%s", what, args, err, code, out.stdout, out.stderr)
				}
				return out
			}
			if row.flags != nil {
				expect(1, "add", next.file, "--yes")
				expect(0, "add", old.file, "--yes", "--force")
			}
			expect(0, "add", next.file, "--dry-run")
			expect(3, "diff", "file:"+next.file)
			expect(0, "add", next.file, "--yes")
			if out := expect(0, "add", next.file, "--yes"); !strings.Contains(out.stdout, "unchanged") {
				t.Errorf("adding it again says %s", out.stdout)
			}
			both := write(t, filepath.Join(t.TempDir(), "both.pem"), string(next.pem)+string(old.pem))
			expect(0, "diff", "file:"+both)
			if out := expect(1, "remove", old.file, "--yes"); !strings.Contains(out.stderr, "nobody can tell") {
				t.Errorf("removing says %s", out.stderr)
			}
			expect(0, "remove", old.file, "--yes", "--force")
			expect(0, "diff", "file:"+next.file)
			expect(1, "remove", next.file, "--yes", "--force")
		})
	}
	hooks, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, "policy", metav1.GetOptions{})
	if err != nil || !bytes.Equal(hooks.Webhooks[1].ClientConfig.CABundle, old.pem) || !bytes.Equal(hooks.Webhooks[0].ClientConfig.CABundle, next.pem) {
		t.Errorf("the webhooks trust %q and %q, %v", hooks.Webhooks[0].ClientConfig.CABundle, hooks.Webhooks[1].ClientConfig.CABundle, err)
	}
	roots, err := client.CoreV1().ConfigMaps("default").Get(ctx, "roots", metav1.GetOptions{})
	if err != nil || roots.Data["roots.pem"] != "# ours\n"+string(next.pem) || roots.Data["note"] != "x" {
		t.Errorf("the ConfigMap holds %q, %v", roots.Data, err)
	}
	web, err := client.CoreV1().Secrets("default").Get(ctx, "web", metav1.GetOptions{})
	if err != nil || !bytes.Equal(web.Data["tls.key"], old.key) || !bytes.Equal(web.Data["tls.crt"], old.pem) {
		t.Errorf("more than the Secret's bundle was touched: %v", err)
	}
	if !slices.ContainsFunc(roots.ManagedFields, func(f metav1.ManagedFieldsEntry) bool { return f.Manager == "kubepki-trust" }) {
		t.Errorf("managers are %v", roots.ManagedFields)
	}
	for _, target := range []string{"secret/default/web/tls.crt", "secret/default/web/tls.key", "configmap/default/nothing", "configmap/kube-system/extension-apiserver-authentication"} {
		out, err := try(t, "kubepki", "trust", "add", target, next.file, "--yes", "--kubeconfig="+admin)
		if exitCode(err) != 1 || strings.Contains(out.stderr, "BEGIN") {
			t.Errorf("%s: %v\n%s", target, err, out.stderr)
		}
	}
}
