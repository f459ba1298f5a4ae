//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/lab"
	"github.com/kubepki/kubepki/lab/internal/cri"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
	"github.com/kubepki/kubepki/token"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

// What the signers of the test are started with.
const (
	signerSocket = "/run/kubepki-sa/signer.sock"
	labIssuer    = "https://kubernetes.default.svc.cluster.local"
	labMaxLife   = 48 * time.Hour
)

// signedOutside are two control planes whose API servers have no key of the
// service accounts: each asks a kubepki sa external-signer of its own.
type signedOutside struct {
	*controlPlane
	network *lab.Network
	vaults  []string // the signers' files, outside of the roots of the nodes
	signers []*lab.Process
	apis    []*rest.Config // the administrator at each API server
	clients []*kubernetes.Clientset
	second  *lab.Process // the API server of cp2
	first   string       // a token of the first key
	secrets [][]byte     // a line of each key that has signed
}

func TestAPIServersAskAnExternalSigner(t *testing.T) {
	s := startSignedOutside(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"one control plane is moved after the other", s.testMove},
		{"a token is taken by every API server", s.testTokens},
		{"keys are published, but for those of Secrets' tokens", s.testPublished},
		{"tokens live no longer than the signer allows", s.testLife},
		{"the token of a Secret is signed elsewhere, and verified", s.testSecret},
		{"a signer that was killed comes back", s.testKilled},
		{"keys are rotated, published first", s.testRotation},
		{"a key that was not published first is so all the same", s.testHastyRotation},
		{"a pod shows what its kubelet asked for", s.testPod},
		{"no key of the service accounts is on the nodes", s.testNoKey},
		{"an API server that has both is refused", s.testBoth},
	} {
		if !t.Run(test.name, test.run) {
			return // what follows builds upon it
		}
	}
}

func startSignedOutside(t *testing.T) *signedOutside {
	t.Helper()
	s := &signedOutside{controlPlane: &controlPlane{dir: initCluster(t, 2), shape: "separate"}}
	s.network = newNetwork(t)
	var members []*lab.Process
	for i := 1; i <= 2; i++ {
		name := fmt.Sprintf("cp%d", i)
		s.nodes = append(s.nodes, addNode(t, s.network, name, s.path(name, ""), fmt.Sprintf("10.99.0.1%d/24", i)))
		members = append(members, start(t, s.nodes[i-1], "etcd", "--unsafe-no-fsync"))
	}
	ready(t, members...)
	s.admin = s.conf(t, "super-admin")
	for i := range s.nodes {
		api := rest.CopyConfig(s.admin)
		api.Host = fmt.Sprintf("https://10.99.0.1%d:6443", i+1)
		s.apis = append(s.apis, api)
		s.clients = append(s.clients, kubernetes.NewForConfigOrDie(api))
	}
	s.apiserver, s.second = s.move(t, 0), start(t, s.nodes[1], "kube-apiserver")
	ready(t, s.second)
	s.manager = s.startManager(t)
	ready(t, s.manager)
	eventually(t, "there is a service account", func(ctx context.Context) error {
		_, err := s.clients[0].CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	return s
}

// move starts the API server of a control plane without keys, and then its
// signer: kube-apiserver waits a minute for it.
func (s *signedOutside) move(t *testing.T, i int) *lab.Process {
	t.Helper()
	s.takeKeys(t, i)
	p := s.startAPIServer(t, i)
	time.Sleep(3 * time.Second)
	if err := p.Probe(t.Context()); err == nil {
		t.Error("kube-apiserver is ready without a signer")
	}
	s.startSigner(t, i)
	ready(t, p)
	return p
}

// show shows a token to an API server, on a connection of its own kind.
func (s *signedOutside) show(ctx context.Context, i int, text string) error {
	config := rest.AnonymousClientConfig(s.apis[i])
	config.BearerToken, config.QPS = text, -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	review, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err == nil && review.Status.UserInfo.Username != "system:serviceaccount:default:default" {
		err = fmt.Errorf("it is taken for %s", review.Status.UserInfo.Username)
	}
	return err
}

// jwks is what an API server publishes, and for how long others may keep it.
func (s *signedOutside) jwks(ctx context.Context, i int) (*token.KeySet, string, error) {
	transport, err := rest.TransportFor(s.apis[i])
	if err != nil {
		return nil, "", err
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, s.apis[i].Host+token.JWKSPath, nil)
	if err != nil {
		return nil, "", err
	}
	answer, err := (&http.Client{Transport: transport}).Do(q)
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	var data bytes.Buffer
	if _, err := data.ReadFrom(answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		return nil, "", fmt.Errorf("%s, %w", answer.Status, err)
	}
	keys, err := token.ParseKeys(data.Bytes())
	if err != nil {
		return nil, "", err
	}
	set, err := token.NewKeySet(keys...)
	return set, answer.Header.Get("Cache-Control"), err
}

func idOfKey(t *testing.T, key crypto.Signer) string {
	t.Helper()
	k, err := token.NewKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return k.ID
}

// idOfFile is the id of a private key.
func idOfFile(t *testing.T, path string) string {
	t.Helper()
	key, err := issue.ParsePrivateKey(read(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return idOfKey(t, key)
}

// testMove begins where cp1 has a signer and cp2 has the same key in a file.
func (s *signedOutside) testMove(t *testing.T) {
	var before []string
	for i := range s.apis {
		text, err := s.ask(t.Context(), i, authenticationv1.TokenRequestSpec{})
		if err != nil {
			t.Fatalf("cp%d: %v", i+1, err)
		}
		if err := s.show(t.Context(), 1-i, text); err != nil {
			t.Errorf("of cp%d at the other: %v", i+1, err)
		}
		before = append(before, text)
	}
	if err := s.second.Stop(); err != nil {
		t.Fatal(err)
	}
	s.second = s.move(t, 1)
	for i := range s.apis {
		for _, text := range before {
			if err := s.show(t.Context(), i, text); err != nil {
				t.Errorf("at cp%d, after the move: %v", i+1, err)
			}
		}
	}
}

func (s *signedOutside) testTokens(t *testing.T) {
	var err error
	if s.first, err = s.ask(t.Context(), 0, authenticationv1.TokenRequestSpec{}); err != nil {
		t.Fatal(err)
	}
	for i := range s.apis {
		if err := s.show(t.Context(), i, s.first); err != nil {
			t.Errorf("at cp%d: %v", i+1, err)
		}
	}
	parsed, err := token.Parse(s.first)
	if err != nil {
		t.Fatal(err)
	}
	if want := idOfFile(t, filepath.Join(s.vaults[0], "sa.key")); parsed.KeyID != want || parsed.Algorithm != "RS256" {
		t.Errorf("key %s, %s; want %s", parsed.KeyID, parsed.Algorithm, want)
	}
	// The controllers of the controller manager are service accounts as well.
	eventually(t, "the controller manager's controllers have tokens", func(context.Context) error {
		for _, p := range s.signers {
			if strings.Contains(p.Log(), `"subject":"system:serviceaccount:kube-system:`) {
				return nil
			}
		}
		return errors.New("the logs tell of none")
	})
}

func (s *signedOutside) testPublished(t *testing.T) {
	set, cache, err := s.jwks(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if all := set.All(); len(all) != 1 || all[0].ID != idOfFile(t, filepath.Join(s.vaults[0], "sa.key")) {
		t.Errorf("published are %+v", all)
	}
	if cache != "public, max-age=0" && cache != "public, max-age=1" {
		t.Errorf("others may keep it for %q: the refresh hint is a second", cache)
	}
	v, err := token.NewVerifier(token.Config{Keys: set, Issuers: []string{labIssuer}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.Verify(t.Context(), s.first)
	if err != nil || got.User.Username != "system:serviceaccount:default:default" {
		t.Errorf("it is of %+v, %v", got, err)
	}
}

func (s *signedOutside) testLife(t *testing.T) {
	pod, err := s.clients[0].CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "never-runs"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bound := &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	for name, row := range map[string]struct {
		spec  authenticationv1.TokenRequestSpec
		want  time.Duration
		warns bool
	}{
		"the shortest":                       {authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](600)}, 10 * time.Minute, false},
		"a year":                             {authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](365 * 24 * 3600)}, labMaxLife, false},
		"of a pod":                           {authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](3600), BoundObjectRef: bound}, time.Hour, false},
		"of a pod, whose end is put off":     {authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](3607), BoundObjectRef: bound}, labMaxLife, true},
		"of a pod, for somebody else":        {authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}, ExpirationSeconds: ptr.To[int64](3607), BoundObjectRef: bound}, 3607 * time.Second, false},
		"for the API server and others both": {authenticationv1.TokenRequestSpec{Audiences: []string{"vault", labIssuer}, ExpirationSeconds: ptr.To[int64](3600)}, time.Hour, false},
	} {
		text, err := s.ask(t.Context(), 0, row.spec)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		parsed, err := token.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if c := parsed.Claims; c.Expires.Sub(c.IssuedAt) != row.want || row.warns == c.WarnAfter.IsZero() {
			t.Errorf("%s: it lives %s, and warns after %s", name, c.Expires.Sub(c.IssuedAt), c.WarnAfter)
		}
	}
	if err := s.clients[0].CoreV1().Pods("default").Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		t.Error(err)
	}
}

// testSecret has kube-controller-manager sign with a key of its own.
func (s *signedOutside) testSecret(t *testing.T) {
	secrets := s.clients[0].CoreV1().Secrets("default")
	if _, err := secrets.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "old", Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}}, Type: corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var text string
	eventually(t, "the controller manager fills the Secret", func(ctx context.Context) error {
		o, err := secrets.Get(ctx, "old", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if text = string(o.Data["token"]); text == "" {
			return errors.New("there is no token yet")
		}
		return nil
	})
	parsed, err := token.Parse(text)
	if err != nil || parsed.KeyID != idOfFile(t, s.pki("legacy.key")) || !parsed.Claims.Legacy {
		t.Errorf("it is %+v, %v", parsed, err)
	}
	for i := range s.apis {
		if err := s.show(t.Context(), i, text); err != nil {
			t.Errorf("at cp%d: %v", i+1, err)
		}
	}
}

func (s *signedOutside) testKilled(t *testing.T) {
	var unseen []string // by cp1, so that it cannot remember them
	for range 2 {
		text, err := s.ask(t.Context(), 0, authenticationv1.TokenRequestSpec{})
		if err != nil {
			t.Fatal(err)
		}
		unseen = append(unseen, text)
	}
	if err := s.signers[0].Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(s.nodes[0].Root, signerSocket)); err != nil {
		t.Errorf("it left no socket behind: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if text, err := s.ask(ctx, 0, authenticationv1.TokenRequestSpec{}); err == nil {
		t.Errorf("without a signer there is a token of %d bytes", len(text))
	}
	if err := s.show(t.Context(), 0, unseen[0]); err != nil {
		t.Errorf("without a signer a token is refused: %v", err)
	}
	text, err := s.ask(t.Context(), 1, authenticationv1.TokenRequestSpec{})
	if err != nil {
		t.Errorf("the other API server has a signer, and %v", err)
	}
	if err := s.show(t.Context(), 0, text); err != nil {
		t.Errorf("without a signer the token of the other API server is refused: %v", err)
	}
	// Who asks while there is none waits, and gets one.
	waited := make(chan error, 1)
	go func() {
		_, err := s.ask(t.Context(), 0, authenticationv1.TokenRequestSpec{})
		waited <- err
	}()
	time.Sleep(500 * time.Millisecond)
	s.startSigner(t, 0)
	if err := <-waited; err != nil {
		t.Errorf("who waited: %v", err)
	}
	for i := range s.apis {
		text, err := s.ask(t.Context(), i, authenticationv1.TokenRequestSpec{})
		if err != nil {
			t.Fatalf("cp%d: %v", i+1, err)
		}
		for _, text := range []string{text, unseen[1], s.first} {
			if err := s.show(t.Context(), 1-i, text); err != nil {
				t.Errorf("at cp%d: %v", 2-i, err)
			}
		}
	}
}

// testPod has a real kubelet ask for the token of a pod, which the pod shows.
func (s *signedOutside) testPod(t *testing.T) {
	if err := kubelet.Possible(); err != nil {
		t.Skip(err)
	}
	startApprover(t, s.controlPlane)
	if out, err := kubectl(t, s.controlPlane, "create", "clusterrolebinding", "logs", "--clusterrole=system:kubelet-api-admin", "--user=kube-apiserver-kubelet-client"); err != nil {
		t.Fatalf("%v %s", err, out.stderr)
	}
	startWorker(t, s.network, s.path("w1", ""), kubelet.Config{Name: "w1", Addresses: labNodes["w1"]})
	nodeReady(t, s.clients[0], "w1")
	if _, err := s.clients[0].CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "client"},
		Spec: corev1.PodSpec{
			HostNetwork: true, NodeName: "w1", TerminationGracePeriodSeconds: ptr.To[int64](1),
			Containers: []corev1.Container{{Name: "client", Image: cri.Registry + "kubectl:v1", Command: []string{"sh", "-c", clientScript}}},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod's token is taken for its service account", func(context.Context) error {
		return says(t, s.controlPlane, "system:serviceaccount:default:default", "logs", "client")
	})
	if out, err := kubectl(t, s.controlPlane, "delete", "pod", "client", "--timeout=20s"); err != nil {
		t.Errorf("delete the pod: %v %s", err, out.stderr)
	}
}

// testNoKey looks for the keys that have signed, by their text.
func (s *signedOutside) testNoKey(t *testing.T) {
	if len(s.secrets) != 4 { // sa.key, once from each node, and those of two rotations
		t.Errorf("%d keys are known", len(s.secrets))
	}
	for _, node := range s.nodes {
		looked := 0
		err := filepath.WalkDir(node.Root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			looked++
			data := read(t, path)
			if d.Name() == "sa.key" || slices.ContainsFunc(s.secrets, func(line []byte) bool { return bytes.Contains(data, line) }) {
				t.Errorf("%s holds a signing key", path)
			}
			return nil
		})
		if err != nil || looked < 10 {
			t.Errorf("%d files, %v", looked, err)
		}
	}
}

// testBoth shows what kube-apiserver says to flags of both kinds, also to one
// that kubeadm's extraArgs would leave empty.
func (s *signedOutside) testBoth(t *testing.T) {
	for name, more := range map[string]string{"given": "--service-account-key-file=/etc/kubernetes/pki/sa.pub", "empty": "--service-account-key-file="} {
		m := s.without(t, 1, "kube-apiserver", "--service-account-key-file", "--service-account-signing-key-file")
		m.Name, m.Probe = "both-"+name, nil
		m.Command = append(m.Command, "--service-account-signing-endpoint="+signerSocket, more)
		p, err := s.nodes[1].Run(m)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), readyWait)
		defer cancel()
		if err := p.Ended(ctx); !strings.Contains(err.Error(), "mutually exclusive") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
