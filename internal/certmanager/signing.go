package certmanager

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	experimental "github.com/cert-manager/cert-manager/pkg/apis/experimental/v1alpha1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/workload"
)

// signingFacts are what is kept of a CertificateSigningRequest that is still to be
// signed. Of all others nothing is kept.
type signingFacts struct {
	issuer   cmmeta.IssuerReference
	at       issuerKey
	approved bool
}

// signerOf reads the name of a signer that is an issuer of cert-manager.io:
// issuers.cert-manager.io/NAMESPACE.NAME or clusterissuers.cert-manager.io/NAME. A
// namespace has no dots, a name may.
func signerOf(name string) (cmmeta.IssuerReference, issuerKey, bool) {
	kind, rest, _ := strings.Cut(name, "."+cmapi.SchemeGroupVersion.Group+"/")
	ref := cmmeta.IssuerReference{Name: rest, Kind: cmapi.ClusterIssuerKind, Group: cmapi.SchemeGroupVersion.Group}
	switch {
	case kind == clusterIssuers && rest != "":
		return ref, issuerKey{name: rest}, true
	case kind == issuers:
		namespace, name, ok := strings.Cut(rest, ".")
		ref.Name, ref.Kind = name, cmapi.IssuerKind
		return ref, issuerKey{namespace, name}, ok && namespace != "" && name != ""
	}
	return cmmeta.IssuerReference{}, issuerKey{}, false
}

func reduceSigning(o any) (*signingFacts, error) {
	r, ok := o.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return nil, fmt.Errorf("the watch of CertificateSigningRequests gave a %T", o)
	}
	return signingFactsOf(r), nil
}

// signingFactsOf returns nil where there is nothing to sign.
func signingFactsOf(r *certificatesv1.CertificateSigningRequest) *signingFacts {
	ref, at, ok := signerOf(r.Spec.SignerName)
	if !ok || len(r.Status.Certificate) > 0 {
		return nil
	}
	f := &signingFacts{issuer: ref, at: at}
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			return nil
		case certificatesv1.CertificateApproved:
			f.approved = true
		}
	}
	return f
}

func (c *Controller) signingTold(key types.NamespacedName, _, after *signingFacts) {
	if after != nil && after.approved {
		c.signingQueue.Add(key)
	}
}

// wakeSigning looks again at the CertificateSigningRequests that wait for an issuer.
func (c *Controller) wakeSigning(k issuerKey) {
	for key, r := range c.signing.each() {
		if r.value.at == k && r.value.approved {
			c.signingQueue.Add(key)
		}
	}
}

// signingAgain is when a request is looked at again whose issuer cannot sign yet.
const signingAgain = 30 * time.Second

// handleSigning signs an approved CertificateSigningRequest, as cert-manager's
// experimental controllers do (pkg/controller/certificatesigningrequests).
func (c *Controller) handleSigning(ctx context.Context, key types.NamespacedName) error {
	r, err := c.Client.Kube.CertificatesV1().CertificateSigningRequests().Get(ctx, key.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading CertificateSigningRequest %s: %w", key.Name, err)
	}
	f := signingFactsOf(r)
	if f == nil || !f.approved || r.DeletionTimestamp != nil || !c.Ours(f.issuer, f.at.namespace) {
		return nil
	}
	answer, err := c.answerSigning(ctx, r, f)
	if err != nil {
		return err
	}
	switch {
	case answer.Issued != nil:
		c.warnOfIssuer(signingObject(r), answer.Issued)
		r.Status.Certificate = answer.Issued.Chain
	case answer.Failed || answer.Invalid:
		at := metav1.NewTime(now())
		r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: answer.Reason, Message: answer.Message, LastUpdateTime: at, LastTransitionTime: at,
		})
	case answer.Reason == "":
		return nil // others answer
	default:
		c.Events.Tell(signingObject(r), true, answer.Reason, answer.Message)
		c.signingQueue.AddAfter(key, cmp.Or(answer.Again, signingAgain))
		return nil
	}
	if _, err := c.Client.Kube.CertificatesV1().CertificateSigningRequests().UpdateStatus(ctx, r, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("writing the status of CertificateSigningRequest %s: %w", key.Name, err)
	}
	if answer.Issued != nil {
		c.Metrics.issued(f.issuer)
		c.Events.Tell(signingObject(r), false, "CertificateIssued", messageFetched)
	} else {
		c.Events.Tell(signingObject(r), true, answer.Reason, answer.Message)
	}
	return nil
}

func signingObject(r *certificatesv1.CertificateSigningRequest) object {
	return object{apiVersion: certificatesv1.SchemeGroupVersion.String(), kind: "CertificateSigningRequest", name: r.Name, uid: r.UID}
}

// answerSigning decides on an approved request. An answer without a reason leaves it to
// others.
func (c *Controller) answerSigning(ctx context.Context, r *certificatesv1.CertificateSigningRequest, f *signingFacts) (Answer, error) {
	issuer := c.issuer(f.at)
	if issuer == nil {
		return Answer{Reason: "IssuerNotFound", Message: fmt.Sprintf("Referenced %s %s/%s not found", f.issuer.Kind, f.at.namespace, f.at.name)}, nil
	}
	signer := c.signers[kindOf(issuer.GetSpec())]
	if signer == nil || !signer.AtOnce() {
		return Answer{}, nil
	}
	if f.at.namespace != "" {
		if may, err := c.mayReference(ctx, r, f.at); err != nil || !may {
			return Answer{Failed: true, Reason: "DeniedReference", Message: fmt.Sprintf("Requester may not reference Namespaced Issuer %s/%s", f.at.namespace, f.at.name)}, err
		}
	}
	request, answer := c.signingRequest(r, f)
	if request == nil {
		return answer, nil
	}
	asked, err := workload.Read(request)
	if err != nil {
		return Answer{Failed: true, Reason: "SigningError", Message: fmt.Sprintf("Error generating certificate template: %v", err)}, nil
	}
	if !isReady(issuer) {
		return Answer{Reason: "IssuerNotReady", Message: fmt.Sprintf("Referenced %s %s/%s does not have a Ready status condition", f.issuer.Kind, f.at.namespace, f.at.name)}, nil
	}
	if a, objects, err := c.guard(ctx, Order{Issuer: issuer, Request: request, Asked: asked}); objects || err != nil {
		return a, err
	}
	request.Namespace = f.at.namespace
	if request.Namespace == "" { // where the Secret of a SelfSigned key is
		request.Namespace = c.ClusterNamespace
	}
	a, err := signer.Sign(ctx, Order{Issuer: issuer, Request: request, Asked: asked})
	if a.Reason == reasonNoKey {
		a.Reason = "SecretNotFound" // as upstream's controllers of these requests name it
	}
	return a, err
}

// signingRequest makes a CertificateSigningRequest what issuers understand. Its namespace
// is that of the Issuer, and none for a ClusterIssuer. nil: the answer says why not.
func (c *Controller) signingRequest(r *certificatesv1.CertificateSigningRequest, f *signingFacts) (*cmapi.CertificateRequest, Answer) {
	life := cmapi.DefaultCertificateDuration
	if s := r.Spec.ExpirationSeconds; s != nil {
		life = time.Duration(*s) * time.Second
	}
	if text, ok := r.Annotations[experimental.CertificateSigningRequestDurationAnnotationKey]; ok {
		var err error
		if life, err = time.ParseDuration(text); err != nil {
			return nil, Answer{Failed: true, Reason: "ErrorParseDuration", Message: fmt.Sprintf("Failed to parse requested duration: failed to parse requested duration on annotation %q: %v",
				experimental.CertificateSigningRequestDurationAnnotationKey, err)}
		}
	}
	if life < experimental.CertificateSigningRequestMinimumDuration {
		return nil, Answer{Failed: true, Reason: "InvalidDuration", Message: fmt.Sprintf("CertificateSigningRequest minimum allowed duration is %s, requested %s",
			experimental.CertificateSigningRequestMinimumDuration, life)}
	}
	usages := make([]cmapi.KeyUsage, 0, len(r.Spec.Usages))
	for _, u := range r.Spec.Usages {
		usages = append(usages, cmapi.KeyUsage(u))
	}
	isCA := r.Annotations[experimental.CertificateSigningRequestIsCAAnnotationKey] == "true"
	if isCA && !slices.Contains(r.Spec.Usages, certificatesv1.UsageCertSign) {
		// Annotations can be changed after an approval, the spec cannot.
		return nil, Answer{Failed: true, Reason: "SigningError", Message: fmt.Sprintf("The annotation %q asks for an authority, and spec.usages does not have %q",
			experimental.CertificateSigningRequestIsCAAnnotationKey, certificatesv1.UsageCertSign)}
	}
	return &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: f.at.namespace, Name: r.Name, UID: r.UID, CreationTimestamp: r.CreationTimestamp,
			Annotations: map[string]string{cmapi.CertificateRequestPrivateKeyAnnotationKey: r.Annotations[experimental.CertificateSigningRequestPrivateKeyAnnotationKey]},
		},
		Spec: cmapi.CertificateRequestSpec{
			Request: r.Spec.Request, Duration: &metav1.Duration{Duration: life}, IssuerRef: f.issuer, IsCA: isCA, Usages: usages,
			Username: r.Spec.Username, UID: r.Spec.UID, Groups: r.Spec.Groups,
		},
	}, Answer{}
}

// mayReference asks whether the requester may name an Issuer of a namespace: a
// CertificateSigningRequest is in none.
func (c *Controller) mayReference(ctx context.Context, r *certificatesv1.CertificateSigningRequest, at issuerKey) (bool, error) {
	extra := make(map[string]authorizationv1.ExtraValue, len(r.Spec.Extra))
	for key, values := range r.Spec.Extra {
		extra[key] = authorizationv1.ExtraValue(values)
	}
	for _, name := range []string{at.name, "*"} {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: r.Spec.Username, Groups: r.Spec.Groups, UID: r.Spec.UID, Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Group: cmapi.SchemeGroupVersion.Group, Version: "*", Resource: "signers", Verb: "reference", Namespace: at.namespace, Name: name,
			},
		}}
		got, err := c.Client.Kube.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			return false, fmt.Errorf("asking whether the requester of CertificateSigningRequest %s may reference the issuer: %w", r.Name, err)
		}
		if got.Status.Allowed {
			return true, nil
		}
	}
	return false, nil
}
