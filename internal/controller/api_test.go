package controller

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// api is an API server in memory, reached without a network: it speaks protobuf,
// knows versions and conflicts, and streams watches. client-go's own fake knows
// no versions.
type api struct {
	mu       sync.Mutex
	version  uint64
	requests map[string]*certificatesv1.CertificateSigningRequest
	nodes    map[string]*corev1.Node
	watchers map[*watcher]bool
	// calls counts by method and path, names left out.
	calls map[string]int
	// refuse may answer in place of the server; it is called with the lock held.
	refuse func(method, path string) error
	// allowed answers SubjectAccessReviews.
	allowed bool
}

// watcher is a watch of one resource.
type watcher struct {
	resource string
	events   chan []byte
	gone     chan struct{}
	once     sync.Once
}

func newAPI() *api {
	return &api{
		version: 100, requests: map[string]*certificatesv1.CertificateSigningRequest{}, nodes: map[string]*corev1.Node{},
		watchers: map[*watcher]bool{}, calls: map[string]int{}, allowed: true,
	}
}

const protobuf = "application/vnd.kubernetes.protobuf"

// client is a client of the API.
func (a *api) client(t testing.TB) kubernetes.Interface {
	t.Helper()
	config := &rest.Config{Host: "http://api", Transport: a, QPS: -1}
	config.ContentType, config.AcceptContentTypes = protobuf, protobuf
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func serializer() runtime.SerializerInfo {
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), protobuf)
	return info
}

func encode(o runtime.Object) []byte {
	codec := scheme.Codecs.EncoderForVersion(serializer().Serializer, schema.GroupVersions{certificatesv1.SchemeGroupVersion, corev1.SchemeGroupVersion, authorizationv1.SchemeGroupVersion, metav1.SchemeGroupVersion})
	data, err := runtime.Encode(codec, o)
	if err != nil {
		panic(err)
	}
	return data
}

// RoundTrip answers a request.
func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		r.Body.Close()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	resource, rest := parts[2], parts[3:] // api/v1/nodes, apis/GROUP/v1/RESOURCE
	if parts[0] == "apis" {
		resource, rest = parts[3], parts[4:]
	}
	call := r.Method + " " + resource
	if len(rest) > 1 {
		call += "/" + rest[1]
	}
	if r.URL.Query().Get("watch") != "" {
		call = "WATCH " + resource
	}
	a.calls[call]++
	if a.refuse != nil {
		if err := a.refuse(call, strings.Join(rest, "/")); err != nil {
			if status, ok := err.(apierrors.APIStatus); ok {
				s := status.Status()
				return respond(r, int(s.Code), &s), nil
			}
			return nil, err
		}
	}
	if r.URL.Query().Get("watch") != "" {
		return a.watch(r, resource), nil
	}
	return a.answer(r, resource, rest, body), nil
}

func respond(r *http.Request, code int, o runtime.Object) *http.Response {
	return &http.Response{
		StatusCode: code, Status: http.StatusText(code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {protobuf}}, Body: io.NopCloser(bytes.NewReader(encode(o))),
	}
}

func refusal(r *http.Request, err *apierrors.StatusError) *http.Response {
	s := err.Status()
	return respond(r, int(s.Code), &s)
}

var csrResource = schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}

func (a *api) answer(r *http.Request, resource string, rest []string, body []byte) *http.Response {
	switch {
	case resource == "subjectaccessreviews":
		return respond(r, http.StatusCreated, &authorizationv1.SubjectAccessReview{Status: authorizationv1.SubjectAccessReviewStatus{Allowed: a.allowed}})
	case resource == "nodes" && len(rest) == 1:
		if n := a.nodes[rest[0]]; n != nil {
			return respond(r, http.StatusOK, n)
		}
		return refusal(r, apierrors.NewNotFound(schema.GroupResource{Resource: "nodes"}, rest[0]))
	case resource != "certificatesigningrequests" || len(rest) == 0:
		return refusal(r, apierrors.NewMethodNotSupported(schema.GroupResource{Resource: resource}, r.Method))
	}
	old := a.requests[rest[0]]
	if old == nil {
		return refusal(r, apierrors.NewNotFound(csrResource, rest[0]))
	}
	switch r.Method {
	case http.MethodGet:
		return respond(r, http.StatusOK, old)
	case http.MethodDelete:
		a.delete(rest[0])
		return respond(r, http.StatusOK, &metav1.Status{Status: metav1.StatusSuccess})
	}
	var o certificatesv1.CertificateSigningRequest
	if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, &o); err != nil {
		return refusal(r, apierrors.NewBadRequest(err.Error()))
	}
	if o.ResourceVersion != old.ResourceVersion || o.UID != old.UID {
		return refusal(r, apierrors.NewConflict(csrResource, o.Name, nil))
	}
	next := old.DeepCopy()
	next.Status.Conditions = o.Status.Conditions
	if rest[1] == "status" {
		next.Status.Certificate = o.Status.Certificate
	}
	a.put(next)
	return respond(r, http.StatusOK, next)
}

// put writes a request as it is, and tells those who watch.
func (a *api) put(o *certificatesv1.CertificateSigningRequest) {
	a.version++
	o.ResourceVersion = strconv.FormatUint(a.version, 10)
	kind := watch.Modified
	if a.requests[o.Name] == nil {
		kind = watch.Added
	}
	a.requests[o.Name] = o
	a.tell("certificatesigningrequests", kind, o)
}

func (a *api) delete(name string) {
	o := a.requests[name]
	delete(a.requests, name)
	a.version++
	o = o.DeepCopy()
	o.ResourceVersion = strconv.FormatUint(a.version, 10)
	a.tell("certificatesigningrequests", watch.Deleted, o)
}

// create makes a request, as a client would, which keeps its own.
func (a *api) create(o *certificatesv1.CertificateSigningRequest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o = o.DeepCopy()
	o.CreationTimestamp = metav1.Now()
	if o.UID == "" {
		o.UID = types.UID("uid-" + o.Name + "-" + strconv.FormatUint(a.version, 10))
	}
	a.put(o)
}

func (a *api) setNode(n *corev1.Node) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	n.ResourceVersion = strconv.FormatUint(a.version, 10)
	kind := watch.Modified
	if a.nodes[n.Name] == nil {
		kind = watch.Added
	}
	a.nodes[n.Name] = n
	a.tell("nodes", kind, n)
}

func (a *api) get(name string) *certificatesv1.CertificateSigningRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests[name].DeepCopy()
}

func (a *api) count(call string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls[call]
}

// breakWatches ends all watches, and refuses calls until the function that it
// returns is called.
func (a *api) breakWatches() (mend func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for w := range a.watchers {
		w.once.Do(func() { close(w.gone) })
		delete(a.watchers, w)
	}
	before := a.refuse
	a.refuse = func(string, string) error { return io.ErrUnexpectedEOF }
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.refuse = before
	}
}

func (a *api) tell(resource string, kind watch.EventType, o runtime.Object) {
	for w := range a.watchers {
		if w.resource == resource {
			w.events <- event(kind, o)
		}
	}
}

func event(kind watch.EventType, o runtime.Object) []byte {
	var frame bytes.Buffer
	var raw bytes.Buffer
	info := serializer().StreamSerializer
	e := &metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: encode(o)}}
	if err := info.Encode(e, &raw); err != nil {
		panic(err)
	}
	_, _ = info.Framer.NewFrameWriter(&frame).Write(raw.Bytes())
	return frame.Bytes()
}

// watch streams all that there is, then what happens.
func (a *api) watch(r *http.Request, resource string) *http.Response {
	w := &watcher{resource: resource, events: make(chan []byte, 200_000), gone: make(chan struct{})}
	end := metav1.ObjectMeta{ResourceVersion: strconv.FormatUint(a.version, 10), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}}
	if resource == "nodes" {
		for _, name := range slices.Sorted(maps.Keys(a.nodes)) {
			w.events <- event(watch.Added, a.nodes[name])
		}
		w.events <- event(watch.Bookmark, &corev1.Node{ObjectMeta: end})
	} else {
		for _, name := range slices.Sorted(maps.Keys(a.requests)) {
			w.events <- event(watch.Added, a.requests[name])
		}
		w.events <- event(watch.Bookmark, &certificatesv1.CertificateSigningRequest{ObjectMeta: end})
	}
	a.watchers[w] = true
	out, in := io.Pipe()
	go func() {
		for {
			select {
			case <-r.Context().Done():
				in.CloseWithError(r.Context().Err())
				return
			case <-w.gone:
				in.CloseWithError(io.ErrUnexpectedEOF)
				return
			case e := <-w.events:
				if _, err := in.Write(e); err != nil {
					return
				}
			}
		}
	}()
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {protobuf + ";stream=watch"}}, Body: out, Request: r}
}

// waitFor waits until something is so, in the time of a synctest bubble.
func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Hour); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came that %s", what)
		}
	}
}
