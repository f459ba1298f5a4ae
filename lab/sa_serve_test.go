//go:build linux

package lab_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/token"
)

const (
	eastIssuer   = "https://10.99.0.11:8443/east"
	eastRobot    = "east:system:serviceaccount:ci:robot"
	westAudience = "https://kubernetes.default.svc.cluster.local" // that of its API server, by default
)

// west is a cluster that takes in the tokens of a cluster east, of which there
// is a key and kubepki sa serve.
type west struct {
	*controlPlane
	dir    string // of east: sa.pub, and what kubepki init --layout service makes
	signer *token.Signer
	server *lab.Process
}

func startWest(t *testing.T) *west {
	t.Helper()
	w := &west{controlPlane: &controlPlane{dir: initCluster(t, 1, "--key-algorithm=ECDSA-P256")}, dir: t.TempDir()}
	run(t, "kubepki", "init", "--layout=service", "--root="+w.dir, "--name=10.99.0.11", "--key-algorithm=ECDSA-P256")
	w.signer = w.newKey(t, issue.RSA2048)
	node := addNode(t, newNetwork(t), "cp1", w.path("cp1", ""), "10.99.0.11/24")
	w.nodes = []*lab.Node{node}
	w.admin = w.conf(t, "super-admin")
	ready(t, start(t, node, "etcd", "--unsafe-no-fsync"))
	w.startServer(t)
	east := filepath.Join(node.Root, "etc/kubernetes/east")
	if err := os.MkdirAll(east, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca.crt", "client/client.crt", "client/client.key"} {
		write(t, filepath.Join(east, filepath.Base(name)), string(read(t, filepath.Join(w.dir, name))))
	}
	write(t, filepath.Join(east, "webhook.yaml"), strings.ReplaceAll(documented(t, "Config"), "tokens.example.com:8443", "10.99.0.11:8443"))
	return w
}

// newKey makes a key of east, and puts it in the place of the one before.
func (w *west) newKey(t *testing.T, a issue.Algorithm) *token.Signer {
	t.Helper()
	key, err := issue.GenerateKey(a)
	if err != nil {
		t.Fatal(err)
	}
	public, err := issue.EncodePublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(write(t, filepath.Join(w.dir, "sa.pub.new"), string(public)), filepath.Join(w.dir, "sa.pub")); err != nil {
		t.Fatal(err)
	}
	s, err := token.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// startServer starts kubepki sa serve with the flags of docs/sa-serve.md.
func (w *west) startServer(t *testing.T) {
	t.Helper()
	in := func(name string) string { return filepath.Join(w.dir, name) }
	var err error
	w.server, err = w.nodes[0].Run(&lab.Manifest{Name: "kubepki-sa-serve", Probe: &url.URL{Scheme: "http", Host: "127.0.0.1:10270", Path: "/readyz"}, Command: []string{
		"kubepki", "sa", "serve", "--listen=10.99.0.11:8443", "--tls-cert-file=" + in("server/server.crt"), "--tls-private-key-file=" + in("server/server.key"),
		"--key=" + in("sa.pub"), "--issuer=" + eastIssuer, "--client-ca-file=" + in("ca.crt"), "--allowed-name=client", "--username-prefix=east:", "--groups-prefix=east:",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("kubepki sa serve:\n%s", w.server.Log())
		}
	})
	ready(t, w.server)
}

// withAPIServer runs a test while west's API server runs with more flags.
func (w *west) withAPIServer(t *testing.T, test func(t *testing.T), flags ...string) {
	t.Helper()
	w.apiserver = start(t, w.nodes[0], "kube-apiserver", flags...)
	ready(t, w.apiserver)
	test(t)
	if err := w.apiserver.Stop(); err != nil {
		t.Fatal(err)
	}
}

// documented returns the YAML of a kind in docs/sa-serve.md.
func documented(t *testing.T, kind string) string {
	t.Helper()
	return documentedIn(t, filepath.Join("..", "docs", "sa-serve.md"), kind)
}

func eastToken(t *testing.T, s *token.Signer, change func(*token.Claims)) string {
	t.Helper()
	now := time.Now()
	c := token.Claims{
		Issuer: eastIssuer, Audiences: []string{westAudience, "west"}, ID: "2f2c9fb0-7b9f-4b3a-9b51-0a4a3a8f2c11", Expires: now.Add(time.Hour), NotBefore: now, IssuedAt: now,
		Namespace: "ci", ServiceAccount: token.Ref{Name: "robot", UID: "6f5c0c2e-0c5c-4f0e-9d5b-2b7a3c1d9e10"},
	}
	if change != nil {
		change(&c)
	}
	text, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// withToken calls west's API server with a token alone.
func (w *west) withToken(text string) *rest.Config {
	return &rest.Config{Host: w.admin.Host, QPS: -1, Timeout: w.admin.Timeout, BearerToken: text, TLSClientConfig: rest.TLSClientConfig{CAData: w.admin.CAData, CAFile: w.admin.CAFile}}
}

func (w *west) isRobot(t *testing.T, what, text string) {
	t.Helper()
	want := identity{eastRobot, []string{"east:system:serviceaccounts", "east:system:serviceaccounts:ci", "system:authenticated"}}
	eventually(t, what, func(context.Context) error {
		got, err := whoami(t, w.withToken(text))
		if err == nil && !cmp.Equal(want, got) {
			t.Fatalf("%s: %s", what, cmp.Diff(want, got))
		}
		return err
	})
}

func (w *west) isNobody(t *testing.T, what, text string) {
	t.Helper()
	if got, err := whoami(t, w.withToken(text)); !apierrors.IsUnauthorized(err) {
		t.Errorf("%s: %v, %v", what, got, err)
	}
}

// refusals are tokens that nobody may accept.
func (w *west) refusals(t *testing.T) map[string]string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := token.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"key-unknown":       eastToken(t, foreign, nil),
		"audience-mismatch": eastToken(t, w.signer, func(c *token.Claims) { c.Audiences = []string{"https://elsewhere.example.test"} }),
		"expired": eastToken(t, w.signer, func(c *token.Claims) {
			c.Expires, c.NotBefore, c.IssuedAt = time.Now().Add(-2*time.Minute), time.Now().Add(-time.Hour), time.Now().Add(-time.Hour)
		}),
	}
}

func TestOtherClustersTrustWhatIsServed(t *testing.T) {
	w := startWest(t)
	config := "--authentication-token-webhook-config-file=/etc/kubernetes/east/webhook.yaml"
	t.Run("webhook", func(t *testing.T) {
		w.withAPIServer(t, func(t *testing.T) {
			w.testWebhook(t)
			w.testDocuments(t, "")
		}, config, "--authentication-token-webhook-version=v1")
	})
	t.Run("webhook of v1beta1, which is the default", func(t *testing.T) {
		const uri = "https://keys.example.test/west/jwks"
		w.withAPIServer(t, func(t *testing.T) {
			w.isRobot(t, "a token", eastToken(t, w.signer, nil))
			w.isNobody(t, "a token of another key", w.refusals(t)["key-unknown"])
			w.testDocuments(t, uri)
		}, append(w.moreKeys(t), config, "--service-account-jwks-uri="+uri)...)
	})
	t.Run("discovery", func(t *testing.T) {
		w.writeAuthenticationConfiguration(t)
		discovers := "--authentication-config=/etc/kubernetes/east/authentication.yaml"
		w.withAPIServer(t, w.testDiscovery, discovers)
		w.withAPIServer(t, func(t *testing.T) { w.isRobot(t, "a token of the new key", eastToken(t, w.signer, nil)) }, discovers)
	})
}

// testWebhook: the API server asks kubepki sa serve.
func (w *west) testWebhook(t *testing.T) {
	before := eastToken(t, w.signer, nil)
	w.isRobot(t, "a token", before)
	for reason, text := range w.refusals(t) {
		w.isNobody(t, reason, text)
		if log := w.server.Log(); !strings.Contains(log, `"reasons":"`+reason+`"`) {
			t.Errorf("the log of kubepki sa serve does not say %s:\n%s", reason, log)
		}
	}
	w.isNobody(t, "no token of a service account", "hunter2")

	// The key is replaced, and nothing is restarted.
	old := w.signer
	w.signer = w.newKey(t, issue.ECDSAP256)
	start := time.Now()
	w.isRobot(t, "a token of the new key", eastToken(t, w.signer, nil))
	t.Logf("the new key was taken up within %s", time.Since(start).Round(100*time.Millisecond))
	w.isNobody(t, "another token of the old key", eastToken(t, old, func(c *token.Claims) { c.ID = "" }))
	w.isRobot(t, "a token of the old key, which the API server remembers", before)
	select {
	case <-w.server.Done():
		t.Error("kubepki sa serve has ended")
	default:
	}
}

func (w *west) writeAuthenticationConfiguration(t *testing.T) {
	t.Helper()
	lines := strings.Split(documented(t, "AuthenticationConfiguration"), "\n")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "# the PEM of ca.crt") })
	if i < 0 {
		t.Fatal("docs/sa-serve.md says not where the authority stands")
	}
	ca := strings.Split(strings.TrimSpace(string(read(t, filepath.Join(w.dir, "ca.crt")))), "\n")
	lines[i] = "      " + strings.Join(ca, "\n      ")
	text := strings.ReplaceAll(strings.Join(lines, "\n"), "https://tokens.example.com/east", eastIssuer)
	write(t, filepath.Join(w.nodes[0].Root, "etc/kubernetes/east/authentication.yaml"), text)
}

// testDiscovery: the API server discovers the issuer, and verifies by itself.
func (w *west) testDiscovery(t *testing.T) {
	w.isRobot(t, "a token", eastToken(t, w.signer, nil))
	for reason, text := range w.refusals(t) {
		w.isNobody(t, reason, text)
	}

	// What the API server has it keeps for an hour: docs/sa-serve.md, Replacing the
	// key. Another one, which has nothing yet, takes the new key at once.
	old := w.signer
	w.signer = w.newKey(t, issue.RSA2048)
	eventually(t, "the new key is published", func(context.Context) error { return w.published(t) })
	w.isNobody(t, "a token of a key that was not published before", eastToken(t, w.signer, nil))
	w.isRobot(t, "a token of the key that was", eastToken(t, old, nil))
}

// published tells whether kubepki sa serve serves the key of now.
func (w *west) published(t *testing.T) error {
	t.Helper()
	client, err := rest.HTTPClientFor(&rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(w.dir, "ca.crt")}})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Get(eastIssuer + token.JWKSPath)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err == nil && !strings.Contains(string(data), w.signer.Key().ID) {
		err = fmt.Errorf("%s: %s", answer.Status, data)
	}
	return err
}
