package certmanager

import (
	"context"
	"fmt"
	"slices"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/workload"
)

// item is a Certificate in work.
type item struct {
	key   types.NamespacedName
	seen  *cmapi.Certificate // as it is kept; not to be changed
	state workload.State
	// version is that of the object as it was last written.
	version uint64
	status  cmapi.CertificateStatus // as the API server has it
	// unlabelled is the Secret of the Certificate where no watch tells of it.
	unlabelled *corev1.Secret
	// passwords are those of the keystores, as they were when the state was gathered.
	passwords passwordsInUse
	// bundle is what ca.crt shall hold where the state has one that is wanted.
	bundle []byte
}

func (it *item) object() object {
	return object{
		kind: cmapi.CertificateKind, resource: certificates, namespace: it.key.Namespace, name: it.key.Name,
		uid: it.seen.UID, version: it.version,
	}
}

// secret is the key of the Certificate's Secret.
func (it *item) secret() types.NamespacedName { return secretOf(it.seen) }

// handleCertificate looks at a Certificate and does the next thing that is to be done.
func (c *Controller) handleCertificate(ctx context.Context, key types.NamespacedName) error {
	o, v := c.certificates.get(key)
	if o == nil || o.DeletionTimestamp != nil || !c.Ours(o.Spec.IssuerRef, key.Namespace) {
		c.passwords.follow(key, nil)
		return nil
	}
	if !c.passwords.follow(key, o) {
		c.Log.Warn("workloads: a change of its keystore's password will be taken up with the next issuance alone: too many passwords are watched", "certificate", key.String(), "most", mostPasswords)
	}
	it := &item{key: key, seen: o, version: v, status: o.Status}
	if err := c.gather(ctx, it); err != nil {
		return err
	}
	verdict := workload.Decide(it.state, now())
	if verdict.Action == workload.Issue && !it.state.Secret.Exists {
		// A Secret without our label is there for all others.
		found, err := c.findUnlabelled(ctx, it)
		if err != nil {
			return err
		}
		if found {
			verdict = workload.Decide(it.state, now())
		}
	}
	if verdict.Warning != "" {
		c.Events.Tell(it.object(), true, verdict.WarningReason, verdict.Warning)
	}
	if err := c.removeRequests(ctx, key, verdict.Surplus); err != nil {
		return err
	}
	if err := c.act(ctx, it, verdict); err != nil {
		return err
	}
	c.askLater(it, verdict)
	if !verdict.Again.IsZero() {
		c.certificateQueue.AddAfter(key, verdict.Again.Sub(now()))
	}
	return nil
}

// gather collects what is known of a Certificate.
func (c *Controller) gather(ctx context.Context, it *item) error {
	o := it.seen
	s := workload.State{
		Certificate: o, Owner: c.owns(o), Requests: c.requestsOf(it.key, o.UID), OwnerReference: c.OwnerReference,
		FirstBackoff: c.FirstBackoff, LastBackoff: c.LastBackoff,
	}
	s.Secret = &workload.SecretFacts{}
	k, secretVersion := c.secrets.get(it.secret())
	if k != nil {
		s.Secret = &k.SecretFacts
	}
	s.PasswordChanged, it.passwords = c.passwords.changed(it.key, o, secretVersion)
	s.Carry, it.bundle = c.carry(ctx, o, s.Secret)
	wish, err := workload.WishOf(&o.Spec)
	if err != nil {
		s.Invalid = err
	} else {
		s.Digest = wish.Digest()
		s.Refused = workload.Admit(&o.Spec, c.Limits)
	}
	if suspect := s.Suspect(); suspect != nil {
		r, err := c.Client.getRequest(ctx, types.NamespacedName{Namespace: it.key.Namespace, Name: suspect.Name})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("reading CertificateRequest %s/%s: %w", it.key.Namespace, suspect.Name, err)
		}
		if err == nil {
			if was, _, err := workload.Recall(r); err == nil {
				s.Differs = workload.Differences(was, wish)
			}
		}
	}
	it.state = s
	return nil
}

// owns tells whether a Certificate is the one that writes its Secret: the one that the
// Secret names, or the oldest of those that name the Secret.
func (c *Controller) owns(o *cmapi.Certificate) bool {
	secret := secretOf(o)
	names := c.namingSecret(secret)
	if len(names) < 2 {
		return true
	}
	if k, _ := c.secrets.get(secret); k != nil && slices.Contains(names, k.CertificateName) {
		return k.CertificateName == o.Name
	}
	for _, name := range names {
		other, _ := c.certificates.get(types.NamespacedName{Namespace: o.Namespace, Name: name})
		if other == nil || name == o.Name {
			continue
		}
		if other.CreationTimestamp.Before(&o.CreationTimestamp) || other.CreationTimestamp.Equal(&o.CreationTimestamp) && name < o.Name {
			return false
		}
	}
	return true
}

// findUnlabelled looks whether the Secret is there, but without the label by which
// Secrets are watched.
func (c *Controller) findUnlabelled(ctx context.Context, it *item) (bool, error) {
	secret, err := c.readSecret(ctx, it.secret())
	if err != nil || secret == nil {
		return false, err
	}
	it.unlabelled = secret
	facts := workload.FactsOf(secret)
	it.state.Secret = &facts
	return true, nil
}

// readSecret reads a Secret; nil: it is not there.
func (c *Controller) readSecret(ctx context.Context, key types.NamespacedName) (*corev1.Secret, error) {
	secret, err := c.Client.Kube.CoreV1().Secrets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s: %w", key, err)
	}
	return secret, nil
}

// removeRequests removes requests that are of no use any more.
func (c *Controller) removeRequests(ctx context.Context, key types.NamespacedName, all []*workload.RequestFacts) error {
	for _, r := range all {
		at := types.NamespacedName{Namespace: key.Namespace, Name: r.Name}
		if err := c.Client.deleteRequest(ctx, at, r.UID); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("removing CertificateRequest %s: %w", at, err)
		}
		c.requests.removed(at)
	}
	return nil
}

// act does what has been decided.
func (c *Controller) act(ctx context.Context, it *item, v workload.Verdict) error {
	switch v.Action {
	case workload.Issue, workload.Ask:
		return c.issue(ctx, it, v)
	case workload.Await:
		return c.hold(ctx, it, v)
	case workload.Store:
		return c.store(ctx, it, v)
	case workload.Fail:
		return c.fail(ctx, it, v.Status, v.Reason, v.Message)
	case workload.Mend:
		if err := c.mend(ctx, it, v); err != nil {
			return err
		}
	}
	if err := c.writeStatus(ctx, it, v.Status); err != nil {
		return err
	}
	return c.removeNextKeys(ctx, it, "")
}

// writeStatus writes the status of a Certificate where it has changed.
func (c *Controller) writeStatus(ctx context.Context, it *item, status cmapi.CertificateStatus) error {
	if equality.Semantic.DeepEqual(it.status, status) {
		return nil
	}
	w, err := c.Client.putStatus(ctx, it.object(), status)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return fmt.Errorf("%s: %w", it.key, errAgain)
	}
	if err != nil {
		return fmt.Errorf("writing the status of Certificate %s: %w", it.key, err)
	}
	changed := *it.seen
	changed.Status = status
	it.version, it.status = w.version(), status
	c.certificates.wrote(it.key, w.version(), &changed)
	return nil
}

// fail writes that an issuance has failed; it is tried again after a while.
func (c *Controller) fail(ctx context.Context, it *item, status cmapi.CertificateStatus, reason, message string) error {
	failed := workload.Failed(it.seen, status, reason, message, now())
	if err := c.writeStatus(ctx, it, failed); err != nil {
		return err
	}
	c.Metrics.failed(it.seen.Spec.IssuerRef)
	c.Events.Tell(it.object(), true, reason, workload.Condition(&failed, cmapi.CertificateConditionIssuing).Message)
	c.Log.Warn("workloads: an issuance has failed", "certificate", it.key.String(), "reason", reason, "message", message)
	c.certificateQueue.AddAfter(it.key, workload.Backoff(&failed, c.FirstBackoff, c.LastBackoff).Sub(now()))
	return c.removeNextKeys(ctx, it, "")
}

// removeNextKeys removes the Secrets with next private keys of a Certificate but for
// one of a name.
func (c *Controller) removeNextKeys(ctx context.Context, it *item, but string) error {
	for _, name := range c.nextKeysOf(it.seen.UID) {
		if name == but {
			continue
		}
		at := types.NamespacedName{Namespace: it.key.Namespace, Name: name}
		k, _ := c.secrets.get(at)
		if k == nil {
			continue
		}
		options := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &k.uid}}
		err := c.Client.Kube.CoreV1().Secrets(at.Namespace).Delete(ctx, at.Name, options)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("removing Secret %s: %w", at, err)
		}
		c.secrets.removed(at)
	}
	return nil
}
