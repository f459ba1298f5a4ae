package controller

import (
	"context"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	informersv1 "k8s.io/client-go/informers/certificates/v1"
	informersv1beta1 "k8s.io/client-go/informers/certificates/v1beta1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// podCertificateAPI is PodCertificateRequests in one of their versions.
type podCertificateAPI interface {
	// informer watches the requests of a signer, as *podRequest.
	informer(signerName string) cache.SharedIndexInformer
	// get reads a request anew.
	get(ctx context.Context, namespace, name string) (*podRequest, error)
	// answer writes the status of the request that r is a copy of: it fails when
	// that has changed since.
	answer(ctx context.Context, r *podRequest, s certificatesv1.PodCertificateRequestStatus) error
}

func newPodCertificateAPI(client kubernetes.Interface, version string) podCertificateAPI {
	if version == certificatesv1beta1.SchemeGroupVersion.Version {
		return podCertificatesV1beta1{client}
	}
	return podCertificatesV1{client}
}

// ofSigner has the API server tell of the requests of a signer alone.
func ofSigner(signerName string) func(*metav1.ListOptions) {
	return func(o *metav1.ListOptions) { o.FieldSelector = "spec.signerName=" + signerName }
}

type podCertificatesV1 struct{ client kubernetes.Interface }

func (a podCertificatesV1) informer(signerName string) cache.SharedIndexInformer {
	return informersv1.NewFilteredPodCertificateRequestInformer(a.client, metav1.NamespaceAll, 0, nil, ofSigner(signerName))
}

func (a podCertificatesV1) get(ctx context.Context, namespace, name string) (*podRequest, error) {
	o, err := a.client.CertificatesV1().PodCertificateRequests(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return podRequestV1(o), nil
}

func (a podCertificatesV1) answer(ctx context.Context, r *podRequest, s certificatesv1.PodCertificateRequestStatus) error {
	o := &certificatesv1.PodCertificateRequest{ObjectMeta: r.ObjectMeta, Status: s}
	_, err := a.client.CertificatesV1().PodCertificateRequests(r.ObjectMeta.Namespace).UpdateStatus(ctx, o, metav1.UpdateOptions{})
	return err
}

type podCertificatesV1beta1 struct{ client kubernetes.Interface }

func (a podCertificatesV1beta1) informer(signerName string) cache.SharedIndexInformer {
	return informersv1beta1.NewFilteredPodCertificateRequestInformer(a.client, metav1.NamespaceAll, 0, nil, ofSigner(signerName))
}

func (a podCertificatesV1beta1) get(ctx context.Context, namespace, name string) (*podRequest, error) {
	o, err := a.client.CertificatesV1beta1().PodCertificateRequests(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return podRequestV1beta1(o), nil
}

func (a podCertificatesV1beta1) answer(ctx context.Context, r *podRequest, s certificatesv1.PodCertificateRequestStatus) error {
	o := &certificatesv1beta1.PodCertificateRequest{ObjectMeta: r.ObjectMeta, Status: certificatesv1beta1.PodCertificateRequestStatus(s)}
	_, err := a.client.CertificatesV1beta1().PodCertificateRequests(r.ObjectMeta.Namespace).UpdateStatus(ctx, o, metav1.UpdateOptions{})
	return err
}
