package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/layout"
)

// objectsAPI keeps objects of any kind by their path, with resourceVersions as
// kube-apiserver has them: lab/trust_test.go asks that the same.
type objectsAPI struct {
	mu      sync.Mutex
	version int
	objects map[string]*unstructured.Unstructured
	// race lets another be faster at the next write of each object.
	race bool
}

// serveObjects starts it until the script ends: objects NAME PATH=FILE... [race]. In
// files @NAME@ stands for the content of the file NAME, and @base64:NAME@ for that
// in base64. It writes
// NAME.conf, and NAME-viewer.conf of a user who may only read.
func serveObjects(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: objects NAME PATH=FILE... [race]")
	}
	api := &objectsAPI{objects: map[string]*unstructured.Unstructured{}}
	for _, arg := range args[1:] {
		path, file, ok := strings.Cut(arg, "=")
		if !ok {
			api.race = api.race || arg == "race"
			continue
		}
		o := &unstructured.Unstructured{}
		ts.Check(yaml.Unmarshal([]byte(filled(ts, ts.ReadFile(file))), &o.Object))
		o.SetResourceVersion("1")
		api.objects[path] = o
	}
	server := httptest.NewUnstartedServer(api)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	ts.Defer(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for suffix, bearer := range map[string]string{"": "admins-own", "-viewer": "viewers-own"} {
		conf, err := layout.EncodeKubeconfig(layout.KubeconfigSpec{Cluster: "test", Server: server.URL, CA: ca, User: "user", Token: bearer})
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[0]+suffix+".conf"), conf, 0o600))
	}
}

// filled puts files in the place of their names.
func filled(ts *testscript.TestScript, text string) string {
	parts := strings.Split(text, "@")
	for i := 1; i < len(parts); i += 2 {
		name, encoded := strings.CutPrefix(parts[i], "base64:")
		var value any = ts.ReadFile(name)
		if encoded {
			value = []byte(ts.ReadFile(name))
		}
		quoted, err := json.Marshal(value)
		ts.Check(err)
		parts[i] = string(quoted)
	}
	return strings.Join(parts, "")
}

func (a *objectsAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o, ok := a.objects[r.URL.Path]
	switch {
	case !ok:
		fail(w, apierrors.NewNotFound(schema.GroupResource{Resource: "objects"}, r.URL.Path))
	case r.Method == http.MethodGet:
		give(w, http.StatusOK, o.Object)
	case r.Header.Get("Authorization") != "Bearer admins-own":
		fail(w, apierrors.NewForbidden(schema.GroupResource{Resource: "objects"}, o.GetName(), nil))
	default:
		a.update(w, r, o)
	}
}

func (a *objectsAPI) update(w http.ResponseWriter, r *http.Request, have *unstructured.Unstructured) {
	body, _ := io.ReadAll(r.Body)
	o := &unstructured.Unstructured{}
	if err := json.Unmarshal(body, &o.Object); err != nil || r.URL.Query().Get("fieldManager") != "kubepki-trust" {
		fail(w, apierrors.NewBadRequest("no object, or nobody who manages it"))
		return
	}
	if a.race {
		a.race = false
		a.version++
		have.SetResourceVersion("theirs-" + strconv.Itoa(a.version))
		have.SetAnnotations(map[string]string{"another": "was faster"})
	}
	if o.GetResourceVersion() != have.GetResourceVersion() {
		fail(w, apierrors.NewConflict(schema.GroupResource{Resource: "objects"}, o.GetName(), nil))
		return
	}
	if r.URL.Query().Get("dryRun") == metav1.DryRunAll {
		give(w, http.StatusOK, o.Object)
		return
	}
	a.version++
	o.SetResourceVersion(strconv.Itoa(a.version))
	a.objects[r.URL.Path] = o
	give(w, http.StatusOK, o.Object)
}

func fail(w http.ResponseWriter, err *apierrors.StatusError) {
	status := err.Status()
	status.Kind, status.APIVersion = "Status", "v1"
	give(w, int(status.Code), status)
}

func give(w http.ResponseWriter, code int, o any) {
	var b bytes.Buffer
	_ = json.NewEncoder(&b).Encode(o)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes())
}
