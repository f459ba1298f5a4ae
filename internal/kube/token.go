package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/cluster-bootstrap/token/api"

	"github.com/kubepki/kubepki/internal/bootstrap"
)

// Tokens is the bootstrap tokens of a cluster.
type Tokens struct {
	core corev1client.CoreV1Interface
}

// requestTimeout bounds one request of a command that people wait for.
const requestTimeout = 30 * time.Second

// NewTokens returns the tokens of the cluster that a configuration reaches.
func NewTokens(config *rest.Config) (*Tokens, error) {
	config = rest.CopyConfig(config)
	config.Timeout = requestTimeout
	core, err := corev1client.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return &Tokens{core}, nil
}

// ErrTokenExists tells that there is a token of this id.
var ErrTokenExists = errors.New("there is one already")

// ErrNoToken tells that there is no token of this id.
var ErrNoToken = errors.New("there is none")

// Create makes the Secret of a token; dryRun has the API server check it
// alone.
func (t *Tokens) Create(ctx context.Context, s *bootstrap.Spec, dryRun bool) error {
	var options metav1.CreateOptions
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	_, err := t.core.Secrets(metav1.NamespaceSystem).Create(ctx, s.Secret(), options)
	if apierrors.IsAlreadyExists(err) {
		err = ErrTokenExists
	}
	if err != nil {
		return fmt.Errorf("creating token %q: %w", s.Token.ID(), err)
	}
	return nil
}

// List returns the Secrets of all tokens, expired and malformed ones too,
// sorted by name.
func (t *Tokens) List(ctx context.Context) ([]corev1.Secret, error) {
	list, err := t.core.Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("type", string(api.SecretTypeBootstrapToken)).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("listing tokens: %w", err)
	}
	return list.Items, nil
}

// Get returns the Secret of a token.
func (t *Tokens) Get(ctx context.Context, id string) (*corev1.Secret, error) {
	s, err := t.core.Secrets(metav1.NamespaceSystem).Get(ctx, bootstrap.SecretName(id), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		err = ErrNoToken
	}
	if err != nil {
		return nil, fmt.Errorf("token %q: %w", id, err)
	}
	return s, nil
}

// Delete removes a token; dryRun has the API server check it alone.
func (t *Tokens) Delete(ctx context.Context, id string, dryRun bool) error {
	var options metav1.DeleteOptions
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	err := t.core.Secrets(metav1.NamespaceSystem).Delete(ctx, bootstrap.SecretName(id), options)
	if apierrors.IsNotFound(err) {
		err = ErrNoToken
	}
	if err != nil {
		return fmt.Errorf("deleting token %q: %w", id, err)
	}
	return nil
}

// ClusterInfo returns the data of the ConfigMap kube-public/cluster-info; nil
// where there is none.
func (t *Tokens) ClusterInfo(ctx context.Context) (map[string]string, error) {
	m, err := t.core.ConfigMaps(metav1.NamespacePublic).Get(ctx, api.ConfigMapClusterInfo, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("cluster-info: %w", err)
	}
	return m.Data, nil
}

// Server returns the URL of the API server that a configuration reaches, and
// the PEM certificates by which it is trusted.
func Server(config *rest.Config) (server string, ca []byte, err error) {
	config = rest.CopyConfig(config)
	if err := rest.LoadTLSFiles(config); err != nil {
		return "", nil, fmt.Errorf("kubeconfig: %w", err)
	}
	if len(config.CAData) == 0 {
		return "", nil, errors.New("kubeconfig: its cluster has no certificate authority, so that nodes could not be told whom to trust")
	}
	return config.Host, config.CAData, nil
}
