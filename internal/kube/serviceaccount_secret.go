package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// invalidSince is the label by which the controller
// legacy-serviceaccount-token-cleaner takes a token out of use
// (k8s.io/kubernetes/pkg/serviceaccount/legacy.go).
const invalidSince = "kubernetes.io/legacy-token-invalid-since"

// AccountSecret names the Secret that holds a token of a service account.
type AccountSecret struct {
	Namespace, Account string
	UID                string // of the service account; "": not known
	Name               string // of the Secret
}

// Object returns the Secret with a token and the PEM certificates by which the
// API server is trusted, as the controller serviceaccount-token fills it
// (k8s.io/kubernetes/pkg/controller/serviceaccount/tokens_controller.go); without
// a token, the one that it is to fill.
func (a *AccountSecret) Object(token string, ca []byte) *corev1.Secret {
	o := &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: a.Namespace, Name: a.Name, Annotations: map[string]string{corev1.ServiceAccountNameKey: a.Account},
		},
		Type: corev1.SecretTypeServiceAccountToken,
	}
	if a.UID != "" {
		o.Annotations[corev1.ServiceAccountUIDKey] = a.UID
	}
	if token != "" {
		o.Data = map[string][]byte{
			corev1.ServiceAccountTokenKey: []byte(token), corev1.ServiceAccountRootCAKey: ca, corev1.ServiceAccountNamespaceKey: []byte(a.Namespace),
		}
	}
	return o
}

// ErrNotFilled tells that nobody has put a token into the Secret in time.
var ErrNotFilled = errors.New("nobody has put a token into it")

// ErrOtherSecret tells that the name is taken by a Secret of something else.
var ErrOtherSecret = errors.New("it is there already, and not for tokens of this service account")

// ErrInvalidated tells that the token was taken out of use.
var ErrInvalidated = errors.New("its token was taken out of use (label " + invalidSince + ")")

// Fill makes the Secret and waits until the controller has filled it; made is
// false where it was there already. The result is without what the cluster
// alone knows, and is a secret.
func (s *ServiceAccounts) Fill(ctx context.Context, a AccountSecret, timeout time.Duration) (filled *corev1.Secret, made bool, err error) {
	if made, err = s.create(ctx, &a); err == nil {
		filled, err = s.await(ctx, &a, timeout)
	}
	if err != nil {
		return nil, made, fmt.Errorf("secret %s/%s: %w", a.Namespace, a.Name, err)
	}
	a.UID = filled.Annotations[corev1.ServiceAccountUIDKey]
	clean := a.Object("", nil)
	clean.Data = filled.Data
	return clean, made, nil
}

func (s *ServiceAccounts) create(ctx context.Context, a *AccountSecret) (made bool, err error) {
	// The controller would remove a Secret of nobody. Whoever may not look sees
	// that instead.
	account, err := s.core.ServiceAccounts(a.Namespace).Get(ctx, a.Account, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return false, ErrNoServiceAccount
	case err != nil && !apierrors.IsForbidden(err):
		return false, err
	case err == nil && a.UID != "" && a.UID != string(account.UID):
		return false, fmt.Errorf("the service account has the uid %s, not %s: it was made anew", account.UID, a.UID)
	}
	_, err = s.core.Secrets(a.Namespace).Create(ctx, a.Object("", nil), metav1.CreateOptions{FieldManager: "kubepki"})
	if apierrors.IsAlreadyExists(err) {
		return false, nil
	}
	return err == nil, err
}

func (s *ServiceAccounts) await(ctx context.Context, a *AccountSecret, timeout time.Duration) (filled *corev1.Secret, err error) {
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	backoff := wait.Backoff{Duration: 20 * time.Millisecond, Factor: 1.5, Jitter: 0.1, Steps: 1 << 20, Cap: time.Second}
	err = backoff.DelayFunc().Until(waiting, true, true, func(ctx context.Context) (done bool, err error) {
		if filled, err = s.core.Secrets(a.Namespace).Get(ctx, a.Name, metav1.GetOptions{}); err != nil {
			return false, err
		}
		return len(filled.Data[corev1.ServiceAccountTokenKey]) > 0, a.judge(filled)
	})
	switch {
	case err == nil:
	case ctx.Err() != nil:
		err = ctx.Err()
	case waiting.Err() != nil:
		err = ErrNotFilled
	case apierrors.IsNotFound(err):
		err = errors.New("it was removed before it was filled: the service account is not there, or has another uid")
	}
	return filled, err
}

func (a *AccountSecret) judge(o *corev1.Secret) error {
	uid := o.Annotations[corev1.ServiceAccountUIDKey]
	switch {
	case o.Type != corev1.SecretTypeServiceAccountToken || o.Annotations[corev1.ServiceAccountNameKey] != a.Account:
		return ErrOtherSecret
	case a.UID != "" && uid != "" && uid != a.UID:
		return ErrOtherSecret
	case o.Labels[invalidSince] != "":
		return ErrInvalidated
	}
	return nil
}
