package controller

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	discoveryfake "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/podcert"
	"github.com/kubepki/kubepki/internal/trust"
)

// changingSource is an authority that tests change, or take away.
type changingSource struct {
	mu        sync.Mutex
	authority issue.Authority
	err       error
}

func (s *changingSource) Authority() (issue.Authority, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.authority, s.err
}

func (s *changingSource) set(a issue.Authority, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.authority, s.err = a, err
}

func newAuthority(t *testing.T, name string) issue.Authority {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	c, err := issue.SelfSign(issue.Template{
		Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return issue.Authority{Certificate: c, Key: key}
}

// podWorld is a cluster with a pod that may have a certificate, and the loop.
type podWorld struct {
	client  *fake.Clientset
	source  *changingSource
	log     lockedBuffer
	decided atomic.Int32
	loop    *PodCertificates
	stop    func()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newPodWorld makes it for a server that serves some versions. It must be called
// within a bubble.
func newPodWorld(t *testing.T, versions ...string) *podWorld {
	t.Helper()
	w := &podWorld{source: &changingSource{authority: newAuthority(t, "pods")}}
	w.client = fake.NewClientset(
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "account-uid"}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "node-uid"}},
		shopPod(),
	)
	w.serve(podCertificates, versions...)
	w.loop = &PodCertificates{
		Client: w.client, Source: w.source, Policy: podcert.DefaultPolicy("example.org"), Workers: 2,
		Log: slog.New(slog.NewTextHandler(&w.log, nil)), Decided: func(podcert.Review) { w.decided.Add(1) },
	}
	return w
}

func shopPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0", UID: "pod-uid"},
		Spec: corev1.PodSpec{NodeName: "n1", ServiceAccountName: "web", Volumes: []corev1.Volume{
			{Name: "empty"},
			{Name: "pki", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{}, {PodCertificate: &corev1.PodCertificateProjection{SignerName: podcert.DefaultSignerName}},
			}}}},
		}},
	}
}

// serve says in which versions the server has a resource.
func (w *podWorld) serve(resource string, versions ...string) {
	serveIn(w.client, resource, versions...)
}

func serveIn(client *fake.Clientset, resource string, versions ...string) {
	d := client.Discovery().(*discoveryfake.FakeDiscovery)
	var lists []*metav1.APIResourceList
	for _, v := range versions {
		lists = append(lists, &metav1.APIResourceList{GroupVersion: "certificates.k8s.io/" + v, APIResources: []metav1.APIResource{{Name: "others"}, {Name: resource}}})
	}
	client.Lock() // a loop may ask
	defer client.Unlock()
	d.Resources = append(lists, &metav1.APIResourceList{GroupVersion: "v1"})
}

func (w *podWorld) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.loop.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	synctest.Wait()
}

// spec is that of a request by v1, with a change.
func (w *podWorld) create(t *testing.T, name string, change func(*certificatesv1.PodCertificateRequest)) {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	stub, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	life := int32(86400)
	o := &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name)},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: podcert.DefaultSignerName, PodName: "web-0", PodUID: "pod-uid", ServiceAccountName: "web", ServiceAccountUID: "account-uid",
			NodeName: "n1", NodeUID: "node-uid", MaxExpirationSeconds: &life, StubPKCS10Request: stub,
		},
	}
	if change != nil {
		change(o)
	}
	if _, err := w.client.CertificatesV1().PodCertificateRequests("shop").Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// answer tells how a request was answered: "", or the condition and its reason.
func (w *podWorld) answer(t *testing.T, name string) string {
	t.Helper()
	o, err := w.client.CertificatesV1().PodCertificateRequests("shop").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answerOf(t, o.Status)
}

func answerOf(t *testing.T, s certificatesv1.PodCertificateRequestStatus) string {
	t.Helper()
	switch {
	case len(s.Conditions) == 0:
		return ""
	case len(s.Conditions) > 1 || s.Conditions[0].Status != metav1.ConditionTrue || s.Conditions[0].LastTransitionTime.IsZero() || s.Conditions[0].Message == "":
		t.Errorf("conditions %+v", s.Conditions)
	case s.Conditions[0].Type != "Issued" && (s.CertificateChain != "" || s.NotBefore != nil || s.NotAfter != nil || s.BeginRefreshAt != nil):
		t.Errorf("a denial with %+v", s)
	case s.Conditions[0].Type == "Issued":
		chain, err := trust.ParseCertificates([]byte(s.CertificateChain))
		if err != nil {
			t.Fatal(err)
		}
		if !s.NotBefore.Time.Equal(chain[0].NotBefore) || !s.NotAfter.Time.Equal(chain[0].NotAfter) || !s.BeginRefreshAt.After(s.NotBefore.Time) || !s.BeginRefreshAt.Before(s.NotAfter) {
			t.Errorf("times of %+v", s)
		}
	}
	return s.Conditions[0].Type + " " + s.Conditions[0].Reason
}

func TestPodCertificateRequestsAreAnswered(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*podWorld, *certificatesv1.PodCertificateRequest)
		want   string
	}{
		"a good request": {func(*podWorld, *certificatesv1.PodCertificateRequest) {}, "Issued Issued"},
		"a user annotation": {func(_ *podWorld, r *certificatesv1.PodCertificateRequest) {
			r.Spec.UnverifiedUserAnnotations = map[string]string{"a.b/c": "d"}
		}, "Denied InvalidUnverifiedUserAnnotations"},
		"a key type": {func(w *podWorld, _ *certificatesv1.PodCertificateRequest) {
			w.loop.Policy.KeyTypes = []string{"ED25519"}
		}, "Denied UnsupportedKeyType"},
		"another pod": {func(_ *podWorld, r *certificatesv1.PodCertificateRequest) { r.Spec.PodUID = "other" }, "Denied PodGone"},
		"no such pod": {func(_ *podWorld, r *certificatesv1.PodCertificateRequest) { r.Spec.PodName = "web-9" }, "Denied PodGone"},
		"a pod that has ended": {func(w *podWorld, _ *certificatesv1.PodCertificateRequest) {
			w.setPod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
		}, "Denied PodFinished"},
		"a pod that is ending": {func(w *podWorld, _ *certificatesv1.PodCertificateRequest) {
			w.setPod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning })
		}, "Issued Issued"},
		"a static pod": {func(w *podWorld, _ *certificatesv1.PodCertificateRequest) {
			w.setPod(func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} })
		}, "Denied PodIsMirror"},
		"a pod without volumes": {func(w *podWorld, _ *certificatesv1.PodCertificateRequest) {
			w.setPod(func(p *corev1.Pod) { p.Spec.Volumes = nil })
		}, "Denied SignerNotMounted"},
		"another service account": {func(_ *podWorld, r *certificatesv1.PodCertificateRequest) { r.Spec.ServiceAccountUID = "former" }, ""},
		"another node":            {func(_ *podWorld, r *certificatesv1.PodCertificateRequest) { r.Spec.NodeUID = "former" }, ""},
		"a node that is gone": {func(w *podWorld, r *certificatesv1.PodCertificateRequest) {
			w.setPod(func(p *corev1.Pod) { p.Spec.NodeName = "n9" })
			r.Spec.NodeName = "n9"
		}, ""},
		"another signer": {func(_ *podWorld, r *certificatesv1.PodCertificateRequest) { r.Spec.SignerName = "a.b/c" }, ""},
		"the authority's own key": {func(w *podWorld, r *certificatesv1.PodCertificateRequest) {
			r.Spec.StubPKCS10Request, _ = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, w.source.authority.Key)
		}, "Denied InvalidKey"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newPodWorld(t, "v1", "v1beta1")
				w.start(t)
				defer w.stop()
				w.create(t, "r", func(r *certificatesv1.PodCertificateRequest) { c.change(w, r) })
				if got := w.answer(t, "r"); got != c.want {
					t.Errorf("got %q; want %q\n%s", got, c.want, &w.log)
				}
				if w.decided.Load() == 0 || !strings.Contains(w.log.String(), "pod=web-") {
					t.Errorf("nobody was told: %s", &w.log)
				}
			})
		})
	}
}

func (w *podWorld) setPod(change func(*corev1.Pod)) {
	pod := shopPod()
	change(pod)
	if err := w.client.Tracker().Update(corev1.SchemeGroupVersion.WithResource("pods"), pod, "shop"); err != nil {
		panic(err)
	}
}

// fail has the fake server answer some calls with errors, the first n of them.
func (w *podWorld) fail(verb, resource string, n int, err error) {
	w.client.PrependReactor(verb, resource, func(clienttesting.Action) (bool, runtime.Object, error) {
		if n--; n >= 0 {
			return true, nil, err
		}
		return false, nil, nil
	})
}

var requestsOf = schema.GroupResource{Group: "certificates.k8s.io", Resource: podCertificates}

func TestWhatFailsIsTriedAgain(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		fail func(*testing.T, *podWorld)
		mend func(*testing.T, *podWorld)
	}{
		"the authority cannot be read for a while": {
			func(_ *testing.T, w *podWorld) { w.source.set(issue.Authority{}, broken) },
			func(t *testing.T, w *podWorld) { w.source.set(newAuthority(t, "again"), nil) },
		},
		"the authority is about to end": {
			func(t *testing.T, w *podWorld) {
				a := w.source.authority
				c := *a.Certificate
				c.NotAfter = time.Now().Add(time.Minute)
				w.source.set(issue.Authority{Certificate: &c, Key: a.Key}, nil)
			},
			func(t *testing.T, w *podWorld) { w.source.set(newAuthority(t, "again"), nil) },
		},
		"pods cannot be read":             {func(_ *testing.T, w *podWorld) { w.fail("get", "pods", 3, broken) }, nil},
		"service accounts cannot be read": {func(_ *testing.T, w *podWorld) { w.fail("get", "serviceaccounts", 3, broken) }, nil},
		"nodes cannot be read":            {func(_ *testing.T, w *podWorld) { w.fail("get", "nodes", 3, broken) }, nil},
		"the answer is refused": {func(_ *testing.T, w *podWorld) {
			w.fail("update", podCertificates, 3, apierrors.NewForbidden(requestsOf, "r", broken))
		}, nil},
		"the node is made anew, as it was": {
			func(t *testing.T, w *podWorld) { w.remove(t, "nodes", "", "n1") },
			func(t *testing.T, w *podWorld) {
				if _, err := w.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "node-uid"}}, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newPodWorld(t, "v1")
				c.fail(t, w)
				w.start(t)
				defer w.stop()
				w.create(t, "r", nil)
				if got := w.answer(t, "r"); got != "" {
					t.Errorf("at first: %q", got)
				}
				if c.mend != nil {
					time.Sleep(10 * time.Minute)
					c.mend(t, w)
				}
				time.Sleep(podRetryLast)
				synctest.Wait()
				if got := w.answer(t, "r"); got != "Issued Issued" {
					t.Errorf("afterwards: %q\n%s", got, &w.log)
				}
			})
		})
	}
}

func (w *podWorld) remove(t *testing.T, resource, namespace, name string) {
	t.Helper()
	if err := w.client.Tracker().Delete(corev1.SchemeGroupVersion.WithResource(resource), namespace, name); err != nil {
		t.Fatal(err)
	}
}

func TestAnsweredRequestsAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPodWorld(t, "v1")
		w.start(t)
		defer w.stop()
		for _, condition := range []string{"Issued", "Denied", "Failed"} {
			w.create(t, strings.ToLower(condition), func(r *certificatesv1.PodCertificateRequest) {
				r.Status.Conditions = []metav1.Condition{{Type: condition, Status: metav1.ConditionTrue, Reason: "Other"}}
			})
		}
		w.create(t, "new", nil)
		time.Sleep(time.Hour)
		updates := 0
		for _, a := range w.client.Actions() {
			if a.GetVerb() == "update" {
				updates++
			}
		}
		if got := w.answer(t, "new"); updates != 1 || w.decided.Load() != 1 || got != "Issued Issued" {
			t.Errorf("%d updates, %d decisions, %q; want one of each", updates, w.decided.Load(), got)
		}
	})
}

// A request that has changed, or is gone, is not written over.
func TestOthersMayAnswerFirst(t *testing.T) {
	for name, err := range map[string]error{
		"it has changed": apierrors.NewConflict(requestsOf, "r", errors.New("changed")),
		"it is gone":     apierrors.NewNotFound(requestsOf, "r"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newPodWorld(t, "v1")
				w.fail("update", podCertificates, 1, err)
				w.start(t)
				defer w.stop()
				w.create(t, "r", nil)
				time.Sleep(time.Hour)
				if got := w.answer(t, "r"); got != "" || strings.Contains(w.log.String(), "level=WARN") {
					t.Errorf("%q\n%s", got, &w.log)
				}
			})
		})
	}
}

// createV1beta1 makes a request as kubelets of 1.35 do.
func (w *podWorld) createV1beta1(t *testing.T, name string) {
	t.Helper()
	key, err := issue.GenerateKey(issue.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	proof, err := key.Sign(rand.Reader, []byte("pod-uid"), crypto.Hash(0))
	if err != nil {
		t.Fatal(err)
	}
	o := &certificatesv1beta1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: certificatesv1beta1.PodCertificateRequestSpec{
			SignerName: podcert.DefaultSignerName, PodName: "web-0", PodUID: "pod-uid", ServiceAccountName: "web", ServiceAccountUID: "account-uid",
			NodeName: "n1", NodeUID: "node-uid", PKIXPublicKey: public, ProofOfPossession: proof, //nolint:staticcheck // what kubelets of 1.35 write
		},
	}
	if _, err := w.client.CertificatesV1beta1().PodCertificateRequests("shop").Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func (w *podWorld) answerV1beta1(t *testing.T, name string) string {
	t.Helper()
	o, err := w.client.CertificatesV1beta1().PodCertificateRequests("shop").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answerOf(t, certificatesv1.PodCertificateRequestStatus(o.Status))
}

func TestVersionsOfTheAPI(t *testing.T) {
	t.Run("v1beta1 where v1 is not served", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newPodWorld(t, "v1beta1")
			w.start(t)
			defer w.stop()
			w.createV1beta1(t, "r")
			if got := w.answerV1beta1(t, "r"); got != "Issued Issued" {
				t.Errorf("got %q\n%s", got, &w.log)
			}
		})
	})
	t.Run("an API server that comes to serve it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newPodWorld(t)
			w.start(t)
			defer w.stop()
			if !strings.Contains(w.log.String(), "feature gate") {
				t.Errorf("no word of what is missing: %s", &w.log)
			}
			w.create(t, "r", nil)
			w.serve(podCertificates, "v1")
			time.Sleep(servedRetry)
			synctest.Wait()
			if got := w.answer(t, "r"); got != "Issued Issued" {
				t.Errorf("got %q\n%s", got, &w.log)
			}
		})
	})
	t.Run("an upgrade that ends v1beta1", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newPodWorld(t, "v1beta1")
			w.client.PrependReactor("list", podCertificates, func(a clienttesting.Action) (bool, runtime.Object, error) {
				if a.GetResource().Version == "v1beta1" {
					return true, nil, apierrors.NewNotFound(requestsOf, "")
				}
				return false, nil, nil
			})
			w.start(t)
			defer w.stop()
			w.serve(podCertificates, "v1")
			time.Sleep(servedRetry)
			synctest.Wait()
			w.create(t, "r", nil)
			if got := w.answer(t, "r"); got != "Issued Issued" {
				t.Errorf("got %q\n%s", got, &w.log)
			}
		})
	})
	t.Run("a key that v1 does not show", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newPodWorld(t, "v1", "v1beta1")
			w.start(t)
			defer w.stop()
			w.createV1beta1(t, "r") // the fake server keeps the versions apart
			w.create(t, "r", func(r *certificatesv1.PodCertificateRequest) { r.Spec.StubPKCS10Request = nil })
			w.create(t, "hidden", func(r *certificatesv1.PodCertificateRequest) { r.Spec.StubPKCS10Request = nil })
			if got := []string{w.answer(t, "r"), w.answer(t, "hidden")}; !cmp.Equal(got, []string{"Issued Issued", ""}) {
				t.Errorf("got %q\n%s", got, &w.log)
			}
		})
	})
}

func TestAPolicyThatCannotBeIsAnError(t *testing.T) {
	loop := &PodCertificates{Client: fake.NewClientset(), Policy: podcert.Policy{SignerName: "kubernetes.io/pod"}}
	if err := loop.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "reserved") {
		t.Errorf("got %v", err)
	}
}

func TestNamespacesTakeTurns(t *testing.T) {
	q := newPodQueue()
	defer q.ShutDown()
	for i := range 1000 {
		q.Add(fmt.Sprint("noisy/", i))
	}
	q.Add("quiet/a")
	q.Add("quiet/a")
	q.Add("quiet/b")
	var got []string
	for range 5 {
		key, _ := q.Get()
		got = append(got, key)
		q.Done(key)
	}
	if want := []string{"noisy/0", "quiet/a", "noisy/1", "quiet/b", "noisy/2"}; !slices.Equal(got, want) || q.Len() != 997 {
		t.Errorf("got %q, and %d are left; want %q and 997", got, q.Len(), want)
	}
}
