//go:build linux

package lab_test

import (
	"net/http"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// startCases have each shape of authority and each kind of key at least once.
// The one with the slowest keys has one node.
var startCases = []struct {
	name  string
	nodes int
	shape string
	flags []string
}{
	{"three authorities with RSA-2048", 3, "separate", []string{"--key-algorithm=RSA-2048"}},
	{"one root with three intermediates and ECDSA-P256", 3, "intermediate", []string{"--key-algorithm=ECDSA-P256"}},
	{"one shared authority with ECDSA-P384", 3, "shared", []string{"--key-algorithm=ECDSA-P384"}},
	{"an authority of its own for kubelets with RSA-3072", 3, "separate", []string{"--key-algorithm=RSA-3072", "--kubelet-authority"}},
	{"three authorities with Ed25519", 3, "separate", []string{"--key-algorithm=Ed25519"}},
	{"intermediates and an authority for kubelets with RSA-4096", 1, "intermediate", []string{"--key-algorithm=RSA-4096", "--kubelet-authority"}},
}

// controlPlaneTests are asked of each running cluster.
var controlPlaneTests = []struct {
	name  string
	run   func(*testing.T, *controlPlane)
	signs bool // needs the key of the cluster's authority on cp1
}{
	{"etcd serves the health-check credential", testEtcdHealth, false},
	{"etcd refuses clients of other authorities", testEtcdRefuses, false},
	{"each component is whom it should be", testIdentities, false},
	{"a made user is whom it should be", testUser, true},
	{"a stranger is nobody", testStrangers, false},
	{"only the front proxy may speak for others", testFrontProxy, false},
	{"controller manager and scheduler hold their leases", testLeases, false},
	{"a pod's token and root certificate work", testServiceAccount, false},
	{"the controller manager signs certificates that work", testSigner, true},
}

func TestControlPlaneRunsOnTheFilesOfInit(t *testing.T) {
	for _, c := range startCases {
		t.Run(c.name, func(t *testing.T) {
			plane := startCluster(t, initCluster(t, c.nodes, append(c.flags, "--authorities="+c.shape)...), c.shape, c.nodes)
			plane.worker = true
			for _, test := range controlPlaneTests {
				t.Run(test.name, func(t *testing.T) { test.run(t, plane) })
			}
		})
	}
}

func testIdentities(t *testing.T, c *controlPlane) {
	tests := map[string]identity{
		"super-admin":        {"kubernetes-super-admin", []string{"system:authenticated", "system:masters"}},
		"admin":              {"kubernetes-admin", []string{"kubeadm:cluster-admins", "system:authenticated"}},
		"controller-manager": {"system:kube-controller-manager", []string{"system:authenticated"}},
		"scheduler":          {"system:kube-scheduler", []string{"system:authenticated"}},
		"kubelet":            {"system:node:cp1", []string{"system:authenticated", "system:nodes"}},
	}
	for name, want := range tests {
		isIdentity(t, name+".conf", c.conf(t, name), want)
	}
	isIdentity(t, "apiserver-kubelet-client", load(t, c.pki("apiserver-kubelet-client")).as(c.admin),
		identity{"kube-apiserver-kubelet-client", []string{"system:authenticated"}})
	if worker := c.path("w1", "etc/kubernetes/kubelet.conf"); c.worker {
		isIdentity(t, "the worker's kubelet.conf", restConfig(t, worker), identity{"system:node:w1", []string{"system:authenticated", "system:nodes"}})
	}
}

// testUser makes a user with kubepki and asks who that is.
func testUser(t *testing.T, c *controlPlane) {
	jane := filepath.Join(t.TempDir(), "jane.conf")
	run(t, "kubepki", "kubeconfig", "user", "jane", "--group=dev", "--root="+c.path("cp1", ""), "-f", jane)
	isIdentity(t, "the kubeconfig of jane", restConfig(t, jane), identity{"jane", []string{"dev", "system:authenticated"}})
}

// isIdentity checks whom the API server takes a credential for.
func isIdentity(t *testing.T, what string, config *rest.Config, want identity) {
	t.Helper()
	got, err := whoami(t, config)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// testStrangers shows credentials that other authorities signed.
func testStrangers(t *testing.T, c *controlPlane) {
	other := initCluster(t, 1, "--key-algorithm=ECDSA-P256")
	names := map[string]credential{
		"an administrator of another cluster": forge(t, filepath.Join(other, "cp1/etc/kubernetes/pki/ca"), "kubernetes-super-admin", "system:masters"),
		"a front proxy without its headers":   load(t, c.pki("front-proxy-client")),
	}
	if c.shape != "shared" {
		names["a name of power, signed by etcd's authority"] = forge(t, c.authority("etcd/ca"), "kubernetes-super-admin", "system:masters")
		names["etcd's health check"] = load(t, c.pki("etcd/healthcheck-client"))
	}
	if c.shape == "intermediate" {
		names["a name of power, signed by etcd's authority, with its chain to the root"] =
			forge(t, c.authority("etcd/ca"), "kubernetes-super-admin", "system:masters").with(t, c.pki("etcd/ca.crt"), c.pki("root-ca.crt"))
	}
	for name, stranger := range names {
		if got, err := whoami(t, stranger.as(c.admin)); !apierrors.IsUnauthorized(err) {
			t.Errorf("%s is %+v, %v; want 401 Unauthorized", name, got, err)
		}
	}
}

// testFrontProxy sends X-Remote-User with credentials that may, and may not.
func testFrontProxy(t *testing.T, c *controlPlane) {
	const frontProxy = "front-proxy-client" // the name that --requestheader-allowed-names allows
	own := identity{frontProxy, []string{"system:authenticated"}}
	tests := []struct {
		name string
		show credential
		want identity
	}{
		{"the front proxy", load(t, c.pki("front-proxy-client")), identity{"heather", []string{"system:authenticated", "via-proxy"}}},
		{"its name, signed by the cluster's authority", forge(t, c.authority("ca"), frontProxy), own},
		{"its name and the cluster's authority in the chain", forge(t, c.authority("ca"), frontProxy).with(t, c.pki("ca.crt")), own},
	}
	if c.shape == "intermediate" {
		tests = append(tests, struct {
			name string
			show credential
			want identity
		}{"its name and the whole chain to the root", forge(t, c.authority("ca"), frontProxy).with(t, c.pki("ca.crt"), c.pki("root-ca.crt")), own})
	}
	for _, test := range tests {
		config := test.show.as(c.admin)
		config.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return headers{map[string]string{"X-Remote-User": "heather", "X-Remote-Group": "via-proxy"}, next}
		})
		isIdentity(t, test.name, config, test.want)
	}
}

// client is a client of the cluster with all rights.
func (c *controlPlane) client(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.admin)
	if err != nil {
		t.Fatal(err)
	}
	return client
}
