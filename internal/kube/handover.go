package kube

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/handover"
)

// HandedOver is the Secret of kubeadm's upload-certs in a cluster.
type HandedOver struct {
	client kubernetes.Interface
}

// NewHandedOver returns that of the cluster that a configuration reaches.
func NewHandedOver(config *rest.Config) (*HandedOver, error) {
	config = rest.CopyConfig(config)
	config.Timeout = requestTimeout
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return &HandedOver{client}, nil
}

// ErrNothingHandedOver tells that the Secret is not there, or not any more.
var ErrNothingHandedOver = errors.New("is not there: it lives for two hours")

// ErrMayNotRead tells that whoever asked may not read the Secret.
var ErrMayNotRead = errors.New("may not be read with this credential")

// Get returns what the Secret holds.
func (h *HandedOver) Get(ctx context.Context) (map[string][]byte, error) {
	s, err := h.client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, handover.SecretName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		err = ErrNothingHandedOver
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		err = fmt.Errorf("%w: %w", ErrMayNotRead, err)
	}
	if err != nil {
		return nil, fmt.Errorf("secret kube-system/%s: %w", handover.SecretName, err)
	}
	return s.Data, nil
}

// Put makes or replaces the Secret, the token with whose end it is removed, and what
// lets nodes that join read it. It returns when that end is. When it fails no new
// token stays; what was replaced is not put back. dryRun has the API server check
// it alone.
func (h *HandedOver) Put(ctx context.Context, data map[string][]byte, now time.Time, dryRun bool) (end time.Time, err error) {
	spec, err := handover.Owner(now)
	if err != nil {
		return end, err
	}
	var create metav1.CreateOptions
	var update metav1.UpdateOptions
	if dryRun {
		create.DryRun, update.DryRun = []string{metav1.DryRunAll}, []string{metav1.DryRunAll}
	}
	secrets := h.client.CoreV1().Secrets(metav1.NamespaceSystem)
	owner, err := secrets.Create(ctx, spec.Secret(), create)
	if err != nil {
		return end, fmt.Errorf("making the token that ends the Secret: %w", err)
	}
	defer func() {
		if err != nil && !dryRun {
			// The context may be over, and the token is to go nevertheless.
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
			defer cancel()
			_ = secrets.Delete(clean, owner.Name, metav1.DeleteOptions{})
		}
	}()
	wanted := handover.Secret(data, owner)
	if err := createOrUpdate(ctx, wanted, secrets.Create, secrets.Update, create, update); err != nil {
		return end, fmt.Errorf("secret kube-system/%s: %w", wanted.Name, err)
	}
	rbac := h.client.RbacV1()
	role, binding := handover.Role(), handover.RoleBinding()
	if err := createOrUpdate(ctx, role, rbac.Roles(role.Namespace).Create, rbac.Roles(role.Namespace).Update, create, update); err != nil {
		return end, fmt.Errorf("role kube-system/%s: %w", role.Name, err)
	}
	if err := createOrUpdate(ctx, binding, rbac.RoleBindings(binding.Namespace).Create, rbac.RoleBindings(binding.Namespace).Update, create, update); err != nil {
		return end, fmt.Errorf("role binding kube-system/%s: %w", binding.Name, err)
	}
	return spec.Expires.UTC().Truncate(time.Second), nil
}

// createOrUpdate replaces what is there, as kubeadm does.
func createOrUpdate[T any](ctx context.Context, object T, create func(context.Context, T, metav1.CreateOptions) (T, error), update func(context.Context, T, metav1.UpdateOptions) (T, error),
	createOptions metav1.CreateOptions, updateOptions metav1.UpdateOptions,
) error {
	_, err := create(ctx, object, createOptions)
	if apierrors.IsAlreadyExists(err) {
		_, err = update(ctx, object, updateOptions)
	}
	return err
}

// ReadHandedOver takes the data of the Secret out of manifests in YAML or JSON, which
// may hold other objects beside it.
func ReadHandedOver(manifests []byte) (map[string][]byte, error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifests)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("holds no secret %s", handover.SecretName)
		}
		if err != nil {
			return nil, err
		}
		if data, err := handedOverIn(document, true); data != nil || err != nil {
			return data, err
		}
	}
}

// handedOverIn takes it out of one document, which may be a List of objects; nil: it
// is another object.
func handedOverIn(document []byte, list bool) (map[string][]byte, error) {
	var head struct {
		metav1.PartialObjectMetadata `json:",inline"`

		Items []json.RawMessage `json:"items"`
	}
	if yaml.Unmarshal(document, &head) != nil {
		return nil, nil //nolint:nilerr // a document of another kind, in which there may be what it likes
	}
	if head.Kind == "List" && list {
		for _, item := range head.Items {
			if data, err := handedOverIn(item, false); data != nil || err != nil {
				return data, err
			}
		}
	}
	if head.Kind != "Secret" || head.Name != handover.SecretName {
		return nil, nil
	}
	var s corev1.Secret
	if err := yaml.UnmarshalStrict(document, &s); err != nil { // the error would quote the content
		return nil, fmt.Errorf("secret %s: its form is another one: a name that is there twice, or data that is not base64", handover.SecretName)
	}
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	return s.Data, nil
}
