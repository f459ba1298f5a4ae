package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.step.sm/crypto/kms/apiv1"
	"go.step.sm/crypto/kms/pkcs11"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/signer"
	"github.com/kubepki/kubepki/internal/trust"
)

const (
	module = "/usr/lib/softhsm/libsofthsm2.so" // Debian's softhsm2
	pin    = "only-for-this-test"
)

// TestMain is also the program itself, and the one that makes keys in a token:
// a PKCS#11 module reads its configuration once in a process.
func TestMain(m *testing.M) {
	switch os.Getenv("KUBEPKI_KMS_TEST") {
	case "program":
		main()
	case "make-key":
		if err := makeKey(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// makeKey makes a key in a token, which the token does not let out.
func makeKey(uri, algorithm string) error {
	m, err := pkcs11.New(context.Background(), apiv1.Options{URI: uri, Pin: pin})
	if err != nil {
		return err
	}
	defer m.Close()
	q := &apiv1.CreateKeyRequest{Name: uri, SignatureAlgorithm: apiv1.ECDSAWithSHA256}
	if algorithm == "RSA" {
		q.SignatureAlgorithm, q.Bits = apiv1.SHA256WithRSA, 2048
	}
	_, err = m.CreateKey(q)
	return err
}

// token is a SoftHSM token of its own for one test.
type token struct {
	dir string
	env []string
}

func newToken(t testing.TB) *token {
	t.Helper()
	k := &token{dir: t.TempDir()}
	tokens := filepath.Join(k.dir, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(k.dir, "softhsm2.conf")
	put(t, config, "directories.tokendir = "+tokens+"\nobjectstore.backend = file\nlog.level = ERROR\n")
	put(t, k.path("pin"), pin+"\n")
	k.env = append(os.Environ(), "SOFTHSM2_CONF="+config)
	c := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "lab", "--pin", pin, "--so-pin", "so-"+pin)
	c.Env = k.env
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("softhsm2-util (hack/deps.sh installs it): %v\n%s", err, out)
	}
	return k
}

func (k *token) path(name string) string { return filepath.Join(k.dir, name) }

// uri names a key of the token.
func (k *token) uri(object string, more ...string) string {
	return fmt.Sprintf("pkcs11:module-path=%s;token=lab;object=%s;id=%x", module, object, object) + strings.Join(more, "")
}

func (k *token) pinned(object string) string { return k.uri(object, "?pin-source="+k.path("pin")) }

func (k *token) makeKey(t testing.TB, object, algorithm string) {
	t.Helper()
	c := exec.Command(os.Args[0], k.uri(object), algorithm)
	c.Env = append(k.env, "KUBEPKI_KMS_TEST=make-key")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("making key %s: %v\n%s", object, err, out)
	}
}

// program is a running kubepki-kms.
type program struct {
	*exec.Cmd
	log    safeBuffer
	exited chan struct{}
}

// safeBuffer may be written and read at once.
type safeBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *safeBuffer) add(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.WriteString(line + "\n")
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// start starts kubepki-kms and returns when it listens or has ended.
func (k *token) start(t testing.TB, env []string, args ...string) *program {
	t.Helper()
	p := &program{Cmd: exec.Command(os.Args[0], args...), exited: make(chan struct{})}
	p.Env = append(append(k.env, "KUBEPKI_KMS_TEST=program"), env...)
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	listening := make(chan struct{})
	go func() {
		defer close(p.exited)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			p.log.add(lines.Text())
			if strings.Contains(lines.Text(), `"msg":"listening"`) {
				close(listening)
			}
		}
		p.Wait() // the exit code is in ProcessState
	}()
	t.Cleanup(func() { p.Process.Kill(); <-p.exited })
	select {
	case <-listening:
	case <-p.exited:
	case <-time.After(30 * time.Second):
		t.Fatalf("kubepki-kms neither listens nor ends:\n%s", p.log.String())
	}
	return p
}

func (p *program) kill(t testing.TB, s os.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	<-p.exited
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// makeAuthority makes the certificate of an authority with a key of kubepki-kms.
func makeAuthority(t testing.TB, socket, name, file string) *x509.Certificate {
	t.Helper()
	key, err := signer.Key(socket, name)
	if err != nil {
		t.Fatal(err)
	}
	c, err := issue.SelfSign(issue.Template{
		Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, file, string(trust.EncodeCertificates(c)))
	return c
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// request makes a kubelet's request, in PEM.
func request(t testing.TB, node string) []byte {
	t.Helper()
	r, err := issue.Request(issue.Template{Subject: pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}}}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return issue.EncodeRequest(r)
}
