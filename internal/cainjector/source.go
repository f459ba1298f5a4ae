package cainjector

import (
	"fmt"
	"strings"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// From is the kind of thing that a bundle is taken from.
type From int

// The kinds, in the order in which annotations are looked at: the first one that is there
// counts, and no other.
const (
	Nothing From = iota
	Secret
	Certificate
	APIServer
)

// Source is where the bundle of an object comes from. Name is that of a Secret or of a
// Certificate.
type Source struct {
	From From
	Name types.NamespacedName
}

// String names the source as log lines have it.
func (s Source) String() string {
	switch s.From {
	case Secret:
		return "Secret " + s.Name.String()
	case Certificate:
		return "Certificate " + s.Name.String()
	case APIServer:
		return "the API server's authority"
	}
	return "nothing"
}

// SourceOf reads the annotations of an object. An error names the annotation that is
// wrong; the source then tells its kind alone.
func SourceOf(annotations map[string]string) (Source, error) {
	for _, a := range []struct {
		key  string
		from From
	}{{cmapi.WantInjectFromSecretAnnotation, Secret}, {cmapi.WantInjectAnnotation, Certificate}} {
		value, ok := annotations[a.key]
		if !ok {
			continue
		}
		namespace, name, _ := strings.Cut(value, "/")
		if namespace == "" || name == "" || strings.Contains(name, "/") {
			return Source{From: a.from}, fmt.Errorf("annotation %s: %q is not of the form NAMESPACE/NAME", a.key, short(value))
		}
		return Source{a.from, types.NamespacedName{Namespace: namespace, Name: name}}, nil
	}
	if annotations[cmapi.WantInjectAPIServerCAAnnotation] == "true" {
		return Source{From: APIServer}, nil
	}
	return Source{}, nil
}

// short bounds a text that others have written and that is shown.
func short(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// Take returns the ca.crt of the Secret that a source leads to, if the Secret may be
// taken: one that is named directly must allow it, one of a Certificate must be that
// Certificate's.
func (s Source) Take(secret *corev1.Secret) ([]byte, error) {
	name := secret.Namespace + "/" + secret.Name
	switch {
	case s.From == Secret && secret.Annotations[cmapi.AllowsInjectionFromSecretAnnotation] != "true":
		return nil, fmt.Errorf("the Secret %s does not allow it: annotate it with %s: \"true\"", name, cmapi.AllowsInjectionFromSecretAnnotation)
	case s.From == Certificate && secret.Annotations[cmapi.CertificateNameKey] != s.Name.Name:
		return nil, fmt.Errorf("the Secret %s is not of %s: its annotation %s is %q", name, s, cmapi.CertificateNameKey, short(secret.Annotations[cmapi.CertificateNameKey]))
	case len(secret.Data[cmmeta.TLSCAKey]) == 0:
		return nil, fmt.Errorf("the Secret %s: %s is empty or not there", name, cmmeta.TLSCAKey)
	}
	return secret.Data[cmmeta.TLSCAKey], nil
}
