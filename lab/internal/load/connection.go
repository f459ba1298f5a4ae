package load

import (
	"context"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// connectionStreams make the same request, once on a connection of its own each
// time, so that trouble with handshakes is seen at once, and once on one that is
// kept, which is to outlive all that happens to certificates.
func (s *site) connectionStreams(context.Context, *clients) ([]*Stream, error) {
	visitor, resident := s.visitor(), s.administrator()
	return []*Stream{
		{Name: "new-connection", Link: 4, Every: 200 * time.Millisecond, Do: visitor.whoAmI("")},
		{Name: "long-lived", Link: 9, Every: 500 * time.Millisecond, Do: resident.whoAmI(""), Close: resident.close},
	}, nil
}

// whoAmI asks the API server for the caller's name, which must begin as said.
func (u *user) whoAmI(prefix string) func(context.Context) error {
	return func(ctx context.Context) error {
		return u.call(func(c *clients) error { return c.whoAmI(ctx, prefix) })
	}
}

func (c *clients) whoAmI(ctx context.Context, prefix string) error {
	review, err := c.authentication.SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if name := review.Status.UserInfo.Username; !strings.HasPrefix(name, prefix) || name == "system:anonymous" {
		return fmt.Errorf("the API server takes the caller for %q instead of %q", name, prefix)
	}
	return nil
}
