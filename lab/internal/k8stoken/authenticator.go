package k8stoken

import (
	"context"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/kubernetes/pkg/serviceaccount"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kubepki/kubepki/token"
)

// Authenticator judges tokens as kube-apiserver does. It may be used by several
// goroutines.
type Authenticator struct{ token authenticator.Token }

// New returns an authenticator with some public keys, issuers and audiences of
// the API server. Tokens of Secrets are accepted too, and judged by themselves
// (pkg/kubeapiserver/authenticator/config.go).
func New(keys []any, issuers, apiAudiences []string) (*Authenticator, error) {
	getter, err := serviceaccount.StaticPublicKeysGetter(keys)
	if err != nil {
		return nil, err
	}
	validator, err := serviceaccount.NewLegacyValidator(false, nil, nil)
	if err != nil {
		return nil, err
	}
	legacy := serviceaccount.JWTTokenAuthenticator([]string{serviceaccount.LegacyIssuer}, getter, apiAudiences, validator)
	if len(issuers) == 0 {
		return &Authenticator{legacy}, nil
	}
	projected, err := NewProjected(keys, issuers, apiAudiences)
	if err != nil {
		return nil, err
	}
	return &Authenticator{tokenunion.New(legacy, projected.token)}, nil
}

// NewProjected returns an authenticator of projected tokens alone.
func NewProjected(keys []any, issuers, apiAudiences []string) (*Authenticator, error) {
	getter, err := serviceaccount.StaticPublicKeysGetter(keys)
	if err != nil {
		return nil, err
	}
	return &Authenticator{serviceaccount.JWTTokenAuthenticator(issuers, getter, apiAudiences, serviceaccount.NewValidator(objects{}))}, nil
}

// Named are the uids of the objects that exist, by the kind in lower case.
type Named map[string]string

// Authenticate judges a token for some audiences; none: those of the API server.
// The response is nil when it is refused, with an error or without.
func (a *Authenticator) Authenticate(ctx context.Context, token string, audiences []string) (*authenticator.Response, error) {
	return a.AuthenticateIn(ctx, ReadNamed(token), token, audiences)
}

// AuthenticateIn is Authenticate in a cluster of some objects, which are found at
// once: what remains is Kubernetes' work alone.
func (a *Authenticator) AuthenticateIn(ctx context.Context, objects Named, token string, audiences []string) (*authenticator.Response, error) {
	if audiences != nil {
		ctx = authenticator.WithAudiences(ctx, audiences)
	}
	response, ok, err := a.token.AuthenticateToken(context.WithValue(ctx, namedKey{}, objects), token)
	if !ok || err != nil {
		return nil, err
	}
	return response, nil
}

// Differ tells how what Kubernetes says of an accepted token differs from what
// package token says; empty when it does not.
func Differ(theirs *authenticator.Response, ours *token.Verified) string {
	u := theirs.User
	want := token.User{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups(), Extra: u.GetExtra()}
	return cmp.Diff(want, ours.User, cmpopts.EquateEmpty())
}

// objects are those that the context names.
type objects struct{}

type namedKey struct{}

func meta(ctx context.Context, kind, namespace, name string) (metav1.ObjectMeta, error) {
	named, _ := ctx.Value(namedKey{}).(Named)
	if name == "" {
		return metav1.ObjectMeta{}, fmt.Errorf("%s without a name", kind)
	}
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(named[kind])}, nil
}

func (objects) GetServiceAccount(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	if namespace == "" {
		return nil, fmt.Errorf("a service account without a namespace")
	}
	m, err := meta(ctx, "serviceaccount", namespace, name)
	return &corev1.ServiceAccount{ObjectMeta: m}, err
}

func (objects) GetPod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	m, err := meta(ctx, "pod", namespace, name)
	return &corev1.Pod{ObjectMeta: m}, err
}

func (objects) GetSecret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	m, err := meta(ctx, "secret", namespace, name)
	return &corev1.Secret{ObjectMeta: m}, err
}

func (objects) GetNode(ctx context.Context, name string) (*corev1.Node, error) {
	m, err := meta(ctx, "node", "", name)
	return &corev1.Node{ObjectMeta: m}, err
}

func (objects) GetValidatingWebhookConfiguration(ctx context.Context, name string) (*admissionregistrationv1.ValidatingWebhookConfiguration, error) {
	m, err := meta(ctx, "validatingwebhookconfiguration", "", name)
	return &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: m}, err
}

func (objects) GetMutatingWebhookConfiguration(ctx context.Context, name string) (*admissionregistrationv1.MutatingWebhookConfiguration, error) {
	m, err := meta(ctx, "mutatingwebhookconfiguration", "", name)
	return &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: m}, err
}
