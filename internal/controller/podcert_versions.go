package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
)

// errNotServed tells that the API server has no version of a resource.
var errNotServed = errors.New("the API server does not serve it: it needs Kubernetes 1.37, or from 1.35 on a feature gate and --runtime-config=certificates.k8s.io/v1beta1=true")

// servedVersion returns the newest version of certificates.k8s.io in which the
// API server serves a resource: v1 from 1.37 on, v1beta1 behind its gate on 1.35
// and 1.36 (k/k pkg/features/kube_features.go).
func servedVersion(ctx context.Context, d discovery.DiscoveryInterface, resource string) (string, error) {
	for _, version := range []string{certificatesv1.SchemeGroupVersion.Version, certificatesv1beta1.SchemeGroupVersion.Version} {
		served, err := servesResource(ctx, d, version, resource)
		if err != nil {
			return "", fmt.Errorf("asking for %s: %w", resource, err)
		}
		if served {
			return version, nil
		}
	}
	return "", fmt.Errorf("%s: %w", resource, errNotServed)
}

func servesResource(ctx context.Context, d discovery.DiscoveryInterface, version, resource string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	list, err := d.ServerResourcesForGroupVersion(certificatesv1.GroupName + "/" + version)
	if apierrors.IsNotFound(err) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == resource }), nil
}
