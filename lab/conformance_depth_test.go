//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/cert-manager/cert-manager/pkg/util/pki"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/kubepki/kubepki/internal/workload"
)

// deep is a Certificate of the issuer deep-self, which signs itself.
func (c *conformance) deep(t *testing.T, name string, change func(*cmapi.Certificate)) {
	t.Helper()
	o := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: cmapi.CertificateSpec{
		SecretName: name, CommonName: "test", IssuerRef: cmmeta.IssuerReference{Name: "deep-self", Kind: "Issuer", Group: "cert-manager.io"}, PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: "ECDSA"},
	}}
	if change != nil {
		change(o)
	}
	c.create(t, "certificates", o)
}

// secretIs waits until a Secret is as wanted, and as long as quiet stays so.
func (c *conformance) secretIs(t *testing.T, name, what string, quiet time.Duration, is func(*corev1.Secret) bool) *corev1.Secret {
	t.Helper()
	var s *corev1.Secret
	look := func(ctx context.Context) error {
		var err error
		if s, err = c.client.CoreV1().Secrets("default").Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if !is(s) {
			return fmt.Errorf("it has %q, labels %v, annotations %v", sortedKeys(s.Data), s.Labels, s.Annotations)
		}
		return nil
	}
	eventually(t, "Secret "+name+" "+what, look)
	for end := time.Now().Add(quiet); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err := look(t.Context()); err != nil {
			t.Fatalf("Secret %s does not stay so: %s: %v", name, what, err)
		}
	}
	return s
}

func (c *conformance) editSecret(t *testing.T, name string, change func(*corev1.Secret)) {
	t.Helper()
	eventually(t, "Secret "+name+" is edited", func(ctx context.Context) error {
		s, err := c.client.CoreV1().Secrets("default").Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(s)
		_, err = c.client.CoreV1().Secrets("default").Update(ctx, s, metav1.UpdateOptions{})
		return err
	})
}

// renewNow does what cmctl renew does.
func (c *conformance) renewNow(t *testing.T, namespace, name string) {
	t.Helper()
	eventually(t, name+" is renewed by hand", func(ctx context.Context) error {
		o := &cmapi.Certificate{}
		if err := c.cm.Get().Namespace(namespace).Resource("certificates").Name(name).Do(ctx).Into(o); err != nil {
			return err
		}
		workload.SetCondition(&o.Status, cmapi.CertificateConditionIssuing, o.Generation, cmmeta.ConditionTrue, "ManuallyTriggered", "Certificate re-issuance manually triggered", time.Now())
		o.APIVersion, o.Kind = "cert-manager.io/v1", "Certificate"
		return c.cm.Put().Namespace(namespace).Resource("certificates").Name(name).SubResource("status").Body(o).Do(ctx).Error()
	})
}

const quietFor = 300 * time.Millisecond

// formatsAre tells whether a Secret has the formats that are named, of its own key, and
// no others.
func formatsAre(der, combined bool) func(*corev1.Secret) bool {
	return func(s *corev1.Secret) bool {
		block, _ := pem.Decode(s.Data["tls.key"])
		return block != nil && (!der && s.Data["key.der"] == nil || der && bytes.Equal(s.Data["key.der"], block.Bytes)) &&
			(!combined && s.Data["tls-combined.pem"] == nil || combined && bytes.Equal(s.Data["tls-combined.pem"], bytes.Join([][]byte{s.Data["tls.key"], s.Data["tls.crt"]}, []byte("\n"))))
	}
}

func formats(types ...cmapi.CertificateOutputFormatType) func(*cmapi.Certificate) {
	return func(o *cmapi.Certificate) {
		o.Spec.AdditionalOutputFormats = nil
		for _, one := range types {
			o.Spec.AdditionalOutputFormats = append(o.Spec.AdditionalOutputFormats, cmapi.CertificateAdditionalOutputFormat{Type: one})
		}
	}
}

func template(labels, annotations map[string]string) func(*cmapi.Certificate) {
	return func(o *cmapi.Certificate) {
		o.Spec.SecretTemplate = &cmapi.CertificateSecretTemplate{Labels: labels, Annotations: annotations}
	}
}

// metaAre tells whether labels and annotations have values; "" stands for none.
func metaAre(labels, annotations map[string]string) func(*corev1.Secret) bool {
	return func(s *corev1.Secret) bool {
		for _, one := range []struct{ want, have map[string]string }{{labels, s.Labels}, {annotations, s.Annotations}} {
			for key, value := range one.want {
				if got, there := one.have[key]; got != value || there != (value != "") {
					return false
				}
			}
		}
		return true
	}
}

type pairs = map[string]string

// testDepth has the cases of test/e2e/suite/certificates.
func (c *conformance) testDepth(t *testing.T) {
	c.issuer(t, "deep-self", cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}})
	c.issuer(t, "deep-ca", cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca-root"}})
	const aof, secretTemplate, later = "additionaloutputformats", "secrettemplate", "not: a field of a later release"
	runDeeds(t, "Certificates in depth", []deedOf{
		{aof, "should not remove Secret data keys which have been added by a third party, and not present in the Certificate's AdditionalOutputFormats", "", func(t *testing.T) {
			c.deep(t, "aof-1", nil)
			c.doneIssuing(t, "aof-1", 1)
			c.editSecret(t, "aof-1", func(s *corev1.Secret) {
				s.Data["random-1"], s.Data["tls-combined.pem"], s.Data["key.der"] = []byte("data-1"), []byte("data-3"), []byte("data-4")
			})
			c.secretIs(t, "aof-1", "keeps what others wrote", quietFor, func(s *corev1.Secret) bool {
				return string(s.Data["random-1"]) == "data-1" && string(s.Data["tls-combined.pem"]) == "data-3" && string(s.Data["key.der"]) == "data-4"
			})
		}, ""},
		{aof, "should add additional output formats to the Secret when the Certificate's AdditionalOutputFormats is updated, then removed when removed from AdditionalOutputFormats", "", func(t *testing.T) {
			c.deep(t, "aof-2", nil)
			_, first := c.doneIssuing(t, "aof-2", 1)
			for _, step := range []struct {
				types         []cmapi.CertificateOutputFormatType
				der, combined bool
			}{{[]cmapi.CertificateOutputFormatType{"CombinedPEM"}, false, true}, {[]cmapi.CertificateOutputFormatType{"CombinedPEM", "DER"}, true, true},
				{[]cmapi.CertificateOutputFormatType{"DER"}, true, false}, {nil, false, false}} {
				c.change(t, "default", "aof-2", formats(step.types...))
				s := c.secretIs(t, "aof-2", fmt.Sprint("has ", step.types), 0, formatsAre(step.der, step.combined))
				if !bytes.Equal(s.Data["tls.crt"], first.Data["tls.crt"]) {
					t.Error("it was issued anew")
				}
			}
		}, ""},
		{aof, "should update the values of Additional Output Format keys that have been modified on the Secret", "", func(t *testing.T) {
			c.deep(t, "aof-3", formats("CombinedPEM", "DER"))
			c.doneIssuing(t, "aof-3", 1)
			c.editSecret(t, "aof-3", func(s *corev1.Secret) {
				s.Data["tls-combined.pem"], s.Data["key.der"] = []byte("random-1"), []byte("random-2")
			})
			c.secretIs(t, "aof-3", "has its formats again", 0, formatsAre(true, true))
		}, ""},
		{aof, "renewing a Certificate should have output format values reflect the new certificate and private key", "", func(t *testing.T) {
			c.deep(t, "aof-4", formats("CombinedPEM", "DER"))
			_, first := c.doneIssuing(t, "aof-4", 1)
			c.renewNow(t, "default", "aof-4")
			_, second := c.doneIssuing(t, "aof-4", 2)
			if bytes.Equal(first.Data["tls.key"], second.Data["tls.key"]) || bytes.Equal(first.Data["tls.crt"], second.Data["tls.crt"]) || !formatsAre(true, true)(second) {
				t.Error("the formats are not of the new key and certificate")
			}
		}, ""},
		{aof, "if a third party set additional output formats, they then get added to the Certificate, when they are removed again they should persist as they are still owned by a third party", "", func(t *testing.T) {
			c.deep(t, "aof-5", nil)
			_, s := c.doneIssuing(t, "aof-5", 1)
			block, _ := pem.Decode(s.Data["tls.key"])
			c.editSecret(t, "aof-5", func(s *corev1.Secret) {
				s.Data["key.der"], s.Data["tls-combined.pem"] = block.Bytes, bytes.Join([][]byte{s.Data["tls.key"], s.Data["tls.crt"]}, []byte("\n"))
			})
			c.change(t, "default", "aof-5", formats("CombinedPEM", "DER"))
			c.secretIs(t, "aof-5", "is owned by the controller too", 0, func(s *corev1.Secret) bool { return owns(s, "f:key.der") && owns(s, "f:tls-combined.pem") })
			c.change(t, "default", "aof-5", formats())
			c.secretIs(t, "aof-5", "is owned by the other alone", 0, func(s *corev1.Secret) bool { return !owns(s, "f:key.der") && !owns(s, "f:tls-combined.pem") })
			c.secretIs(t, "aof-5", "has the formats still", quietFor, formatsAre(true, true))
		}, ""},
		{"duplicatesecretname", "if Certificates are created in the same Namsespace with the same spec.secretName, they should block issuance, and never create more than one request.", "", c.testDuplicates, ""},
		{"foregrounddeletion", "should not create a CertificateRequest while the Certificate is being deleted", "", func(t *testing.T) { c.testForeground(t) }, ""},
		{"foregrounddeletion", "should not create a Secret while the Certificate is being deleted", "", nil, "the row above"},
		{"literalsubjectrdns", "Should create a certificate with all the supplied RDNs as subject names in reverse string order, including DC and UID", "", func(t *testing.T) {
			c.deep(t, "literal", func(o *cmapi.Certificate) {
				o.Spec.CommonName = ""
				o.Spec.LiteralSubject = `CN=James \"Jim\" Smith\, III,UID=jamessmith,SERIALNUMBER=1234512345,OU=Admins,OU=IT,DC=net,DC=dc,O=Acme,STREET=La Rambla,L=Barcelona,C=Spain`
			})
			o, s := c.doneIssuing(t, "literal", 1)
			checkLiteral(t, o, s)
			if names := chain(t, s)[0].Subject.Names; len(names) != 11 || names[0].Value != "Spain" || names[10].Value != `James "Jim" Smith, III` {
				t.Errorf("the subject is %v", names)
			}
		}, ""},
		{"literalsubjectrdns", "Should not allow unknown RDN component", "", func(t *testing.T) {
			c.deep(t, "unknown-rdn", func(o *cmapi.Certificate) { o.Spec.CommonName, o.Spec.LiteralSubject = "", "UNKNOWN=blah" })
			c.fails(t, "unknown-rdn", workload.ReasonInvalidSpec, `attribute "UNKNOWN" is not known`)
		}, ""},
		{"othernamesan", "Should create a certificate with the supplied otherName SAN value and emailAddress included", "", func(t *testing.T) {
			c.deep(t, "other-name", func(o *cmapi.Certificate) {
				o.Spec.EmailAddresses, o.Spec.OtherNames = []string{"email@domain.test"}, []cmapi.OtherName{{OID: "1.3.6.1.4.1.311.20.2.3", UTF8Value: "upn@domain.test"}}
			})
			_, s := c.doneIssuing(t, "other-name", 1)
			names := pki.GeneralNames{}
			for _, e := range chain(t, s)[0].Extensions {
				if e.Id.String() == "2.5.29.17" {
					var err error
					if names, err = pki.UnmarshalSANs(e.Value); err != nil {
						t.Fatal(err)
					}
				}
			}
			if len(names.OtherNames) != 1 || !bytes.HasSuffix(names.OtherNames[0].Value.Bytes, []byte("upn@domain.test")) || fmt.Sprint(names.RFC822Names) != "[email@domain.test]" {
				t.Errorf("the names are %+v", names)
			}
		}, ""},
		{"othernamesan", "Should error if a certificate is supplied with an othername containing an invalid oid value", "", func(t *testing.T) {
			c.deep(t, "bad-oid", func(o *cmapi.Certificate) {
				o.Spec.OtherNames = []cmapi.OtherName{{OID: "BAD_OID", UTF8Value: "u@d"}}
			})
			c.fails(t, "bad-oid", workload.ReasonInvalidSpec, "spec.otherNames[0].oid")
		}, ""},
		{"othernamesan", "Should error if a certificate is supplied with an othername without a UTF8 value", "", func(t *testing.T) {
			c.deep(t, "no-text", func(o *cmapi.Certificate) {
				o.Spec.OtherNames = []cmapi.OtherName{{OID: "1.3.6.1.4.1.311.20.2.3"}}
			})
			c.fails(t, "no-text", workload.ReasonInvalidSpec, "spec.otherNames[0].utf8Value")
		}, ""},
		{"maxpathlen", "should issue a CA certificate with maxPathLen=2 in BasicConstraints", later, nil, "–"},
		{"maxpathlen", "should issue a CA certificate with maxPathLen=0 (MaxPathLenZero=true) in BasicConstraints", later, nil, "–"},
		{secretTemplate, "should not remove Annotations and Labels which have been added by a third party and not present in the SecretTemplate", "", func(t *testing.T) {
			c.deep(t, "template-1", template(pairs{"abc": "123"}, pairs{"foo": "bar"}))
			c.doneIssuing(t, "template-1", 1)
			c.editSecret(t, "template-1", func(s *corev1.Secret) { s.Annotations["random"], s.Labels["random"] = "annotation", "label" })
			c.secretIs(t, "template-1", "has both", quietFor, metaAre(pairs{"abc": "123", "random": "label"}, pairs{"foo": "bar", "random": "annotation"}))
		}, ""},
		{secretTemplate, "should add Annotations and Labels to the Secret when the Certificate's SecretTemplate is updated, then remove Annotations and Labels when removed from the SecretTemplate", "", func(t *testing.T) {
			c.deep(t, "template-2", template(pairs{"abc": "123", "def": "456"}, pairs{"foo": "bar", "bar": "foo"}))
			c.doneIssuing(t, "template-2", 1)
			c.change(t, "default", "template-2", template(pairs{"abc": "123", "def": "456", "hello": "world"}, pairs{"foo": "bar", "bar": "foo", "random": "annotation"}))
			c.secretIs(t, "template-2", "has what was added", 0, metaAre(pairs{"abc": "123", "def": "456", "hello": "world"}, pairs{"foo": "bar", "bar": "foo", "random": "annotation"}))
			c.change(t, "default", "template-2", template(pairs{"def": "456", "hello": "world"}, pairs{"bar": "foo"}))
			c.secretIs(t, "template-2", "has not what was removed", 0, metaAre(pairs{"abc": "", "def": "456"}, pairs{"foo": "", "random": "", "bar": "foo"}))
		}, ""},
		{secretTemplate, "should update the values of keys that have been modified in the SecretTemplate", "", func(t *testing.T) {
			c.deep(t, "template-3", template(pairs{"abc": "123", "def": "456"}, pairs{"foo": "bar", "bar": "foo"}))
			c.doneIssuing(t, "template-3", 1)
			c.change(t, "default", "template-3", template(pairs{"abc": "098", "def": "555"}, pairs{"foo": "123", "bar": "not foo"}))
			c.secretIs(t, "template-3", "has the new values", 0, metaAre(pairs{"abc": "098", "def": "555"}, pairs{"foo": "123", "bar": "not foo"}))
		}, ""},
		{secretTemplate, "should add cert-manager manager to existing Annotation and Labels fields which are added to SecretTemplate, should not be removed if they are removed by the third party", "", func(t *testing.T) {
			c.deep(t, "template-4", nil)
			c.doneIssuing(t, "template-4", 1)
			apply := func(labels, annotations pairs) {
				t.Helper()
				_, err := c.client.CoreV1().Secrets("default").Apply(t.Context(), applycorev1.Secret("template-4", "default").WithLabels(labels).WithAnnotations(annotations), metav1.ApplyOptions{FieldManager: "third-party"})
				if err != nil {
					t.Fatal(err)
				}
			}
			labels, annotations := pairs{"abc": "123"}, pairs{"an-annotation": "bar"}
			apply(labels, annotations)
			c.change(t, "default", "template-4", template(labels, annotations))
			c.secretIs(t, "template-4", "is owned by the controller too", 0, func(s *corev1.Secret) bool { return owns(s, "f:abc") && owns(s, "f:an-annotation") })
			apply(nil, nil)
			c.secretIs(t, "template-4", "has them still", quietFor, metaAre(labels, annotations))
		}, ""},
		{secretTemplate, "if data keys are added to the Secret, they should not be removed", "", nil, "additionaloutputformats, first row"},
		{secretTemplate, "if values are modified on the Certificate's SecretTemplate, than those values should be reflected on the Secret", "", nil, "the third row of secrettemplate"},
		{secretTemplate, "deleting a Certificate's SecretTemplate should remove all keys it defined", "", func(t *testing.T) {
			c.deep(t, "template-7", template(pairs{"foo": "bar", "label": "hello-world"}, pairs{"abc": "123", "def": "456"}))
			c.doneIssuing(t, "template-7", 1)
			c.change(t, "default", "template-7", func(o *cmapi.Certificate) { o.Spec.SecretTemplate = nil })
			c.secretIs(t, "template-7", "has nothing of it", 0, metaAre(pairs{"foo": "", "label": ""}, pairs{"abc": "", "def": ""}))
		}, ""},
	})
}

// owns tells whether a field is among those that the controller owns.
func owns(s *corev1.Secret, field string) bool {
	for _, m := range s.ManagedFields {
		if m.Manager == workload.FieldManager && m.Operation == metav1.ManagedFieldsOperationApply && m.FieldsV1 != nil && bytes.Contains(m.FieldsV1.GetRawBytes(), []byte(`"`+field+`"`)) {
			return true
		}
	}
	return false
}

func (c *conformance) testDuplicates(t *testing.T) {
	names := []string{"duplicate-1", "duplicate-2", "duplicate-3"}
	for i, name := range names {
		c.deep(t, name, func(o *cmapi.Certificate) {
			o.Spec.SecretName, o.Spec.IssuerRef.Name, o.Spec.PrivateKey.RotationPolicy = "duplicate", "deep-ca", "Always"
			o.Spec.PrivateKey.Algorithm = []cmapi.PrivateKeyAlgorithm{"ECDSA", "Ed25519", "ECDSA"}[i]
		})
	}
	c.secretIs(t, "duplicate", "is there", time.Second, func(s *corev1.Secret) bool { return len(s.Data["tls.crt"]) > 0 })
	requests, ready := 0, 0
	for _, name := range names {
		o := c.certificate(t, name)
		if d := workload.Condition(&o.Status, cmapi.CertificateConditionReady); d != nil && d.Status == cmmeta.ConditionTrue {
			ready++
		}
		all := &cmapi.CertificateRequestList{}
		if err := c.cm.Get().Namespace("default").Resource("certificaterequests").Do(t.Context()).Into(all); err != nil {
			t.Fatal(err)
		}
		for i := range all.Items {
			if metav1.IsControlledBy(&all.Items[i], o) {
				requests++
			}
		}
	}
	if requests != 1 || ready != 1 {
		t.Errorf("there are %d requests of the three, and %d are ready", requests, ready)
	}
	for i, name := range names {
		c.change(t, "default", name, func(o *cmapi.Certificate) { o.Spec.SecretName = fmt.Sprint("unique-", i) })
	}
	for _, name := range names {
		c.doneIssuing(t, name, 1)
	}
}

func (c *conformance) testForeground(t *testing.T) {
	c.deep(t, "foreground", func(o *cmapi.Certificate) { o.Finalizers = []string{"lab.example.org/hold"} })
	o, _ := c.doneIssuing(t, "foreground", 1)
	policy := metav1.DeletePropagationForeground
	if err := c.cm.Delete().Namespace("default").Resource("certificates").Name("foreground").Body(&metav1.DeleteOptions{PropagationPolicy: &policy}).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	if err := c.client.CoreV1().Secrets("default").Delete(t.Context(), "foreground", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	none := func() error {
		all := &cmapi.CertificateRequestList{}
		if err := c.cm.Get().Namespace("default").Resource("certificaterequests").Do(t.Context()).Into(all); err != nil {
			return err
		}
		for i := range all.Items {
			if metav1.IsControlledBy(&all.Items[i], o) {
				return fmt.Errorf("%s is there", all.Items[i].Name)
			}
		}
		return nil
	}
	eventually(t, "its requests are gone", func(context.Context) error { return none() })
	time.Sleep(time.Second) // nothing tells that nothing comes
	if err := none(); err != nil {
		t.Error(err)
	}
	if _, err := c.client.CoreV1().Secrets("default").Get(t.Context(), "foreground", metav1.GetOptions{}); err == nil {
		t.Error("the Secret was made again")
	}
	c.change(t, "default", "foreground", func(o *cmapi.Certificate) { o.Finalizers = nil })
}
