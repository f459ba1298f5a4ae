package kube

import (
	"errors"
	"fmt"

	"github.com/cert-manager/cert-manager/pkg/apis/certmanager"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	strictjson "sigs.k8s.io/json"
)

// CertFile is what a file has of cert-manager.io, each in its order.
type CertFile struct {
	Requests     []cmapi.CertificateRequest
	Certificates []cmapi.Certificate
	// Others is how many objects of other kinds were passed over.
	Others int
}

// ParseCerts reads the CertificateRequests and Certificates of a file in YAML or JSON: of
// one or several documents, as people write manifests, or of a List. Objects of other
// kinds are passed over. Of those two kinds another version than v1, a field that v1 does
// not have, one that is there twice, and an object without a name are errors; so is a file
// without any.
func ParseCerts(data []byte) (*CertFile, error) {
	all, err := objects(data, cmapi.CertificateRequestKind)
	if err != nil {
		return nil, err
	}
	f := &CertFile{}
	for _, o := range all {
		if err := f.add(&o); err != nil {
			return nil, o.wrap(err)
		}
	}
	if len(f.Requests)+len(f.Certificates) == 0 {
		return nil, errors.New("holds neither a CertificateRequest nor a Certificate of cert-manager.io/v1")
	}
	return f, nil
}

func (f *CertFile) add(o *object) error {
	gv, err := schema.ParseGroupVersion(o.kind.APIVersion)
	if err != nil || gv.Group != certmanager.GroupName || o.kind.Kind != cmapi.CertificateRequestKind && o.kind.Kind != cmapi.CertificateKind {
		f.Others++
		return nil //nolint:nilerr // another kind
	}
	if err := o.is(cmapi.SchemeGroupVersion.String(), o.kind.Kind); err != nil {
		return err
	}
	if o.kind.Kind == cmapi.CertificateKind {
		c, err := strictly[cmapi.Certificate](o)
		if err != nil {
			return err
		}
		if c.Name == "" {
			return errors.New("metadata.name is not set")
		}
		f.Certificates = append(f.Certificates, *c)
		return nil
	}
	r, err := strictly[cmapi.CertificateRequest](o)
	if err != nil {
		return err
	}
	if r.Name == "" && r.GenerateName == "" {
		return errors.New("metadata.name is not set")
	}
	f.Requests = append(f.Requests, *r)
	return nil
}

// strictly decodes as the API server does with fieldValidation=Strict.
func strictly[T any](o *object) (*T, error) {
	out := new(T)
	strict, err := strictjson.UnmarshalStrict(o.raw, out)
	if err = errors.Join(append(strict, err)...); err != nil {
		return nil, fmt.Errorf("is no %s: %w", o.kind.Kind, err)
	}
	return out, nil
}
