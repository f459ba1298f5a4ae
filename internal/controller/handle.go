package controller

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
)

// What conditions say. A requester whose request is denied learns nothing of
// the policy.
const (
	approvedReason  = "AutoApproved"
	approvedMessage = "The request satisfies the policy of kubepki."
	deniedReason    = "PolicyDenied"
	deniedMessage   = "The request does not satisfy the policy of this cluster."
	// unsignableReason is that of k/k pkg/controller/certificates/signer.
	unsignableReason = "SignerValidationFailure"
)

// handle does on a request what is to be done, given what it is now.
func (c *CSR) handle(ctx context.Context, it *item, body *certificatesv1.CertificateSigningRequest) (outcome, error) {
	if body == nil {
		var err error
		if body, err = c.reread(ctx, it); err != nil || body == nil {
			return finished, err
		}
	}
	r := kube.Request(body)
	switch state, _ := stateOf(body); {
	case !c.wants(r.SignerName, state):
		return finished, nil
	case state == csr.Approved:
		return c.sign(ctx, it, body, r)
	default:
		return c.decide(ctx, it, body, r)
	}
}

// reread reads the object from the API server; nil where it is gone.
func (c *CSR) reread(ctx context.Context, it *item) (*certificatesv1.CertificateSigningRequest, error) {
	o, err := c.api.Get(ctx, it.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && o.UID != it.uid {
		return nil, nil
	}
	if err != nil {
		return nil, &stepError{"read", err}
	}
	c.ledger.wrote(it, see(o, c.wants))
	return o, nil
}

// decide decides on a request, says so, and has it signed.
func (c *CSR) decide(ctx context.Context, it *item, body *certificatesv1.CertificateSigningRequest, r csr.Request) (outcome, error) {
	review, err := c.review(ctx, it, r)
	if err != nil {
		return failed, err
	}
	switch review.Verdict {
	case csr.Approve:
		return c.approved(ctx, it, body, r, review)
	case csr.Deny:
		return c.denied(ctx, it, body, r, review)
	}
	c.noteUndecided(it, r, review)
	return undecided, nil
}

// review gathers the facts and decides.
func (c *CSR) review(ctx context.Context, it *item, r csr.Request) (csr.Review, error) {
	facts, err := c.facts(ctx, it, r)
	if err != nil {
		return csr.Review{}, err
	}
	review := c.decideWith(r, facts)
	name, isNode := strings.CutPrefix(r.Username, nodeUser)
	if review.Verdict != csr.Undecided || r.SignerName != csr.KubeletServingSigner || !isNode || time.Since(it.seen) < csr.Grace {
		return review, nil
	}
	// What the node has said by now is all that there is to wait for.
	o, err := c.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return csr.Review{}, &stepError{"read", fmt.Errorf("node %q: %w", name, err)}
	}
	facts.Landed = true
	c.nodes.readLive(name, kube.Node(o), err == nil, func(i *csr.Inventory) {
		facts.Nodes = i
		review = c.Decide(r, facts, c.Policy)
	})
	return review, nil
}

func (c *CSR) decideWith(r csr.Request, facts csr.Facts) (review csr.Review) {
	c.nodes.read(func(i *csr.Inventory) {
		facts.Nodes = i
		review = c.Decide(r, facts, c.Policy)
	})
	return review
}

// facts are those that a decision needs, but the nodes.
func (c *CSR) facts(ctx context.Context, it *item, r csr.Request) (csr.Facts, error) {
	var facts csr.Facts
	var ok bool
	if facts.Cluster, ok = c.Cluster(); !ok {
		return facts, &stepError{"facts", fmt.Errorf("the service range and the endpoints of the cluster are not known yet")}
	}
	names := c.ledger.reserve(it)
	facts.Keys = func(sum [32]byte) []string {
		if c.isAuthority(sum) {
			return append(slices.Clone(names), csr.OfAuthority)
		}
		return names
	}
	if permission := csr.Permission(r); permission != "" {
		var err error
		if facts.Authorized, err = c.access.may(ctx, r, permission); err != nil {
			return facts, &stepError{"access", err}
		}
	}
	facts.Resolved = c.resolved(ctx, csr.Lookups(r, c.Policy))
	return facts, nil
}

// lookupPatience is how long DNS may take for one name.
const lookupPatience = 2 * time.Second

// resolved asks DNS; what is not answered is left out.
func (c *CSR) resolved(ctx context.Context, names []string) map[string][]netip.Addr {
	if len(names) == 0 || c.Resolve == nil {
		return nil
	}
	all := make(map[string][]netip.Addr, len(names))
	for _, name := range names {
		limited, cancel := context.WithTimeout(ctx, lookupPatience)
		addresses, err := c.Resolve(limited, name)
		cancel()
		if err != nil {
			continue
		}
		all[name] = addresses
	}
	return all
}

// approved writes an approval, while the signature is being made, and then the
// certificate: two writes, and no look back.
func (c *CSR) approved(ctx context.Context, it *item, body *certificatesv1.CertificateSigningRequest, r csr.Request, review csr.Review) (outcome, error) {
	source := c.Sources[r.SignerName]
	var made chan signature
	if source != nil {
		made = make(chan signature, 1)
		go func() { made <- c.signature(source, r) }()
	}
	answer, err := c.writeApproval(ctx, body, certificatesv1.CertificateApproved, approvedReason, approvedMessage)
	if err != nil {
		return c.refused(ctx, it, "approve", err)
	}
	c.ledger.wrote(it, see(answer, c.wants))
	if source == nil {
		c.audit(r, review, leaf{})
		return finished, nil
	}
	s := <-made
	came, err := c.publish(ctx, it, answer, r, s)
	if err != nil {
		s.leaf = leaf{} // nobody has it, and nobody will
	}
	c.audit(r, review, s.leaf)
	return came, err
}

func (c *CSR) denied(ctx context.Context, it *item, body *certificatesv1.CertificateSigningRequest, r csr.Request, review csr.Review) (outcome, error) {
	answer, err := c.writeApproval(ctx, body, certificatesv1.CertificateDenied, deniedReason, deniedMessage)
	if err != nil {
		return c.refused(ctx, it, "deny", err)
	}
	c.ledger.wrote(it, see(answer, c.wants))
	c.audit(r, review, leaf{})
	if c.Events != nil {
		c.Events.Denied(answer)
	}
	return finished, nil
}

// writeApproval adds a condition to an object, which it leaves as it is.
func (c *CSR) writeApproval(ctx context.Context, body *certificatesv1.CertificateSigningRequest,
	kind certificatesv1.RequestConditionType, reason, message string,
) (*certificatesv1.CertificateSigningRequest, error) {
	o := *body
	o.Status.Conditions = append(slices.Clip(o.Status.Conditions), certificatesv1.CertificateSigningRequestCondition{
		Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastUpdateTime: metav1.Now(),
	})
	return c.api.UpdateApproval(ctx, o.Name, &o, metav1.UpdateOptions{})
}

// refused tells what to do when the API server refused a write. The object may
// be gone, or another one by now, or somebody has written it: it is read again.
func (c *CSR) refused(ctx context.Context, it *item, step string, err error) (outcome, error) {
	switch {
	case apierrors.IsNotFound(err):
		return finished, nil
	case apierrors.IsConflict(err) || apierrors.IsInvalid(err):
		body, readErr := c.reread(ctx, it)
		if readErr != nil {
			return failed, readErr
		}
		if body == nil {
			return finished, nil
		}
		if state, _ := stateOf(body); !c.wants(body.Spec.SignerName, state) {
			return finished, nil
		}
	}
	return failed, &stepError{step, err}
}

// noAnswer tells an API server that does not answer, or answers that it cannot,
// from one that refuses.
func noAnswer(err error) bool {
	reason := apierrors.ReasonForError(err)
	switch reason {
	case metav1.StatusReasonUnknown, metav1.StatusReasonTooManyRequests, metav1.StatusReasonServiceUnavailable,
		metav1.StatusReasonServerTimeout, metav1.StatusReasonTimeout, metav1.StatusReasonInternalError:
		return true
	}
	return false
}
