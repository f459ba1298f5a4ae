package bootstrap

import (
	"bytes"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cluster-bootstrap/token/api"
	"sigs.k8s.io/yaml"
)

// Names of the objects that kubeadm makes (cmd/kubeadm/app/constants).
const (
	clusterInfoRole    = "kubeadm:bootstrap-signer-clusterinfo"
	bootstrapBinding   = "kubeadm:kubelet-bootstrap"
	approveBinding     = "kubeadm:node-autoapprove-bootstrap"
	rotationBinding    = "kubeadm:node-autoapprove-certificate-rotation"
	getNodes           = "kubeadm:get-nodes"
	anonymousUser      = "system:anonymous"
	nodesGroup         = "system:nodes"
	bootstrapperRole   = "system:node-bootstrapper"
	nodeClientRole     = "system:certificates.k8s.io:certificatesigningrequests:nodeclient"
	selfNodeClientRole = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"
)

// Manifests returns all that a cluster needs so that nodes can join with a
// token: what kubeadm init phase bootstrap-token makes, and in the same order,
// with cluster-info signed already where the token may sign. The CA is PEM.
func Manifests(s *Spec, server string, ca []byte) ([]any, error) {
	info, err := clusterInfoMap(s, server, ca)
	if err != nil {
		return nil, err
	}
	bootstrappers := subject(rbacv1.GroupKind, NodeGroup)
	return []any{
		s.Secret(),
		&rbacv1.ClusterRole{
			TypeMeta: rbac("ClusterRole"), ObjectMeta: metav1.ObjectMeta{Name: getNodes},
			Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"nodes"}}},
		},
		binding(getNodes, getNodes, bootstrappers),
		binding(bootstrapBinding, bootstrapperRole, bootstrappers),
		binding(approveBinding, nodeClientRole, bootstrappers),
		binding(rotationBinding, selfNodeClientRole, subject(rbacv1.GroupKind, nodesGroup)),
		info,
		&rbacv1.Role{
			TypeMeta: rbac("Role"), ObjectMeta: metav1.ObjectMeta{Name: clusterInfoRole, Namespace: metav1.NamespacePublic},
			Rules: []rbacv1.PolicyRule{{
				Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"configmaps"},
				ResourceNames: []string{api.ConfigMapClusterInfo},
			}},
		},
		&rbacv1.RoleBinding{
			TypeMeta: rbac("RoleBinding"), ObjectMeta: metav1.ObjectMeta{Name: clusterInfoRole, Namespace: metav1.NamespacePublic},
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: clusterInfoRole},
			Subjects: []rbacv1.Subject{subject(rbacv1.UserKind, anonymousUser)},
		},
	}, nil
}

func clusterInfoMap(s *Spec, server string, ca []byte) (*corev1.ConfigMap, error) {
	kubeconfig, err := ClusterInfoKubeconfig(server, ca)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig of cluster-info: %w", err)
	}
	data := map[string]string{api.KubeConfigKey: string(kubeconfig)}
	if s.May(Signing) {
		if data[SignatureKey(s.Token.id)], err = Sign(kubeconfig, s.Token); err != nil {
			return nil, err
		}
	}
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Name: api.ConfigMapClusterInfo, Namespace: metav1.NamespacePublic},
		Data:       data,
	}, nil
}

func rbac(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: kind}
}

// subject has the group that the API server gives to subjects without one
// (pkg/apis/rbac/v1/defaults.go): server-side apply compares the whole list
// before that, and would see a conflict with what kubeadm made.
func subject(kind, name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
}

func binding(name, role string, to rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		TypeMeta: rbac("ClusterRoleBinding"), ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects: []rbacv1.Subject{to},
	}
}

// EncodeManifests writes objects as the documents of one YAML stream.
func EncodeManifests(objects []any) ([]byte, error) {
	var out bytes.Buffer
	for i, o := range objects {
		document, err := yaml.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("encoding manifest %d: %w", i+1, err)
		}
		if i > 0 {
			out.WriteString("---\n")
		}
		out.Write(document)
	}
	return out.Bytes(), nil
}
