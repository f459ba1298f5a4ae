package kube_test

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/apitest"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/trust"
)

// readOver reads an API over plain HTTP.
func readOver(t *testing.T, h http.Handler, o kube.ObjectOptions) (trust.Node, error) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return kube.ReadObjects(t.Context(), &rest.Config{Host: server.URL}, o)
}

// notSeen are the paths of what could not be looked at.
func notSeen(n *trust.Node) []string {
	var all []string
	for _, s := range n.NotSeen {
		all = append(all, s.Place.Path)
	}
	return all
}

func rootCA(namespace, text string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": text}}
}

// certificatePEM is any certificate.
func certificatePEM(t *testing.T) string {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

// TestThousandsOfNamespaces: what is alike is kept once, page by page, and a list
// whose revision is gone goes on with a newer one.
func TestThousandsOfNamespaces(t *testing.T) {
	text := certificatePEM(t)
	s := &apitest.Objects{Expire: true}
	const many, pages = 3000, 6
	for i := range many {
		name := fmt.Sprintf("team-%05d", i)
		content := text
		if i == 777 {
			content = "junk"
		}
		s.Put("/api/v1/configmaps", rootCA(name, content))
		s.Put("/api/v1/namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Now().Add(-time.Hour))}})
	}
	s.Put("/api/v1/configmaps", &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "team-00000", Name: "other"}, Data: map[string]string{"ca.crt": "x"}})
	n, err := readOver(t, s, kube.ObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o := n.Objects
	if len(o.Bundles) != 2 || len(o.Bundles[0].Copies) != many-2 || len(o.Bundles[1].Copies) != 0 || o.Bundles[1].Place.Path != "configmap/team-00777/kube-root-ca.crt" {
		t.Errorf("%d bundles, want that of 2999 namespaces and that of team-00777", len(o.Bundles))
	}
	if len(o.Without) != 0 || len(n.Materials) != 2 || n.Materials[1].State != trust.Malformed || o.Sources[0].Count != many {
		t.Errorf("without %d, materials %d, source %+v", len(o.Without), len(n.Materials), o.Sources[0])
	}
	// Each token was too old once.
	if asked := len(s.Requests()); asked > 2*2*pages+30 {
		t.Errorf("%d requests", asked)
	}
}

// TestWhatIsForbiddenIsNamed: once for each source, with the right that it takes; the
// rest is read.
func TestWhatIsForbiddenIsNamed(t *testing.T) {
	s := &apitest.Objects{Status: map[string]int{
		"/api/v1/secrets": 403, "/api/v1/namespaces/kube-system/secrets": 403, "/api/v1/nodes": 500, "/openid/v1/jwks": 403,
		"/api/v1/namespaces/kube-public/configmaps/cluster-info": 403,
	}, Raw: map[string]string{"/apis/certificates.k8s.io/v1/certificatesigningrequests": "<html>"}}
	s.Put("/api/v1/configmaps", rootCA("default", certificatePEM(t)))
	s.Put("/api/v1/namespaces")
	n, err := readOver(t, s, kube.ObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"configmap/kube-public/cluster-info", "secrets/bootstrap-token", "secrets/service-account-token", "openid/v1/jwks", "certificatesigningrequests", "nodes"}
	// What is not there at all, as webhooks and the service here, was looked at.
	if got := notSeen(&n); !slices.Equal(got, want) {
		t.Errorf("not seen: %q", got)
	}
	text := fmt.Sprint(n.NotSeen)
	for _, says := range []string{"may not list secrets in kube-system (deploy/verify-rbac.yaml grants it)", "500 Internal Server Error: as the test wants it", "not the JSON that was asked for"} {
		if !strings.Contains(text, says) {
			t.Errorf("no %q in %s", says, text)
		}
	}
	if len(n.Objects.Bundles) != 1 {
		t.Errorf("the rest was not read: %+v", n.Objects.Bundles)
	}
}

// TestAnAPIServerThatCannotBeAsked is an error that says why.
func TestAnAPIServerThatCannotBeAsked(t *testing.T) {
	silent := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for name, row := range map[string]struct {
		handler http.Handler
		closed  bool
		want    string
	}{
		"one that nobody answers for":              {http.NotFoundHandler(), true, "connection refused"},
		"one that never answers":                   {silent, false, "no answer within 50ms"},
		"one that does not know the credential":    {&apitest.Objects{Status: map[string]int{"/version": 401}}, false, "401 Unauthorized"},
		"one whose certificate is another's":       {nil, false, "certificate signed by unknown authority"},
		"one that sends whoever asks somewhere":    {http.RedirectHandler("https://elsewhere.example.test/", http.StatusFound), false, "302 Found"},
		"one that is no API server, and says 502.": {&apitest.Objects{Status: map[string]int{"/version": 502}}, false, "502 Bad Gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(row.handler)
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			if row.handler == nil {
				server.Config.Handler = http.NotFoundHandler()
				server.StartTLS()
			} else {
				server.Start()
			}
			defer server.Close()
			if row.closed {
				server.Close()
			}
			_, err := kube.ReadObjects(t.Context(), &rest.Config{Host: server.URL}, kube.ObjectOptions{Timeout: 50 * time.Millisecond * map[bool]time.Duration{true: 100, false: 1}[!strings.Contains(name, "never")]})
			var unreachable *kube.UnreachableError
			if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
			if stranger := errors.Is(err, kube.ErrStranger); stranger != strings.Contains(name, "does not know") {
				t.Errorf("a stranger: %t", stranger)
			}
		})
	}
}

// TestWhatTheAPIServerPresents is kept, and whether pods see the same.
func TestWhatTheAPIServerPresents(t *testing.T) {
	server := httptest.NewTLSServer(&apitest.Objects{})
	defer server.Close()
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	n, err := kube.ReadObjects(t.Context(), &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{CAData: own}}, kube.ObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n.Objects.Inside || n.Objects.Insecure || n.Objects.Presented.Path != server.URL || len(n.Materials) != 1 || !n.Materials[0].Leaf().Equal(server.Certificate()) {
		t.Errorf("got %+v", n.Objects)
	}
	n, err = kube.ReadObjects(t.Context(), &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}, kube.ObjectOptions{})
	if err != nil || !n.Objects.Insecure {
		t.Errorf("insecure: %v, %+v", err, n.Objects)
	}
}
