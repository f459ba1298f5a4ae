package interop_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/mtls"
)

// serveHTTP starts a server that greets its clients, and returns its address.
func serveHTTP(t *testing.T, s mtls.Source) string {
	t.Helper()
	hello := func(w http.ResponseWriter, r *http.Request) {
		client, err := mtls.VerifyClient(s, r.TLS)
		if err != nil {
			http.Error(w, "not allowed", http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, "hello %s, by %s\n", client.Certificate.Subject.CommonName, r.Proto)
	}
	server := &http.Server{Handler: http.HandlerFunc(hello), TLSConfig: mtls.ServerConfig(s, mtls.RequireClients), ErrorLog: log.New(io.Discard, "", 0)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.ServeTLS(l, "", "")
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

const request = "GET / HTTP/1.0\r\n\r\n"

// sClient makes one request by openssl s_client; more are its options.
func sClient(t *testing.T, s *set, address string, more ...string) (string, error) {
	t.Helper()
	args := []string{"s_client", "-connect", address, "-CAfile", s.path("ca.crt"), "-verify_return_error", "-verify_ip", "127.0.0.1", "-ign_eof"}
	return run(t, request, "openssl", append(args, more...)...)
}

func shows(s *set, name string) []string {
	return []string{"-cert", s.path(name + ".crt"), "-key", s.path(name + ".key")}
}

func eachVersion(t *testing.T, test func(t *testing.T, alg issue.Algorithm, version string)) {
	eachKey(t, func(t *testing.T, alg issue.Algorithm) {
		for _, version := range []string{"-tls1_2", "-tls1_3"} {
			t.Run(version, func(t *testing.T) { test(t, alg, version) })
		}
	})
}

func TestOpenSSLClient(t *testing.T) {
	t.Parallel()
	need(t, "openssl", "version")
	eachVersion(t, func(t *testing.T, alg issue.Algorithm, version string) {
		s, foreign := newSet(t, alg), newSet(t, alg)
		address := serveHTTP(t, s.source(t, "server", s))
		rows := map[string]struct {
			trusts  *set
			options []string
			want    string
		}{
			"with a certificate":            {s, shows(s, "jane"), "hello jane, by HTTP/1.0"},
			"with one of another authority": {s, shows(foreign, "jane"), "alert unknown ca"},
			"with a server's":               {s, shows(s, "server"), "alert bad certificate"},
			"without one":                   {s, nil, "alert"},
			"who trusts another authority":  {foreign, shows(s, "jane"), "verify error"},
		}
		for name, row := range rows {
			out, _ := sClient(t, row.trusts, address, append(row.options, version)...)
			if good := strings.HasPrefix(row.want, "hello"); !strings.Contains(out, row.want) || strings.Contains(out, "hello") != good {
				t.Errorf("%s: want %q, got\n%s", name, row.want, out)
			}
		}
		if out, _ := sClient(t, s, address, append(shows(s, "jane"), "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")...); !strings.Contains(out, "alert protocol version") {
			t.Errorf("by TLS 1.1:\n%s", out)
		}
	})
}

// A session of OpenSSL's is resumed, and lets nobody in whose authority is
// trusted no more.
func TestOpenSSLResumesItsSessions(t *testing.T) {
	t.Parallel()
	need(t, "openssl", "version")
	eachVersion(t, func(t *testing.T, alg issue.Algorithm, version string) {
		s, other := newSet(t, alg), newSet(t, alg)
		var source mtls.Memory
		trust := func(of *set) {
			if err := source.Set(*s.source(t, "server", of)); err != nil {
				t.Fatal(err)
			}
		}
		trust(s)
		address := serveHTTP(t, &source)
		for _, row := range []struct{ when, option, want string }{
			{"first", "-sess_out", "New, "},
			{"again", "-sess_in", "Reused, "},
			{"trusted no more", "-sess_in", "alert"},
		} {
			refused := row.when == "trusted no more"
			if refused {
				trust(other)
			}
			out, _ := sClient(t, s, address, append(shows(s, "jane"), version, row.option, s.path("session"))...)
			if !strings.Contains(out, row.want) || strings.Contains(out, "hello jane") == refused {
				t.Errorf("%s: want %q, got\n%s", row.when, row.want, out)
			}
		}
	})
}

// sServer starts openssl s_server, which tells each client by HTTP what it made of
// it, and returns its address.
func sServer(t *testing.T, s, trusts *set, version string) string {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	c := exec.CommandContext(ctx, "openssl", "s_server", "-accept", "127.0.0.1:0", version, "-cert", s.path("server.crt"), "-key", s.path("server.key"),
		"-CAfile", trusts.path("ca.crt"), "-Verify", "3", "-verify_return_error", "-www")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); _ = c.Wait() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if address, ok := strings.CutPrefix(lines.Text(), "ACCEPT "); ok {
			go io.Copy(io.Discard, out)
			return address
		}
	}
	t.Fatalf("openssl s_server does not say where it serves: %v", lines.Err())
	return ""
}

func TestOpenSSLServer(t *testing.T) {
	t.Parallel()
	need(t, "openssl", "version")
	eachVersion(t, func(t *testing.T, alg issue.Algorithm, version string) {
		s, foreign := newSet(t, alg), newSet(t, alg)
		nothing := &mtls.Snapshot{Bundle: s.source(t, "jane", s).Bundle}
		rows := map[string]struct {
			server, trusts *set
			mine           mtls.Source
			authorizer     mtls.Authorizer
			want           string // of the error; empty: all is well
		}{
			"and a client that it knows":                    {s, s, s.source(t, "jane", s), nil, ""},
			"and a client without a certificate":            {s, s, nothing, nil, "remote error: tls:"},
			"and a client that it does not know":            {s, foreign, s.source(t, "jane", s), nil, "remote error: tls: unknown certificate authority"},
			"of another authority":                          {foreign, s, s.source(t, "jane", s), nil, "unknown authority"},
			"that is not the one that the client asked for": {s, s, s.source(t, "jane", s), mtls.Named("shop.example.test"), "another server than was asked for"},
		}
		for name, row := range rows {
			address := sServer(t, row.server, row.trusts, version)
			transport := &http.Transport{TLSClientConfig: mtls.DialledAt(row.mine, row.authorizer, address)}
			answer, err := (&http.Client{Transport: transport}).Get("https://" + address)
			var page []byte
			if err == nil {
				page, err = io.ReadAll(answer.Body)
				answer.Body.Close()
			}
			transport.CloseIdleConnections()
			if row.want == "" && (err != nil || !strings.Contains(string(page), "Subject: CN=jane")) {
				t.Errorf("%s: %v\n%s", name, err, page)
			}
			if row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("%s: want %q, got %v", name, row.want, err)
			}
		}
	})
}

func TestCurl(t *testing.T) {
	t.Parallel()
	need(t, "curl", "--version")
	eachKey(t, func(t *testing.T, alg issue.Algorithm) {
		s := newSet(t, alg)
		address := serveHTTP(t, s.source(t, "server", s))
		for option, protocol := range map[string]string{"--http1.1": "HTTP/1.1", "--http2": "HTTP/2.0"} {
			for _, version := range []string{"1.2", "1.3"} {
				args := []string{"-sS", option, "--tlsv" + version, "--tls-max", version, "--cacert", s.path("ca.crt"), "https://" + address}
				out, err := run(t, "", "curl", append(args, "--cert", s.path("jane.crt"), "--key", s.path("jane.key"))...)
				if want := "hello jane, by " + protocol + "\n"; err != nil || out != want {
					t.Errorf("%s, TLS %s: %q, %v", protocol, version, out, err)
				}
				if out, err := run(t, "", "curl", args...); err == nil || strings.Contains(out, "hello") {
					t.Errorf("%s, TLS %s, without a certificate: %q", protocol, version, out)
				}
			}
		}
	})
}
