package podclient

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/rest"
)

// api is an API server that knows one question, and whom it answers. The token
// is the user's name.
type api struct {
	connections atomic.Int64
	down        atomic.Bool
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || a.down.Load() || r.URL.Path != "/apis/authentication.k8s.io/v1/selfsubjectreviews" {
		http.Error(w, "no", http.StatusServiceUnavailable)
		return
	}
	review := authenticationv1.SelfSubjectReview{}
	review.APIVersion, review.Kind = "authentication.k8s.io/v1", "SelfSubjectReview"
	review.Status.UserInfo.Username = token
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(review) // the client says what is amiss
}

// pod starts an API server and makes the options of a pod that has the token of
// a user.
func pod(t *testing.T, user string) (*api, Options) {
	t.Helper()
	a := &api{}
	server := httptest.NewUnstartedServer(a)
	server.EnableHTTP2 = true
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			a.connections.Add(1)
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(user), 0o600); err != nil {
		t.Fatal(err)
	}
	return a, Options{Every: time.Millisecond, Timeout: 5 * time.Second, Status: "127.0.0.1:0", Failures: io.Discard, Config: func() (*rest.Config, error) {
		return &rest.Config{
			Host: server.URL, BearerTokenFile: token,
			TLSClientConfig: rest.TLSClientConfig{CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})},
		}, nil
	}}
}

const account = "system:serviceaccount:lab-client:client"

func TestFreshRequestsHaveConnectionsOfTheirOwn(t *testing.T) {
	a, o := pod(t, account)
	steady, err := newSteady(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		request func(context.Context) error
		want    int64
	}{{"steady", steady, 1}, {"fresh", o.fresh, 3}} {
		a.connections.Store(0)
		for range 3 {
			if err := test.request(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := a.connections.Load(); got != test.want {
			t.Errorf("%s: %d connections for 3 requests; want %d", test.name, got, test.want)
		}
	}
}

func TestWhoIsNoServiceAccountHasFailed(t *testing.T) {
	_, o := pod(t, "system:anonymous")
	if err := o.fresh(t.Context()); err == nil || !strings.Contains(err.Error(), `"system:anonymous", which is no service account`) {
		t.Errorf("%v", err)
	}
}

func TestEachFailureIsALine(t *testing.T) {
	a, o := pod(t, account)
	lines := &strings.Builder{}
	o.Failures = lines
	c := &client{options: o, counts: map[string]*Counts{"steady": {}, "fresh": {}}}
	healthy := func() (int, string) {
		answer := httptest.NewRecorder()
		c.status().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/healthz", nil))
		return answer.Code, answer.Body.String()
	}
	if code, _ := healthy(); code != http.StatusServiceUnavailable {
		t.Errorf("before any request: %d", code)
	}
	ask := func() {
		for kind := range c.counts {
			c.count(kind, o.fresh(t.Context()))
		}
	}
	ask()
	if code, body := healthy(); code != http.StatusOK || lines.Len() > 0 {
		t.Errorf("after good requests: %d %s %s", code, body, lines)
	}
	a.down.Store(true)
	ask()
	if code, _ := healthy(); code != http.StatusServiceUnavailable {
		t.Errorf("after bad requests: %d", code)
	}
	if n := strings.Count(lines.String(), "\n"); n != 2 || !strings.Contains(lines.String(), "Z fresh: ") || strings.Contains(lines.String(), account) {
		t.Errorf("%d lines of failures:\n%s", n, lines)
	}
	a.down.Store(false)
	ask()
	if code, body := healthy(); code != http.StatusOK {
		t.Errorf("once it is well again: %d %s", code, body)
	}
	answer := httptest.NewRecorder()
	c.status().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/counts", nil))
	if want := `{"fresh":{"requests":3,"failures":1},"steady":{"requests":3,"failures":1}}`; strings.TrimSpace(answer.Body.String()) != want {
		t.Errorf("counts %s; want %s", answer.Body, want)
	}
}

func TestWaitEndsWithTheFirstSuccess(t *testing.T) {
	a, o := pod(t, account)
	a.down.Store(true)
	ended := make(chan error, 1)
	go func() { ended <- Wait(t.Context(), o) }()
	for a.connections.Load() < 3 {
		select {
		case err := <-ended:
			t.Fatalf("ended while the API server is down: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	a.down.Store(false)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	a.down.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Wait(ctx, o); err == nil {
		t.Error("an end before any success is none")
	}
}

func TestRunCountsUntilItsEnd(t *testing.T) {
	_, o := pod(t, account)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var asked atomic.Int64
	config := o.Config
	o.Config = func() (*rest.Config, error) {
		if asked.Add(1) == 5 {
			cancel()
		}
		return config()
	}
	var failures strings.Builder // read when Run has ended
	o.Failures = &failures
	go func() { ended <- Run(ctx, o) }()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if failures.Len() > 0 {
		t.Errorf("the end is taken for a failure:\n%s", &failures)
	}
}
