package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/why"
)

// whyTarget is what is asked about: the kind in lower case. Of an external issuer it has
// the group too.
type whyTarget struct{ kind, group, name string }

// whyKinds are the kinds that may be asked about, by what kubectl calls them, with the
// resource of which reading them takes the right.
var whyKinds = []struct {
	kind, resource string
	called         []string
}{
	{"certificate", "certificates.cert-manager.io", []string{"certificates", "cert", "certs", "certificate.cert-manager.io", "certificates.cert-manager.io"}},
	{"secret", "secrets", []string{"secrets"}},
	{"pod", "pods", []string{"pods", "po"}},
	{"ingress", "ingresses.networking.k8s.io", []string{"ingresses", "ing", "ingress.networking.k8s.io", "ingresses.networking.k8s.io"}},
	{"gateway", "gateways.gateway.networking.k8s.io", []string{"gateways", "gtw", "gateway.gateway.networking.k8s.io", "gateways.gateway.networking.k8s.io"}},
	{"listenerset", "listenersets.gateway.networking.k8s.io", []string{"listenersets", "listenerset.gateway.networking.k8s.io", "listenersets.gateway.networking.k8s.io"}},
	{"certificaterequest", "certificaterequests.cert-manager.io", []string{"certificaterequests", "cr", "crs", "certificaterequest.cert-manager.io", "certificaterequests.cert-manager.io"}},
	{"order", "orders.acme.cert-manager.io", []string{"orders", "order.acme.cert-manager.io", "orders.acme.cert-manager.io"}},
	{"challenge", "challenges.acme.cert-manager.io", []string{"challenges", "challenge.acme.cert-manager.io", "challenges.acme.cert-manager.io"}},
	{"issuer", "issuers.cert-manager.io", []string{"issuers", "issuer.cert-manager.io", "issuers.cert-manager.io"}},
	{"clusterissuer", "clusterissuers.cert-manager.io", []string{"clusterissuers", "ciss", "clusterissuer.cert-manager.io", "clusterissuers.cert-manager.io"}},
}

func parseWhyTarget(arg string) (whyTarget, error) {
	kind, name, ok := strings.Cut(arg, "/")
	if !ok {
		kind, name = "certificate", arg
	}
	kind = strings.ToLower(kind)
	for _, k := range whyKinds {
		if kind == k.kind || slices.Contains(k.called, kind) {
			return whyTarget{kind: k.kind, name: name}, checkObjectName(name)
		}
	}
	if kind, group, ok := strings.Cut(kind, "."); ok && kind != "" && strings.Contains(group, ".") {
		return whyTarget{kind: kind, group: group, name: name}, checkObjectName(name)
	}
	return whyTarget{}, usagef("%s: name a certificate, secret, pod, ingress, gateway, certificaterequest, order, challenge or issuer, or an external issuer as KIND.GROUP/NAME", arg)
}

// right is what reading the object takes.
func (o *whyOptions) right(t whyTarget) string {
	for _, k := range whyKinds {
		if k.kind == t.kind && t.kind != "clusterissuer" {
			return "get " + k.resource + " in namespace " + o.access.namespace
		} else if k.kind == t.kind {
			return "get " + k.resource
		}
	}
	return "get objects of kind " + t.kind + " of " + t.group
}

// advised adds what can be done to an answer of the API server on the object itself.
func (o *whyOptions) advised(t whyTarget, err error) error {
	switch {
	case kube.IsNoKind(err) && (t.kind == "gateway" || t.kind == "listenerset"):
		return advise(fmt.Errorf("the API server knows no %ss: the CRDs of the Gateway API are not installed", t.kind), "kubectl api-resources --api-group=gateway.networking.k8s.io")
	case apierrors.IsNotFound(err) && !kube.IsNoKind(err):
		return fmt.Errorf("there is no %s %s in namespace %s", t.kind, t.name, o.access.namespace)
	}
	return adviseCert(err, o.right(t))
}

// explain answers for all Certificates that a target stands for.
func (o *whyOptions) explain(ctx context.Context, api *kube.Certs, t whyTarget, at time.Time) ([]why.Answer, error) {
	var answers []why.Answer
	var err error
	switch t.kind {
	case "certificate":
		answers, err = o.ofCertificate(ctx, api, t, at)
	case "secret":
		answers, err = o.ofSecret(ctx, api, t.name, at)
		if err == nil && len(answers) == 0 {
			err = advise(fmt.Errorf("no Certificate in namespace %s names the Secret %s", o.access.namespace, t.name), "kubepki cert status -n %s lists what Certificates there are, and their Secrets", o.access.namespace)
		}
	case "pod":
		answers, err = o.ofPod(ctx, api, t, at)
	case "ingress", "gateway", "listenerset":
		answers, err = o.ofParent(ctx, api, t, at)
	case "certificaterequest", "order", "challenge":
		answers, err = o.ofRequest(ctx, api, t, at)
	default:
		answers, err = o.ofIssuer(ctx, api, t, at)
	}
	if kube.IsNoKind(err) {
		return []why.Answer{why.NoCRDs(o.access.namespace, t.name)}, nil
	}
	return answers, err
}

func (o *whyOptions) ofCertificate(ctx context.Context, api *kube.Certs, t whyTarget, at time.Time) ([]why.Answer, error) {
	c, err := api.Certificate(ctx, o.access.namespace, t.name)
	switch {
	case kube.IsNoKind(err):
		return nil, err
	case apierrors.IsNotFound(err):
		return nil, o.notFound(ctx, api, t.name)
	case err != nil:
		return nil, o.advised(t, err)
	}
	return o.all(ctx, api, []cmapi.Certificate{*c}, at)
}

// all explains Certificates.
func (o *whyOptions) all(ctx context.Context, api *kube.Certs, list []cmapi.Certificate, at time.Time) ([]why.Answer, error) {
	var answers []why.Answer
	for i := range list {
		g, err := api.Gather(ctx, &list[i], o.clusterNamespace, at)
		if err != nil {
			return nil, err
		}
		answers = append(answers, why.Explain(g))
	}
	return answers, nil
}

// ofSecret answers for the Certificates that name a Secret; there may be none.
func (o *whyOptions) ofSecret(ctx context.Context, api *kube.Certs, name string, at time.Time) ([]why.Answer, error) {
	list, err := o.listed(ctx, api, func(c *cmapi.Certificate) bool { return c.Spec.SecretName == name })
	if err != nil {
		return nil, err
	}
	return o.all(ctx, api, list, at)
}

func (o *whyOptions) ofPod(ctx context.Context, api *kube.Certs, t whyTarget, at time.Time) ([]why.Answer, error) {
	pod, events, err := api.Pod(ctx, o.access.namespace, t.name)
	if err != nil {
		return nil, o.advised(t, err)
	}
	var wants []why.PodWant
	for _, s := range why.PodSecrets(pod) {
		w := why.PodWant{PodSecret: s, Secret: api.Secret(ctx, o.access.namespace, s.Name)}
		if w.Answers, err = o.ofSecret(ctx, api, s.Name, at); err != nil {
			return nil, err
		}
		wants = append(wants, w)
	}
	answers := why.ExplainPod(pod, wants, events, at)
	if len(answers) == 0 {
		return nil, advise(fmt.Errorf("the Pod %s waits for no Secret, and no Certificate makes one that it names", t.name), "kubectl -n %s describe pod %s", o.access.namespace, t.name)
	}
	return answers, nil
}

// ofParent answers for the Certificates of an Ingress or a Gateway, and for those that it
// is to have and has not.
func (o *whyOptions) ofParent(ctx context.Context, api *kube.Certs, t whyTarget, at time.Time) ([]why.Answer, error) {
	p, err := api.Parent(ctx, t.kind, o.access.namespace, t.name)
	if err != nil {
		return nil, o.advised(t, err)
	}
	if p.Made, err = o.listed(ctx, api, func(c *cmapi.Certificate) bool { return kube.OfParent(c, p.Parent) }); err != nil {
		return nil, err
	}
	answers, err := o.all(ctx, api, p.Made, at)
	if err != nil {
		return nil, err
	}
	if a := why.ExplainParent(p, api.Leases(ctx), at); a != nil {
		answers = append(answers, *a)
	}
	return answers, nil
}

// ofRequest answers for the Certificate that a request, an order or a challenge is of, or
// for the request where it is of none.
func (o *whyOptions) ofRequest(ctx context.Context, api *kube.Certs, t whyTarget, at time.Time) ([]why.Answer, error) {
	r, err := api.RequestOf(ctx, t.kind, o.access.namespace, t.name)
	if kube.IsNoKind(err) {
		return nil, err
	}
	if err != nil {
		return nil, o.advised(t, err)
	}
	owner, err := ownerOf(ctx, api, r)
	if err != nil {
		return nil, err
	}
	ref := metav1.GetControllerOfNoCopy(r)
	if owner == nil || owner.UID != ref.UID {
		g, err := api.GatherRequest(ctx, r, o.clusterNamespace, at)
		if err != nil {
			return nil, err
		}
		a := why.ExplainRequest(g)
		if ref != nil && ref.Kind == cmapi.CertificateKind {
			a.Notes = append(a.Notes, fmt.Sprintf("the Certificate %s that it is of is gone", ref.Name))
		}
		return []why.Answer{a}, nil
	}
	answers, err := o.all(ctx, api, []cmapi.Certificate{*owner}, at)
	for i := range answers {
		id := t.kind + "/" + o.access.namespace + "/" + t.name
		if !slices.ContainsFunc(answers[i].Steps, func(s why.Step) bool { return s.Object == id }) {
			answers[i].Notes = append(answers[i].Notes, id+" is of an issuance that is over")
		}
	}
	return answers, err
}

func (o *whyOptions) ofIssuer(ctx context.Context, api *kube.Certs, t whyTarget, at time.Time) ([]why.Answer, error) {
	namespace := o.access.namespace
	ref := cmmeta.IssuerReference{Group: cmp.Or(t.group, cmapi.SchemeGroupVersion.Group), Kind: cmapi.IssuerKind, Name: t.name}
	if t.kind == "clusterissuer" {
		ref.Kind, namespace = cmapi.ClusterIssuerKind, ""
	}
	if t.group != "" {
		kind, namespaced, err := api.IssuerKind(t.group, t.kind)
		if err != nil {
			return nil, adviseCert(err, "use discovery of the API")
		}
		if kind == "" {
			return nil, advise(fmt.Errorf("the API server knows no %s of group %s", t.kind, t.group), "kubectl api-resources --api-group=%s", t.group)
		}
		if ref.Kind = kind; !namespaced {
			namespace = ""
		}
	}
	g, err := api.GatherIssuer(ctx, namespace, ref, o.clusterNamespace, at)
	if err != nil {
		return nil, err
	}
	switch err := fmt.Errorf("%s could not be seen", kube.IssuerText(ref)); g.Issuer.Look {
	case why.Found:
		return []why.Answer{why.ExplainIssuer(g)}, nil
	case why.NoKind:
		return []why.Answer{why.NoCRDs(o.access.namespace, t.name)}, nil
	case why.Forbidden:
		return nil, advise(err, "give yourself the right to %s", g.Issuer.Detail)
	case why.Failed:
		return nil, fmt.Errorf("%w: %s", err, g.Issuer.Detail)
	}
	return nil, o.noIssuer(ref, namespace, g.Issuers)
}

// noIssuer says what there is instead.
func (o *whyOptions) noIssuer(ref cmmeta.IssuerReference, namespace string, there []why.IssuerName) error {
	var names []string
	for _, i := range there {
		if i.Kind == ref.Kind && i.Namespace == namespace {
			names = append(names, i.Name)
		}
	}
	err := errors.New("there is no " + kube.IssuerText(ref))
	if namespace != "" {
		err = fmt.Errorf("%w in namespace %s", err, namespace)
	}
	if other := why.Nearest(ref.Name, names); other != "" {
		return advise(err, "is %s meant?", other)
	}
	return err
}
