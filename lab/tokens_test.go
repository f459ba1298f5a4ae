//go:build linux

package lab_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

var dialer = &net.Dialer{Timeout: 5 * time.Second}

var errNotSigned = errors.New("no certificate yet")

// eventually asks until the answer is yes; its last error is the test's.
func eventually(t *testing.T, what string, ask func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, readyWait, true, func(ctx context.Context) (bool, error) {
		last = ask(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v", what, last)
	}
}

func testLeases(t *testing.T, c *controlPlane) {
	leases := c.client(t).CoordinationV1().Leases("kube-system")
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		eventually(t, "the lease of "+name, func(ctx context.Context) error {
			lease, err := leases.Get(ctx, name, metav1.GetOptions{})
			if err == nil && (lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "") {
				t.Errorf("the lease of %s has no holder", name)
			}
			return err
		})
	}
}

// testServiceAccount does what a pod does: it trusts kube-root-ca.crt, dials
// kubernetes.default.svc and shows a token.
func testServiceAccount(t *testing.T, c *controlPlane) {
	client := c.client(t)
	var roots *corev1.ConfigMap
	eventually(t, "the controller manager publishes kube-root-ca.crt", func(ctx context.Context) (err error) {
		roots, err = client.CoreV1().ConfigMaps("default").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err
	})
	eventually(t, "the controller manager makes the service account default", func(ctx context.Context) error {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	request, err := client.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	isIdentity(t, "the token", &rest.Config{
		Host:            c.admin.Host,
		Timeout:         c.admin.Timeout,
		BearerToken:     request.Status.Token,
		TLSClientConfig: rest.TLSClientConfig{CAData: []byte(roots.Data["ca.crt"]), ServerName: "kubernetes.default.svc"},
	}, identity{"system:serviceaccount:default:default", []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:default"}})
}

// testSigner lets the controller manager sign a node's client certificate, and
// shows it to the API server; and a user's.
func testSigner(t *testing.T, c *controlPlane) {
	node, err := kubernetes.NewForConfig(c.conf(t, "kubelet"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		signer    string
		requester *kubernetes.Clientset
		want      identity
	}{
		{certificatesv1.KubeAPIServerClientKubeletSignerName, node, identity{"system:node:cp1", []string{"system:authenticated", "system:nodes"}}},
		{certificatesv1.KubeAPIServerClientSignerName, c.client(t), identity{"carol", []string{"system:authenticated", "testers"}}},
	} {
		groups := slices.DeleteFunc(slices.Clone(test.want.Groups), func(g string) bool { return g == "system:authenticated" })
		signed := c.sign(t, test.requester, test.signer, pkix.Name{CommonName: test.want.User, Organization: groups})
		isIdentity(t, test.signer, signed.as(c.admin), test.want)
	}
}

// sign requests a certificate, approves it as the administrator, and waits for
// the controller manager to sign it.
func (c *controlPlane) sign(t *testing.T, requester *kubernetes.Clientset, signer string, subject pkix.Name) credential {
	t.Helper()
	keyPEM, _ := newKey(t)
	block, _ := pem.Decode(keyPEM)
	key, err := privateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := requester.CertificatesV1().CertificateSigningRequests().Create(t.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "lab-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}),
			SignerName: signer,
			Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	requests := c.client(t).CertificatesV1().CertificateSigningRequests()
	eventually(t, "approve a request for "+signer, func(ctx context.Context) error {
		if csr, err = requests.Get(ctx, csr.Name, metav1.GetOptions{}); err != nil {
			return err
		}
		csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Lab", Message: "by the test",
		})
		_, err = requests.UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{})
		return err
	})
	eventually(t, signer+" signs", func(ctx context.Context) error {
		got, err := requests.Get(ctx, csr.Name, metav1.GetOptions{})
		if err == nil && len(got.Status.Certificate) == 0 {
			return errNotSigned
		}
		csr = got
		return err
	})
	return credential{csr.Status.Certificate, keyPEM}
}
