package join

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// whoAmI asks the API server whom it takes us for, until it answers or there is
// no time left. The name is empty where it does not tell, before Kubernetes
// 1.28; then it has at least let us in.
func (c *client) whoAmI(ctx context.Context, config *rest.Config, with string) (string, error) {
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return "", fmt.Errorf("making a client for %s: %w", config.Host, err)
	}
	user := ""
	err = c.persist(ctx, config.Host, with, func(ctx context.Context) error {
		r, err := api.AuthenticationV1().SelfSubjectReviews().Create(quiet(ctx), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err == nil {
			user = r.Status.UserInfo.Username
			return nil
		}
		if !apierrors.IsNotFound(err) {
			return err
		}
		// Everybody but the anonymous may ask what he may do.
		_, err = api.AuthorizationV1().SelfSubjectAccessReviews().Create(quiet(ctx), &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/healthz", Verb: "get"}},
		}, metav1.CreateOptions{})
		return err
	})
	return user, err
}

// prove makes a call with a new credential, for a certificate in which nobody
// believes must not replace one that works.
func (c *client) prove(ctx context.Context, config *rest.Config, id Identity) error {
	user, err := c.whoAmI(ctx, config, "the new certificate")
	if err != nil {
		return fmt.Errorf("proving the new certificate: %w", err)
	}
	if user != "" && user != id.CommonName {
		return fmt.Errorf("proving the new certificate: %s takes its bearer for %q, not for %q", config.Host, user, id.CommonName)
	}
	return nil
}
