package agent_test

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/kubepki/kubepki/internal/agent"
	"github.com/kubepki/kubepki/internal/brief"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

func get(b *agent.Board, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	agent.Handler(b, agent.NewMetrics(b, agent.MetricsOptions{})).ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

// tags are the elements of a page with their attributes, and its text as a reader
// sees it.
func tags(t *testing.T, page string) (elements []html.Token, text string) {
	t.Helper()
	z := html.NewTokenizer(strings.NewReader(page))
	var seen strings.Builder
	skip := false
	for {
		switch z.Next() {
		case html.ErrorToken:
			if !errors.Is(z.Err(), io.EOF) {
				t.Fatal(z.Err())
			}
			return elements, strings.Join(strings.Fields(seen.String()), " ")
		case html.TextToken:
			if !skip {
				seen.WriteString(string(z.Text()) + " ")
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			token := z.Token()
			elements = append(elements, token)
			skip = token.Data == "style"
		case html.EndTagToken:
			skip = false
		}
	}
}

func TestThePageSaysWhatIsKnown(t *testing.T) {
	b, _, _ := board(t, testpki.HA, func(c *testpki.Cluster) { c.Remove("cp2", "/etc/kubernetes/pki/etcd/server.crt") })
	b.Schedule([]agent.Due{{ID: "cp1/apiserver", Node: "cp1", Path: "/etc/kubernetes/pki/apiserver.crt", At: now.Add(49 * time.Hour)}})
	b.Decided(agent.Decision{Action: agent.Failed, ID: "cp1/apiserver", Reason: "not-signed", Text: "the authority cannot be reached"})
	b.Include(&holder{sources: []agent.Source{{Kind: "kube-secret", Name: "secrets", Reason: "it may not list secrets"}}})
	w := get(b, http.MethodGet, "/")
	_, text := tags(t, w.Body.String())
	for _, want := range []string{
		"not healthy at 2026-06-02 00:00:00Z", "next renewal cp1/apiserver (in 2d)", "✗ error file-missing", "/etc/kubernetes/pki/etcd/server.crt", "✗ broken", "Fix kubepki renew",
		"failed cp1/apiserver the authority cannot be reached", "it may not list secrets", "364d", "kube-apiserver",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not on the page:\n%.3000s", want, text)
		}
	}
	for name, want := range map[string]string{"Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestThePageBeforeAnythingWasRead(t *testing.T) {
	b := agent.NewBoard(func() time.Time { return now })
	if _, text := tags(t, get(b, http.MethodGet, "/").Body.String()); !strings.Contains(text, "nothing was read yet") {
		t.Error(text)
	}
}

// TestThePageIsTextAlone: whatever certificates and findings say.
func TestThePageIsTextAlone(t *testing.T) {
	const evil = `</code><script>alert(1)</script><img src=x onerror=alert(1)>"' onmouseover="x` + "\u202e\x00\xff"
	name := pkix.Name{CommonName: evil, Organization: []string{evil}}
	b := agent.NewBoard(func() time.Time { return now })
	b.Verified(&agent.Verified{
		Verification: report.Verification{
			Findings: []check.Finding{{ID: evil, Severity: evil, Cause: evil, Fix: evil, FixNote: evil, Node: evil, Path: evil, Field: evil}},
			Links:    []report.VerifiedLink{{Number: 3, Caller: evil, Callee: evil, Findings: []string{evil}, Halves: []report.VerifiedHalf{{Side: "client", State: check.OK, Proof: evil}}}},
		},
		Certificates: []brief.Certificate{brief.New(trust.Place{Node: evil, Path: evil, Field: evil}, 0, certificate(name, name, 1, time.Hour))},
		Faults:       []agent.Fault{{Place: trust.Place{Path: evil}, Code: evil}},
	})
	b.Unread(errors.New(evil))
	b.Schedule([]agent.Due{{ID: evil, Node: evil, Path: evil}})
	b.Decided(agent.Decision{Action: evil, ID: evil, Text: evil, Reason: evil})
	b.Include(&holder{sources: []agent.Source{{Kind: evil, Name: evil, Reason: evil}}})
	w := get(b, http.MethodGet, "/")
	elements, _ := tags(t, w.Body.String())
	for _, e := range elements {
		switch e.Data {
		case "script", "img", "link", "iframe", "object", "form":
			t.Errorf("<%s> is on the page", e.Data)
		}
		for _, a := range e.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" || a.Key == "src" || a.Key == "href" && !strings.HasPrefix(a.Val, "#") && a.Val != "/metrics" {
				t.Errorf("<%s %s=%q>", e.Data, a.Key, a.Val)
			}
		}
	}
	if strings.ContainsAny(w.Body.String(), "\u202e\x00") {
		t.Error("a character that cannot be seen is on the page")
	}
	policy := w.Header().Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "script-src") {
		t.Error(policy)
	}
	if text, err := http.NewRequest(http.MethodGet, "/metrics", nil); err != nil || text == nil {
		t.Fatal(err)
	}
	_, _ = scrape(t, b, agent.MetricsOptions{}) // and the metrics are metrics
}

func TestOnlyReadingIsServed(t *testing.T) {
	b, _, _ := board(t, testpki.Single, nil)
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/", 200}, {http.MethodHead, "/", 200}, {http.MethodGet, "/metrics", 200}, {http.MethodHead, "/metrics", 200}, {http.MethodGet, "/healthz", 200}, {http.MethodGet, "/livez", 200}, {http.MethodGet, "/readyz", 200},
		{http.MethodPost, "/", 405}, {http.MethodPost, "/metrics", 405}, {http.MethodDelete, "/healthz", 405}, {http.MethodGet, "/debug/pprof/", 404}, {http.MethodGet, "/index.html", 404}, {http.MethodGet, "/metrics/../../etc/passwd", 307},
	} {
		if w := get(b, c.method, c.path); w.Code != c.want && !(c.want == 307 && w.Code >= 300 && w.Code < 500) {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, w.Code, c.want)
		}
	}
}

func TestHealthIsThatOfTheLoop(t *testing.T) {
	at := now
	b := agent.NewBoard(func() time.Time { return at })
	code := func(path string) int { return get(b, http.MethodGet, path).Code }
	if code("/healthz") != 200 || code("/readyz") != 503 {
		t.Error("at the start it lives, and is not ready")
	}
	b.Unread(errors.New("permission denied"))
	if w := get(b, http.MethodGet, "/readyz"); w.Code != 503 || !strings.Contains(w.Body.String(), "permission denied") {
		t.Errorf("unread files: %d %s", w.Code, w.Body)
	}
	h := &holder{sources: []agent.Source{{Name: "secrets"}}}
	b.Include(h)
	b.Verified(&agent.Verified{})
	if w := get(b, http.MethodGet, "/readyz"); w.Code != 503 || !strings.Contains(w.Body.String(), "secrets have not been read") {
		t.Errorf("the cluster is not read: %d %s", w.Code, w.Body)
	}
	h.sources[0].Reason = "forbidden" // which nobody waits for
	if code("/readyz") != 200 {
		t.Error("all is read that can be")
	}
	at = at.Add(agent.StuckAfter + time.Second)
	if code("/healthz") != 503 || code("/readyz") != 503 {
		t.Error("the loop is stuck")
	}
	b.Progress()
	if code("/healthz") != 200 || code("/readyz") != 200 {
		t.Error("it goes round again")
	}
}

func TestOtherNamesOfThisMachineAreRefused(t *testing.T) {
	b, _, _ := board(t, testpki.Single, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- agent.Serve(ctx, l, nil, agent.Handler(b, agent.NewMetrics(b, agent.MetricsOptions{})), slog.New(slog.DiscardHandler))
	}()
	for host, want := range map[string]int{"": 200, "localhost:9793": 200, "LOCALHOST.": 200, "[::1]:9793": 200, "127.0.0.2": 200, "evil.example.org": 421, "evil.example.org:9793": 421, "10.0.0.1:9793": 421, "localhost.evil.example.org": 421} {
		r, err := http.NewRequest(http.MethodGet, "http://"+l.Addr().String()+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%q: %d, want %d", host, response.StatusCode, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
