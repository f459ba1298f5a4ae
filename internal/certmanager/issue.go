package certmanager

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/workload"
)

// issue begins an issuance, or goes on with one that has no request.
func (c *Controller) issue(ctx context.Context, it *item, v workload.Verdict) error {
	if err := it.state.Refusal(); err != nil {
		return c.fail(ctx, it, v.Status, workload.ReasonInvalidSpec, err.Error())
	}
	if v.Action == workload.Issue {
		c.Log.Info("workloads: a certificate is to be issued", "certificate", it.key.String(), "reason", v.Reason, "message", v.Message)
	}
	// A key that waits is of an issuance that takes its time, here or in cert-manager.
	if len(c.nextKeysOf(it.seen.UID)) == 0 {
		if signer, issuer := c.atOnce(ctx, it); signer != nil {
			return c.issueAtOnce(ctx, it, v, signer, issuer)
		}
	}
	return c.begin(ctx, it, v)
}

// atOnce returns who answers a request of a Certificate without waiting for anybody;
// nil: nobody does.
func (c *Controller) atOnce(ctx context.Context, it *item) (Issuer, cmapi.GenericIssuer) {
	ref := it.seen.Spec.IssuerRef
	key, ok := issuerOf(ref, it.key.Namespace)
	if !ok || c.Approver == nil {
		return nil, nil
	}
	issuer := c.issuer(key)
	if issuer == nil || issuer.GetDeletionTimestamp() != nil {
		return nil, nil
	}
	signer := c.signers[kindOf(issuer.GetSpec())]
	if signer == nil || !signer.AtOnce() {
		return nil, nil
	}
	if h, err := verify(ctx, signer, issuer); err != nil || !h.Ready {
		return nil, nil
	}
	return signer, issuer
}

// errKeyStays tells that the key must not be replaced, and does not fit.
var errKeyStays = errors.New("the key does not fit")

// nextKey returns the key of the certificate that comes: a new one, or the one in the
// Secret where spec.privateKey.rotationPolicy says so.
func (c *Controller) nextKey(ctx context.Context, it *item) (crypto.Signer, error) {
	spec := &it.seen.Spec
	if workload.RotatesKey(spec) || !it.state.Secret.Exists {
		return workload.NewKey(spec)
	}
	secret := it.unlabelled
	if secret == nil {
		var err error
		if secret, err = c.readSecret(ctx, it.secret()); err != nil {
			return nil, err
		}
	}
	if secret == nil || len(secret.Data[corev1.TLSPrivateKeyKey]) == 0 {
		return workload.NewKey(spec)
	}
	key, err := workload.ParseKey(secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		c.Events.Tell(it.object(), true, "DecodeFailed", fmt.Sprintf("Failed to decode private key stored in Secret %q - generating new key", secret.Name))
		return workload.NewKey(spec)
	}
	if problems := workload.KeyProblems(key.Public(), spec); len(problems) > 0 {
		return nil, fmt.Errorf("User intervention required: existing private key in Secret %q does not match requirements on Certificate resource, "+ //nolint:staticcheck // as cert-manager has it
			"mismatching fields: %v, and a new one is not made as the Certificate's .spec.privateKey.rotationPolicy is Never: %w", secret.Name, problems, errKeyStays)
	}
	return key, nil
}

// issueAtOnce issues in four writes: the request, its answer, the Secret, the status.
// The key is in no object before its certificate is.
func (c *Controller) issueAtOnce(ctx context.Context, it *item, v workload.Verdict, signer Issuer, issuer cmapi.GenericIssuer) error {
	key, err := c.nextKey(ctx, it)
	if errors.Is(err, errKeyStays) {
		return c.fail(ctx, it, v.Status, "CannotRegenerateKey", err.Error())
	}
	if err != nil {
		return err
	}
	r, release, err := c.createRequest(ctx, it, key, it.seen.Spec.SecretName)
	if message, no := refused(err); no {
		return c.fail(ctx, it, v.Status, workload.ReasonRequestNotWritten, "the API server does not take the CertificateRequest: "+message)
	}
	if err != nil {
		return err
	}
	defer release()
	asked, err := workload.Read(r)
	if err != nil {
		return c.fail(ctx, it, v.Status, workload.ReasonInvalidSpec, err.Error())
	}
	status := r.Status.DeepCopy()
	done, err := c.approve(ctx, r, asked, status)
	if err == nil && !done {
		var a Answer
		if a, err = c.sign(ctx, signer, Order{Issuer: issuer, Request: r, Asked: asked, Key: key}); err == nil {
			c.take(r, status, a)
		}
	}
	if err != nil {
		return err
	}
	if len(status.Conditions) == 0 { // nobody has decided: the key is kept until somebody does
		return c.park(ctx, it, v, key)
	}
	f, err := c.writeRequest(ctx, r, *status)
	if err != nil {
		return err
	}
	switch f.State {
	case workload.RequestIssued:
		err := c.finish(ctx, it, r, key)
		if no, ok := errors.AsType[*notWritten](err); ok { // the key is lost: it is issued anew, some time later
			return c.fail(ctx, it, v.Status, workload.ReasonSecretNotWritten, no.message)
		}
		return err
	case workload.RequestOpen:
		return c.park(ctx, it, v, key)
	}
	return c.fail(ctx, it, v.Status, f.Reason, f.Message)
}

// revision is that of the certificate that comes.
func (it *item) revision() int { return it.state.Revision() + 1 }

// createRequest makes the request of a Certificate for a key. The loop of requests
// leaves it alone until release is called.
func (c *Controller) createRequest(ctx context.Context, it *item, key crypto.Signer, keySecret string) (r *cmapi.CertificateRequest, release func(), err error) {
	o := it.seen
	text, err := workload.Request(&o.Spec, key)
	if err != nil {
		return nil, nil, err
	}
	r = &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: o.Namespace, Name: requestName(o.Name, it.revision()), Annotations: copiedAnnotations(o.Annotations), Labels: o.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(o, cmapi.SchemeGroupVersion.WithKind(cmapi.CertificateKind))},
		},
		Spec: cmapi.CertificateRequestSpec{Duration: o.Spec.Duration, IssuerRef: o.Spec.IssuerRef, Request: text, IsCA: o.Spec.IsCA, Usages: o.Spec.Usages},
	}
	r.Annotations[cmapi.CertificateRequestRevisionAnnotationKey] = strconv.Itoa(it.revision())
	r.Annotations[cmapi.CertificateRequestPrivateKeyAnnotationKey] = keySecret
	r.Annotations[cmapi.CertificateNameKey] = o.Name
	at := types.NamespacedName{Namespace: r.Namespace, Name: r.Name}
	c.inHand.add(at)
	release = func() { c.letGo(at) } // at as it is then
	w, err := c.Client.createRequest(ctx, r)
	if apierrors.IsAlreadyExists(err) {
		if err = c.replaceRequest(ctx, it, at); errors.Is(err, errTaken) {
			r.Name, r.GenerateName = "", r.Name+"-"
			w, err = c.Client.createRequest(ctx, r)
		}
	}
	if err != nil {
		release()
		if _, no := refused(err); !no && !retryQuietly(err) {
			c.Events.Tell(it.object(), true, "RequestFailed", fmt.Sprintf("Failed to create CertificateRequest: %s", err))
			err = fmt.Errorf("creating CertificateRequest %s: %w", at, err)
		}
		return nil, nil, err
	}
	if r.Name == "" {
		release()
		r.Name = w.Metadata.Name
		at.Name = r.Name
		c.inHand.add(at)
	}
	r.UID, r.ResourceVersion, r.CreationTimestamp = w.Metadata.UID, w.Metadata.ResourceVersion, w.Metadata.CreationTimestamp
	c.requests.wrote(at, w.version(), workload.FactsOfRequest(r))
	return r, release, nil
}

// letGo gives a request back to the loop of requests.
func (c *Controller) letGo(at types.NamespacedName) {
	c.inHand.remove(at)
	if f, _ := c.requests.get(at); f != nil && c.wantsRequest(f) {
		c.requestQueue.Add(at)
	}
}

// errTaken tells that somebody else's request has the name.
var errTaken = errors.New("the name is taken")

// replaceRequest removes what has the name of a request that is to be made, if it is of
// the same Certificate, and asks for another try.
func (c *Controller) replaceRequest(ctx context.Context, it *item, at types.NamespacedName) error {
	there, err := c.Client.getRequest(ctx, at)
	if err != nil {
		return err
	}
	// One of a Certificate of this name that was removed, and made again, is nobody's.
	if owner := metav1.GetControllerOfNoCopy(there); owner == nil || owner.Kind != cmapi.CertificateKind || owner.Name != it.seen.Name {
		return errTaken
	}
	if err := c.Client.deleteRequest(ctx, at, there.UID); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	c.requests.removed(at)
	return errAgain
}

// requestName is the name of a Certificate's request, as cert-manager has it.
func requestName(certificate string, revision int) string {
	const most, hashed = 233, 64
	if len(certificate) > most {
		head := strings.TrimRight(certificate[:most-hashed-1], "-.")
		certificate = fmt.Sprintf("%s-%x", head, sha256.Sum256([]byte(certificate)))
	}
	return certificate + "-" + strconv.Itoa(revision)
}

// copiedAnnotations are those that a request takes over from its Certificate: all but
// those of tools that would take the request for theirs.
func copiedAnnotations(from map[string]string) map[string]string {
	to := maps.Clone(from)
	if to == nil {
		to = map[string]string{}
	}
	maps.DeleteFunc(to, func(key, _ string) bool {
		for _, tool := range []string{"kubectl.kubernetes.io/", "fluxcd.io/", "argocd.argoproj.io/"} {
			if strings.HasPrefix(key, tool) {
				return true
			}
		}
		return false
	})
	return to
}

// finish stores an issued certificate with its key, and writes that it is there.
func (c *Controller) finish(ctx context.Context, it *item, r *cmapi.CertificateRequest, key crypto.Signer) error {
	encoded, err := workload.EncodeKey(key, &it.seen.Spec)
	if err != nil {
		return err
	}
	content := workload.Content{
		Key: encoded, Chain: r.Status.Certificate, CA: r.Status.CA, Made: now(), Name: it.seen.Name, Issuer: r.Spec.IssuerRef,
	}
	if it.seen.Spec.IsCA {
		if err := c.keepAuthority(ctx, it.secret()); err != nil {
			return err
		}
		if ca := c.rootRenewed(ctx, it, content.Chain); ca != nil {
			content.CA = ca
		}
	}
	facts, err := c.apply(ctx, it, content)
	if err != nil {
		return err
	}
	revision := it.revision()
	if err := c.writeStatus(ctx, it, workload.Settled(it.seen, facts, revision, now())); err != nil {
		return err
	}
	c.Events.Tell(it.object(), false, "Issuing", workload.MessageIssued)
	c.Log.Info("workloads: issued", "certificate", it.key.String(), "revision", revision, "notAfter", facts.NotAfter)
	return c.removeNextKeys(ctx, it, "")
}

// keepAuthority has the issuers that sign with a Secret keep what is in it, before
// another CA takes its place.
func (c *Controller) keepAuthority(ctx context.Context, secret types.NamespacedName) error {
	for _, issuer := range c.issuersOf(secret) {
		if !c.Ours(refOf(issuer), issuer.GetNamespace()) {
			continue
		}
		if err := c.rollovers.keep(ctx, issuer); err != nil {
			return fmt.Errorf("keeping the CA of %s %s: %w", refOf(issuer).Kind, issuer.GetName(), err)
		}
	}
	return nil
}

// apply writes the Secret of a Certificate.
func (c *Controller) apply(ctx context.Context, it *item, content workload.Content) (*workload.SecretFacts, error) {
	passwords, err := c.readPasswords(ctx, it)
	if err != nil {
		return nil, err
	}
	secret, err := workload.SecretOf(it.seen, content, passwords, it.state.Secret.Type, c.OwnerReference)
	if err != nil { // as without the password of a keystore
		return nil, &notWritten{fmt.Sprintf("Secret %s cannot be made: %v", it.secret().Name, err)}
	}
	there, err := c.Client.applySecret(ctx, it.secret(), secret)
	if message, no := refused(err); no {
		return nil, &notWritten{fmt.Sprintf("the API server does not take Secret %s: %s", it.secret().Name, message)}
	}
	if err != nil {
		return nil, fmt.Errorf("writing Secret %s: %w", it.secret(), err)
	}
	c.passwords.wrote(it.key, it.passwords)
	k := keepSecret(there)
	c.secrets.wrote(it.secret(), version(there.ResourceVersion), k)
	return &k.SecretFacts, nil
}

// readPasswords reads the passwords of the keystores, where a Certificate wants such.
func (c *Controller) readPasswords(ctx context.Context, it *item) (workload.Passwords, error) {
	var p workload.Passwords
	jks, pkcs12 := workload.PasswordRefs(&it.seen.Spec)
	for _, one := range []struct {
		ref *cmmeta.SecretKeySelector
		to  *[]byte
	}{{jks, &p.JKS}, {pkcs12, &p.PKCS12}} {
		if one.ref == nil {
			continue
		}
		secret, err := c.readSecret(ctx, types.NamespacedName{Namespace: it.key.Namespace, Name: one.ref.Name})
		if err != nil {
			return p, err
		}
		if secret != nil {
			*one.to = bytes.Clone(secret.Data[one.ref.Key])
		}
	}
	return p, nil
}

// mend writes the Secret again with the key and the certificate that it has.
func (c *Controller) mend(ctx context.Context, it *item, v workload.Verdict) error {
	secret := it.unlabelled
	if secret == nil {
		var err error
		if secret, err = c.readSecret(ctx, it.secret()); err != nil || secret == nil {
			return err
		}
	}
	c.Log.Info("workloads: a Secret is written again", "certificate", it.key.String(), "reason", v.Reason, "message", v.Message)
	content := workload.Content{
		Key: secret.Data[corev1.TLSPrivateKeyKey], Chain: secret.Data[corev1.TLSCertKey], CA: secret.Data[cmmeta.TLSCAKey], Made: now(),
		Name: secret.Annotations[cmapi.CertificateNameKey],
		Issuer: cmmeta.IssuerReference{
			Name: secret.Annotations[cmapi.IssuerNameAnnotationKey], Kind: secret.Annotations[cmapi.IssuerKindAnnotationKey],
			Group: secret.Annotations[cmapi.IssuerGroupAnnotationKey],
		},
	}
	if it.state.Carry.Bundle != (workload.Bundle{}) {
		content.CA = it.bundle
	}
	_, err := c.apply(ctx, it, content)
	if no, ok := errors.AsType[*notWritten](err); ok {
		c.Events.Tell(it.object(), true, workload.ReasonSecretNotWritten, no.message)
		c.certificateQueue.AddAfter(it.key, mendAgain)
		return nil
	}
	return err
}

// mendAgain is when a Secret is written again that the API server has not taken, should
// nothing change before.
const mendAgain = 10 * time.Minute
