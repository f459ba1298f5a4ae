//go:build linux

package lab_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/lab"
)

// lookAPI is kubepki verify --kubeconfig, from the test's own place in the network.
func lookAPI(t *testing.T, kubeconfig string, more ...string) observed {
	t.Helper()
	begin := time.Now()
	o := parseObserved(t, "kubepki", append([]string{"verify", "--kubeconfig", kubeconfig, "-o", "json"}, more...)...)
	t.Logf("verify --kubeconfig %s took %s", strings.Join(more, " "), time.Since(begin).Round(time.Millisecond))
	return o
}

// The objects of the real API server, from a laptop, with the nodes' files, and with
// a look at what runs: silent when healthy, and one finding for each thing that is
// broken. Whoever may not look is told so.
func TestVerifyTheAPIOfTheRealCluster(t *testing.T) {
	dir, other := initCluster(t, 1, "--key-algorithm=ECDSA-P256"), initCluster(t, 1, "--key-algorithm=ECDSA-P256")
	node := addNode(t, newNetwork(t), "cp1", filepath.Join(dir, "cp1"), "10.99.0.11/24")
	ready(t, start(t, node, "etcd", "--unsafe-no-fsync"), start(t, node, "kube-apiserver"))
	manager := start(t, node, "kube-controller-manager")
	ready(t, manager, start(t, node, "kube-scheduler"))
	c := &controlPlane{dir: dir, shape: "separate", nodes: []*lab.Node{node}}
	c.admin = c.conf(t, "super-admin")
	w := &apiWorld{t: t, dir: dir, other: other, admin: c.path("cp1", "etc/kubernetes/super-admin.conf"), client: c.client(t)}
	w.furnish()

	t.Run("healthy, from a laptop", func(t *testing.T) { silent(t, lookAPI(t, w.admin)) })
	t.Run("healthy, with the files", func(t *testing.T) { silent(t, lookAPI(t, w.admin, dir)) })
	t.Run("healthy, with what runs", func(t *testing.T) { silent(t, lookAPI(t, w.admin, "--live", dir)) })
	t.Run("by the rights of deploy/verify-rbac.yaml", w.leastRights)
	t.Run("by nobody's rights", w.noRights)

	// What kube-controller-manager would mend at once stays broken without it.
	if err := manager.Kill(); err != nil {
		t.Fatal(err)
	}
	w.breakAll()
	hour := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	want := []string{
		"bundle-stale configmap/shop/kube-root-ca.crt: kube-root-ca.crt of namespace shop holds",
		"bundle-stale validatingwebhookconfiguration/policy: the caBundle of webhook old.example.com",
		"bundle-empty validatingwebhookconfiguration/policy: the caBundle of webhook empty.example.com",
		"sa-token-invalid secret/shop/builder: the token of Secret shop/builder is refused: none of the keys",
		"bootstrap-token-expired secret/kube-system/bootstrap-token-",
		"csr-pending certificatesigningrequest/waits: request waits of kubernetes-super-admin for kubernetes.io/kube-apiserver-client waits",
		"verify-off apiservice/v1.open.example.com",
		"bootstrap-token-usage configmap/kube-public/cluster-info: cluster-info is not signed with bootstrap token",
	}
	for name, more := range map[string][]string{"broken, from a laptop": nil, "broken, with the files": {dir}} {
		t.Run(name, func(t *testing.T) {
			o := lookAPI(t, w.admin, append([]string{"--at", hour}, more...)...)
			found(t, o, want...)
			// The APIService that nobody stands behind is not available either.
			if n := strings.Count(o.says(), "\n") + 1; n > len(want)+1 {
				t.Errorf("%d findings, want %d at most:\n%s", n, len(want)+1, o.says())
			}
		})
	}
	t.Run("mended by the fixes as they are printed", func(t *testing.T) {
		ready(t, start(t, node, "kube-controller-manager"))
		w.mend(t, hour)
	})
}

// mend runs each fix that is a command as it is printed, with FILE filled in, and
// wants its finding gone.
func (w *apiWorld) mend(t *testing.T, at string) {
	mended := map[string]bool{}
	for _, f := range lookAPI(t, w.admin, "--at", at, w.dir).Findings {
		// The node's own path is below the test's folder.
		command := strings.ReplaceAll(strings.ReplaceAll(f.Fix, " FILE", " /etc/kubernetes/pki/ca.crt"), " /etc/kubernetes/", " "+filepath.Join(w.dir, "cp1/etc/kubernetes")+"/")
		// A description mends nothing.
		if f.Severity == "info" || f.FixKind == "words" || f.Fix == "" || strings.Contains(f.Fix, " describe ") || strings.Contains(f.Fix, " review ") {
			continue
		}
		c := exec.Command("sh", "-c", command)
		c.Env = append(os.Environ(), "KUBECONFIG="+w.admin, "PATH="+programs+":"+os.Getenv("PATH"))
		out, err := c.CombinedOutput()
		t.Logf("%s: %s\n%s", f.ID, command, out)
		if err != nil {
			t.Errorf("%s: %s: %v", f.ID, command, err)
		}
		mended[f.ID+" "+f.Path] = true
	}
	if len(mended) < 4 {
		t.Errorf("only %d findings have a command", len(mended))
	}
	var left string
	for range 150 { // once kube-controller-manager leads again, after the old lease
		left = ""
		for _, f := range lookAPI(t, w.admin, "--at", at, w.dir).Findings {
			if mended[f.ID+" "+f.Path] {
				left += f.ID + " " + f.Path + ": " + f.Cause + "\n"
			}
		}
		if left == "" {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Errorf("not mended:\n%s", left)
}

// apiWorld is what the API of a test's cluster holds.
type apiWorld struct {
	t                 *testing.T
	dir, other, admin string
	client            kubernetes.Interface
}

func (w *apiWorld) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// furnish makes a namespace with a token of old, a bootstrap token with cluster-info,
// a webhook and the roles of whoever looks, and waits until all is published.
func (w *apiWorld) furnish() {
	t, ctx := w.t, w.t.Context()
	_, err := w.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{})
	w.must(err)
	manifests := run(t, "kubepki", "token", "create", "--manifests=-", "--root="+filepath.Join(w.dir, "cp1")).stdout
	run(t, "kubectl", "--kubeconfig="+w.admin, "apply", "--server-side", "-f", write(t, filepath.Join(t.TempDir(), "token.yaml"), manifests))
	run(t, "kubectl", "--kubeconfig="+w.admin, "apply", "-f", filepath.Join("..", "deploy", "verify-rbac.yaml"))
	url, port := "https://hook.example.com/", admissionv1.Fail
	_, err = w.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "policy"},
		Webhooks: []admissionv1.ValidatingWebhook{webhookOf("public.example.com", admissionv1.WebhookClientConfig{URL: &url}, port)}}, metav1.CreateOptions{})
	w.must(err)
	eventually(t, "the token of a Secret", func(ctx context.Context) error {
		o := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "builder", Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}}, Type: corev1.SecretTypeServiceAccountToken}
		_, _ = w.client.CoreV1().Secrets("shop").Create(ctx, o, metav1.CreateOptions{})
		s, err := w.client.CoreV1().Secrets("shop").Get(ctx, "builder", metav1.GetOptions{})
		if err == nil && len(s.Data["token"]) == 0 {
			err = errors.New("not filled")
		}
		return err
	})
	eventually(t, "all that kube-controller-manager publishes", func(ctx context.Context) error {
		m, err := w.client.CoreV1().ConfigMaps("kube-public").Get(ctx, "cluster-info", metav1.GetOptions{})
		if err == nil && len(m.Data) < 2 {
			err = errors.New("cluster-info is not signed")
		}
		if err != nil {
			return err
		}
		for _, ns := range []string{"shop", "kube-system", "kube-public", "kube-node-lease", "default"} {
			if _, err := w.client.CoreV1().ConfigMaps(ns).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{}); err != nil {
				return err
			}
		}
		return nil
	})
}

func webhookOf(name string, config admissionv1.WebhookClientConfig, policy admissionv1.FailurePolicyType) admissionv1.ValidatingWebhook {
	none := admissionv1.SideEffectClassNone
	return admissionv1.ValidatingWebhook{Name: name, ClientConfig: config, FailurePolicy: &policy, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
		Rules: []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{admissionv1.Create}, Rule: admissionv1.Rule{APIGroups: []string{"none.example.com"}, APIVersions: []string{"v1"}, Resources: []string{"nothing"}}}}}
}

// silent wants no error and no warning, and each half judged or not seen.
func silent(t *testing.T, o observed) {
	t.Helper()
	nothingSaid(t, o)
	seen := map[int]string{}
	for _, l := range o.Links {
		for _, h := range l.Halves {
			seen[l.Number] += h.State + " "
		}
	}
	for _, number := range []int{14, 16, 17} {
		if state := seen[number]; state == "" || strings.Contains(state, "broken") || number != 14 && !strings.Contains(state, "ok") {
			t.Errorf("link %d: %q", number, state)
		}
	}
}

// as returns a kubeconfig of a service account.
func (w *apiWorld) as(t *testing.T, namespace, account string) string {
	t.Helper()
	r, err := w.client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.LoadFromFile(w.admin)
	if err != nil {
		t.Fatal(err)
	}
	config.AuthInfos["sa"] = &clientcmdapi.AuthInfo{Token: r.Status.Token}
	config.Contexts[config.CurrentContext].AuthInfo = "sa"
	file := filepath.Join(t.TempDir(), "sa.conf")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

func (w *apiWorld) leastRights(t *testing.T) {
	var unseen []string
	for _, f := range lookAPI(t, w.as(t, "kube-system", "kubepki-verify")).Findings {
		if f.ID == "not-seen" {
			unseen = append(unseen, f.Path)
		}
	}
	if got := strings.Join(unseen, " "); got != "secrets/bootstrap-token secrets/service-account-token" {
		t.Errorf("not seen: %s", got)
	}
}

func (w *apiWorld) noRights(t *testing.T) {
	o := lookAPI(t, w.as(t, "shop", "default"))
	nothingSaid(t, o)
	unseen := 0
	for _, f := range o.Findings {
		if f.ID == "not-seen" && strings.Contains(f.Cause, "could not look at") && strings.Contains(f.Cause, "may not") {
			unseen++
		}
	}
	// Service accounts may list ClusterTrustBundles and read the keys of tokens.
	if all := 14; unseen != all {
		t.Errorf("%d sources could not be looked at, want %d", unseen, all)
	}
}

func nothingSaid(t *testing.T, o observed) {
	t.Helper()
	if says := o.says(); says != "" {
		t.Error(says)
	}
}

// breakAll breaks one object of each kind.
func (w *apiWorld) breakAll() {
	ctx := w.t.Context()
	old := read(w.t, filepath.Join(w.other, "cp1/etc/kubernetes/pki/ca.crt"))
	maps := w.client.CoreV1().ConfigMaps("shop")
	m, err := maps.Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
	w.must(err)
	m.Data["ca.crt"] = string(old)
	_, err = maps.Update(ctx, m, metav1.UpdateOptions{})
	w.must(err)

	info, err := w.client.CoreV1().ConfigMaps("kube-public").Get(ctx, "cluster-info", metav1.GetOptions{})
	w.must(err)
	info.Data["kubeconfig"] += "# edited\n"
	_, err = w.client.CoreV1().ConfigMaps("kube-public").Update(ctx, info, metav1.UpdateOptions{})
	w.must(err)

	service := func(caBundle []byte) admissionv1.WebhookClientConfig {
		return admissionv1.WebhookClientConfig{CABundle: caBundle, Service: &admissionv1.ServiceReference{Namespace: "shop", Name: "hook"}}
	}
	hooks := w.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	h, err := hooks.Get(ctx, "policy", metav1.GetOptions{})
	w.must(err)
	h.Webhooks = append(h.Webhooks, webhookOf("old.example.com", service(old), admissionv1.Ignore), webhookOf("empty.example.com", service(nil), admissionv1.Ignore))
	_, err = hooks.Update(ctx, h, metav1.UpdateOptions{})
	w.must(err)

	// A token of another cluster, whose key has the same form.
	forged := run(w.t, "kubepki", "sa", "token", "shop/default", "--secret", "--secret-name=builder", "--root="+filepath.Join(w.other, "cp1"), "--uid=6f5c0c2e-0c5c-4f0e-9d5b-2b7a3c1d9e10")
	var theirs corev1.Secret
	w.must(yaml.Unmarshal([]byte(forged.stdout), &theirs))
	s, err := w.client.CoreV1().Secrets("shop").Get(ctx, "builder", metav1.GetOptions{})
	w.must(err)
	s.Data["token"] = theirs.Data["token"]
	_, err = w.client.CoreV1().Secrets("shop").Update(ctx, s, metav1.UpdateOptions{})
	w.must(err)

	run(w.t, "kubepki", "token", "create", "--ttl", "30m", "--kubeconfig="+w.admin)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane"}}, key)
	w.must(err)
	_, err = w.client.CertificatesV1().CertificateSigningRequests().Create(ctx, &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "waits"}, Spec: certificatesv1.CertificateSigningRequestSpec{
		SignerName: certificatesv1.KubeAPIServerClientSignerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth}, Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
	}}, metav1.CreateOptions{})
	w.must(err)
	run(w.t, "kubectl", "--kubeconfig="+w.admin, "apply", "-f", write(w.t, filepath.Join(w.t.TempDir(), "open.yaml"), fmt.Sprintf(openService, "v1.open.example.com")))
}

const openService = `apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: %s}
spec: {group: open.example.com, version: v1, groupPriorityMinimum: 100, versionPriority: 100, insecureSkipTLSVerify: true, service: {namespace: shop, name: open}}
`
