package controller

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/podcert"
	"github.com/kubepki/kubepki/internal/trust"
)

const caBundle = "kubepki.dev:pod:ca"

// bundleWorld is a cluster, and the loop that publishes one bundle.
type bundleWorld struct {
	client *fake.Clientset
	source *changingSource
	log    lockedBuffer
	loop   *TrustBundles
}

func newBundleWorld(t *testing.T, versions ...string) *bundleWorld {
	t.Helper()
	w := &bundleWorld{client: fake.NewClientset(), source: &changingSource{authority: newAuthority(t, "first")}}
	serveIn(w.client, trustBundles, versions...)
	w.loop = &TrustBundles{
		Client: w.client, Log: slog.New(slog.NewTextHandler(&w.log, nil)),
		Bundles: []TrustBundle{{SignerName: podcert.DefaultSignerName, Name: "ca", Anchors: Anchors(w.source)}},
	}
	return w
}

// run runs the loop while f looks on.
func (w *bundleWorld) run(t *testing.T, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.loop.Run(ctx) }()
	synctest.Wait()
	f()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// published are the common names of what the bundle holds.
func (w *bundleWorld) published(t *testing.T) string {
	t.Helper()
	o, err := w.client.CertificatesV1().ClusterTrustBundles().Get(t.Context(), caBundle, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "nothing"
	} else if err != nil {
		t.Fatal(err)
	}
	return namesIn(t, o.Spec.TrustBundle)
}

func namesIn(t *testing.T, text string) string {
	t.Helper()
	certificates, err := trust.ParseCertificates([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range certificates {
		names = append(names, c.Subject.CommonName)
	}
	return strings.Join(names, ", ")
}

func (w *bundleWorld) writes() (n int) {
	for _, a := range w.client.Actions() {
		if a.GetVerb() != "get" && a.GetResource().Resource == trustBundles {
			n++
		}
	}
	return n
}

func TestABundleFollowsItsSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBundleWorld(t, "v1")
		w.run(t, func() {
			o, err := w.client.CertificatesV1().ClusterTrustBundles().Get(t.Context(), caBundle, metav1.GetOptions{})
			if err != nil || o.Spec.SignerName != podcert.DefaultSignerName || o.Labels[managedBy] != "kubepki" {
				t.Fatalf("%+v, %v", o, err)
			}
			time.Sleep(time.Hour)
			if got := w.published(t); got != "first" || w.writes() != 1 {
				t.Errorf("%q after %d writes", got, w.writes())
			}
			w.source.set(issue.Authority{}, errors.New("the file is half written"))
			time.Sleep(time.Hour)
			if got := w.published(t); got != "first" || !strings.Contains(w.log.String(), "half written") {
				t.Errorf("%q while the source cannot be read: %s", got, &w.log)
			}
			w.source.set(newAuthority(t, "second"), nil)
			time.Sleep(time.Minute)
			if got := w.published(t); got != "second" || w.writes() != 2 {
				t.Errorf("%q after %d writes", got, w.writes())
			}
			o.Spec.TrustBundle = string(trust.EncodeCertificates(newAuthority(t, "strange").Certificate))
			if _, err := w.client.CertificatesV1().ClusterTrustBundles().Update(t.Context(), o, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if got := w.published(t); got != "second" {
				t.Errorf("%q after another has changed it", got)
			}
		})
	})
}

func TestABundleOfAnotherIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBundleWorld(t, "v1")
		foreign := &certificatesv1.ClusterTrustBundle{
			ObjectMeta: metav1.ObjectMeta{Name: caBundle},
			Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: podcert.DefaultSignerName, TrustBundle: string(trust.EncodeCertificates(newAuthority(t, "foreign").Certificate))},
		}
		if _, err := w.client.CertificatesV1().ClusterTrustBundles().Create(t.Context(), foreign, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.run(t, func() {
			if got := w.published(t); got != "foreign" || w.writes() != 1 || !strings.Contains(w.log.String(), "give it the label") {
				t.Errorf("%q after %d writes: %s", got, w.writes(), &w.log)
			}
			foreign.Labels = map[string]string{managedBy: "kubepki"}
			if _, err := w.client.CertificatesV1().ClusterTrustBundles().Update(t.Context(), foreign, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if got := w.published(t); got != "first" {
				t.Errorf("%q with the label", got)
			}
		})
	})
}

func TestWhoComesFirstMakesNoDifference(t *testing.T) {
	resource := schema.GroupResource{Group: "certificates.k8s.io", Resource: trustBundles}
	for verb, err := range map[string]error{
		"create": apierrors.NewAlreadyExists(resource, caBundle),
		"update": apierrors.NewConflict(resource, caBundle, errors.New("changed")),
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newBundleWorld(t, "v1")
			refused := 0
			w.client.PrependReactor(verb, trustBundles, func(clienttesting.Action) (bool, runtime.Object, error) {
				refused++
				return refused == 1, nil, err
			})
			w.run(t, func() {
				w.source.set(newAuthority(t, "second"), nil)
				time.Sleep(31 * time.Second)
				if got := w.published(t); got != "second" || refused == 0 || strings.Contains(w.log.String(), "WARN") {
					t.Errorf("%s: %q, %d refused: %s", verb, got, refused, &w.log)
				}
			})
		})
	}
}

func TestBundlesOfOlderServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBundleWorld(t)
		w.run(t, func() {
			if !strings.Contains(w.log.String(), "feature gate") {
				t.Errorf("no word of what is missing: %s", &w.log)
			}
			serveIn(w.client, trustBundles, "v1beta1")
			time.Sleep(time.Minute)
			w.source.set(newAuthority(t, "second"), nil)
			time.Sleep(time.Minute)
			o, err := w.client.CertificatesV1beta1().ClusterTrustBundles().Get(t.Context(), caBundle, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := namesIn(t, o.Spec.TrustBundle); got != "second" {
				t.Errorf("got %q", got)
			}
		})
	})
}

func TestAnchorsOfFilesAndSources(t *testing.T) {
	dir := t.TempDir()
	old, next := newAuthority(t, "old"), newAuthority(t, "new")
	middle := middleOf(t, next)
	file := func(name string, certificates ...*x509.Certificate) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, trust.EncodeCertificates(certificates...), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	both := file("both", old.Certificate, next.Certificate)
	leaf, err := issue.Sign(issue.Template{Subject: pkix.Name{CommonName: "leaf"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}, old.Key.Public(), next)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		source *changingSource
		files  []string
		want   string // or what the error says
	}{
		"an authority":                                 {&changingSource{authority: old}, nil, "old"},
		"a file with the old and the new":              {nil, []string{both}, "old, new"},
		"a file that has the authority too":            {&changingSource{authority: next}, []string{both}, "old, new"},
		"a file that has another":                      {&changingSource{authority: next}, []string{file("old", old.Certificate)}, "old, new"},
		"the same in two files":                        {nil, []string{both, both}, "old, new"},
		"an intermediate, with its root in a file":     {&changingSource{authority: middle}, []string{both}, "old, new"},
		"an intermediate whose root nobody has":        {&changingSource{authority: middle}, nil, "middle"},
		"an intermediate whose root is not the file's": {&changingSource{authority: middle}, []string{file("old2", old.Certificate)}, "old, middle"},
		"a file that is not there":                     {nil, []string{filepath.Join(dir, "none")}, "no such file"},
		"a file that holds no certificate":             {nil, []string{file("empty")}, "no PEM block"},
		"a leaf":                                       {nil, []string{file("leaf", leaf)}, "not an authority"},
		"nothing":                                      {nil, nil, "no anchor"},
	} {
		anchors := Anchors(nil, c.files...)
		if c.source != nil {
			anchors = Anchors(c.source, c.files...)
		}
		found, err := anchors()
		var text string
		if err == nil {
			text, err = bundleText(found)
		}
		switch {
		case err != nil && !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v; want %q", name, err, c.want)
		case err == nil && namesIn(t, text) != c.want:
			t.Errorf("%s: %q; want %q", name, namesIn(t, text), c.want)
		}
	}
}

// middleOf makes an authority below another, with the chain that leaves carry.
func middleOf(t *testing.T, parent issue.Authority) issue.Authority {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	c, err := issue.Sign(issue.Template{
		Subject: pkix.Name{CommonName: "middle"}, Authority: true, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
	}, key.Public(), parent)
	if err != nil {
		t.Fatal(err)
	}
	return issue.Authority{Certificate: c, Key: key, Chain: []*x509.Certificate{c}}
}

func TestNamesOfBundles(t *testing.T) {
	for _, c := range []struct {
		bundle TrustBundle
		name   string // of the object
		wrong  string
	}{
		{TrustBundle{SignerName: "kubepki.dev/pod", Name: "ca"}, "kubepki.dev:pod:ca", ""},
		{TrustBundle{Name: "corporate.roots"}, "corporate.roots", ""},
		{TrustBundle{Name: "a:b"}, "a:b", "RFC 1123"},
		{TrustBundle{SignerName: "kubepki.dev/pod"}, "kubepki.dev:pod:", "RFC 1123"},
		{TrustBundle{SignerName: "kubernetes.io/kube-apiserver-serving", Name: "ca"}, "kubernetes.io:kube-apiserver-serving:ca", "reserved"},
	} {
		if got := c.bundle.ObjectName(); got != c.name {
			t.Errorf("the object is called %q; want %q", got, c.name)
		}
		loop := &TrustBundles{Bundles: []TrustBundle{c.bundle}}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if c.wrong == "" {
			loop.Bundles[0].Anchors = func() ([]*x509.Certificate, error) { return nil, errors.New("none") }
		}
		if err := loop.Run(ctx); c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%s: %v; want %q", c.name, err, c.wrong)
		}
	}
}
