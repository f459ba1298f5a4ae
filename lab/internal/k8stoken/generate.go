package k8stoken

import (
	"context"
	"crypto"
	"time"

	"gopkg.in/go-jose/go-jose.v2/jwt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/apis/authentication"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/serviceaccount"

	"github.com/kubepki/kubepki/token"
)

// Generator returns what makes tokens of claims as kube-apiserver makes them.
func Generator(issuer string, key crypto.Signer) (func(*jwt.Claims, any) (string, error), error) {
	g, err := serviceaccount.JWTTokenGenerator(issuer, key)
	if err != nil {
		return nil, err
	}
	return func(public *jwt.Claims, private any) (string, error) {
		return g.GenerateToken(context.Background(), public, private)
	}, nil
}

// Claims returns what kube-apiserver puts into a token that lives as long as the
// given one, from now on and under an id of its own, and is about and bound to
// the same objects.
func Claims(c token.Claims) (*jwt.Claims, any, error) {
	account := object(&c.ServiceAccount)
	account.Namespace = c.Namespace
	if c.Legacy {
		public, private := serviceaccount.LegacyClaims(corev1.ServiceAccount{ObjectMeta: account}, corev1.Secret{ObjectMeta: object(c.Secret)})
		return public, private, nil
	}
	var pod *core.Pod
	var node *core.Node
	var secret *core.Secret
	var validating *admissionregistrationv1.ValidatingWebhookConfiguration
	var mutating *admissionregistrationv1.MutatingWebhookConfiguration
	if c.Pod != nil {
		pod = &core.Pod{ObjectMeta: object(c.Pod)}
	}
	if c.Node != nil {
		node = &core.Node{ObjectMeta: object(c.Node)}
	}
	if c.Secret != nil {
		secret = &core.Secret{ObjectMeta: object(c.Secret)}
	}
	if c.ValidatingWebhookConfiguration != nil {
		validating = &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: object(c.ValidatingWebhookConfiguration)}
	}
	if c.MutatingWebhookConfiguration != nil {
		mutating = &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: object(c.MutatingWebhookConfiguration)}
	}
	var attestations map[string]authentication.AttestationValue
	for key, values := range c.Attestations {
		attestations = map[string]authentication.AttestationValue{key: values}
	}
	warnAfter := int64(0)
	if !c.WarnAfter.IsZero() {
		warnAfter = int64(c.WarnAfter.Sub(c.IssuedAt) / time.Second)
	}
	return serviceaccount.Claims(core.ServiceAccount{ObjectMeta: account}, pod, secret, node, validating, mutating,
		int64(c.Expires.Sub(c.IssuedAt)/time.Second), warnAfter, c.Audiences, attestations)
}

func object(r *token.Ref) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: r.Name, UID: types.UID(r.UID)}
}
