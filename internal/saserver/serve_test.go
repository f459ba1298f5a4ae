package saserver_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/saserver"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
)

func leaf(t testing.TB, a issue.Authority, name string, usage x509.ExtKeyUsage) *tls.Certificate {
	t.Helper()
	return tlstest.Leaf(t, a, name, tlstest.At("localhost"), tlstest.For(usage))
}

// changing is what files would hold, which tests change.
type changing struct{ now atomic.Pointer[mtls.Snapshot] }

func (c *changing) Snapshot() (*mtls.Snapshot, error) { return c.now.Load(), nil }

func (c *changing) trust(t testing.TB, pair *tls.Certificate, all ...issue.Authority) {
	t.Helper()
	c.now.Store(tlstest.Snapshot(t, pair, all...))
}

// serve serves a handler until the test ends, and returns its URL and a function
// that stops it and returns how it ended.
func serve(t testing.TB, config *tls.Config, h http.Handler, log io.Writer) (url string, stop func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- saserver.Serve(ctx, l, config, h, slog.New(slog.NewJSONHandler(log, nil))) }()
	t.Cleanup(cancel)
	return "https://" + l.Addr().String(), func() error {
		cancel()
		return <-ended
	}
}

// client trusts an authority, and shows the certificate that a function
// returns: one without content is none.
func client(a issue.Authority, show func() *tls.Certificate) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(a.Certificate)
	config := &tls.Config{RootCAs: roots, ServerName: "localhost", GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return show(), nil
	}}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}, Timeout: 10 * time.Second}
}

// reviewed asks for a review, and returns the status and the body.
func reviewed(t testing.TB, c *http.Client, url, text string) (int, string) {
	t.Helper()
	body := fmt.Sprintf(`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":%q}}`, text)
	answer, err := c.Post(url+saserver.ReviewPath, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(data)
}

func TestWhoMayAsk(t *testing.T) {
	ca, clients := tlstest.Authority(t, "ca"), tlstest.Authority(t, "clients")
	var source changing
	source.trust(t, leaf(t, ca, "server", x509.ExtKeyUsageServerAuth), clients)
	w := newWorld(t)
	good := w.token(nil)
	none := &tls.Certificate{}
	server, foreign := leaf(t, clients, "kube-apiserver-west", x509.ExtKeyUsageServerAuth), leaf(t, tlstest.Authority(t, "clients"), "kube-apiserver-west", x509.ExtKeyUsageClientAuth)
	apiserver, other := leaf(t, clients, "kube-apiserver-west", x509.ExtKeyUsageClientAuth), leaf(t, clients, "someone", x509.ExtKeyUsageClientAuth)
	rows := map[string]struct {
		show    *tls.Certificate
		allowed []string
		want    int
		text    string
	}{
		"a client, where all may":            {other, nil, 200, `"authenticated":true`},
		"a client that is named":             {apiserver, []string{"x", "kube-apiserver-west"}, 200, `"authenticated":true`},
		"a client that is not named":         {other, []string{"kube-apiserver-west"}, 403, "not allowed"},
		"a client whose name begins alike":   {apiserver, []string{"kube-apiserver"}, 403, "not allowed"},
		"a client of another authority":      {foreign, nil, 403, "not allowed"},
		"one of that name, of another":       {foreign, []string{"kube-apiserver-west"}, 403, "not allowed"},
		"a server of that name":              {server, []string{"kube-apiserver-west"}, 403, "not allowed"},
		"nobody in particular":               {none, nil, 401, "a client certificate is needed"},
		"nobody, where somebody is named":    {none, []string{"kube-apiserver-west"}, 401, "a client certificate is needed"},
		"nobody, where the name is no name ": {none, []string{""}, 401, "a client certificate is needed"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			r := &saserver.Reviewer{Tokens: w.reviewer.Tokens, Callers: &saserver.Callers{Source: &source, Names: row.allowed}, Log: w.reviewer.Log, Metrics: w.reviewer.Metrics}
			h := saserver.Handler(newPublisher(t, &w.keys, saserver.Publication{Issuer: issuer}), r)
			url, _ := serve(t, mtls.ServerConfig(&source, mtls.UnverifiedClients), h, w.log)
			c := client(ca, func() *tls.Certificate { return row.show })
			status, body := reviewed(t, c, url, good)
			if status != row.want || !strings.Contains(body, row.text) {
				t.Errorf("%d %s", status, body)
			}
			keys, err := c.Get(url + "/openid/v1/jwks")
			if err != nil || keys.StatusCode != 200 { // which everybody may have
				t.Errorf("%v", err)
			}
			keys.Body.Close()
		})
	}
}

// The connection of a client whose authority is trusted no longer stands, and
// its requests are refused; with its new certificate it comes in by itself.
func TestConnectionDoesNotOutliveTheTrust(t *testing.T) {
	ca, before, after := tlstest.Authority(t, "ca"), tlstest.Authority(t, "before"), tlstest.Authority(t, "after")
	pair := leaf(t, ca, "server", x509.ExtKeyUsageServerAuth)
	var source changing
	source.trust(t, pair, before)
	w := newWorld(t)
	w.reviewer.Callers = &saserver.Callers{Source: &source}
	url, _ := serve(t, mtls.ServerConfig(&source, mtls.UnverifiedClients), saserver.Handler(nil, w.reviewer), w.log)
	var shows atomic.Pointer[tls.Certificate]
	shows.Store(leaf(t, before, "west", x509.ExtKeyUsageClientAuth))
	c := client(ca, shows.Load)
	good := w.token(nil)
	for range 2 {
		if status, body := reviewed(t, c, url, good); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
	}
	source.trust(t, pair, after)
	shows.Store(leaf(t, after, "west", x509.ExtKeyUsageClientAuth))
	if status, body := reviewed(t, c, url, good); status != 403 || strings.Contains(body, "x509") || !strings.Contains(w.log.String(), "unknown authority") {
		t.Errorf("%d %s; the log: %s", status, body, w.log)
	}
	if status, body := reviewed(t, c, url, good); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}

func TestServerFinishesWhatHasBegun(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	source := &mtls.Snapshot{Certificate: leaf(t, ca, "server", x509.ExtKeyUsageServerAuth)}
	begun, proceed := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-proceed
		fmt.Fprint(w, "done")
	})
	log := &safeBuffer{}
	url, stop := serve(t, mtls.ServerConfig(source, mtls.NoClients), h, log)
	c := client(ca, func() *tls.Certificate { return &tls.Certificate{} })
	answered := make(chan string, 1)
	go func() {
		answer, err := c.Get(url)
		if err != nil {
			answered <- err.Error()
			return
		}
		defer answer.Body.Close()
		data, _ := io.ReadAll(answer.Body)
		answered <- string(data)
	}()
	<-begun
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	for { // until nobody new is let in
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "https://"))
		if err != nil {
			break
		}
		conn.Close()
	}
	select {
	case err := <-ended:
		t.Fatalf("ended before the request: %v", err)
	default:
	}
	if !strings.Contains(log.String(), `"stopping: `) || strings.Contains(log.String(), `"stopped"`) {
		t.Errorf("the log: %s", log)
	}
	close(proceed)
	if got := <-answered; got != "done" {
		t.Errorf("answered %s", got)
	}
	if err := <-ended; err != nil || !strings.Contains(log.String(), `"stopped"`) {
		t.Errorf("%v; the log: %s", err, log)
	}
}

func TestFailedHandshakesAreInTheLog(t *testing.T) {
	ca := tlstest.Authority(t, "ca")
	source := &mtls.Snapshot{Certificate: leaf(t, ca, "server", x509.ExtKeyUsageServerAuth)}
	log := &safeBuffer{}
	url, stop := serve(t, mtls.ServerConfig(source, mtls.NoClients), http.NotFoundHandler(), log)
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	if conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), config); err == nil {
		conn.Close()
		t.Fatal("connected")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "TLS handshake error") {
		t.Errorf("the log: %s", log)
	}
}
