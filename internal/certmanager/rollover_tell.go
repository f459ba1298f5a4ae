package certmanager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/rollover"
)

// conditionRollover is True while an issuer is carried over to another CA.
const conditionRollover cmapi.IssuerConditionType = "CARollover"

// Reasons of the condition, and of Events.
const (
	reasonPublishing = "Publishing" // some Secrets lack the new CA
	reasonAccepting  = "Accepting"  // readers are given time
	reasonReissuing  = "Reissuing"  // certificates of the old CA are issued anew
	reasonRetiring   = "Retiring"   // nobody uses the old CA
	reasonFollowing  = "Following"  // the issuer above is carried over
	reasonPaused     = "Paused"     // too many were tried in vain
	reasonCarried    = "Done"
	reasonLate       = "CAReplacedWithoutNotice"
	reasonSoon       = "CAChangedLate"
	reasonSetting    = "CARolloverProblem"
)

// A rollover is looked at again at these times: seldom enough to be cheap, and often
// against the wait for readers.
const (
	lookMost  = 30 * time.Second
	lookLeast = 200 * time.Millisecond
	lookPart  = 10
)

// tell has Events say what has changed with a look.
func (r *rollovers) tell(issuer cmapi.GenericIssuer, was rollover.Record, before, v *view, set rollover.Settings) {
	o, is := issuerObject(issuer), &v.record.Record
	name := func(id rollover.ID) string {
		if c := v.record.certificates[id]; c != nil {
			return fmt.Sprintf("%q (serial %x, until %s)", c.Subject, c.SerialNumber, c.NotAfter.UTC().Format(time.RFC3339))
		}
		return "the CA before"
	}
	if len(was.Anchors) > 0 && was.Find(is.Target().ID) == nil {
		r.say(o, false, "CAChanged", "The CA has changed to "+name(is.Target().ID)+"; both are published")
		if old := was.Find(was.Signing); old != nil && set.Accept > 0 && old.SignsUntil.Before(now().Add(2*set.Accept)) {
			r.say(o, true, reasonSoon, fmt.Sprintf("The CA before ends at %s: that is less than twice the %s that readers are given, and some may refuse some. Change a CA earlier", stamp(old.SignsUntil), set.Accept))
		}
	}
	for _, a := range is.Anchors[:len(is.Anchors)-1] {
		if len(was.Anchors) > 0 && was.Find(a.ID) == nil {
			r.say(o, false, "CAAboveChanges", "The issuer above publishes "+name(a.ID)+" too; so does this one")
		}
	}
	if v.plan.Paused && (before == nil || !before.plan.Paused) {
		r.say(o, true, "CARolloverPaused", v.pause())
	}
	if len(was.Anchors) > 0 && was.Signing != is.Signing {
		if v.plan.Hold.IsZero() {
			r.say(o, false, "CASigns", "The new CA signs: "+name(is.Signing))
		} else {
			r.say(o, true, reasonLate, "The key of the CA before is gone: what cannot wait is signed by a CA that not all readers know yet, "+name(is.Signing))
		}
	}
	for _, a := range was.Anchors {
		if is.Find(a.ID) == nil {
			r.say(o, false, "CADropped", fmt.Sprintf("A CA that nobody uses any more is not published any more: %x", a.Certificate[:8]))
		}
	}
}

func (r *rollovers) say(o object, warning bool, reason, message string) {
	r.events.Tell(o, warning, reason, message)
	r.log.Info("workloads: "+message, "issuer", o.namespace+"/"+o.name, "reason", reason)
}

// condition is what the condition of an issuer says.
func (v *view) condition() (status cmmeta.ConditionStatus, reason, message string) {
	status = cmmeta.ConditionTrue
	switch v.plan.Phase {
	case rollover.Publish:
		reason, message = reasonPublishing, fmt.Sprintf("%d of %d Secrets lack the new CA", v.lacking(), v.seen.places)
		if v.seen.example.Name != "" {
			message += ", such as " + v.seen.example.String()
		}
	case rollover.Accept:
		reason, message = reasonAccepting, "All Secrets have both CAs; until "+stamp(v.plan.Again)+" readers are given time"
	case rollover.Follow:
		reason, message = reasonFollowing, "The issuer above changes its CA; both are published, and nothing is to be done here"
	case rollover.Reissue:
		if v.plan.Paused {
			reason, message = reasonPaused, v.pause()
			break
		}
		for _, a := range v.record.Anchors[:len(v.record.Anchors)-1] {
			if _, to := v.plan.Span(a.ID); !to.IsZero() {
				message = stamp(to)
			}
		}
		reason, message = reasonReissuing, fmt.Sprintf("%d certificates of the CA before are left, and issued anew until %s", v.left(), message)
		if v.seen.failing > 0 {
			message += fmt.Sprintf("; %d were tried in vain, such as %s", v.seen.failing, v.seen.failed)
		}
	case rollover.Retire:
		reason, message = reasonRetiring, "No certificate of the CA before is left; it goes at "+stamp(v.plan.Again)
	default:
		status, reason, message = cmmeta.ConditionFalse, reasonCarried, "One CA is in use"
	}
	if !v.plan.Hold.IsZero() {
		message += "; the key of the CA before is gone, and renewals wait"
	}
	if v.seen.unknown > 0 {
		message += fmt.Sprintf("; %d certificates are of a CA that is not known", v.seen.unknown)
	}
	return status, reason, message
}

// lacking is how many Secrets lack an anchor, as far as they can be told from each other.
func (v *view) lacking() int {
	most := 0
	for _, n := range v.seen.lacking {
		most = max(most, n)
	}
	return most
}

// left is how many certificates there are of other CAs than the one that signs.
func (v *view) left() int {
	n := 0
	for _, a := range v.record.Anchors {
		if a.ID != v.record.Signing && a.ID != v.record.Target().ID {
			n += v.seen.leaves[a.ID]
		}
	}
	return n
}

// pause says why nothing is issued anew.
func (v *view) pause() string {
	return fmt.Sprintf("%d certificates were tried in vain, such as %s (kubepki cert why tells the cause); the other %d wait until some of those succeed, which are tried again as any that has failed",
		v.seen.failing, v.seen.failed, max(0, v.left()-v.seen.failing))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// rollOver looks at an issuer with spec.ca, and adds what it finds to its health.
func (c *Controller) rollOver(ctx context.Context, issuer cmapi.GenericIssuer, h *Health) error {
	key := keyOf(issuer)
	set, on, _ := c.rollovers.settings.settingsOf(issuer, 0)
	if !on {
		h.Change = removeRollover
		return c.rollovers.forget(ctx, key)
	}
	v, err := c.rollovers.look(ctx, issuer)
	switch {
	case apierrors.IsNotFound(err) || errors.Is(err, errInvalid):
		return nil // the condition Ready tells
	case errors.Is(err, errRecord):
		c.Events.Tell(issuerObject(issuer), true, reasonSetting, err.Error())
		generation, text := issuer.GetGeneration(), err.Error()
		h.Change = func(s *cmapi.IssuerStatus) {
			setRollover(s, generation, cmmeta.ConditionUnknown, reasonSetting, text, now())
		}
		return err
	case err != nil:
		return err
	}
	if v.wrong != nil {
		c.Events.Tell(issuerObject(issuer), true, reasonSetting, v.wrong.Error())
		c.Log.Warn("workloads: the CA of an issuer", "issuer", key.namespace+"/"+key.name, "error", v.wrong.Error())
		h.Again = lookMost
	}
	status, reason, message := v.condition()
	generation := issuer.GetGeneration()
	h.Change = func(s *cmapi.IssuerStatus) { setRollover(s, generation, status, reason, message, now()) }
	if v.plan.Phase != rollover.Steady || len(v.record.Anchors) > 1 || v.record.previous != nil {
		h.Again = max(lookLeast, min(lookMost, set.Accept/lookPart))
		if at := v.plan.Again.Sub(now()); !v.plan.Again.IsZero() && at < h.Again {
			h.Again = max(at, time.Millisecond)
		}
	}
	return nil
}

// messagePatience is how often the figures of a message are brought up to date.
const messagePatience = 5 * time.Second

// setRollover sets the condition. An issuer that was never carried over has none. Its
// transition tells of the last change of reason or figures.
func setRollover(s *cmapi.IssuerStatus, generation int64, status cmmeta.ConditionStatus, reason, message string, at time.Time) {
	transition := metav1.NewTime(at)
	is := cmapi.IssuerCondition{Type: conditionRollover, Status: status, Reason: reason, Message: message, LastTransitionTime: &transition, ObservedGeneration: generation}
	for i := range s.Conditions {
		old := &s.Conditions[i]
		if old.Type != conditionRollover {
			continue
		}
		same := old.Reason == reason && old.Status == status
		if same && (old.Message == message || status == cmmeta.ConditionTrue && old.LastTransitionTime != nil && at.Sub(old.LastTransitionTime.Time) < messagePatience) {
			return
		}
		*old = is
		return
	}
	if status != cmmeta.ConditionFalse {
		s.Conditions = append(s.Conditions, is)
	}
}

func removeRollover(s *cmapi.IssuerStatus) {
	s.Conditions = slices.DeleteFunc(s.Conditions, func(c cmapi.IssuerCondition) bool { return c.Type == conditionRollover })
}
