package kubewatch_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
)

// api is an API server that knows lists and watches of Secrets, ConfigMaps and
// webhooks in Kubernetes' own encoding, and nothing else.
type api struct {
	*httptest.Server
	mu        sync.Mutex
	changed   *sync.Cond
	version   int
	objects   map[string]runtime.Object // by path of the list, then name
	events    []event
	forbidden map[string]bool // paths
	tooOld    int             // versions up to it cannot be watched
	lists     map[string]int
	most      int // objects in one page, as if the rest were too large
}

type event struct {
	version    int
	kind, path string
	object     runtime.Object
}

func newAPI(t testing.TB) *api {
	a := &api{objects: map[string]runtime.Object{}, forbidden: map[string]bool{}, lists: map[string]int{}, version: 1, most: 3}
	a.changed = sync.NewCond(&a.mu)
	a.Server = httptest.NewUnstartedServer(a)
	a.Config.ErrorLog = log.New(io.Discard, "", 0) // connections are cut on purpose
	a.StartTLS()
	t.Cleanup(func() {
		a.CloseClientConnections()
		a.Close()
	})
	return a
}

func (a *api) config() *rest.Config {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
	return &rest.Config{Host: a.URL, TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
}

const (
	secretsPath  = "/api/v1/secrets"
	mapsPath     = "/api/v1/configmaps"
	webhooksPath = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
)

func pathOf(o runtime.Object) string {
	switch o.(type) {
	case *corev1.Secret:
		return secretsPath
	case *corev1.ConfigMap:
		return mapsPath
	case *admissionv1.ValidatingWebhookConfiguration:
		return webhooksPath
	}
	panic("no such kind")
}

// set makes or changes an object, and remove removes it.
func (a *api) set(o runtime.Object) { a.change(o, false) }

func (a *api) remove(o runtime.Object) { a.change(o, true) }

func (a *api) change(o runtime.Object, gone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	meta := o.(metav1.Object)
	meta.SetResourceVersion(strconv.Itoa(a.version))
	o = o.DeepCopyObject()
	path := pathOf(o)
	id := path + " " + meta.GetNamespace() + "/" + meta.GetName()
	kind := "MODIFIED"
	if a.objects[id] == nil {
		kind = "ADDED"
	}
	if gone {
		kind = "DELETED"
		delete(a.objects, id)
	} else {
		a.objects[id] = o
	}
	a.events = append(a.events, event{a.version, kind, path, o})
	a.changed.Broadcast()
}

// forget makes all watches end, and none begin from what is there now.
func (a *api) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	a.tooOld = a.version - 1
	a.changed.Broadcast()
}

func encode(o runtime.Object) []byte {
	gvks, _, err := scheme.Scheme.ObjectKinds(o)
	if err != nil {
		panic(err)
	}
	o.GetObjectKind().SetGroupVersionKind(gvks[0])
	var b bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(o, &b); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf")
	refuse := func(code int, text string) {
		w.WriteHeader(code)
		_, _ = w.Write(encode(&metav1.Status{Status: "Failure", Code: int32(code), Message: text}))
	}
	if !strings.HasPrefix(r.Header.Get("Accept"), "application/vnd.kubernetes.protobuf") {
		refuse(http.StatusNotAcceptable, "only protobuf is spoken here")
		return
	}
	a.mu.Lock()
	forbidden := a.forbidden[r.URL.Path]
	a.mu.Unlock()
	switch {
	case forbidden:
		refuse(http.StatusForbidden, "secrets is forbidden")
	case !slices.Contains([]string{secretsPath, mapsPath, webhooksPath}, r.URL.Path):
		refuse(http.StatusNotFound, "the server could not find the requested resource")
	case r.URL.Query().Get("watch") == "true":
		a.watch(w, r)
	default:
		a.list(w, r)
	}
}

// wanted applies the field selectors that are asked for here.
func wanted(o runtime.Object, selector string) bool {
	name, value, _ := strings.Cut(selector, "=")
	switch name {
	case "type":
		return string(o.(*corev1.Secret).Type) == value
	case "metadata.name":
		return o.(metav1.Object).GetName() == value
	}
	return true
}

func (a *api) list(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := r.URL.Query()
	a.lists[r.URL.Path]++
	var all []runtime.Object
	for _, id := range slices.Sorted(maps.Keys(a.objects)) {
		if o := a.objects[id]; pathOf(o) == r.URL.Path && wanted(o, q.Get("fieldSelector")) {
			all = append(all, o)
		}
	}
	start, _ := strconv.Atoi(q.Get("continue"))
	limit, _ := strconv.Atoi(q.Get("limit"))
	end := min(len(all), start+min(limit, a.most))
	meta := metav1.ListMeta{ResourceVersion: strconv.Itoa(a.version)}
	if end < len(all) {
		meta.Continue = strconv.Itoa(end)
	}
	_, _ = w.Write(encode(listOf(r.URL.Path, meta, all[start:end])))
}

func listOf(path string, meta metav1.ListMeta, all []runtime.Object) runtime.Object {
	switch path {
	case secretsPath:
		l := &corev1.SecretList{ListMeta: meta}
		for _, o := range all {
			l.Items = append(l.Items, *o.(*corev1.Secret))
		}
		return l
	case mapsPath:
		l := &corev1.ConfigMapList{ListMeta: meta}
		for _, o := range all {
			l.Items = append(l.Items, *o.(*corev1.ConfigMap))
		}
		return l
	}
	l := &admissionv1.ValidatingWebhookConfigurationList{ListMeta: meta}
	for _, o := range all {
		l.Items = append(l.Items, *o.(*admissionv1.ValidatingWebhookConfiguration))
	}
	return l
}

func (a *api) watch(w http.ResponseWriter, r *http.Request) {
	from, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	started := from
	defer context.AfterFunc(r.Context(), func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.changed.Broadcast()
	})()
	a.mu.Lock()
	defer a.mu.Unlock()
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	for r.Context().Err() == nil {
		if a.tooOld >= started {
			frame(w, "ERROR", encode(&metav1.Status{Status: "Failure", Code: http.StatusGone, Message: "too old resource version"}))
			return
		}
		for _, e := range a.events {
			if e.version > from && e.path == r.URL.Path && wanted(e.object, r.URL.Query().Get("fieldSelector")) {
				frame(w, e.kind, encode(e.object))
				from = e.version
			}
		}
		w.(http.Flusher).Flush()
		a.changed.Wait()
	}
}

// frame writes an event as kube-apiserver does: its length, and a WatchEvent around
// the object.
func frame(w http.ResponseWriter, kind string, object []byte) {
	data, err := (&metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: object}}).Marshal()
	if err != nil {
		panic(err)
	}
	_, _ = w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(data))))
	_, _ = w.Write(data)
}

// pair is a certificate and its key, in PEM.
func pair(t testing.TB, name string, by issue.Authority) (certificate, key []byte) {
	t.Helper()
	k := tlstest.Key(t, issue.ECDSAP256)
	authority := tlstest.Certify(t, name, k, by)
	keyPEM, err := issue.EncodePrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return certPEM(authority), keyPEM
}

func certPEM(a issue.Authority) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate.Raw})
}

func secret(namespace, name string, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"a": "b"}}, Type: corev1.SecretTypeTLS, Data: data}
}

func rootCA(namespace string, ca []byte) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": string(ca), "other": "x"}}
}

func webhook(name string, bundles ...[]byte) *admissionv1.ValidatingWebhookConfiguration {
	c := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for i, b := range bundles {
		c.Webhooks = append(c.Webhooks, admissionv1.ValidatingWebhook{Name: fmt.Sprintf("w%d.example.org", i), ClientConfig: admissionv1.WebhookClientConfig{CABundle: b}})
	}
	return c
}
