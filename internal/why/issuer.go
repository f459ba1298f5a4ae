package why

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/workload"
)

// ownGroup tells whether the issuer is one of cert-manager.io.
func (t *teller) ownGroup() bool { return t.issuerRef.Group == cmapi.SchemeGroupVersion.Group }

// issuerID names the issuer: issuer/NAMESPACE/NAME, clusterissuer/NAME, and with the
// group where that is another.
func (t *teller) issuerID() string {
	kind := kindText(t.issuerRef)
	if t.issuerRef.Kind == cmapi.ClusterIssuerKind || t.o.Namespace == "" || !t.ownGroup() && strings.Contains(kind, "cluster") {
		return kind + "/" + t.issuerRef.Name
	}
	return t.id(kind, t.issuerRef.Name)
}

// kindText is a kind as kubectl takes it, with its group where that is not cert-manager.io.
func kindText(ref cmmeta.IssuerReference) string {
	if kind := strings.ToLower(ref.Kind); ref.Group != cmapi.SchemeGroupVersion.Group {
		return kind + "." + ref.Group
	}
	return strings.ToLower(ref.Kind)
}

func (t *teller) issuer() *Cause {
	switch {
	case t.ownGroup() && t.issuerRef.Kind != cmapi.IssuerKind && t.issuerRef.Kind != cmapi.ClusterIssuerKind:
		return &Cause{ID: CauseIssuerGroup, Where: t.certificateID + " (spec.issuerRef.group)",
			Text: fmt.Sprintf("kind %q is neither Issuer nor ClusterIssuer, and the reference names no other group", t.issuerRef.Kind),
			Fix:  t.edit(), Advice: "name the group of the external issuer in spec.issuerRef.group"}
	case t.Issuer.Look == NoKind:
		return &Cause{ID: CauseIssuerGroup, Where: t.certificateID + " (spec.issuerRef.group)",
			Text:   fmt.Sprintf("the API server knows no kind %s in group %s", t.issuerRef.Kind, t.issuerRef.Group),
			Fix:    command("kubectl", "api-resources", "--api-group="+t.issuerRef.Group),
			Advice: "install the external issuer with its CRDs, or name one that is there"}
	case t.Issuer.Look == Missing:
		return t.issuerMissing()
	case t.Issuer.Look != Found:
		return nil
	}
	if t.Issuer.Object.Type == "ca" {
		if c := t.authority(); c != nil {
			return c
		}
	}
	return t.issuerReady()
}

// issuerReady judges the condition of an issuer that is there.
func (t *teller) issuerReady() *Cause {
	i := t.Issuer.Object
	switch {
	case i.Ready == nil || i.Ready.Generation != 0 && i.Ready.Generation < i.Generation:
		if t.At.Sub(i.Changed) < grace || !t.ownGroup() {
			return nil
		}
		return t.idle(t.issuerID(), "nobody has looked at the issuer since it was made or changed "+ago(t.At.Sub(i.Changed)))
	case i.Ready.Status == cmmeta.ConditionTrue:
		return nil
	}
	c := &Cause{ID: CauseIssuerNotReady, Where: t.issuerID(), Text: "the issuer is not ready: " + orText(i.Ready.Message, i.Ready.Reason), Fix: t.describeIssuer()}
	if isRateLimit(i.Ready.Message) {
		c.ID, c.Until = CauseRate, retryAfter(i.Ready.Message)
		c.Advice = "wait: each new try counts too"
	}
	return c
}

func (t *teller) describeIssuer() string {
	return t.kubectl("describe", kindText(t.issuerRef), t.issuerRef.Name)
}

// issuerMissing looks for what was meant.
func (t *teller) issuerMissing() *Cause {
	where := t.certificateID + " (spec.issuerRef"
	missing := fmt.Sprintf("%s %q is not there", t.issuerRef.Kind, t.issuerRef.Name)
	var usable []IssuerName
	for _, i := range t.Issuers {
		if i.Namespace == "" || i.Namespace == t.o.Namespace {
			usable = append(usable, i)
		}
	}
	for _, i := range usable {
		if i.Name == t.issuerRef.Name && i.Kind != t.issuerRef.Kind {
			return &Cause{ID: CauseIssuerKind, Where: where + ".kind)", Text: missing + ": there is a " + i.Kind + " of that name", Fix: t.refer("kind", i.Kind)}
		}
	}
	if name := Nearest(t.issuerRef.Name, namesOf(usable, t.issuerRef.Kind)); name != "" {
		return &Cause{ID: CauseIssuerName, Where: where + ".name)", Text: fmt.Sprintf("%s: is %q meant?", missing, name), Fix: t.refer("name", name)}
	}
	for _, i := range t.Issuers {
		if i.Name == t.issuerRef.Name && i.Kind == cmapi.IssuerKind {
			return &Cause{ID: CauseIssuerNamespace, Where: where + ".name)",
				Text:   fmt.Sprintf("%s: there is one in namespace %s, which only Certificates of that namespace can use", missing, i.Namespace),
				Advice: "make an Issuer in this namespace, or a ClusterIssuer for all of them"}
		}
	}
	return &Cause{ID: CauseIssuerMissing, Where: where + ".name)", Text: missing + offered(usable), Fix: t.edit()}
}

func namesOf(list []IssuerName, kind string) []string {
	var names []string
	for _, i := range list {
		if i.Kind == kind {
			names = append(names, i.Name)
		}
	}
	slices.Sort(names)
	return names
}

// offered names some of the issuers that could be used.
func offered(usable []IssuerName) string {
	if len(usable) == 0 {
		return ", and no other that could be used"
	}
	var names []string
	for _, i := range usable {
		names = append(names, i.Kind+" "+i.Name)
	}
	slices.Sort(names)
	more := ""
	if len(names) > 5 {
		names, more = names[:5], ", …"
	}
	return "; there are: " + strings.Join(names, ", ") + more
}

func (t *teller) refer(field, value string) string {
	if t.alone != "" {
		return t.renew()
	}
	return t.kubectl("patch", "certificate", t.o.Name, "--type=merge", "-p", fmt.Sprintf(`{"spec":{"issuerRef":{%q:%q}}}`, field, value))
}

// authority judges the Secret of a CA issuer.
func (t *teller) authority() *Cause {
	namespace := orText(t.AuthorityNamespace, t.o.Namespace)
	name := t.Issuer.Object.CASecret
	where := "secret/" + namespace + "/" + name
	show := command("kubectl", "-n", namespace, "get", "secret", name)
	// Of a ClusterIssuer the namespace is but known to its controller: where the issuer
	// is ready, we have looked in the wrong one.
	ready := t.Issuer.Object.Ready
	sure := t.issuerRef.Kind == cmapi.IssuerKind || ready == nil || ready.Status != cmmeta.ConditionTrue
	switch {
	case t.Authority.Look == Missing && sure:
		return &Cause{ID: CauseCAMissing, Where: where, Text: fmt.Sprintf("the Secret %s with the issuer's authority is not there", name), Fix: show,
			Advice: "make it with the authority's certificate and key: kubectl -n " + command(namespace) + " create secret tls " + command(name) + " --cert=ca.crt --key=ca.key"}
	case t.Authority.Look != Found:
		return nil
	}
	return t.judgeAuthority(where)
}

func (t *teller) judgeAuthority(where string) *Cause {
	s := t.Authority.Object
	if p := workload.PairProblem(&s.Facts); p != nil {
		c := &Cause{ID: CauseCAInvalid, Where: where, Text: "the Secret of the issuer's authority " + problemText(p), Fix: t.describeIssuer()}
		if s.Facts.Key == [32]byte{} {
			c.ID, c.Where = CauseCANoKey, where+" (tls.key)"
		}
		return c
	}
	ca := s.Chain[0]
	switch {
	case !ca.IsCA:
		return &Cause{ID: CauseCAInvalid, Where: where + " (tls.crt)", Text: fmt.Sprintf("the certificate of the issuer, %q, is not an authority's (CA:FALSE)", ca.Subject), Fix: t.describeIssuer()}
	case t.At.After(t.authorityEnd()):
		return &Cause{ID: CauseCAExpired, Where: where + " (tls.crt)", Text: "the authority of the issuer expired " + ago(t.At.Sub(t.authorityEnd())),
			Fix: t.renewAuthority(), Advice: "make the authority anew with the same key, and those who trust it keep doing so"}
	}
	return nil
}

// renewAuthority is the command that makes the authority anew, where it is itself the
// certificate of a Certificate.
func (t *teller) renewAuthority() string {
	if name := t.Authority.Object.Facts.CertificateName; name != "" {
		return command("kubepki", "cert", "renew", name, "-n", orText(t.AuthorityNamespace, t.o.Namespace))
	}
	return command("kubectl", "-n", orText(t.AuthorityNamespace, t.o.Namespace), "get", "secret", t.Issuer.Object.CASecret, "-o", "jsonpath={.data.tls\\.crt}") + " | base64 -d | kubepki show -"
}

// authorityEnd is the first end of the authority's chain; zero where that was not seen.
func (t *teller) authorityEnd() time.Time {
	if t.Authority.Look != Found {
		return time.Time{}
	}
	var end time.Time
	for _, c := range t.Authority.Object.Chain {
		if end.IsZero() || c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

// endsFirst tells whether the certificate outlives the authority that signed it, and is not
// renewed before that. cert-manager signs past the end of an authority: one that is as old
// as the leaf and lives as long ends some seconds before it, which is no cause for anybody.
func (t *teller) endsFirst() *Cause {
	end := t.authorityEnd()
	if end.IsZero() || t.Secret.Look != Found || len(t.Secret.Object.Chain) == 0 {
		return nil
	}
	leaf := t.Secret.Object.Chain[0]
	if r := t.o.Status.RenewalTime; r != nil && r.Time.Before(end) && !t.renewalDisabled() {
		return nil
	}
	if !leaf.NotAfter.After(end) || !signedBy(leaf, t.Authority.Object.Chain[0]) {
		return nil
	}
	return &Cause{ID: CauseCAEndsFirst, Where: "secret/" + orText(t.AuthorityNamespace, t.o.Namespace) + "/" + t.Issuer.Object.CASecret + " (tls.crt)",
		Text: fmt.Sprintf("the authority ends in %s, the certificate that it signed in %s: from the authority's end on nobody takes it", roughly(end.Sub(t.At)), roughly(leaf.NotAfter.Sub(t.At))),
		Fix:  t.renewAuthority()}
}

func signedBy(leaf, ca *x509.Certificate) bool { return leaf.CheckSignatureFrom(ca) == nil }
