//go:build linux

package lab_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func TestRequestsByHand(t *testing.T) {
	// The lab's addresses lie within the default range of services, which no node
	// may claim.
	c := startCluster(t, initCluster(t, 1, "--key-algorithm=ECDSA-P256", "--service-cidr=172.20.0.0/16"), "separate", 1)
	admin := c.path("cp1", "etc/kubernetes/super-admin.conf")
	t.Run("a user gets a kubeconfig that works", func(t *testing.T) { testCSRCreate(t, c, admin) })
	t.Run("the API server too refuses system:masters", func(t *testing.T) { testMastersRefused(t, c) })
	t.Run("serving certificates are reviewed, approved and denied", func(t *testing.T) { testCSRServing(t, c, admin) })
}

// testCSRCreate makes one user as the administrator, and a second as the first,
// who may ask and not approve.
func testCSRCreate(t *testing.T, c *controlPlane, admin string) {
	jane, bob := filepath.Join(t.TempDir(), "jane.conf"), filepath.Join(t.TempDir(), "bob.conf")
	run(t, "kubepki", "csr", "create", "--kubeconfig="+admin, "--user=jane", "--group=dev", "--kubeconfig-out="+jane)
	isIdentity(t, "the kubeconfig", restConfig(t, jane), identity{"jane", []string{"dev", "system:authenticated"}})

	asJane := []string{"csr", "create", "--kubeconfig=" + jane, "--user=bob", "--kubeconfig-out=" + bob, "--timeout=1s"}
	if out, err := try(t, "kubepki", asJane...); exitCode(err) != 1 || !strings.Contains(out.stderr, "forbidden") {
		t.Fatalf("jane may not ask yet, and got: %v\n%s", err, out.stderr)
	}
	c.allow(t, "dev", rbacv1.PolicyRule{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"create", "get"}})
	eventually(t, "jane may ask, and not approve", func(context.Context) error {
		out, err := try(t, "kubepki", asJane...)
		if exitCode(err) != 1 || !strings.Contains(out.stderr, "you may not approve it") || !strings.Contains(out.stderr, "has no certificate yet") {
			return errors.New(out.stderr)
		}
		return nil
	})
	pending := strings.Fields(run(t, "kubepki", "csr", "list", "--kubeconfig="+admin, "--state=pending", "-o", "name").stdout)
	if len(pending) != 1 {
		t.Fatalf("the requests that wait are %q, want one", pending)
	}
	out := run(t, "kubepki", "csr", "approve", "--kubeconfig="+admin, strings.TrimPrefix(pending[0], "certificatesigningrequest.certificates.k8s.io/"))
	if !strings.Contains(out.stderr, "the policy says Undecided") {
		t.Errorf("approve says\n%s", out.stderr)
	}
	if out := run(t, "kubepki", asJane...); !strings.Contains(out.stderr, "going on with request bob-") {
		t.Errorf("the second run says\n%s", out.stderr)
	}
	isIdentity(t, "the second kubeconfig", restConfig(t, bob), identity{"bob", []string{"system:authenticated"}})
	if _, err := os.Stat(bob + ".pending"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the key is still beside it: %v", err)
	}
}

// allow gives a group some rights.
func (c *controlPlane) allow(t *testing.T, group string, rule rbacv1.PolicyRule) {
	t.Helper()
	rbac := c.client(t).RbacV1()
	meta := metav1.ObjectMeta{Name: "lab-" + group}
	if _, err := rbac.ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{rule}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := rbac.ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: meta.Name},
		Subjects: []rbacv1.Subject{{APIGroup: "rbac.authorization.k8s.io", Kind: "Group", Name: group}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// testMastersRefused shows the rule on which csr create refuses the group.
func testMastersRefused(t *testing.T, c *controlPlane) {
	_, err := c.request(t, c.client(t), "masters", certificatesv1.KubeAPIServerClientSignerName, certificatesv1.UsageClientAuth, x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "root", Organization: []string{"system:masters"}},
	})
	if !apierrors.IsForbidden(err) {
		t.Errorf("the API server says %v, want that it is forbidden", err)
	}
}

// request makes a CertificateSigningRequest.
func (c *controlPlane) request(t *testing.T, as kubernetes.Interface, name, signer string, usage certificatesv1.KeyUsage, asked x509.CertificateRequest) (*certificatesv1.CertificateSigningRequest, error) {
	t.Helper()
	keyPEM, _ := newKey(t)
	block, _ := pem.Decode(keyPEM)
	key, err := privateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &asked, key)
	if err != nil {
		t.Fatal(err)
	}
	return as.CertificatesV1().CertificateSigningRequests().Create(t.Context(), &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: signer,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, usage},
		},
	}, metav1.CreateOptions{})
}

// testCSRServing asks as the node cp1, for an address of its own and for
// another's.
func testCSRServing(t *testing.T, c *controlPlane, admin string) {
	node, err := kubernetes.NewForConfig(c.conf(t, "kubelet"))
	if err != nil {
		t.Fatal(err)
	}
	for name, address := range map[string]string{"own": "10.99.0.11", "foreign": "10.99.0.99"} {
		if _, err := c.request(t, node, name, certificatesv1.KubeletServingSignerName, certificatesv1.UsageServerAuth, x509.CertificateRequest{
			Subject:     pkix.Name{CommonName: "system:node:cp1", Organization: []string{"system:nodes"}},
			IPAddresses: []net.IP{net.ParseIP(address)},
		}); err != nil {
			t.Fatal(err)
		}
	}
	verdict := func(name string) string {
		t.Helper()
		var review struct {
			Kind, Verdict string
			Reasons       []struct{ ID, Message string }
		}
		out := run(t, "kubepki", "csr", "review", name, "--kubeconfig="+admin, "-o", "json")
		if err := json.Unmarshal([]byte(out.stdout), &review); err != nil || review.Kind != "Review" || len(review.Reasons) == 0 {
			t.Fatalf("review says %s, %v", out.stdout, err)
		}
		return review.Verdict
	}
	if got := verdict("foreign"); got != "Undecided" {
		t.Errorf("before the node is registered the policy says %s, want Undecided", got)
	}
	c.register(t, "cp1", "10.99.0.11")
	if own, foreign := verdict("own"), verdict("foreign"); own != "Approve" || foreign != "Deny" {
		t.Errorf("the policy says %s of its own address and %s of another's", own, foreign)
	}
	// The same file, by what kubectl prints, without the cluster.
	file := write(t, filepath.Join(t.TempDir(), "foreign.yaml"), run(t, "kubectl", "--kubeconfig="+admin, "get", "csr", "foreign", "-o", "yaml").stdout)
	nodes := write(t, filepath.Join(t.TempDir(), "nodes.yaml"), run(t, "kubectl", "--kubeconfig="+admin, "get", "nodes", "-o", "yaml").stdout)
	if out, err := try(t, "kubepki", "csr", "review", "-f", file, "--nodes", nodes, "--fail-on=deny"); exitCode(err) != 3 {
		t.Errorf("offline: %v\n%s%s", err, out.stdout, out.stderr)
	}
	if out, err := try(t, "kubepki", "csr", "approve", "foreign", "--kubeconfig="+admin); exitCode(err) != 1 {
		t.Errorf("approve of what the policy denies: %v\n%s%s", err, out.stdout, out.stderr)
	}
	run(t, "kubepki", "csr", "approve", "own", "--kubeconfig="+admin)
	run(t, "kubepki", "csr", "deny", "foreign", "--kubeconfig="+admin)
	eventually(t, "the controller manager signs what was approved", func(context.Context) error {
		out := run(t, "kubepki", "csr", "list", "--kubeconfig="+admin, "--signer=kubelet-serving", "--review")
		if !strings.Contains(out.stdout, "Issued") || !strings.Contains(out.stdout, "Denied") {
			return errors.New(out.stdout)
		}
		return nil
	})
}

// register makes a Node, as a kubelet does.
func (c *controlPlane) register(t *testing.T, name, address string) {
	t.Helper()
	nodes := c.client(t).CoreV1().Nodes()
	node, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"node-role.kubernetes.io/control-plane": ""}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}, {Type: corev1.NodeHostName, Address: name}}
	if _, err := nodes.UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}
