package certmanager

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// listKind is the kind of the list of a collection, and its version; empty where the path
// is none.
func listKind(path string) (kind, version string) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	kind = map[string]string{
		"certificates": "Certificate", "certificaterequests": "CertificateRequest", "issuers": "Issuer", "clusterissuers": "ClusterIssuer", "secrets": "Secret",
		"validatingwebhookconfigurations": "ValidatingWebhookConfiguration", "mutatingwebhookconfigurations": "MutatingWebhookConfiguration",
		"apiservices": "APIService", "customresourcedefinitions": "CustomResourceDefinition",
		"ingresses": "Ingress", "gateways": "Gateway", "listenersets": "ListenerSet",
	}[parts[len(parts)-1]]
	switch {
	case kind == "":
		return "", ""
	case parts[0] == "api":
		return kind + "List", parts[1]
	}
	return kind + "List", parts[1] + "/" + parts[2]
}

// discovered answers what resources the Gateway API has, if the path asks for it.
func (a *api) discovered(w http.ResponseWriter, path string) bool {
	if a.gateways == nil || path != "/apis/gateway.networking.k8s.io/v1" {
		return false
	}
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "gateway.networking.k8s.io/v1"}
	for _, name := range a.gateways {
		list.APIResources = append(list.APIResources, metav1.APIResource{Name: name, Namespaced: true})
	}
	_ = json.NewEncoder(w).Encode(list)
	return true
}

func metadataAlone(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata")
}

// asAsked is an object, or its metadata where nothing else was asked for.
func asAsked(r *http.Request, o map[string]any) map[string]any {
	if !metadataAlone(r) {
		return o
	}
	return map[string]any{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": o["metadata"]}
}

func asAskedJSON(r *http.Request, data []byte) any {
	o := map[string]any{}
	if !metadataAlone(r) || json.Unmarshal(data, &o) != nil {
		return json.RawMessage(data)
	}
	return asAsked(r, o)
}

// applied merges what is applied into an object that is there, of the version that is
// named: maps by their keys, lists of named things by their names. The lock is held.
func (a *api) applied(path string, old, body map[string]any) (int, []byte) {
	if old == nil {
		return http.StatusNotFound, nil
	}
	if v := meta(body)["resourceVersion"]; v != nil && v != meta(old)["resourceVersion"] {
		return http.StatusConflict, nil
	}
	return http.StatusOK, a.put(path, "MODIFIED", merged(old, body).(map[string]any))
}

func merged(there, given any) any {
	switch given := given.(type) {
	case map[string]any:
		was, _ := there.(map[string]any)
		out := clone(was)
		for k, v := range given {
			out[k] = merged(was[k], v)
		}
		return out
	case []any:
		was, _ := there.([]any)
		out := append([]any{}, was...)
		for _, v := range given {
			at := -1
			for i := range out {
				if one, ok := out[i].(map[string]any); ok && one["name"] == v.(map[string]any)["name"] {
					at = i
				}
			}
			if at < 0 {
				out = append(out, v)
			} else {
				out[at] = merged(out[at], v)
			}
		}
		return out
	}
	return given
}

// edit has somebody else change an object.
func (a *api) edit(t *testing.T, path string, change func(o map[string]any)) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.objects[path]
	if old == nil {
		t.Fatalf("there is no %s", path)
	}
	data, err := json.Marshal(old)
	check(t, err)
	o := map[string]any{}
	check(t, json.Unmarshal(data, &o))
	change(o)
	a.put(path, "MODIFIED", o)
}

// annotate has somebody else set an annotation; an empty value takes it away.
func (a *api) annotate(t *testing.T, path, key, value string) {
	t.Helper()
	a.edit(t, path, func(o map[string]any) {
		all, _ := meta(o)["annotations"].(map[string]any)
		all = clone(all)
		if delete(all, key); value != "" {
			all[key] = value
		}
		meta(o)["annotations"] = all
	})
}

// remove has somebody else remove an object.
func (a *api) remove(t *testing.T, path string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.objects[path]
	if old == nil {
		t.Fatalf("there is no %s", path)
	}
	gone := clone(old)
	gone["metadata"] = clone(meta(old))
	a.put(path, "DELETED", gone)
}

// writesTo counts the writes of the process to an object or a collection.
func (a *api) writesTo(path string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.writes {
		if strings.HasSuffix(w, " "+path) {
			n++
		}
	}
	return n
}

// until waits for a state.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come to this: %s", what)
		}
	}
}
