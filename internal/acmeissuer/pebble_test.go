package acmeissuer

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// acmeServer is a Pebble, the ACME server by Let's Encrypt for tests.
type acmeServer struct {
	url      string
	caBundle []byte
	// root returns the anchor of what it issues.
	root func(t *testing.T) *x509.Certificate
	stop func()
}

// pebbleSettings are those that tests turn.
type pebbleSettings struct {
	httpPort   int
	dns        string
	eab        map[string]string // the keys of external accounts; not nil: they are required
	profiles   map[string]ca.Profile
	roots      int  // alternate ones
	reuse      bool // what was proved needs no other proof
	middleware func(http.Handler) http.Handler
	address    string // where to listen; empty: anywhere
}

// pebbleInProcess runs Pebble as a library: the newest, whose answers a test may
// change on the way.
func pebbleInProcess(t *testing.T, s pebbleSettings) *acmeServer {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_AUTHZREUSE", map[bool]string{false: "0", true: "100"}[s.reuse])
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0")
	quiet := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	for id, key := range s.eab {
		if err := store.AddExternalAccountKeyByID(id, key); err != nil {
			t.Fatal(err)
		}
	}
	profiles := s.profiles
	if profiles == nil {
		profiles = map[string]ca.Profile{"default": {Description: "the default"}}
	}
	authority := ca.New(quiet, store, "", "ecdsa", s.roots, 1, profiles)
	front := wfe.New(quiet, store, va.New(quiet, s.httpPort, 1, false, s.dns, store), authority, []string{"pebble.test"}, false, s.eab != nil, 1, 1)
	handler := front.Handler()
	if s.middleware != nil {
		handler = s.middleware(handler)
	}
	server := httptest.NewUnstartedServer(handler)
	if s.address != "" {
		l, err := net.Listen("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		_ = server.Listener.Close()
		server.Listener = l
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	return &acmeServer{
		stop: server.Close,
		url:  server.URL + "/dir", caBundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
		root: func(t *testing.T) *x509.Certificate {
			c, err := trust.ParseCertificates(authority.GetRootCert(0).PEM())
			if err != nil {
				t.Fatal(err)
			}
			return c[0]
		},
	}
}

// pebbleProcess runs the pebble of the system, Debian's, as a process of its own.
func pebbleProcess(t *testing.T, s pebbleSettings) *acmeServer {
	t.Helper()
	program, err := exec.LookPath("pebble")
	if err != nil {
		t.Skip("pebble is not here to issue certificates: make deps installs it")
	}
	dir := t.TempDir()
	caPEM := servingPair(t, dir)
	listen, manage := freePort(t), freePort(t)
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": manage,
		"certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"),
		"httpPort": s.httpPort, "tlsPort": 1, "externalAccountBindingRequired": s.eab != nil, "externalAccountMACKeys": s.eab,
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	command := exec.Command(program, "-config", file, "-dnsserver", s.dns)
	command.Stdout, command.Stderr = &out, &out
	command.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=20", "PEBBLE_AUTHZREUSE=0", "PEBBLE_ALTERNATE_ROOTS="+strconv.Itoa(s.roots))
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		if t.Failed() {
			t.Logf("pebble said:\n%s", out.Bytes())
		}
	})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(caPEM)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}, Timeout: 5 * time.Second}
	get := func(url string) ([]byte, bool) {
		response, err := client.Get(url)
		if err != nil {
			return nil, false
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return body, response.StatusCode == http.StatusOK
	}
	server := &acmeServer{url: "https://" + listen + "/dir", caBundle: caPEM}
	waitFor(t, "pebble is there", func() bool { _, ok := get(server.url); return ok })
	server.root = func(t *testing.T) *x509.Certificate {
		body, _ := get("https://" + manage + "/roots/0")
		c, err := trust.ParseCertificates(body)
		if err != nil || len(c) == 0 {
			t.Fatal("pebble does not show its root", err)
		}
		return c[0]
	}
	return server
}

// servingPair writes cert.pem and key.pem for 127.0.0.1, and returns what to trust.
func servingPair(t *testing.T, dir string) []byte {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	c, err := issue.SelfSign(issue.Template{
		Subject: pkix.Name{CommonName: "pebble"}, Addresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := issue.EncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := trust.EncodeCertificates(c)
	for name, data := range map[string][]byte{"cert.pem": certificate, "key.pem": text} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr())
}
