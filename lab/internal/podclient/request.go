package podclient

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// newSteady returns a request by one client, which takes up changed files as
// client-go does.
func newSteady(o Options) (func(context.Context) error, error) {
	config, err := o.Config()
	if err != nil {
		return nil, err
	}
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return whoami(ctx, api) }, nil
}

// fresh makes a request with a transport of its own: the one that client-go
// would take is shared by all clients of the same files, with its connections.
func (o Options) fresh(ctx context.Context) error {
	config, err := o.Config()
	if err != nil {
		return err
	}
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		return err
	}
	own := &http.Transport{TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true}
	defer own.CloseIdleConnections()
	transport, err := rest.HTTPWrappersForConfig(config, own)
	if err != nil {
		return err
	}
	api, err := kubernetes.NewForConfigAndClient(config, &http.Client{Transport: transport})
	if err != nil {
		return err
	}
	return whoami(ctx, api)
}

// whoami asks the API server who the caller is, and wants a service account.
// Everyone whose token is good may ask; nothing is written.
func whoami(ctx context.Context, api kubernetes.Interface) error {
	review, err := api.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if user := review.Status.UserInfo.Username; !strings.HasPrefix(user, "system:serviceaccount:") {
		return fmt.Errorf("the API server takes the pod for %q, which is no service account", user)
	}
	return nil
}
