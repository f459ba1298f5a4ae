package handover

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/bootstrap"
)

// SecretName is that of the Secret in kube-system (cmd/kubeadm/app/constants).
const SecretName = "kubeadm-certs"

// RoleName is that of the Role and the RoleBinding that let nodes which join read
// it.
const RoleName = "kubeadm:" + SecretName

// Life is how long the Secret stays: as long as the token that owns it.
const Life = 2 * time.Hour

// Owner is the bootstrap token with whose end the Secret is removed: one that is good
// for nothing else, as it has no usage.
func Owner(now time.Time) (*bootstrap.Spec, error) {
	token, err := bootstrap.GenerateToken()
	return &bootstrap.Spec{Token: token, Description: "Proxy for managing TTL for the kubeadm-certs secret", Expires: now.Add(Life)}, err
}

// Secret is the one that holds what was sealed, and that dies with its owner; nil: it
// stays until somebody removes it.
func Secret(data map[string][]byte, owner *corev1.Secret) *corev1.Secret {
	s := &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Name: SecretName, Namespace: metav1.NamespaceSystem}, Data: data}
	if owner != nil {
		s.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner, corev1.SchemeGroupVersion.WithKind("Secret"))}
	}
	return s
}

// Role lets its bearers read the Secret and nothing else.
func Role() *rbacv1.Role {
	return &rbacv1.Role{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "Role"},
		ObjectMeta: metav1.ObjectMeta{Name: RoleName, Namespace: metav1.NamespaceSystem},
		Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{SecretName}}},
	}
}

// RoleBinding gives it to tokens of nodes that join.
func RoleBinding() *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "RoleBinding"},
		ObjectMeta: metav1.ObjectMeta{Name: RoleName, Namespace: metav1.NamespaceSystem},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: RoleName},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.GroupKind, Name: bootstrap.NodeGroup}},
	}
}
