package certmanager

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// api is an API server over HTTP that keeps objects of any resource, in JSON: lists,
// watches, creates, updates of a status if the version is right, applies of Secrets,
// deletes. It counts writes, and can have the process that makes one die of it.
type api struct {
	*httptest.Server
	mu      sync.Mutex
	changed *sync.Cond
	version int
	objects map[string]map[string]any // by path
	events  []event
	writes  []string
	// dies, if not nil, is asked at each write, before it is done; what it returns is
	// done before the process dies, and after.
	dies func(n int) (before, after bool)
	die  func()
	// refuses, if not nil, has a write fail with a code.
	refuses func(method, path string) int
	// gateways are the resources that the Gateway API has; nil: there is none.
	gateways []string
	dead     bool // nothing more of the process is done

	dial func(ctx context.Context, network, address string) (net.Conn, error) // nil: the network
	http *http.Client                                                         // of others
}

type event struct {
	version    int
	kind, path string
	object     []byte
	at         time.Time
}

func newAPI(t *testing.T) *api {
	a := &api{objects: map[string]map[string]any{}, version: 1, http: http.DefaultClient}
	a.begin(t, nil)
	return a
}

// newPipeAPI is one whose connections are pipes, so that time is made in a bubble.
func newPipeAPI(t *testing.T) *api {
	a := &api{objects: map[string]map[string]any{}, version: 1}
	pipes := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	a.dial = pipes.dial
	transport := &http.Transport{DialContext: a.dial}
	t.Cleanup(transport.CloseIdleConnections)
	a.http = &http.Client{Transport: transport}
	a.begin(t, pipes)
	return a
}

func (a *api) begin(t *testing.T, listener net.Listener) {
	a.changed = sync.NewCond(&a.mu)
	a.Server = httptest.NewUnstartedServer(a)
	a.Config.ErrorLog = log.New(io.Discard, "", 0) // connections are cut on purpose
	if listener != nil {
		a.Listener.Close()
		a.Listener = listener
	}
	a.Start()
	t.Cleanup(func() {
		a.CloseClientConnections()
		a.Close()
	})
}

func (a *api) config() *rest.Config {
	return &rest.Config{Host: a.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}, Dial: a.dial}
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (*pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

// meta is a map within an object, made where it is not there.
func meta(o map[string]any) map[string]any {
	m, _ := o["metadata"].(map[string]any)
	if m == nil {
		m = map[string]any{}
		o["metadata"] = m
	}
	return m
}

// put keeps an object, and tells watches. The lock is held.
func (a *api) put(path, kind string, o map[string]any) []byte {
	a.version++
	meta(o)["resourceVersion"] = strconv.Itoa(a.version)
	data, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	if kind == "DELETED" {
		delete(a.objects, path)
	} else {
		a.objects[path] = o
	}
	a.events = append(a.events, event{a.version, kind, path, data, time.Now()})
	a.changed.Broadcast()
	return data
}

// make makes an object of somebody else.
func (a *api) make(t *testing.T, collection string, object any) {
	t.Helper()
	data, err := json.Marshal(object)
	check(t, err)
	response, err := a.http.Post(a.URL+collection, "application/json", bytes.NewReader(data))
	check(t, err)
	response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		t.Fatalf("creating %s: %s", collection, response.Status)
	}
}

// read reads an object, and tells whether it is there.
func (a *api) read(path string, into any) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	o, ok := a.objects[path]
	if !ok {
		return false
	}
	data, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	return err == nil
}

// names are those of the objects of a collection.
func (a *api) names(collection string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	for path := range a.objects {
		if name, ok := strings.CutPrefix(path, collection+"/"); ok {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(code), Reason: reason, Message: string(reason)})
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodGet && r.URL.Query().Get("sendInitialEvents") != "":
		refuse(w, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid) // lists are asked for then
	case r.Method == http.MethodGet && r.URL.Query().Get("watch") != "":
		a.watch(w, r)
	case r.Method == http.MethodGet:
		a.get(w, r)
	default:
		a.write(w, r)
	}
}

// within tells whether a path is of a collection, of one namespace or of all, as far as
// the label counts by which Secrets are asked for.
func within(path string, r *http.Request, object []byte) bool {
	collection := r.URL.Path
	parts := strings.Split(path, "/")
	of := strings.Join(parts[:len(parts)-1], "/")
	if i := slices.Index(parts, "namespaces"); i > 0 && of != collection {
		of = strings.Join(append(slices.Clone(parts[:i]), parts[i+2:len(parts)-1]...), "/")
	}
	if name, ok := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name="); ok && parts[len(parts)-1] != name {
		return false
	}
	return of == collection && (r.URL.Query().Get("labelSelector") == "" || bytes.Contains(object, []byte(`"controller.cert-manager.io/fao":"true"`)))
}

func (a *api) get(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if o, ok := a.objects[r.URL.Path]; ok {
		_ = json.NewEncoder(w).Encode(asAsked(r, o))
		return
	}
	kind, version := listKind(r.URL.Path)
	if kind == "" && a.discovered(w, r.URL.Path) {
		return
	}
	if kind == "" {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	items := []any{}
	for path, o := range a.objects {
		data, _ := json.Marshal(o)
		if within(path, r, data) {
			items = append(items, asAsked(r, o))
		}
	}
	if metadataAlone(r) {
		kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": kind, "apiVersion": version, "metadata": map[string]any{"resourceVersion": strconv.Itoa(a.version)}, "items": items})
}

func (a *api) watch(w http.ResponseWriter, r *http.Request) {
	from, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	defer context.AfterFunc(r.Context(), func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.changed.Broadcast()
	})()
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	for r.Context().Err() == nil {
		for _, e := range a.events {
			if e.version > from && within(e.path, r, e.object) {
				_ = json.NewEncoder(w).Encode(map[string]any{"type": e.kind, "object": asAskedJSON(r, e.object)})
			}
			from = max(from, e.version)
		}
		w.(http.Flusher).Flush()
		a.changed.Wait()
	}
}

func (a *api) write(w http.ResponseWriter, r *http.Request) {
	body := map[string]any{}
	data, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(data, &body)
	a.mu.Lock()
	defer a.mu.Unlock()
	ours := r.UserAgent() != "Go-http-client/1.1"
	var after bool
	if ours && a.dead {
		panic(http.ErrAbortHandler)
	}
	if ours {
		a.writes = append(a.writes, r.Method+" "+r.URL.Path)
		if a.dies != nil {
			var before bool
			if before, after = a.dies(len(a.writes)); before {
				a.dead = true
				a.die()
				panic(http.ErrAbortHandler)
			}
		}
	}
	code, answer := 0, []byte(nil)
	if ours && a.refuses != nil {
		code = a.refuses(r.Method, r.URL.Path)
	}
	if code == 0 {
		code, answer = a.done(r, body)
	}
	if after {
		a.dead = true
		a.die()
		panic(http.ErrAbortHandler)
	}
	if answer == nil {
		refuse(w, code, map[int]metav1.StatusReason{404: metav1.StatusReasonNotFound, 409: metav1.StatusReasonConflict, 410: metav1.StatusReasonAlreadyExists, 422: metav1.StatusReasonInvalid, 500: metav1.StatusReasonInternalError}[code])
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(answer)
}

// done does a write. The lock is held.
func (a *api) done(r *http.Request, body map[string]any) (int, []byte) {
	path := r.URL.Path
	switch r.Method {
	case http.MethodPost:
		m := meta(body)
		name, _ := m["name"].(string)
		if name == "" {
			name = fmt.Sprint(m["generateName"], a.version)
		}
		path += "/" + name
		if a.objects[path] != nil {
			return http.StatusConflict, nil // with the reason of a conflict, which is tried again too
		}
		a.birth(m, path, name)
		return http.StatusCreated, a.put(path, "ADDED", body)
	case http.MethodPut:
		whole := !strings.HasSuffix(path, "/status")
		path = strings.TrimSuffix(path, "/status")
		old := a.objects[path]
		if old == nil {
			return http.StatusNotFound, nil
		}
		if meta(old)["resourceVersion"] != meta(body)["resourceVersion"] || meta(old)["uid"] != meta(body)["uid"] {
			return http.StatusConflict, nil
		}
		changed := clone(old)
		changed["status"], changed["metadata"] = body["status"], clone(meta(old))
		if whole {
			changed = body
		}
		return http.StatusOK, a.put(path, "MODIFIED", changed)
	case http.MethodPatch:
		if old := a.objects[path]; !strings.Contains(path, "/secrets/") {
			return a.applied(path, old, body)
		}
		m, kind := meta(body), "MODIFIED"
		if old := a.objects[path]; old != nil {
			if v := m["resourceVersion"]; v != nil && v != meta(old)["resourceVersion"] {
				return http.StatusConflict, nil
			}
			m["uid"] = meta(old)["uid"]
		} else {
			kind = "ADDED"
			a.birth(m, path, path[strings.LastIndex(path, "/")+1:])
		}
		fields := map[string]any{"f:labels": owned(m["labels"]), "f:annotations": owned(m["annotations"])}
		m["managedFields"] = []any{map[string]any{"manager": r.URL.Query().Get("fieldManager"), "operation": "Apply", "fieldsType": "FieldsV1",
			"fieldsV1": map[string]any{"f:metadata": fields, "f:data": owned(body["data"])}}}
		return http.StatusOK, a.put(path, kind, body)
	case http.MethodDelete:
		old := a.objects[path]
		if old == nil {
			return http.StatusNotFound, nil
		}
		if p, _ := body["preconditions"].(map[string]any); p != nil && p["uid"] != meta(old)["uid"] {
			return http.StatusConflict, nil
		}
		gone := map[string]any{}
		for k, v := range old {
			gone[k] = v
		}
		gone["metadata"] = clone(meta(old))
		return http.StatusOK, a.put(path, "DELETED", gone)
	}
	return http.StatusMethodNotAllowed, nil
}

func (a *api) birth(m map[string]any, path, name string) {
	m["name"], m["uid"], m["generation"] = name, fmt.Sprint("uid-", a.version), 1
	m["creationTimestamp"] = time.Now().UTC().Format(time.RFC3339)
	parts := strings.Split(path, "/")
	if i := slices.Index(parts, "namespaces"); i > 0 {
		m["namespace"] = parts[i+1]
	}
}

func clone(m map[string]any) map[string]any {
	c := map[string]any{}
	for k, v := range m {
		c[k] = v
	}
	return c
}

func owned(of any) map[string]any {
	all := map[string]any{}
	if m, ok := of.(map[string]any); ok {
		for k := range m {
			all["f:"+k] = map[string]any{}
		}
	}
	return all
}
