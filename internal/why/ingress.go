package why

import (
	"fmt"
	"slices"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/shim"
)

// The causes for which there is no Certificate to look at.
const (
	CauseCRDs           = "crds-missing"
	CauseNoTLS          = "ingress-without-tls"
	CauseNotForUs       = "ingress-not-annotated"
	CauseGatewayNoTLS   = "gateway-without-tls"
	CauseGatewayNotOurs = "gateway-not-annotated"
	CauseAnnotations    = "annotations-invalid"
)

const installCRDs = "https://github.com/cert-manager/cert-manager/releases/download/v1.21.2/cert-manager.crds.yaml"

// NoCRDs is the answer where the API server does not know Certificates.
func NoCRDs(namespace, name string) Answer {
	id := "certificate/" + namespace + "/" + name
	return Answer{Namespace: namespace, Name: name, State: Broken,
		Steps: []Step{{Object: id, Mark: Bad, Text: "the API server knows no Certificates"}},
		Cause: &Cause{ID: CauseCRDs, Where: id, Text: "the CRDs of cert-manager.io are not installed", Fix: command("kubectl", "apply", "-f", installCRDs),
			Advice: "then a controller: kubepki controller --enable workloads, or cert-manager"}}
}

// Parent is an Ingress, a Gateway or a ListenerSet, and what of it is there.
type Parent struct {
	*shim.Parent
	Created, Changed time.Time
	// Made are the Certificates that are there for it.
	Made []cmapi.Certificate
}

// unknownDefault stands for the issuer that a controller has by its flags: who asks for it
// names none, and nobody but the controller knows it.
const unknownDefault = "of-the-controllers-flags"

// ExplainParent tells why there is no Certificate for an Ingress, a Gateway or a
// ListenerSet, or not for all of its blocks. nil: there is one for each that is to have one.
func ExplainParent(p *Parent, leases Seen[[]Lease], at time.Time) *Answer {
	kind := strings.ToLower(p.Kind.Kind)
	id := kind + "/" + p.Namespace + "/" + p.Name
	d := shim.Defaults{Auto: []string{shim.TLSACME}, Issuer: cmmeta.IssuerReference{Name: unknownDefault}}
	a := &Answer{Kind: kind, Namespace: p.Namespace, Name: p.Name, State: Broken, Steps: []Step{{Object: id, Mark: Bad, Text: "there is no Certificate for it"}}}
	kubectl := func(words ...string) string {
		return command(append([]string{"kubectl", "-n", p.Namespace}, words...)...)
	}
	notOurs, noTLS, blocks := CauseNotForUs, CauseNoTLS, "tls entry with hosts and a secretName"
	if p.Kind != shim.Ingress {
		notOurs, noTLS, blocks = CauseGatewayNotOurs, CauseGatewayNoTLS, "listener that ends TLS, with a hostname and a certificateRef to a Secret"
	}
	if !d.Asks(p.Parent) {
		if len(p.Made) > 0 {
			return nil // somebody has made them by hand
		}
		a.Cause = &Cause{ID: notOurs, Where: id + " (metadata.annotations)", Text: "the " + p.Kind.Kind + " names no issuer",
			Fix: kubectl("annotate", kind, p.Name, cmapi.IngressClusterIssuerNameAnnotationKey+"=ISSUER"), Advice: "with " + cmapi.IngressIssuerNameAnnotationKey + " for an Issuer of its namespace"}
		return a
	}
	wanted, skipped, err := d.Wanted(p.Parent)
	wanted = slices.DeleteFunc(wanted, func(w *cmapi.Certificate) bool {
		return slices.ContainsFunc(p.Made, func(c cmapi.Certificate) bool { return c.Spec.SecretName == w.Spec.SecretName })
	})
	switch {
	case err != nil:
		a.Cause = &Cause{ID: CauseAnnotations, Where: id + " (metadata.annotations)", Text: "what it asks for cannot be made: " + err.Error(), Fix: kubectl("edit", kind, p.Name)}
		a.Steps[0].Text = "is refused by the controller"
	case len(wanted) == 0 && len(p.Made) > 0:
		return nil
	case len(wanted) == 0:
		text := fmt.Sprintf("the %s has no %s: no certificate is wanted", p.Kind.Kind, blocks)
		if len(skipped) > 0 {
			text += ": " + strings.Join(skipped, "; ")
		}
		a.Cause = &Cause{ID: noTLS, Where: id + " (" + blockField(p.Parent) + ")", Text: text, Fix: kubectl("edit", kind, p.Name)}
	default:
		a.unmade(p, id, wanted, leases, at)
	}
	return a
}

func blockField(p *shim.Parent) string {
	if p.Kind == shim.Ingress {
		return "spec.tls"
	}
	return "spec.listeners"
}

// unmade tells why Certificates that are wanted are not there.
func (a *Answer) unmade(p *Parent, id string, wanted []*cmapi.Certificate, leases Seen[[]Lease], at time.Time) {
	var secrets []string
	for _, w := range wanted {
		secrets = append(secrets, w.Spec.SecretName)
	}
	slices.Sort(secrets)
	a.Steps[0].Text = "there is no Certificate for its Secret " + strings.Join(secrets, ", ")
	if at.Sub(p.Changed) < grace {
		a.State, a.Steps[0].Mark = Waiting, Waits
		a.Cause = &Cause{ID: CauseUnderWay, Where: id, Text: "it was made or changed " + ago(at.Sub(p.Changed)) + ": a controller is to make a Certificate of it",
			Fix: command("kubepki", "cert", "why", a.Kind+"/"+p.Name, "-n", p.Namespace)}
		return
	}
	t := &teller{Gathered: &Gathered{At: at, Leases: leases}}
	a.Cause = t.idle(id, fmt.Sprintf("nobody has made a Certificate for Secret %s of the %s, which is %s old", strings.Join(secrets, ", "), p.Kind.Kind, roughly(at.Sub(p.Created))))
	part, other := "ingress-shim", "cert-manager does so by itself"
	if p.Kind != shim.Ingress {
		part, other = "gateway-shim", "cert-manager with --enable-gateway-api"
	}
	if a.Cause.ID == CauseNoController {
		a.Cause.Fix = command("kubepki", "controller", "--enable", "workloads,"+part)
		return
	}
	a.Cause.Advice = fmt.Sprintf("look at its log, and whether it makes Certificates of such objects at all (kubepki controller --enable %s; %s)", part, other)
}
