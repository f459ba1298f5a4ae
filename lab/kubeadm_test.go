//go:build linux

package lab_test

import (
	"path/filepath"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const plainConfig = `apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration: {name: cp1}
localAPIEndpoint: {advertiseAddress: 10.99.0.11, bindPort: 6443}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.37.2
`

// The control experiment: what the lab asks of kubepki's nodes holds for
// kubeadm's own.
func TestControlPlaneRunsOnTheFilesOfKubeadm(t *testing.T) {
	root := kubeadmNode(t, plainConfig)
	node := addNode(t, newNetwork(t), "cp1", root, "10.99.0.11/24")
	etcd := start(t, node, "etcd", "--unsafe-no-fsync")
	apiserver := start(t, node, "kube-apiserver")
	ready(t, etcd, apiserver)
	ready(t, start(t, node, "kube-controller-manager"), start(t, node, "kube-scheduler"))
	admin := clientset(t, filepath.Join(root, "etc/kubernetes/super-admin.conf"))
	review, err := admin.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := review.Status.UserInfo.Username; got != "kubernetes-super-admin" {
		t.Errorf("super-admin.conf is %q", got)
	}
}
