package apitest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Objects is an API that holds objects, and lets them be read. Fill it before it
// serves.
type Objects struct {
	// Raw are answers by path, as they are.
	Raw map[string]string
	// Status are the codes with which paths are refused.
	Status map[string]int
	// Page bounds one page below what is asked for; 0: what is asked for.
	Page int
	// Expire makes the first token of a list that is gone on with one that is too old
	// (410), with another in its place.
	Expire bool

	lists map[string][]map[string]any // by the path of all namespaces' list

	mu       sync.Mutex
	requests []string
}

// Put adds objects, which marshal to JSON as those of the API do, to the list at a
// path such as /api/v1/configmaps.
func (s *Objects) Put(list string, objects ...any) {
	if s.lists == nil {
		s.lists = map[string][]map[string]any{}
	}
	if s.lists[list] == nil {
		s.lists[list] = []map[string]any{}
	}
	for _, o := range objects {
		data, err := json.Marshal(o)
		var m map[string]any
		if err == nil {
			err = json.Unmarshal(data, &m)
		}
		if err != nil {
			panic(err)
		}
		s.lists[list] = append(s.lists[list], m)
	}
}

// Requests are METHOD PATH of all that was asked.
func (s *Objects) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// ServeHTTP answers GET.
func (s *Objects) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	s.mu.Unlock()
	if code := s.Status[r.URL.Path]; code != 0 {
		deny(w, code, "")
		return
	}
	if text, ok := s.Raw[r.URL.Path]; ok {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, text)
		return
	}
	if r.URL.Path == "/version" {
		fmt.Fprint(w, `{"gitVersion":"v1.37.2"}`)
		return
	}
	all, namespace, name := split(r.URL.Path)
	items, ok := s.lists[all]
	if !ok {
		items, ok = s.lists[path.Dir(all)]
		name = path.Base(all)
	}
	switch {
	case !ok:
		deny(w, http.StatusNotFound, "")
	case name == "":
		s.list(w, r, slices.DeleteFunc(slices.Clone(items), func(o map[string]any) bool {
			return namespace != "" && meta(o)["namespace"] != namespace || !selected(o, r.URL.Query().Get("fieldSelector"))
		}))
	default:
		i := slices.IndexFunc(items, func(o map[string]any) bool {
			return meta(o)["name"] == name && (namespace == "" || meta(o)["namespace"] == namespace)
		})
		if i < 0 {
			deny(w, http.StatusNotFound, "")
			return
		}
		_ = json.NewEncoder(w).Encode(items[i])
	}
}

// split takes /api/v1/namespaces/NS/configmaps/NAME to /api/v1/configmaps, NS, NAME.
func split(p string) (all, namespace, name string) {
	before, rest, ok := strings.Cut(p, "/namespaces/")
	if !ok {
		return p, "", ""
	}
	parts := strings.Split(rest, "/")
	if len(parts) < 2 {
		return p, "", ""
	}
	if len(parts) > 2 {
		name = parts[2]
	}
	return before + "/" + parts[1], parts[0], name
}

func meta(o map[string]any) map[string]any {
	m, _ := o["metadata"].(map[string]any)
	return m
}

func selected(o map[string]any, selector string) bool {
	if selector == "" {
		return true
	}
	key, value, _ := strings.Cut(selector, "=")
	if key == "metadata.name" {
		return meta(o)["name"] == value
	}
	return o[key] == value
}

func (s *Objects) list(w http.ResponseWriter, r *http.Request, items []map[string]any) {
	q := r.URL.Query()
	from := 0
	if token := q.Get("continue"); token != "" {
		if s.Expire && !strings.HasPrefix(token, "new-") {
			deny(w, http.StatusGone, "new-"+token)
			return
		}
		from, _ = strconv.Atoi(strings.TrimPrefix(token, "new-"))
	}
	limit, _ := strconv.Atoi(q.Get("limit"))
	if s.Page > 0 {
		limit = min(limit, s.Page)
	}
	page := map[string]any{"kind": "List", "metadata": map[string]any{}, "items": items[from:]}
	if limit > 0 && from+limit < len(items) {
		page["metadata"] = map[string]any{"continue": strconv.Itoa(from + limit)}
		page["items"] = items[from : from+limit]
	}
	if strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadataList") {
		var bare []map[string]any
		for _, o := range page["items"].([]map[string]any) {
			bare = append(bare, map[string]any{"metadata": o["metadata"]})
		}
		page["items"] = bare
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(page)
}

func deny(w http.ResponseWriter, code int, token string) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{Status: metav1.StatusFailure, Message: "as the test wants it", Code: int32(code), ListMeta: metav1.ListMeta{Continue: token}}) //nolint:gosec // a status of HTTP
}
