package acmeissuer

import (
	"context"
	"fmt"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"
)

// fieldManager is whom the API server notes for what is written.
const fieldManager = "kubepki-acme"

type (
	orderClient     = gentype.ClientWithList[*cmacme.Order, *cmacme.OrderList]
	challengeClient = gentype.ClientWithList[*cmacme.Challenge, *cmacme.ChallengeList]
	routeClient     = gentype.ClientWithList[*gwapi.HTTPRoute, *gwapi.HTTPRouteList]
)

// Client speaks acme.cert-manager.io/v1, gateway.networking.k8s.io/v1 and the API of
// Kubernetes itself. It is safe for concurrent use.
type Client struct {
	Kube kubernetes.Interface

	acme, gateway, webhooks rest.Interface
	codec                   runtime.ParameterCodec
}

// NewClient makes a client. Nothing bounds it but the API server.
func NewClient(config *rest.Config) (*Client, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := cmacme.AddToScheme(scheme); err != nil {
		return nil, err
	}
	if err := gwapi.Install(scheme); err != nil {
		return nil, err
	}
	c := &Client{Kube: kube, codec: runtime.NewParameterCodec(scheme)}
	codecs := serializer.NewCodecFactory(scheme)
	// The API server knows JSON alone for custom resources.
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	config.NegotiatedSerializer, config.APIPath = codecs.WithoutConversion(), "/apis"
	for group, to := range map[schema.GroupVersion]*rest.Interface{
		cmacme.SchemeGroupVersion:               &c.acme,
		schema.GroupVersion(gwapi.GroupVersion): &c.gateway,
		// Webhooks are reached by a whole path (webhook.go).
		{Group: "acme.cert-manager.io", Version: "v1alpha1"}: &c.webhooks,
	} {
		config.GroupVersion = &group
		if *to, err = rest.RESTClientFor(config); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Client) orders(namespace string) *orderClient {
	return gentype.NewClientWithList("orders", c.acme, c.codec, namespace,
		func() *cmacme.Order { return &cmacme.Order{} }, func() *cmacme.OrderList { return &cmacme.OrderList{} })
}

func (c *Client) challenges(namespace string) *challengeClient {
	return gentype.NewClientWithList("challenges", c.acme, c.codec, namespace,
		func() *cmacme.Challenge { return &cmacme.Challenge{} }, func() *cmacme.ChallengeList { return &cmacme.ChallengeList{} })
}

func (c *Client) routes(namespace string) *routeClient {
	return gentype.NewClientWithList("httproutes", c.gateway, c.codec, namespace,
		func() *gwapi.HTTPRoute { return &gwapi.HTTPRoute{} }, func() *gwapi.HTTPRouteList { return &gwapi.HTTPRouteList{} })
}

// pageSize is how many objects one list brings.
const pageSize = 500

// eachChallenge calls f with the challenges of a namespace, "" for all of them.
func (c *Client) eachChallenge(ctx context.Context, namespace string, f func(*cmacme.Challenge)) error {
	options := metav1.ListOptions{Limit: pageSize}
	for {
		page, err := c.challenges(namespace).List(ctx, options)
		if err != nil {
			return fmt.Errorf("challenges.acme.cert-manager.io: %w", err)
		}
		for i := range page.Items {
			f(&page.Items[i])
		}
		if page.Continue == "" {
			return nil
		}
		options.Continue = page.Continue
	}
}
