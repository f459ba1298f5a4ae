package kube

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/trust"
)

// TLSSecrets reads the certificates of the Secrets of type kubernetes.io/tls in all
// namespaces, in the order of the API server. Keys are not kept. A timeout of 0 is
// 30 seconds for each request. One whose certificate does not parse is
// [trust.Malformed], with the reason.
func TLSSecrets(ctx context.Context, config *rest.Config, timeout time.Duration) ([]*trust.Material, error) {
	if timeout == 0 {
		timeout = requestTimeout
	}
	g, err := newGetter(config, timeout)
	if err != nil {
		return nil, err
	}
	var all []*trust.Material
	_, err = eachPage(ctx, g, "/api/v1/secrets", query("type="+string(corev1.SecretTypeTLS)), pageSize, "", func(page []corev1.Secret) {
		for i := range page {
			s := &page[i]
			if s.Type != corev1.SecretTypeTLS {
				continue
			}
			m := &trust.Material{Place: objectAt("secret", s.Namespace, s.Name, "data["+corev1.TLSCertKey+"]"), Role: trust.RoleCertificate, State: trust.Present}
			if m.Certificates, err = trust.ParseCertificates(s.Data[corev1.TLSCertKey]); err != nil {
				m.State, m.Reason = trust.Malformed, err.Error()
			}
			all = append(all, m)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("listing Secrets of type %s: %w", corev1.SecretTypeTLS, err)
	}
	return all, nil
}
