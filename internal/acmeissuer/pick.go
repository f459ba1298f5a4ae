package acmeissuer

import (
	"cmp"
	"errors"
	"slices"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"
)

// pick chooses the solver for a name, "*.example.com" for a wildcard, and which of the
// offered challenges it solves: nil where none fits. A solver that names the very name
// comes before one that names a zone of it, a longer zone before a shorter one, more
// labels before fewer, and then the one that stands first (cert-manager
// pkg/util/solverpicker). Its answer is a copy.
func pick(name string, offered []cmacme.ACMEChallenge, solvers []cmacme.ACMEChallengeSolver, labels map[string]string) (*cmacme.ACMEChallengeSolver, *cmacme.ACMEChallenge) {
	var best *cmacme.ACMEChallengeSolver
	var challenge *cmacme.ACMEChallenge
	var most fitness
	for i := range solvers {
		c := solvable(&solvers[i], offered)
		if c == nil {
			continue
		}
		if f, ok := fit(solvers[i].Selector, name, labels); ok && (best == nil || f.compare(most) > 0) {
			best, challenge, most = &solvers[i], c, f
		}
	}
	return best.DeepCopy(), challenge.DeepCopy()
}

// solvable returns the first of the offered challenges that a solver is for.
func solvable(s *cmacme.ACMEChallengeSolver, offered []cmacme.ACMEChallenge) *cmacme.ACMEChallenge {
	for i, c := range offered {
		if c.Type == acme.ChallengeTypeHTTP01 && s.HTTP01 != nil || c.Type == acme.ChallengeTypeDNS01 && s.DNS01 != nil {
			return &offered[i]
		}
	}
	return nil
}

// fitness is how closely a selector names a name.
type fitness struct{ name, zone, labels int }

func (f fitness) compare(other fitness) int {
	return cmp.Or(cmp.Compare(f.name, other.name), cmp.Compare(f.zone, other.zone), cmp.Compare(f.labels, other.labels))
}

func fit(s *cmacme.CertificateDNSNameSelector, name string, labels map[string]string) (f fitness, ok bool) {
	if s == nil {
		return f, true
	}
	for key, value := range s.MatchLabels {
		if got, have := labels[key]; !have || got != value {
			return f, false
		}
	}
	f.labels = len(s.MatchLabels)
	if slices.Contains(s.DNSNames, name) {
		f.name = 1
	}
	for _, zone := range s.DNSZones {
		if n := dns.CountLabel(zone); dns.CompareDomainName(zone, name) == n {
			f.zone = max(f.zone, n)
		}
	}
	return f, (len(s.DNSNames) == 0 || f.name > 0) && (len(s.DNSZones) == 0 || f.zone > 0)
}

// override applies the annotations by which a Certificate chooses another ingress or
// gateway than its issuer. They have come through the request to the order.
func override(s *cmacme.ACMEChallengeSolver, order *cmacme.Order) error {
	switch {
	case s.HTTP01 != nil && s.HTTP01.Ingress != nil:
		return overrideIngress(s.HTTP01.Ingress, order.Annotations)
	case s.HTTP01 != nil && s.HTTP01.GatewayHTTPRoute != nil:
		return overrideParents(s.HTTP01.GatewayHTTPRoute, order)
	}
	return nil
}

func overrideIngress(ingress *cmacme.ACMEChallengeSolverHTTP01Ingress, annotations map[string]string) error {
	name, hasName := annotations[cmacme.ACMECertificateHTTP01IngressNameOverride]
	class, hasClass := annotations[cmacme.ACMECertificateHTTP01IngressClassOverride]
	className, hasClassName := annotations[cmacme.ACMECertificateHTTP01IngressClassNameOverride]
	if hasName && hasClass || hasName && hasClassName || hasClass && hasClassName {
		return errors.New("the annotations acme.cert-manager.io/http01-override-ingress-{name,class,ingressclassname} exclude each other: leave one")
	}
	if !hasName && !hasClass && !hasClassName {
		return nil
	}
	ingress.Name, ingress.Class, ingress.IngressClassName = name, nil, nil
	if hasClass {
		ingress.Class = &class
	}
	if hasClassName {
		ingress.IngressClassName = &className
	}
	return nil
}

func overrideParents(route *cmacme.ACMEChallengeSolverHTTP01GatewayHTTPRoute, order *cmacme.Order) error {
	name, hasName := order.Annotations[cmacme.ACMECertificateHTTP01ParentRefName]
	kind, hasKind := order.Annotations[cmacme.ACMECertificateHTTP01ParentRefKind]
	if hasName != hasKind {
		return errors.New("the annotations acme.cert-manager.io/http01-parentrefname and http01-parentrefkind need each other")
	}
	if hasName {
		ref := gwapi.ParentReference{Name: gwapi.ObjectName(name), Kind: new(gwapi.Kind(kind)), Namespace: new(gwapi.Namespace(order.Namespace))}
		if ns := order.Annotations[cmacme.ACMECertificateHTTP01ParentRefNamespace]; ns != "" {
			*ref.Namespace = gwapi.Namespace(ns)
		}
		route.ParentRefs = slices.DeleteFunc(route.ParentRefs, func(p gwapi.ParentReference) bool {
			return p.Name == ref.Name && p.Namespace != nil && *p.Namespace == *ref.Namespace && (p.Kind == nil || *p.Kind == *ref.Kind)
		})
		route.ParentRefs = append(route.ParentRefs, ref)
	}
	if len(route.ParentRefs) == 0 {
		return errors.New("http01.gatewayHTTPRoute needs parentRefs, of the solver or by annotations")
	}
	return nil
}

// kindOf is the kind of an issuer that a reference names.
func kindOf(ref cmmeta.IssuerReference) string {
	return cmp.Or(ref.Kind, cmapi.IssuerKind)
}
