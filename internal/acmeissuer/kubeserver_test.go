package acmeissuer

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// kubeServer keeps objects as an API server does, over HTTP: versions and conflicts,
// the status apart from the rest, finalizers, preconditions. It validates nothing.
type kubeServer struct {
	config *rest.Config

	mu      sync.Mutex
	objects map[string]*unstructured.Unstructured // by path
	version int
	writes  []string
	// die ends the process that asks, as it were, before the write after so many that
	// were done: nothing is answered from then on. 0: never.
	die, done int
	dead      bool
	// hook answers paths of its own.
	hook func(w http.ResponseWriter, r *http.Request) bool
}

func newKubeServer(t *testing.T) *kubeServer {
	t.Helper()
	k := &kubeServer{objects: make(map[string]*unstructured.Unstructured)}
	server := httptest.NewServer(k)
	t.Cleanup(server.Close)
	k.config = &rest.Config{Host: server.URL}
	k.config.ContentType, k.config.AcceptContentTypes = "application/json", "application/json"
	return k
}

// withStatus are the resources whose status is written apart.
var withStatus = []string{"orders", "challenges", "ingresses", "services", "httproutes"}

func (k *kubeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r.Method != http.MethodGet {
		k.writes = append(k.writes, r.Method+" "+r.URL.Path)
	}
	if k.dead = k.dead || k.die > 0 && r.Method != http.MethodGet && k.done >= k.die; k.dead {
		panic(http.ErrAbortHandler)
	}
	if k.hook != nil && k.hook(w, r) {
		return
	}
	body := map[string]any{}
	if r.Body != nil {
		_ = json.NewDecoder(r.Body).Decode(&body)
	}
	answer, err := k.serve(r.Method, r.URL.Path, &unstructured.Unstructured{Object: body})
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(int(err.ErrStatus.Code))
		err.ErrStatus.Kind, err.ErrStatus.APIVersion = "Status", "v1"
		_ = json.NewEncoder(w).Encode(err.ErrStatus)
		return
	}
	if r.Method != http.MethodGet {
		k.done++
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// live lets a process come, which will end after so many writes; 0: never. It tells
// whether the one before has ended.
func (k *kubeServer) live(writes int) (ended bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ended = k.dead
	k.die, k.done, k.dead = writes, 0, false
	return ended
}

func (k *kubeServer) isDead() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.dead
}

func (k *kubeServer) serve(method, path string, body *unstructured.Unstructured) (any, *apierrors.StatusError) {
	path, isStatus := strings.CutSuffix(path, "/status")
	parts := strings.Split(strings.Trim(path, "/"), "/")
	at := slices.Index(parts, "namespaces") + 2
	if at < 2 { // a list of all namespaces, or of a resource of the cluster
		at = len(parts) - 1
	}
	resource, named := parts[at], len(parts) > at+1
	kind := schema.GroupResource{Resource: resource}
	name := parts[len(parts)-1]
	have := k.objects[path]
	switch {
	case method == http.MethodGet && !named:
		return k.list(parts, resource), nil
	case method == http.MethodPost:
		name = body.GetName()
		if k.objects[path+"/"+name] != nil {
			return nil, apierrors.NewAlreadyExists(kind, name)
		}
		if slices.Contains(withStatus, resource) {
			delete(body.Object, "status")
		}
		body.SetUID(types.UID(fmt.Sprintf("uid-%d", k.version+1)))
		body.SetGeneration(1)
		body.SetCreationTimestamp(now())
		k.put(path+"/"+name, body)
		return body, nil
	case have == nil:
		return nil, apierrors.NewNotFound(kind, name)
	case method == http.MethodGet:
		return have, nil
	case method == http.MethodDelete:
		if uid, found, _ := unstructured.NestedString(body.Object, "preconditions", "uid"); found && uid != string(have.GetUID()) {
			return nil, apierrors.NewConflict(kind, name, fmt.Errorf("another UID"))
		}
		if len(have.GetFinalizers()) > 0 {
			have.SetDeletionTimestamp(new(now()))
			k.put(path, have)
			return have, nil
		}
		delete(k.objects, path)
		return have, nil
	}
	if v := body.GetResourceVersion(); v != "" && v != have.GetResourceVersion() {
		return nil, apierrors.NewConflict(kind, name, fmt.Errorf("another version"))
	}
	next := body
	if isStatus {
		next = have.DeepCopy()
		next.Object["status"] = body.Object["status"]
	} else if slices.Contains(withStatus, resource) {
		next.Object["status"] = have.Object["status"]
	}
	if next.GetDeletionTimestamp() != nil && len(next.GetFinalizers()) == 0 {
		delete(k.objects, path)
		return next, nil
	}
	k.put(path, next)
	return next, nil
}

func (k *kubeServer) put(path string, o *unstructured.Unstructured) {
	k.version++
	o.SetResourceVersion(fmt.Sprint(k.version))
	k.objects[path] = o
}

func (k *kubeServer) list(parts []string, resource string) any {
	prefix := "/" + strings.Join(parts[:len(parts)-1], "/")
	items := []any{}
	for path, o := range k.objects {
		if strings.HasPrefix(path, prefix) && strings.Contains(path, "/"+resource+"/") {
			items = append(items, o.Object)
		}
	}
	return map[string]any{"metadata": map[string]any{"resourceVersion": fmt.Sprint(k.version)}, "items": items}
}

// names returns the names of what there is of a resource.
func (k *kubeServer) names(resource string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []string
	for path, o := range k.objects {
		if strings.Contains(path, "/"+resource+"/") {
			all = append(all, o.GetName())
		}
	}
	slices.Sort(all)
	return all
}

// waitFor asks until it is so.
func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("waited for 20 s: %s", what)
}
