package workload

import (
	"cmp"
	"fmt"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
)

// State is what is known of a Certificate.
type State struct {
	Certificate *cmapi.Certificate
	// Digest is that of its wish. Invalid tells why there is none: the spec cannot be.
	Digest  [32]byte
	Invalid error
	// Refused tells why nothing is issued for a spec that could be ([Admit]).
	Refused error
	// Secret is what its Secret holds.
	Secret *SecretFacts
	// Owner says that the Secret is this Certificate's to write, and not one's that
	// names it too.
	Owner bool
	// Requests are all of this Certificate's.
	Requests []*RequestFacts
	// Differs are the fields in which the request of the current revision differs from
	// the spec; asked for only where the digests do ([State.Suspect]).
	Differs []string
	// OwnerReference says that Secrets go with their Certificates.
	OwnerReference bool
	// Carry is what a change of the issuer's CA asks for.
	Carry Carry
	// PasswordChanged says that a keystore of the Secret was made with a password that is
	// not the one any more which the spec refers to.
	PasswordChanged bool
	// FirstBackoff and LastBackoff bound the time that is waited after a failure.
	FirstBackoff, LastBackoff time.Duration
}

// Action is what is to be done next on a Certificate.
type Action uint8

// The actions.
const (
	// Rest: nothing is to be done before Verdict.Again, but for Verdict.Status.
	Rest Action = iota
	// Issue: a certificate is to be issued, from the beginning.
	Issue
	// Ask: an issuance is under way and has no request yet, or none that fits.
	Ask
	// Await: the request Verdict.Request has not been answered.
	Await
	// Store: the request Verdict.Request has its certificate, which belongs into the
	// Secret.
	Store
	// Fail: the request Verdict.Request has ended without one.
	Fail
	// Mend: what the Secret says beside its certificate and key is not as it shall be.
	Mend
)

// Verdict is what is to be done.
type Verdict struct {
	Action Action
	// Reason and Message tell why, as conditions have them.
	Reason, Message string
	Request         *RequestFacts
	// Bundle says that ca.crt is to be written again beside the action Await, which may
	// take long: others need it.
	Bundle bool
	// Surplus are requests that are to be removed.
	Surplus []*RequestFacts
	// Status is what the Certificate's status shall be, before the action.
	Status cmapi.CertificateStatus
	// Warning is what people should hear of, with its reason; "": nothing.
	Warning, WarningReason string
	// Again is when to look again, at the latest; zero: when something changes.
	Again time.Time
}

// Revision is that of the certificate which the Secret holds, 0 where none was issued.
func (s *State) Revision() int {
	if r := s.Certificate.Status.Revision; r != nil {
		return *r
	}
	return 0
}

// current is the request of the revision that was issued last, nil where it is gone.
func (s *State) current() *RequestFacts {
	n := s.Revision()
	if n == 0 {
		return nil
	}
	for _, r := range s.Requests {
		if r.Revision == n {
			return r
		}
	}
	return nil
}

// next are the requests of the revision that comes.
func (s *State) next() []*RequestFacts {
	var all []*RequestFacts
	for _, r := range s.Requests {
		if r.Revision == s.Revision()+1 {
			all = append(all, r)
		}
	}
	return all
}

// Refusal is why nothing is issued for the spec. What was issued for the wish as it
// stands is renewed also where admission refuses it: rules are made later than objects,
// and who changes over to this controller loses nothing.
func (s *State) Refusal() error {
	if s.Invalid != nil || !s.issuedAsItStands() {
		return cmp.Or(s.Invalid, s.Refused)
	}
	return nil
}

func (s *State) issuedAsItStands() bool {
	r := s.current()
	if r == nil { // it was removed: the Secret alone tells
		return ContentProblem(s.Certificate, s.Secret, nil) == nil
	}
	return !r.Unreadable && r.Digest == s.Digest && r.State == RequestIssued
}

// Suspect returns the request of the current revision where it may differ from the
// spec: nil where the digests are equal, or nothing can be compared.
func (s *State) Suspect() *RequestFacts {
	r := s.current()
	if r == nil || r.Unreadable || s.Invalid != nil || r.Digest == s.Digest {
		return nil
	}
	return r
}

// Decide says what is to be done on a Certificate.
func Decide(s State, now time.Time) Verdict {
	o := s.Certificate
	v := Verdict{Status: *o.Status.DeepCopy()}
	if s.adopts() {
		v.Status = Settled(o, s.Secret, s.Revision()+1, now)
		return v // the write of it leads here again
	}
	problem := s.problem()
	s.warnOfSpec(&v)
	settle(&v.Status, o, s.Secret, problem, now)
	if since, under := Issuing(&o.Status); under {
		s.proceed(&v, since)
		return v
	}
	v.Status.NextPrivateKeySecretName = nil
	switch {
	case !s.Owner:
		v.Again = now.Add(3 * time.Minute)
		return v
	case s.restsUntil(&v, problem, now):
		if v.Action == Rest { // others need it, whatever this one waits for
			s.mendOthers(&v)
		}
		return v
	}
	s.mend(&v)
	s.tidy(&v)
	return v
}

// adopts tells whether the Secret holds the certificate of the revision that comes: a
// process ended, or lost a race, before it could write that into the status.
func (s *State) adopts() bool {
	for _, r := range s.next() {
		stored := r.State == RequestIssued && r.Leaf != [32]byte{} && r.Leaf == s.Secret.Leaf
		if stored && s.Invalid == nil && !r.Unreadable && r.Digest == s.Digest && ContentProblem(s.Certificate, s.Secret, &Current{Key: r.Key}) == nil {
			return true
		}
	}
	return false
}

// restsUntil tells whether nothing is to be issued because nothing may be yet, and
// otherwise whether something is to be issued now; it is false where the Secret is as it
// shall be.
func (s *State) restsUntil(v *Verdict, problem *Problem, now time.Time) bool {
	o := s.Certificate
	due, ofCA := s.carried(s.due())
	if problem == nil && ofCA && !now.Before(due) {
		problem = &Problem{Reason: reasonCARollover, Message: messageCARollover}
	}
	if problem == nil && !due.IsZero() && !now.Before(due) {
		// What users see as the time of renewal is what the message names.
		problem = &Problem{Reason: reasonRenewing, Message: fmt.Sprintf("Renewing certificate as renewal was scheduled at %s", v.Status.RenewalTime)}
		if _, _, err := renewalTime(o, &o.Status, s.Secret); err != nil {
			problem.Message = fmt.Sprintf("Renewing certificate without satisfying renewal windows at: %s", v.Status.RenewalTime)
			v.Warning, v.WarningReason = fmt.Sprintf("Renewing certificate without satisfying renewal windows due to %v", err), reasonWindow
		}
	}
	if problem == nil {
		settleSpec(&v.Status)
		v.Again = due
		if s.Secret.NotAfter.After(now) {
			v.Again = earliest(due, s.Secret.NotAfter.Add(time.Second)) // then it is not ready any more
		}
		return false
	}
	if until := Backoff(&o.Status, s.FirstBackoff, s.LastBackoff); now.Before(until) && !s.changedSinceFailure() {
		v.Again = until
		return true
	}
	v.Action, v.Reason, v.Message = Issue, problem.Reason, problem.Message
	v.Surplus = s.next() // they ask for keys that nobody has
	return true
}

// due is when the certificate in the Secret is to be renewed; zero: never.
func (s *State) due() time.Time {
	if s.Secret.NotAfter.IsZero() {
		return time.Time{}
	}
	renewal, byServer, err := renewalTime(s.Certificate, &s.Certificate.Status, s.Secret)
	if err == nil && !byServer { // the server's window spreads them
		renewal = Due(renewal, s.Secret.NotBefore, &s.Certificate.Spec, string(s.Certificate.UID))
	}
	// A renewBefore as long as the life is no reason to issue without end.
	if r := s.current(); r != nil && !renewal.IsZero() {
		if rest := r.Made.Add(max(leastRest, s.Secret.NotAfter.Sub(s.Secret.NotBefore)/restPart)); renewal.Before(rest) {
			return rest
		}
	}
	return renewal
}

// A certificate is not renewed before a hundredth of its life has passed since it was
// asked for.
const (
	restPart  = 100
	leastRest = 10 * time.Second
)

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// changedSinceFailure tells whether the spec is another than that whose issuance
// failed: then nothing is waited for.
func (s *State) changedSinceFailure() bool {
	next := s.next()
	if len(next) == 0 {
		c := Condition(&s.Certificate.Status, cmapi.CertificateConditionIssuing)
		return c != nil && c.ObservedGeneration < s.Certificate.Generation
	}
	for _, r := range next {
		if !r.Unreadable && r.Digest == s.Digest {
			return false
		}
	}
	return true
}

// warnOfSpec tells, once, of a spec that admission refuses and whose certificate is
// renewed all the same.
func (s *State) warnOfSpec(v *Verdict) {
	ready := Condition(&s.Certificate.Status, cmapi.CertificateConditionReady)
	if s.Refused != nil && s.Refusal() == nil && ready != nil && ready.ObservedGeneration != s.Certificate.Generation {
		v.Warning, v.WarningReason = s.Refused.Error(), ReasonInvalidSpec
	}
}

// settleSpec takes back that the spec could not be, once the certificate is again what
// the spec says: nothing will be issued that would do it.
func settleSpec(status *cmapi.CertificateStatus) {
	if c := Condition(status, cmapi.CertificateConditionIssuing); c != nil && c.Reason == ReasonInvalidSpec {
		RemoveCondition(status, cmapi.CertificateConditionIssuing)
		status.LastFailureTime, status.FailedIssuanceAttempts = nil, nil
	}
}

// problem is what is wrong with the certificate that the Secret holds; nil: nothing.
func (s *State) problem() *Problem {
	if err := s.Refusal(); err != nil {
		return &Problem{ReasonInvalidSpec, MessageInvalidSpec + err.Error()}
	}
	var current *Current
	if r := s.current(); r != nil {
		current = &Current{Key: r.Key, Differences: s.Differs}
		if r.Unreadable {
			current.Unreadable = r.Name
		}
	}
	return ContentProblem(s.Certificate, s.Secret, current)
}

// proceed looks how far an issuance that is under way has come.
func (s *State) proceed(v *Verdict, since time.Time) {
	c := Condition(&s.Certificate.Status, cmapi.CertificateConditionIssuing)
	v.Reason, v.Message = c.Reason, c.Message
	for _, r := range s.Requests {
		if r.Revision == 0 {
			v.Surplus = append(v.Surplus, r)
		}
	}
	for _, r := range s.next() {
		// What failed before this issuance was begun is of the one before.
		old := r.State == RequestFailed && !r.FailedAt.IsZero() && r.FailedAt.Before(since)
		if r.Unreadable || r.Digest != s.Digest || old || v.Request != nil {
			v.Surplus = append(v.Surplus, r)
			continue
		}
		v.Request = r
	}
	switch {
	case v.Request == nil:
		v.Action = Ask
	case v.Request.State == RequestOpen:
		v.Action, v.Bundle = Await, s.Owner && s.lacksBundle()
	case v.Request.State == RequestIssued:
		v.Action = Store
	default:
		v.Action, v.Reason, v.Message = Fail, v.Request.Reason, v.Request.Message
	}
}

// mend looks at what the Secret says beside its certificate and key.
func (s *State) mend(v *Verdict) {
	p := AppearanceProblem(s.Certificate, s.Secret, s.OwnerReference)
	// Where the Secret itself cannot be read there is nothing that writing it would mend.
	if p != nil && p.Reason != ReasonInvalidCertificate && p.Reason != ReasonManagedFieldsParseError {
		v.Action, v.Reason, v.Message = Mend, p.Reason, p.Message
		return
	}
	s.mendOthers(v)
}

// mendOthers looks at what others have changed: the bundle of the issuer, a password.
func (s *State) mendOthers(v *Verdict) {
	switch {
	case s.lacksBundle():
		v.Action, v.Reason, v.Message = Mend, reasonBundle, messageBundle
	case s.PasswordChanged && PairProblem(s.Secret) == nil:
		v.Action, v.Reason, v.Message = Mend, reasonPassword, messagePassword
	}
}

// tidy finds the requests that are more than spec.revisionHistoryLimit, the oldest
// first, once the Certificate is ready.
func (s *State) tidy(v *Verdict) {
	if c := Condition(&v.Status, cmapi.CertificateConditionReady); c == nil || c.Status != cmmeta.ConditionTrue {
		return
	}
	limit := 1
	if l := s.Certificate.Spec.RevisionHistoryLimit; l != nil {
		limit = int(*l)
	}
	v.Surplus = append(v.Surplus, oldest(s.Requests, s.Revision(), limit)...)
}
