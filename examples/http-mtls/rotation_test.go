package httpmtls_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const module = "github.com/kubepki/kubepki/"

// build builds the programs of the example, and kubepki, and returns their folder.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	run(t, ".", "go", "build", "-tags", "grpcnotrace", "-o", dir+string(filepath.Separator),
		module+"cmd/kubepki", module+"examples/http-mtls/server", module+"examples/http-mtls/client")
	return dir
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// process is a program that runs, with what it has said.
type process struct {
	cmd  *exec.Cmd
	said text
}

type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *text) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *text) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func start(t *testing.T, dir, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...)}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, &p.said, &p.said
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	return p
}

// saysAgain waits until a process has said something once more than before.
func (p *process) saysAgain(t *testing.T, what string, before int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for p.count(what) <= before {
		select {
		case <-ctx.Done():
			t.Fatalf("%s does not say %q again:\n%s", p.cmd.Path, what, p.said.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (p *process) count(what string) int {
	return len(regexp.MustCompile(what).FindAllString(p.said.String(), -1))
}

// stop ends a process as an operator does, and returns how it ended.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%s: %v\n%s", p.cmd.Path, err, p.said.String())
	}
}

// The commands of the README, in their order, under traffic.
func TestRotations(t *testing.T) {
	bin, dir := build(t), t.TempDir()
	kubepki := func(args ...string) { t.Helper(); run(t, dir, filepath.Join(bin, "kubepki"), args...) }
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	kubepki("init", "--layout", "service", "--root", "tls", "--key-algorithm", "ECDSA-P256")
	server := start(t, dir, filepath.Join(bin, "server"), "--listen", "127.0.0.1:0")
	server.saysAgain(t, "listening on", 0)
	address := regexp.MustCompile(`listening on (\S+)`).FindStringSubmatch(server.said.String())[1]
	_, port, _ := net.SplitHostPort(address)
	byAddress := start(t, dir, filepath.Join(bin, "client"), "--url", "https://"+address)
	byName := start(t, dir, filepath.Join(bin, "client"), "--url", "https://localhost:"+port)
	clients := []*process{byAddress, byName}
	for _, c := range clients {
		c.saysAgain(t, "hello client", 0)
	}
	was := map[string]string{}
	for _, file := range []string{"ca.crt", "client/client.crt", "client/client.key"} {
		data, err := os.ReadFile(filepath.Join(dir, "tls", file))
		if err != nil {
			t.Fatal(err)
		}
		was[file] = string(data)
	}
	takenUp := func(file string) string { return `"tls/` + file + `"[^\n]*error: <nil>` }
	// does changes files and waits until each of some processes has taken them up.
	does := func(what string, change func(), file string, all ...*process) {
		t.Helper()
		before := make([]int, len(all))
		for i, p := range all {
			before[i] = p.count(takenUp(file))
		}
		change()
		for i, p := range all {
			p.saysAgain(t, takenUp(file), before[i])
		}
		t.Log(what)
	}

	does("the server's certificate", func() {
		kubepki("issue", "server", "--role", "server", "--san", "localhost,127.0.0.1,::1", "--authority", "tls/ca.crt", "--out", "tls/server/new")
		move("tls/server/new/server.key", "tls/server/server.key")
		move("tls/server/new/server.crt", "tls/server/server.crt")
	}, "server/server.crt", server)
	does("the client's certificate", func() {
		kubepki("issue", "client", "--role", "client", "--authority", "tls/ca.crt", "--out", "tls/client/new")
		move("tls/client/new/client.key", "tls/client/client.key")
		move("tls/client/new/client.crt", "tls/client/client.crt")
	}, "client/client.crt", clients...)

	kubepki("init", "--layout", "service", "--root", "next", "--key-algorithm", "ECDSA-P256")
	does("both trust both authorities", func() {
		run(t, dir, "sh", "-c", "cat tls/ca.crt next/ca.crt > both.crt && mv both.crt tls/ca.crt")
	}, "ca.crt", append(clients, server)...)
	does("the server shows the new one's", func() {
		run(t, dir, "sh", "-c", "mv next/server/server.key next/server/server.crt tls/server/")
	}, "server/server.crt", server)
	does("the clients show the new one's", func() {
		run(t, dir, "sh", "-c", "mv next/client/client.key next/client/client.crt tls/client/")
	}, "client/client.crt", clients...)
	does("nobody trusts the old one", func() {
		run(t, dir, "sh", "-c", "mv next/ca.crt next/ca.key tls/")
	}, "ca.crt", append(clients, server)...)

	for _, c := range clients {
		at := c.count("hello client")
		c.stop(t)
		said := c.said.String()
		if !regexp.MustCompile(`\n[1-9][0-9]{2,} requests, 0 failed\n`).MatchString(said) {
			t.Errorf("requests failed, or there were few:\n%s", said)
		}
		if at < 4 { // each certificate of either side was replaced twice
			t.Errorf("the answer has changed %d times:\n%s", at-1, said)
		}
	}
	refusesTheOld(t, address, was)
	server.stop(t)
	if log := server.said.String(); !strings.Contains(log, "unknown authority") {
		t.Errorf("the server does not say why it has refused the old client:\n%s", log)
	}
}

// refusesTheOld dials with the client's credential of before, and expects of the
// server one that the old authority does not verify.
func refusesTheOld(t *testing.T, address string, was map[string]string) {
	t.Helper()
	old, err := tls.X509KeyPair([]byte(was["client/client.crt"]), []byte(was["client/client.key"]))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(was["ca.crt"]))
	c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{old}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	shown := c.ConnectionState().PeerCertificates[0]
	if _, err := shown.Verify(x509.VerifyOptions{Roots: roots}); err == nil {
		t.Error("the server shows a certificate of the old authority")
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "unknown certificate authority") {
		t.Errorf("the old client's certificate: %v", err)
	}
}
