package objects

import (
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apiserver/pkg/util/webhook"
)

func servers(t *testing.T, dir string) *Servers {
	t.Helper()
	s, err := Provision(t.Context(), dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// find returns the one object of a kind and a name.
func find(t *testing.T, all []*unstructured.Unstructured, kind, name string) map[string]any {
	t.Helper()
	var found []map[string]any
	for _, o := range all {
		if o.GetKind() == kind && o.GetName() == name {
			found = append(found, o.Object)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects %s %s; want one", len(found), kind, name)
	}
	return found[0]
}

func TestEveryFileIsApplied(t *testing.T) {
	there, err := fs.Glob(content, "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sorted := slices.Sorted(slices.Values(files))
	if d := cmp.Diff(there, sorted); d != "" {
		t.Errorf("-embedded +applied:\n%s", d)
	}
}

func TestObjectsHoldTheAuthoritiesOfTheirServers(t *testing.T) {
	v := Values{Server: "https://10.99.0.10:6443", Servers: *servers(t, t.TempDir())}
	all, err := Objects(v)
	if err != nil {
		t.Fatal(err)
	}
	bundle, _, _ := unstructured.NestedString(find(t, all, "APIService", "v1alpha1.wardle.example.com"), "spec", "caBundle")
	if bundle != base64.StdEncoding.EncodeToString(v.Extension.Authority) {
		t.Error("the APIService has another caBundle")
	}
	hooks, _, _ := unstructured.NestedSlice(find(t, all, "ValidatingWebhookConfiguration", "lab-webhook"), "webhooks")
	bundle, _, _ = unstructured.NestedString(hooks[0].(map[string]any), "clientConfig", "caBundle")
	if bundle != base64.StdEncoding.EncodeToString(v.Webhook.Authority) {
		t.Error("the webhook's configuration has another caBundle")
	}
	conf, _, _ := unstructured.NestedString(find(t, all, "ConfigMap", "kube-proxy"), "data", "kubeconfig.conf")
	if !strings.Contains(conf, "server: https://10.99.0.10:6443\n") {
		t.Errorf("kube-proxy's kubeconfig:\n%s", conf)
	}
}

func TestOneAuthorityForEachServer(t *testing.T) {
	s := servers(t, t.TempDir())
	if slices.Equal(s.Extension.Authority, s.Webhook.Authority) || slices.Equal(s.Extension.Authority, s.ExtensionEtcd.Authority) {
		t.Error("two servers have one authority")
	}
}

func TestWhatIsThereIsKept(t *testing.T) {
	dir := t.TempDir()
	first := servers(t, dir)
	if d := cmp.Diff(first, servers(t, dir)); d != "" {
		t.Error("a second run has made credentials anew")
	}
	for _, file := range []string{"server.crt", "server.key", "server.csr"} {
		if err := os.Remove(filepath.Join(dir, "webhook/server", file)); err != nil {
			t.Fatal(err)
		}
	}
	second := servers(t, dir)
	if slices.Equal(first.Webhook.ServerCertificate, second.Webhook.ServerCertificate) {
		t.Error("the certificate that was gone is the same")
	}
	second.Webhook.ServerCertificate, second.Webhook.ServerKey = first.Webhook.ServerCertificate, first.Webhook.ServerKey
	if d := cmp.Diff(first, second); d != "" {
		t.Error("more was made than what was gone")
	}
}

func TestProxyClientsTellPodsTheServer(t *testing.T) {
	v := Values{Server: "https://[fd99::10]:6443", Servers: *servers(t, t.TempDir())}
	for _, alone := range []bool{false, true} {
		v.ProxyClient = alone
		all, err := Objects(v)
		if err != nil {
			t.Fatal(err)
		}
		want := []any{map[string]any{"name": "KUBERNETES_SERVICE_HOST", "value": "fd99::10"}, map[string]any{"name": "KUBERNETES_SERVICE_PORT", "value": "6443"}}
		if !alone {
			want = nil
		}
		for _, name := range []string{"client", "wardle-server"} {
			containers, _, _ := unstructured.NestedSlice(find(t, all, "Deployment", name), "spec", "template", "spec", "containers")
			env, _, _ := unstructured.NestedSlice(containers[0].(map[string]any), "env")
			if d := cmp.Diff(want, env); d != "" {
				t.Errorf("%s, kube-proxy's client alone %t (-want +got):\n%s", name, alone, d)
			}
		}
	}
	v.Server = "10.99.0.10:6443"
	if _, err := Objects(v); err == nil {
		t.Errorf("the server %q is taken", v.Server)
	}
}

// The kubeconfig is read by kube-apiserver's own code.
func TestKubeAPIServerFindsItsCredentialForTheWebhook(t *testing.T) {
	root, s := t.TempDir(), servers(t, t.TempDir())
	if err := WriteAdmission(root, s.Webhook); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(root, AdmissionDir, "webhooks.conf")
	resolver, err := webhook.NewDefaultAuthenticationInfoResolver(conf)
	if err != nil {
		t.Fatal(err)
	}
	config, err := resolver.ClientConfigForService("webhook", "lab-webhook", 443)
	if err != nil {
		t.Fatal(err)
	}
	// The loader makes the paths absolute: as on the node, they are already.
	if want := AdmissionDir + "/webhook-client.crt"; config.CertFile != want {
		t.Errorf("certificate %q; want %q", config.CertFile, want)
	}
	if other, err := resolver.ClientConfigForService("another", "lab-webhook", 443); err != nil || other.CertFile != "" {
		t.Errorf("another webhook is shown %q, %v", other.CertFile, err)
	}
	err = filepath.WalkDir(filepath.Join(root, AdmissionDir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
