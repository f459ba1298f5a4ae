package certmanager

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/rollover"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

// carried is an issuer with a Certificate, and the API in memory.
type carried struct {
	*rollovers
	api    *fake.Clientset
	issuer *cmapi.Issuer
	woken  int
}

func newCarried(t *testing.T) *carried {
	t.Helper()
	c := &carried{api: fake.NewClientset(), issuer: &cmapi.Issuer{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "ca", UID: "u1", Annotations: map[string]string{annotationAccept: "10m"}},
		Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca-1"}}},
	}}
	s := newStores()
	c.rollovers = &rollovers{
		client: c.api, stores: s, authorities: newAuthorities(c.api, func(types.NamespacedName) {}), log: slog.New(slog.DiscardHandler),
		events: noEvents{}, changed: func(issuerKey) { c.woken++ }, known: map[issuerKey]*rolloverOf{},
		ours: func(cmapi.GenericIssuer) bool { return true }, backoff: workload.FirstBackoff,
	}
	o := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", ResourceVersion: "1"}}
	o.Spec.SecretName, o.Spec.IssuerRef.Name = "web", "ca"
	if err := s.certificates.Add(o); err != nil {
		t.Fatal(err)
	}
	return c
}

func newCA(t *testing.T, name string) issue.Authority {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	c, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour)}, key)
	if err != nil {
		t.Fatal(err)
	}
	return issue.Authority{Certificate: c, Key: key}
}

func pairData(t *testing.T, a issue.Authority) map[string][]byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(a.Key)
	if err != nil {
		t.Fatal(err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return map[string][]byte{"tls.crt": trust.EncodeCertificates(a.Certificate), "tls.key": key}
}

// put has a Secret be in the API, and be known.
func (c *carried) put(t *testing.T, name string, data map[string][]byte) {
	t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Type: corev1.SecretTypeTLS, Data: data}
	_, err := c.api.CoreV1().Secrets("shop").Create(t.Context(), s, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = c.api.CoreV1().Secrets("shop").Update(t.Context(), s, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	c.authorities.touched(types.NamespacedName{Namespace: "shop", Name: name})
}

// leaf has the Certificate's Secret hold a certificate of an authority, and a ca.crt.
func (c *carried) leaf(t *testing.T, version string, ca issue.Authority, anchors []byte) {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := issue.Sign(issue.Template{Subject: pkix.Name{CommonName: "web"}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(100 * time.Hour)}, key.Public(), ca)
	if err != nil {
		t.Fatal(err)
	}
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", ResourceVersion: version, Annotations: map[string]string{
		cmapi.CertificateNameKey: "web", cmapi.IssuerNameAnnotationKey: "ca",
	}}, Data: pairData(t, issue.Authority{Certificate: leaf, Key: key})}
	s.Data["ca.crt"] = anchors
	if err := c.stores.secrets.Add(s); err != nil {
		t.Fatal(err)
	}
}

func (c *carried) wants(t *testing.T, phase rollover.Phase, signs issue.Authority, anchors ...issue.Authority) *view {
	t.Helper()
	v, err := c.look(t.Context(), c.issuer)
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	for _, a := range anchors {
		text = append(text, trust.EncodeCertificates(a.Certificate)...)
	}
	if v.plan.Phase != phase || !v.signing.Chain[0].Equal(signs.Certificate) || !bytes.Equal(v.bundle, text) {
		t.Errorf("phase %d, %s signs, published:\n%s", v.plan.Phase, v.signing.Chain[0].Subject, v.bundle)
	}
	return v
}

func (c *carried) record(t *testing.T) map[string][]byte {
	t.Helper()
	s, err := c.api.CoreV1().Secrets("shop").Get(t.Context(), "ca.issuer.ca-rollover", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s.Data
}

func TestAnIssuerIsCarriedOverToTheCAThatTakesThePlaceInItsSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCarried(t)
		one, two := newCA(t, "one"), newCA(t, "two")
		c.put(t, "ca-1", pairData(t, one))
		c.leaf(t, "1", one, trust.EncodeCertificates(one.Certificate))
		c.wants(t, rollover.Steady, one, one)
		if err := c.keep(t.Context(), c.issuer); err != nil { // as the loop of Certificates does
			t.Fatal(err)
		}
		c.wants(t, rollover.Steady, one, one)
		c.put(t, "ca-1", pairData(t, two))
		c.wants(t, rollover.Publish, one, one, two)
		v := c.wants(t, rollover.Publish, one, one, two)
		c.leaf(t, "2", one, v.bundle)
		c.wants(t, rollover.Accept, one, one, two)
		time.Sleep(9 * time.Minute)
		c.known = map[issuerKey]*rolloverOf{} // another process takes over
		c.wants(t, rollover.Accept, one, one, two)
		time.Sleep(time.Minute)
		v = c.wants(t, rollover.Reissue, two, one, two)
		if key := c.record(t)["previous.key"]; len(key) > 0 {
			t.Error("the key of the CA before stays")
		}
		id := rollover.ID(workload.AnchorIDOf(one.Certificate))
		if due := v.plan.Due(rollover.Leaf{Anchor: id, Seed: "u"}); due.Before(time.Now()) || due.After(time.Now().Add(leastWindow)) {
			t.Errorf("a leaf is due at %s", due)
		}
		c.leaf(t, "3", two, v.bundle)
		c.wants(t, rollover.Retire, two, one, two)
		time.Sleep(10 * time.Minute)
		c.wants(t, rollover.Steady, two, two)
	})
}

func TestWhoSignsWhileANewCAIsNotAccepted(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testing.T, *carried, issue.Authority)
		held   bool
	}{
		"the one in the Secret that the issuer named before": {func(t *testing.T, c *carried, two issue.Authority) {
			c.put(t, "ca-2", pairData(t, two))
			c.issuer.Spec.CA.SecretName = "ca-2"
		}, true},
		"the new one where the Secret before is gone": {func(t *testing.T, c *carried, two issue.Authority) {
			c.put(t, "ca-2", pairData(t, two))
			c.issuer.Spec.CA.SecretName = "ca-2"
			if err := c.api.CoreV1().Secrets("shop").Delete(t.Context(), "ca-1", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}, false},
		"the new one where the Secret before holds something else by now": {func(t *testing.T, c *carried, two issue.Authority) {
			c.put(t, "ca-2", pairData(t, two))
			c.put(t, "ca-1", pairData(t, newCA(t, "three")))
			c.issuer.Spec.CA.SecretName = "ca-2"
		}, false},
		"the new one where the Secret was overwritten": {func(t *testing.T, c *carried, two issue.Authority) { c.put(t, "ca-1", pairData(t, two)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newCarried(t)
				one, two := newCA(t, "one"), newCA(t, "two")
				w.put(t, "ca-1", pairData(t, one))
				w.leaf(t, "1", one, trust.EncodeCertificates(one.Certificate))
				w.wants(t, rollover.Steady, one, one)
				c.change(t, w, two)
				signs := two
				if c.held {
					signs = one
				}
				v := w.wants(t, rollover.Publish, signs, one, two)
				if v.plan.Hold.IsZero() != c.held {
					t.Errorf("renewals wait until %s", v.plan.Hold)
				}
				if key := w.record(t)["previous.key"]; (len(key) > 0) != c.held {
					t.Errorf("the key before is at hand: %t", len(key) > 0)
				}
				w.leaf(t, "2", one, v.bundle)
				w.wants(t, rollover.Accept, signs, one, two)
				time.Sleep(10 * time.Minute)
				if v = w.wants(t, rollover.Reissue, two, one, two); !v.plan.Hold.IsZero() {
					t.Error("renewals still wait")
				}
			})
		})
	}
}

func TestAKeyIsNotKeptWhereNoOtherCATakesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCarried(t)
		one := newCA(t, "one")
		c.put(t, "ca-1", pairData(t, one))
		if err := c.keep(t.Context(), c.issuer); err != nil { // and then the process ends
			t.Fatal(err)
		}
		c.wants(t, rollover.Steady, one, one)
		if len(c.record(t)["previous.key"]) == 0 {
			t.Fatal("it is gone before its successor can be there")
		}
		time.Sleep(keptFor)
		c.wants(t, rollover.Steady, one, one)
		if len(c.record(t)["previous.key"]) > 0 {
			t.Error("it stays")
		}
	})
}

func TestCertificatesThatOthersHoldKeepTheirAnchor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCarried(t)
		one, two := newCA(t, "one"), newCA(t, "two")
		c.put(t, "ca-1", pairData(t, one))
		c.wants(t, rollover.Steady, one, one)
		leaf := *one.Certificate
		leaf.NotAfter = time.Now().Add(20 * time.Hour)
		by := &workload.Authority{Key: one.Key, Chain: []*x509.Certificate{one.Certificate}}
		writes := len(c.api.Actions())
		for range 3 {
			if err := c.given(t.Context(), c.issuer, by, &leaf); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(c.api.Actions()) - writes; n != 2 { // one get, one patch
			t.Errorf("%d calls for three certificates that end at once", n)
		}
		c.put(t, "ca-1", pairData(t, two))
		c.wants(t, rollover.Publish, two, one, two)
		c.wants(t, rollover.Accept, two, one, two) // no Secret lacks it
		for _, at := range []time.Duration{10 * time.Minute, 19 * time.Hour} {
			time.Sleep(at)
			c.wants(t, rollover.Retire, two, one, two)
		}
		time.Sleep(7 * time.Hour) // a quarter more than it lives
		c.wants(t, rollover.Steady, two, two)
	})
}

func TestCertificatesThatWereGivenOutBeforeAreSeenByTheirRequests(t *testing.T) {
	c := newCarried(t)
	one := newCA(t, "one")
	c.put(t, "ca-1", pairData(t, one))
	leaf, err := issue.Sign(issue.Template{Subject: pkix.Name{CommonName: "leaf"}, NotBefore: time.Now(), NotAfter: time.Now().Add(5 * time.Hour)}, one.Key.Public(), one)
	if err != nil {
		t.Fatal(err)
	}
	r := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "elsewhere", Name: "r", ResourceVersion: "1"}}
	r.Status.Certificate = trust.EncodeCertificates(leaf)
	workload.SetRequestCondition(&r.Status, cmapi.CertificateRequestConditionReady, "True", cmapi.CertificateRequestReasonIssued, "", time.Now())
	if err := c.stores.requests.Add(r); err != nil {
		t.Fatal(err)
	}
	if v := c.wants(t, rollover.Steady, one, one); !v.record.Target().Others.Equal(leaf.NotAfter) {
		t.Errorf("it is to stay until %s", v.record.Target().Others)
	}
}

func TestAnchorsComeFromNoSecretOfALeaf(t *testing.T) {
	c := newCarried(t)
	one, rogue := newCA(t, "one"), newCA(t, "rogue")
	c.put(t, "ca-1", pairData(t, one))
	c.leaf(t, "1", rogue, trust.EncodeCertificates(rogue.Certificate))
	// The first look is the one that counts all.
	if v := c.wants(t, rollover.Steady, one, one); v.seen.unknown != 1 || len(v.seen.lacking) > 0 {
		t.Errorf("%d unknown, %v lacking", v.seen.unknown, v.seen.lacking)
	}
}

func TestARecordThatCannotBeReadSignsNothing(t *testing.T) {
	one := newCA(t, "one")
	leaf, err := issue.Sign(issue.Template{Subject: pkix.Name{CommonName: "leaf"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}, one.Key.Public(), one)
	if err != nil {
		t.Fatal(err)
	}
	anchor := trust.EncodeCertificates(one.Certificate)
	for name, data := range map[string]map[string][]byte{
		"no certificates":                 {"ca.crt": nil},
		"a certificate that is no CA":     {"ca.crt": trust.EncodeCertificates(leaf)},
		"more anchors than anybody needs": {"ca.crt": bytes.Repeat(anchor, maxAnchors+1)},
		"a state that is no JSON":         {"ca.crt": anchor, "state.json": []byte("{")},
		"":                                {"ca.crt": anchor}, // the good twin: begun anew
	} {
		t.Run(name, func(t *testing.T) {
			c := newCarried(t)
			c.put(t, "ca-1", pairData(t, one))
			c.put(t, "ca.issuer.ca-rollover", data)
			authority, v, err := c.signer(t.Context(), c.issuer)
			if (err == nil) != (name == "") || (authority == nil) != (err != nil) || (v == nil) != (err != nil) {
				t.Errorf("%v, %v, %v", authority, v, err)
			}
		})
	}
}

func TestAnIssuerThatIsNotCarriedOverHasNoRecord(t *testing.T) {
	c := newCarried(t)
	one := newCA(t, "one")
	c.put(t, "ca-1", pairData(t, one))
	c.wants(t, rollover.Steady, one, one)
	there, err := c.api.CoreV1().Secrets("shop").Get(t.Context(), "ca.issuer.ca-rollover", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	there.ResourceVersion = "7"
	if err := c.stores.secrets.Add(there); err != nil {
		t.Fatal(err)
	}
	c.issuer.Annotations[annotationRollover] = "false"
	if authority, v, err := c.signer(t.Context(), c.issuer); err != nil || v != nil || !authority.Chain[0].Equal(one.Certificate) {
		t.Errorf("%v, %v", v, err)
	}
	if err := c.forget(t.Context(), keyOf(c.issuer)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.api.CoreV1().Secrets("shop").Get(t.Context(), "ca.issuer.ca-rollover", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the record: %v", err)
	}
}

func TestAnchorsArePublishedWhereTheIssuerSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCarried(t)
		one, two := newCA(t, "one"), newCA(t, "two")
		maps := c.api.CoreV1().ConfigMaps("shop")
		foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "anchors"}, Data: map[string]string{"ca.crt": "theirs"}}
		if _, err := maps.Create(t.Context(), foreign, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.issuer.Annotations[annotationConfigMap], c.issuer.Annotations[annotationTrust] = "anchors", "cluster"
		c.put(t, "ca-1", pairData(t, one))
		if v := c.wants(t, rollover.Steady, one, one); v.wrong == nil {
			t.Error("nobody tells that another's ConfigMap is left alone, and that an Issuer has no ClusterTrustBundle")
		}
		if err := c.keep(t.Context(), c.issuer); err != nil {
			t.Fatal(err)
		}
		c.put(t, "ca-1", pairData(t, two))
		c.wants(t, rollover.Publish, one, one, two)
		time.Sleep(time.Hour)
		c.wants(t, rollover.Publish, one, one, two) // it is not published everywhere
		if o, err := maps.Get(t.Context(), "anchors", metav1.GetOptions{}); err != nil || o.Data["ca.crt"] != "theirs" {
			t.Errorf("%v, %v", o, err)
		}
		delete(c.issuer.Annotations, annotationTrust)
		c.issuer.Annotations[annotationConfigMap] = "ours"
		v := c.wants(t, rollover.Accept, one, one, two)
		if o, err := maps.Get(t.Context(), "ours", metav1.GetOptions{}); err != nil || o.Data["ca.crt"] != string(v.bundle) || v.wrong != nil {
			t.Errorf("%v, %v, %v", o, err, v.wrong)
		}
	})
}

func TestSettingsOfAnIssuer(t *testing.T) {
	for name, c := range map[string]struct {
		of          Rollover
		annotations map[string]string
		many        int
		on, wrong   bool
		settings    rollover.Settings
	}{
		"what is so without any":         {Rollover{}, nil, 10, true, false, rollover.Settings{Accept: DefaultAccept, Window: leastWindow}},
		"a window for many":              {Rollover{}, nil, 36000, true, false, rollover.Settings{Accept: DefaultAccept, Window: 2 * time.Hour}},
		"flags":                          {Rollover{Off: true, Accept: time.Minute}, nil, 0, false, false, rollover.Settings{Accept: time.Minute, Window: leastWindow}},
		"an issuer that wants it":        {Rollover{Off: true}, map[string]string{annotationRollover: "true"}, 0, true, false, rollover.Settings{Accept: DefaultAccept, Window: leastWindow}},
		"times of its own":               {Rollover{}, map[string]string{annotationAccept: "0s", annotationWindow: "1m", annotationKeep: "24h"}, 0, true, false, rollover.Settings{Window: time.Minute, Keep: 24 * time.Hour}},
		"a time that is none is said":    {Rollover{}, map[string]string{annotationAccept: "soon"}, 0, true, true, rollover.Settings{Accept: DefaultAccept, Window: leastWindow}},
		"a time before now is said":      {Rollover{}, map[string]string{annotationWindow: "-1h"}, 0, true, true, rollover.Settings{Accept: DefaultAccept, Window: leastWindow}},
		"neither true nor false is said": {Rollover{}, map[string]string{annotationRollover: "perhaps"}, 0, true, true, rollover.Settings{Accept: DefaultAccept, Window: leastWindow}},
	} {
		t.Run(name, func(t *testing.T) {
			s, on, err := c.of.settingsOf(&cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Annotations: c.annotations}}, c.many)
			if s != c.settings || on != c.on || (err != nil) != c.wrong {
				t.Errorf("%+v, %t, %v", s, on, err)
			}
		})
	}
}

func TestARecordHasANameThatTheAPITakes(t *testing.T) {
	long := strings.Repeat("a.", 126) + "a" // 253, the longest
	seen := map[string]bool{}
	for _, name := range []string{"ca", long[:227], long[:229], long, long[:252] + "b"} {
		for _, key := range []issuerKey{{"shop", name}, {"", name}} {
			got := recordName(key)
			if wrong := validation.IsDNS1123Subdomain(got); len(wrong) > 0 || seen[got] {
				t.Errorf("%s: %v, another's: %t", got, wrong, seen[got])
			}
			seen[got] = true
		}
	}
}

func pairOf(all ...issue.Authority) []*x509.Certificate {
	var list []*x509.Certificate
	for _, a := range all {
		list = append(list, a.Certificate)
	}
	return list
}

func certificatesOf(all ...issue.Authority) map[rollover.ID]*x509.Certificate {
	m := map[rollover.ID]*x509.Certificate{}
	for _, a := range all {
		m[rollover.ID(workload.AnchorIDOf(a.Certificate))] = a.Certificate
	}
	return m
}

func authorityOf(t *testing.T, a issue.Authority) *workload.Authority {
	t.Helper()
	data := pairData(t, a)
	got, err := workload.AuthorityOf(data["tls.crt"], data["tls.key"], nil)
	check(t, err)
	return got
}

// below is an intermediate of a root.
func below(t *testing.T, name string, root issue.Authority) issue.Authority {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	check(t, err)
	c, err := issue.Sign(issue.Template{Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(100 * time.Hour)}, key.Public(), root)
	check(t, err)
	return issue.Authority{Certificate: c, Key: key}
}
