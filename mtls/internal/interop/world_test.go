// Package interop_test holds package mtls against other people's TLS: OpenSSL,
// curl, and gRPC's C core by Python.
package interop_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/mtls"
)

// python is Debian's, which has Debian's python3-grpcio.
const python = "/usr/bin/python3"

// need skips a test for which the system lacks something. Where `make deps` has
// run, and where nobody looks at skips, that is a failure.
func need(t *testing.T, tool string, proof ...string) {
	t.Helper()
	err := exec.Command(tool, proof...).Run()
	if err == nil {
		return
	}
	if os.Getenv("CI") != "" || os.Getenv("KUBEPKI_DEPS") != "" {
		t.Fatalf("%s %s: %v: hack/deps.sh installs it", tool, strings.Join(proof, " "), err)
	}
	t.Skipf("%s is not there: hack/deps.sh installs it", tool)
}

// set is an authority and the files of a server and of clients below it, all of
// one kind of key.
type set struct {
	dir string
	ca  issue.Authority
}

func newSet(t *testing.T, alg issue.Algorithm) *set {
	t.Helper()
	s := &set{dir: t.TempDir(), ca: tlstest.Certify(t, "ca", tlstest.Key(t, alg))}
	tlstest.Put(t, s.path("ca.crt"), tlstest.PEM(s.ca))
	s.leaf(t, "server", x509.ExtKeyUsageServerAuth)
	s.leaf(t, "jane", x509.ExtKeyUsageClientAuth)
	return s
}

func (s *set) path(name string) string { return filepath.Join(s.dir, name) }

func (s *set) leaf(t *testing.T, name string, usage x509.ExtKeyUsage) {
	t.Helper()
	tlstest.PutPair(t, tlstest.Files(s.dir, name), tlstest.Leaf(t, s.ca, name, tlstest.At("localhost", "127.0.0.1"), tlstest.For(usage)))
}

// source is what a program has that is called name, and trusts a set.
func (s *set) source(t *testing.T, name string, trusts *set) *mtls.Snapshot {
	t.Helper()
	files := mtls.Files{Certificate: s.path(name + ".crt"), Key: s.path(name + ".key"), Bundle: trusts.path("ca.crt")}
	source, err := mtls.OpenFiles(files, nil)
	if err != nil {
		t.Fatal(err)
	}
	now, err := source.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return now
}

// run runs a program to its end, and returns all that it says.
func run(t *testing.T, input, program string, args ...string) (string, error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	c := exec.CommandContext(ctx, program, args...)
	c.Stdin = strings.NewReader(input)
	out, err := c.CombinedOutput()
	return string(bytes.ToValidUTF8(out, []byte("?"))), err
}

// eachKey runs a test with each kind of key.
func eachKey(t *testing.T, test func(t *testing.T, alg issue.Algorithm)) {
	for _, alg := range []issue.Algorithm{issue.RSA2048, issue.ECDSAP256} {
		t.Run(string(alg), func(t *testing.T) { test(t, alg) })
	}
}
