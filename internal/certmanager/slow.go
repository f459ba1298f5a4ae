package certmanager

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/workload"
)

// begin goes the way of an issuance that takes its time: the key waits in a Secret, the
// condition Issuing says that an issuance is under way, and the loop of requests, or
// another issuer's controller, answers the request.
func (c *Controller) begin(ctx context.Context, it *item, v workload.Verdict) error {
	key, name, err := c.waitingKey(ctx, it)
	if err == nil && key == nil {
		if key, err = c.nextKey(ctx, it); err == nil {
			name, err = c.storeNextKey(ctx, it, key)
		}
	}
	if message, no := refused(err); no {
		return c.fail(ctx, it, v.Status, workload.ReasonSecretNotWritten, "the API server does not take the Secret in which the next private key waits: "+message)
	}
	if errors.Is(err, errKeyStays) {
		return c.fail(ctx, it, v.Status, "CannotRegenerateKey", err.Error())
	}
	if err != nil {
		return err
	}
	if v.Action == workload.Issue {
		c.Events.Tell(it.object(), false, "Issuing", v.Message)
	}
	if err := c.writeStatus(ctx, it, workload.Begun(it.seen, v.Status, v.Reason, v.Message, name, now())); err != nil {
		return err
	}
	r, release, err := c.createRequest(ctx, it, key, name)
	if message, no := refused(err); no {
		return c.fail(ctx, it, v.Status, workload.ReasonRequestNotWritten, "the API server does not take the CertificateRequest: "+message)
	}
	if err != nil {
		return err
	}
	release()
	c.Events.Tell(it.object(), false, "Requested", fmt.Sprintf("Created new CertificateRequest resource %q", r.Name))
	return nil
}

// waitingKey returns the key that waits for a Certificate's certificate, and the name of
// its Secret; nil: there is none that fits. Others of the Certificate are removed.
func (c *Controller) waitingKey(ctx context.Context, it *item) (crypto.Signer, string, error) {
	names := c.nextKeysOf(it.seen.UID)
	if len(names) == 0 {
		return nil, "", nil
	}
	name := names[0]
	if wanted := it.seen.Status.NextPrivateKeySecretName; wanted != nil {
		for _, n := range names {
			if n == *wanted {
				name = n
			}
		}
	}
	secret, err := c.readSecret(ctx, types.NamespacedName{Namespace: it.key.Namespace, Name: name})
	if err != nil {
		return nil, "", err
	}
	if secret != nil {
		key, err := workload.ParseKey(secret.Data[corev1.TLSPrivateKeyKey])
		if err == nil && len(workload.KeyProblems(key.Public(), &it.seen.Spec)) == 0 {
			return key, name, c.removeNextKeys(ctx, it, name)
		}
	}
	return nil, "", c.removeNextKeys(ctx, it, "")
}

// storeNextKey makes a Secret in which a key waits.
func (c *Controller) storeNextKey(ctx context.Context, it *item, key crypto.Signer) (string, error) {
	encoded, err := workload.EncodeKey(key, &it.seen.Spec)
	if err != nil {
		return "", err
	}
	prefix := it.seen.Name
	if len(prefix) > 52 {
		prefix = prefix[:52]
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: it.key.Namespace, GenerateName: prefix + "-",
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(it.seen, cmapi.SchemeGroupVersion.WithKind(cmapi.CertificateKind))},
			Labels:          map[string]string{cmapi.IsNextPrivateKeySecretLabelKey: "true", cmapi.PartOfCertManagerControllerLabelKey: "true"},
		},
		Data: map[string][]byte{corev1.TLSPrivateKeyKey: encoded},
	}
	made, err := c.Client.Kube.CoreV1().Secrets(secret.Namespace).Create(ctx, secret, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("storing the next private key of Certificate %s: %w", it.key, err)
	}
	c.secrets.wrote(types.NamespacedName{Namespace: made.Namespace, Name: made.Name}, version(made.ResourceVersion), keepSecret(made))
	c.Events.Tell(it.object(), false, "Generated", fmt.Sprintf("Stored new private key in temporary Secret resource %q", made.Name))
	return made.Name, nil
}

// park stores the key of a request that was made for an answer at once, and got none.
func (c *Controller) park(ctx context.Context, it *item, v workload.Verdict, key crypto.Signer) error {
	name, err := c.storeNextKey(ctx, it, key)
	if err != nil {
		return err
	}
	return c.writeStatus(ctx, it, workload.Begun(it.seen, v.Status, v.Reason, v.Message, name, now()))
}

// An open request is looked at again, should no watch tell of it, once it has waited for
// as long again: soon where it is new, and seldom where people are waited for.
const (
	holdAgainFirst = 2 * time.Second
	holdAgainLast  = 10 * time.Minute
)

// hold waits for the answer to a request. Where its key is gone the answer would be of
// no use: the request is made anew.
func (c *Controller) hold(ctx context.Context, it *item, v workload.Verdict) error {
	key, name, err := c.waitingKey(ctx, it)
	if err != nil {
		return err
	}
	if key == nil || workload.KeyID(key.Public()) != v.Request.Key {
		if err := c.removeRequests(ctx, it.key, []*workload.RequestFacts{v.Request}); err != nil {
			return err
		}
		return errAgain
	}
	status := workload.Begun(it.seen, v.Status, v.Reason, v.Message, name, now())
	if err := c.writeStatus(ctx, it, status); err != nil {
		return err
	}
	c.certificateQueue.AddAfter(it.key, min(max(now().Sub(v.Request.Made), holdAgainFirst), holdAgainLast))
	if c.wantsRequest(v.Request) { // its loop may have met it before the key and the status that say whose it is
		c.requestQueue.Add(types.NamespacedName{Namespace: it.key.Namespace, Name: v.Request.Name})
	}
	if v.Bundle {
		return c.mend(ctx, it, v)
	}
	if v.Request.Ready == "" { // as in cert-manager: nothing is lent before an issuer has said that it takes time
		return nil
	}
	return c.lend(ctx, it, key)
}

// lend stores a temporary certificate until the true one is there, where the
// Certificate is annotated so: whoever mounts the Secret can start.
func (c *Controller) lend(ctx context.Context, it *item, key crypto.Signer) error {
	if it.seen.Annotations[cmapi.IssueTemporaryCertificateAnnotation] != "true" || workload.PairProblem(it.state.Secret) == nil {
		return nil
	}
	content, err := workload.Temporary(&it.seen.Spec, key, now())
	if err != nil {
		return err
	}
	content.Name = it.seen.Name
	if _, err := c.apply(ctx, it, content); err != nil {
		return err
	}
	c.Events.Tell(it.object(), false, "Issuing", "Issued temporary certificate")
	return nil
}

// store takes the certificate of an answered request, if it is one for the key that
// waits and can be used.
func (c *Controller) store(ctx context.Context, it *item, v workload.Verdict) error {
	key, _, err := c.waitingKey(ctx, it)
	if err != nil {
		return err
	}
	if key == nil || workload.KeyID(key.Public()) != v.Request.Key {
		if err := c.removeRequests(ctx, it.key, []*workload.RequestFacts{v.Request}); err != nil {
			return err
		}
		return errAgain
	}
	r, err := c.Client.getRequest(ctx, types.NamespacedName{Namespace: it.key.Namespace, Name: v.Request.Name})
	if err != nil {
		return err
	}
	if message := workload.AnswerProblem(r.Status.Certificate, key.Public(), now()); message != "" {
		return c.fail(ctx, it, v.Status, "InvalidCertificate", message)
	}
	err = c.finish(ctx, it, r, key)
	no, ok := errors.AsType[*notWritten](err)
	if !ok {
		return err
	}
	// The certificate is not asked for again: its key waits, and it may have cost something.
	text := "The certificate is there, but " + no.message
	if now := workload.Condition(&v.Status, cmapi.CertificateConditionIssuing); now == nil || now.Message != text {
		c.Events.Tell(it.object(), true, workload.ReasonSecretNotWritten, text)
	}
	workload.SetCondition(&v.Status, cmapi.CertificateConditionIssuing, it.seen.Generation, cmmeta.ConditionTrue, workload.ReasonSecretNotWritten, text, now())
	if err := c.writeStatus(ctx, it, v.Status); err != nil {
		return err
	}
	c.certificateQueue.AddAfter(it.key, workload.RefusedBackoff)
	return nil
}
