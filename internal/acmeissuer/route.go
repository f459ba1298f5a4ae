package acmeissuer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/adler32"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/util/retry"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"
)

// solverPort is the port of services that lead to solvers, as cert-manager's have it.
const solverPort = 8089

// routeName is the name of what is made for a challenge: the same for each try.
func routeName(c *cmacme.Challenge) string {
	sum := sha256.Sum256([]byte(c.Namespace + "/" + c.Name + "/" + string(c.UID)))
	return "cm-acme-http-solver-" + hex.EncodeToString(sum[:5])
}

// routeMeta is the metadata of what is made for a challenge, and goes with it. The
// labels are cert-manager's: network policies and people select by them.
func routeMeta(c *cmacme.Challenge) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: routeName(c), Namespace: c.Namespace,
		Labels: map[string]string{
			cmacme.DomainLabelKey:               fmt.Sprint(adler32.Checksum([]byte(c.Spec.DNSName))),
			cmacme.TokenLabelKey:                fmt.Sprint(adler32.Checksum([]byte(c.Spec.Token))),
			cmacme.SolverIdentificationLabelKey: "true",
		},
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(c, cmacme.SchemeGroupVersion.WithKind(cmacme.ChallengeKind))},
	}
}

// ensureService makes the service of a challenge, and its endpoints: the addresses of
// this process, which may be another than that of an earlier step.
func (s *Solvers) ensureService(ctx context.Context, c *cmacme.Challenge) error {
	if len(s.Addresses) == 0 {
		return errors.New("HTTP-01 needs the addresses at which ingresses reach this controller: set its flag --acme-http01-address")
	}
	service := &corev1.Service{ObjectMeta: routeMeta(c), Spec: corev1.ServiceSpec{
		Type:  serviceType(c.Spec.Solver.HTTP01),
		Ports: []corev1.ServicePort{{Name: "http", Port: solverPort, TargetPort: intstr.FromInt32(s.Port)}},
	}}
	// Istio shall not ask for mutual TLS on the way.
	service.Annotations = map[string]string{"auth.istio.io/8089": "NONE"}
	_, err := s.Client.Kube.CoreV1().Services(c.Namespace).Create(ctx, service, metav1.CreateOptions{FieldManager: fieldManager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	for _, slice := range s.endpoints(c) {
		if err := s.ensureEndpoints(ctx, slice); err != nil {
			return err
		}
	}
	return nil
}

// serviceType is what the solver wishes, and a NodePort else, as some cloud's ingress
// needs it.
func serviceType(h *cmacme.ACMEChallengeSolverHTTP01) corev1.ServiceType {
	wish := corev1.ServiceType("")
	switch {
	case h.Ingress != nil:
		wish = h.Ingress.ServiceType
	case h.GatewayHTTPRoute != nil:
		wish = h.GatewayHTTPRoute.ServiceType
	}
	if wish == "" {
		return corev1.ServiceTypeNodePort
	}
	return wish
}

// endpoints returns one slice for each family of addresses.
func (s *Solvers) endpoints(c *cmacme.Challenge) []*discoveryv1.EndpointSlice {
	var all []*discoveryv1.EndpointSlice
	for family, kind := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
		var addresses []string
		for _, a := range s.Addresses {
			if a.Unmap().Is4() == (family == 0) {
				addresses = append(addresses, a.Unmap().String())
			}
		}
		if len(addresses) == 0 {
			continue
		}
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta: routeMeta(c), AddressType: kind,
			Endpoints: []discoveryv1.Endpoint{{Addresses: addresses, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}}},
			Ports:     []discoveryv1.EndpointPort{{Name: new("http"), Port: new(s.Port), Protocol: new(corev1.ProtocolTCP)}},
		}
		slice.Name += strings.ToLower("-" + string(kind))
		slice.Labels[discoveryv1.LabelServiceName] = routeName(c)
		slice.Labels[discoveryv1.LabelManagedBy] = "kubepki"
		all = append(all, slice)
	}
	return all
}

func (s *Solvers) ensureEndpoints(ctx context.Context, wanted *discoveryv1.EndpointSlice) error {
	api := s.Client.Kube.DiscoveryV1().EndpointSlices(wanted.Namespace)
	got, err := api.Get(ctx, wanted.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, wanted, metav1.CreateOptions{FieldManager: fieldManager})
		return err
	}
	if err != nil || apiequality.Semantic.DeepEqual(got.Endpoints, wanted.Endpoints) && apiequality.Semantic.DeepEqual(got.Ports, wanted.Ports) {
		return err
	}
	got.Endpoints, got.Ports = wanted.Endpoints, wanted.Ports
	_, err = api.Update(ctx, got, metav1.UpdateOptions{FieldManager: fieldManager})
	return err
}

func (s *Solvers) removeService(ctx context.Context, c *cmacme.Challenge) error {
	for _, slice := range s.endpoints(c) {
		if err := ignoreGone(s.Client.Kube.DiscoveryV1().EndpointSlices(c.Namespace).Delete(ctx, slice.Name, metav1.DeleteOptions{})); err != nil {
			return err
		}
	}
	return ignoreGone(s.Client.Kube.CoreV1().Services(c.Namespace).Delete(ctx, routeName(c), metav1.DeleteOptions{}))
}

// ingressRoute leads by an Ingress of its own, or by one that is there.
type ingressRoute struct {
	client *Client
	config *cmacme.ACMEChallengeSolverHTTP01Ingress
}

func (r ingressRoute) ensure(ctx context.Context, c *cmacme.Challenge, service string) error {
	if r.config.Class != nil && r.config.IngressClassName != nil {
		return errors.New("http01.ingress: class and ingressClassName exclude each other")
	}
	if r.config.Name != "" {
		return r.edit(ctx, c, func(i *networkingv1.Ingress) { addPath(i, hostRule(c), pathTo(c, service)) })
	}
	_, err := r.client.Kube.NetworkingV1().Ingresses(c.Namespace).Create(ctx, ingressFor(c, r.config, service), metav1.CreateOptions{FieldManager: fieldManager})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (r ingressRoute) remove(ctx context.Context, c *cmacme.Challenge) error {
	if r.config.Name != "" {
		return ignoreGone(r.edit(ctx, c, func(i *networkingv1.Ingress) { removePath(i, hostRule(c), wellKnown+c.Spec.Token) }))
	}
	return ignoreGone(r.client.Kube.NetworkingV1().Ingresses(c.Namespace).Delete(ctx, routeName(c), metav1.DeleteOptions{}))
}

// edit changes the Ingress that the solver names, if the change changes it.
func (r ingressRoute) edit(ctx context.Context, c *cmacme.Challenge, change func(*networkingv1.Ingress)) error {
	api := r.client.Kube.NetworkingV1().Ingresses(c.Namespace)
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		have, err := api.Get(ctx, r.config.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		wanted := have.DeepCopy()
		change(wanted)
		if apiequality.Semantic.DeepEqual(have.Spec, wanted.Spec) {
			return nil
		}
		_, err = api.Update(ctx, wanted, metav1.UpdateOptions{FieldManager: fieldManager})
		return err
	})
}

// hostRule is the host of the rule for a challenge: a rule for an address is one for
// every host.
func hostRule(c *cmacme.Challenge) string {
	if _, err := netip.ParseAddr(c.Spec.DNSName); err == nil {
		return ""
	}
	return c.Spec.DNSName
}

func pathTo(c *cmacme.Challenge, service string) networkingv1.HTTPIngressPath {
	return networkingv1.HTTPIngressPath{
		Path: wellKnown + c.Spec.Token, PathType: new(networkingv1.PathTypeExact),
		Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
			Name: service, Port: networkingv1.ServiceBackendPort{Number: solverPort},
		}},
	}
}

// addPath puts a path before those of the host, in the place of one that is the same.
func addPath(i *networkingv1.Ingress, host string, path networkingv1.HTTPIngressPath) {
	removePath(i, host, path.Path)
	for n := range i.Spec.Rules {
		if rule := &i.Spec.Rules[n]; rule.Host == host {
			if rule.HTTP == nil {
				rule.HTTP = &networkingv1.HTTPIngressRuleValue{}
			}
			rule.HTTP.Paths = slices.Insert(rule.HTTP.Paths, 0, path)
			return
		}
	}
	i.Spec.Rules = append(i.Spec.Rules, networkingv1.IngressRule{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{
		HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{path}},
	}})
}

// removePath takes a path out, and the rule with it that has no other.
func removePath(i *networkingv1.Ingress, host, path string) {
	i.Spec.Rules = slices.DeleteFunc(i.Spec.Rules, func(rule networkingv1.IngressRule) bool {
		if rule.Host != host || rule.HTTP == nil {
			return false
		}
		before := len(rule.HTTP.Paths)
		rule.HTTP.Paths = slices.DeleteFunc(rule.HTTP.Paths, func(p networkingv1.HTTPIngressPath) bool { return p.Path == path })
		return before > 0 && len(rule.HTTP.Paths) == 0
	})
}

// ingressFor is the Ingress for one challenge.
func ingressFor(c *cmacme.Challenge, config *cmacme.ACMEChallengeSolverHTTP01Ingress, service string) *networkingv1.Ingress {
	ingress := &networkingv1.Ingress{ObjectMeta: routeMeta(c), Spec: networkingv1.IngressSpec{IngressClassName: config.IngressClassName}}
	// ACME servers come from anywhere.
	ingress.Annotations = map[string]string{"nginx.ingress.kubernetes.io/whitelist-source-range": "0.0.0.0/0,::/0"}
	if config.Class != nil {
		ingress.Annotations["kubernetes.io/ingress.class"] = *config.Class
	}
	addPath(ingress, hostRule(c), pathTo(c, service))
	if t := config.IngressTemplate; t != nil {
		maps.Copy(ingress.Labels, t.Labels)
		for key, value := range t.Annotations {
			if key[strings.LastIndex(key, "/")+1:] == "whitelist-source-range" {
				delete(ingress.Annotations, "nginx.ingress.kubernetes.io/whitelist-source-range")
			}
			ingress.Annotations[key] = value
		}
	}
	return ingress
}

// gatewayRoute leads by an HTTPRoute.
type gatewayRoute struct {
	client *Client
	config *cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute
}

func (r gatewayRoute) ensure(ctx context.Context, c *cmacme.Challenge, service string) error {
	api, wanted := r.client.routes(c.Namespace), routeFor(c, r.config, service)
	got, err := api.Get(ctx, wanted.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		if _, err = api.Create(ctx, wanted, metav1.CreateOptions{FieldManager: fieldManager}); apierrors.IsNotFound(err) {
			return errors.New("HTTPRoutes of gateway.networking.k8s.io/v1 are not there: install the Gateway API")
		}
		return err
	}
	if err != nil || apiequality.Semantic.DeepEqual(got.Spec.ParentRefs, wanted.Spec.ParentRefs) {
		return err
	}
	got.Spec = wanted.Spec
	_, err = api.Update(ctx, got, metav1.UpdateOptions{FieldManager: fieldManager})
	return err
}

func (r gatewayRoute) remove(ctx context.Context, c *cmacme.Challenge) error {
	return ignoreGone(r.client.routes(c.Namespace).Delete(ctx, routeName(c), metav1.DeleteOptions{}))
}

func routeFor(c *cmacme.Challenge, config *cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute, service string) *gwapi.HTTPRoute {
	route := &gwapi.HTTPRoute{ObjectMeta: routeMeta(c)}
	maps.Copy(route.Labels, config.Labels)
	route.Spec.ParentRefs = config.ParentRefs
	if net.ParseIP(c.Spec.DNSName) == nil {
		route.Spec.Hostnames = []gwapi.Hostname{gwapi.Hostname(c.Spec.DNSName)}
	}
	backend := gwapi.BackendRef{BackendObjectReference: gwapi.BackendObjectReference{
		Group: new(gwapi.Group("")), Kind: new(gwapi.Kind("Service")), Name: gwapi.ObjectName(service),
		Namespace: new(gwapi.Namespace(c.Namespace)), Port: new(gwapi.PortNumber(solverPort)),
	}, Weight: new(int32(1))}
	route.Spec.Rules = []gwapi.HTTPRouteRule{{
		Matches:     []gwapi.HTTPRouteMatch{{Path: &gwapi.HTTPPathMatch{Type: new(gwapi.PathMatchExact), Value: new(wellKnown + c.Spec.Token)}}},
		BackendRefs: []gwapi.HTTPBackendRef{{BackendRef: backend}},
	}}
	return route
}
