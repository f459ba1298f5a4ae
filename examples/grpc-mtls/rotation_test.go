// Package grpcmtls_test runs the examples as processes, and rotates their files
// with the commands of README.md.
package grpcmtls_test

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// build makes kubepki and the examples: server and client, and those of plain/ in
// a folder of that name.
func build(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir() + "/"
	for out, from := range map[string][]string{
		dir: {"../../cmd/kubepki", "./rotating/server", "./rotating/client"}, dir + "plain/": {"./plain/server", "./plain/client"},
	} {
		args := append([]string{"build", "-tags", "grpcnotrace", "-ldflags", "-s -w", "-o", out}, from...)
		if said, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", from, err, said)
		}
	}
	return dir
}

// site is a folder to work in, with the programs in PATH.
type site struct{ dir, bin string }

// sh runs a line of a shell, as a user types it.
func (s *site) sh(t *testing.T, line string) {
	t.Helper()
	c := exec.Command("sh", "-euc", line)
	c.Dir = s.dir
	c.Env = append(os.Environ(), "PATH="+s.bin+":"+os.Getenv("PATH"))
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// serial is that of the first certificate of a file, as the clients print it.
func (s *site) serial(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, file))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("%s holds no PEM", file)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c.SerialNumber.Text(16)
}

// process is a program that runs, and what it has said.
type process struct {
	name  string
	cmd   *exec.Cmd
	ended chan error

	mu    sync.Mutex
	lines []string
}

func (s *site) start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{name: name, cmd: exec.Command(filepath.Join(s.bin, name), args...), ended: make(chan error, 1)}
	p.cmd.Dir = s.dir
	var failure bytes.Buffer
	p.cmd.Stderr = &failure
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for all := bufio.NewScanner(out); all.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, all.Text())
			p.mu.Unlock()
		}
		p.ended <- p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.stop(os.Kill)
		if t.Failed() {
			t.Logf("%s said:\n%s\n%s", name, strings.Join(p.said(), "\n"), failure.String())
		}
	})
	return p
}

// stop ends the process, if it has not ended, and waits for it.
func (p *process) stop(by os.Signal) {
	_ = p.cmd.Process.Signal(by) // it may have ended
	p.ended <- <-p.ended
}

func (p *process) said() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.lines...)
}

// says waits until the process has said something after its first n lines, and
// returns the line.
func (p *process) says(t *testing.T, n int, text string) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, line := range p.said()[n:] {
			if strings.Contains(line, text) {
				return line
			}
		}
	}
	t.Fatalf("%s does not say %q", p.name, text)
	return ""
}

func (p *process) address(t *testing.T) string {
	t.Helper()
	return strings.TrimPrefix(p.says(t, 0, "serving at "), "serving at ")
}

// sum ends a client, and returns how many calls it has made and how many failed.
func (p *process) sum(t *testing.T) (calls, failed int) {
	t.Helper()
	p.stop(os.Interrupt)
	said := p.said()
	if _, err := fmt.Sscanf(said[len(said)-1], "%d calls, %d failed", &calls, &failed); err != nil {
		t.Fatalf("%s: %v in %q", p.name, err, said[len(said)-1])
	}
	return calls, failed
}

const (
	newLeaves = `kubepki issue server --role server --san localhost,127.0.0.1 --authority tls/ca.crt --out new
kubepki issue client --role client --authority tls/ca.crt --out new`
	replaceServer = `mv new/server.key new/server.crt tls/server/`
	replaceClient = `mv new/client.key new/client.crt tls/client/`
)

func TestRotationUnderTraffic(t *testing.T) {
	bin := build(t)
	t.Run("as most programs have it, the old certificate is shown until a restart", func(t *testing.T) { plain(t, &site{t.TempDir(), bin}) })
	t.Run("with package mtls, no call is lost", func(t *testing.T) { rotating(t, &site{t.TempDir(), bin}) })
}

func plain(t *testing.T, s *site) {
	s.sh(t, "kubepki init --layout service --root tls --name localhost,127.0.0.1")
	first := s.serial(t, "tls/server/server.crt")
	server := s.start(t, "plain/server", "-listen", "127.0.0.1:0")
	address := server.address(t)
	s.sh(t, newLeaves+"\n"+replaceServer+"\n"+replaceClient)
	second := s.serial(t, "tls/server/server.crt")
	s.start(t, "plain/client", "-server", address).says(t, 0, "served by certificate "+first)

	s.sh(t, "rm -r tls && kubepki init --layout service --root tls --name localhost,127.0.0.1")
	third := s.serial(t, "tls/server/server.crt")
	s.start(t, "plain/client", "-server", address).says(t, 0, "failed: ")
	server.stop(os.Kill)
	s.start(t, "plain/server", "-listen", address).address(t)
	s.start(t, "plain/client", "-server", address).says(t, 0, "served by certificate "+third)
	if first == second || second == third {
		t.Error("nothing was rotated")
	}
}

func rotating(t *testing.T, s *site) {
	s.sh(t, "kubepki init --layout service --root tls --name localhost,127.0.0.1")
	server := s.start(t, "server", "-listen", "127.0.0.1:0", "-connection-age", "500ms")
	client := s.start(t, "client", "-server", server.address(t))
	client.says(t, 0, "served by certificate "+s.serial(t, "tls/server/server.crt"))
	// both does something to the files, and waits until who uses a file has taken it up.
	both := func(line, byServer, byClient string) {
		t.Helper()
		ofServer, ofClient := len(server.said()), len(client.said())
		s.sh(t, line)
		if byServer != "" {
			server.says(t, ofServer, "taken up [tls/"+byServer)
		}
		if byClient != "" {
			client.says(t, ofClient, "taken up [tls/"+byClient)
		}
	}
	// The leaves alone.
	s.sh(t, newLeaves)
	both(replaceClient, "", "client/client.crt")
	both(replaceServer, "server/server.crt", "")
	client.says(t, 0, "served by certificate "+s.serial(t, "tls/server/server.crt"))
	// Half a pair changes nothing, and is said.
	s.sh(t, newLeaves+"\nmv new/server.key tls/server/")
	server.says(t, 0, "not taken up: tls/server/server.crt: the first certificate")
	both("mv new/server.crt tls/server/", "server/server.crt", "")
	// The authority: both are trusted, then the leaves are replaced, then the old
	// one is taken away.
	s.sh(t, "kubepki init --layout service --root next --name localhost,127.0.0.1")
	both("cat tls/ca.crt next/ca.crt > both.crt && mv both.crt tls/ca.crt", "ca.crt", "ca.crt")
	s.sh(t, "mkdir old && cp -r tls/client old/ && cp next/ca.crt old/")
	both("mv next/client/client.* tls/client/", "", "client/client.crt")
	both("mv next/server/server.* tls/server/", "server/server.crt", "")
	client.says(t, 0, "served by certificate "+s.serial(t, "tls/server/server.crt"))
	both("cp next/ca.crt ca.new && mv ca.new tls/ca.crt", "ca.crt", "ca.crt")
	// A connection from here on is of the new authority alone.
	fresh := s.start(t, "client", "-server", server.address(t))
	fresh.says(t, 0, "served by certificate ")
	calls, failed := client.sum(t)
	t.Logf("%d calls, %d failed", calls, failed)
	if calls < 100 || failed > 0 {
		t.Errorf("%d calls, %d failed", calls, failed)
	}
	// And who shows a certificate of the old one is refused.
	s.start(t, "client", "-server", server.address(t), "-folder", "old").says(t, 0, "failed: ")
}
