package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/layout"
)

// secretsAPI answers as an API server does for Secrets and ConfigMaps, as far
// as the commands of tokens ask: what the real one says, lab/token_test.go
// tests. It begins with the objects of a file.
type secretsAPI struct {
	mu      sync.Mutex
	objects map[string]any // by path below /api/v1/namespaces
}

// serveSecrets starts it until the script ends: secrets NAME [MANIFESTS]. It
// sets the variable NAME to its address, and writes NAME.conf and NAME.crt.
func serveSecrets(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: secrets NAME [MANIFESTS]")
	}
	api := &secretsAPI{objects: map[string]any{}}
	if len(args) > 1 {
		data, err := os.ReadFile(ts.MkAbs(args[1]))
		ts.Check(err)
		ts.Check(api.load(data))
	}
	server := httptest.NewUnstartedServer(api)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	ts.Defer(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	conf, err := layout.EncodeKubeconfig(layout.KubeconfigSpec{Cluster: "test", Server: server.URL, CA: ca, User: "admin", Token: "admins-own"})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".conf"), conf, 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".crt"), ca, 0o600))
	ts.Setenv(args[0], strings.TrimPrefix(server.URL, "https://"))
}

func (a *secretsAPI) load(manifests []byte) error {
	for documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifests))); ; {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		var kind struct{ Kind string }
		if err := errors.Join(err, yaml.Unmarshal(document, &kind)); err != nil {
			return err
		}
		switch kind.Kind {
		case "Secret":
			err = a.keep(document, "secrets", &corev1.Secret{})
		case "ConfigMap":
			err = a.keep(document, "configmaps", &corev1.ConfigMap{})
		}
		if err != nil {
			return err
		}
	}
}

func (a *secretsAPI) keep(document []byte, resource string, o metav1.Object) error {
	if err := yaml.Unmarshal(document, o); err != nil {
		return err
	}
	a.objects[path.Join(o.GetNamespace(), resource, o.GetName())] = o
	return nil
}

// ServeHTTP is one request of a client.
func (a *secretsAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/")
	dry := r.URL.Query().Get("dryRun") == "All"
	o, found := a.objects[at]
	public := at == "kube-public/configmaps/cluster-info" && r.Method == http.MethodGet
	code, answer := http.StatusOK, o
	switch {
	case r.Header.Get("Authorization") != "Bearer admins-own" && !public:
		code, answer = http.StatusForbidden, failure(http.StatusForbidden, metav1.StatusReasonForbidden)
	case r.Method == http.MethodPost:
		code, answer = a.create(r, at, dry)
	case r.Method == http.MethodGet && r.URL.Query().Get("fieldSelector") == "type=bootstrap.kubernetes.io/token":
		answer = a.list(at)
	case !found:
		code, answer = http.StatusNotFound, failure(http.StatusNotFound, metav1.StatusReasonNotFound)
	case r.Method == http.MethodDelete:
		if body, _ := io.ReadAll(r.Body); !bytes.Contains(body, []byte(metav1.DryRunAll)) {
			delete(a.objects, at)
		}
		answer = &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer)
}

func failure(code int32, reason metav1.StatusReason) *metav1.Status {
	return &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: code, Reason: reason, Message: string(reason)}
}

func (a *secretsAPI) create(r *http.Request, at string, dry bool) (int, any) {
	body, _ := io.ReadAll(r.Body)
	o, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
	s, is := o.(*corev1.Secret)
	if err != nil || !is {
		return http.StatusBadRequest, failure(http.StatusBadRequest, metav1.StatusReasonBadRequest)
	}
	at = path.Join(at, s.Name)
	if _, found := a.objects[at]; found {
		return http.StatusConflict, failure(http.StatusConflict, metav1.StatusReasonAlreadyExists)
	}
	if !dry {
		a.objects[at] = s
	}
	return http.StatusCreated, s
}

func (a *secretsAPI) list(at string) *corev1.SecretList {
	all := &corev1.SecretList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "SecretList"}}
	for name, o := range a.objects {
		if s, is := o.(*corev1.Secret); is && strings.HasPrefix(name, at+"/") && s.Type == "bootstrap.kubernetes.io/token" {
			all.Items = append(all.Items, *s)
		}
	}
	slices.SortFunc(all.Items, func(a, b corev1.Secret) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func TestParseTTL(t *testing.T) {
	for text, want := range map[string]string{
		"24h0m0s": "24h0m0s", "90m": "1h30m0s", "7d": "168h0m0s", "1s": "1s", "0": "0s", "0s": "0s", "0h0m": "0s",
		"": "", "-1h": "", "-0.5d": "", "999ms": "", "tomorrow": "", "1e9d": "", "NaNd": "", "24": "",
	} {
		got, err := parseTTL("--ttl", text)
		if shown := fmt.Sprint(got); (err == nil) != (want != "") || err == nil && shown != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}
