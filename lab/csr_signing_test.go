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
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/signer"
	"github.com/kubepki/kubepki/internal/trust"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
	"k8s.io/kubernetes/pkg/apis/certificates"
	upstream "k8s.io/kubernetes/pkg/controller/certificates/authority"
)

// signing is a request that two signers are given.
type signing struct {
	signer     string
	usages     []string
	request    x509.CertificateRequest
	key        issue.Algorithm
	expiration time.Duration // 0: none is asked for
}

func signings() map[string]signing {
	node := pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}
	client, serving := []string{"digital signature", "client auth"}, []string{"digital signature", "server auth"}
	address := []net.IP{net.ParseIP("10.0.0.7"), net.ParseIP("fd00::7")}
	uri := &url.URL{Scheme: "spiffe", Host: "example.test", Path: "/jane"}
	jane := pkix.Name{CommonName: "jane", Organization: []string{"dev"}, OrganizationalUnit: []string{"x"}, Country: []string{"DE"}}
	extensions := []pkix.Extension{
		{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}, // CA:TRUE
		{Id: []int{1, 2, 3, 4}, Value: []byte{5, 0}},
	}
	return map[string]signing{
		"kubelet-client":             {csr.KubeAPIServerClientKubeletSigner, client, x509.CertificateRequest{Subject: node}, issue.ECDSAP256, 0},
		"kubelet-client-rsa":         {csr.KubeAPIServerClientKubeletSigner, append(client, "key encipherment"), x509.CertificateRequest{Subject: node}, issue.RSA2048, 24 * time.Hour},
		"kubelet-client-extensions":  {csr.KubeAPIServerClientKubeletSigner, client, x509.CertificateRequest{Subject: node, ExtraExtensions: extensions}, issue.ECDSAP256, 0},
		"kubelet-client-two-groups":  {csr.KubeAPIServerClientKubeletSigner, client, x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes", "x"}}}, issue.ECDSAP256, 0},
		"kubelet-client-with-name":   {csr.KubeAPIServerClientKubeletSigner, client, x509.CertificateRequest{Subject: node, DNSNames: []string{"n1"}}, issue.ECDSAP256, 0},
		"kubelet-client-server-auth": {csr.KubeAPIServerClientKubeletSigner, serving, x509.CertificateRequest{Subject: node}, issue.ECDSAP256, 0},
		"kubelet-serving":            {csr.KubeletServingSigner, serving, x509.CertificateRequest{Subject: node, DNSNames: []string{"n1", "N1.example.test"}, IPAddresses: address}, issue.ECDSAP256, 30 * 24 * time.Hour},
		"kubelet-serving-no-name":    {csr.KubeletServingSigner, serving, x509.CertificateRequest{Subject: node}, issue.ECDSAP256, 0},
		"kubelet-serving-uri":        {csr.KubeletServingSigner, serving, x509.CertificateRequest{Subject: node, IPAddresses: address, URIs: []*url.URL{uri}}, issue.ECDSAP256, 0},
		"client-ten-minutes":         {csr.KubeAPIServerClientSigner, []string{"client auth"}, x509.CertificateRequest{Subject: jane}, issue.ECDSAP256, 10 * time.Minute},
		"client-short":               {csr.KubeAPIServerClientSigner, client, x509.CertificateRequest{Subject: jane}, issue.Ed25519, 8*time.Hour - time.Second},
		"client-not-short":           {csr.KubeAPIServerClientSigner, client, x509.CertificateRequest{Subject: jane}, issue.ECDSAP384, 8 * time.Hour},
		"client-all-names":           {csr.KubeAPIServerClientSigner, client, x509.CertificateRequest{Subject: jane, DNSNames: []string{"a.test"}, IPAddresses: address, URIs: []*url.URL{uri}, EmailAddresses: []string{"j@a.test"}}, issue.ECDSAP256, 0},
		"client-server-auth":         {csr.KubeAPIServerClientSigner, append(client, "server auth"), x509.CertificateRequest{Subject: jane}, issue.ECDSAP256, 0},
		"client-none":                {csr.KubeAPIServerClientSigner, []string{"digital signature"}, x509.CertificateRequest{Subject: jane}, issue.ECDSAP256, 0},
		"client-beyond-authority":    {csr.KubeAPIServerClientSigner, client, x509.CertificateRequest{Subject: jane}, issue.ECDSAP256, 20 * 365 * 24 * time.Hour},
	}
}

// object is the request as an object of the API, with the PEM of its key.
func (s signing) object(t *testing.T, name string) (*certificatesv1.CertificateSigningRequest, crypto.Signer) {
	t.Helper()
	key, err := issue.GenerateKey(s.key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &s.request, key)
	if err != nil {
		t.Fatal(err)
	}
	o := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificatesv1.CertificateSigningRequestSpec{
		SignerName: s.signer, Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
	}}
	for _, u := range s.usages {
		o.Spec.Usages = append(o.Spec.Usages, certificatesv1.KeyUsage(u))
	}
	if s.expiration > 0 {
		seconds := int32(s.expiration / time.Second)
		o.Spec.ExpirationSeconds = &seconds
	}
	return o, key
}

func (s signing) asked(o *certificatesv1.CertificateSigningRequest) csr.Request {
	return csr.Request{SignerName: s.signer, Usages: s.usages, PEM: o.Spec.Request, ExpirationSeconds: o.Spec.ExpirationSeconds}
}

// compareCertificates compares all but number and signature.
func compareCertificates(t *testing.T, ours, theirs *x509.Certificate) {
	t.Helper()
	parts := func(c *x509.Certificate) map[string]any {
		all := map[string]any{
			"version": c.Version, "issuer": c.RawIssuer, "subject": c.RawSubject, "key": c.RawSubjectPublicKeyInfo,
			"algorithm": c.SignatureAlgorithm, "not before": c.NotBefore, "not after": c.NotAfter,
		}
		for i, e := range c.Extensions {
			all[fmt.Sprintf("extension %d", i)] = []any{e.Id.String(), e.Critical, e.Value}
		}
		return all
	}
	if diff := cmp.Diff(parts(theirs), parts(ours)); diff != "" {
		t.Errorf("- kube-controller-manager, + kubepki:\n%s", diff)
	}
	if ours.SerialNumber.Cmp(theirs.SerialNumber) == 0 {
		t.Error("two certificates have one number")
	}
}

// The code that kube-controller-manager signs with makes of each request the
// certificate that ours makes, and refuses those that ours refuses.
func TestSigningAgreesWithTheManagersCode(t *testing.T) {
	now := time.Now()
	caKey, err := issue.GenerateKey(issue.RSA2048)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "kubernetes"}, Authority: true, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(400 * 24 * time.Hour)}, caKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range signings() {
		for _, maximum := range []time.Duration{365 * 24 * time.Hour, 1000 * 24 * time.Hour, 9 * time.Hour} {
			t.Run(fmt.Sprintf("%s at most %s", name, maximum), func(t *testing.T) {
				o, _ := s.object(t, name)
				request, err := certificates.ParseCSR(o.Spec.Request)
				if err != nil {
					t.Fatal(err)
				}
				ours, err := csr.Sign(s.asked(o), issue.Authority{Certificate: ca, Key: caKey}, maximum, now)
				theirError := managerAccepts(s, request)
				if (err != nil) != (theirError != nil) {
					t.Fatalf("ours says %v, theirs %v", err, theirError)
				}
				if err != nil {
					return
				}
				ttl := maximum
				if s.expiration > 0 && s.expiration < ttl {
					ttl = s.expiration
				}
				signs := upstream.CertificateAuthority{Certificate: ca, PrivateKey: caKey}
				der, err := signs.Sign(request.Raw, upstream.PermissiveSigningPolicy{
					TTL: ttl, Usages: o.Spec.Usages, Backdate: 5 * time.Minute, Short: 8 * time.Hour, Now: func() time.Time { return now },
				})
				if err != nil {
					t.Fatal(err)
				}
				theirs, err := x509.ParseCertificate(der)
				if err != nil {
					t.Fatal(err)
				}
				compareCertificates(t, parseOne(t, ours), theirs)
			})
		}
	}
}

// managerAccepts is what the signers of kube-controller-manager check; for the
// signer of clients that is private code, which the real one shows below.
func managerAccepts(s signing, r *x509.CertificateRequest) error {
	switch s.signer {
	case csr.KubeletServingSigner:
		return certificates.ValidateKubeletServingCSR(r, sets.NewString(s.usages...))
	case csr.KubeAPIServerClientKubeletSigner:
		return certificates.ValidateKubeletClientCSR(r, sets.NewString(s.usages...))
	}
	if u := sets.New(s.usages...); !u.Has("client auth") || u.Difference(sets.New("client auth", "digital signature", "key encipherment")).Len() > 0 {
		return fmt.Errorf("usages %v", s.usages)
	}
	return nil
}

func parseOne(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	all, err := trust.ParseCertificates(data)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d certificates: %v", len(all), err)
	}
	return all[0]
}

// The real kube-controller-manager signs each request or marks it as failed,
// and so does ours, with the same certificate; the real API server takes it.
func TestSigningAgreesWithTheManager(t *testing.T) {
	dir := initCluster(t, 1, "--key-algorithm=ECDSA-P256")
	c := startCluster(t, dir, "separate", 1)
	api := kubernetes.NewForConfigOrDie(c.admin)
	source, err := signer.Files(c.pki("ca.crt"), c.pki("ca.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := source.Authority()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*certificatesv1.CertificateSigningRequest{}
	keys := map[string]crypto.Signer{}
	for name, s := range signings() {
		o, key := s.object(t, name)
		if _, err := api.CertificatesV1().CertificateSigningRequests().Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		approveRequest(t, api, name)
		all[name], keys[name] = o, key
	}
	for name, s := range signings() {
		t.Run(name, func(t *testing.T) {
			theirs := answered(t, api, name)
			now := time.Now()
			if theirs != nil {
				now = theirs.NotBefore.Add(5 * time.Minute)
			}
			data, err := csr.Sign(s.asked(all[name]), ca, 365*24*time.Hour, now)
			if (err != nil) != (theirs == nil) {
				t.Fatalf("kube-controller-manager signed: %v; ours says %v", theirs != nil, err)
			}
			if err != nil {
				return
			}
			ours := parseOne(t, data)
			compareCertificates(t, ours, theirs)
			if strings.HasSuffix(s.signer, "kubelet-serving") {
				return
			}
			if user := whoAmI(t, c.admin, data, keys[name]); user != ours.Subject.CommonName {
				t.Errorf("the API server takes it for %q", user)
			}
		})
	}
	t.Run("by hand", func(t *testing.T) { signByHand(t, c, api) })
}

// kubepkiIn runs kubepki on the first node, and returns all that it wrote.
func kubepkiIn(t *testing.T, c *controlPlane, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(programs, "kubepki"), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := c.nodes[0].Launch(cmd); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	return out.String(), err
}

func approveRequest(t *testing.T, api kubernetes.Interface, name string) {
	t.Helper()
	requests := api.CertificatesV1().CertificateSigningRequests()
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		o, err := requests.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range o.Status.Conditions {
			if c.Type == certificatesv1.CertificateApproved {
				return nil // csrapproving was quicker
			}
		}
		o.Status.Conditions = append(o.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test"})
		_, err = requests.UpdateApproval(t.Context(), name, o, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		t.Fatalf("approving %s: %v", name, err)
	}
}

// answered waits for the certificate, or for the condition Failed: then nil.
func answered(t *testing.T, api kubernetes.Interface, name string) *x509.Certificate {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		o, err := api.CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatalf("waiting for %s: %v", name, err)
		}
		if len(o.Status.Certificate) > 0 {
			return parseOne(t, o.Status.Certificate)
		}
		for _, c := range o.Status.Conditions {
			if c.Type == certificatesv1.CertificateFailed && c.Reason == "SignerValidationFailure" {
				return nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// whoAmI asks the API server whom it takes the holder of a certificate for.
func whoAmI(t *testing.T, admin *rest.Config, certificate []byte, key crypto.Signer) string {
	t.Helper()
	keyPEM, err := issue.EncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(admin)
	config.CertData, config.KeyData = certificate, keyPEM
	config.Dial = admin.Dial
	review, err := kubernetes.NewForConfigOrDie(config).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.UserInfo.Username
}

// csr sign does by hand, for requests of the API, what the controller does.
func signByHand(t *testing.T, c *controlPlane, api kubernetes.Interface) {
	t.Helper()
	s := signings()["client-short"]
	s.signer = "example.test/by-hand" // which kube-controller-manager leaves alone
	o, _ := s.object(t, "by-hand")
	requests := api.CertificatesV1().CertificateSigningRequests()
	if _, err := requests.Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	args := []string{"csr", "sign", "by-hand", "--cert=" + c.pki("ca.crt"), "--key=" + c.pki("ca.key"), "--kubeconfig=" + c.path("cp1", "etc/kubernetes/super-admin.conf")}
	if out, err := kubepkiIn(t, c, args...); err == nil || !strings.Contains(out, "nobody has approved it") {
		t.Errorf("not approved, and %v: %s", err, out)
	}
	approveRequest(t, api, "by-hand")
	if out, err := kubepkiIn(t, c, args...); err != nil || !strings.Contains(out, "/by-hand signed") {
		t.Fatalf("%v: %s", err, out)
	}
	if got := answered(t, api, "by-hand"); got.Subject.CommonName != "jane" || got.NotAfter.After(time.Now().Add(8*time.Hour)) {
		t.Errorf("%s until %s", got.Subject, got.NotAfter)
	}
	if out, err := kubepkiIn(t, c, args...); err == nil || !strings.Contains(out, "issued already") {
		t.Errorf("issued, and %v: %s", err, out)
	}
}
