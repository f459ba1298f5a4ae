package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/shim"
	"github.com/kubepki/kubepki/internal/why"
)

// Gather reads all that a Certificate hangs on. What cannot be read is among what is
// returned, as not seen: only where the context ends there is an error. clusterNamespace
// is that of the Secrets of ClusterIssuers; "": those that cert-manager and kubepki have
// by default are looked through.
func (c *Certs) Gather(ctx context.Context, o *cmapi.Certificate, clusterNamespace string, at time.Time) (*why.Gathered, error) {
	g := &why.Gathered{At: at, Certificate: o}
	var work errgroup.Group
	work.SetLimit(concurrent)
	for _, read := range []func(){
		func() { g.Secret = c.secret(ctx, o.Namespace, o.Spec.SecretName) },
		func() { g.KeySecret = c.keySecret(ctx, o) },
		func() { g.Siblings = c.siblings(ctx, o) },
		func() { c.issuer(ctx, g, clusterNamespace) },
		func() { c.requestsAndOrders(ctx, g) },
		func() { g.Leases = c.Leases(ctx) },
	} {
		work.Go(func() error { read(); return nil })
	}
	_ = work.Wait() // none of them returns an error
	g.Events = c.events(ctx, g)
	return g, ctx.Err()
}

// lookOf says how a look went; right is what it needs, as "get secrets in namespace x".
func lookOf[T any](object *T, err error, right string) why.Seen[T] {
	switch {
	case err == nil:
		return why.Seen[T]{Look: why.Found, Object: object}
	case IsNoKind(err):
		return why.Seen[T]{Look: why.NoKind}
	case apierrors.IsNotFound(err):
		return why.Seen[T]{Look: why.Missing}
	case apierrors.IsForbidden(err):
		return why.Seen[T]{Look: why.Forbidden, Detail: right}
	}
	return why.Seen[T]{Look: why.Failed, Detail: shortened(err.Error())}
}

// secret reads what is public of a Secret; the rest is dropped here.
func (c *Certs) secret(ctx context.Context, namespace, name string) why.Seen[why.Secret] {
	if name == "" {
		return why.Seen[why.Secret]{Look: why.Missing}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	s, err := c.kube.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	var public *why.Secret
	if err == nil {
		p := why.NewSecret(s)
		public = &p
	}
	return lookOf(public, err, "get secrets in namespace "+namespace)
}

// keySecret looks whether the key of an issuance is there, by the metadata of its Secret
// alone.
func (c *Certs) keySecret(ctx context.Context, o *cmapi.Certificate) why.Seen[string] {
	name := o.Status.NextPrivateKeySecretName
	if name == nil || *name == "" {
		return why.Seen[string]{}
	}
	seen := c.secret(ctx, o.Namespace, *name)
	return why.Seen[string]{Look: seen.Look, Object: name, Detail: seen.Detail}
}

func (c *Certs) siblings(ctx context.Context, o *cmapi.Certificate) why.Seen[[]why.Sibling] {
	list, err := listAll(ctx, c, certificatesResource, o.Namespace, metav1.ListOptions{}, func(other *cmapi.Certificate) bool {
		return other.Name != o.Name && other.Spec.SecretName == o.Spec.SecretName && o.Spec.SecretName != ""
	})
	var siblings []why.Sibling
	for _, s := range list {
		siblings = append(siblings, why.Sibling{Name: s.Name, Created: s.CreationTimestamp.Time})
	}
	return lookOf(&siblings, err, "list certificates.cert-manager.io in namespace "+o.Namespace)
}

// requestsAndOrders reads the requests, and where one waits for an ACME server its
// orders and challenges.
func (c *Certs) requestsAndOrders(ctx context.Context, g *why.Gathered) {
	o := g.Certificate
	requests, err := listAll(ctx, c, requestsResource, o.Namespace, metav1.ListOptions{}, func(r *cmapi.CertificateRequest) bool {
		return ownedBy(r.OwnerReferences, o.UID) || r.Annotations[cmapi.CertificateNameKey] == o.Name && len(r.OwnerReferences) == 0
	})
	g.Requests = lookOf(&requests, err, "list certificaterequests.cert-manager.io in namespace "+o.Namespace)
	if slices.ContainsFunc(requests, func(r cmapi.CertificateRequest) bool { return len(r.Status.Certificate) == 0 }) {
		c.orders(ctx, g, requests)
	}
}

// orders reads the orders of requests, and their challenges.
func (c *Certs) orders(ctx context.Context, g *why.Gathered, requests []cmapi.CertificateRequest) {
	o := g.Certificate
	orders, err := listAll(ctx, c, ordersResource, o.Namespace, metav1.ListOptions{}, func(order *cmacme.Order) bool {
		return slices.ContainsFunc(requests, func(r cmapi.CertificateRequest) bool { return ownedBy(order.OwnerReferences, r.UID) })
	})
	g.Orders = lookOf(&orders, err, "list orders.acme.cert-manager.io in namespace "+o.Namespace)
	if len(orders) == 0 {
		return
	}
	challenges, err := listAll(ctx, c, challengesResource, o.Namespace, metav1.ListOptions{}, func(ch *cmacme.Challenge) bool {
		return slices.ContainsFunc(orders, func(order cmacme.Order) bool { return ownedBy(ch.OwnerReferences, order.UID) })
	})
	g.Challenges = lookOf(&challenges, err, "list challenges.acme.cert-manager.io in namespace "+o.Namespace)
}

func ownedBy(references []metav1.OwnerReference, uid types.UID) bool {
	return slices.ContainsFunc(references, func(r metav1.OwnerReference) bool { return r.UID == uid })
}

// controllerLeases are those of cert-manager and of kubepki, where their manifests put
// them.
var controllerLeases = []types.NamespacedName{
	{Namespace: "kube-system", Name: "cert-manager-controller"}, {Namespace: "kube-system", Name: "kubepki-controller"},
	{Namespace: "cert-manager", Name: "cert-manager-controller"}, {Namespace: "cert-manager", Name: "kubepki-controller"},
	{Namespace: "kubepki", Name: "kubepki-controller"},
}

// Leases reads those of controllers that may serve Certificates.
func (c *Certs) Leases(ctx context.Context) why.Seen[[]why.Lease] {
	found := make([]why.Seen[coordinationv1.Lease], len(controllerLeases))
	var work errgroup.Group
	for i, key := range controllerLeases {
		work.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, requestTimeout)
			defer cancel()
			l, err := c.kube.CoordinationV1().Leases(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
			found[i] = lookOf(l, err, "get leases.coordination.k8s.io in namespace "+key.Namespace)
			return nil
		})
	}
	_ = work.Wait() // none of them returns an error
	leases := []why.Lease{}
	unseen := why.Seen[[]why.Lease]{}
	for i, f := range found {
		switch {
		case f.Look == why.Found:
			leases = append(leases, leaseOf(controllerLeases[i], &f.Object.Spec))
		case f.Look != why.Missing && unseen.Look == "":
			unseen = why.Seen[[]why.Lease]{Look: f.Look, Detail: f.Detail}
		}
	}
	if len(leases) == 0 && unseen.Look != "" {
		return unseen
	}
	return why.Seen[[]why.Lease]{Look: why.Found, Object: &leases}
}

func leaseOf(key types.NamespacedName, s *coordinationv1.LeaseSpec) why.Lease {
	l := why.Lease{Namespace: key.Namespace, Name: key.Name}
	if s.HolderIdentity != nil {
		l.Holder = *s.HolderIdentity
	}
	if s.RenewTime != nil {
		l.Renewed = s.RenewTime.Time
	}
	if s.LeaseDurationSeconds != nil {
		l.Duration = time.Duration(*s.LeaseDurationSeconds) * time.Second
	}
	return l
}

// maxEvents bounds what is read of one object.
const maxEvents = 100

// events reads those of the Certificate and of its newest request. They tell more, and
// decide little: where they may not be read nothing is said.
func (c *Certs) events(ctx context.Context, g *why.Gathered) []why.Event {
	of := []corev1.ObjectReference{{Kind: cmapi.CertificateKind, Name: g.Certificate.Name}}
	if g.Requests.Object != nil && len(*g.Requests.Object) > 0 {
		newest := slices.MaxFunc(*g.Requests.Object, func(a, b cmapi.CertificateRequest) int {
			return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
		})
		of = append(of, corev1.ObjectReference{Kind: cmapi.CertificateRequestKind, Name: newest.Name})
	}
	var all []why.Event
	for _, ref := range of {
		all = append(all, c.eventsOf(ctx, ref.Kind, g.Certificate.Namespace, ref.Name)...)
	}
	return all
}

// eventsOf reads those of one object.
func (c *Certs) eventsOf(ctx context.Context, kind, namespace, name string) []why.Event {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	list, err := c.kube.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{
		Limit: maxEvents, FieldSelector: fmt.Sprintf("involvedObject.kind=%s,involvedObject.name=%s", kind, name),
	})
	if err != nil {
		return nil
	}
	var all []why.Event
	for i := range list.Items {
		e := &list.Items[i]
		last := e.LastTimestamp.Time
		if last.IsZero() {
			last = e.EventTime.Time
		}
		all = append(all, why.Event{Object: strings.ToLower(kind) + "/" + namespace + "/" + name,
			Type: e.Type, Reason: e.Reason, Message: shortened(e.Message), Last: last, Count: max(e.Count, 1)})
	}
	return all
}

// OfParent tells whether a Certificate is that of an Ingress, a Gateway or a ListenerSet:
// made for it, or for a Secret that it names.
func OfParent(o *cmapi.Certificate, p *shim.Parent) bool {
	return ownedBy(o.OwnerReferences, p.UID) || slices.ContainsFunc(p.Blocks, func(b shim.Block) bool { return slices.Contains(b.Secrets, o.Spec.SecretName) })
}
