package kube

import (
	"context"
	"fmt"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubepki/kubepki/internal/why"
	"github.com/kubepki/kubepki/internal/workload"
)

// clusterNamespaces are where the controllers look for the Secrets of ClusterIssuers by
// default: cert-manager in its own namespace, kubepki in kube-system.
var clusterNamespaces = []string{"cert-manager", "kube-system"}

// issuer reads the issuer, and what it hangs on.
func (c *Certs) issuer(ctx context.Context, g *why.Gathered, clusterNamespace string) {
	o := g.Certificate
	g.Issuer = c.Issuer(ctx, o.Namespace, o.Spec.IssuerRef)
	if g.Issuer.Look == why.Missing {
		g.Issuers = c.issuerNames(ctx, o.Namespace)
	}
	if g.Issuer.Object == nil || g.Issuer.Object.CASecret == "" {
		return
	}
	if workload.IssuerOf(o.Spec.IssuerRef).Kind != cmapi.ClusterIssuerKind {
		g.Authority = c.secret(ctx, o.Namespace, g.Issuer.Object.CASecret)
		return
	}
	namespaces := clusterNamespaces
	if clusterNamespace != "" {
		namespaces = []string{clusterNamespace}
	}
	for _, g.AuthorityNamespace = range namespaces {
		if g.Authority = c.secret(ctx, g.AuthorityNamespace, g.Issuer.Object.CASecret); g.Authority.Look == why.Found {
			return
		}
	}
}

// Issuer reads one, which a Certificate in a namespace refers to, of any group.
func (c *Certs) Issuer(ctx context.Context, namespace string, ref cmmeta.IssuerReference) why.Seen[why.Issuer] {
	ref = workload.IssuerOf(ref)
	right := func(resource string) string { return "get " + resource + " in namespace " + namespace }
	switch {
	case ref.Group != cmapi.SchemeGroupVersion.Group:
		return c.externalIssuer(ctx, namespace, ref)
	case ref.Kind == cmapi.ClusterIssuerKind:
		i, err := get[cmapi.ClusterIssuer](ctx, c, clusterIssuerResource, "", ref.Name)
		if err != nil {
			return lookOf[why.Issuer](nil, err, "get clusterissuers.cert-manager.io")
		}
		issuer := why.NewIssuer(i)
		return lookOf(&issuer, nil, "")
	case ref.Kind != cmapi.IssuerKind:
		return why.Seen[why.Issuer]{Look: why.NoKind}
	}
	i, err := get[cmapi.Issuer](ctx, c, issuersResource, namespace, ref.Name)
	if err != nil {
		return lookOf[why.Issuer](nil, err, right("issuers.cert-manager.io"))
	}
	issuer := why.NewIssuer(i)
	return lookOf(&issuer, nil, "")
}

// externalIssuer finds the resource of a kind by discovery. Of the object it takes the
// condition Ready, which all external issuers have.
func (c *Certs) externalIssuer(ctx context.Context, namespace string, ref cmmeta.IssuerReference) why.Seen[why.Issuer] {
	resource, _, namespaced, err := c.resourceOf(ref.Group, func(r *metav1.APIResource) bool { return r.Kind == ref.Kind })
	switch {
	case err != nil:
		return lookOf[why.Issuer](nil, err, "use discovery of the API")
	case resource.Empty():
		return why.Seen[why.Issuer]{Look: why.NoKind}
	}
	right := "get " + resource.Resource + "." + resource.Group
	if namespaced {
		right += " in namespace " + namespace
	} else {
		namespace = ""
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	o, err := c.objects.Resource(resource).Namespace(namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return lookOf[why.Issuer](nil, err, right)
	}
	issuer := why.Issuer{Generation: o.GetGeneration(), Created: o.GetCreationTimestamp().Time, Changed: why.ChangedAt(o), Ready: readyOf(o)}
	return lookOf(&issuer, nil, "")
}

// IssuerKind finds the kind of an external issuer by what people call it: the kind, or the
// name of the resource. It is "" where the API server has no such kind in the group.
func (c *Certs) IssuerKind(group, called string) (kind string, namespaced bool, err error) {
	_, kind, namespaced, err = c.resourceOf(group, func(r *metav1.APIResource) bool {
		return strings.EqualFold(called, r.Kind) || called == r.Name || called == r.SingularName
	})
	return kind, namespaced, err
}

func (c *Certs) resourceOf(group string, is func(*metav1.APIResource) bool) (r schema.GroupVersionResource, kind string, namespaced bool, err error) {
	groups, err := c.kube.Discovery().ServerGroups()
	if err != nil {
		return r, "", false, err
	}
	for _, g := range groups.Groups {
		if g.Name != group {
			continue
		}
		list, err := c.kube.Discovery().ServerResourcesForGroupVersion(g.PreferredVersion.GroupVersion)
		if err != nil {
			return r, "", false, err
		}
		for _, one := range list.APIResources {
			if is(&one) && !strings.Contains(one.Name, "/") {
				return schema.GroupVersionResource{Group: group, Version: g.PreferredVersion.Version, Resource: one.Name}, one.Kind, one.Namespaced, nil
			}
		}
	}
	return r, "", false, nil
}

// readyOf takes the condition Ready out of an object of any kind.
func readyOf(o *unstructured.Unstructured) *why.Condition {
	list, _, err := unstructured.NestedSlice(o.Object, "status", "conditions")
	if err != nil {
		return nil
	}
	for _, c := range list {
		m, ok := c.(map[string]any)
		if !ok || m["type"] != "Ready" {
			continue
		}
		text := func(key string) string { s, _ := m[key].(string); return s }
		since, _ := time.Parse(time.RFC3339, text("lastTransitionTime"))
		return &why.Condition{Status: cmmeta.ConditionStatus(text("status")), Reason: text("reason"), Message: shortened(text("message")), Since: since}
	}
	return nil
}

// issuerNames are the issuers of all namespaces, as far as they may be read; at least
// those of one's own.
func (c *Certs) issuerNames(ctx context.Context, namespace string) []why.IssuerName {
	var all []why.IssuerName
	issuers, err := listAll[cmapi.Issuer](ctx, c, issuersResource, "", metav1.ListOptions{}, nil)
	if err != nil {
		issuers, _ = listAll[cmapi.Issuer](ctx, c, issuersResource, namespace, metav1.ListOptions{}, nil) // it is but advice
	}
	for _, i := range issuers {
		all = append(all, why.IssuerName{Kind: cmapi.IssuerKind, Namespace: i.Namespace, Name: i.Name})
	}
	cluster, _ := listAll[cmapi.ClusterIssuer](ctx, c, clusterIssuerResource, "", metav1.ListOptions{}, nil) // likewise
	for _, i := range cluster {
		all = append(all, why.IssuerName{Kind: cmapi.ClusterIssuerKind, Name: i.Name})
	}
	return all
}

// IssuerText names an issuer as a table does.
func IssuerText(ref cmmeta.IssuerReference) string {
	ref = workload.IssuerOf(ref)
	if ref.Group == cmapi.SchemeGroupVersion.Group {
		return fmt.Sprintf("%s/%s", ref.Kind, ref.Name)
	}
	return fmt.Sprintf("%s.%s/%s", ref.Kind, ref.Group, ref.Name)
}
