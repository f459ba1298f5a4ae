package controller

import (
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/podcert"
)

// podRequest is a PodCertificateRequest of any version, with no more than what
// is needed: tens of thousands of answered ones may be there.
type podRequest struct {
	metav1.ObjectMeta // names, UID and resource version alone
	podcert.Request
	answered bool
}

// newPodRequest is the transformation of the informers of every version.
func newPodRequest(o any) (any, error) {
	switch o := o.(type) {
	case *podRequest:
		return o, nil // informers may transform twice
	case *certificatesv1.PodCertificateRequest:
		return podRequestV1(o), nil
	case *certificatesv1beta1.PodCertificateRequest:
		return podRequestV1beta1(o), nil
	}
	return nil, fmt.Errorf("a watch of PodCertificateRequests told of a %T", o)
}

func podRequestV1(o *certificatesv1.PodCertificateRequest) *podRequest {
	r := &podRequest{ObjectMeta: podRequestMeta(&o.ObjectMeta), answered: len(o.Status.Conditions) > 0}
	if r.answered {
		return r
	}
	r.Request = podcert.Request{
		Namespace: o.Namespace, Name: o.Name, SignerName: o.Spec.SignerName,
		Pod:                  podcert.Reference{Name: o.Spec.PodName, UID: string(o.Spec.PodUID)},
		ServiceAccount:       podcert.Reference{Name: o.Spec.ServiceAccountName, UID: string(o.Spec.ServiceAccountUID)},
		Node:                 podcert.Reference{Name: string(o.Spec.NodeName), UID: string(o.Spec.NodeUID)},
		MaxExpirationSeconds: o.Spec.MaxExpirationSeconds,
		PKCS10:               o.Spec.StubPKCS10Request,
		Annotations:          o.Spec.UnverifiedUserAnnotations,
	}
	return r
}

func podRequestV1beta1(o *certificatesv1beta1.PodCertificateRequest) *podRequest {
	r := &podRequest{ObjectMeta: podRequestMeta(&o.ObjectMeta), answered: len(o.Status.Conditions) > 0}
	if r.answered {
		return r
	}
	r.Request = podcert.Request{
		Namespace: o.Namespace, Name: o.Name, SignerName: o.Spec.SignerName,
		Pod:                  podcert.Reference{Name: o.Spec.PodName, UID: string(o.Spec.PodUID)},
		ServiceAccount:       podcert.Reference{Name: o.Spec.ServiceAccountName, UID: string(o.Spec.ServiceAccountUID)},
		Node:                 podcert.Reference{Name: string(o.Spec.NodeName), UID: string(o.Spec.NodeUID)},
		MaxExpirationSeconds: o.Spec.MaxExpirationSeconds,
		PKCS10:               o.Spec.StubPKCS10Request,
		PublicKey:            o.Spec.PKIXPublicKey,     //nolint:staticcheck // kubelets before 1.36
		ProofOfPossession:    o.Spec.ProofOfPossession, //nolint:staticcheck // kubelets before 1.36
		Annotations:          o.Spec.UnverifiedUserAnnotations,
	}
	return r
}

func podRequestMeta(m *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion}
}

// podFacts returns what decisions need of a pod.
func podFacts(o *corev1.Pod) *podcert.Pod {
	_, mirror := o.Annotations[corev1.MirrorPodAnnotationKey]
	p := &podcert.Pod{
		UID: string(o.UID), ServiceAccount: o.Spec.ServiceAccountName, Node: o.Spec.NodeName, Mirror: mirror,
		Finished: o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed,
	}
	for _, v := range o.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.PodCertificate != nil {
				p.Signers = append(p.Signers, s.PodCertificate.SignerName)
			}
		}
	}
	return p
}

// podStatus is the status that answers a request: the API server takes it as a
// whole, once (k/k pkg/apis/certificates/validation/validation.go,
// ValidatePodCertificateRequestStatusUpdate).
func podStatus(review podcert.Review, c *podcert.Certificate, now metav1.Time) certificatesv1.PodCertificateRequestStatus {
	condition := metav1.Condition{
		Type: certificatesv1.PodCertificateRequestConditionTypeDenied, Status: metav1.ConditionTrue,
		Reason: review.ID, Message: review.Message, LastTransitionTime: now,
	}
	if c == nil {
		return certificatesv1.PodCertificateRequestStatus{Conditions: []metav1.Condition{condition}}
	}
	condition.Type = certificatesv1.PodCertificateRequestConditionTypeIssued
	begin, refresh, end := metav1.NewTime(c.Leaf.NotBefore), metav1.NewTime(c.BeginRefreshAt), metav1.NewTime(c.Leaf.NotAfter)
	return certificatesv1.PodCertificateRequestStatus{
		Conditions: []metav1.Condition{condition}, CertificateChain: string(c.Chain),
		NotBefore: &begin, BeginRefreshAt: &refresh, NotAfter: &end,
	}
}
