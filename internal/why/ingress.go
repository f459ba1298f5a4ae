package why

import (
	"fmt"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// The causes for which there is no Certificate to look at.
const (
	CauseCRDs       = "crds-missing"
	CauseNoTLS      = "ingress-without-tls"
	CauseNotForUs   = "ingress-not-annotated"
	installCRDs     = "https://github.com/cert-manager/cert-manager/releases/download/v1.21.2/cert-manager.crds.yaml"
	tlsACME         = "kubernetes.io/tls-acme"
	ingressResource = "ingress"
)

// NoCRDs is the answer where the API server does not know Certificates.
func NoCRDs(namespace, name string) Answer {
	id := "certificate/" + namespace + "/" + name
	return Answer{Namespace: namespace, Name: name, State: Broken,
		Steps: []Step{{Object: id, Mark: Bad, Text: "the API server knows no Certificates"}},
		Cause: &Cause{ID: CauseCRDs, Where: id, Text: "the CRDs of cert-manager.io are not installed", Fix: command("kubectl", "apply", "-f", installCRDs),
			Advice: "then a controller: kubepki controller --enable workloads, or cert-manager"}}
}

// ExplainIngress tells why there is no Certificate for an Ingress.
func ExplainIngress(o *networkingv1.Ingress, leases Seen[[]Lease], at time.Time) Answer {
	id := ingressResource + "/" + o.Namespace + "/" + o.Name
	a := Answer{Namespace: o.Namespace, Name: o.Name, State: Broken, Steps: []Step{{Object: id, Mark: Bad, Text: "there is no Certificate for it"}}}
	named := false
	for _, key := range []string{cmapi.IngressIssuerNameAnnotationKey, cmapi.IngressClusterIssuerNameAnnotationKey, tlsACME} {
		named = named || o.Annotations[key] != ""
	}
	kubectl := func(words ...string) string {
		return command(append([]string{"kubectl", "-n", o.Namespace}, words...)...)
	}
	switch {
	case !named:
		a.Cause = &Cause{ID: CauseNotForUs, Where: id + " (metadata.annotations)", Text: "the Ingress names no issuer",
			Fix: kubectl("annotate", ingressResource, o.Name, cmapi.IngressClusterIssuerNameAnnotationKey+"=ISSUER"), Advice: "with " + cmapi.IngressIssuerNameAnnotationKey + " for an Issuer of its namespace"}
	case !hasTLS(o):
		a.Cause = &Cause{ID: CauseNoTLS, Where: id + " (spec.tls)", Text: "the Ingress has no tls entry with hosts and a secretName: no certificate is wanted", Fix: kubectl("edit", ingressResource, o.Name)}
	case at.Sub(ChangedAt(o)) < grace:
		a.State, a.Steps[0].Mark = Waiting, Waits
		a.Cause = &Cause{ID: CauseUnderWay, Where: id, Text: "it was made or changed " + ago(at.Sub(ChangedAt(o))) + ": a controller is to make a Certificate of it", Fix: command("kubepki", "cert", "why", ingressResource+"/"+o.Name, "-n", o.Namespace)}
	default:
		t := &teller{Gathered: &Gathered{At: at, Leases: leases}}
		a.Cause = t.idle(id, fmt.Sprintf("nobody has made a Certificate for the Ingress, which is %s old", roughly(at.Sub(o.CreationTimestamp.Time))))
	}
	return a
}

func hasTLS(o *networkingv1.Ingress) bool {
	for _, t := range o.Spec.TLS {
		if len(t.Hosts) > 0 && t.SecretName != "" {
			return true
		}
	}
	return false
}
