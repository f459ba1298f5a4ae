package kubesource_test

import (
	"context"
	"crypto/x509"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/kubesource"
)

var pair = kubesource.Secret{Namespace: namespace, Name: secretName}

func (w *world) updateSecret(t *testing.T, s *corev1.Secret) {
	t.Helper()
	_, err := w.api.CoreV1().Secrets(namespace).Update(t.Context(), s, metav1.UpdateOptions{})
	check(t, err)
	synctest.Wait()
}

func TestPairAndBundleOfASecretChangeTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := tlstest.Authority(t, "one"), tlstest.Authority(t, "two")
		other := tlsSecret(t, two, "other")
		other.Name = "other"
		w := start(t, kubesource.Config{Pair: pair, Bundle: kubesource.SecretCA(namespace, secretName), Usage: x509.ExtKeyUsageServerAuth}, tlsSecret(t, one, "a"), other)
		check(t, w.WaitReady(t.Context()))
		shows(t, w, "a: one")
		w.says(t, "taken: secret shop/till-tls", "taken: ca.crt of secret shop/till-tls")
		first, _ := w.Snapshot()

		w.updateSecret(t, tlsSecret(t, two, "b"))
		shows(t, w, "b: two")
		w.says(t, "taken", "taken")

		// A key of which nothing is made, and the authority alone.
		s := tlsSecret(t, two, "c")
		w.updateSecret(t, s)
		w.says(t, "taken") // the bundle is the same
		before, _ := w.Snapshot()
		s.Data["more"] = []byte("x")
		w.updateSecret(t, s)
		if now, _ := w.Snapshot(); now != before || now == first {
			t.Error("another snapshot, and nothing has changed")
		}
		s.Data["ca.crt"] = tlstest.PEM(one, two)
		w.updateSecret(t, s)
		if now, _ := w.Snapshot(); now == before || now.Certificate != before.Certificate {
			t.Error("the authorities alone have changed")
		}
		w.says(t, "taken")
		for _, a := range w.api.Actions() {
			if a.GetResource().Resource == "secrets" && a.GetVerb() == "watch" && !strings.Contains(a.(ktesting.WatchAction).GetWatchRestrictions().Fields.String(), "metadata.name=till-tls") {
				t.Errorf("more is watched than one Secret: %v", a)
			}
		}
	})
}

func TestSecretIsNotTakenUp(t *testing.T) {
	rows := map[string]struct {
		harm func(*testing.T, *corev1.Secret)
		want string
	}{
		"without a key":         {func(_ *testing.T, s *corev1.Secret) { delete(s.Data, "tls.key") }, "data[tls.key] is not set"},
		"with an empty one":     {func(_ *testing.T, s *corev1.Secret) { s.Data["tls.key"] = nil }, "data[tls.key] is not set"},
		"without a certificate": {func(_ *testing.T, s *corev1.Secret) { delete(s.Data, "tls.crt") }, "data[tls.crt] is not set"},
		"with another's key": {func(t *testing.T, s *corev1.Secret) {
			s.Data["tls.key"] = tlsSecret(t, tlstest.Authority(t, "x"), "x").Data["tls.key"]
		}, "does not belong to the key"},
		"with half a key":        {func(_ *testing.T, s *corev1.Secret) { s.Data["tls.key"] = s.Data["tls.key"][:60] }, "no end"},
		"that is for clients":    {func(t *testing.T, s *corev1.Secret) { maps.Copy(s.Data, clientSecret(t).Data) }, "lack serverAuth"},
		"with text for a bundle": {func(_ *testing.T, s *corev1.Secret) { s.Data["ca.crt"] = []byte("none") }, "data[ca.crt]: no PEM block"},
		"without a bundle":       {func(_ *testing.T, s *corev1.Secret) { delete(s.Data, "ca.crt") }, "data[ca.crt] is not set"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := tlstest.Authority(t, "ca")
				s := tlsSecret(t, ca, "one")
				w := start(t, kubesource.Config{Pair: pair, Bundle: kubesource.SecretCA(namespace, secretName), Usage: x509.ExtKeyUsageServerAuth}, s)
				w.says(t, "taken", "taken")
				bad := s.DeepCopy()
				row.harm(t, bad)
				w.updateSecret(t, bad)
				shows(t, w, "one: ca")
				w.says(t, row.want)
				if status := w.Status(); !status.Failing || status.Refused != 1 || status.Taken != 2 {
					t.Errorf("%+v", status)
				}
				bad.Labels = map[string]string{"a": "b"}
				w.updateSecret(t, bad)
				w.says(t)
				w.updateSecret(t, s)
				shows(t, w, "one: ca")
				w.says(t, "taken")
				if status := w.Status(); status.Failing || status.Taken != 3 {
					t.Errorf("%+v", status)
				}
			})
		})
	}
}

func clientSecret(t *testing.T) *corev1.Secret {
	t.Helper()
	ca := tlstest.Authority(t, "ca")
	s, c := tlsSecret(t, ca, "client"), tlstest.Leaf(t, ca, "client", tlstest.At("x"), tlstest.For(x509.ExtKeyUsageClientAuth))
	s.Data["tls.crt"], s.Data["tls.key"] = trust.EncodeCertificates(c.Leaf), tlstest.KeyPEM(t, c)
	delete(s.Data, "ca.crt")
	return s
}

func TestWhatIsDeletedStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.Authority(t, "ca")
		config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "cas"}, Data: map[string]string{"clients.crt": string(tlstest.PEM(ca))}}
		w := start(t, kubesource.Config{Pair: pair, Bundle: kubesource.ConfigMap(namespace, "cas", "clients.crt")})
		if _, err := w.Snapshot(); err == nil || !strings.Contains(err.Error(), "secret shop/till-tls: there is none") {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.WaitReady(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "there is none") {
			t.Errorf("got %v", err)
		}
		w.told = nil // in the order of the two watches
		_, err := w.api.CoreV1().Secrets(namespace).Create(t.Context(), tlsSecret(t, ca, "one"), metav1.CreateOptions{})
		check(t, err)
		synctest.Wait()
		if _, err := w.Snapshot(); err == nil || !strings.Contains(err.Error(), "configmap shop/cas: there is none") {
			t.Errorf("got %v", err)
		}
		_, err = w.api.CoreV1().ConfigMaps(namespace).Create(t.Context(), config, metav1.CreateOptions{})
		check(t, err)
		check(t, w.WaitReady(t.Context()))
		synctest.Wait() // it is ready before it is told
		shows(t, w, "one: ca")
		w.says(t, "taken: secret", "taken: configmap")

		check(t, w.api.CoreV1().Secrets(namespace).Delete(t.Context(), secretName, metav1.DeleteOptions{}))
		synctest.Wait()
		w.says(t, "secret shop/till-tls: there is none")
		check(t, w.api.CoreV1().ConfigMaps(namespace).Delete(t.Context(), "cas", metav1.DeleteOptions{}))
		synctest.Wait()
		w.says(t, "configmap shop/cas: there is none")
		shows(t, w, "one: ca")
		if s := w.Status(); !s.Failing {
			t.Errorf("%+v", s)
		}
		config.BinaryData, config.Data = map[string][]byte{"clients.crt": tlstest.PEM(tlstest.Authority(t, "next"))}, nil
		_, err = w.api.CoreV1().ConfigMaps(namespace).Create(t.Context(), config, metav1.CreateOptions{})
		check(t, err)
		synctest.Wait()
		shows(t, w, "one: next")
	})
}

func trustBundle(name, signer, labelValue string, all ...issue.Authority) *certificatesv1.ClusterTrustBundle {
	return &certificatesv1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"live": labelValue}},
		Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: string(tlstest.PEM(all...))},
	}
}

func TestTrustBundlesOfASigner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const signer = "shop.example.com/clients"
		one, two, three := tlstest.Authority(t, "one"), tlstest.Authority(t, "two"), tlstest.Authority(t, "three")
		w := start(t, kubesource.Config{Bundle: kubesource.TrustBundles(signer, &metav1.LabelSelector{MatchLabels: map[string]string{"live": "yes"}})},
			trustBundle("shop.example.com:clients:a", signer, "yes", two, one), trustBundle("shop.example.com:clients:b", signer, "yes", one),
			trustBundle("shop.example.com:clients:old", signer, "no", three), trustBundle("other", "", "yes", three))
		trusts := func(all ...issue.Authority) {
			t.Helper()
			slices.SortFunc(all, func(a, b issue.Authority) int { return slices.Compare(a.Certificate.Raw, b.Certificate.Raw) })
			var names []string
			for _, a := range all {
				names = append(names, a.Certificate.Subject.CommonName)
			}
			shows(t, w, "nothing: "+strings.Join(names, " "))
		}
		trusts(one, two)
		w.says(t, "taken: clustertrustbundles of signer shop.example.com/clients with labels live=yes")
		update := func(o *certificatesv1.ClusterTrustBundle) {
			t.Helper()
			_, err := w.api.CertificatesV1().ClusterTrustBundles().Update(t.Context(), o, metav1.UpdateOptions{})
			check(t, err)
			synctest.Wait()
		}
		update(trustBundle("shop.example.com:clients:old", signer, "yes", three))
		trusts(one, two, three)
		w.says(t, "taken")
		update(trustBundle("shop.example.com:clients:a", signer, "no", two, one)) // it is none of ours any more
		trusts(one, three)
		w.says(t, "taken")
		update(trustBundle("shop.example.com:clients:b", signer, "no", one))
		update(trustBundle("shop.example.com:clients:old", signer, "no", one))
		trusts(three) // the last one stays
		w.says(t, "taken", "there is none")
	})
}

// An API server of before has v1beta1 alone, and one of later v1.
func TestTrustBundlesInTheVersionThatIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := tlstest.Authority(t, "one"), tlstest.Authority(t, "two")
		old := trustBundle("anchors", "", "", one)
		w := &world{api: fake.NewClientset(
			&certificatesv1beta1.ClusterTrustBundle{ObjectMeta: old.ObjectMeta, Spec: certificatesv1beta1.ClusterTrustBundleSpec(old.Spec)}, trustBundle("anchors", "", "", two))}
		var served atomic.Value
		served.Store("v1beta1")
		unserved := func(a ktesting.Action) error {
			if a.GetResource().Version != served.Load() {
				return apierrors.NewGenericServerResponse(404, a.GetVerb(), schema.GroupResource{}, "", "", 0, true)
			}
			return nil
		}
		w.api.PrependReactor("list", "clustertrustbundles", func(a ktesting.Action) (bool, runtime.Object, error) {
			err := unserved(a)
			return err != nil, nil, err
		})
		watcher := watch.NewFake()
		w.api.PrependWatchReactor("clustertrustbundles", func(a ktesting.Action) (bool, watch.Interface, error) {
			if err := unserved(a); err != nil {
				return true, nil, err
			}
			return served.Load() == "v1beta1", watcher, nil
		})
		w.run(t, kubesource.Config{Bundle: kubesource.TrustBundle("anchors")})
		shows(t, w, "nothing: one")
		w.says(t, "taken: clustertrustbundle anchors")
		served.Store("v1")
		watcher.Stop()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		shows(t, w, "nothing: two")
	})
}

// What is told of an API server that is away, and that it is back.
func TestAPIServerThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.Authority(t, "ca")
		w := &world{api: fake.NewClientset(tlsSecret(t, ca, "one"))}
		var away atomic.Bool
		away.Store(true)
		watches := make(chan *watch.FakeWatcher, 100) // those that are given out
		w.api.PrependReactor("list", "secrets", func(ktesting.Action) (bool, runtime.Object, error) {
			return away.Load(), nil, apierrors.NewForbidden(corev1.Resource("secrets"), secretName, errors.New("no right"))
		})
		w.api.PrependWatchReactor("secrets", func(ktesting.Action) (bool, watch.Interface, error) {
			if away.Load() {
				return true, nil, errors.New("connection reset")
			}
			watcher := watch.NewFake()
			watches <- watcher
			return true, watcher, nil
		})
		w.run(t, kubesource.Config{Pair: pair})
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		w.says(t, "the API server could not be asked: secrets \"till-tls\" is forbidden")
		if _, err := w.Snapshot(); err == nil || !strings.Contains(err.Error(), "no right") {
			t.Errorf("got %v", err)
		}
		away.Store(false)
		check(t, w.WaitReady(t.Context()))
		synctest.Wait()
		w.says(t, "taken")
		asOf := w.Status().AsOf

		time.Sleep(time.Minute)
		away.Store(true)
		(<-watches).Stop()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		w.says(t, "connection reset", "no right")
		shows(t, w, "one: nobody")
		if s := w.Status(); s.Failing || s.AsOf != asOf {
			t.Errorf("%+v, as of %s", s, asOf)
		}
		away.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		w.says(t, "taken")
		if s := w.Status(); s.Taken != 1 || !s.AsOf.After(asOf) {
			t.Errorf("%+v", s)
		}
		// A bookmark tells that the watch lives.
		time.Sleep(time.Minute)
		(<-watches).Action(watch.Bookmark, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "7"}})
		synctest.Wait()
		if s := w.Status(); time.Since(s.AsOf) > time.Second {
			t.Errorf("%+v", s)
		}
	})
}

func TestConfigsThatCannotBe(t *testing.T) {
	everything := &metav1.LabelSelector{}
	for name, row := range map[string]struct {
		config kubesource.Config
		want   string
	}{
		"nothing":               {kubesource.Config{}, "neither Pair nor Bundle"},
		"half a Secret":         {kubesource.Config{Pair: kubesource.Secret{Name: "x"}}, "Namespace"},
		"no key of a ConfigMap": {kubesource.Config{Bundle: kubesource.ConfigMap("a", "b", "")}, "its key"},
		"no name of a bundle":   {kubesource.Config{Bundle: kubesource.TrustBundle("")}, "the name"},
		"no selector":           {kubesource.Config{Bundle: kubesource.TrustBundles("a/b", nil)}, "selects all"},
		"no signer":             {kubesource.Config{Bundle: kubesource.TrustBundles("", everything)}, "its signer"},
		"a selector that is none": {kubesource.Config{Bundle: kubesource.TrustBundles("a/b", &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "a", Operator: "Near"}}})}, "not a valid label selector operator"},
		"good: all bundles": {kubesource.Config{Bundle: kubesource.TrustBundles("a/b", everything)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := kubesource.New(fake.NewClientset(), row.config)
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}

var _ mtls.Source = (*kubesource.Source)(nil)
