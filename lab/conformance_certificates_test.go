//go:build linux

package lab_test

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/cert-manager/cert-manager/pkg/util/pki"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The features that upstream's suites leave out where an issuer has them not
// (test/e2e/framework/helper/featureset), by the word that the page has for them.
const (
	commonName    = "names"
	literal       = "subjects"
	emailSAN      = "e-mail"
	uriSAN        = "URIs"
	otherSAN      = "other names"
	addressSAN    = "addresses"
	ownDuration   = "duration"
	ownUsages     = "usages"
	wildcardNames = "wildcards"
	issuesCA      = "authorities"
	byIngress     = "Ingress" // of the suite of HTTP-01 alone
)

// suite is one kind of issuer of test/e2e/suite/conformance/certificates.
type suite struct {
	name string // the column of the page
	lack []string
	ref  cmmeta.IssuerReference
	acme bool
	self bool
}

func (s *suite) id() string {
	return strings.ToLower(strings.NewReplacer(" ", "-", "CA", "ca").Replace(s.name) + "-" + s.ref.Kind)
}

// columns are those of the page, with what upstream's suites leave out
// (test/e2e/suite/conformance/certificates/acme/acme.go and its neighbours).
func columns() []suite {
	acme := []string{ownDuration, uriSAN, commonName, ownUsages, emailSAN, issuesCA, literal, otherSAN}
	return []suite{
		{name: "CA", lack: []string{byIngress}},
		{name: "SelfSigned", lack: []string{byIngress}, self: true},
		{name: "HTTP-01", lack: append([]string{wildcardNames}, acme...), acme: true},
		{name: "HTTP-01 by Gateway", lack: append([]string{wildcardNames, addressSAN, byIngress}, acme...), acme: true},
		{name: "DNS-01", lack: append([]string{addressSAN, byIngress}, acme...), acme: true},
	}
}

type certificateCase struct {
	name  string
	needs []string
	// change makes the wish of the case from one for a name.
	change func(o *cmapi.Certificate, host string)
	// then acts on what is ready, and the certificate of the next revision is judged.
	then  func(t *testing.T, c *conformance, o *cmapi.Certificate, s *corev1.Secret)
	check func(t *testing.T, o *cmapi.Certificate, s *corev1.Secret)
	// object is the Ingress or Gateway of which the Certificate is made, in YAML.
	object func(s *suite, name, host string) string
}

func (k *certificateCase) lacks(s *suite) string {
	for _, need := range k.needs {
		if slices.Contains(s.lack, need) {
			return need
		}
	}
	return ""
}

func certificateCases() []certificateCase {
	spec := func(change func(*cmapi.CertificateSpec, string)) func(*cmapi.Certificate, string) {
		return func(o *cmapi.Certificate, host string) { change(&o.Spec, host) }
	}
	key := func(algorithm cmapi.PrivateKeyAlgorithm, change func(*cmapi.CertificateSpec, string)) func(*cmapi.Certificate, string) {
		return spec(func(s *cmapi.CertificateSpec, host string) {
			s.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: algorithm}
			change(s, host)
		})
	}
	dns := func(s *cmapi.CertificateSpec, host string) { s.DNSNames = []string{host} }
	cn := func(s *cmapi.CertificateSpec, host string) {
		s.CommonName = "test-common-name-" + host[:min(len(host), 40)]
	}
	address := func(s *cmapi.CertificateSpec, _ string) { s.IPAddresses = []string{"127.0.0.1"} }
	uri := func(s *cmapi.CertificateSpec, _ string) {
		s.URIs = []string{"spiffe://cluster.local/ns/sandbox/sa/foo"}
	}
	both := func(list ...func(*cmapi.CertificateSpec, string)) func(*cmapi.Certificate, string) {
		return spec(func(s *cmapi.CertificateSpec, host string) {
			for _, one := range list {
				one(s, host)
			}
		})
	}
	kept := map[string][]byte{} // keys of the row on the same key, by Secret
	return []certificateCase{
		{name: "should issue a basic, defaulted certificate for a single distinct DNS Name", change: both(dns)},
		{name: "should issue a CA certificate with the CA basicConstraint set", needs: []string{issuesCA}, change: spec(func(s *cmapi.CertificateSpec, host string) { dns(s, host); s.IsCA = true })},
		{name: "should issue an ECDSA, defaulted certificate for a single distinct DNS Name", change: key("ECDSA", dns)},
		{name: "should issue an Ed25519, defaulted certificate for a single distinct DNS Name", change: key("Ed25519", dns)},
		{name: "should issue a basic, defaulted certificate for a single Common Name", needs: []string{commonName}, change: both(cn)},
		{name: "should issue a certificate with a couple valid otherName SAN values set as well as an emailAddress", needs: []string{otherSAN}, change: spec(func(s *cmapi.CertificateSpec, _ string) {
			s.OtherNames = []cmapi.OtherName{{OID: "1.3.6.1.4.1.311.20.2.3", UTF8Value: "upn@domain.test"}, {OID: "1.3.6.1.4.1.311.20.2.3", UTF8Value: "upn@domain2.test"}}
			s.EmailAddresses, s.CommonName = []string{"email@domain.test"}, "someCN"
		}), check: func(t *testing.T, o *cmapi.Certificate, s *corev1.Secret) {
			want, err := pki.GenerateCSR(o, pki.WithOtherNames(true)) // upstream's own encoder
			if err != nil {
				t.Fatal(err)
			}
			same := 0
			for _, e := range chain(t, s)[0].Extensions {
				for _, w := range want.ExtraExtensions {
					if e.Id.Equal(w.Id) && e.Id.String() == "2.5.29.17" && bytes.Equal(e.Value, w.Value) {
						same++
					}
				}
			}
			if same != 1 {
				t.Error("the alternative names are not upstream's")
			}
		}},
		{name: "should issue a basic, defaulted certificate for a single distinct DNS Name with a literal subject", needs: []string{literal}, change: spec(func(s *cmapi.CertificateSpec, host string) {
			s.DNSNames, s.LiteralSubject = []string{"*." + host}, "CN=*."+host+",OU=FooLong,OU=Bar,OU=Baz,OU=Dept.,O=Corp."
		}), check: checkLiteral},
		{name: "should issue an ECDSA, defaulted certificate for a single Common Name", needs: []string{commonName}, change: key("ECDSA", cn)},
		{name: "should issue an Ed25519, defaulted certificate for a single Common Name", needs: []string{commonName}, change: key("Ed25519", cn)},
		{name: "should issue a certificate that defines an IP Address", needs: []string{addressSAN}, change: both(address)},
		{name: "should issue a certificate that defines a DNS Name and IP Address", needs: []string{addressSAN}, change: both(dns, address)},
		{name: "should issue a certificate that defines a Common Name and IP Address", needs: []string{commonName, addressSAN}, change: both(cn, address)},
		{name: "should issue a certificate that defines an Email Address", needs: []string{emailSAN}, change: spec(func(s *cmapi.CertificateSpec, _ string) { s.EmailAddresses = []string{"alice@example.com"} })},
		{name: "should issue a certificate that defines a Common Name and URI SAN", needs: []string{uriSAN, commonName}, change: both(cn, uri)},
		{name: "should issue a certificate that defines a 2 distinct DNS Names with one copied to the Common Name", needs: []string{commonName}, change: spec(func(s *cmapi.CertificateSpec, host string) {
			s.CommonName, s.DNSNames = host, []string{host, "other." + host}
		})},
		{name: "should issue a certificate that defines a distinct DNS Name and another distinct Common Name", needs: []string{commonName}, change: spec(func(s *cmapi.CertificateSpec, host string) {
			s.CommonName, s.DNSNames = "other."+host, []string{host}
		})},
		{name: "should issue a certificate that defines a DNS Name and sets a duration", needs: []string{ownDuration}, change: spec(func(s *cmapi.CertificateSpec, host string) {
			dns(s, host)
			s.Duration = &metav1.Duration{Duration: 896 * time.Hour}
		})},
		{name: "should issue a certificate that defines a wildcard DNS Name", needs: []string{wildcardNames}, change: spec(func(s *cmapi.CertificateSpec, host string) { s.DNSNames = []string{"*." + host} })},
		{name: "should issue a certificate that includes only a URISANs name", needs: []string{uriSAN}, change: both(uri)},
		{name: "should issue a certificate that includes arbitrary key usages", needs: []string{ownUsages}, change: spec(func(s *cmapi.CertificateSpec, host string) {
			dns(s, host)
			s.Usages = []cmapi.KeyUsage{cmapi.UsageSigning, cmapi.UsageDataEncipherment, cmapi.UsageServerAuth, cmapi.UsageClientAuth}
		})},
		{name: "should issue a certificate that defines a long domain", change: spec(func(s *cmapi.CertificateSpec, host string) {
			s.DNSNames = []string{strings.Repeat("a", 63) + "." + host}
		})},
		{name: "should issue a certificate that defines a wildcard DNS Name and its apex DNS Name", needs: []string{wildcardNames}, change: spec(func(s *cmapi.CertificateSpec, host string) {
			s.DNSNames = []string{"*." + host, host}
		})},
		{name: "should issue a certificate for a single distinct DNS Name defined by an ingress with annotations", needs: []string{byIngress}, object: func(s *suite, name, host string) string {
			return ingressOf(s, name, host, "")
		}},
		{name: "should issue a certificate defined by an ingress with certificate field annotations", needs: []string{byIngress}, object: func(s *suite, name, host string) string {
			return ingressOf(s, name, host, fmt.Sprintf(`cert-manager.io/common-name: %s, cert-manager.io/duration: 999h0m0s, cert-manager.io/renew-before: 111h0m0s, cert-manager.io/revision-history-limit: "7",
    cert-manager.io/private-key-algorithm: RSA, cert-manager.io/private-key-encoding: PKCS1, cert-manager.io/private-key-size: "4096", cert-manager.io/private-key-rotation-policy: Always`, host))
		}, check: func(t *testing.T, o *cmapi.Certificate, _ *corev1.Secret) {
			k := o.Spec.PrivateKey
			if checkTimes(t, o); *o.Spec.RevisionHistoryLimit != 7 || k.Algorithm != "RSA" || k.Encoding != "PKCS1" || k.Size != 4096 || k.RotationPolicy != "Always" {
				t.Errorf("the Certificate is %s", text(o.Spec))
			}
		}},
		{name: "Creating a Gateway with annotations for issuerRef and other Certificate fields", object: func(s *suite, name, host string) string {
			return fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: %s, namespace: default, annotations: {cert-manager.io/issuer: %s, cert-manager.io/issuer-kind: %s, cert-manager.io/issuer-group: cert-manager.io,
    cert-manager.io/common-name: %s, cert-manager.io/duration: 999h0m0s, cert-manager.io/renew-before: 111h0m0s}}
spec:
  gatewayClassName: none
  listeners:
  - {name: a, hostname: %[4]s, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: %[1]s}]}}
`, name, s.ref.Name, s.ref.Kind, host)
		}, check: func(t *testing.T, o *cmapi.Certificate, _ *corev1.Secret) { checkTimes(t, o) }},
		{name: "should issue another certificate with the same private key if the existing certificate and CertificateRequest are deleted", change: spec(func(s *cmapi.CertificateSpec, host string) {
			dns(s, host)
			s.PrivateKey = &cmapi.CertificatePrivateKey{RotationPolicy: cmapi.RotationPolicyNever}
		}), then: func(t *testing.T, c *conformance, _ *cmapi.Certificate, s *corev1.Secret) {
			kept[s.Name] = s.Data["tls.key"]
			s.Data["tls.crt"] = []byte{}
			if _, err := c.client.CoreV1().Secrets(s.Namespace).Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}, check: func(t *testing.T, _ *cmapi.Certificate, s *corev1.Secret) {
			if !bytes.Equal(kept[s.Name], s.Data["tls.key"]) {
				t.Error("the key is another")
			}
		}},
		{name: "should allow updating an existing certificate with a new DNS Name", change: both(dns), then: func(t *testing.T, c *conformance, o *cmapi.Certificate, _ *corev1.Secret) {
			c.change(t, o.Namespace, o.Name, func(o *cmapi.Certificate) { o.Spec.DNSNames = append(o.Spec.DNSNames, "more."+o.Spec.DNSNames[0]) })
		}, check: func(t *testing.T, o *cmapi.Certificate, s *corev1.Secret) {
			if err := chain(t, s)[0].VerifyHostname("more." + o.Spec.DNSNames[0]); err != nil {
				t.Error(err)
			}
		}},
	}
}

func checkTimes(t *testing.T, o *cmapi.Certificate) {
	t.Helper()
	if len(o.Spec.DNSNames) != 1 || o.Spec.CommonName != o.Spec.DNSNames[0] || o.Spec.Duration.Duration != 999*time.Hour || o.Spec.RenewBefore.Duration != 111*time.Hour {
		t.Errorf("the Certificate is %s", text(o.Spec))
	}
}

func checkLiteral(t *testing.T, o *cmapi.Certificate, s *corev1.Secret) {
	t.Helper()
	want, err := pki.UnmarshalSubjectStringToRDNSequence(o.Spec.LiteralSubject)
	if err != nil {
		t.Fatal(err)
	}
	der, err := pki.MarshalRDNSequenceToRawDERBytes(want)
	if err != nil {
		t.Fatal(err)
	}
	if got := chain(t, s)[0].RawSubject; !bytes.Equal(got, der) {
		t.Errorf("the subject is %x, want %x", got, der)
	}
}

func ingressOf(s *suite, name, host, more string) string {
	if more != "" {
		more = ", " + more
	}
	return fmt.Sprintf(`---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: %s, namespace: default, annotations: {cert-manager.io/issuer: %s, cert-manager.io/issuer-kind: %s, cert-manager.io/issuer-group: cert-manager.io%s}}
spec:
  tls: [{hosts: [%s], secretName: %[1]s}]
  rules: [{host: %[5]s, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: none, port: {number: 80}}}}]}}]
`, name, s.ref.Name, s.ref.Kind, more, host)
}

// suites makes the issuers of the columns: Issuers, and with KUBEPKI_LAB_LONG
// ClusterIssuers and such with external accounts too.
func (c *conformance) suites(t *testing.T) []suite {
	t.Helper()
	solvers := c.acme.solvers()
	for _, namespace := range []string{"default", "kube-system"} {
		c.secret(t, namespace, "external", map[string][]byte{"key": []byte(externalKey)})
	}
	var all []suite
	for _, s := range columns() {
		config := func(account string, external bool) cmapi.IssuerConfig {
			switch {
			case s.acme:
				return cmapi.IssuerConfig{ACME: c.acme.issuer(account, solvers[s.name], external)}
			case s.self:
				return cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}
			}
			return cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca-root"}}
		}
		s.ref = cmmeta.IssuerReference{Kind: "Issuer"}
		id := s.id()
		s.ref = c.issuer(t, id, config(id, false))
		all = append(all, s)
		if !long() {
			continue
		}
		for _, external := range []bool{false, true} {
			if external && !s.acme {
				continue
			}
			s.ref = cmmeta.IssuerReference{Kind: "ClusterIssuer"}
			id := fmt.Sprintf("%s-%t", s.id(), external)
			s.ref = c.clusterIssuer(t, id, config(id, external))
			s.name += map[bool]string{true: " of an external account", false: " of the cluster"}[external]
			all = append(all, s)
			s.name, _, _ = strings.Cut(s.name, " of ")
		}
	}
	return all
}

// testCertificates has the cases of test/e2e/suite/conformance/certificates. All are
// asked for at once and looked at one after the other.
func (c *conformance) testCertificates(t *testing.T) {
	cases, suites := certificateCases(), c.suites(t)
	var page []string
	for _, k := range cases {
		cells := []string{k.name}
		for _, s := range columns() {
			cell := "pass"
			if lack := k.lacks(&s); lack != "" {
				cell = "not: " + lack
			}
			cells = append(cells, cell)
		}
		page = append(page, "| "+strings.Join(cells, " | ")+" |")
	}
	checkPage(t, "Certificates", page)
	name := func(i int, s *suite) string {
		return fmt.Sprintf("case-%d-%s", i+1, strings.ToLower(strings.ReplaceAll(s.ref.Name, " ", "-")))
	}
	each := func(do func(i int, k *certificateCase, s *suite)) {
		for i := range cases {
			for j := range suites {
				if cases[i].lacks(&suites[j]) == "" {
					do(i, &cases[i], &suites[j])
				}
			}
		}
	}
	objects := ""
	each(func(i int, k *certificateCase, s *suite) {
		host := fmt.Sprintf("c%d.s%d.lab.test", i, slices.IndexFunc(suites, func(other suite) bool { return other.ref == s.ref }))
		if k.object != nil {
			objects += k.object(s, name(i, s), host)
			return
		}
		o := &cmapi.Certificate{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name(i, s)}, Spec: cmapi.CertificateSpec{SecretName: name(i, s), IssuerRef: s.ref},
		}
		k.change(o, host)
		c.create(t, "certificates", o)
	})
	// The shims make Certificates of an Issuer by cert-manager.io/issuer alone.
	c.apply(t, strings.ReplaceAll(objects, "cert-manager.io/issuer: cluster", "cert-manager.io/cluster-issuer: cluster"))
	each(func(i int, k *certificateCase, s *suite) {
		if k.then != nil {
			t.Run(s.name+" "+k.name+", first", func(t *testing.T) {
				o, secret := c.doneIssuing(t, name(i, s), 1)
				c.judge(t, s, o, secret)
				k.then(t, c, o, secret)
			})
		}
	})
	each(func(i int, k *certificateCase, s *suite) {
		t.Run(s.name+" "+k.name, func(t *testing.T) {
			revision := 1
			if k.then != nil {
				revision = 2
			}
			if k.object != nil {
				c.exists(t, name(i, s))
			}
			o, secret := c.doneIssuing(t, name(i, s), revision)
			c.judge(t, s, o, secret)
			if k.check != nil {
				k.check(t, o, secret)
			}
		})
	})
}

// judge looks at an issued certificate as upstream's e2e framework does, with upstream's
// own functions, and at the request, the conditions and the times of the status.
func (c *conformance) judge(t *testing.T, s *suite, o *cmapi.Certificate, secret *corev1.Secret) {
	t.Helper()
	certificates, err := pki.DecodeX509CertificateChainBytes(secret.Data[corev1.TLSCertKey])
	if err != nil {
		t.Fatal(err)
	}
	leaf := certificates[0]
	key, err := pki.DecodePrivateKeyBytes(secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		t.Fatal(err)
	}
	if fits, err := pki.PublicKeysEqual(key.Public(), leaf.PublicKey); err != nil || !fits {
		t.Error("the key does not fit:", err)
	}
	if wrong := pki.PrivateKeyMatchesSpec(key, o.Spec); len(wrong) > 0 {
		t.Errorf("the key is not as the spec: %v", wrong)
	}
	// As upstream's ExpectValidCommonName: an ACME server may show a name or an address again as the common name.
	shown := *leaf
	if s.acme && o.Spec.CommonName == "" && slices.Contains(o.Spec.IPAddresses, leaf.Subject.CommonName) {
		shown.Subject.CommonName = ""
	}
	if wrong := pki.FuzzyX509AltNamesMatchSpec(&shown, o.Spec); len(wrong) > 0 { //nolint:staticcheck // a second opinion: cert-manager's own
		t.Errorf("the names are not as the spec: %v", wrong)
	}
	r := c.request(t, fmt.Sprintf("%s-%d", o.Name, *o.Status.Revision))
	if wrong, err := pki.RequestMatchesSpec(r, o.Spec); len(wrong) > 0 || err != nil {
		t.Errorf("the request is not as the spec: %v %v", wrong, err)
	}
	if !apiutil.CertificateRequestIsApproved(r) || apiutil.CertificateRequestReadyReason(r) != cmapi.CertificateRequestReasonIssued || !bytes.Equal(r.Status.Certificate, secret.Data["tls.crt"]) {
		t.Errorf("the request's status is %s", text(r.Status.Conditions))
	}
	keys := 2
	if _, ca := secret.Data["ca.crt"]; ca {
		keys = 3
	}
	if len(secret.Data) != keys || s.acme != (keys == 2) || secret.Annotations[cmapi.CertificateNameKey] != o.Name || secret.Type != corev1.SecretTypeTLS {
		t.Errorf("the Secret has %q, annotations %v", sortedKeys(secret.Data), secret.Annotations)
	}
	renewal, err := pki.RenewalTime(leaf.NotBefore, leaf.NotAfter, o.Spec.RenewBefore, o.Spec.RenewBeforePercentage, o.Spec.Renewal)
	if err != nil || !o.Status.NotBefore.Time.Equal(leaf.NotBefore) || !o.Status.NotAfter.Time.Equal(leaf.NotAfter) || !o.Status.RenewalTime.Time.Equal(renewal.Time) {
		t.Errorf("the times of the status are %s, of the certificate %s %s, renewal %s %v", text(o.Status), leaf.NotBefore, leaf.NotAfter, renewal, err)
	}
	if leaf.IsCA != o.Spec.IsCA {
		t.Errorf("CA:%t", leaf.IsCA)
	}
	if s.acme {
		return
	}
	c.judgeOurs(t, s, o, leaf, certificates, secret)
}

// judgeOurs looks at what ACME servers decide themselves.
func (c *conformance) judgeOurs(t *testing.T, s *suite, o *cmapi.Certificate, leaf *x509.Certificate, certificates []*x509.Certificate, secret *corev1.Secret) {
	t.Helper()
	usage, extended, err := pki.KeyUsagesForCertificateOrCertificateRequest(o.Spec.Usages, o.Spec.IsCA)
	if err != nil || leaf.KeyUsage != usage || !slices.Equal(leaf.ExtKeyUsage, extended) {
		t.Errorf("the usages are %v %v, want %v %v (%v)", leaf.KeyUsage, leaf.ExtKeyUsage, usage, extended, err)
	}
	if life, want := leaf.NotAfter.Sub(leaf.NotBefore), apiutil.DefaultCertDuration(o.Spec.Duration); life != want || time.Since(leaf.NotBefore) > 5*time.Minute {
		t.Errorf("it lives for %s from %s, want %s from now", life, leaf.NotBefore, want)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	if !roots.AppendCertsFromPEM(secret.Data["ca.crt"]) {
		t.Fatal("ca.crt holds no certificate")
	}
	for _, one := range certificates[1:] {
		between.AddCert(one)
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if len(o.Spec.DNSNames) > 0 {
		options.DNSName = o.Spec.DNSNames[0]
	}
	if _, err := leaf.Verify(options); err != nil {
		t.Error(err)
	}
	ca, err := pki.DecodeX509CertificateBytes(secret.Data["ca.crt"])
	if err != nil || !bytes.Equal(ca.RawSubject, ca.RawIssuer) || s.self != bytes.Equal(ca.Raw, leaf.Raw) {
		t.Errorf("ca.crt is no root: %s of %s %v", ca.Subject, ca.Issuer, err)
	}
}
