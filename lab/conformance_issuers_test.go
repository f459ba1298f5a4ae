//go:build linux

package lab_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/cert-manager/cert-manager/pkg/util/pki"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

// exampleRequest is what upstream's rows of issuers/ca and issuers/selfsigned ask for.
func exampleRequest() *x509.CertificateRequest {
	r := &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "example"}, DNSNames: []string{"dnsName1.co", "dnsName2.ninja"}, IPAddresses: []net.IP{net.IPv4(8, 8, 8, 8), net.IPv4(1, 1, 1, 1)},
	}
	for _, host := range []string{"foo.foo.example.net", "foo.bar.example.net"} {
		r.URIs = append(r.URIs, &url.URL{Scheme: "spiffe", Host: host})
	}
	return r
}

// ask makes a CertificateRequest.
func (c *conformance) ask(t *testing.T, name string, ref cmmeta.IssuerReference, request []byte, change func(*cmapi.CertificateRequest)) {
	t.Helper()
	r := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: cmapi.CertificateRequestSpec{Request: request, IssuerRef: ref}}
	if change != nil {
		change(r)
	}
	c.create(t, "certificaterequests", r)
}

// answered waits for the reason of a request's condition Ready.
func (c *conformance) answered(t *testing.T, name, reason string) *cmapi.CertificateRequest {
	t.Helper()
	return c.in(t, "default", name, cmapi.CertificateRequestConditionReady, reason)
}

// event waits for an Event on an object.
func (c *conformance) tells(t *testing.T, namespace, name, reason, says string) {
	t.Helper()
	eventually(t, fmt.Sprintf("an Event %s on %s says %q", reason, name, says), func(ctx context.Context) error {
		all, err := c.client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name + ",reason=" + reason})
		if err != nil {
			return err
		}
		for _, e := range all.Items {
			if strings.Contains(e.Message, says) {
				return nil
			}
		}
		return fmt.Errorf("there are %d others", len(all.Items))
	})
}

// issues has a Certificate issued and verified by the root alone.
func (c *conformance) issues(name, issuer string, by *x509.Certificate, life time.Duration, change func(*cmapi.CertificateSpec)) func(*testing.T) {
	return func(t *testing.T) {
		o := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: cmapi.CertificateSpec{
			SecretName: name, CommonName: "test.domain.com", IssuerRef: cmmeta.IssuerReference{Name: issuer}, PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: "ECDSA"},
			Subject: &cmapi.X509Subject{Organizations: []string{"test-org"}},
		}}
		if change != nil {
			change(&o.Spec)
		}
		c.create(t, "certificates", o)
		_, secret := c.doneIssuing(t, name, 1)
		list := chain(t, secret)
		if by == nil {
			by = list[0]
		}
		c.verified(t, list, by, life)
	}
}

// verified wants a chain that the holder of one root alone verifies, and a life.
func (c *conformance) verified(t *testing.T, list []*x509.Certificate, root *x509.Certificate, life time.Duration) {
	t.Helper()
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, one := range list[1:] {
		between.AddCert(one)
	}
	if _, err := list[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Error(err)
	}
	if got := list[0].NotAfter.Sub(list[0].NotBefore); got != life {
		t.Errorf("it lives for %s, want %s", got, life)
	}
}

// answers has a CertificateRequest answered.
func (c *conformance) answers(name, issuer string, key crypto.Signer, self bool, life *metav1.Duration) func(*testing.T) {
	return func(t *testing.T) {
		c.ask(t, name, cmmeta.IssuerReference{Name: issuer}, requestOf(t, key, exampleRequest()), func(r *cmapi.CertificateRequest) {
			r.Spec.Duration = life
			if self {
				c.secret(t, "default", name, map[string][]byte{"tls.key": encodedKey(t, key)})
				r.Annotations = map[string]string{cmapi.CertificateRequestPrivateKeyAnnotationKey: name}
			}
		})
		r := c.answered(t, name, "Issued")
		list, err := trust.ParseCertificates(r.Status.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		root, want := c.root, cmapi.DefaultCertificateDuration
		if self {
			root = list[0]
		}
		if life != nil {
			want = life.Duration
		}
		c.verified(t, list, root, want)
		if fits, err := pki.PublicKeysEqual(list[0].PublicKey, key.Public()); err != nil || !fits {
			t.Error("it is of another key", err)
		}
	}
}

// signs has a CertificateSigningRequest signed.
func (c *conformance) signs(name string, key crypto.Signer, usages []certificatesv1.KeyUsage, annotations map[string]string, life time.Duration) func(*testing.T) {
	return func(t *testing.T) {
		c.approved(t, name, "issuers.cert-manager.io/default.deed-ca", requestOf(t, key, exampleRequest()), usages, annotations, nil)
		list := c.signed(t, name)
		c.verified(t, list, c.root, life)
		if list[0].IsCA != (annotations["experimental.cert-manager.io/request-is-ca"] == "true") {
			t.Errorf("CA:%t", list[0].IsCA)
		}
	}
}

func (c *conformance) testIssuers(t *testing.T) {
	for name, secret := range map[string]string{"deed-ca": "ca-root", "deed-one": "ca-one", "deed-two": "ca-two"} {
		c.issuer(t, name, cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: secret}})
	}
	self := c.issuer(t, "deed-self", cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}})
	clusterSelf := c.clusterIssuer(t, "deed-self", cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}})
	keys := newLabKeys(t)
	const day = 24 * time.Hour
	duration := func(d time.Duration) func(*cmapi.CertificateSpec) {
		return func(s *cmapi.CertificateSpec) { s.Duration = &metav1.Duration{Duration: d} }
	}
	serving := []certificatesv1.KeyUsage{"key encipherment", "digital signature", "server auth"}
	lasting := map[string]string{"experimental.cert-manager.io/request-duration": "2160h"}
	deeds := []deedOf{
		{"issuers/ca", "CA Issuer should generate a signing keypair", "", func(t *testing.T) { c.issuerBecomes(t, "deed-ca", cmmeta.ConditionTrue, nil) }, ""},
		{"issuers/ca", "CA ClusterIssuer should validate a signing keypair", "", func(t *testing.T) {
			ref := c.clusterIssuer(t, "deed-ca", cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca-root"}})
			c.issues("deed-cluster", ref.Name, c.root, 90*day, func(s *cmapi.CertificateSpec) { s.IssuerRef = ref })(t)
		}, ""},
		{"issuers/ca", "CA Certificate, root: should generate a signed keypair", "", c.issues("deed-root", "deed-ca", c.root, 90*day, nil), ""},
		{"issuers/ca", "CA Certificate, root: should be able to obtain an ECDSA key from a RSA backed issuer", "", c.issues("deed-ecdsa", "deed-ca", c.root, 90*day, func(s *cmapi.CertificateSpec) { s.PrivateKey.Size = 521 }), ""},
		{"issuers/ca", "CA Certificate, root: should generate a signed keypair valid for 35 days", "", c.issues("deed-35", "deed-ca", c.root, 35*day, duration(35*day)), ""},
		{"issuers/ca", "CA Certificate, root: should generate a signed keypair valid for the default duration (90 days)", "", c.issues("deed-90", "deed-ca", c.root, 90*day, nil), ""},
		{"issuers/ca", "CA Certificate, an issuer: should generate a signed keypair", "", c.issues("deed-one", "deed-one", c.root, 90*day, nil), ""},
		{"issuers/ca", "CA Certificate, a second level issuer: should generate a signed keypair", "", c.issues("deed-two", "deed-two", c.root, 90*day, nil), ""},
		{"issuers/ca", "CA CertificateRequest: should generate a valid certificate from CSR", "", c.answers("ask-rsa", "deed-ca", keys[x509.RSA], false, &metav1.Duration{Duration: 90 * day}), ""},
		{"issuers/ca", "CA CertificateRequest: should be able to obtain an ECDSA key from a RSA backed issuer", "", c.answers("ask-ecdsa", "deed-ca", keys[x509.ECDSA], false, &metav1.Duration{Duration: 90 * day}), ""},
		{"issuers/ca", "CA CertificateRequest: should generate a signed certificate valid for 35 days", "", c.answers("ask-35", "deed-ca", keys[x509.RSA], false, &metav1.Duration{Duration: 35 * day}), ""},
		{"issuers/ca", "CA CertificateRequest: should generate a signed certificate valid for the default duration (90 days)", "", c.answers("ask-90", "deed-ca", keys[x509.RSA], false, nil), ""},
		{"issuers/ca", "CA CertificateSigningRequest: rsa with 2160h duration", "", c.signs("sign-rsa", keys[x509.RSA], serving, lasting, 90*day), ""},
		{"issuers/ca", "CA CertificateSigningRequest: ecdsa with 2160h duration", "", c.signs("sign-ecdsa", keys[x509.ECDSA], serving, lasting, 90*day), ""},
		{"issuers/ca", "CA CertificateSigningRequest: rsa with default duration should be 90 days duration", "", c.signs("sign-90", keys[x509.RSA], serving, nil, 90*day), ""},
		{"issuers/ca", "CA CertificateSigningRequest: ecdsa with default duration and custom usages and CA", "", c.signs("sign-ca", keys[x509.ECDSA], append(serving, "crl sign", "cert sign", "ocsp signing"),
			map[string]string{"experimental.cert-manager.io/request-is-ca": "true"}, 90*day), ""},

		{"issuers/selfsigned", "Certificate: should generate a signed keypair", "", c.issues("self-plain", "deed-self", nil, 90*day, nil), ""},
		{"issuers/selfsigned", "Certificate: should generate a signed keypair valid for 35 days", "", c.issues("self-35", "deed-self", nil, 35*day, duration(35*day)), ""},
		{"issuers/selfsigned", "Certificate: should generate a signed keypair valid for the default duration (90 days)", "", c.issues("self-90", "deed-self", nil, 90*day, nil), ""},
		{"issuers/selfsigned", "Certificate: should correctly encode a certificate's private key based on the key encoding", "", func(t *testing.T) {
			c.issues("self-pkcs8", "deed-self", nil, 90*day, func(s *cmapi.CertificateSpec) { s.PrivateKey.Encoding = "PKCS8" })(t)
			if _, secret := c.doneIssuing(t, "self-pkcs8", 1); !strings.HasPrefix(string(secret.Data["tls.key"]), "-----BEGIN PRIVATE KEY-----") {
				t.Error("the key is not of PKCS#8")
			}
		}, ""},
		{"issuers/selfsigned", "CertificateRequest: should generate a valid certificate from CSR backed by a RSA key", "", c.answers("self-rsa", "deed-self", keys[x509.RSA], true, nil), ""},
		{"issuers/selfsigned", "CertificateRequest: should be able to obtain an ECDSA Certificate backed by a ECSDA key", "", c.answers("self-ecdsa", "deed-self", keys[x509.ECDSA], true, nil), ""},
		{"issuers/selfsigned", "CertificateRequest: should generate a signed certificate valid for 35 days", "", c.answers("selfask-35", "deed-self", keys[x509.RSA], true, &metav1.Duration{Duration: 35 * day}), ""},
		{"issuers/selfsigned", "CertificateRequest: should generate a signed certificate valid for the default duration (90 days)", "", c.answers("selfask-90", "deed-self", keys[x509.RSA], true, nil), ""},
	}
	for kind, ref := range map[string]cmmeta.IssuerReference{"Issuer": self, "ClusterIssuer": clusterSelf} {
		signer, namespace := "issuers.cert-manager.io/default.deed-self", "default"
		if kind == "ClusterIssuer" {
			signer, namespace = "clusterissuers.cert-manager.io/deed-self", "kube-system"
		}
		id := strings.ToLower(kind)
		deeds = append(deeds,
			deedOf{"certificaterequests/selfsigned", kind + ": the private key Secret is created after the request is created should still be signed", "", func(t *testing.T) {
				c.lateKey(t, "late-"+id, "default", keys[x509.ECDSA], false, ref, "")
			}, ""},
			deedOf{"certificaterequests/selfsigned", kind + ": private key Secret is updated with a valid private key after the request is created should still be signed", "", func(t *testing.T) {
				c.lateKey(t, "later-"+id, "default", keys[x509.ECDSA], true, ref, "")
			}, ""},
			deedOf{"certificatesigningrequests/selfsigned", kind + ": the private key Secret is created after the request is created should still be signed", "", func(t *testing.T) {
				c.lateKey(t, "latecsr-"+id, namespace, keys[x509.ECDSA], false, ref, signer)
			}, ""},
			deedOf{"certificatesigningrequests/selfsigned", kind + ": private key Secret is updated with a valid private key after the request is created should still be signed", "", func(t *testing.T) {
				c.lateKey(t, "latercsr-"+id, namespace, keys[x509.ECDSA], true, ref, signer)
			}, ""})
	}
	deeds = append(deeds, c.acmeDeeds(keys)...)
	runDeeds(t, "Issuers and requests", deeds)
}

// lateKey has a request to a SelfSigned issuer whose key comes later: in a Secret that is
// not there, or is empty.
func (c *conformance) lateKey(t *testing.T, name, namespace string, key crypto.Signer, empty bool, ref cmmeta.IssuerReference, signer string) {
	t.Helper()
	secrets := c.client.CoreV1().Secrets(namespace)
	if empty {
		c.secret(t, namespace, name, nil)
	}
	request := requestOf(t, key, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "selfsigned-test"}})
	if signer != "" {
		c.approved(t, name, signer, request, nil, map[string]string{keyAnnotation: name}, nil)
		c.tells(t, "default", name, map[bool]string{false: "SecretNotFound", true: "ErrorParsingKey"}[empty], name)
	} else {
		c.ask(t, name, ref, request, func(r *cmapi.CertificateRequest) {
			r.Annotations = map[string]string{cmapi.CertificateRequestPrivateKeyAnnotationKey: name}
		})
		c.answered(t, name, "Pending")
	}
	if empty {
		s, err := secrets.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.Data = map[string][]byte{"tls.key": encodedKey(t, key)}
		if _, err := secrets.Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	} else {
		c.secret(t, namespace, name, map[string][]byte{"tls.key": encodedKey(t, key)})
	}
	if signer != "" {
		c.signed(t, name)
		return
	}
	if r := c.answered(t, name, "Issued"); len(r.Status.Certificate) == 0 {
		t.Error("there is no certificate")
	}
}

func (c *conformance) acmeDeeds(keys labKeys) []deedOf {
	config := func(account string, change func(*cmacme.ACMEIssuer)) cmapi.IssuerConfig {
		i := c.acme.issuer(account, c.acme.solvers()["HTTP-01"], false)
		if change != nil {
			change(i)
		}
		return cmapi.IssuerConfig{ACME: i}
	}
	registered := func(i *cmapi.Issuer) bool { return i.Status.ACME != nil && i.Status.ACME.URI != "" }
	account := func(t *testing.T, name string) {
		t.Helper()
		s, err := c.client.CoreV1().Secrets("default").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil || len(s.Data) != 1 {
			t.Errorf("the account's Secret: %v", err)
		}
	}
	request := func(name string, key x509.PublicKeyAlgorithm, hosts ...string) func(*testing.T) {
		return func(t *testing.T) {
			c.ask(t, name, cmmeta.IssuerReference{Name: "http-01-issuer"}, requestOf(t, keys[key], &x509.CertificateRequest{DNSNames: hosts}), nil)
			list, err := trust.ParseCertificates(c.answered(t, name, "Issued").Status.Certificate)
			if err != nil || len(list) < 2 || list[0].VerifyHostname(hosts[0]) != nil {
				t.Errorf("%d certificates: %v", len(list), err)
			}
		}
	}
	const one, asked, table = "issuers/acme", "issuers/acme", "the table of certificates"
	const noPods = "not: no pods are started"
	return []deedOf{
		{one, "ACME Issuer should register ACME account", "", func(t *testing.T) {
			c.issuer(t, "acme-new", config("acme-new", nil))
			c.issuerBecomes(t, "acme-new", cmmeta.ConditionTrue, registered)
			account(t, "acme-new")
		}, ""},
		{one, "ACME Issuer should recover a lost ACME account URI", "", func(t *testing.T) {
			c.issuer(t, "acme-lost", config("acme-lost", nil))
			before := c.issuerBecomes(t, "acme-lost", cmmeta.ConditionTrue, registered).Status.ACME.URI
			if err := c.cm.Delete().Namespace("default").Resource("issuers").Name("acme-lost").Do(t.Context()).Error(); err != nil {
				t.Fatal(err)
			}
			c.issuer(t, "acme-lost", config("acme-lost", nil))
			if after := c.issuerBecomes(t, "acme-lost", cmmeta.ConditionTrue, registered).Status.ACME.URI; after != before {
				t.Errorf("the account is %s, and was %s", after, before)
			}
		}, ""},
		{one, "ACME Issuer should fail to register an ACME account", "", func(t *testing.T) {
			c.issuer(t, "acme-wrong", config("acme-wrong", func(i *cmacme.ACMEIssuer) { i.Server = "http://not-a-real-acme-url.com" }))
			c.issuerBecomes(t, "acme-wrong", cmmeta.ConditionFalse, nil)
		}, ""},
		{one, "ACME Issuer should handle updates to the email field", "", func(t *testing.T) {
			c.issuer(t, "acme-mail", config("acme-mail", nil))
			o := c.issuerBecomes(t, "acme-mail", cmmeta.ConditionTrue, func(i *cmapi.Issuer) bool {
				return registered(i) && i.Status.ACME.LastRegisteredEmail == "lab@example.org"
			})
			o.APIVersion, o.Kind, o.Spec.ACME.Email = "cert-manager.io/v1", "Issuer", "other@example.org"
			if err := c.cm.Put().Namespace("default").Resource("issuers").Name("acme-mail").Body(o).Do(t.Context()).Error(); err != nil {
				t.Fatal(err)
			}
			c.issuerBecomes(t, "acme-mail", cmmeta.ConditionTrue, func(i *cmapi.Issuer) bool {
				return registered(i) && i.Status.ACME.LastRegisteredEmail == "other@example.org"
			})
		}, ""},
		{one, "ACME account with External Account Binding, with and without the legacy keyAlgorithm", "", func(t *testing.T) {
			bind := func(algorithm cmacme.HMACKeyAlgorithm) func(*cmacme.ACMEIssuer) {
				return func(i *cmacme.ACMEIssuer) {
					i.ExternalAccountBinding = c.acme.issuer("x", cmacme.ACMEChallengeSolver{}, true).ExternalAccountBinding
					i.ExternalAccountBinding.KeyAlgorithm = algorithm //nolint:staticcheck // it is what is tested
				}
			}
			c.issuer(t, "acme-bound", config("acme-bound", bind("HS256")))
			o := c.issuerBecomes(t, "acme-bound", cmmeta.ConditionTrue, registered)
			o.APIVersion, o.Kind = "cert-manager.io/v1", "Issuer"
			bind("")(o.Spec.ACME)
			if err := c.cm.Put().Namespace("default").Resource("issuers").Name("acme-bound").Body(o).Do(t.Context()).Error(); err != nil {
				t.Fatal(err)
			}
			c.issuerBecomes(t, "acme-bound", cmmeta.ConditionTrue, registered)
		}, ""},
		{one, "ACME Certificate (HTTP01) should obtain a signed certificate with a single CN from the ACME server", "", nil, table},
		{one, "ACME Certificate (HTTP01) should obtain a signed certificate for a long domain using http01 validation", "", nil, table},
		{one, "ACME Certificate (HTTP01) should obtain a signed certificate with a CN and single subdomain as dns name from the ACME server", "", func(t *testing.T) {
			o := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "acme-cn"}, Spec: cmapi.CertificateSpec{
				SecretName: "acme-cn", CommonName: "cn.lab.test", DNSNames: []string{"cn.lab.test", "sub.cn.lab.test"}, IssuerRef: cmmeta.IssuerReference{Name: "http-01-issuer"},
			}}
			c.create(t, "certificates", o)
			_, secret := c.doneIssuing(t, "acme-cn", 1)
			if err := chain(t, secret)[0].VerifyHostname("sub.cn.lab.test"); err != nil {
				t.Error(err)
			}
		}, ""},
		{one, "ACME Certificate (HTTP01) should allow updating an existing certificate with a new dns name", "", nil, table},
		{one, "ACME Certificate (HTTP01) should fail to obtain a certificate for an invalid ACME dns name", "", func(t *testing.T) {
			o := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "acme-nowhere"}, Spec: cmapi.CertificateSpec{
				SecretName: "acme-nowhere", DNSNames: []string{"nowhere.lab.test"}, IssuerRef: cmmeta.IssuerReference{Name: "http-01-issuer"}, PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: "ECDSA"},
			}}
			c.create(t, "certificates", o)
			c.fails(t, "acme-nowhere", "Failed", "nowhere.lab.test")
		}, ""},
		{one, "ACME Certificate (HTTP01) with a single CN when putting an annotation on an ingress resource", "", nil, table},
		{one, "ACME Certificate (HTTP01) when redirected", "not: no ingress controller here", nil, "–"},
		{one, "ACME Certificate (HTTP01) should automatically recreate challenge pod", noPods, nil, "internal/acmeissuer.TestEachWriteMayBeTheLastOfItsProcess"},
		{asked, "ACME CertificateRequest (HTTP01) should obtain a signed certificate with a single CN from the ACME server", "", request("acme-ask", x509.RSA, "ask.lab.test"), ""},
		{asked, "ACME CertificateRequest (HTTP01) should obtain a signed ecdsa certificate with a single CN from the ACME server", "", request("acme-ask-ecdsa", x509.ECDSA, "askec.lab.test"), ""},
		{asked, "ACME CertificateRequest (HTTP01) should obtain a signed certificate for a long domain using http01 validation", "", request("acme-ask-long", x509.RSA, "long.lab.test", strings.Repeat("b", 63)+".long.lab.test"), ""},
		{asked, "ACME CertificateRequest (HTTP01) should obtain a signed certificate with a CN and single subdomain as dns name from the ACME server", "", request("acme-ask-sub", x509.RSA, "sub.ask.lab.test"), ""},
		{asked, "ACME CertificateRequest (HTTP01) should fail to obtain a certificate for an invalid ACME dns name", "", func(t *testing.T) {
			c.ask(t, "acme-ask-nowhere", cmmeta.IssuerReference{Name: "http-01-issuer"}, requestOf(t, keys[x509.ECDSA], &x509.CertificateRequest{DNSNames: []string{"nowhere.lab.test"}}), nil)
			r := c.answered(t, "acme-ask-nowhere", "Failed")
			if d := workload.RequestCondition(&r.Status, cmapi.CertificateRequestConditionReady); !strings.Contains(d.Message, "nowhere.lab.test") {
				t.Errorf("it says %q", d.Message)
			}
		}, ""},
		{asked, "ACME CertificateRequest (HTTP01) should automatically recreate challenge pod", noPods, nil, "internal/acmeissuer.TestEachWriteMayBeTheLastOfItsProcess"},
	}
}
