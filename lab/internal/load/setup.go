package load

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// account is the service account of the run's pods and tokens.
func (s *site) account() string { return s.meta("account").Name }

// setUp makes what the streams need in the cluster.
func (s *site) setUp(ctx context.Context) error {
	return s.admin.call(func(c *clients) error {
		for _, step := range []func(context.Context, *clients) error{
			s.makeNamespace, s.makeAccount, s.makeRole, s.makeWatched, s.awaitLeases, s.makePods, s.makeBootstrapToken,
		} {
			if err := step(ctx, c); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *site) makeNamespace(ctx context.Context, c *clients) error {
	_, err := c.core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	s.madeSpace = err == nil
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (s *site) makeAccount(ctx context.Context, c *clients) error {
	_, err := c.core.ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{
		ObjectMeta: s.meta("account"), AutomountServiceAccountToken: ptr.To(false),
	}, metav1.CreateOptions{})
	return err
}

// makeRole lets the user of the stream aggregated-user do what it does.
func (s *site) makeRole(ctx context.Context, c *clients) error {
	_, err := c.rbac.Roles(namespace).Create(ctx, &rbacv1.Role{
		ObjectMeta: s.meta("role"),
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{"wardle.example.com"}, Resources: []string{"flunders"}, Verbs: []string{"create", "get", "list", "delete"},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = c.rbac.RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: s.meta("role"),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: s.meta("role").Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: s.otherUser()}},
	}, metav1.CreateOptions{})
	return err
}

// removal is the removal of one kind of objects.
type removal struct {
	what   string
	remove func(context.Context, *clients) error
	err    error
}

// tidyUp removes what the run has made, as soon as the cluster lets it: it may have
// just come back. Its error names what is left.
func (s *site) tidyUp(ctx context.Context) error {
	left := s.removals()
	for {
		left = s.removeAll(ctx, left)
		if len(left) == 0 {
			return nil
		}
		select {
		case <-time.After(removeAgain):
			continue
		case <-ctx.Done():
		}
		var errs []error
		for _, r := range left {
			errs = append(errs, fmt.Errorf("%s: %w", r.what, r.err))
		}
		return errors.Join(errs...)
	}
}

// removeAll returns those that could not be done, with the reason for which they
// could not while there was time.
func (s *site) removeAll(ctx context.Context, all []removal) []removal {
	var left []removal
	for _, r := range all {
		err := s.admin.call(func(c *clients) error { return r.remove(ctx, c) })
		if err == nil {
			continue
		}
		if r.err == nil || ctx.Err() == nil {
			r.err = err
		}
		left = append(left, r)
	}
	return left
}

func (s *site) removals() []removal {
	ours := metav1.ListOptions{LabelSelector: label + "=" + s.id}
	now := metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}
	soon := metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}
	return []removal{
		{what: "deployments", remove: func(ctx context.Context, c *clients) error {
			return c.apps.Deployments(namespace).DeleteCollection(ctx, soon, ours)
		}},
		{what: "pods", remove: func(ctx context.Context, c *clients) error {
			return c.core.Pods(namespace).DeleteCollection(ctx, now, ours)
		}},
		{what: "configmaps", remove: func(ctx context.Context, c *clients) error {
			return c.core.ConfigMaps(namespace).DeleteCollection(ctx, soon, ours)
		}},
		{what: "roles", remove: func(ctx context.Context, c *clients) error {
			return c.rbac.Roles(namespace).DeleteCollection(ctx, soon, ours)
		}},
		{what: "rolebindings", remove: func(ctx context.Context, c *clients) error {
			return c.rbac.RoleBindings(namespace).DeleteCollection(ctx, soon, ours)
		}},
		{what: "serviceaccounts", remove: func(ctx context.Context, c *clients) error {
			return c.core.ServiceAccounts(namespace).DeleteCollection(ctx, soon, ours)
		}},
		{what: "bootstrap tokens", remove: func(ctx context.Context, c *clients) error {
			return c.core.Secrets(metav1.NamespaceSystem).DeleteCollection(ctx, soon, ours)
		}},
		{what: "certificatesigningrequests", remove: func(ctx context.Context, c *clients) error {
			return c.certificates.CertificateSigningRequests().DeleteCollection(ctx, soon, ours)
		}},
		{what: "flunders", remove: func(ctx context.Context, c *clients) error { return s.deleteFlunders(ctx, c, ours) }},
		{what: "namespace " + namespace, remove: s.deleteNamespace},
	}
}

func (s *site) deleteNamespace(ctx context.Context, c *clients) error {
	if !s.madeSpace {
		return nil
	}
	return c.core.Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{})
}

func (s *site) deleteFlunders(ctx context.Context, c *clients, ours metav1.ListOptions) error {
	if !s.extended {
		return nil
	}
	return c.wardle.Flunders(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, ours)
}
