//go:build linux

package lab_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

const workloadPolicyFile = `apiVersion: kubepki.dev/v1alpha1
kind: WorkloadPolicy
maxDuration: 2400h
rules:
- name: services
  issuers: [{kind: ClusterIssuer, name: internal}]
  namespaces: [default]
  approve: dnsNames.all(n, n.endsWith("." + request.namespace + ".svc"))
- name: root
  issuers: [{kind: ClusterIssuer, name: self}]
  namespaces: [kube-system]
  allowCA: true
  approve: certificate == "root" && subject.commonName == "internal"
- name: elsewhere
  issuers: [{group: example.org, kind: Other, name: other}]
  namespaces: [default]
  approve: dnsNames == ["external.example.org"]
`

const policyObjects = `---
apiVersion: v1
kind: Namespace
metadata: {name: bank}
---
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: self}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: root, namespace: kube-system}
spec:
  secretName: root
  commonName: internal
  isCA: true
  privateKey: {algorithm: ECDSA}
  issuerRef: {name: self, kind: ClusterIssuer}
---
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: internal}
spec: {ca: {secretName: root}}
`

// wish is a Certificate of the ClusterIssuer internal.
func wish(name, namespace, dns, more string) string {
	return fmt.Sprintf(`---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: %s, namespace: %s}
spec:
  secretName: %[1]s-tls
  dnsNames: [%[3]s]
  privateKey: {algorithm: ECDSA}
  issuerRef: {name: internal, kind: ClusterIssuer}
%[4]s`, name, namespace, dns, more)
}

func TestWorkloadPolicy(t *testing.T) {
	w := startWorkloads(t)
	file := write(t, filepath.Join(w.dir, "workloads.yaml"), workloadPolicyFile)
	if out, err := kubectl(t, w.controlPlane, "apply", "-f", filepath.Join("..", "deploy", "podcerts-rbac.yaml"), "-f", filepath.Join("..", "deploy", "podcerts-issuer-rbac.yaml")); err != nil {
		t.Fatalf("%v %s", err, out.stderr)
	}
	w.apply(t, policyObjects)
	w.forge(t)
	defer w.run(t, "--enable=podcerts,trustbundles", "--workload-policy="+file, "--csr-issuers",
		"--pod-signer-name=clusterissuers.kubepki.dev/internal", "--pod-trust-domain=lab.example")()
	t.Run("what a rule approves is issued, and nothing else", w.testPolicy)
	t.Run("a forged approval is worth no more than the limits", w.testForged)
	t.Run("an external issuer gets the conditions alone", w.testExternal)
	t.Run("CertificateSigningRequests are signed by issuers that the requester may name", w.testSigningRequests)
	t.Run("pods get certificates of the same issuer", w.testPodIssuer)
}

func condition(r *cmapi.CertificateRequest, kind cmapi.CertificateRequestConditionType) cmapi.CertificateRequestCondition {
	if c := workload.RequestCondition(&r.Status, kind); c != nil {
		return *c
	}
	return cmapi.CertificateRequestCondition{}
}

// in waits for a request of a namespace with a condition.
func (w *workloads) in(t *testing.T, namespace, name string, kind cmapi.CertificateRequestConditionType, reason string) *cmapi.CertificateRequest {
	t.Helper()
	var r *cmapi.CertificateRequest
	eventually(t, fmt.Sprintf("request %s/%s has %s %s", namespace, name, kind, reason), func(ctx context.Context) error {
		r = &cmapi.CertificateRequest{}
		if err := w.cm.Get().Namespace(namespace).Resource("certificaterequests").Name(name).Do(ctx).Into(r); err != nil {
			return err
		}
		if condition(r, kind).Reason != reason {
			return fmt.Errorf("its status is %s", text(r.Status))
		}
		return nil
	})
	return r
}

func (w *workloads) testPolicy(t *testing.T) {
	w.in(t, "kube-system", "root-1", "Ready", "Issued")
	w.apply(t, wish("web", "default", "web.default.svc", "")+
		wish("foreign", "default", "web.bank.svc", "")+
		wish("unspoken", "default", "unspoken.default.svc", "  uris: ['spiffe://bank/pay']\n")+
		wish("authority", "default", "ca.default.svc", "  isCA: true\n")+
		wish("long", "default", "long.default.svc", "  duration: 2401h\n")+
		wish("web", "bank", "web.bank.svc", ""))
	_, secret := w.atRevision(t, "web", 1)
	if got := chain(t, secret)[0]; got.Issuer.CommonName != "internal" {
		t.Errorf("it is of %s", got.Issuer)
	}
	r := w.in(t, "default", "web-1", "Ready", "Issued")
	if c := condition(r, "Approved"); c.Reason != "policy.kubepki.dev" || !strings.Contains(c.Message, `"services"`) {
		t.Errorf("approved: %+v", c)
	}
	for _, at := range [][2]string{{"default", "foreign-1"}, {"default", "unspoken-1"}, {"bank", "web-1"}} {
		r := w.in(t, at[0], at[1], "Ready", "Pending")
		if condition(r, "Approved").Status != "" || condition(r, "Denied").Status != "" || !strings.Contains(condition(r, "Ready").Message, "Waiting for an approval") {
			t.Errorf("request %s: %s", at, text(r.Status))
		}
	}
	for _, name := range []string{"authority-1", "long-1"} {
		r := w.in(t, "default", name, "Ready", "Denied")
		if c := condition(r, "Denied"); c.Message != "The request was denied by policy" || len(r.Status.Certificate) > 0 {
			t.Errorf("request %s: %s", name, text(r.Status))
		}
	}
	w.decide(t, "foreign-1", cmapi.CertificateRequestConditionApproved, nil) // a person may
	_, secret = w.atRevision(t, "foreign", 1)
	if err := chain(t, secret)[0].VerifyHostname("web.bank.svc"); err != nil {
		t.Error(err)
	}
}

func labRequest(t *testing.T, template *x509.CertificateRequest) []byte {
	t.Helper()
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: trust.RequestType, Bytes: der})
}

// forge makes approved requests before there is a controller that would deny them.
func (w *workloads) forge(t *testing.T) {
	t.Helper()
	for name, spec := range map[string]cmapi.CertificateRequestSpec{
		"forged-ca":   {IsCA: true, Usages: []cmapi.KeyUsage{"cert sign"}},
		"forged-long": {Duration: &metav1.Duration{Duration: 87600 * time.Hour}},
		"approved":    {},
	} {
		spec.IssuerRef = cmmeta.IssuerReference{Name: "internal", Kind: "ClusterIssuer"}
		spec.Request = labRequest(t, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name + ".example.org"}})
		r := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: spec}
		if err := w.cm.Post().Namespace("default").Resource("certificaterequests").Body(r).Do(t.Context()).Error(); err != nil {
			t.Fatal(err)
		}
		w.decide(t, name, cmapi.CertificateRequestConditionApproved, nil)
	}
}

func (w *workloads) testForged(t *testing.T) {
	w.in(t, "default", "approved", "Ready", "Issued") // a name that no rule approves is who approved's to answer for
	for _, name := range []string{"forged-ca", "forged-long"} {
		r := w.in(t, "default", name, "Ready", "Failed")
		if len(r.Status.Certificate) > 0 || condition(r, "Ready").Message != "The request is not within the limits of the workload policy" {
			t.Errorf("request %s: %s", name, text(r.Status))
		}
	}
}

func (w *workloads) testExternal(t *testing.T) {
	for name, group := range map[string]string{"external": "example.org", "stranger": "example.net"} {
		r := &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: cmapi.CertificateRequestSpec{
			IssuerRef: cmmeta.IssuerReference{Name: "other", Kind: "Other", Group: group},
			Request:   labRequest(t, &x509.CertificateRequest{DNSNames: []string{"external.example.org"}}),
		}}
		if err := w.cm.Post().Namespace("default").Resource("certificaterequests").Body(r).Do(t.Context()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	r := w.in(t, "default", "external", "Approved", "policy.kubepki.dev")
	if len(r.Status.Conditions) != 1 {
		t.Errorf("the status is %s", text(r.Status))
	}
	if r := w.request(t, "stranger"); len(r.Status.Conditions) > 0 {
		t.Errorf("the status is %s", text(r.Status))
	}
}

// csr makes an approved CertificateSigningRequest of a user.
func (w *workloads) csr(t *testing.T, client kubernetes.Interface, name, signer string, change func(*certificatesv1.CertificateSigningRequest)) {
	t.Helper()
	r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificatesv1.CertificateSigningRequestSpec{
		SignerName: signer, Usages: []certificatesv1.KeyUsage{"digital signature", "server auth"},
		Request: labRequest(t, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name + ".example.org"}}),
	}}
	if change != nil {
		change(r)
	}
	r, err := client.CertificatesV1().CertificateSigningRequests().Create(t.Context(), r, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Tester"}}
	if _, err := w.client.CertificatesV1().CertificateSigningRequests().UpdateApproval(t.Context(), name, r, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (w *workloads) testSigningRequests(t *testing.T) {
	w.apply(t, "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {name: own, namespace: kube-system}\nspec: {ca: {secretName: root}}\n")
	if out, err := kubectl(t, w.controlPlane, "create", "clusterrolebinding", "mallory", "--clusterrole=system:node-bootstrapper", "--user=mallory"); err != nil {
		t.Fatalf("%v %s", err, out.stderr)
	}
	config := rest.CopyConfig(w.admin)
	config.Impersonate = rest.ImpersonationConfig{UserName: "mallory", Groups: []string{"system:authenticated"}}
	mallory := kubernetes.NewForConfigOrDie(config)
	const cluster, own = "clusterissuers.cert-manager.io/internal", "issuers.cert-manager.io/kube-system.own"
	annotate := func(key, value string) func(*certificatesv1.CertificateSigningRequest) {
		return func(r *certificatesv1.CertificateSigningRequest) {
			r.Annotations = map[string]string{"experimental.cert-manager.io/" + key: value}
		}
	}
	w.csr(t, mallory, "by-cluster", cluster, annotate("request-duration", "3h"))
	w.csr(t, w.client, "by-own", own, nil)
	w.csr(t, mallory, "not-hers", own, nil)
	w.csr(t, mallory, "too-long", cluster, annotate("request-duration", "24000h"))
	w.csr(t, mallory, "too-short", cluster, annotate("request-duration", "5m"))
	w.csr(t, mallory, "annotated-ca", cluster, annotate("request-is-ca", "true"))
	w.csr(t, mallory, "said-ca", cluster, func(r *certificatesv1.CertificateSigningRequest) {
		annotate("request-is-ca", "true")(r)
		r.Spec.Usages = []certificatesv1.KeyUsage{"cert sign"}
	})
	w.csr(t, mallory, "elsewhere", "clusterissuers.example.org/internal", nil)
	for name, want := range map[string]string{
		"by-cluster": "", "by-own": "", "not-hers": "DeniedReference", "too-long": "PolicyLimit", "too-short": "InvalidDuration",
		"annotated-ca": "SigningError", "said-ca": "PolicyLimit",
	} {
		eventually(t, "request "+name+" is answered", func(ctx context.Context) error {
			r, err := w.client.CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			last := r.Status.Conditions[len(r.Status.Conditions)-1]
			if want != "" {
				if last.Type != certificatesv1.CertificateFailed || last.Reason != want || len(r.Status.Certificate) > 0 {
					return fmt.Errorf("its status is %s", text(r.Status))
				}
				return nil
			}
			list, err := trust.ParseCertificates(r.Status.Certificate)
			if err != nil || len(list) == 0 {
				return fmt.Errorf("its status is %s: %w", text(r.Status), err)
			}
			if life := list[0].NotAfter.Sub(list[0].NotBefore); list[0].Issuer.CommonName != "internal" || name == "by-cluster" && life != 3*time.Hour {
				t.Errorf("%s: of %s, for %s", name, list[0].Issuer, life)
			}
			return nil
		})
	}
	if r, err := w.client.CertificatesV1().CertificateSigningRequests().Get(t.Context(), "elsewhere", metav1.GetOptions{}); err != nil || len(r.Status.Certificate) > 0 || len(r.Status.Conditions) != 1 {
		t.Errorf("another's request: %v, %s", err, text(r.Status))
	}
}

func (w *workloads) testPodIssuer(t *testing.T) {
	const signer = "clusterissuers.kubepki.dev/internal"
	w.apply(t, `---
apiVersion: v1
kind: Node
metadata: {name: w1}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: shop, namespace: default}
---
apiVersion: v1
kind: Pod
metadata: {name: shop, namespace: default}
spec:
  nodeName: w1
  serviceAccountName: shop
  automountServiceAccountToken: false
  containers: [{name: shop, image: registry.k8s.io/pause:3.10}]
  volumes:
  - name: pki
    projected: {sources: [{podCertificate: {signerName: `+signer+`, keyType: ECDSAP256, credentialBundlePath: a.pem}}]}
`)
	core := w.client.CoreV1()
	pod, err := core.Pods("default").Get(t.Context(), "shop", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	account, err := core.ServiceAccounts("default").Get(t.Context(), "shop", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node, err := core.Nodes().Get(t.Context(), "w1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(labRequest(t, &x509.CertificateRequest{}))
	_, err = w.client.CertificatesV1().PodCertificateRequests("default").Create(t.Context(), &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: signer, PodName: "shop", PodUID: pod.UID, NodeName: "w1", NodeUID: node.UID, ServiceAccountName: "shop", ServiceAccountUID: account.UID,
			StubPKCS10Request: block.Bytes,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod has its certificate, and its peers the anchor", func(ctx context.Context) error {
		r, err := w.client.CertificatesV1().PodCertificateRequests("default").Get(ctx, "shop", metav1.GetOptions{})
		if err != nil || r.Status.CertificateChain == "" {
			return fmt.Errorf("its status is %s: %w", text(r.Status), err)
		}
		bundle, err := w.client.CertificatesV1().ClusterTrustBundles().Get(ctx, "clusterissuers.kubepki.dev:internal:ca", metav1.GetOptions{})
		if err != nil {
			return err
		}
		leaf, err := trust.ParseCertificates([]byte(r.Status.CertificateChain))
		if err != nil {
			return err
		}
		anchors, err := trust.ParseCertificates([]byte(bundle.Spec.TrustBundle))
		if err != nil {
			return err
		}
		if len(anchors) != 1 || !trust.SignedBy(leaf[0], anchors[0]) || leaf[0].URIs[0].String() != "spiffe://lab.example/ns/default/sa/shop" {
			t.Errorf("the certificate is for %v, of %s", leaf[0].URIs, leaf[0].Issuer)
		}
		return nil
	})
}
