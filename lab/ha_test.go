//go:build linux

package lab_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/lab"
)

const externalEtcd = `apiVersion: kubepki.dev/v1alpha1
kind: Cluster
kubernetesVersion: v1.37.2
controlPlaneEndpoint: 10.99.0.11:6443
encryptionAlgorithm: ECDSA-P256
authorities: {shape: intermediate}
controlPlanes:
- {name: cp1, address: 10.99.0.11}
- {name: cp2, address: 10.99.0.12}
workers:
- {name: w1, address: 10.99.0.21}
etcd:
  members:
  - {name: etcd1, address: 10.99.0.31}
  - {name: etcd2, address: 10.99.0.32}
  - {name: etcd3, address: 10.99.0.33}
users:
- {name: jane, groups: [dev], validity: 720h}
`

// Two control planes over etcd on nodes of its own, from kubepki's own
// configuration: whatever one API server admits, the other does.
func TestTwoControlPlanesRunOverExternalEtcd(t *testing.T) {
	dir := t.TempDir()
	run(t, "kubepki", "init", "--manifests", "--out="+dir, "--config="+write(t, filepath.Join(t.TempDir(), "cluster.yaml"), externalEtcd))
	proved(t, verify(t, dir), 1, 3, 5, 6, 8, 9)
	network := newNetwork(t)
	var etcd, servers []*lab.Process
	for i := 1; i <= 3; i++ {
		name := fmt.Sprintf("etcd%d", i)
		node := addNode(t, network, name, filepath.Join(dir, name), fmt.Sprintf("10.99.0.3%d/24", i))
		etcd = append(etcd, start(t, node, "etcd", "--unsafe-no-fsync"))
	}
	ready(t, etcd...)
	for i := 1; i <= 2; i++ {
		name := fmt.Sprintf("cp%d", i)
		node := addNode(t, network, name, filepath.Join(dir, name), fmt.Sprintf("10.99.0.1%d/24", i))
		servers = append(servers, start(t, node, "kube-apiserver"))
		if i == 2 { // not beside the API server that its kubeconfig names
			servers = append(servers, start(t, node, "kube-controller-manager"), start(t, node, "kube-scheduler"))
		}
	}
	ready(t, servers...)
	plane := &controlPlane{dir: dir, shape: "intermediate", worker: true}
	for _, address := range []string{"10.99.0.11", "10.99.0.12"} {
		plane.admin = at(plane.conf(t, "super-admin"), address)
		isIdentity(t, "jane at "+address, at(restConfig(t, filepath.Join(dir, "users/jane.conf")), address), identity{"jane", []string{"dev", "system:authenticated"}})
		isIdentity(t, "w1 at "+address, at(restConfig(t, plane.path("w1", "etc/kubernetes/kubelet.conf")), address), identity{"system:node:w1", []string{"system:authenticated", "system:nodes"}})
	}
	testLeases(t, plane)
	testServiceAccount(t, plane)
	testTokenElsewhere(t, plane)
}

// at calls another address of the cluster.
func at(config *rest.Config, address string) *rest.Config {
	config = rest.CopyConfig(config)
	config.Host = "https://" + address + ":6443"
	return config
}

// testTokenElsewhere shows a token of one API server to the other.
func testTokenElsewhere(t *testing.T, c *controlPlane) {
	t.Helper()
	token, err := c.client(t).CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(at(c.admin, "10.99.0.11"))
	config.BearerToken = token.Status.Token
	isIdentity(t, "a token of the other API server", config,
		identity{"system:serviceaccount:default:default", []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:default"}})
}

// The flags for systemd units are those that the manifests hold, and so those
// that every test here starts the components with.
func TestShowFlagsPrintsTheFlagsOfTheManifests(t *testing.T) {
	for _, shape := range []string{"separate", "intermediate", "shared"} {
		root := filepath.Join(initCluster(t, 3, "--key-algorithm=ECDSA-P256", "--authorities="+shape, "--kubelet-authority"), "cp2")
		for _, component := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
			manifest, err := lab.ReadManifest(root, component)
			if err != nil {
				t.Fatal(err)
			}
			shown := strings.Fields(run(t, "kubepki", "show", "flags", component, "--root="+root).stdout)
			if d := cmp.Diff(manifest.Command[1:], shown); d != "" {
				t.Errorf("%s, %s (-manifest +shown):\n%s", shape, component, d)
			}
		}
	}
}

// Without manifests, for those who write units first: the flags follow from the
// configuration.
func TestShowFlagsOfAConfigurationAreThoseOfItsManifests(t *testing.T) {
	dir := t.TempDir()
	config := write(t, filepath.Join(t.TempDir(), "cluster.yaml"), externalEtcd)
	run(t, "kubepki", "init", "--manifests", "--out="+dir, "--config="+config)
	for component, node := range map[string]string{"etcd": "etcd2", "kube-apiserver": "cp2", "kube-controller-manager": "cp1", "kube-scheduler": "cp1"} {
		manifest, err := lab.ReadManifest(filepath.Join(dir, node), component)
		if err != nil {
			t.Fatal(err)
		}
		shown := strings.Fields(run(t, "kubepki", "show", "flags", component, "--config="+config, "--node="+node).stdout)
		if d := cmp.Diff(manifest.Command[1:], shown); d != "" {
			t.Errorf("%s of %s (-manifest +shown):\n%s", component, node, d)
		}
	}
}
