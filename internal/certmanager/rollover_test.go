package certmanager

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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
		c.rollovers.known = map[issuerKey]*rolloverOf{} // another process takes over
		c.wants(t, rollover.Accept, one, one, two)
		time.Sleep(time.Minute)
		v = c.wants(t, rollover.Reissue, two, one, two)
		if key := c.record(t)["previous.key"]; len(key) > 0 {
			t.Error("the key of the CA before stays")
		}
		id := rollover.ID(workload.AnchorIDOf(one.Certificate))
		if due := v.plan.Due(id, "u"); due.Before(time.Now()) || due.After(time.Now().Add(leastWindow)) {
			t.Errorf("a leaf is due at %s", due)
		}
		c.leaf(t, "3", two, v.bundle)
		c.wants(t, rollover.Retire, two, one, two)
		time.Sleep(10 * time.Minute)
		c.wants(t, rollover.Steady, two, two)
	})
}
