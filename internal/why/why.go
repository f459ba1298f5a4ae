package why

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/workload"
)

// grace is how long a controller may take for a step of its own before it is said that
// it does not: cert-manager with its default limits and many Certificates takes its time.
const grace = time.Minute

// overdue is how long after its time a renewal may begin.
const overdue = 10 * time.Minute

// Explain finds the first cause for which a Certificate is not ready, or will not stay
// so. Certificate must be there. It is pure: the same objects give the same answer.
func Explain(g *Gathered) Answer {
	t := newTeller(g)
	a := Answer{Namespace: t.o.Namespace, Name: t.o.Name, Steps: t.steps(), State: Ready}
	return t.answer(a, t.spec, t.siblings, t.overwrites, t.issuer, t.untouched, t.secret, t.requests, t.backoff, t.stalled, t.endsFirst, t.notSeen, t.underWay)
}

func newTeller(g *Gathered) *teller {
	t := &teller{Gathered: g, o: g.Certificate}
	t.request = t.wanted()
	t.readiness()
	return t
}

// answer completes an answer with the first cause that is found. They are asked for in the
// order in which one follows from the other: what stands later is often but a consequence
// of what stands before.
func (t *teller) answer(a Answer, finds ...func() *Cause) Answer {
	for _, find := range finds {
		if a.Cause = find(); a.Cause != nil {
			break
		}
	}
	a.Notes = t.notes(a.Cause)
	if a.Cause == nil {
		return a
	}
	if until := t.failedUntil(); a.Cause.Until == nil && until.After(t.At) {
		a.Cause.Until = &until
	}
	a.State = t.state(a.Cause.ID)
	markCause(a.Steps, a.Cause)
	return a
}

// markCause lets no step be good that is the cause.
func markCause(steps []Step, c *Cause) {
	mark := Bad
	if passing(c.ID) {
		mark = Waits
	}
	object, _, _ := strings.Cut(c.Where, " ")
	for i := range steps {
		if steps[i].Object == object && steps[i].Mark == Good {
			steps[i].Mark = mark
		}
	}
}

// passing tells of causes that mostly pass by themselves.
func passing(id string) bool {
	return slices.Contains([]string{CauseUnderWay, CauseQueued, CauseDNS, CauseServer, CausePending, CauseForbidden}, id)
}

func (t *teller) state(id string) State {
	switch {
	case passing(id):
		return Waiting
	case t.ready && !t.issuing, t.alone == "issuer" && t.issuerIsReady():
		return AtRisk
	}
	return Broken
}

// teller walks the chain.
type teller struct {
	*Gathered
	o       *cmapi.Certificate
	request *cmapi.CertificateRequest // of the issuance under way, or the last; nil: none

	ready, issuing          bool
	readyNow, issuingNow    *cmapi.CertificateCondition
	problem                 *workload.Problem // of the Secret, where it is there
	issuerRef               cmmeta.IssuerReference
	certificateID, secretID string
	// alone is what is explained in the place of a Certificate: a request, or an issuer.
	alone string
}

func condition(o *cmapi.Certificate, kind cmapi.CertificateConditionType) *cmapi.CertificateCondition {
	for i := range o.Status.Conditions {
		if o.Status.Conditions[i].Type == kind {
			return &o.Status.Conditions[i]
		}
	}
	return nil
}

func (t *teller) readiness() {
	t.certificateID, t.secretID = t.id("certificate", t.o.Name), t.id("secret", t.o.Spec.SecretName)
	t.issuerRef = workload.IssuerOf(t.o.Spec.IssuerRef)
	t.readyNow, t.issuingNow = condition(t.o, cmapi.CertificateConditionReady), condition(t.o, cmapi.CertificateConditionIssuing)
	t.issuing = t.issuingNow != nil && t.issuingNow.Status == cmmeta.ConditionTrue
	if t.Secret.Look == Found {
		t.problem = workload.PairProblem(&t.Secret.Object.Facts)
	}
	expired := t.o.Status.NotAfter != nil && t.At.After(t.o.Status.NotAfter.Time)
	t.ready = t.readyNow != nil && t.readyNow.Status == cmmeta.ConditionTrue && t.current(t.readyNow.ObservedGeneration) &&
		t.Secret.Look != Missing && t.problem == nil && !expired
}

// current tells whether a condition is of the spec as it is; a controller that writes
// no generation is believed.
func (t *teller) current(observed int64) bool { return observed == 0 || observed >= t.o.Generation }

func (t *teller) id(kind, name string) string { return kind + "/" + t.o.Namespace + "/" + name }

// wanted is the request that an issuance is about: of the revision that comes, the
// newest; or else of the current one.
func (t *teller) wanted() *cmapi.CertificateRequest {
	if t.Requests.Object == nil {
		return nil
	}
	revision := 0
	if t.o.Status.Revision != nil {
		revision = *t.o.Status.Revision
	}
	var best *cmapi.CertificateRequest
	for i := range *t.Requests.Object {
		r := &(*t.Requests.Object)[i]
		if n := revisionOf(r); n >= revision && (best == nil || n > revisionOf(best) || n == revisionOf(best) && best.CreationTimestamp.Before(&r.CreationTimestamp)) {
			best = r
		}
	}
	return best
}

func revisionOf(r *cmapi.CertificateRequest) int {
	n, _ := strconv.Atoi(r.Annotations[cmapi.CertificateRequestRevisionAnnotationKey])
	return n
}

// next tells whether the request is of a revision that the Certificate does not have.
func (t *teller) next() bool {
	return t.request != nil && (t.o.Status.Revision == nil || revisionOf(t.request) > *t.o.Status.Revision)
}

// spec tells whether any certificate could fulfil what is wished.
func (t *teller) spec() *Cause {
	problem := ""
	if t.o.Spec.SecretName == "" {
		problem = "spec.secretName: is empty"
	} else if _, err := workload.WishOf(&t.o.Spec); err != nil {
		problem = err.Error()
	} else if d, b := t.o.Spec.Duration, t.o.Spec.RenewBefore; d != nil && b != nil && b.Duration >= d.Duration {
		problem = fmt.Sprintf("spec.renewBefore: %s is not shorter than the duration %s", b.Duration, d.Duration)
	} else if r := t.readyNow; r != nil && r.Reason == workload.ReasonInvalidSpec && r.ObservedGeneration == t.o.Generation {
		problem = strings.TrimPrefix(r.Message, workload.MessageInvalidSpec) // by the limits of its controller
	}
	if problem == "" {
		return nil
	}
	field, _, _ := strings.Cut(problem, ":")
	return &Cause{ID: CauseSpec, Text: "no certificate can be made of it: " + problem, Where: t.certificateID + " (" + field + ")",
		Fix: t.edit()}
}

func (t *teller) kubectl(words ...string) string {
	if t.o.Namespace == "" { // of the cluster
		return command(append([]string{"kubectl"}, words...)...)
	}
	return command(append([]string{"kubectl", "-n", t.o.Namespace}, words...)...)
}

// renew has it asked for anew; whoever has made a request without a Certificate does that
// when it is gone.
func (t *teller) renew() string {
	if t.alone != "" {
		return t.kubectl("delete", "certificaterequest", t.o.Name)
	}
	return command("kubepki", "cert", "renew", t.o.Name, "-n", t.o.Namespace)
}

// edit is how to change what is wished. The spec of a request cannot be changed.
func (t *teller) edit() string {
	if t.alone != "" {
		return t.renew()
	}
	return t.kubectl("edit", "certificate", t.o.Name)
}

// siblings tells whether the Secret is another Certificate's to write.
func (t *teller) siblings() *Cause {
	owner := t.owner()
	if owner == t.o.Name {
		return nil
	}
	return &Cause{ID: CauseDuplicate, Where: t.certificateID + " (spec.secretName)",
		Text:   fmt.Sprintf("Certificate %q names the Secret %s too, and has it: this one is left alone", owner, t.o.Spec.SecretName),
		Fix:    t.kubectl("patch", "certificate", t.o.Name, "--type=merge", "-p", fmt.Sprintf(`{"spec":{"secretName":%q}}`, t.o.Name+"-tls")),
		Advice: "give each Certificate a Secret of its own, and let its users read that"}
}

// owner is the Certificate that a Secret belongs to, as cert-manager finds it: the one
// that it was issued for, or the oldest.
func (t *teller) owner() string {
	if t.Siblings.Object == nil || len(*t.Siblings.Object) == 0 {
		return t.o.Name
	}
	all := append(slices.Clone(*t.Siblings.Object), Sibling{t.o.Name, t.o.CreationTimestamp.Time})
	if t.Secret.Look == Found {
		name := t.Secret.Object.Facts.CertificateName
		if slices.ContainsFunc(all, func(s Sibling) bool { return s.Name == name }) {
			return name
		}
	}
	return slices.MinFunc(all, func(a, b Sibling) int { return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name)) }).Name
}

// overwrites tells whether the certificate would replace the authority that signs it.
func (t *teller) overwrites() *Cause {
	i := t.Issuer.Object
	if i == nil || i.Type != "ca" || i.CASecret != t.o.Spec.SecretName || cmp.Or(t.AuthorityNamespace, t.o.Namespace) != t.o.Namespace {
		return nil
	}
	return &Cause{ID: CauseAuthoritySecret, Where: t.certificateID + " (spec.secretName)",
		Text: fmt.Sprintf("Secret %s is that of the issuer's authority, which the certificate would overwrite", i.CASecret),
		Fix:  t.kubectl("patch", "certificate", t.o.Name, "--type=merge", "-p", fmt.Sprintf(`{"spec":{"secretName":%q}}`, t.o.Name+"-tls"))}
}

// untouched tells whether no controller has looked at the Certificate as it is.
func (t *teller) untouched() *Cause {
	changed := ChangedAt(t.o)
	switch {
	case t.At.Sub(changed) < grace:
		return nil
	case t.readyNow == nil && !t.issuing && t.issuingNow == nil:
		return t.idle(t.certificateID, fmt.Sprintf("nobody has taken up this Certificate, which is %s old: it has no conditions", roughly(t.At.Sub(t.o.CreationTimestamp.Time))))
	case t.readyNow != nil && !t.current(t.readyNow.ObservedGeneration) && (t.issuingNow == nil || !t.current(t.issuingNow.ObservedGeneration)):
		return t.idle(t.certificateID, fmt.Sprintf("nobody has taken up the change of its spec %s: the conditions are of generation %d, and it is of %d",
			ago(t.At.Sub(changed)), t.readyNow.ObservedGeneration, t.o.Generation))
	}
	return nil
}

// stalled tells of what a controller would begin at once, and has not.
func (t *teller) stalled() *Cause {
	switch {
	case t.issuing:
		return nil
	case !t.ready && t.renewalDisabled() && t.Secret.Look == Found && t.problem == nil:
		return &Cause{ID: CauseExpired, Where: t.secretID, Text: "the certificate is not good any more, and spec.renewal.policy is Disabled: nobody renews it", Fix: t.renew()}
	case !t.ready && (t.readyNow == nil || t.At.Sub(t.readySince()) < grace && t.readyNow.Status != cmmeta.ConditionTrue):
		return nil
	case !t.ready:
		return t.idle(t.certificateID, "it is to be issued, and nobody has begun: "+t.notReady())
	case t.o.Status.RenewalTime != nil && t.At.Sub(t.o.Status.RenewalTime.Time) > overdue:
		return t.idle(t.certificateID, "its renewal was due "+ago(t.At.Sub(t.o.Status.RenewalTime.Time))+", and nobody has begun")
	}
	return nil
}

func (t *teller) renewalDisabled() bool {
	return t.o.Spec.Renewal != nil && t.o.Spec.Renewal.Policy == cmapi.CertificateRenewalPolicyDisabled
}

func (t *teller) readySince() time.Time {
	if t.readyNow == nil {
		return t.o.CreationTimestamp.Time
	}
	return timeOf(t.readyNow.LastTransitionTime)
}

// notReady says why the Certificate is not ready.
func (t *teller) notReady() string {
	switch {
	case t.Secret.Look == Missing:
		return "the Secret " + t.o.Spec.SecretName + " is not there"
	case t.problem != nil:
		return "the Secret " + problemText(t.problem)
	case t.o.Status.NotAfter != nil && t.At.After(t.o.Status.NotAfter.Time):
		return "the certificate expired " + ago(t.At.Sub(t.o.Status.NotAfter.Time))
	case t.readyNow != nil && t.readyNow.Message != "":
		return t.readyNow.Message
	}
	return "it is not ready"
}

// atRest tells whether no issuance is under way, and none has failed that is tried again.
func (t *teller) atRest() bool { return t.ready && !t.issuing && !t.failedUntil().After(t.At) }

// failedUntil is until when a failure is waited out; zero where there is none.
func (t *teller) failedUntil() time.Time {
	if t.issuing {
		return time.Time{}
	}
	return workload.Backoff(&t.o.Status, workload.FirstBackoff, workload.LastBackoff)
}

// backoff tells of a failure that is waited out.
func (t *teller) backoff() *Cause {
	until := t.failedUntil()
	if !until.After(t.At) {
		return nil
	}
	times := 1
	if n := t.o.Status.FailedIssuanceAttempts; n != nil {
		times = max(*n, 1)
	}
	said := ""
	if t.issuingNow != nil {
		said = t.issuingNow.Message
	}
	if r := requestCondition(t.request, cmapi.CertificateRequestConditionReady); t.next() && r != nil && r.Status != cmmeta.ConditionTrue && r.Message != "" {
		said = r.Message
	}
	text := fmt.Sprintf("issuance failed %s, last %s: %s", counted(times, "time"), ago(t.At.Sub(t.o.Status.LastFailureTime.Time)), cmp.Or(said, "nothing says why"))
	return &Cause{ID: CauseBackoff, Where: t.certificateID + " (status.lastFailureTime)", Text: text, Until: &until, Fix: t.renew(),
		Advice: "mend what the message says, then try at once instead of waiting"}
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// notSeen tells what could not be looked at, where nothing else is found.
func (t *teller) notSeen() *Cause {
	if t.ready && !t.issuing {
		return nil
	}
	for _, s := range []struct {
		object string
		look   Look
		detail string
	}{
		{t.secretID, t.Secret.Look, t.Secret.Detail},
		{t.id("certificaterequest", "*"), t.Requests.Look, t.Requests.Detail},
		{t.issuerID(), t.Issuer.Look, t.Issuer.Detail},
		{t.id("order", "*"), t.Orders.Look, t.Orders.Detail},
		{t.id("challenge", "*"), t.Challenges.Look, t.Challenges.Detail},
	} {
		switch s.look {
		case Forbidden:
			return &Cause{ID: CauseForbidden, Where: s.object, Text: "what it waits for could not be seen: you may not " + s.detail, Advice: "give yourself the right to " + s.detail}
		case Failed:
			return &Cause{ID: CauseForbidden, Where: s.object, Text: "what it waits for could not be seen: " + s.detail}
		}
	}
	return nil
}

// underWay tells that nothing is wrong so far.
func (t *teller) underWay() *Cause {
	if t.ready && !t.issuing {
		return nil
	}
	text := "it was made or changed " + ago(t.At.Sub(ChangedAt(t.o))) + ": a controller is to take it up"
	if t.issuing {
		text = "it is being issued since " + roughly(t.At.Sub(timeOf(t.issuingNow.LastTransitionTime))) + ": " + t.issuingNow.Message
	}
	return &Cause{ID: CauseUnderWay, Where: t.certificateID, Text: text, Fix: t.kubectl("wait", "--for=condition=Ready", cmp.Or(t.alone, "certificate")+"/"+t.o.Name, "--timeout=5m")}
}

// notes tells of what is no cause, and good to know.
func (t *teller) notes(c *Cause) []string {
	var notes []string
	if t.o.DeletionTimestamp != nil {
		notes = append(notes, "the Certificate is being deleted")
	}
	if t.Siblings.Object != nil && len(*t.Siblings.Object) > 0 && t.owner() == t.o.Name {
		notes = append(notes, fmt.Sprintf("Certificate %q names the Secret %s too, and waits for it in vain", (*t.Siblings.Object)[0].Name, t.o.Spec.SecretName))
	}
	if t.renewalDisabled() && (c == nil || c.ID != CauseExpired) {
		notes = append(notes, "spec.renewal.policy is Disabled: nobody renews it")
	}
	if end := t.authorityEnd(); !end.IsZero() && end.After(t.At) && (c == nil || c.ID != CauseCAEndsFirst) {
		life := workload.DefaultDuration
		if t.o.Spec.Duration != nil {
			life = t.o.Spec.Duration.Duration
		}
		if left := end.Sub(t.At); left < life {
			notes = append(notes, fmt.Sprintf("the authority ends in %s, and a certificate is to live %s: what is issued now ends with the authority, or is worth nothing from then on", roughly(left), roughly(life)))
		}
	}
	for _, e := range t.warnings(c) {
		notes = append(notes, fmt.Sprintf("event %s on %s: %s: %s", ago(t.At.Sub(e.Last)), e.Object, e.Reason, e.Message))
	}
	return notes
}

// warnings are the last two of the last hour, where something is wrong.
func (t *teller) warnings(c *Cause) []Event {
	if c == nil {
		return nil
	}
	list := slices.Clone(t.Events)
	list = slices.DeleteFunc(list, func(e Event) bool {
		return e.Type != "Warning" || t.At.Sub(e.Last) > time.Hour || e.Message != "" && strings.Contains(c.Text, e.Message)
	})
	slices.SortStableFunc(list, func(a, b Event) int { return b.Last.Compare(a.Last) })
	return list[:min(len(list), 2)]
}

// event finds the newest of a reason since a time.
func (t *teller) event(reason string, since time.Time) *Event {
	var last *Event
	for i := range t.Events {
		if e := &t.Events[i]; e.Reason == reason && !e.Last.Before(since) && (last == nil || e.Last.After(last.Last)) {
			last = e
		}
	}
	return last
}

// order is the newest order of the request.
func (t *teller) order() *cmacme.Order {
	if t.Orders.Object == nil || t.request == nil {
		return nil
	}
	var best *cmacme.Order
	for i := range *t.Orders.Object {
		o := &(*t.Orders.Object)[i]
		if owned(o.OwnerReferences, string(t.request.UID)) && (best == nil || best.CreationTimestamp.Before(&o.CreationTimestamp)) {
			best = o
		}
	}
	return best
}
