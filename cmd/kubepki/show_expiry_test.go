package main

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/apitest"
	"github.com/kubepki/kubepki/internal/testpki"
)

func secretOf(name string, kind corev1.SecretType, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Type: kind, Data: data}
}

// TestShowExpiryOfAnAPI: what it holds is shown beside files, keys and tokens are
// not, and what may not be read is no success.
func TestShowExpiryOfAnAPI(t *testing.T) {
	node := testpki.New(t, testpki.Single)
	read := func(path string) []byte {
		data, err := os.ReadFile(node.Path("cp1", path))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	serving := read("/etc/kubernetes/pki/apiserver.crt")
	s := &apitest.Objects{}
	s.Put("/api/v1/configmaps", &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": string(read("/etc/kubernetes/pki/ca.crt"))}})
	s.Put("/api/v1/secrets", secretOf("ingress", corev1.SecretTypeTLS, map[string][]byte{"tls.crt": serving, "tls.key": []byte("held-key")}),
		secretOf("torn", corev1.SecretTypeTLS, map[string][]byte{"tls.crt": serving[:300]}))
	list, err := json.Marshal(corev1.SecretList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "SecretList"}, Items: []corev1.Secret{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-abcdef"}, Type: "bootstrap.kubernetes.io/token",
		Data: map[string][]byte{"token-id": []byte("abcdef"), "token-secret": []byte("held0123456789ab"), "expiration": []byte("2026-06-03T00:00:00Z")}}}})
	if err != nil {
		t.Fatal(err)
	}
	s.Raw = map[string]string{"/api/v1/namespaces/kube-system/secrets": string(list)}
	server := httptest.NewTLSServer(s)
	defer server.Close()
	file := kubeconfigOf(t, server)
	show := func(args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"show", "--kubeconfig", file, "--at", "2026-06-02"}, args...), streams{out: &out, err: &errs})
		if strings.Contains(out.String()+errs.String(), "held") {
			t.Error("a secret was printed")
		}
		return code, out.String(), errs.String()
	}
	code, out, errs := show("-o", "wide")
	for _, want := range []string{
		`valid +certificate +- +cluster +secret/shop/ingress +CN=kube-apiserver .* secret/shop/ingress#data\[tls.crt\]`,
		`unreadable +certificate +- +cluster +secret/shop/torn`,
		`2026-06-03T00:00:00Z +24h .* bootstrap-token +- +cluster +bootstrap-token-abcdef`,
		`authority +- +cluster +kubernetes +CN=kubernetes`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no %s in\n%s%s", want, out, errs)
		}
	}
	if code != exitFailed && code != exitDone {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if code, _, _ := show("--fail-on", "error", "--root", node.Path("cp1", "/")); code == exitDone {
		t.Error("one that cannot be read, and the exit code is 0")
	}
	s.Status = map[string]int{"/api/v1/secrets": 403}
	code, out, errs = show()
	if code != exitFailed || !strings.Contains(errs, "kubernetes.io/tls") || !strings.Contains(out, "kubernetes") {
		t.Errorf("Secrets may not be listed, and the exit code is %d:\n%s%s", code, out, errs)
	}
}

func TestUTF8Locale(t *testing.T) {
	for name, c := range map[string]struct {
		all, kind, lang string
		want            bool
	}{
		"none is set":                       {"", "", "", false},
		"LANG":                              {"", "", "de_DE.UTF-8", true},
		"LANG in other words":               {"", "", "C.utf8", true},
		"LC_ALL is asked first":             {"C", "", "de_DE.UTF-8", false},
		"LC_CTYPE before LANG":              {"", "POSIX", "de_DE.UTF-8", false},
		"LC_CTYPE, and LANG is of a byte":   {"", "en_GB.UTF-8", "C", true},
		"another set of characters":         {"", "", "de_DE.ISO-8859-1", false},
		"LC_ALL is empty, which is not set": {"", "", "en_US.UTF-8", true},
	} {
		env := map[string]string{"LC_ALL": c.all, "LC_CTYPE": c.kind, "LANG": c.lang}
		if got := utf8Locale(func(name string) string { return env[name] }); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
