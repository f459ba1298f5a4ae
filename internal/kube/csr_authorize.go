package kube

import (
	"context"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	authorization "k8s.io/client-go/kubernetes/typed/authorization/v1"

	"github.com/kubepki/kubepki/internal/csr"
)

// Authorized asks the API server whether the requester of a request may have it
// approved without a person, as k/k pkg/controller/certificates/approver does:
// create on the subresource of certificatesigningrequests that [csr.Permission]
// names. It is Unknown, without an error, for a request that needs none.
func Authorized(ctx context.Context, client kubernetes.Interface, r csr.Request) (csr.Answer, error) {
	permission := csr.Permission(r)
	if permission == "" {
		return csr.Unknown, nil
	}
	return May(ctx, client.AuthorizationV1().SubjectAccessReviews(), r, permission)
}

// May asks whether the requester of a request has a permission: a subresource of
// certificatesigningrequests that he may create, as in
// k/k pkg/controller/certificates/approver/sarapprove.go.
func May(ctx context.Context, reviews authorization.SubjectAccessReviewInterface, r csr.Request, permission string) (csr.Answer, error) {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: r.Username, UID: r.UserUID, Groups: r.Groups, Extra: make(map[string]authorizationv1.ExtraValue, len(r.Extra)),
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: "certificates.k8s.io", Resource: "certificatesigningrequests", Verb: "create", Subresource: permission, Version: "*",
		},
	}}
	for key, values := range r.Extra {
		review.Spec.Extra[key] = values
	}
	answer, err := reviews.Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return csr.Unknown, fmt.Errorf("asking whether %q may have %s: %w", r.Username, permission, err)
	}
	if answer.Status.Allowed {
		return csr.Yes, nil
	}
	return csr.No, nil
}
