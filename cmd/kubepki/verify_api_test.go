package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kubepki/kubepki/internal/apitest"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/testpki"
)

// kubeconfigOf writes one for a server of a test.
func kubeconfigOf(t *testing.T, server *httptest.Server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "admin.conf")
	config := clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"c": {Server: server.URL, CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})}},
		Contexts: map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "a"}}, CurrentContext: "x",
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"a": {Token: "held-by-the-kubeconfig"}},
	}
	if err := clientcmd.WriteToFile(config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestVerifyKubeconfig: from a laptop, with a copy of a node, and when the API server
// is gone.
func TestVerifyKubeconfig(t *testing.T) {
	const stored = "bm90.YQ.dG9rZW4"
	s := &apitest.Objects{}
	s.Put("/api/v1/configmaps", &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": "junk"}})
	s.Put("/api/v1/secrets", &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "forged", Annotations: map[string]string{"kubernetes.io/service-account.name": "default"}},
		Type: corev1.SecretTypeServiceAccountToken, Data: map[string][]byte{"token": []byte(stored)}})
	s.Put("/api/v1/serviceaccounts", &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "default"}})
	server := httptest.NewTLSServer(s)
	defer server.Close()
	file := kubeconfigOf(t, server)
	node := testpki.New(t, testpki.Single).Path("cp1", "/")

	verify := func(args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"verify", "--kubeconfig", file, "--at", "2026-06-02"}, args...), streams{out: &out, err: &errs})
		if strings.Contains(out.String()+errs.String(), stored) || strings.Contains(out.String()+errs.String(), "held-by") {
			t.Error("a token was printed")
		}
		return code, out.String(), errs.String()
	}
	for name, args := range map[string][]string{"from a laptop": {"-o", "json"}, "with a node": {"-o", "json", "--root", node}} {
		code, out, errs := verify(args...)
		var v report.Verification
		if err := json.Unmarshal([]byte(out), &v); err != nil || code != exitFindings || errs != "" {
			t.Fatalf("%s: exit %d, %v, %s", name, code, err, errs)
		}
		found := map[string]string{}
		for _, f := range v.Findings {
			found[f.ID] = f.Path
		}
		if found["cert-malformed"] != "configmap/shop/kube-root-ca.crt" || found["sa-token-invalid"] != "secret/shop/forged" || v.API == nil || !v.API.Reached || v.API.Server != server.URL {
			t.Errorf("%s: %v, %+v", name, found, v.API)
		}
		if named := len(v.Nodes) > 0; named != (name == "with a node") {
			t.Errorf("%s: nodes %v", name, v.Nodes)
		}
	}
	if _, out, _ := verify(); !strings.Contains(out, "1 × Secrets with tokens of service accounts") || !strings.Contains(out, "where: configmap/shop/kube-root-ca.crt (data[ca.crt])") {
		t.Errorf("got\n%s", out)
	}

	server.Close()
	if code, out, errs := verify(); code != exitFailed || out != "" || !strings.Contains(errs, "connection refused") {
		t.Errorf("gone: exit %d, %q, %q", code, out, errs)
	}
	if code, out, errs := verify("--root", node); code != exitFindings || !strings.Contains(out, "error unreachable") || errs != "" {
		t.Errorf("gone, with a node: exit %d, %q, %q", code, out, errs)
	}
}

// TestVerifyKubeconfigThatMayReadNothing: where nothing was judged, nothing is called
// healthy; a single source is enough for a judgement.
func TestVerifyKubeconfigThatMayReadNothing(t *testing.T) {
	for name, x := range map[string]struct {
		may  string // the only path that it may read
		code int
	}{
		"nothing":         {"", exitFailed},
		"namespaces only": {"/api/v1/namespaces", exitDone},
	} {
		t.Run(name, func(t *testing.T) {
			objects := &apitest.Objects{}
			objects.Put("/api/v1/namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != x.may {
					http.Error(w, "forbidden", http.StatusForbidden)
					return
				}
				objects.ServeHTTP(w, r)
			}))
			defer server.Close()
			var out, errs bytes.Buffer
			code := run(t.Context(), []string{"verify", "--kubeconfig", kubeconfigOf(t, server)}, streams{out: &out, err: &errs})
			refused := strings.Contains(errs.String(), "nothing of what it holds could be looked at: ") && strings.Contains(errs.String(), "may not ")
			if code != x.code || refused != (code == exitFailed) || (out.Len() == 0) != refused {
				t.Errorf("exit %d\n%s%s", code, out.String(), errs.String())
			}
		})
	}
}

// TestVerifyKubeconfigUsage: what makes no sense is said before anything is asked.
func TestVerifyKubeconfigUsage(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.conf")
	for want, args := range map[string][]string{
		"--context: name the kubeconfig too":    {"--context", "x"},
		"--kubeconfig is of one cluster, and 2": {"--kubeconfig", none, t.TempDir(), t.TempDir()},
		"--timeout: 0s is no time to wait":      {"--kubeconfig", none, "--timeout", "0s"},
		"no such file or directory":             {"--kubeconfig", none},
		"empty.conf: no cluster is in it":       {"--kubeconfig", writeEmptyConfig(t)},
		`context "gone" does not exist`:         {"--kubeconfig", writeEmptyConfig(t), "--context", "gone"},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"verify"}, args...), streams{out: &out, err: &errs})
		if usage := strings.HasPrefix(want, "--"); code != map[bool]int{true: exitUsage, false: exitFailed}[usage] || !strings.Contains(errs.String(), want) || out.Len() > 0 {
			t.Errorf("%v: exit %d, %q", args, code, errs.String())
		}
	}
}

func writeEmptyConfig(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "empty.conf")
	if err := os.WriteFile(file, []byte("apiVersion: v1\nkind: Config\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
