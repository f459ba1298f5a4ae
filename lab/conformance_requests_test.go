//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/cert-manager/cert-manager/pkg/util/pki"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// labKeys are keys of each algorithm, made once.
type labKeys map[x509.PublicKeyAlgorithm]crypto.Signer

func newLabKeys(t *testing.T) labKeys {
	t.Helper()
	keys := labKeys{}
	for algorithm, name := range map[x509.PublicKeyAlgorithm]issue.Algorithm{x509.RSA: issue.RSA2048, x509.ECDSA: issue.ECDSAP256, x509.Ed25519: issue.Ed25519} {
		key, err := issue.GenerateKey(name)
		if err != nil {
			t.Fatal(err)
		}
		keys[algorithm] = key
	}
	return keys
}

func requestOf(t *testing.T, key crypto.Signer, template *x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: trust.RequestType, Bytes: der})
}

func encodedKey(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	text, err := issue.EncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// kubernetesCase is one of test/e2e/suite/conformance/certificatesigningrequests.
type kubernetesCase struct {
	name        string
	key         x509.PublicKeyAlgorithm
	template    x509.CertificateRequest
	usages      []certificatesv1.KeyUsage // by default digital signature and key encipherment
	annotations map[string]string
	seconds     *int32
	life        time.Duration // 0: 90 days
	isCA        bool
}

func kubernetesCases() []kubernetesCase {
	named := func(cn string) x509.CertificateRequest {
		return x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}
	}
	dns := func(names ...string) x509.CertificateRequest { return x509.CertificateRequest{DNSNames: names} }
	with := func(r x509.CertificateRequest, change func(*x509.CertificateRequest)) x509.CertificateRequest {
		change(&r)
		return r
	}
	spiffe := []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/sandbox/sa/foo"}}
	const shared = "shared.lab.test"
	lasting := map[string]string{"experimental.cert-manager.io/request-duration": "896h"}
	return []kubernetesCase{
		{name: "should issue an RSA certificate for a single distinct DNS Name", key: x509.RSA, template: dns("a.lab.test")},
		{name: "should issue an ECDSA certificate for a single distinct DNS Name", key: x509.ECDSA, template: dns("a.lab.test")},
		{name: "should issue an Ed25519 certificate for a single distinct DNS Name", key: x509.Ed25519, template: dns("a.lab.test")},
		{name: "should issue an RSA certificate for a single Common Name", key: x509.RSA, template: named("test-common-name-a")},
		{name: "should issue an ECDSA certificate for a single Common Name", key: x509.ECDSA, template: named("test-common-name-b")},
		{name: "should issue an Ed25519 certificate for a single Common Name", key: x509.Ed25519, template: named("test-common-name-c")},
		{name: "should issue a certificate that defines a Common Name and IP Address", key: x509.RSA, template: with(named("test-common-name-d"), func(r *x509.CertificateRequest) {
			r.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(8, 8, 8, 8)}
		})},
		{name: "should issue a certificate that defines an Email Address", key: x509.RSA, template: x509.CertificateRequest{EmailAddresses: []string{"alice@example.com", "bob@cert-manager.io"}}},
		{name: "should issue a certificate that defines a Common Name and URI SAN", key: x509.RSA, template: with(named("test-common-name-e"), func(r *x509.CertificateRequest) { r.URIs = spiffe })},
		{name: "should issue a certificate that defines a 2 distinct DNS Name with one copied to the Common Name", key: x509.RSA, template: with(named(shared), func(r *x509.CertificateRequest) {
			r.DNSNames = []string{shared, "b.lab.test"}
		})},
		{name: "should issue a certificate that defines a distinct DNS Name and another distinct Common Name", key: x509.RSA, template: with(named("c.lab.test"), func(r *x509.CertificateRequest) {
			r.DNSNames = []string{"d.lab.test"}
		})},
		{name: "should issue a certificate that defines a Common Name, DNS Name, and sets a duration", key: x509.RSA, template: dns(shared), annotations: lasting, life: 896 * time.Hour},
		{name: "should issue a certificate that defines a Common Name, DNS Name, and sets a duration via expiration seconds", key: x509.RSA, template: dns(shared), seconds: new(int32(3333)), life: 3333 * time.Second},
		{name: "should issue a certificate that defines a DNS Name and sets a duration", key: x509.RSA, template: dns("e.lab.test"), annotations: lasting, life: 896 * time.Hour},
		{name: "should issue a certificate which has a wildcard DNS Name defined", key: x509.RSA, template: dns("*.f.lab.test")},
		{name: "should issue a certificate that includes only a URISANs name", key: x509.RSA, template: x509.CertificateRequest{URIs: spiffe}},
		{name: "should issue a certificate that includes arbitrary key usages", key: x509.RSA, template: with(named(shared), func(r *x509.CertificateRequest) { r.DNSNames = []string{shared} }),
			usages: []certificatesv1.KeyUsage{"server auth", "client auth", "digital signature", "data encipherment"}},
		{name: "should issue a signing CA certificate that has a large duration", key: x509.RSA, template: named("cert-manager-ca"), usages: []certificatesv1.KeyUsage{"digital signature", "key encipherment", "cert sign"},
			annotations: map[string]string{"experimental.cert-manager.io/request-duration": "10000h", "experimental.cert-manager.io/request-is-ca": "true"}, life: 10000 * time.Hour, isCA: true},
	}
}

const keyAnnotation = "experimental.cert-manager.io/private-key-secret-name"

// approved makes an approved CertificateSigningRequest.
func (c *conformance) approved(t *testing.T, name, signer string, request []byte, usages []certificatesv1.KeyUsage, annotations map[string]string, seconds *int32) {
	t.Helper()
	if usages == nil {
		usages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment}
	}
	r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}, Spec: certificatesv1.CertificateSigningRequestSpec{
		SignerName: signer, Request: request, Usages: usages, ExpirationSeconds: seconds,
	}}
	requests := c.client.CertificatesV1().CertificateSigningRequests()
	r, err := requests.Create(t.Context(), r, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "lab"}}
	if _, err := requests.UpdateApproval(t.Context(), name, r, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// signed waits for the certificate of a CertificateSigningRequest.
func (c *conformance) signed(t *testing.T, name string) []*x509.Certificate {
	t.Helper()
	var text []byte
	eventually(t, name+" is signed", func(ctx context.Context) error {
		r, err := c.client.CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if text = r.Status.Certificate; len(text) == 0 {
			return fmt.Errorf("its status is %v", r.Status.Conditions)
		}
		return nil
	})
	certificates, err := pki.DecodeX509CertificateChainBytes(text)
	if err != nil {
		t.Fatal(err)
	}
	return certificates
}

func (c *conformance) testKubernetesRequests(t *testing.T) {
	keys, cases := newLabKeys(t), kubernetesCases()
	type signer struct{ name, id string }
	signers := []signer{{"CA", "issuers.cert-manager.io/default.csr-ca"}, {"SelfSigned", "issuers.cert-manager.io/default.csr-self"}}
	c.issuer(t, "csr-ca", cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca-root"}})
	c.issuer(t, "csr-self", cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}})
	if long() {
		signers = append(signers, signer{"CA of the cluster", "clusterissuers.cert-manager.io/csr-ca"}, signer{"SelfSigned of the cluster", "clusterissuers.cert-manager.io/csr-self"})
		c.clusterIssuer(t, "csr-ca", cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca-root"}})
		c.clusterIssuer(t, "csr-self", cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}})
	}
	var page []string
	for _, k := range cases {
		page = append(page, "| "+k.name+" | pass | pass | not: ACME |")
	}
	checkPage(t, "CertificateSigningRequests", page)
	for _, namespace := range []string{"default", "kube-system"} {
		for algorithm, key := range keys {
			c.secret(t, namespace, "key-"+strings.ToLower(algorithm.String()), map[string][]byte{"tls.key": encodedKey(t, key)})
		}
	}
	for i, k := range cases {
		for j, s := range signers {
			annotations := map[string]string{keyAnnotation: "key-" + strings.ToLower(k.key.String())}
			for key, value := range k.annotations {
				annotations[key] = value
			}
			c.approved(t, fmt.Sprintf("case-%d-%d", i+1, j), s.id, requestOf(t, keys[k.key], &k.template), k.usages, annotations, k.seconds)
		}
	}
	for i, k := range cases {
		for j, s := range signers {
			t.Run(s.name+" "+k.name, func(t *testing.T) {
				c.judgeSigned(t, &k, keys, strings.HasPrefix(s.name, "CA"), c.signed(t, fmt.Sprintf("case-%d-%d", i+1, j)))
			})
		}
	}
}

// judgeSigned looks at a certificate as upstream's validation/certificatesigningrequests.
func (c *conformance) judgeSigned(t *testing.T, k *kubernetesCase, keys labKeys, byCA bool, certificates []*x509.Certificate) {
	t.Helper()
	leaf, life := certificates[0], k.life
	if life == 0 {
		life = cmapi.DefaultCertificateDuration
	}
	if got := leaf.NotAfter.Sub(leaf.NotBefore); got != life {
		t.Errorf("it lives for %s, want %s", got, life)
	}
	asked, err := pki.DecodeX509CertificateRequestBytes(requestOf(t, keys[k.key], &k.template))
	if err != nil {
		t.Fatal(err)
	}
	show := func(subject []byte, names ...any) string { return fmt.Sprintf("%x %v", subject, names) }
	if got, want := show(leaf.RawSubject, leaf.DNSNames, leaf.EmailAddresses, leaf.IPAddresses, leaf.URIs), show(asked.RawSubject, asked.DNSNames, asked.EmailAddresses, asked.IPAddresses, asked.URIs); got != want {
		t.Errorf("the names are\n%s, want\n%s", got, want)
	}
	var usages []cmapi.KeyUsage
	for _, u := range k.usages {
		usages = append(usages, cmapi.KeyUsage(u))
	}
	usage, extended, err := pki.KeyUsagesForCertificateOrCertificateRequest(usages, k.isCA)
	if err != nil || leaf.KeyUsage != usage || fmt.Sprint(leaf.ExtKeyUsage) != fmt.Sprint(extended) || leaf.IsCA != k.isCA {
		t.Errorf("the usages are %v %v CA:%t, want %v %v CA:%t (%v)", leaf.KeyUsage, leaf.ExtKeyUsage, leaf.IsCA, usage, extended, k.isCA, err)
	}
	if fits, err := pki.PublicKeysEqual(leaf.PublicKey, keys[k.key].Public()); err != nil || !fits {
		t.Error("it is of another key", err)
	}
	above := leaf
	if byCA {
		above = c.root
	}
	if !bytes.Equal(leaf.RawIssuer, above.RawSubject) || above.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) != nil {
		t.Errorf("it is of %s", leaf.Issuer)
	}
}
