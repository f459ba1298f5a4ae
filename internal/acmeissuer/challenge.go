package acmeissuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/mholt/acmez/v3/acme"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// prove takes each challenge of the order as far as it goes. It ends without an error
// where the server is to be asked for the order.
func (w *work) prove() error {
	challenges, err := w.challenges()
	if err != nil {
		return err
	}
	var first *errAgain
	for i := range challenges {
		c, err := w.proveOne(challenges[i])
		var wait *errAgain
		switch {
		case err == nil:
			challenges[i] = c
		case errors.As(err, &wait):
			if first == nil || wait.after < first.after {
				first = wait
			}
		default:
			return err
		}
	}
	if afterProofs(challenges) {
		return w.ask()
	}
	if first == nil {
		return w.wait("challenges are not proved yet")
	}
	return first
}

// challenges returns the challenges that the order needs, and makes those that are not
// there. Authorizations that were valid when the order was made need none.
func (w *work) challenges() ([]*cmacme.Challenge, error) {
	var all []*cmacme.Challenge
	for _, a := range w.order.Status.Authorizations {
		if a.InitialState == cmacme.Valid || a.Identifier == "" {
			continue
		}
		wanted, err := challengeOf(w.order, a, w.issuer.GetSpec().ACME.Solvers)
		if err != nil {
			// Who mends the issuer or the annotation goes on from here.
			w.order.Status.Reason = bounded(err.Error())
			return nil, &errAgain{after: afterError, reason: err.Error()}
		}
		if wanted.Spec.Key, err = w.keyFor(&wanted.Spec); err != nil {
			return nil, err
		}
		api := w.Client.challenges(wanted.Namespace)
		c, err := api.Get(w.ctx, wanted.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			c, err = api.Create(w.ctx, wanted, metav1.CreateOptions{FieldManager: fieldManager})
			if err == nil {
				w.event(w.order, false, "Created", fmt.Sprintf("Created Challenge resource %q for domain %q", c.Name, c.Spec.DNSName))
			}
		}
		if err != nil {
			return nil, err
		}
		if !metav1.IsControlledBy(c, w.order) || !sameProof(&c.Spec, &wanted.Spec) {
			return nil, &errAgain{after: afterError, reason: fmt.Sprintf("challenge %s/%s is not as the order wants it: somebody wrote it, delete it", c.Namespace, c.Name)}
		}
		all = append(all, c)
	}
	return all, nil
}

// sameProof tells whether a challenge that was found would prove what one that was
// just computed does. Who may write Challenges in a namespace shall not have the
// credentials of a ClusterIssuer write other records than an order needs.
func sameProof(a, b *cmacme.ChallengeSpec) bool {
	return a.URL == b.URL && a.AuthorizationURL == b.AuthorizationURL && a.DNSName == b.DNSName && a.Wildcard == b.Wildcard &&
		a.Type == b.Type && a.Token == b.Token && a.Key == b.Key && a.IssuerRef.Name == b.IssuerRef.Name && kindOf(a.IssuerRef) == kindOf(b.IssuerRef) &&
		sameJSON(a.Solver.DNS01, b.Solver.DNS01)
}

// sameJSON compares as the API server keeps objects: it writes free JSON in its own
// order.
func sameJSON(a, b any) bool {
	x, err := plain(a)
	y, err2 := plain(b)
	return err == nil && err2 == nil && reflect.DeepEqual(x, y)
}

func plain(v any) (any, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var p any
	err = json.Unmarshal(text, &p)
	return p, err
}

// mayCleanUp tells whether the credentials of a challenge's issuer may be used for it.
// Those of a ClusterIssuer are for the solvers that it has itself; those of an Issuer
// are in the challenge's own namespace.
func mayCleanUp(c *cmacme.Challenge, issuer cmapi.GenericIssuer) bool {
	if c.Spec.Solver.DNS01 == nil || kindOf(c.Spec.IssuerRef) != cmapi.ClusterIssuerKind {
		return true
	}
	return issuer != nil && issuer.GetSpec().ACME != nil && slices.ContainsFunc(issuer.GetSpec().ACME.Solvers, func(s cmacme.ACMEChallengeSolver) bool {
		return s.DNS01 != nil && sameJSON(s.DNS01, c.Spec.Solver.DNS01)
	})
}

// keyFor returns what is to be shown for a challenge (RFC 8555 section 8.1).
func (w *work) keyFor(s *cmacme.ChallengeSpec) (string, error) {
	thumbprint, err := w.session.account.Thumbprint()
	if err != nil {
		return "", err
	}
	c := acme.Challenge{Token: s.Token, KeyAuthorization: s.Token + "." + thumbprint}
	if s.Type == cmacme.ACMEChallengeTypeDNS01 {
		return c.DNS01KeyAuthorization(), nil
	}
	return c.KeyAuthorization, nil
}

// proveOne takes one challenge as far as it goes. Its status is written when it has
// changed.
func (w *work) proveOne(c *cmacme.Challenge) (*cmacme.Challenge, error) {
	for range maxActs {
		next, wait := nextOfChallenge(c, w.Now())
		switch next {
		case nothing:
			return c, nil
		case cleanUp:
			return w.finishChallenge(w.ctx, c, w.issuer)
		case pause:
			return c, &errAgain{after: wait, reason: fmt.Sprintf("%s: Waiting %s before accepting %s challenge without self-check", c.Spec.DNSName, wait.Round(time.Second), c.Spec.Type)}
		}
		before := c.Status.DeepCopy()
		err := w.doOne(next, c)
		if !apiequality.Semantic.DeepEqual(before, &c.Status) {
			saved, saveErr := w.Client.challenges(c.Namespace).UpdateStatus(w.ctx, c, metav1.UpdateOptions{FieldManager: fieldManager})
			if saveErr != nil {
				return c, saveErr
			}
			c = saved
		}
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

func (w *work) doOne(next step, c *cmacme.Challenge) error {
	switch next {
	case present:
		return w.present(c)
	case check:
		if err := w.Solvers.check(w.ctx, c, w.Accounts.secretNamespace(c.Spec.IssuerRef, c.Namespace)); err != nil {
			c.Status.Reason = bounded(fmt.Sprintf("Waiting for %s challenge propagation: %v", c.Spec.Type, err))
			return &errAgain{after: w.Solvers.poll(), reason: c.Spec.DNSName + ": " + c.Status.Reason}
		}
		return w.accept(c)
	case accept:
		return w.accept(c)
	default:
		w.hold(c)
		return w.askChallenge(c)
	}
}

// hold presents again what a process that has ended presented, while the server may
// still be looking: tokens are in memory, and the address was that of its host.
func (w *work) hold(c *cmacme.Challenge) {
	if c.Spec.Type != cmacme.ACMEChallengeTypeHTTP01 || w.Solvers.Tokens.has(c.Spec.Token) {
		return
	}
	if err := w.Solvers.present(w.ctx, c, ""); err != nil && w.Log != nil {
		w.Log.Warn("acme: presenting again", "challenge", c.Name, "namespace", c.Namespace, "error", bounded(err.Error()))
	}
}

func (w *work) present(c *cmacme.Challenge) error {
	c.Status.Processing = true
	if c.Status.State == cmacme.Unknown {
		c.Status.State = cmacme.Pending
	}
	if err := w.Solvers.present(w.ctx, c, w.Accounts.secretNamespace(c.Spec.IssuerRef, c.Namespace)); err != nil {
		c.Status.Reason = bounded("Error presenting challenge: " + err.Error())
		w.event(c, true, "PresentError", c.Status.Reason)
		return &errAgain{after: afterError, reason: c.Spec.DNSName + ": " + c.Status.Reason}
	}
	c.Status.Presented, c.Status.Reason = true, ""
	c.Status.PresentedAt = new(metav1.NewTime(w.Now()))
	w.event(c, false, "Presented", fmt.Sprintf("Presented challenge using %s challenge mechanism", c.Spec.Type))
	return nil
}

// accept tells the server to look. The server is asked first: it may have been told by
// a process that ended before it wrote so, and takes a second word amiss.
func (w *work) accept(c *cmacme.Challenge) error {
	if err := w.askChallenge(c); c.Status.State != cmacme.Pending || err != nil && !isAgain(err) {
		return err
	}
	got, err := w.session.client.InitiateChallenge(w.ctx, w.session.account, acme.Challenge{URL: c.Spec.URL, Token: c.Spec.Token})
	if err != nil {
		return err
	}
	c.Status.State, c.Status.Reason = cmacme.Processing, ""
	if got.Status == acme.StatusPending || got.Status == acme.StatusProcessing {
		return w.wait(c.Spec.DNSName + ": the server is looking")
	}
	return w.askChallenge(c)
}

func isAgain(err error) bool {
	var wait *errAgain
	return errors.As(err, &wait)
}

// askChallenge asks the server what it saw. The authorization is asked for, as some
// servers take a question after a challenge for the word to look.
func (w *work) askChallenge(c *cmacme.Challenge) error {
	got, err := w.session.client.GetAuthorization(w.ctx, w.session.account, c.Spec.AuthorizationURL)
	if p, ok := problemOf(err); ok && (p.Type == acme.ProblemTypeMalformed || p.Status == 404) {
		c.Status.State, c.Status.Reason = cmacme.Expired, bounded(say(err))
		return nil
	}
	if err != nil {
		return err
	}
	var mine acme.Challenge
	for _, candidate := range got.Challenges {
		if candidate.URL == c.Spec.URL {
			mine = candidate
		}
	}
	switch got.Status {
	case acme.StatusValid:
		c.Status.State, c.Status.Reason = cmacme.Valid, "Successfully authorized domain"
		w.event(c, false, "DomainVerified", fmt.Sprintf("Domain %q verified with %q validation", c.Spec.DNSName, c.Spec.Type))
	case acme.StatusPending:
		// A server may go on saying pending while it looks: what was told stays told.
		if mine.Status == acme.StatusProcessing {
			c.Status.State = cmacme.Processing
		}
		c.Status.Reason = ""
		if mine.Error != nil {
			c.Status.Reason = bounded(detail(*mine.Error))
		}
		return w.wait(c.Spec.DNSName + ": the server is looking")
	case acme.StatusInvalid:
		c.Status.State, c.Status.Reason = cmacme.Invalid, "the server calls the authorization invalid"
		if mine.Error != nil {
			c.Status.Reason = bounded("Error accepting authorization: " + detail(*mine.Error))
		}
		w.event(c, true, "Failed", c.Status.Reason)
	default:
		c.Status.State, c.Status.Reason = cmacme.Expired, fmt.Sprintf("the server calls the authorization %.40q", got.Status)
	}
	return nil
}

// finishChallenge takes down what was presented for a challenge, and lets it go.
func (o *Orders) finishChallenge(ctx context.Context, c *cmacme.Challenge, issuer cmapi.GenericIssuer) (*cmacme.Challenge, error) {
	if may := mayCleanUp(c, issuer); !may && o.Log != nil {
		o.Log.Warn("acme: a challenge's record stays: its ClusterIssuer has no such solver (any more)", "challenge", c.Name, "namespace", c.Namespace)
	} else if may && finalizes(c) {
		if err := o.Solvers.cleanUp(ctx, c, o.Accounts.secretNamespace(c.Spec.IssuerRef, c.Namespace)); err != nil {
			if isAPIError(err) {
				return c, err
			}
			return c, o.noteCleanUp(ctx, c, err)
		}
	}
	api := o.Client.challenges(c.Namespace)
	if c.Status.Presented || c.Status.Processing {
		c.Status.Presented, c.Status.Processing = false, false
		saved, err := api.UpdateStatus(ctx, c, metav1.UpdateOptions{FieldManager: fieldManager})
		if err != nil {
			return c, ignoreGone(err)
		}
		c = saved
	}
	if finalizes(c) {
		c.Finalizers = slices.DeleteFunc(c.Finalizers, func(f string) bool {
			return f == cmacme.ACMEDomainQualifiedFinalizer || f == cmacme.ACMELegacyFinalizer
		})
		saved, err := api.Update(ctx, c, metav1.UpdateOptions{FieldManager: fieldManager})
		if err != nil {
			return c, ignoreGone(err)
		}
		c = saved
	}
	return c, nil
}

// noteCleanUp says in the challenge why it could not be cleaned up. It keeps its
// finalizer, and [Orders.Sweep] tries again: the certificate does not wait for it.
func (o *Orders) noteCleanUp(ctx context.Context, c *cmacme.Challenge, err error) error {
	reason := bounded("Error cleaning up challenge: " + err.Error())
	if c.Status.Reason == reason {
		return nil
	}
	c.Status.Reason = reason
	o.event(c, true, "CleanUpError", reason)
	saved, err := o.Client.challenges(c.Namespace).UpdateStatus(ctx, c, metav1.UpdateOptions{FieldManager: fieldManager})
	if err == nil {
		*c = *saved
	}
	return ignoreGone(err)
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Sweep cleans up after challenges that no Step will come to any more: those that are
// deleted, and those that have come to an end. find returns the issuer that an object
// in a namespace refers to, nil where there is none any more, and whether it is ours.
// Call it at the start, each minute, and when a Challenge is being deleted.
func (o *Orders) Sweep(ctx context.Context, find func(ref cmmeta.IssuerReference, namespace string) (issuer cmapi.GenericIssuer, ours bool)) error {
	var left []*cmacme.Challenge
	err := o.Client.eachChallenge(ctx, metav1.NamespaceAll, func(c *cmacme.Challenge) {
		if (c.DeletionTimestamp != nil || final(c.Status.State)) && finalizes(c) {
			left = append(left, c.DeepCopy())
		}
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range left {
		issuer, ours := find(c.Spec.IssuerRef, c.Namespace)
		if !ours {
			continue
		}
		if _, err := o.finishChallenge(ctx, c, issuer); err != nil && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("challenge %s/%s: %w", c.Namespace, c.Name, err))
		}
	}
	return errors.Join(errs...)
}
