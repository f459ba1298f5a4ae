package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/trust"
)

// rootCAConfigMap is what the controller root-ca-certificate-publisher puts into
// each namespace, and the kubelet into pods.
const rootCAConfigMap = "kube-root-ca.crt"

// ServiceAccounts makes tokens of a cluster's service accounts. It may be used by
// several goroutines.
type ServiceAccounts struct{ core corev1client.CoreV1Interface }

// NewServiceAccounts returns the service accounts of the cluster that a
// configuration reaches. told hears of the API server's warnings, but for the one
// that it has shortened the life of a token: whoever asks sees that.
func NewServiceAccounts(config *rest.Config, told func(warning string)) (*ServiceAccounts, error) {
	config = rest.CopyConfig(config)
	config.Timeout, config.WarningHandler = requestTimeout, warnings(told)
	core, err := corev1client.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return &ServiceAccounts{core}, nil
}

type warnings func(string)

// HandleWarningHeader is called for each warning of an answer.
func (told warnings) HandleWarningHeader(_ int, _, text string) {
	// k8s.io/kubernetes/pkg/registry/core/serviceaccount/storage/token.go
	if told != nil && !strings.HasPrefix(text, "requested expiration of") {
		told(text)
	}
}

// TokenRequest says which token is wanted.
type TokenRequest struct {
	Namespace, Name string // of the service account
	UID             string // of the service account; "": whichever it has
	Audiences       []string
	Life            time.Duration // whole seconds
	// Kind of the object that the token is bound to, "": none; and its API
	// version, its name, and its uid, "": whichever it has.
	Kind, APIVersion    string
	BoundName, BoundUID string
	Attestations        map[string][]string
}

// ErrNoServiceAccount tells that there is no service account of this name.
var ErrNoServiceAccount = errors.New("there is no such service account")

// ErrNoObject tells that what a token is to be bound to does not exist.
var ErrNoObject = errors.New("there is none to bind the token to")

// Token has the API server make a token. The result is a secret.
func (s *ServiceAccounts) Token(ctx context.Context, r TokenRequest) (string, error) {
	o := &authenticationv1.TokenRequest{
		ObjectMeta: metav1.ObjectMeta{UID: types.UID(r.UID)},
		Spec:       authenticationv1.TokenRequestSpec{Audiences: r.Audiences, ExpirationSeconds: new(int64(r.Life / time.Second))},
	}
	if r.Kind != "" {
		o.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{
			Kind: r.Kind, APIVersion: r.APIVersion, Name: r.BoundName, UID: types.UID(r.BoundUID),
		}
	}
	for key, values := range r.Attestations {
		if o.Spec.Attestations == nil {
			o.Spec.Attestations = map[string]authenticationv1.AttestationValue{}
		}
		o.Spec.Attestations[key] = values
	}
	made, err := s.core.ServiceAccounts(r.Namespace).CreateToken(ctx, r.Name, o, metav1.CreateOptions{FieldManager: "kubepki"})
	switch {
	case apierrors.IsNotFound(err) && notFoundKind(err) == "serviceaccounts":
		err = ErrNoServiceAccount
	case apierrors.IsNotFound(err) && r.Kind != "":
		err = fmt.Errorf("%s %q: %w", r.Kind, r.BoundName, ErrNoObject)
	case err == nil && made.Status.Token == "":
		err = errors.New("the API server's answer holds none")
	}
	if err != nil {
		return "", fmt.Errorf("token of %s/%s: %w", r.Namespace, r.Name, err)
	}
	return made.Status.Token, nil
}

// notFoundKind returns the resource that the API server did not find.
func notFoundKind(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil {
		return status.Status().Details.Kind
	}
	return ""
}

// RootCA returns the PEM certificates by which pods of a namespace trust the API
// server, as they are published there. That there are none, or that they may not
// be read, is the API server's own error (k8s.io/apimachinery/pkg/api/errors).
func (s *ServiceAccounts) RootCA(ctx context.Context, namespace string) ([]byte, error) {
	m, err := s.core.ConfigMaps(namespace).Get(ctx, rootCAConfigMap, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("ConfigMap %s/%s: %w", namespace, rootCAConfigMap, err)
	}
	data := []byte(m.Data["ca.crt"])
	if _, err := trust.ParseCertificates(data); err != nil {
		return nil, fmt.Errorf("ConfigMap %s/%s: ca.crt: %w", namespace, rootCAConfigMap, err)
	}
	return data, nil
}
