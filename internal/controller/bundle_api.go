package controller

import (
	"context"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// trustBundleAPI is ClusterTrustBundles in one of their versions, which differ in
// their names alone.
type trustBundleAPI interface {
	get(ctx context.Context, name string) (*certificatesv1.ClusterTrustBundle, error)
	create(context.Context, *certificatesv1.ClusterTrustBundle) error
	update(context.Context, *certificatesv1.ClusterTrustBundle) error
}

func newTrustBundleAPI(client kubernetes.Interface, version string) trustBundleAPI {
	if version == certificatesv1beta1.SchemeGroupVersion.Version {
		return trustBundlesV1beta1{client}
	}
	return trustBundlesV1{client}
}

type trustBundlesV1 struct{ client kubernetes.Interface }

func (a trustBundlesV1) get(ctx context.Context, name string) (*certificatesv1.ClusterTrustBundle, error) {
	return a.client.CertificatesV1().ClusterTrustBundles().Get(ctx, name, metav1.GetOptions{})
}

func (a trustBundlesV1) create(ctx context.Context, o *certificatesv1.ClusterTrustBundle) error {
	_, err := a.client.CertificatesV1().ClusterTrustBundles().Create(ctx, o, metav1.CreateOptions{})
	return err
}

func (a trustBundlesV1) update(ctx context.Context, o *certificatesv1.ClusterTrustBundle) error {
	_, err := a.client.CertificatesV1().ClusterTrustBundles().Update(ctx, o, metav1.UpdateOptions{})
	return err
}

type trustBundlesV1beta1 struct{ client kubernetes.Interface }

func (a trustBundlesV1beta1) get(ctx context.Context, name string) (*certificatesv1.ClusterTrustBundle, error) {
	o, err := a.client.CertificatesV1beta1().ClusterTrustBundles().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return &certificatesv1.ClusterTrustBundle{ObjectMeta: o.ObjectMeta, Spec: certificatesv1.ClusterTrustBundleSpec(o.Spec)}, nil
}

func (a trustBundlesV1beta1) create(ctx context.Context, o *certificatesv1.ClusterTrustBundle) error {
	_, err := a.client.CertificatesV1beta1().ClusterTrustBundles().Create(ctx, trustBundleV1beta1(o), metav1.CreateOptions{})
	return err
}

func (a trustBundlesV1beta1) update(ctx context.Context, o *certificatesv1.ClusterTrustBundle) error {
	_, err := a.client.CertificatesV1beta1().ClusterTrustBundles().Update(ctx, trustBundleV1beta1(o), metav1.UpdateOptions{})
	return err
}

func trustBundleV1beta1(o *certificatesv1.ClusterTrustBundle) *certificatesv1beta1.ClusterTrustBundle {
	return &certificatesv1beta1.ClusterTrustBundle{ObjectMeta: o.ObjectMeta, Spec: certificatesv1beta1.ClusterTrustBundleSpec(o.Spec)}
}
