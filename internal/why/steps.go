package why

import (
	"fmt"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
)

// maxChallenges is how many are shown: the answer is to fit a screen.
const maxChallenges = 5

// steps are the objects of the chain, in its order.
func (t *teller) steps() []Step {
	steps := []Step{t.certificateStep(), t.secretStep()}
	if t.issuing || !t.ready || t.request != nil {
		steps = append(steps, t.requestStep())
	}
	steps = append(steps, t.issuerStep())
	return append(steps, t.behindIssuer()...)
}

// behindIssuer are the objects that an issuer hangs on, or makes.
func (t *teller) behindIssuer() []Step {
	var steps []Step
	if t.isCA() {
		steps = append(steps, t.authorityStep())
	}
	if t.atRest() {
		return steps
	}
	o := t.order()
	if o == nil {
		if t.Orders.unseen() {
			steps = append(steps, Step{t.id("order", "*"), Unknown, unseenText(t.Orders.Look, t.Orders.Detail)})
		}
		return steps
	}
	steps = append(steps, orderStep(t.id("order", o.Name), o))
	list := t.challenges(o)
	for i, c := range list {
		if i == maxChallenges {
			steps = append(steps, Step{t.id("challenge", "*"), Waits, fmt.Sprintf("and %d more", len(list)-i)})
			break
		}
		steps = append(steps, challengeStep(t.id("challenge", c.Name), c))
	}
	return steps
}

func unseenText(l Look, detail string) string {
	if l == Forbidden {
		return "not seen: you may not " + detail
	}
	return "not seen: " + detail
}

func (t *teller) certificateStep() Step {
	s := Step{Object: t.certificateID, Mark: Good}
	end := timeOf(t.o.Status.NotAfter)
	switch {
	case t.issuing && t.ready:
		s.Mark, s.Text = Waits, "ready, and being issued anew: "+t.issuingNow.Message
	case t.issuing:
		s.Mark, s.Text = Waits, fmt.Sprintf("not ready for %s, being issued: %s", roughly(t.At.Sub(t.readySince())), t.issuingNow.Message)
	case !t.ready && t.readyNow == nil:
		s.Mark, s.Text = Waits, fmt.Sprintf("made %s, and without conditions", ago(t.At.Sub(t.o.CreationTimestamp.Time)))
	case !t.ready:
		s.Mark, s.Text = Bad, "not ready: "+t.notReady()
	default:
		s.Text = "ready"
		if !end.IsZero() {
			s.Text += ", ends " + ago(t.At.Sub(end))
		}
		if r := timeOf(t.o.Status.RenewalTime); !r.IsZero() {
			s.Text += ", renewal " + ago(t.At.Sub(r))
		}
		if !t.atRest() {
			s.Text += ", which failed last " + ago(t.At.Sub(t.o.Status.LastFailureTime.Time))
		}
	}
	return s
}

func (t *teller) secretStep() Step {
	s := Step{Object: t.secretID, Mark: Good}
	switch {
	case t.Secret.Look == Missing:
		s.Mark, s.Text = Waits, "is not there"
	case t.Secret.Look != Found:
		s.Mark, s.Text = Unknown, unseenText(t.Secret.Look, t.Secret.Detail)
	case t.problem != nil:
		s.Mark, s.Text = Bad, problemText(t.problem)
	default:
		s.Text = pairText(t.Secret.Object, t.At)
		if t.At.After(t.Secret.Object.Facts.NotAfter) {
			s.Mark = Bad
		}
	}
	return s
}

func pairText(s *Secret, at time.Time) string {
	if at.After(s.Facts.NotAfter) {
		return "certificate and key fit each other, expired " + ago(at.Sub(s.Facts.NotAfter))
	}
	return "certificate and key fit each other, end " + ago(at.Sub(s.Facts.NotAfter))
}

func (t *teller) requestStep() Step {
	s := Step{Object: t.id("certificaterequest", "*"), Mark: Waits}
	switch {
	case t.Requests.Look != Found && t.Requests.Look != Missing:
		s.Mark, s.Text = Unknown, unseenText(t.Requests.Look, t.Requests.Detail)
		return s
	case t.request == nil:
		s.Text = "there is none"
		return s
	}
	r := t.request
	s.Object = t.id("certificaterequest", r.Name)
	s.Text = fmt.Sprintf("revision %d", revisionOf(r))
	if t.alone != "" {
		s.Text = "made " + ago(t.At.Sub(r.CreationTimestamp.Time))
	}
	if r.Spec.Username != "" {
		s.Text += " of " + r.Spec.Username
	}
	is := func(kind cmapi.CertificateRequestConditionType) *cmapi.CertificateRequestCondition {
		if c := requestCondition(r, kind); c != nil && c.Status == cmmeta.ConditionTrue {
			return c
		}
		return nil
	}
	ready := requestCondition(r, cmapi.CertificateRequestConditionReady)
	switch {
	case is(cmapi.CertificateRequestConditionDenied) != nil:
		s.Mark, s.Text = Bad, s.Text+": denied by "+is(cmapi.CertificateRequestConditionDenied).Reason
	case is(cmapi.CertificateRequestConditionInvalidRequest) != nil:
		s.Mark, s.Text = Bad, s.Text+": invalid: "+is(cmapi.CertificateRequestConditionInvalidRequest).Message
	case is(cmapi.CertificateRequestConditionApproved) == nil:
		s.Text += ": not approved"
	case ready == nil:
		s.Text += ": approved, not signed"
	case ready.Status == cmmeta.ConditionTrue:
		s.Mark, s.Text = Good, s.Text+": approved and issued"
	case ready.Reason == cmapi.CertificateRequestReasonFailed:
		s.Mark, s.Text = Bad, s.Text+": failed: "+ready.Message
	default:
		s.Text += ": approved, pending: " + ready.Message
	}
	return s
}

func (t *teller) issuerStep() Step {
	s := Step{Object: t.issuerID(), Mark: Good}
	i := t.Issuer.Object
	switch {
	case t.Issuer.Look == Missing:
		s.Mark, s.Text = Bad, "is not there"
	case t.Issuer.Look == NoKind:
		s.Mark, s.Text = Bad, "the API server knows no such kind"
	case t.Issuer.Look != Found:
		s.Mark, s.Text = Unknown, unseenText(t.Issuer.Look, t.Issuer.Detail)
	case i.Ready == nil:
		s.Mark, s.Text = Waits, "has no Ready condition"
	case i.Ready.Status != cmmeta.ConditionTrue:
		s.Mark, s.Text = Bad, "not ready: "+i.Ready.Message
	default:
		s.Text = "ready"
	}
	if i != nil && i.Type != "" {
		s.Text = i.Type + ", " + s.Text
	}
	return s
}

func (t *teller) authorityStep() Step {
	s := Step{Object: "secret/" + orText(t.AuthorityNamespace, t.o.Namespace) + "/" + t.Issuer.Object.CASecret, Mark: Good}
	switch {
	case t.Authority.Look == Missing:
		s.Mark, s.Text = Bad, "the authority is not there"
		if t.authority() == nil {
			s.Mark, s.Text = Unknown, "not in this namespace: which one it is only the controller knows (--cluster-resource-namespace)"
		}
	case t.Authority.Look != Found:
		s.Mark, s.Text = Unknown, unseenText(t.Authority.Look, t.Authority.Detail)
	case t.authority() != nil:
		s.Mark, s.Text = Bad, t.authority().Text
	default:
		s.Text = "the authority ends " + ago(t.At.Sub(t.authorityEnd()))
	}
	return s
}

func orderStep(id string, o *cmacme.Order) Step {
	s := Step{Object: id, Mark: Waits, Text: orText(string(o.Status.State), "not sent")}
	switch {
	case o.Status.State == cmacme.Valid:
		s.Mark = Good
	case failed(o.Status.State):
		s.Mark = Bad
	}
	if o.Status.Reason != "" {
		s.Text += ": " + o.Status.Reason
	}
	return s
}

func challengeStep(id string, c *cmacme.Challenge) Step {
	s := Step{Object: id, Mark: Waits, Text: fmt.Sprintf("%s of %s: %s", c.Spec.Type, c.Spec.DNSName, orText(string(c.Status.State), "not begun"))}
	switch {
	case c.Status.State == cmacme.Valid:
		s.Mark = Good
	case failed(c.Status.State):
		s.Mark = Bad
	}
	if c.Status.Reason != "" {
		s.Text += ": " + c.Status.Reason
	}
	return s
}
