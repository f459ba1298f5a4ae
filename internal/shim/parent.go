package shim

import (
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"
)

// The kinds of parents.
var (
	Ingress     = networkingv1.SchemeGroupVersion.WithKind("Ingress")
	Gateway     = GatewayAPI.WithKind("Gateway")
	ListenerSet = GatewayAPI.WithKind("ListenerSet")
)

// GatewayAPI is the group and version of Gateways and ListenerSets.
var GatewayAPI = schema.GroupVersion{Group: gwapi.GroupName, Version: "v1"}

// Parent is an Ingress, a Gateway or a ListenerSet, as far as Certificates are made of it.
// Of its metadata names, UID, labels and annotations are kept, and whether it is going.
type Parent struct {
	metav1.ObjectMeta
	Kind   schema.GroupVersionKind
	Blocks []Block
	// Above is the Gateway that a ListenerSet belongs to, as NAMESPACE and name.
	AboveNamespace, AboveName string
}

// Block is a TLS block of an Ingress, or a listener.
type Block struct {
	Path     string // in the object, such as "spec.tls[0]"
	Listener string // its name; "" in an Ingress
	Protocol string // of a listener
	// Passthrough says that a listener ends no TLS.
	Passthrough bool
	Hosts       []string
	Secrets     []string
	// Problem is why no certificate can be made for the block; "": there is none.
	Problem string
}

func parentMeta(o *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: o.Namespace, Name: o.Name, UID: o.UID, Labels: o.Labels, Annotations: o.Annotations,
		DeletionTimestamp: o.DeletionTimestamp, Finalizers: o.Finalizers,
	}
}

// OfIngress reads an Ingress.
func OfIngress(o *networkingv1.Ingress) *Parent {
	p := &Parent{ObjectMeta: parentMeta(&o.ObjectMeta), Kind: Ingress}
	for i, tls := range o.Spec.TLS {
		b := Block{Path: fmt.Sprintf("spec.tls[%d]", i), Hosts: tls.Hosts, Secrets: []string{tls.SecretName}}
		switch {
		case len(tls.Hosts) == 0:
			b.Problem = b.Path + ".hosts: Required value"
		case tls.SecretName == "":
			b.Problem = b.Path + ".secretName: Required value"
		}
		p.Blocks = append(p.Blocks, b)
	}
	return p
}

// OfGateway reads a Gateway.
func OfGateway(o *gwapi.Gateway) *Parent {
	p := &Parent{ObjectMeta: parentMeta(&o.ObjectMeta), Kind: Gateway}
	for i, l := range o.Spec.Listeners {
		p.Blocks = append(p.Blocks, listener(i, l, o.Namespace))
	}
	return p
}

// OfListenerSet reads a ListenerSet.
func OfListenerSet(o *gwapi.ListenerSet) *Parent {
	p := &Parent{ObjectMeta: parentMeta(&o.ObjectMeta), Kind: ListenerSet, AboveNamespace: o.Namespace, AboveName: string(o.Spec.ParentRef.Name)}
	if n := o.Spec.ParentRef.Namespace; n != nil && *n != "" {
		p.AboveNamespace = string(*n)
	}
	for i, l := range o.Spec.Listeners {
		p.Blocks = append(p.Blocks, listener(i, gwapi.Listener(l), o.Namespace))
	}
	return p
}

func listener(i int, l gwapi.Listener, namespace string) Block {
	b := Block{Path: fmt.Sprintf("spec.listeners[%d]", i), Listener: string(l.Name), Protocol: string(l.Protocol)}
	if l.Hostname != nil && *l.Hostname != "" {
		b.Hosts = []string{string(*l.Hostname)}
	} else {
		b.Problem = b.Path + ".hostname: Required value: the hostname cannot be empty"
	}
	if l.TLS == nil {
		b.Problem = b.Path + ".tls: Required value: the TLS block cannot be empty"
		return b
	}
	for _, ref := range l.TLS.CertificateRefs {
		b.Secrets = append(b.Secrets, string(ref.Name))
	}
	b.Passthrough = l.TLS.Mode != nil && *l.TLS.Mode == gwapi.TLSModePassthrough
	if problem := refProblem(b.Path, l.TLS, namespace); problem != "" {
		b.Problem = problem
	}
	return b
}

// refProblem tells why no certificate can be made for what a listener refers to.
func refProblem(path string, tls *gwapi.ListenerTLSConfig, namespace string) string {
	if len(tls.CertificateRefs) == 0 {
		return path + ".tls.certificateRefs: Required value: listener has no certificateRefs"
	}
	for i, ref := range tls.CertificateRefs {
		at := fmt.Sprintf("%s.tls.certificateRefs[%d]", path, i)
		switch {
		case ref.Group != nil && *ref.Group != "" && *ref.Group != "core":
			return fmt.Sprintf("%s.group: Unsupported value: %q", at, *ref.Group)
		case ref.Kind != nil && *ref.Kind != "" && *ref.Kind != "Secret":
			return fmt.Sprintf("%s.kind: Unsupported value: %q", at, *ref.Kind)
		case ref.Namespace != nil && string(*ref.Namespace) != namespace:
			return fmt.Sprintf("%s.namespace: Invalid value: %q: cross-namespace secret references are not allowed in listeners", at, *ref.Namespace)
		}
	}
	switch {
	case tls.Mode == nil:
		return path + ".tls.mode: Required value: the mode field is required"
	case *tls.Mode != gwapi.TLSModeTerminate && *tls.Mode != gwapi.TLSModePassthrough:
		return fmt.Sprintf("%s.tls.mode: Unsupported value: %q", path, *tls.Mode)
	}
	return ""
}

// uses tells whether a block names a Secret, be it one for which nothing is made.
func (p *Parent) uses(secret string) bool {
	return slices.ContainsFunc(p.Blocks, func(b Block) bool { return slices.Contains(b.Secrets, secret) })
}

// going tells whether the parent is on its way out.
func (p *Parent) going() bool {
	return p.DeletionTimestamp != nil || slices.Contains(p.Finalizers, metav1.FinalizerDeleteDependents)
}
