package certmanager

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/trust"
)

// PublishBundle keeps the ClusterTrustBundle of a name equal to anchors. The name is
// that of the object, or SIGNER:NAME for one of a signer.
type PublishBundle func(ctx context.Context, name string, anchors []*x509.Certificate) error

const (
	managedBy      = "app.kubernetes.io/managed-by"
	managedByValue = "kubepki"
)

// issuerBundles are the annotations of an issuer that name where its anchors are
// published, beside the Secrets.
func issuerBundles(issuer cmapi.GenericIssuer) map[string]string {
	names := map[string]string{}
	for _, a := range []string{annotationConfigMap, annotationTrust} {
		if name := issuer.GetAnnotations()[a]; name != "" {
			names[a] = name
		}
	}
	return names
}

// publishAll publishes anchors where the issuer says.
func (r *rollovers) publishAll(ctx context.Context, issuer cmapi.GenericIssuer, anchors []*x509.Certificate) error {
	names := issuerBundles(issuer)
	if len(names) == 0 || len(anchors) == 0 {
		return nil
	}
	var all error
	if name := names[annotationConfigMap]; name != "" {
		if err := r.publishConfigMap(ctx, r.recordAt(keyOf(issuer)).Namespace, name, anchors); err != nil {
			all = errors.Join(all, fmt.Errorf("annotation %s: %w", annotationConfigMap, err))
		}
	}
	if name := names[annotationTrust]; name != "" {
		var err error
		switch {
		case issuer.GetNamespace() != "": // who owns a namespace does not own the cluster
			err = errors.New("only a ClusterIssuer may have a ClusterTrustBundle")
		case r.publish == nil:
			err = errors.New("ClusterTrustBundles are not written here")
		default:
			err = r.publish(ctx, name, anchors)
		}
		if err != nil {
			all = errors.Join(all, fmt.Errorf("annotation %s: %w", annotationTrust, err))
		}
	}
	return all
}

// publishConfigMap keeps ca.crt of a ConfigMap equal to anchors. One that another has
// made is left as it is: whoever may write issuers may not thereby write any ConfigMap.
func (r *rollovers) publishConfigMap(ctx context.Context, namespace, name string, anchors []*x509.Certificate) error {
	text := string(trust.EncodeCertificates(anchors...))
	api := r.client.CoreV1().ConfigMaps(namespace)
	o, err := api.Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = api.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{managedBy: managedByValue}}, Data: map[string]string{cmmeta.TLSCAKey: text},
		}, metav1.CreateOptions{})
	case err != nil:
	case o.Labels[managedBy] != managedByValue:
		return fmt.Errorf("ConfigMap %s/%s is there, and does not carry the label %s=%s", namespace, name, managedBy, managedByValue)
	case o.Data[cmmeta.TLSCAKey] != text:
		o.Data = map[string]string{cmmeta.TLSCAKey: text}
		_, err = api.Update(ctx, o, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("ConfigMap %s/%s: %w", namespace, name, err)
	}
	return nil
}
