package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/client-go/tools/clientcmd"
)

// onlyByProxy is an address that nobody listens on: it is where the API server
// is for those who ask the proxy.
const onlyByProxy = "127.0.0.1:1"

// proxy is the command proxy FILE, after apiserver: it starts a proxy (RFC 9110
// section 9.3.6) until the script ends, and writes a kubeconfig which reaches
// the API server by that alone.
func (all *apiServers) proxy(ts *testscript.TestScript, neg bool, args []string) {
	a, ok := all.all.Load(ts.Name())
	if neg || !ok || len(args) != 1 {
		ts.Fatalf("usage: proxy FILE, after apiserver")
	}
	target := strings.TrimPrefix(a.(*apiServer).url, "https://")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { connectTo(target, w, r) }))
	ts.Defer(server.Close)
	config, err := clientcmd.LoadFromFile(ts.MkAbs("admin.conf"))
	ts.Check(err)
	for _, c := range config.Clusters {
		c.Server, c.ProxyURL = "https://"+onlyByProxy, strings.Replace(server.URL, "http://", "http://jane:word@", 1)
	}
	data, err := clientcmd.Write(*config)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

// connectTo lets those in who show the password.
func connectTo(target string, w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect || r.Host != onlyByProxy || r.Header.Get("Proxy-Authorization") != "Basic amFuZTp3b3Jk" {
		http.Error(w, "not by this proxy", http.StatusProxyAuthRequired)
		return
	}
	there, err := net.Dial("tcp", target)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer there.Close()
	here, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	if _, err := io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	go func() {
		defer there.Close()
		_, _ = io.Copy(there, here)
	}()
	_, _ = io.Copy(here, there)
}
