package kubesource_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/kubesource"
)

const (
	namespace  = "shop"
	secretName = "till-tls"
)

// The handlers of client-go wait by the clock of the last error, which may be one
// of another bubble, decades away.
func TestMain(m *testing.M) {
	utilruntime.ErrorHandlers = nil
	os.Exit(m.Run())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tlsSecret is what a Secret of type kubernetes.io/tls holds.
func tlsSecret(t testing.TB, ca issue.Authority, name string) *corev1.Secret {
	t.Helper()
	c := tlstest.Leaf(t, ca, name, tlstest.At("localhost"), tlstest.For(x509.ExtKeyUsageServerAuth))
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: secretName}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": trust.EncodeCertificates(c.Leaf), "tls.key": tlstest.KeyPEM(t, c), "ca.crt": tlstest.PEM(ca)},
	}
}

// world is a source that runs on a fake API, with what it has told.
type world struct {
	*kubesource.Source
	api *fake.Clientset

	mu   sync.Mutex
	told []string
}

// start runs a source within a bubble.
func start(t *testing.T, c kubesource.Config, objects ...runtime.Object) *world {
	t.Helper()
	w := &world{api: fake.NewClientset(objects...)}
	w.run(t, c)
	return w
}

func (w *world) run(t *testing.T, c kubesource.Config) {
	t.Helper()
	c.Told = func(x kubesource.Change) {
		if w.Status().Taken > 1000 { // whoever is told may ask
			panic("it never ends")
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		text := "taken: " + x.Object
		if x.Err != nil {
			text = x.Err.Error()
		}
		w.told = append(w.told, text)
	}
	var err error
	w.Source, err = kubesource.New(w.api, c)
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		check(t, <-ended)
	})
	synctest.Wait()
}

// says wants what was told since it was asked last.
func (w *world) says(t *testing.T, want ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	ok := len(w.told) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = strings.Contains(w.told[i], want[i])
	}
	if !ok {
		t.Errorf("told %q, want %q", w.told, want)
	}
	w.told = nil
}

// shows wants a certificate and anchors, such as "one: ca next".
func shows(t *testing.T, s mtls.Source, want string) {
	t.Helper()
	now, err := s.Snapshot()
	check(t, err)
	if got := text(now); got != want {
		t.Errorf("it is %q, want %q", got, want)
	}
}

func text(s *mtls.Snapshot) string {
	name, anchors := "nothing", "nobody"
	if s.Certificate != nil {
		name = s.Certificate.Leaf.Subject.CommonName
	}
	if s.Bundle != nil {
		var all []string
		for _, a := range s.Bundle.Anchors() {
			all = append(all, a.Subject.CommonName)
		}
		anchors = strings.Join(all, " ")
	}
	return fmt.Sprintf("%s: %s", name, anchors)
}
