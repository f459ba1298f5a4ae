package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

var agentAddress = regexp.MustCompile(`msg="serving the status page and metrics" address=(\S+) tls=true`)

// askedAgent is an agent that is asked by TLS, with the files of a node.
type askedAgent struct {
	*testing.T
	address, pki string
}

// get asks over a new connection, and returns the certificate that was shown. The answer
// is to come before those who say nothing are given up on.
func (a *askedAgent) get(path string, shows ...tls.Certificate) (*x509.Certificate, error) {
	a.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(readFile(a.T, filepath.Join(a.pki, "ca.crt")))
	config := &tls.Config{RootCAs: roots, ServerName: "kubernetes", Certificates: shows}
	client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	r, err := client.Get("https://" + a.address + path)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		a.Errorf("%s: %s", path, r.Status)
	}
	return r.TLS.PeerCertificates[0], nil
}

func (a *askedAgent) pair(name string) tls.Certificate {
	a.Helper()
	c, err := tls.LoadX509KeyPair(filepath.Join(a.pki, name+".crt"), filepath.Join(a.pki, name+".key"))
	if err != nil {
		a.Fatal(err)
	}
	return c
}

func TestAgentIsAskedByTLSAndWhoSaysNothingKeepsNobodyAway(t *testing.T) {
	root := newAgentNode(t)
	pki := filepath.Join(root, "etc/kubernetes/pki")
	c, said := startAgent(t, root, "--watch", "--listen", "127.0.0.1:0", "--tls-cert-file", filepath.Join(pki, "apiserver.crt"), "--tls-private-key-file", filepath.Join(pki, "apiserver.key"),
		"--client-ca-file", filepath.Join(pki, "ca.crt"))
	waitSaid(t, said, "msg=verified", 1)
	found := agentAddress.FindStringSubmatch(said.String())
	if found == nil {
		t.Fatal(said)
	}
	a := &askedAgent{t, found[1], pki}
	mine := a.pair("apiserver-kubelet-client")
	shown, err := a.get("/metrics", mine)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.get("/metrics"); err == nil {
		t.Error("who shows no certificate is answered")
	}
	if _, err := a.get("/metrics", a.pair("front-proxy-client")); err == nil {
		t.Error("who shows one of another authority is answered")
	}
	if r, err := http.Get("http://" + a.address + "/metrics"); err == nil {
		if r.Body.Close(); r.StatusCode == http.StatusOK {
			t.Error("who speaks no TLS is answered")
		}
	}
	runKubepki(t, "renew", "apiserver", "--yes", "--root", root)
	// The files are looked at when somebody asks, and taken up once they have settled.
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		now, err := a.get("/healthz", mine)
		if err != nil {
			t.Fatal(err)
		}
		if !now.Equal(shown) {
			break
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("the old certificate is shown still:\n%s", said)
		}
	}
	waitSaid(t, said, "files of --listen were taken up", 1)
	a.crowd()
	for range 5 {
		if _, err := a.get("/healthz", mine); err != nil {
			t.Errorf("beside connections that say nothing: %v", err)
		}
	}
	endAgent(t, c, said)
}

// crowd opens two hundred connections that say nothing, or a part of a greeting.
func (a *askedAgent) crowd() {
	for i := range 200 {
		c, err := net.Dial("tcp", a.address)
		if err != nil {
			a.Fatal(err)
		}
		a.Cleanup(func() { _ = c.Close() }) // it may be closed
		if i%2 == 0 {
			_, _ = c.Write([]byte{22, 3, 1, 0, 200, 1}) // the begin of a ClientHello
		}
	}
}
