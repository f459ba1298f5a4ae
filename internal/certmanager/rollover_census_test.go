package certmanager

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/rollover"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

// crowd has a controller know many leaves of a CA, of several issuers.
func crowd(t testing.TB, leaves, issuers int, ca *workload.SecretFacts) *stores {
	s := newStores()
	for n := range leaves {
		issuer, name := fmt.Sprint("ca-", n%issuers), fmt.Sprint("leaf-", n)
		o := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, ResourceVersion: "1"}}
		o.Spec.SecretName, o.Spec.IssuerRef.Name = name, issuer
		if err := s.certificates.Add(o); err != nil {
			t.Fatal(err)
		}
		f := *ca
		f.CertificateName, f.Issuer.Name, f.Leaf = name, issuer, [32]byte{1}
		s.secrets.wrote(types.NamespacedName{Namespace: "shop", Name: name}, 1, &secretKept{SecretFacts: f})
	}
	return s
}

// However many issuers there are, what counting takes is bound: a tally serves for fifty
// times as long as it took, and an issuer's census looks at what Secrets have in common.
func TestCountingForManyIssuersIsOnePass(t *testing.T) {
	one, two := newCA(t, "one"), newCA(t, "two")
	facts := &workload.SecretFacts{Signer: workload.SignerOf(one.Certificate), NotAfter: time.Now().Add(time.Hour), Bundle: workload.BundleOf(pairOf(one))}
	const leaves, issuers = 20000, 100
	s := crowd(t, leaves, issuers, facts)
	all := s.tally(time.Now(), time.Hour)
	if len(all.secrets) != issuers {
		t.Fatalf("%d Secrets have %d things in common", leaves, len(all.secrets))
	}
	rec := &caRecord{certificates: certificatesOf(one, two)}
	for id := range rec.certificates {
		rec.Anchors = append(rec.Anchors, rollover.Anchor{ID: id})
	}
	is, next := rollover.ID(workload.AnchorIDOf(one.Certificate)), rollover.ID(workload.AnchorIDOf(two.Certificate))
	for name, c := range map[string]struct {
		wants   bool
		lacking int
	}{"issuers that will publish it too are waited for": {true, leaves}, "others are not": {false, leaves / issuers}} {
		got := all.census(issuerKey{"shop", "ca-7"}, rec, func(issuerKey, rollover.ID) bool { return c.wants })
		if got.leaves[is] != leaves || got.own[is] != leaves/issuers || got.lacking[next] != c.lacking || got.lacking[is] != 0 || got.places != c.lacking {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func BenchmarkTally20000(b *testing.B) {
	facts := &workload.SecretFacts{Signer: workload.Signer{1}, NotAfter: time.Now().Add(time.Hour)}
	for _, issuers := range []int{1, 1000} {
		s := crowd(b, 20000, issuers, facts)
		b.Run(fmt.Sprint(issuers, "-issuers"), func(b *testing.B) {
			for b.Loop() {
				s.tally(time.Now(), time.Hour)
			}
		})
		all := s.tally(time.Now(), time.Hour)
		rec := &caRecord{certificates: nil}
		b.Run(fmt.Sprint("census-", issuers, "-issuers"), func(b *testing.B) {
			for b.Loop() {
				all.census(issuerKey{"shop", "ca-0"}, rec, func(issuerKey, rollover.ID) bool { return true })
			}
		})
	}
}

// fail has the Certificates of names have failed now, for the so manieth time.
func (c *carried) fail(t *testing.T, ca []byte, leaf workload.SecretFacts, names []string, attempts int) {
	t.Helper()
	for _, name := range names {
		at := metav1.Now()
		o := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, ResourceVersion: "9"}}
		o.Spec.SecretName, o.Spec.IssuerRef.Name = name, "ca"
		o.Status.LastFailureTime, o.Status.FailedIssuanceAttempts = &at, &attempts
		if err := c.stores.certificates.Add(o); err != nil {
			t.Fatal(err)
		}
		f := leaf
		f.CertificateName = name
		c.stores.secrets.wrote(types.NamespacedName{Namespace: "shop", Name: name}, 9, &secretKept{SecretFacts: f})
	}
}

func TestAnIssuerSaysThatItPausesAndWhy(t *testing.T) {
	for name, c := range map[string]struct {
		attempts int
		pauses   bool
	}{"what fails since the new CA signs": {1, true}, "what has failed ever since is no reason": {5, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newCarried(t)
				one, two := newCA(t, "one"), newCA(t, "two")
				w.put(t, "ca-1", pairData(t, one))
				w.leaf(t, "1", one, trust.EncodeCertificates(one.Certificate))
				w.wants(t, rollover.Steady, one, one)
				w.put(t, "ca-1", pairData(t, two))
				v := w.wants(t, rollover.Publish, two, one, two)
				w.leaf(t, "2", one, v.bundle)
				w.wants(t, rollover.Accept, two, one, two)
				time.Sleep(10 * time.Minute)
				w.wants(t, rollover.Reissue, two, one, two)
				time.Sleep(time.Minute)
				k, _ := w.stores.secrets.get(types.NamespacedName{Namespace: "shop", Name: "web"})
				w.fail(t, v.bundle, k.SecretFacts, []string{"a", "b", "c", "d", "e"}, c.attempts)
				v = w.wants(t, rollover.Reissue, two, one, two)
				_, reason, message := v.condition()
				if v.plan.Paused != c.pauses || (reason == reasonPaused) != c.pauses || c.pauses && !strings.Contains(message, "5 certificates were tried in vain, such as shop/") {
					t.Errorf("%s: %s", reason, message)
				}
				figures := prometheus.NewRegistry()
				figures.MustRegister(Collector(func() *Controller { return &Controller{rollovers: w.rollovers, stores: w.stores} }))
				got, err := figures.Gather()
				check(t, err)
				var lines []string
				for _, f := range got {
					if short, ok := strings.CutPrefix(f.GetName(), "kubepki_workload_ca_rollover_"); ok {
						labels := f.GetMetric()[0].GetLabel()
						lines = append(lines, fmt.Sprint(short, " ", labels[len(labels)-1].GetValue(), " ", f.GetMetric()[0].GetGauge().GetValue()))
					}
				}
				for _, want := range []string{"anchors shop 2", "certificates_left shop 6", "secrets_lacking shop 0", "phase " + reason + " 1"} {
					if !slices.Contains(lines, want) {
						t.Errorf("%q is not in %q", want, lines)
					}
				}
			})
		})
	}
}

func TestWhatAnIntermediateHasBesideIsPublishedWhereACertificateKeepsIt(t *testing.T) {
	root, next := newCA(t, "root"), newCA(t, "root")
	for name, kept := range map[string]bool{"of a Certificate": true, "written by hand": false} {
		t.Run(name, func(t *testing.T) {
			c := newCarried(t)
			middle := below(t, "middle", root)
			data := pairData(t, middle)
			data["ca.crt"] = trust.EncodeCertificates(root.Certificate, next.Certificate)
			c.put(t, "ca-1", data)
			if kept {
				o := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "middle", ResourceVersion: "1"}}
				o.Spec.SecretName, o.Spec.IssuerRef.Name = "ca-1", "above"
				check(t, c.stores.certificates.Add(o))
				check(t, c.stores.secrets.Add(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "ca-1", ResourceVersion: "1", Annotations: map[string]string{
					cmapi.CertificateNameKey: "middle", cmapi.IssuerNameAnnotationKey: "above",
				}}, Data: data}))
			}
			v, err := c.look(t.Context(), c.issuer)
			check(t, err)
			if n := len(v.record.Anchors); n != map[bool]int{true: 2, false: 1}[kept] || v.record.Target().ID != rollover.ID(workload.AnchorIDOf(root.Certificate)) {
				t.Errorf("%d anchors are published", n)
			}
		})
	}
}

func TestARecordOutlivesItsIssuerAsLongAsItsCertificatesDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCarried(t)
		one, two := newCA(t, "one"), newCA(t, "two")
		at := types.NamespacedName{Namespace: "shop", Name: "ca.issuer.ca-rollover"}
		seen := func() {
			s, err := c.api.CoreV1().Secrets("shop").Get(t.Context(), at.Name, metav1.GetOptions{})
			check(t, err)
			c.stores.secrets.wrote(at, 99, keepSecret(s))
		}
		c.put(t, "ca-1", pairData(t, one))
		c.leaf(t, "1", one, trust.EncodeCertificates(one.Certificate))
		c.wants(t, rollover.Steady, one, one)
		seen()
		if again, err := c.orphaned(t.Context(), keyOf(c.issuer)); again != 0 || err != nil {
			t.Errorf("one that goes with its issuer: %s, %v", again, err)
		}
		check(t, c.keep(t.Context(), c.issuer))
		c.put(t, "ca-1", pairData(t, two))
		c.wants(t, rollover.Publish, one, one, two)
		if key, ok := c.recordOf(at); !ok || key != keyOf(c.issuer) {
			t.Errorf("it is of %v", key)
		}
		again, err := c.orphaned(t.Context(), keyOf(c.issuer))
		if data := c.record(t); again == 0 || err != nil || len(data[recordKey]) > 0 || len(data["ca.crt"]) == 0 {
			t.Errorf("it is looked at again after %s, %v; it has a key: %t", again, err, len(data[recordKey]) > 0)
		}
		check(t, c.stores.secrets.Delete(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}))
		if again, err := c.orphaned(t.Context(), keyOf(c.issuer)); again != 0 || err != nil {
			t.Errorf("without certificates: %s, %v", again, err)
		}
		if _, err := c.api.CoreV1().Secrets("shop").Get(t.Context(), at.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the record: %v", err)
		}
	})
}

func TestWhoSignsElsewhereGoesByTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCarried(t)
		one, two := newCA(t, "one"), newCA(t, "two")
		first, second := authorityOf(t, one), authorityOf(t, two)
		shared := SharedCA{Client: c.api, Namespace: "shop", Name: "ca", ClusterNamespace: "kube-system"}
		signs := func(when string, current, want *workload.Authority, anchors int) {
			t.Helper()
			a, list, err := shared.Signing(t.Context(), current)
			if want == nil {
				if err == nil {
					t.Errorf("%s: %s signs", when, a.Chain[0].Subject)
				}
				return
			}
			if err != nil || !a.Chain[0].Equal(want.Chain[0]) || len(list) != anchors {
				t.Errorf("%s: %v, %d anchors, %v", when, a, len(list), err)
			}
		}
		signs("without a record", first, first, 1)
		check(t, shared.Given(t.Context(), first, time.Now().Add(time.Hour)))
		c.put(t, "ca-1", pairData(t, one))
		c.wants(t, rollover.Steady, one, one)
		signs("with one", first, first, 1)
		end := time.Now().Add(20 * time.Hour)
		check(t, shared.Given(t.Context(), first, end))
		writes := len(c.api.Actions())
		check(t, shared.Given(t.Context(), first, end))
		if n := len(c.api.Actions()) - writes; n != 1 {
			t.Errorf("%d calls for one that ends with the one before", n)
		}
		check(t, c.keep(t.Context(), c.issuer))
		signs("a CA that no record names", second, nil, 0)
		c.put(t, "ca-1", pairData(t, two))
		c.wants(t, rollover.Publish, one, one, two)
		signs("while it is published", second, first, 2)
		c.wants(t, rollover.Accept, one, one, two)
		time.Sleep(10 * time.Minute)
		c.wants(t, rollover.Retire, two, one, two)
		signs("once it is accepted", second, second, 2)
		time.Sleep(21 * time.Hour)
		c.wants(t, rollover.Retire, two, one, two) // a pod may hold it
		time.Sleep(5 * time.Hour)
		c.wants(t, rollover.Steady, two, two)
		if shared.Given(t.Context(), first, end) == nil {
			t.Error("a certificate of a CA that nobody trusts is given out")
		}
	})
}
