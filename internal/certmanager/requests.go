package certmanager

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/workload"
)

// Texts of conditions, as cert-manager writes them.
const (
	messageFetched = "Certificate fetched from issuer successfully"
	messageDenied  = "The CertificateRequest was denied by an approval controller"

	messageNoIssuer = "Certificate will be issued with an empty Issuer DN, which contravenes RFC 5280 and could break some strict clients"
)

// wantsRequest tells whether something is to be done on a request.
func (c *Controller) wantsRequest(f *workload.RequestFacts) bool {
	switch f.State {
	case workload.RequestOpen:
		return true
	case workload.RequestDenied:
		return f.Ready != cmapi.CertificateRequestReasonDenied
	}
	return false
}

// handleRequest approves and signs a request that the loop of Certificates does not
// work on: of others, or of a Certificate whose issuance takes its time.
func (c *Controller) handleRequest(ctx context.Context, key types.NamespacedName) error {
	f, _ := c.requests.get(key)
	if f == nil || !c.wantsRequest(f) || c.inHand.has(key) || !c.Ours(f.Issuer, key.Namespace) || c.isLeftOver(key, f) {
		return nil
	}
	r, err := c.Client.getRequest(ctx, key)
	if apierrors.IsNotFound(err) {
		return nil // the watch tells
	}
	if err != nil {
		return fmt.Errorf("reading CertificateRequest %s: %w", key, err)
	}
	if f = workload.FactsOfRequest(r); r.DeletionTimestamp != nil || !c.wantsRequest(f) {
		return nil
	}
	status := r.Status.DeepCopy()
	again, err := c.answer(ctx, r, f, status)
	if err != nil {
		return err
	}
	if !equality.Semantic.DeepEqual(r.Status, *status) {
		if _, err := c.writeRequest(ctx, r, *status); err != nil {
			return err
		}
	}
	if again > 0 {
		c.requestQueue.AddAfter(key, again)
	}
	return nil
}

// isLeftOver tells whether a request is of a Certificate for which no issuance is under
// way, or for which no key waits: what a process that ended has left, with a key that
// nobody has. It is replaced with the next issuance.
func (c *Controller) isLeftOver(key types.NamespacedName, f *workload.RequestFacts) bool {
	if f.Owner == "" {
		return false
	}
	o, _ := c.certificates.get(types.NamespacedName{Namespace: key.Namespace, Name: f.Certificate})
	if o == nil || o.UID != f.Owner {
		return false
	}
	_, under := workload.Issuing(&o.Status)
	return !under || len(c.nextKeysOf(f.Owner)) == 0
}

// answer brings the status of an open request as far as it goes. It returns when to look
// again; 0: when something changes.
func (c *Controller) answer(ctx context.Context, r *cmapi.CertificateRequest, f *workload.RequestFacts, status *cmapi.CertificateRequestStatus) (time.Duration, error) {
	key, here := issuerOf(r.Spec.IssuerRef, r.Namespace)
	if f.State == workload.RequestDenied {
		if here {
			deny(status)
		}
		return 0, nil
	}
	if !here && f.Approved {
		return 0, nil // its issuer's controller answers it
	}
	asked, err := workload.Read(r)
	if err != nil && !here {
		return 0, nil
	}
	if err != nil {
		c.end(r, status, "InvalidRequest", fmt.Sprintf("The request cannot be read: %v", err))
		return 0, nil
	}
	if !f.Approved {
		if done, err := c.approve(ctx, r, asked, status); done || err != nil {
			if c.Approver == nil || err != nil || len(status.Conditions) > len(r.Status.Conditions) {
				return 0, err
			}
			return guardAgain, nil // the approver may know more then
		}
	}
	if !here {
		return 0, nil
	}
	issuer := c.issuer(key)
	if issuer == nil {
		c.pend(r, status, "IssuerNotFound", fmt.Sprintf("Referenced %q not found: %s", workload.IssuerOf(r.Spec.IssuerRef).Kind, r.Spec.IssuerRef.Name))
		return 0, nil
	}
	signer := c.signers[kindOf(issuer.GetSpec())]
	if signer == nil {
		return 0, nil // of a kind that others serve
	}
	if !isReady(issuer) {
		c.pend(r, status, "IssuerNotReady", "Referenced issuer does not have a Ready status condition")
		return 0, nil
	}
	order := Order{Issuer: issuer, Request: r, Asked: asked}
	if issuer.GetSpec().SelfSigned != nil {
		if order.Key, err = c.parkedKey(ctx, r, f, asked); err != nil {
			return 0, err
		}
	}
	got, err := c.sign(ctx, signer, order)
	if err != nil {
		return 0, err
	}
	c.take(r, status, got)
	return got.Again, nil
}

// parkedKey is the key of a request that was made for an answer at once, and had to wait
// for an approval: its annotation names the Secret to be, and the key waits in another.
// nil: there is none.
func (c *Controller) parkedKey(ctx context.Context, r *cmapi.CertificateRequest, f *workload.RequestFacts, asked *workload.Asked) (crypto.Signer, error) {
	o, _ := c.certificates.get(types.NamespacedName{Namespace: r.Namespace, Name: f.Certificate})
	if o == nil || o.UID != f.Owner || o.Status.NextPrivateKeySecretName == nil || !slices.Contains(c.nextKeysOf(o.UID), *o.Status.NextPrivateKeySecretName) {
		return nil, nil
	}
	secret, err := c.readSecret(ctx, types.NamespacedName{Namespace: r.Namespace, Name: *o.Status.NextPrivateKeySecretName})
	if err != nil || secret == nil {
		return nil, err
	}
	key, err := workload.ParseKey(secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil || workload.KeyID(key.Public()) != workload.KeyID(asked.Public) {
		return nil, nil //nolint:nilerr // it is of another issuance
	}
	return key, nil
}

// approve asks the approver, and tells whether nothing more is to be done.
func (c *Controller) approve(ctx context.Context, r *cmapi.CertificateRequest, asked *workload.Asked, status *cmapi.CertificateRequestStatus) (bool, error) {
	if c.Approver == nil {
		return true, nil // others do
	}
	a, err := c.Approver.Approve(ctx, r, asked)
	if err != nil {
		return true, err
	}
	if a.Again > 0 {
		c.requestQueue.AddAfter(types.NamespacedName{Namespace: r.Namespace, Name: r.Name}, a.Again)
	}
	_, here := issuerOf(r.Spec.IssuerRef, r.Namespace)
	switch a.Verdict {
	case Approved:
		workload.SetRequestCondition(status, cmapi.CertificateRequestConditionApproved, cmmeta.ConditionTrue, a.Reason, a.Message, now())
		return false, nil
	case Denied:
		c.Events.Tell(requestObject(r), true, a.Reason, a.Message)
		workload.SetRequestCondition(status, cmapi.CertificateRequestConditionDenied, cmmeta.ConditionTrue, a.Reason, a.Message, now())
		if here { // what else an external issuer says is its own business
			deny(status)
		}
	default:
		switch {
		case a.Reason == "":
		case here:
			c.pend(r, status, a.Reason, a.Message)
		default:
			c.Events.Tell(requestObject(r), false, a.Reason, a.Message)
		}
	}
	return true, nil
}

// guardAgain is when a guard is asked again that was undecided.
const guardAgain = time.Minute

// sign has an approved request signed, if the guard does not object.
func (c *Controller) sign(ctx context.Context, signer Issuer, o Order) (Answer, error) {
	if a, objects, err := c.guard(ctx, o); objects || err != nil {
		return a, err
	}
	return signer.Sign(ctx, o)
}

// guard asks the guard. Where it objects the answer says why.
func (c *Controller) guard(ctx context.Context, o Order) (Answer, bool, error) {
	if c.Guard == nil {
		return Answer{}, false, nil
	}
	a, err := c.Guard.Approve(ctx, o.Request, o.Asked)
	switch {
	case err != nil:
		return Answer{}, true, err
	case a.Verdict == Denied:
		return Answer{Failed: true, Reason: a.Reason, Message: a.Message}, true, nil
	case a.Verdict != Approved:
		return Answer{Reason: a.Reason, Message: a.Message, Again: guardAgain}, true, nil
	}
	return Answer{}, false, nil
}

func deny(status *cmapi.CertificateRequestStatus) {
	failedNow(status)
	workload.SetRequestCondition(status, cmapi.CertificateRequestConditionReady, cmmeta.ConditionFalse, cmapi.CertificateRequestReasonDenied, messageDenied, now())
}

func failedNow(status *cmapi.CertificateRequestStatus) {
	if status.FailureTime == nil {
		at := metav1.NewTime(now())
		status.FailureTime = &at
	}
}

// take writes an answer into a status.
func (c *Controller) take(r *cmapi.CertificateRequest, status *cmapi.CertificateRequestStatus, a Answer) {
	switch {
	case a.Issued != nil:
		c.warnOfIssuer(requestObject(r), a.Issued)
		status.Certificate, status.CA = a.Issued.Chain, a.Issued.CA
		workload.SetRequestCondition(status, cmapi.CertificateRequestConditionReady, cmmeta.ConditionTrue, cmapi.CertificateRequestReasonIssued, messageFetched, now())
		c.Metrics.issued(r.Spec.IssuerRef)
	case a.Invalid:
		workload.SetRequestCondition(status, cmapi.CertificateRequestConditionInvalidRequest, cmmeta.ConditionTrue, a.Reason, a.Message, now())
		c.end(r, status, a.Reason, a.Message)
	case a.Failed:
		c.end(r, status, a.Reason, a.Message)
	default:
		c.pend(r, status, a.Reason, a.Message)
	}
}

// warnOfIssuer tells of a certificate that names nobody as its issuer: one that signs
// itself, and has no subject.
func (c *Controller) warnOfIssuer(o object, issued *workload.Issued) {
	if issued.Leaf != nil && bytes.Equal(issued.Leaf.RawIssuer, []byte{0x30, 0}) {
		c.Events.Tell(o, true, "BadConfig", messageNoIssuer)
	}
}

func (c *Controller) end(r *cmapi.CertificateRequest, status *cmapi.CertificateRequestStatus, reason, message string) {
	failedNow(status)
	c.Events.Tell(requestObject(r), true, reason, message)
	workload.SetRequestCondition(status, cmapi.CertificateRequestConditionReady, cmmeta.ConditionFalse, cmapi.CertificateRequestReasonFailed, message, now())
}

func (c *Controller) pend(r *cmapi.CertificateRequest, status *cmapi.CertificateRequestStatus, reason, message string) {
	if ready := workload.RequestCondition(status, cmapi.CertificateRequestConditionReady); ready == nil || ready.Reason != cmapi.CertificateRequestReasonPending {
		c.Events.Tell(requestObject(r), false, reason, message)
	}
	workload.SetRequestCondition(status, cmapi.CertificateRequestConditionReady, cmmeta.ConditionFalse, cmapi.CertificateRequestReasonPending, message, now())
}

// isReady tells whether an issuer has been found able to sign.
func isReady(issuer cmapi.GenericIssuer) bool {
	for _, d := range issuer.GetStatus().Conditions {
		if d.Type == cmapi.IssuerConditionReady {
			return d.Status == cmmeta.ConditionTrue
		}
	}
	return false
}

func requestObject(r *cmapi.CertificateRequest) object {
	return object{
		kind: cmapi.CertificateRequestKind, resource: certificateRequests, namespace: r.Namespace, name: r.Name,
		uid: r.UID, version: version(r.ResourceVersion),
	}
}

// writeRequest writes the status of a request, and keeps what has become of it.
func (c *Controller) writeRequest(ctx context.Context, r *cmapi.CertificateRequest, status cmapi.CertificateRequestStatus) (*workload.RequestFacts, error) {
	w, err := c.Client.putStatus(ctx, requestObject(r), status)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil, fmt.Errorf("%s/%s: %w", r.Namespace, r.Name, errAgain)
	}
	if err != nil {
		return nil, fmt.Errorf("writing the status of CertificateRequest %s/%s: %w", r.Namespace, r.Name, err)
	}
	r.Status, r.ResourceVersion = status, w.Metadata.ResourceVersion
	f := workload.FactsOfRequest(r)
	c.requests.wrote(types.NamespacedName{Namespace: r.Namespace, Name: r.Name}, w.version(), f)
	return f, nil
}

// retryQuietly tells whether an error is of the ordinary course of things.
func retryQuietly(err error) bool { return errors.Is(err, errAgain) || apierrors.IsConflict(err) }
