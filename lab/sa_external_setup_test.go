//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/lab"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// takeKeys takes the keys of the service accounts from a control plane into the
// vault of its signer, and leaves its controller manager a key of its own.
func (s *signedOutside) takeKeys(t *testing.T, i int) {
	t.Helper()
	vault := s.path(fmt.Sprintf("vault%d", i+1), "")
	if err := os.Mkdir(vault, 0o700); err != nil {
		t.Fatal(err)
	}
	s.vaults = append(s.vaults, vault)
	s.keep(read(t, filepath.Join(s.nodes[i].Root, "etc/kubernetes/pki/sa.key")))
	pki := filepath.Join(s.nodes[i].Root, "etc/kubernetes/pki")
	if err := os.Rename(filepath.Join(pki, "sa.key"), filepath.Join(vault, "sa.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(pki, "sa.pub"), filepath.Join(vault, "keys.pem")); err != nil {
		t.Fatal(err)
	}
	if i == 0 {
		write(t, filepath.Join(pki, "legacy.key"), string(privatePEM(t, newSigningKey(t, issue.ECDSAP256))))
	}
	legacy, err := issue.ParsePrivateKey(read(t, s.pki("legacy.key")))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(vault, "legacy.pub"), string(publicPEM(t, legacy)))
	if err := os.MkdirAll(filepath.Join(s.nodes[i].Root, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// keep remembers how the file of a key begins.
func (s *signedOutside) keep(key []byte) {
	s.secrets = append(s.secrets, bytes.Split(key, []byte("\n"))[1])
}

func newSigningKey(t *testing.T, algorithm issue.Algorithm) crypto.Signer {
	t.Helper()
	key, err := issue.GenerateKey(algorithm)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func privatePEM(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	data, err := issue.EncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func publicPEM(t *testing.T, keys ...crypto.Signer) []byte {
	t.Helper()
	var all []byte
	for _, key := range keys {
		data, err := issue.EncodePublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data...)
	}
	return all
}

// without is the manifest of a component without some of its flags.
func (s *signedOutside) without(t *testing.T, i int, component string, flags ...string) *lab.Manifest {
	t.Helper()
	m, err := lab.ReadManifest(s.nodes[i].Root, component)
	if err != nil {
		t.Fatal(err)
	}
	for _, flag := range flags {
		before := len(m.Command)
		m.Command = slices.DeleteFunc(m.Command, func(arg string) bool { return strings.HasPrefix(arg, flag+"=") })
		if len(m.Command) == before {
			t.Fatalf("%s has no %s", component, flag)
		}
	}
	return m
}

func (s *signedOutside) run(t *testing.T, i int, m *lab.Manifest) *lab.Process {
	t.Helper()
	p, err := s.nodes[i].Run(m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s on %s:\n%s", m.Name, s.nodes[i].Name, p.Log())
		}
	})
	return p
}

func (s *signedOutside) startAPIServer(t *testing.T, i int) *lab.Process {
	t.Helper()
	m := s.without(t, i, "kube-apiserver", "--service-account-key-file", "--service-account-signing-key-file")
	m.Command = append(m.Command, "--service-account-signing-endpoint="+signerSocket)
	return s.run(t, i, m)
}

func (s *signedOutside) startManager(t *testing.T) *lab.Process {
	t.Helper()
	m := s.without(t, 0, "kube-controller-manager", "--service-account-private-key-file")
	m.Command = append(m.Command, "--service-account-private-key-file=/etc/kubernetes/pki/legacy.key")
	return s.run(t, 0, m)
}

// startSigner starts the signer of a control plane on its vault.
func (s *signedOutside) startSigner(t *testing.T, i int) {
	t.Helper()
	vault, socket := s.vaults[i], filepath.Join(s.nodes[i].Root, signerSocket)
	p := s.run(t, i, &lab.Manifest{Name: "kubepki-sa", Command: []string{
		"kubepki", "sa", "external-signer", "--socket=" + socket, "--issuer=" + labIssuer, "--signing-key=" + vault + "/sa.key", "--key=" + vault + "/keys.pem",
		"--legacy-key=" + vault + "/legacy.pub", "--max-token-expiration=" + labMaxLife.String(), "--refresh-hint=1s", "--publish-first=6s",
	}})
	if i < len(s.signers) {
		s.signers[i] = p
	} else {
		s.signers = append(s.signers, p)
	}
	eventually(t, "the signer listens", func(context.Context) error {
		select {
		case <-p.Done():
			t.Fatalf("it has ended: %v\n%s", p.Exit(), p.Log())
		default:
		}
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// ask asks an API server for a token of default/default.
func (s *signedOutside) ask(ctx context.Context, i int, spec authenticationv1.TokenRequestSpec) (string, error) {
	answer, err := s.clients[i].CoreV1().ServiceAccounts("default").CreateToken(ctx, "default", &authenticationv1.TokenRequest{Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return answer.Status.Token, nil
}
