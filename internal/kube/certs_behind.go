package kube

import (
	"context"
	"fmt"
	"strings"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubepki/kubepki/internal/shim"
	"github.com/kubepki/kubepki/internal/why"
)

var (
	gatewaysResource     = shim.GatewayAPI.WithResource("gateways")
	listenerSetsResource = shim.GatewayAPI.WithResource("listenersets")
	ingressesResource    = networkingv1.SchemeGroupVersion.WithResource("ingresses")
)

// Parent reads an Ingress, a Gateway or a ListenerSet, which kind names in lower case.
func (c *Certs) Parent(ctx context.Context, kind, namespace, name string) (*why.Parent, error) {
	switch kind {
	case "ingress":
		o, err := get[networkingv1.Ingress](ctx, c, ingressesResource, namespace, name)
		if err != nil {
			return nil, err
		}
		return parentOf(shim.OfIngress(o), o), nil
	case "gateway":
		o, err := get[gwapi.Gateway](ctx, c, gatewaysResource, namespace, name)
		if err != nil {
			return nil, err
		}
		return parentOf(shim.OfGateway(o), o), nil
	}
	o, err := get[gwapi.ListenerSet](ctx, c, listenerSetsResource, namespace, name)
	if err != nil {
		return nil, err
	}
	return parentOf(shim.OfListenerSet(o), o), nil
}

func parentOf(p *shim.Parent, o metav1.Object) *why.Parent {
	return &why.Parent{Parent: p, Created: o.GetCreationTimestamp().Time, Changed: why.ChangedAt(o)}
}

// OrphanError tells that an object is of another that is not there.
type OrphanError struct{ Kind, Namespace, Name, Of string }

// Error names both.
func (e *OrphanError) Error() string {
	return fmt.Sprintf("%s %s of namespace %s is of no %s that is there", e.Kind, e.Name, e.Namespace, e.Of)
}

// RequestOf walks up from a challenge, an order or a request, which kind names in lower
// case, to the CertificateRequest that it is of. What it is of and is not there is an
// [*OrphanError].
func (c *Certs) RequestOf(ctx context.Context, kind, namespace, name string) (*cmapi.CertificateRequest, error) {
	orphan := func(of string, err error) error {
		if apierrors.IsNotFound(err) {
			return &OrphanError{kind, namespace, name, of}
		}
		return err
	}
	at := name
	if kind == "challenge" {
		o, err := get[cmacme.Challenge](ctx, c, challengesResource, namespace, at)
		if err != nil {
			return nil, err
		}
		if at = ownerNamed(o.OwnerReferences, "Order"); at == "" {
			return nil, &OrphanError{kind, namespace, name, "Order"}
		}
	}
	if kind != "certificaterequest" {
		o, err := get[cmacme.Order](ctx, c, ordersResource, namespace, at)
		if err != nil && at != name {
			return nil, orphan("Order", err)
		}
		if err != nil {
			return nil, err
		}
		if at = ownerNamed(o.OwnerReferences, cmapi.CertificateRequestKind); at == "" {
			return nil, &OrphanError{kind, namespace, name, cmapi.CertificateRequestKind}
		}
	}
	r, err := c.Request(ctx, namespace, at)
	if err != nil && at != name {
		return nil, orphan(cmapi.CertificateRequestKind, err)
	}
	return r, err
}

func ownerNamed(references []metav1.OwnerReference, kind string) string {
	for _, r := range references {
		if r.Kind == kind {
			return r.Name
		}
	}
	return ""
}

// GatherRequest reads all that a CertificateRequest without a Certificate hangs on, as
// [Certs.Gather].
func (c *Certs) GatherRequest(ctx context.Context, r *cmapi.CertificateRequest, clusterNamespace string, at time.Time) (*why.Gathered, error) {
	list := []cmapi.CertificateRequest{*r}
	g := &why.Gathered{At: at, Certificate: why.StandIn(r), Requests: why.Seen[[]cmapi.CertificateRequest]{Look: why.Found, Object: &list}}
	c.issuer(ctx, g, clusterNamespace)
	c.orders(ctx, g, list)
	g.Leases = c.Leases(ctx)
	g.Events = c.events(ctx, g)
	return g, ctx.Err()
}

// GatherIssuer reads an issuer and what it hangs on, as [Certs.Gather]. namespace is "" for
// one of the cluster.
func (c *Certs) GatherIssuer(ctx context.Context, namespace string, ref cmmeta.IssuerReference, clusterNamespace string, at time.Time) (*why.Gathered, error) {
	o := &cmapi.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}, Spec: cmapi.CertificateSpec{IssuerRef: ref}}
	g := &why.Gathered{At: at, Certificate: o}
	c.issuer(ctx, g, clusterNamespace)
	g.Leases = c.Leases(ctx)
	kind, _, _ := strings.Cut(ref.Kind, ".")
	g.Events = c.eventsOf(ctx, kind, namespace, ref.Name)
	return g, ctx.Err()
}

// Pod reads one, with the Events on it.
func (c *Certs) Pod(ctx context.Context, namespace, name string) (*corev1.Pod, []why.Event, error) {
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	p, err := c.kube.CoreV1().Pods(namespace).Get(limited, name, metav1.GetOptions{})
	if err != nil {
		return nil, nil, err
	}
	return p, c.eventsOf(ctx, "Pod", namespace, name), nil
}

// Secret reads what is public of a Secret.
func (c *Certs) Secret(ctx context.Context, namespace, name string) why.Seen[why.Secret] {
	return c.secret(ctx, namespace, name)
}
