package kube_test

import (
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/kube"
)

const answer = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"cluster-info"},"data":{"kubeconfig":"k"}}`

func TestFetchClusterInfo(t *testing.T) {
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
	defer elsewhere.Close()
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    string // of the error; empty: none
	}{
		"the ConfigMap": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/api/v1/namespaces/kube-public/configmaps/cluster-info" || r.Header.Get("Authorization") != "" {
				t.Errorf("asked for %s with %v", r.URL, r.Header)
			}
			fmt.Fprint(w, answer)
		}, ""},
		"anonymous access is off":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, "nobody anonymous (HTTP 401)"},
		"the role is not there":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, "nobody anonymous (HTTP 403)"},
		"there is none":              {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, "there is none"},
		"the server is not ready":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, "HTTP 503"},
		"a redirect is not followed": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, "HTTP 302"},
		"another kind of server":     {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "no ConfigMap"},
		"an answer without an end": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"data":{"kubeconfig":"`)
			_, _ = io.Copy(w, &endless{})
		}, "no ConfigMap"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(test.handler)
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.StartTLS()
			defer server.Close()
			endpoint := strings.TrimPrefix(server.URL, "https://")
			for who, anchors := range map[string][]*x509.Certificate{"everybody": nil, "its own certificate": {server.Certificate()}} {
				data, err := kube.FetchClusterInfo(t.Context(), endpoint, anchors)
				switch {
				case test.want == "" && (err != nil || data["kubeconfig"] != "k"):
					t.Errorf("trusting %s: %v, %v", who, data, err)
				case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
					t.Errorf("trusting %s: want %q, got %v", who, test.want, err)
				}
			}
		})
	}
}

// endless is a body that never ends.
type endless struct{}

func (*endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

func TestFetchClusterInfoVerifiesByTheAnchorsAlone(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	stranger := *server.Certificate()
	stranger.RawSubject, stranger.Raw = append([]byte{}, "another"...), append([]byte{}, "another"...)
	if _, err := kube.FetchClusterInfo(t.Context(), strings.TrimPrefix(server.URL, "https://"), []*x509.Certificate{&stranger}); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("got %v", err)
	}
	for _, endpoint := range []string{"", "10.0.0.11", "10.0.0.11:6443/evil?", "user@10.0.0.11:6443", "https://10.0.0.11:6443"} {
		if _, err := kube.FetchClusterInfo(t.Context(), endpoint, nil); err == nil || !strings.Contains(err.Error(), "is not HOST:PORT") {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}
