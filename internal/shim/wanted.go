package shim

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	acme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TLSACME is the annotation with which an Ingress asks for a certificate of the issuer
// that is the default.
const TLSACME = "kubernetes.io/tls-acme"

// Defaults are what holds for all parents.
type Defaults struct {
	// Issuer is the one of parents that name none; its name may be empty.
	Issuer cmmeta.IssuerReference
	// Auto are annotations that, where they are true, ask for a certificate of an Ingress
	// as an annotation with an issuer does.
	Auto []string
	// Extra are annotations that Certificates take over.
	Extra []string
	// Protocols of listeners that end TLS, beside HTTPS and TLS.
	Protocols []string
}

// Asks tells whether a parent asks for Certificates.
func (d *Defaults) Asks(p *Parent) bool {
	for _, key := range []string{cmapi.IngressIssuerNameAnnotationKey, cmapi.IngressClusterIssuerNameAnnotationKey} {
		if _, ok := p.Annotations[key]; ok {
			return true
		}
	}
	if p.Kind != Ingress {
		return false
	}
	return slices.ContainsFunc(d.Auto, func(key string) bool {
		is, err := strconv.ParseBool(p.Annotations[key])
		return err == nil && is
	})
}

// issuer is the one that a parent names.
func (d *Defaults) issuer(annotations map[string]string) (cmmeta.IssuerReference, error) {
	ref := d.Issuer
	name, named := annotations[cmapi.IngressIssuerNameAnnotationKey]
	if named {
		ref.Name, ref.Kind = name, cmapi.IssuerKind
	}
	cluster, ofCluster := annotations[cmapi.IngressClusterIssuerNameAnnotationKey]
	if ofCluster {
		ref.Name, ref.Kind = cluster, cmapi.ClusterIssuerKind
	}
	for key, field := range map[string]*string{cmapi.IssuerKindAnnotationKey: &ref.Kind, cmapi.IssuerGroupAnnotationKey: &ref.Group} {
		if value, ok := annotations[key]; ok {
			*field = value
		}
	}
	if ofCluster {
		for _, key := range []string{cmapi.IngressIssuerNameAnnotationKey, cmapi.IssuerGroupAnnotationKey, cmapi.IssuerKindAnnotationKey} {
			if _, both := annotations[key]; both {
				return ref, fmt.Errorf("both %q and %q may not be set", cmapi.IngressClusterIssuerNameAnnotationKey, key)
			}
		}
	}
	if ref.Name == "" {
		return ref, fmt.Errorf("no annotation names an issuer, and there is no default")
	}
	return ref, nil
}

// Wanted are the Certificates that a parent which [Defaults.Asks] for some is to have, in
// the order of its blocks, and what is wrong with blocks that get none. An error is about
// the whole parent: then nothing of what is there is to be touched.
func (d *Defaults) Wanted(p *Parent) (all []*cmapi.Certificate, skipped []string, err error) {
	ref, err := d.issuer(p.Annotations)
	if err != nil {
		return nil, nil, fmt.Errorf("could not determine issuer for ingress due to bad annotations: %w", err)
	}
	hosts, order, skipped, err := d.hosts(p)
	if err != nil {
		return nil, nil, err
	}
	for _, secret := range order {
		c := d.certificate(p, secret, hosts[secret], ref)
		if err := translate(&c.Spec, p.Annotations); err != nil {
			return nil, skipped, err
		}
		all = append(all, c)
	}
	return all, skipped, nil
}

// hosts are the hosts of each Secret that the blocks name.
func (d *Defaults) hosts(p *Parent) (hosts map[string][]string, order, skipped []string, err error) {
	hosts = map[string][]string{}
	seen := map[string]string{}
	for _, b := range p.Blocks {
		if p.Kind != Ingress {
			if !d.ends(b.Protocol) || b.Passthrough || ignored(p.Annotations, b.Listener) {
				continue
			}
		} else if first, twice := seen[b.Secrets[0]]; twice {
			return nil, nil, nil, fmt.Errorf("%s.secretName: Invalid value: %q: this secret name must only appear in a single TLS entry but is also used in %s.secretName",
				first, b.Secrets[0], b.Path)
		} else {
			seen[b.Secrets[0]] = b.Path
		}
		if b.Problem != "" {
			skipped = append(skipped, b.Problem)
			continue
		}
		for _, secret := range b.Secrets {
			if _, ok := hosts[secret]; !ok {
				order = append(order, secret)
			}
			hosts[secret] = append(hosts[secret], b.Hosts...)
		}
	}
	return hosts, order, skipped, nil
}

// ends tells whether a listener of a protocol ends TLS.
func (d *Defaults) ends(protocol string) bool {
	return protocol == "HTTPS" || protocol == "TLS" || slices.Contains(d.Protocols, protocol)
}

// ignored tells whether a listener is one that the parent wants no certificate for.
func ignored(annotations map[string]string, listener string) bool {
	for name := range strings.SplitSeq(annotations[cmapi.CertificateIgnoreTLSListeners], ",") {
		if name = strings.TrimSpace(name); name != "" && name == listener {
			return true
		}
	}
	return false
}

// applySet would have a Certificate pruned as one that is not in the set.
const applySet = "applyset.kubernetes.io/part-of"

// certificate is a Certificate before the annotations that shape its spec.
func (d *Defaults) certificate(p *Parent, secret string, hosts []string, ref cmmeta.IssuerReference) *cmapi.Certificate {
	labels := maps.Clone(p.Labels)
	delete(labels, applySet)
	c := &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: secret, Labels: labels, Annotations: map[string]string{},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(p, p.Kind)},
		},
		Spec: cmapi.CertificateSpec{SecretName: secret, IssuerRef: ref, Usages: cmapi.DefaultKeyUsages()},
	}
	for i, host := range hosts {
		switch {
		case slices.Contains(hosts[:i], host):
		case net.ParseIP(host) != nil:
			c.Spec.IPAddresses = append(c.Spec.IPAddresses, host)
		default:
			c.Spec.DNSNames = append(c.Spec.DNSNames, host)
		}
	}
	for _, key := range d.Extra {
		if value, ok := p.Annotations[key]; ok {
			c.Annotations[key] = value
		}
	}
	annotate(c, p)
	return c
}

// annotate sets what an ACME issuer reads of a Certificate.
func annotate(c *cmapi.Certificate, p *Parent) {
	if p.Annotations[acme.IngressEditInPlaceAnnotationKey] == "true" {
		c.Annotations[acme.ACMECertificateHTTP01IngressNameOverride] = p.Name
		// Ingress controllers that edit in place want a Secret before they serve at all.
		c.Annotations[cmapi.IssueTemporaryCertificateAnnotation] = "true"
	}
	for from, to := range map[string]string{
		cmapi.IngressACMEIssuerHTTP01IngressClassAnnotationKey:     acme.ACMECertificateHTTP01IngressClassOverride,
		cmapi.IngressACMEIssuerHTTP01IngressClassNameAnnotationKey: acme.ACMECertificateHTTP01IngressClassNameOverride,
	} {
		if value := p.Annotations[from]; value != "" {
			c.Annotations[to] = value
		}
	}
	if p.Kind == Ingress {
		return
	}
	c.Annotations[acme.ACMECertificateHTTP01ParentRefKind], c.Annotations[acme.ACMECertificateHTTP01ParentRefName] = p.Kind.Kind, p.Name
	if above, _ := strconv.ParseBool(p.Annotations[acme.ACMECertificateHTTP01ParentRefFallback]); above && p.Kind == ListenerSet {
		c.Annotations[acme.ACMECertificateHTTP01ParentRefKind], c.Annotations[acme.ACMECertificateHTTP01ParentRefName] = Gateway.Kind, p.AboveName
		c.Annotations[acme.ACMECertificateHTTP01ParentRefNamespace] = p.AboveNamespace
	}
}
