package supervisor

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

func TestTheProxyLeadsToServersInside(t *testing.T) {
	inside := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "inside") }))
	defer inside.Close()
	way := httptest.NewServer(&proxy{dial: new(net.Dialer).DialContext})
	defer way.Close()
	at, err := url.Parse(way.URL)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(inside.Certificate())
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(at), TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	response, err := client.Get(inside.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != "inside" {
		t.Errorf("%q, %v", body, err)
	}
	t.Run("but not to a server that is not there", func(t *testing.T) {
		inside.Close()
		if response, err := client.Get(inside.URL); err == nil {
			response.Body.Close()
			t.Errorf("answered %s", response.Status)
		}
	})
	t.Run("and takes no plain requests", func(t *testing.T) {
		response, err := http.Get(way.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("answered %s", response.Status)
		}
	})
}
