package bootstrap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/util"
)

// What a token may be used for.
const (
	Signing        = "signing"        // cluster-info is signed with it
	Authentication = "authentication" // it is a bearer token of the API server
)

// NodeGroup is the group that kubeadm gives to tokens of nodes that join, and
// to which its roles are bound.
const NodeGroup = "system:bootstrappers:kubeadm:default-node-token"

// DefaultLife is the life of a token where none is named, as in kubeadm.
const DefaultLife = 24 * time.Hour

// Spec is what a token is made with.
type Spec struct {
	Token       Token
	Description string
	Expires     time.Time // to the second; zero: never
	Usages      []string  // Signing, Authentication
	Groups      []string  // beside system:bootstrappers
}

// Check refuses what kubeadm refuses (cmd/kubeadm/app/apis/kubeadm/validation)
// and, beyond that, a token that is good for nothing.
func (s *Spec) Check() error {
	if len(s.Usages) == 0 {
		return fmt.Errorf("a token without usages is good for nothing: use %s, %s or both", Signing, Authentication)
	}
	for _, u := range s.Usages {
		if !slices.Contains(api.KnownTokenUsages, u) {
			return fmt.Errorf("usage %q is neither %s nor %s", u, Signing, Authentication)
		}
	}
	if len(s.Groups) > 0 && !s.May(Authentication) {
		return errors.New("groups are for a token that may be used for " + Authentication)
	}
	for _, g := range s.Groups {
		if util.ValidateBootstrapGroupName(g) != nil {
			return fmt.Errorf("group %q is not system:bootstrappers:NAME, with a name of a-z, 0-9, : and - that ends with a letter or a digit", g)
		}
	}
	return nil
}

// May tells whether the token is for a usage.
func (s *Spec) May(usage string) bool { return slices.Contains(s.Usages, usage) }

// Secret returns the object that holds the token, as kubeadm makes it
// (cmd/kubeadm/app/apis/bootstraptoken/v1/utils.go). It is the secret itself.
func (s *Spec) Secret() *corev1.Secret {
	data := map[string][]byte{
		api.BootstrapTokenIDKey:     []byte(s.Token.id),
		api.BootstrapTokenSecretKey: []byte(s.Token.secret),
	}
	if s.Description != "" {
		data[api.BootstrapTokenDescriptionKey] = []byte(s.Description)
	}
	if !s.Expires.IsZero() {
		data[api.BootstrapTokenExpirationKey] = []byte(s.Expires.UTC().Format(time.RFC3339))
	}
	for _, u := range s.Usages {
		data[api.BootstrapTokenUsagePrefix+u] = []byte("true")
	}
	if len(s.Groups) > 0 {
		data[api.BootstrapTokenExtraGroupsKey] = []byte(strings.Join(s.Groups, ","))
	}
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: SecretName(s.Token.id), Namespace: metav1.NamespaceSystem},
		Type:       api.SecretTypeBootstrapToken,
		Data:       data,
	}
}
