package workload_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"pgregory.net/rapid"

	"github.com/kubepki/kubepki/internal/workload"
)

// applied is the Secret that an API server has after a configuration was applied to
// nothing, with the managed fields that it writes.
func applied(t testing.TB, c *applycorev1.SecretApplyConfiguration) *corev1.Secret {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var s corev1.Secret
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	own(t, &s)
	return &s
}

// own makes all that a Secret has the field manager's.
func own(t testing.TB, s *corev1.Secret) {
	t.Helper()
	fields := func(of map[string]string) map[string]any {
		all := map[string]any{}
		for key := range of {
			all["f:"+key] = map[string]any{}
		}
		return all
	}
	data := map[string]any{}
	for key := range s.Data {
		data["f:"+key] = map[string]any{}
	}
	metadata := map[string]any{"f:labels": fields(s.Labels), "f:annotations": fields(s.Annotations)}
	if len(s.OwnerReferences) > 0 {
		metadata["f:ownerReferences"] = map[string]any{fmt.Sprintf(`k:{"uid":%q}`, s.OwnerReferences[0].UID): map[string]any{}}
	}
	raw, err := json.Marshal(map[string]any{"f:data": data, "f:metadata": metadata, "f:type": map[string]any{}})
	if err != nil {
		t.Fatal(err)
	}
	s.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: workload.FieldManager, Operation: metav1.ManagedFieldsOperationApply, FieldsV1: metav1.NewFieldsV1(string(raw))}}
}

func certificateOf(spec *cmapi.CertificateSpec) *cmapi.Certificate {
	c := &cmapi.Certificate{Spec: *spec}
	c.Name, c.Namespace, c.UID = "shop", "default", types.UID("6b7a0c4e-1b2e-4c5e-9d62-9f9d8d1b0a11")
	return c
}

// issue goes the whole way from a Certificate to the content of its Secret.
func issueFor(t testing.TB, c *cmapi.Certificate, ca *workload.Authority) workload.Content {
	t.Helper()
	text, err := workload.Request(&c.Spec, sharedKey)
	if err != nil {
		t.Fatal(err)
	}
	asked, err := workload.Read(requestObject(&c.Spec, text))
	if err != nil {
		t.Fatal(err)
	}
	issued, err := workload.Sign(asked, ca, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := workload.EncodeKey(sharedKey, &c.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return workload.Content{Key: key, Chain: issued.Chain, CA: issued.CA, Made: time.Now(), Name: c.Name, Issuer: c.Spec.IssuerRef}
}

// What we write is right by all checks, with the request and when that is gone.
func TestASecretThatWeWriteHasNoProblem(t *testing.T) {
	ca := newAuthority(t, "ca")
	rapid.Check(t, func(rt *rapid.T) {
		spec := drawSpec(rt)
		spec.NameConstraints = nil // its own names would have to be within them
		if rapid.Bool().Draw(rt, "template") {
			spec.SecretTemplate = &cmapi.CertificateSecretTemplate{
				Labels:      map[string]string{"app": "shop", "a.b/c": ""},
				Annotations: map[string]string{cmapi.AllowsInjectionFromSecretAnnotation: "true", "x": strings.Repeat("y", 300)},
			}
		}
		for _, f := range rapid.SliceOfNDistinct(rapid.SampledFrom([]cmapi.CertificateOutputFormatType{"DER", "CombinedPEM"}), 0, 2, rapid.ID).Draw(rt, "formats") {
			spec.AdditionalOutputFormats = append(spec.AdditionalOutputFormats, cmapi.CertificateAdditionalOutputFormat{Type: f})
		}
		if rapid.Bool().Draw(rt, "keystores") {
			password := "changeit"
			spec.Keystores = &cmapi.CertificateKeystores{JKS: &cmapi.JKSKeystore{Create: rapid.Bool().Draw(rt, "jks"), Password: &password}}
			spec.PrivateKey.Encoding = cmapi.PKCS8
		}
		ownerRef := rapid.Bool().Draw(rt, "owner")
		c := certificateOf(spec)
		content := issueFor(t, c, ca)
		config, err := workload.SecretOf(c, content, workload.Passwords{}, "", ownerRef)
		if err != nil {
			rt.Fatal(err)
		}
		facts := workload.FactsOf(applied(t, config))
		if p := workload.ContentProblem(c, &facts, &workload.Current{Key: workload.KeyID(sharedKey.Public())}); p != nil {
			rt.Fatalf("content: %v", *p)
		}
		if p := workload.ContentProblem(c, &facts, nil); p != nil {
			rt.Fatalf("content, the request being gone: %v", *p)
		}
		if p := workload.AppearanceProblem(c, &facts, ownerRef); p != nil {
			rt.Fatalf("appearance: %v", *p)
		}
	})
}

// The rows are cert-manager v1.21.2's internal/controller/certificates/policies: each
// check there, with its reason and message.
func TestProblemsAreUpstreams(t *testing.T) {
	ca := newAuthority(t, "ca")
	password := "changeit"
	base := func() *cmapi.Certificate {
		c := certificateOf(&cmapi.CertificateSpec{
			SecretName: "tls", CommonName: "shop", DNSNames: []string{"shop.example.com"}, IssuerRef: cmmeta.IssuerReference{Name: "ca", Kind: "Issuer"},
			PrivateKey:     &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
			SecretTemplate: &cmapi.CertificateSecretTemplate{Labels: map[string]string{"app": "shop"}, Annotations: map[string]string{"team": "a"}},
			Keystores:      &cmapi.CertificateKeystores{JKS: &cmapi.JKSKeystore{Create: true, Password: &password}, PKCS12: &cmapi.PKCS12Keystore{Create: true, Password: &password}},
		})
		c.Spec.AdditionalOutputFormats = []cmapi.CertificateAdditionalOutputFormat{{Type: "DER"}, {Type: "CombinedPEM"}}
		return c
	}
	content := issueFor(t, base(), ca)
	config, err := workload.SecretOf(base(), content, workload.Passwords{}, "", true)
	if err != nil {
		t.Fatal(err)
	}
	good := applied(t, config)
	otherKey, _ := workload.NewKey(&base().Spec)
	otherText, _ := workload.EncodeKey(otherKey, &base().Spec)
	type change func(c *cmapi.Certificate, s *corev1.Secret)
	secret := func(f func(s *corev1.Secret)) change { return func(_ *cmapi.Certificate, s *corev1.Secret) { f(s) } }
	spec := func(f func(c *cmapi.Certificate)) change {
		return func(c *cmapi.Certificate, _ *corev1.Secret) { f(c) }
	}
	for _, tt := range []struct {
		name            string
		change          change
		current         *workload.Current
		reason, message string
	}{
		{"as it shall be", spec(func(*cmapi.Certificate) {}), nil, "", ""},
		{"no data", secret(func(s *corev1.Secret) { s.Data = nil }), nil, "MissingData", "Issuing certificate as Secret does not contain any data"},
		{"no key", secret(func(s *corev1.Secret) { delete(s.Data, "tls.key") }), nil, "MissingData", "Issuing certificate as Secret does not contain a private key"},
		{"no certificate", secret(func(s *corev1.Secret) { s.Data["tls.crt"] = nil }), nil, "MissingData", "Issuing certificate as Secret does not contain a certificate"},
		{"a key that is none", secret(func(s *corev1.Secret) { s.Data["tls.key"] = []byte("x") }), nil, "InvalidKeyPair", "Issuing certificate as Secret contains invalid private key data: "},
		{"a certificate that is none", secret(func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("x") }), nil, "InvalidCertificate", "Issuing certificate as Secret contains an invalid certificate: "},
		{"another key", secret(func(s *corev1.Secret) { s.Data["tls.key"] = otherText }), nil, "InvalidKeyPair", "Issuing certificate as Secret contains a private key that does not match the certificate"},
		{"another issuer", spec(func(c *cmapi.Certificate) { c.Spec.IssuerRef = cmmeta.IssuerReference{Name: "b"} }), nil, "IncorrectIssuer", `Issuing certificate as Secret was previously issued by "Issuer.cert-manager.io/ca"`},
		{"the same issuer with its group", spec(func(c *cmapi.Certificate) { c.Spec.IssuerRef.Group = "cert-manager.io" }), nil, "", ""},
		{"another Certificate's", spec(func(c *cmapi.Certificate) { c.Name = "b" }), nil, "IncorrectCertificate", `Secret was issued for "shop". If this message is not transient, you might have two conflicting Certificates pointing to the same secret.`},
		{"another algorithm", spec(func(c *cmapi.Certificate) { c.Spec.PrivateKey.Algorithm = "RSA" }), nil, "SecretMismatch", "Existing private key is not up to date for spec: [spec.privateKey.algorithm]"},
		{"another size", spec(func(c *cmapi.Certificate) { c.Spec.PrivateKey.Size = 384 }), nil, "SecretMismatch", "Existing private key is not up to date for spec: [spec.privateKey.size]"},
		{"a request of another key", spec(func(*cmapi.Certificate) {}), &workload.Current{Key: [32]byte{1}}, "SecretMismatch", "Secret contains a private key that does not match the current CertificateRequest"},
		{"a request that is none", spec(func(*cmapi.Certificate) {}), &workload.Current{Unreadable: "x"}, "InvalidCertificateRequest", "Failed to decode current CertificateRequest: x"},
		{"a request for something else", spec(func(*cmapi.Certificate) {}), &workload.Current{Key: workload.KeyID(sharedKey.Public()), Differences: []string{"spec.uris", "spec.dnsNames"}}, "RequestChanged", "Fields on existing CertificateRequest resource not up to date: [spec.uris spec.dnsNames]"},
		{"names beyond the certificate's", spec(func(c *cmapi.Certificate) { c.Spec.DNSNames = append(c.Spec.DNSNames, "b") }), nil, "SecretMismatch", "Issuing certificate as Existing issued Secret is not up to date for spec: [spec.dnsNames]"},
		{"all kinds of names differ", spec(func(c *cmapi.Certificate) {
			c.Spec.CommonName, c.Spec.IPAddresses, c.Spec.URIs, c.Spec.EmailAddresses = "b", []string{"10.0.0.1"}, []string{"urn:a"}, []string{"a@b.c"}
		}), nil, "SecretMismatch", "Issuing certificate as Existing issued Secret is not up to date for spec: [spec.commonName spec.ipAddresses spec.uris spec.emailAddresses]"},
		{"the common name moved to the DNS names", spec(func(c *cmapi.Certificate) {
			c.Spec.CommonName, c.Spec.DNSNames = "", []string{"shop", "shop.example.com"}
		}), nil, "", ""},

		{"a wrong base label", secret(func(s *corev1.Secret) { s.Labels["controller.cert-manager.io/fao"] = "no" }), nil, "SecretManagedMetadataMismatch", `wrong base label controller.cert-manager.io/fao value "no", expected "true"`},
		{"an annotation that says what the certificate does not", secret(func(s *corev1.Secret) { s.Annotations[cmapi.AltNamesAnnotationKey] = "evil" }), nil, "SecretTemplateMismatch", "Secret metadata evil does not match certificate metadata shop.example.com"},
		{"managed fields that do not parse", secret(func(s *corev1.Secret) { s.ManagedFields[0].FieldsV1 = metav1.NewFieldsV1("[") }), nil, "ManagedFieldsParseError", "failed to decode managed fields on Secret: "},
		{"a base label that is not owned", owning(t, func(s *corev1.Secret) { delete(s.Labels, "controller.cert-manager.io/fao") }), nil, "SecretManagedMetadataMismatch", "Secret is missing these Managed Labels: [controller.cert-manager.io/fao]"},
		{"a label of cert-manager.io too many", owning(t, func(s *corev1.Secret) { s.Labels["cert-manager.io/x"] = "y" }), nil, "SecretManagedMetadataMismatch", "Secret has these extra Labels: [cert-manager.io/x]"},
		{"annotations that are not owned", owning(t, func(s *corev1.Secret) { delete(s.Annotations, cmapi.AltNamesAnnotationKey) }), nil, "SecretManagedMetadataMismatch", "Secret is missing these Managed Annotations: [cert-manager.io/alt-names]"},
		{"an annotation of cert-manager.io too many", owning(t, func(s *corev1.Secret) { s.Annotations["cert-manager.io/x"] = "y" }), nil, "SecretManagedMetadataMismatch", "Secret has these extra Annotations: [cert-manager.io/x]"},
		{"another value of the template's annotation", secret(func(s *corev1.Secret) { s.Annotations["team"] = "b" }), nil, "SecretTemplateMismatch", "Certificate's SecretTemplate Annotations missing or incorrect value on Secret"},
		{"another value of the template's label", secret(func(s *corev1.Secret) { s.Labels["app"] = "b" }), nil, "SecretTemplateMismatch", "Certificate's SecretTemplate Labels missing or incorrect value on Secret"},
		{"a label that the template has since", spec(func(c *cmapi.Certificate) { c.Spec.SecretTemplate.Labels["new"] = "y" }), nil, "SecretTemplateMismatch", "Secret is missing these Template Labels: [new]"},
		{"a template that is gone", spec(func(c *cmapi.Certificate) { c.Spec.SecretTemplate = nil }), nil, "SecretTemplateMismatch", "Secret has these extra Labels: [app]"},
		{"an annotation that the template no longer has", spec(func(c *cmapi.Certificate) { c.Spec.SecretTemplate.Annotations = nil }), nil, "SecretTemplateMismatch", "Secret has these extra Annotations: [team]"},
		{"somebody else's label", secret(func(s *corev1.Secret) { s.Labels["their"] = "y" }), nil, "", ""},
		{"a combined PEM that is not of this key", secret(func(s *corev1.Secret) { s.Data["tls-combined.pem"] = []byte("x") }), nil, "AdditionalOutputFormatsMismatch", "Certificate's AdditionalOutputFormats doesn't match Secret Data"},
		{"no DER", secret(func(s *corev1.Secret) { delete(s.Data, "key.der") }), nil, "AdditionalOutputFormatsMismatch", "Certificate's AdditionalOutputFormats doesn't match Secret Data"},
		{"a format that is no longer wished", spec(func(c *cmapi.Certificate) { c.Spec.AdditionalOutputFormats = c.Spec.AdditionalOutputFormats[:1] }), nil, "AdditionalOutputFormatsMismatch", "Certificate's AdditionalOutputFormats doesn't match Secret ManagedFields"},
		{"another owner", spec(func(c *cmapi.Certificate) { c.UID = "other" }), nil, "SecretOwnerRefMismatch", "unexpected Secret Owner Reference value on Secret --enable-certificate-owner-ref=true"},
		{"an owner changed by hand", secret(func(s *corev1.Secret) { s.OwnerReferences[0].Controller = nil }), nil, "SecretOwnerRefMismatch", "unexpected Secret Owner Reference value on Secret --enable-certificate-owner-ref=true"},
		{"an owner that we do not own", secret(func(s *corev1.Secret) {
			refs := s.OwnerReferences
			s.OwnerReferences = nil
			own(t, s)
			s.OwnerReferences = refs
		}), nil, "SecretOwnerRefMismatch", "unexpected managed Secret Owner Reference field on Secret --enable-certificate-owner-ref=true"},
		{"keystores that are no longer wished", spec(func(c *cmapi.Certificate) { c.Spec.Keystores = nil }), nil, "SecretMismatch", "Keystore is not defined"},
		{"no JKS", secret(func(s *corev1.Secret) { delete(s.Data, "keystore.jks") }), nil, "SecretMismatch", "JKS Keystore key does not contain data"},
		{"no truststore", secret(func(s *corev1.Secret) { delete(s.Data, "truststore.p12") }), nil, "SecretMismatch", "PKCS12 Keystore key does not contain data"},
		{"no truststore, and no ca.crt", secret(func(s *corev1.Secret) { delete(s.Data, "truststore.p12"); delete(s.Data, "ca.crt") }), nil, "", ""},
		{"JKS that is turned off", spec(func(c *cmapi.Certificate) { c.Spec.Keystores.JKS.Create = false }), nil, "SecretMismatch", "JKS Keystore create disabled"},
		{"PKCS#12 that is taken away", spec(func(c *cmapi.Certificate) { c.Spec.Keystores.PKCS12 = nil }), nil, "SecretMismatch", "PKCS12 Keystore not defined"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, s := base(), good.DeepCopy()
			tt.change(c, s)
			facts := workload.FactsOf(s)
			p := workload.ContentProblem(c, &facts, tt.current)
			if p == nil {
				p = workload.AppearanceProblem(c, &facts, true)
			}
			switch {
			case p == nil && tt.reason != "":
				t.Errorf("no problem, want %s: %s", tt.reason, tt.message)
			case p != nil && (p.Reason != tt.reason || !strings.HasPrefix(p.Message, tt.message) || !strings.HasSuffix(tt.message, " ") && p.Message != tt.message):
				t.Errorf("%s: %s\nwant %s: %s", p.Reason, p.Message, tt.reason, tt.message)
			}
		})
	}
	absent := workload.FactsOf(nil)
	if p := workload.ContentProblem(base(), &absent, nil); p == nil || p.Reason != "DoesNotExist" || p.Message != "Issuing certificate as Secret does not exist" {
		t.Errorf("no Secret: %v", p)
	}
	if p := workload.AppearanceProblem(base(), &absent, true); p == nil || p.Reason != "DoesNotExist" {
		t.Errorf("the appearance of no Secret: %v", p)
	}
	facts := workload.FactsOf(good)
	if p := workload.AppearanceProblem(base(), &facts, false); p == nil || p.Message != "unexpected managed Secret Owner Reference field on Secret --enable-certificate-owner-ref=false" {
		t.Errorf("an owner that is not wished: %v", p)
	}
	if p := workload.ExpiredProblem(&facts, facts.NotAfter); p != nil {
		t.Errorf("at its last moment: %v", p)
	}
	if p := workload.ExpiredProblem(&facts, facts.NotAfter.Add(time.Second)); p == nil || p.Message != "Certificate expired on "+facts.NotAfter.Format(time.RFC1123) {
		t.Errorf("after it: %v", p)
	}
	if told := fmt.Sprintf("%+v", facts); strings.Contains(told, "PRIVATE") {
		t.Error("the facts hold a key")
	}
}

// owning changes a Secret, and then makes the field manager own what is there.
func owning(t *testing.T, f func(*corev1.Secret)) func(*cmapi.Certificate, *corev1.Secret) {
	return func(_ *cmapi.Certificate, s *corev1.Secret) { f(s); own(t, s) }
}

func TestTheSecretOfACertificate(t *testing.T) {
	c := certificateOf(&cmapi.CertificateSpec{
		SecretName: "tls", DNSNames: []string{"a", "b,c"}, IPAddresses: []string{"10.0.0.1"}, URIs: []string{"urn:x"}, IssuerRef: cmmeta.IssuerReference{Name: "ca"},
		Subject: &cmapi.X509Subject{Organizations: []string{"A", `B "C"`}}, PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
	})
	content := issueFor(t, c, newAuthority(t, "ca"))
	config, err := workload.SecretOf(c, content, workload.Passwords{}, "Opaque", true)
	if err != nil {
		t.Fatal(err)
	}
	s := applied(t, config)
	wanted := map[string]string{ // as cert-manager v1.21.2 writes them
		"cert-manager.io/common-name": "", "cert-manager.io/alt-names": `a,"b,c"`, "cert-manager.io/ip-sans": "10.0.0.1", "cert-manager.io/uri-sans": "urn:x",
		"cert-manager.io/subject-organizations": `A,"B ""C"""`, "cert-manager.io/certificate-name": "shop",
		"cert-manager.io/issuer-name": "ca", "cert-manager.io/issuer-kind": "", "cert-manager.io/issuer-group": "",
	}
	if !maps.Equal(s.Annotations, wanted) || !maps.Equal(s.Labels, map[string]string{"controller.cert-manager.io/fao": "true"}) {
		t.Errorf("annotations %v, labels %v", s.Annotations, s.Labels)
	}
	if s.Type != "Opaque" || len(s.Data) != 3 || len(s.OwnerReferences) != 1 || s.OwnerReferences[0].UID != c.UID || !*s.OwnerReferences[0].Controller {
		t.Errorf("type %s, %d keys, owners %v", s.Type, len(s.Data), s.OwnerReferences)
	}

	password := "x"
	for _, tt := range []struct {
		name      string
		change    func(*cmapi.Certificate)
		passwords workload.Passwords
		want      string
	}{
		{"an annotation of ours in the template", func(c *cmapi.Certificate) {
			c.Spec.SecretTemplate = &cmapi.CertificateSecretTemplate{Annotations: map[string]string{cmapi.CertificateNameKey: "other"}}
		}, workload.Passwords{}, "set by the controller alone"},
		{"a format that there is not", func(c *cmapi.Certificate) {
			c.Spec.AdditionalOutputFormats = []cmapi.CertificateAdditionalOutputFormat{{Type: "PFX"}}
		}, workload.Passwords{}, `spec.additionalOutputFormats[0].type: "PFX"`},
		{"a keystore without a password", func(c *cmapi.Certificate) {
			c.Spec.Keystores = &cmapi.CertificateKeystores{JKS: &cmapi.JKSKeystore{Create: true}}
		}, workload.Passwords{}, "spec.keystores.jks: needs passwordSecretRef or password"},
		{"a password whose Secret is not there, though one is in the spec too", func(c *cmapi.Certificate) {
			ref := cmmeta.SecretKeySelector{LocalObjectReference: cmmeta.LocalObjectReference{Name: "pw"}, Key: "p"}
			c.Spec.Keystores = &cmapi.CertificateKeystores{PKCS12: &cmapi.PKCS12Keystore{Create: true, PasswordSecretRef: ref, Password: &password}}
		}, workload.Passwords{JKS: []byte("x")}, `spec.keystores.pkcs12.passwordSecretRef: Secret "pw" has no "p"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := c.DeepCopy()
			tt.change(c)
			if _, err := workload.SecretOf(c, content, tt.passwords, "", false); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestFactsAreSmall(t *testing.T) {
	c := certificateOf(&cmapi.CertificateSpec{SecretName: "tls", DNSNames: []string{"a", "b.example.com"}, IssuerRef: cmmeta.IssuerReference{Name: "ca"},
		PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm}})
	config, err := workload.SecretOf(c, issueFor(t, c, newAuthority(t, "ca")), workload.Passwords{}, "", true)
	if err != nil {
		t.Fatal(err)
	}
	s := applied(t, config)
	const n = 2000
	kept := make([]workload.SecretFacts, 0, n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range n {
		copied := s.DeepCopy()
		kept = append(kept, workload.FactsOf(copied))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int(after.HeapAlloc)-int(before.HeapAlloc))/n + int(unsafe.Sizeof(kept[0])); each > 600 {
		t.Errorf("the facts on a Secret take %d bytes", each)
	} else {
		t.Logf("%d bytes each", each)
	}
	runtime.KeepAlive(kept)
}

func BenchmarkFactsOf(b *testing.B) {
	for _, algorithm := range []cmapi.PrivateKeyAlgorithm{cmapi.ECDSAKeyAlgorithm, cmapi.RSAKeyAlgorithm} {
		c := certificateOf(&cmapi.CertificateSpec{SecretName: "tls", DNSNames: []string{"a"}, IssuerRef: cmmeta.IssuerReference{Name: "ca"},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm}})
		config, err := workload.SecretOf(c, issueFor(b, c, newAuthority(b, "ca")), workload.Passwords{}, "", true)
		if err != nil {
			b.Fatal(err)
		}
		s := applied(b, config)
		if algorithm == cmapi.RSAKeyAlgorithm {
			key, _ := workload.NewKey(&cmapi.CertificateSpec{})
			s.Data["tls.key"], _ = workload.EncodeKey(key, &cmapi.CertificateSpec{})
		}
		b.Run(string(algorithm), func(b *testing.B) {
			for b.Loop() {
				workload.FactsOf(s)
			}
		})
	}
}
