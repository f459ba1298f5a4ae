package frontproxy_test

import (
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"

	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/frontproxy"
)

// An extension API server, and a proxy that calls it on behalf of jane. In a
// cluster the settings are of package live, the certificates are an
// [mtls.FileSource], and the proxy is kube-apiserver.
func Example() {
	w := newWorld()
	serving, proxyClient := leaf(w.servers, x509.ExtKeyUsageServerAuth, "hello"), client(w.proxies, "front-proxy-client")
	settings := w.settings

	guard := &frontproxy.Guard{Settings: settings}
	hello := func(rw http.ResponseWriter, r *http.Request) {
		caller, _ := frontproxy.FromContext(r.Context())
		fmt.Fprintf(rw, "hello %s of %q, by %s", caller.User.Name, caller.User.Groups, caller.Peer)
	}
	server := &http.Server{
		Handler:   guard.Handler(http.HandlerFunc(hello)),
		TLSConfig: frontproxy.ServerConfig(&mtls.Snapshot{Certificate: &serving}, settings),
	}
	listener := listen()
	go server.ServeTLS(listener, "", "")
	defer server.Close()

	source := &mtls.Snapshot{Certificate: &proxyClient, Bundle: bundle(w.servers)}
	connects := &http.Transport{TLSClientConfig: mtls.ClientConfig(source, mtls.Named("hello.default.svc")), ForceAttemptHTTP2: true}
	defer connects.CloseIdleConnections()
	proxy := frontproxy.RoundTripper(connects, func(*http.Request) (mtls.User, error) {
		return mtls.User{Name: "jane", Groups: []string{"dev"}}, nil // whom the proxy has authenticated
	})
	r, err := http.NewRequest(http.MethodGet, "https://"+listener.Addr().String(), nil)
	if err != nil {
		log.Fatal(err)
	}
	r.Header.Set("X-Remote-User", "admin") // a client that lies
	answer, err := (&http.Client{Transport: proxy}).Do(r)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	fmt.Println(string(body))
	// Output: hello jane of ["dev" "system:authenticated"], by "CN=front-proxy-client"
}

// A reverse proxy names its users to the server behind it.
func ExampleRoundTripper() {
	source := &mtls.Memory{} // in a program: mtls.OpenFiles with the proxy's certificate
	behind, err := url.Parse("https://hello.kube-system.svc")
	if err != nil {
		log.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(behind) },
		Transport: frontproxy.RoundTripper(&http.Transport{TLSClientConfig: mtls.ClientConfig(source, nil)}, func(r *http.Request) (mtls.User, error) {
			peer, ok := mtls.FromContext(r.Context()) // by whatever the proxy knows its users
			if !ok {
				return mtls.User{}, mtls.ErrNoClient
			}
			return peer.User()
		}),
	}
	_ = http.Server{Handler: proxy}
}

func ExampleSetUser() {
	r, err := http.NewRequest(http.MethodGet, "https://hello.kube-system.svc", nil)
	if err != nil {
		log.Fatal(err)
	}
	r.Header.Set("X-Remote-Group", "system:masters") // from the client
	err = frontproxy.SetUser(r, mtls.User{Name: "jane", Extra: map[string][]string{"example.com/scopes": {"read"}}})
	fmt.Println(r.Header, err)
	fmt.Println(frontproxy.SetUser(r, mtls.User{Name: " admin"}))
	// Output:
	// map[X-Remote-Extra-Example.com%2fscopes:[read] X-Remote-User:[jane]] <nil>
	// the user cannot be named in the header X-Remote-User: " admin" would not arrive as it is
}

func ExampleParseSettings() {
	w := newWorld()
	settings, err := frontproxy.ParseSettings(map[string]string{ // the data of the ConfigMap
		"requestheader-client-ca-file": pemOf(w.proxies), "requestheader-allowed-names": `["front-proxy-client"]`,
		"requestheader-username-headers": `["X-Remote-User"]`, "requestheader-group-headers": `["X-Remote-Group"]`,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(settings.AllowedNames, settings.Bundle.Anchors()[0].Subject)
	_, err = frontproxy.ParseSettings(map[string]string{"requestheader-client-ca-file": pemOf(w.proxies), "client-ca-file": pemOf(w.proxies)})
	fmt.Println(err != nil)
	// Output:
	// [front-proxy-client] CN=front-proxy-ca
	// true
}
