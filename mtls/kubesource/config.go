package kubesource

import (
	"crypto/x509"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Keys of a Secret of type kubernetes.io/tls (k8s.io/api/core/v1, TLSCertKey,
// TLSPrivateKeyKey), and the one that cert-manager and others add.
const (
	certificateKey = "tls.crt"
	privateKey     = "tls.key"
	authorityKey   = "ca.crt"
)

// Config says what a [Source] is made of.
type Config struct {
	// Pair is the Secret with the certificate and its key, in PEM, under tls.crt and
	// tls.key. The zero value: none, nothing is shown.
	Pair Secret
	// Bundle is where the authorities of the other side are. The zero value: none,
	// nobody is trusted.
	Bundle Bundle
	// Usage is what the certificate must be good for, as in mtls.Files.
	Usage x509.ExtKeyUsage
	// Told hears of each change that is taken up, of each that is not, and of an API
	// server that cannot be asked, once as long as it is the same; nil: nobody does.
	// It is called by one goroutine at a time and should return soon.
	Told func(Change)
}

// Secret names a Secret.
type Secret struct{ Namespace, Name string }

// Change tells of an object, or of several that make one bundle.
type Change struct {
	// Object is such as "secret shop/till-tls".
	Object string
	// Err is why what was before stays, or why nothing is there yet; nil: it was
	// taken up.
	Err error
}

// Bundle is a place of authorities: [SecretCA], [ConfigMap], [TrustBundle] or
// [TrustBundles].
type Bundle struct {
	kind            kind
	namespace, name string // of one object
	key             string // within it
	signer          string
	labels          *metav1.LabelSelector
}

type kind int

const (
	kindNone kind = iota
	kindSecret
	kindConfigMap
	kindTrustBundle
	kindTrustBundles
)

// SecretCA is the key ca.crt of a Secret, such as the one of Config.Pair.
func SecretCA(namespace, name string) Bundle {
	return Bundle{kind: kindSecret, namespace: namespace, name: name, key: authorityKey}
}

// ConfigMap is a key of a ConfigMap, such as ca.crt of kube-root-ca.crt.
func ConfigMap(namespace, name, key string) Bundle {
	return Bundle{kind: kindConfigMap, namespace: namespace, name: name, key: key}
}

// TrustBundle is the ClusterTrustBundle of a name, of certificates.k8s.io/v1 or
// v1beta1, whichever is served.
func TrustBundle(name string) Bundle { return Bundle{kind: kindTrustBundle, name: name} }

// TrustBundles is all ClusterTrustBundles of a signer that the labels select, as
// the kubelet joins them for pods: each anchor once. As there, an empty selector
// selects all; nil would select none, and is refused.
func TrustBundles(signerName string, selector *metav1.LabelSelector) Bundle {
	return Bundle{kind: kindTrustBundles, signer: signerName, labels: selector}
}

// check tells what of a configuration cannot be.
func (c *Config) check() error {
	if c.Pair == (Secret{}) && c.Bundle.kind == kindNone {
		return errors.New("kubesource.Config: neither Pair nor Bundle is set")
	}
	if c.Pair != (Secret{}) && (c.Pair.Name == "" || c.Pair.Namespace == "") {
		return errors.New("kubesource.Config: Pair lacks its Namespace or its Name")
	}
	b := c.Bundle
	switch b.kind {
	case kindSecret, kindConfigMap:
		if b.namespace == "" || b.name == "" || b.key == "" {
			return errors.New("kubesource.Config: Bundle lacks its namespace, its name or its key")
		}
	case kindTrustBundle:
		if b.name == "" {
			return errors.New("kubesource.Config: Bundle lacks the name of the ClusterTrustBundle")
		}
	case kindTrustBundles:
		if b.signer == "" || b.labels == nil {
			return errors.New("kubesource.Config: Bundle lacks its signer, or its selector: &metav1.LabelSelector{} selects all")
		}
		if _, err := metav1.LabelSelectorAsSelector(b.labels); err != nil {
			return fmt.Errorf("kubesource.Config: Bundle: %w", err)
		}
	}
	return nil
}

// selector is of labels; it was checked before.
func (b Bundle) selector() labels.Selector {
	s, err := metav1.LabelSelectorAsSelector(b.labels)
	if err != nil {
		return labels.Nothing()
	}
	return s
}

// String says where it is, for errors.
func (b Bundle) String() string {
	switch b.kind {
	case kindSecret:
		return b.key + " of secret " + b.namespace + "/" + b.name
	case kindConfigMap:
		return "configmap " + b.namespace + "/" + b.name
	case kindTrustBundle:
		return "clustertrustbundle " + b.name
	case kindTrustBundles:
		text := "clustertrustbundles of signer " + b.signer
		if selector := b.selector().String(); selector != "" {
			text += " with labels " + selector
		}
		return text
	}
	return "no bundle"
}

// String names the secret in messages.
func (s Secret) String() string { return "secret " + s.Namespace + "/" + s.Name }
