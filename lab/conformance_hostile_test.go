//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

// testHostile has what nobody who means well writes, and what goes wrong around a
// Certificate, each with the condition that tells of it. There is no webhook, and no
// admission policy.
func (c *conformance) testHostile(t *testing.T) {
	ca := c.issuer(t, "hostile-ca", cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca-root"}})
	self := c.issuer(t, "hostile-self", cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}})
	keys := newLabKeys(t)
	key := keys[x509.ECDSA]
	good := requestOf(t, key, exampleRequest())
	refused := func(name, says string, request []byte, change func(*cmapi.CertificateRequest)) func(*testing.T) {
		return func(t *testing.T) {
			begun := time.Now()
			c.ask(t, name, ca, request, change)
			r := c.answered(t, name, "Failed")
			if d := condition(r, "Ready"); !strings.Contains(d.Message, says) || len(r.Status.Certificate) > 0 || r.Status.FailureTime == nil {
				t.Errorf("its status is %s", text(r.Status))
			}
			if took := time.Since(begun); took > 30*time.Second {
				t.Errorf("it took %s", took)
			}
		}
	}
	invalid := func(name, says string, change func(*cmapi.CertificateSpec)) func(*testing.T) {
		return func(t *testing.T) {
			o := c.plain(name, ca)
			change(&o.Spec)
			c.create(t, "certificates", o)
			c.fails(t, name, workload.ReasonInvalidSpec, says)
			c.becomes(t, name, "is not ready for it", func(o *cmapi.Certificate) bool {
				return workload.Condition(&o.Status, cmapi.CertificateConditionReady).Reason == workload.ReasonInvalidSpec
			})
			c.tells(t, "default", name, workload.ReasonInvalidSpec, says)
		}
	}
	isCA, err := asn1.Marshal(struct{ CA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	authority := exampleRequest()
	authority.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: isCA}}
	const webhook, request, secret, around = "webhook", "request", "Secret", "around"
	runDeeds(t, "Hostile input", []deedOf{
		{webhook, "a life of half an hour", "Ready and Issuing False, InvalidSpec", invalid("half-an-hour", "spec.duration: 30m0s is shorter", func(s *cmapi.CertificateSpec) { s.Duration = &metav1.Duration{Duration: 30 * time.Minute} }), ""},
		{webhook, "an e-mail address with a name", "Ready and Issuing False, InvalidSpec", invalid("named-mail", "spec.emailAddresses[0]", func(s *cmapi.CertificateSpec) { s.EmailAddresses = []string{"A <a@example.org>"} }), ""},
		{webhook, "renewBefore as long as the life", "Ready and Issuing False, InvalidSpec", invalid("renew-long", "spec.renewBefore", func(s *cmapi.CertificateSpec) {
			s.Duration, s.RenewBefore = &metav1.Duration{Duration: time.Hour}, &metav1.Duration{Duration: time.Hour}
		}), ""},
		{webhook, "a kind of issuer without its group", "Ready and Issuing False, InvalidSpec", invalid("no-group", "set spec.issuerRef.group", func(s *cmapi.CertificateSpec) { s.IssuerRef = cmmeta.IssuerReference{Name: "x", Kind: "AWSPCAIssuer"} }), ""},
		{webhook, "an RSA key of 1024 bits", "Ready and Issuing False, InvalidSpec", invalid("weak-key", "spec.privateKey.size", func(s *cmapi.CertificateSpec) { s.PrivateKey = &cmapi.CertificatePrivateKey{Size: 1024} }), ""},
		{webhook, "a spec that is made worse after it was issued, and put right again", "Ready False, InvalidSpec; the certificate stays; then Ready True", c.testWorse(ca), ""},
		{webhook, "an Issuer of two kinds", "Ready False, InvalidSpec", func(t *testing.T) {
			c.issuer(t, "two-kinds", cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca-root"}, SelfSigned: &cmapi.SelfSignedIssuer{}})
			o := c.issuerBecomes(t, "two-kinds", cmmeta.ConditionFalse, nil)
			if d := o.Status.Conditions[0]; d.Reason != workload.ReasonInvalidSpec || !strings.Contains(d.Message, "ca and selfSigned") {
				t.Errorf("it says %+v", d)
			}
		}, ""},
		{webhook, "SelfSigned without a subject", "issued, with the Event BadConfig on its request", func(t *testing.T) {
			o := c.plain("no-subject", self)
			c.create(t, "certificates", o)
			c.doneIssuing(t, "no-subject", 1)
			c.tells(t, "default", "no-subject-1", "BadConfig", "empty Issuer DN")
		}, ""},
		{webhook, "a request whose spec is changed before it is signed", "Ready False, Failed", func(t *testing.T) {
			absent := cmmeta.IssuerReference{Name: "changed", Kind: "Issuer", Group: "cert-manager.io"}
			c.ask(t, "changed", absent, good, nil)
			r := c.answered(t, "changed", "Pending")
			r.APIVersion, r.Kind, r.Spec.Request = "cert-manager.io/v1", "CertificateRequest", requestOf(t, key, &x509.CertificateRequest{DNSNames: []string{"bank.example.org"}})
			if err := c.cm.Put().Namespace("default").Resource("certificaterequests").Name("changed").Body(r).Do(t.Context()).Error(); err != nil {
				t.Fatal(err)
			}
			c.issuer(t, "changed", cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca-root"}})
			if r := c.answered(t, "changed", "Failed"); !strings.Contains(condition(r, "Ready").Message, "was changed after the request was made") {
				t.Errorf("its status is %s", text(r.Status))
			}
		}, ""},

		{request, "200 KiB of PEM", "Ready False, Failed", refused("oversized", "more than", bytes.Repeat([]byte("-----BEGIN CERTIFICATE REQUEST-----\n"), 5700), nil), ""},
		{request, "100 KiB of begin lines, which made decoders quadratic (CVE-2024-12401)", "Ready False, Failed, at once", refused("crafted", "spec.request", bytes.Repeat([]byte("-----BEGIN \n-----END \n"), 4600), nil), ""},
		{request, "CA:TRUE in the request, without isCA", "Ready False, Failed", refused("sly-ca", "CA:true, and spec.isCA is false", requestOf(t, key, authority), nil), ""},
		{request, "isCA, and a request that says CA:FALSE by saying nothing, with cert sign in its usages alone", "Ready False, Failed", refused("sly-usage", "usages", requestOf(t, key, withUsage(t, exampleRequest())), nil), ""},
		{request, "a name with a line end, and one of spaces", "Ready False, Failed", refused("odd-names", "an alternative name", requestOf(t, key, withNames(t, "a.example.org\n", " ")), nil), ""},
		{request, "the CA's own key", "Ready False, Failed", func(t *testing.T) {
			s, err := c.client.CoreV1().Secrets("default").Get(t.Context(), "ca-root", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			own, err := workload.ParseKey(s.Data["tls.key"])
			if err != nil {
				t.Fatal(err)
			}
			refused("own-key", "is of the key of authority", requestOf(t, own, exampleRequest()), nil)(t)
		}, ""},
		{request, "foreign names", "as the policy says; without one they are issued, as by cert-manager", nil, "lab.TestWorkloadPolicy"},
		{request, "an approval by somebody who may write the status, and not approve", "refused by the admission policy; without it, signed within the limits of the workload policy", nil, "Rights; lab.TestWorkloadPolicy"},
		{request, "a request in the name of a Certificate, for other names and another key, before its renewal", "removed; the Certificate is issued by a request of its own", c.testForgedRevision(ca, keys), ""},
		{request, "1,000 names (cert-manager #7506)", "Ready True, Issued", func(t *testing.T) {
			o := c.plain("thousand", ca)
			o.Spec.DNSNames = nil
			for i := range 1000 {
				o.Spec.DNSNames = append(o.Spec.DNSNames, fmt.Sprintf("tenant-%04d.apps.cluster.example.org", i))
			}
			c.create(t, "certificates", o)
			_, s := c.doneIssuing(t, "thousand", 1)
			if got := chain(t, s)[0]; len(got.DNSNames) != 1000 || got.VerifyHostname("tenant-0999.apps.cluster.example.org") != nil {
				t.Errorf("it has %d names", len(got.DNSNames))
			}
		}, ""},

		{secret, "a Secret whose key, certificate or pair is another's", "issued anew", nil, "lab.TestWorkloads"},
		{secret, "a Secret of another type, with data of somebody else", "Ready True; type and data of others stay", func(t *testing.T) {
			s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "opaque", Labels: map[string]string{"owner": "other"}}, Data: map[string][]byte{"password": []byte("x")}}
			if _, err := c.client.CoreV1().Secrets("default").Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			c.create(t, "certificates", c.plain("opaque", ca))
			_, s = c.doneIssuing(t, "opaque", 1)
			if s.Type != corev1.SecretTypeOpaque || string(s.Data["password"]) != "x" || s.Labels["owner"] != "other" || len(chain(t, s)) == 0 {
				t.Errorf("it is of type %s, with %q, %v", s.Type, sortedKeys(s.Data), s.Labels)
			}
		}, ""},
		{secret, "a Secret that cannot be changed (immutable)", "Issuing False, SecretNotWritten", func(t *testing.T) {
			s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "stone"}, Immutable: new(true), Data: map[string][]byte{"x": []byte("x")}}
			if _, err := c.client.CoreV1().Secrets("default").Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			c.create(t, "certificates", c.plain("stone", ca))
			c.fails(t, "stone", workload.ReasonSecretNotWritten, "immutable")
		}, ""},
		{secret, "a keystore whose password is not there, and comes later", "Issuing False, SecretNotWritten; then Ready True", func(t *testing.T) {
			o := c.plain("keystore", ca)
			o.Spec.Keystores = &cmapi.CertificateKeystores{PKCS12: &cmapi.PKCS12Keystore{Create: true, PasswordSecretRef: cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "late-password"}, Key: "p"}}}
			c.create(t, "certificates", o)
			c.fails(t, "keystore", workload.ReasonSecretNotWritten, `Secret "late-password" has no "p"`)
			c.secret(t, "default", "late-password", map[string][]byte{"p": []byte("changeit")})
			c.renewNow(t, "default", "keystore")
			if _, s := c.doneIssuing(t, "keystore", 1); len(s.Data["keystore.p12"]) == 0 {
				t.Errorf("it has %q", sortedKeys(s.Data))
			}
		}, ""},
		{secret, "two Certificates that name one Secret", "one is Ready, the others wait", nil, "the table of certificates in depth"},

		{around, "an Issuer that is removed while a request waits for it", "the request is Pending, and answered when there is one again", c.testIssuerGone, ""},
		{around, "a quota that has no room for the Secret, and is raised", "Issuing False, SecretNotWritten; then Ready True", c.testQuota, ""},
		{around, "a Certificate in a namespace that is being removed", "nothing is made", c.testTerminating, ""},
	})
}

// plain is a Certificate with an ECDSA key.
func (c *conformance) plain(name string, ref cmmeta.IssuerReference) *cmapi.Certificate {
	return &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: cmapi.CertificateSpec{
		SecretName: name, DNSNames: []string{name + ".example.org"}, IssuerRef: ref, PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: "ECDSA"},
	}}
}

func withUsage(t *testing.T, r *x509.CertificateRequest) *x509.CertificateRequest {
	t.Helper()
	value, err := asn1.Marshal(asn1.BitString{Bytes: []byte{0x04}, BitLength: 6}) // cert sign
	if err != nil {
		t.Fatal(err)
	}
	r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: value}}
	return r
}

func withNames(t *testing.T, names ...string) *x509.CertificateRequest {
	t.Helper()
	var list []asn1.RawValue
	for _, name := range names {
		list = append(list, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(name)})
	}
	value, err := asn1.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return &x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}}
}

func (c *conformance) testWorse(ca cmmeta.IssuerReference) func(*testing.T) {
	return func(t *testing.T) {
		c.create(t, "certificates", c.plain("worse", ca))
		_, before := c.doneIssuing(t, "worse", 1)
		c.change(t, "default", "worse", func(o *cmapi.Certificate) { o.Spec.EmailAddresses = []string{"nobody"} })
		c.fails(t, "worse", workload.ReasonInvalidSpec, "spec.emailAddresses[0]")
		c.change(t, "default", "worse", func(o *cmapi.Certificate) { o.Spec.EmailAddresses = nil })
		o, after := c.doneIssuing(t, "worse", 1)
		if *o.Status.Revision != 1 || !bytes.Equal(before.Data["tls.crt"], after.Data["tls.crt"]) || o.Status.LastFailureTime != nil {
			t.Errorf("its status is %s", text(o.Status))
		}
	}
}

// testForgedRevision has somebody make the request of the next revision before the
// controller does.
func (c *conformance) testForgedRevision(ca cmmeta.IssuerReference, keys labKeys) func(*testing.T) {
	return func(t *testing.T) {
		c.create(t, "certificates", c.plain("forged", ca))
		o, _ := c.doneIssuing(t, "forged", 1)
		forged := requestOf(t, keys[x509.ECDSA], &x509.CertificateRequest{DNSNames: []string{"bank.example.org"}})
		c.ask(t, "forged-2", ca, forged, func(r *cmapi.CertificateRequest) {
			r.Annotations = map[string]string{cmapi.CertificateRequestRevisionAnnotationKey: "2", cmapi.CertificateNameKey: "forged"}
			r.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(o, cmapi.SchemeGroupVersion.WithKind("Certificate"))}
		})
		c.renewNow(t, "default", "forged")
		o, s := c.doneIssuing(t, "forged", 2)
		list := chain(t, s)
		if fmt.Sprint(list[0].DNSNames) != "[forged.example.org]" || trust.SameKey(list[0].PublicKey, keys[x509.ECDSA].Public()) {
			t.Errorf("it is of %v", list[0].DNSNames)
		}
		if r := c.request(t, fmt.Sprintf("forged-%d", *o.Status.Revision)); bytes.Equal(r.Spec.Request, forged) {
			t.Error("it is of the forged request")
		}
	}
}

func (c *conformance) testIssuerGone(t *testing.T) {
	// Its Secret is not there: it is not ready, and the request waits.
	ref := c.issuer(t, "going", cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "not-yet"}})
	c.create(t, "certificates", c.plain("going", ref))
	c.answered(t, "going-1", "Pending")
	if err := c.cm.Delete().Namespace("default").Resource("issuers").Name("going").Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the request says that there is no issuer", func(context.Context) error {
		if d := condition(c.request(t, "going-1"), "Ready"); d.Reason != "Pending" || !strings.Contains(d.Message, "not found") {
			return fmt.Errorf("it says %+v", d)
		}
		return nil
	})
	c.becomes(t, "going", "is still being issued", func(o *cmapi.Certificate) bool {
		_, under := workload.Issuing(&o.Status)
		return under && o.Status.NextPrivateKeySecretName != nil
	})
	waiting, err := c.client.CoreV1().Secrets("default").Get(t.Context(), *c.certificate(t, "going").Status.NextPrivateKeySecretName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.issuer(t, "going", cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca-root"}})
	if _, s := c.doneIssuing(t, "going", 1); !bytes.Equal(s.Data["tls.key"], waiting.Data["tls.key"]) {
		t.Error("it is of another key than that which waited")
	}
}

func (c *conformance) namespace(t *testing.T, name string) {
	t.Helper()
	if _, err := c.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// in a namespace waits for a Certificate there.
func (c *conformance) elsewhere(t *testing.T, namespace, name, what string, is func(*cmapi.Certificate) bool) *cmapi.Certificate {
	t.Helper()
	o := &cmapi.Certificate{}
	eventually(t, namespace+"/"+name+" "+what, func(ctx context.Context) error {
		*o = cmapi.Certificate{}
		err := c.cm.Get().Namespace(namespace).Resource("certificates").Name(name).Do(ctx).Into(o)
		if err == nil && !is(o) {
			err = fmt.Errorf("its status is %s", text(o.Status))
		}
		return err
	})
	return o
}

func isReadyNow(o *cmapi.Certificate) bool {
	d := workload.Condition(&o.Status, cmapi.CertificateConditionReady)
	return d != nil && d.Status == cmmeta.ConditionTrue
}

func (c *conformance) testQuota(t *testing.T) {
	c.namespace(t, "tight")
	quotas := c.client.CoreV1().ResourceQuotas("tight")
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "none"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/secrets": resource.MustParse("0")}}}
	if _, err := quotas.Create(t.Context(), quota, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the quota is enforced", func(ctx context.Context) error {
		q, err := quotas.Get(ctx, "none", metav1.GetOptions{})
		if err == nil && len(q.Status.Hard) == 0 {
			err = fmt.Errorf("it is not yet counted")
		}
		return err
	})
	self := c.clusterIssuer(t, "tight-self", cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}})
	o := c.plain("web", self)
	o.Namespace = "tight"
	c.create(t, "certificates", o)
	c.elsewhere(t, "tight", "web", "says that the quota has no room", func(o *cmapi.Certificate) bool {
		d := workload.Condition(&o.Status, cmapi.CertificateConditionIssuing)
		return d != nil && d.Reason == workload.ReasonSecretNotWritten && strings.Contains(d.Message, "exceeded quota") && !isReadyNow(o)
	})
	c.tells(t, "tight", "web", workload.ReasonSecretNotWritten, "exceeded quota")
	eventually(t, "the quota is raised", func(ctx context.Context) error {
		q, err := quotas.Get(ctx, "none", metav1.GetOptions{})
		if err == nil {
			q.Spec.Hard["count/secrets"] = resource.MustParse("10")
			_, err = quotas.Update(ctx, q, metav1.UpdateOptions{})
		}
		return err
	})
	eventually(t, "the raised quota counts", func(ctx context.Context) error {
		q, err := quotas.Get(ctx, "none", metav1.GetOptions{})
		if hard := q.Status.Hard["count/secrets"]; err == nil && hard.Value() != 10 {
			err = fmt.Errorf("it is %s", hard.String())
		}
		return err
	})
	c.renewNow(t, "tight", "web") // or it waits out its minute
	c.elsewhere(t, "tight", "web", "is issued", isReadyNow)
}

// testTerminating holds a namespace that is being removed by a finalizer, and a
// Certificate that was made there before.
func (c *conformance) testTerminating(t *testing.T) {
	c.namespace(t, "going")
	self := c.clusterIssuer(t, "going-self", cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}})
	o := c.plain("web", self)
	o.Namespace, o.Finalizers = "going", []string{"lab.example.org/hold"}
	c.create(t, "certificates", o)
	c.elsewhere(t, "going", "web", "is issued", isReadyNow)
	if err := c.client.CoreV1().Namespaces().Delete(t.Context(), "going", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its Secret is removed", func(ctx context.Context) error {
		_, err := c.client.CoreV1().Secrets("going").Get(ctx, "web", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there: %w", err)
	})
	requests := func(ctx context.Context) error {
		all := &cmapi.CertificateRequestList{}
		if err := c.cm.Get().Namespace("going").Resource("certificaterequests").Do(ctx).Into(all); err != nil || len(all.Items) > 0 {
			return fmt.Errorf("there are %d requests: %w", len(all.Items), err)
		}
		return nil
	}
	eventually(t, "its request is removed", requests)
	time.Sleep(time.Second) // nothing tells that nothing comes
	if err := requests(t.Context()); err != nil {
		t.Error(err)
	}
	c.change(t, "going", "web", func(o *cmapi.Certificate) { o.Finalizers = nil })
	eventually(t, "the namespace is gone", func(ctx context.Context) error {
		if _, err := c.client.CoreV1().Namespaces().Get(ctx, "going", metav1.GetOptions{}); apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there")
	})
}
