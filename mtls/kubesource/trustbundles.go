package kubesource

import (
	"context"
	"fmt"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// labelSet is labels in the form that selectors match.
type labelSet = labels.Set

// newTrustBundles asks for ClusterTrustBundles in the version that is served,
// v1 before v1beta1. Each list finds that out again, for an API server may be
// upgraded meanwhile.
func newTrustBundles(client kubernetes.Interface, b Bundle) *cache.ListWatch {
	narrow := func(o *metav1.ListOptions) {
		if b.kind == kindTrustBundle {
			o.FieldSelector = byName(b.name)
			return
		}
		o.FieldSelector = fields.OneTermEqualSelector("spec.signerName", b.signer).String()
		o.LabelSelector = b.selector().String()
	}
	var old atomic.Bool // v1beta1
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			narrow(&o)
			list, err := client.CertificatesV1().ClusterTrustBundles().List(ctx, o)
			if !apierrors.IsNotFound(err) {
				old.Store(false)
				return list, err
			}
			older, olderErr := client.CertificatesV1beta1().ClusterTrustBundles().List(ctx, o)
			if apierrors.IsNotFound(olderErr) {
				return nil, fmt.Errorf("it serves ClusterTrustBundles neither in v1 nor in v1beta1 of certificates.k8s.io: %w", olderErr)
			}
			if olderErr != nil {
				return nil, olderErr
			}
			old.Store(true)
			return older, nil
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			narrow(&o)
			if old.Load() {
				return client.CertificatesV1beta1().ClusterTrustBundles().Watch(ctx, o)
			}
			return client.CertificatesV1().ClusterTrustBundles().Watch(ctx, o)
		},
	}
}
