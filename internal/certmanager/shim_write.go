package certmanager

import (
	"context"
	"encoding/json"
	"fmt"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubepki/kubepki/internal/shim"
)

// create makes a Certificate, but where one of the name is there that is not the parent's.
func (s *Shim) create(ctx context.Context, u *turn, c *cmapi.Certificate) error {
	key := types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
	there := &cmapi.Certificate{}
	err := s.Client.CM.Get().Namespace(c.Namespace).Resource(certificates).Name(c.Name).Do(ctx).Into(there)
	switch {
	case err == nil && u.Owns(there):
		return fmt.Errorf("the Certificate %s: %w", key, errAgain)
	case err == nil:
		u.warn(fmt.Sprintf("Certificate %q is there and is not of this %s: it is left as it is", c.Name, u.Kind.Kind))
		u.again = true
		return nil
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("reading Certificate %s: %w", key, err)
	}
	c.TypeMeta = metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: cmapi.CertificateKind}
	w, err := send(ctx, s.Client.CM.Post().Namespace(c.Namespace).Resource(certificates).Param("fieldManager", fieldManagerOf(u.Parent)), c)
	switch {
	case apierrors.IsAlreadyExists(err):
		return fmt.Errorf("the Certificate %s: %w", key, errAgain)
	case apierrors.IsInvalid(err):
		u.warn(err.Error())
		return nil
	case err != nil:
		return fmt.Errorf("creating Certificate %s: %w", key, err)
	}
	c.UID = w.Metadata.UID
	s.made.wrote(key, w.version(), c)
	s.tell(u.Parent, false, "CreateCertificate", fmt.Sprintf("Successfully created Certificate %q", c.Name))
	return nil
}

// fieldManagerOf is the name under which cert-manager writes the Certificates of a kind.
func fieldManagerOf(p *shim.Parent) string {
	switch p.Kind {
	case shim.Gateway:
		return "cert-manager-gateway-shim"
	case shim.ListenerSet:
		return "cert-manager-listenerset-shim"
	}
	return "cert-manager-ingress-shim"
}

// update changes a Certificate of a parent. It is read anew, for what is kept of it is not
// the whole.
func (s *Shim) update(ctx context.Context, u *turn, wanted *cmapi.Certificate) error {
	key := types.NamespacedName{Namespace: wanted.Namespace, Name: wanted.Name}
	data, err := s.Client.CM.Get().Namespace(wanted.Namespace).Resource(certificates).Name(wanted.Name).Do(ctx).Raw()
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("the Certificate %s: %w", key, errAgain)
	}
	if err != nil {
		return fmt.Errorf("reading Certificate %s: %w", key, err)
	}
	var there map[string]any
	typed := &cmapi.Certificate{}
	for _, to := range []any{&there, typed} {
		if err := json.Unmarshal(data, to); err != nil {
			return fmt.Errorf("reading Certificate %s: %w", key, err)
		}
	}
	if !u.Owns(typed) {
		return fmt.Errorf("the Certificate %s: %w", key, errAgain)
	}
	if err := shim.Overlay(there, wanted); err != nil {
		return err
	}
	// The version that was read goes along, so that no change of others is lost.
	_, err = send(ctx, s.Client.CM.Put().Namespace(wanted.Namespace).Resource(certificates).Name(wanted.Name).Param("fieldManager", fieldManagerOf(u.Parent)), there)
	switch {
	case apierrors.IsInvalid(err):
		u.warn(err.Error())
		return nil
	case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
		return fmt.Errorf("the Certificate %s: %w", key, errAgain)
	case err != nil:
		return fmt.Errorf("writing Certificate %s: %w", key, err)
	}
	s.tell(u.Parent, false, "UpdateCertificate", fmt.Sprintf("Successfully updated Certificate %q", wanted.Name))
	return nil
}

// remove removes a Certificate that no block of its parent names any more, that one and no
// other of its name.
func (s *Shim) remove(ctx context.Context, u *turn, c *cmapi.Certificate) error {
	key := types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
	body, err := json.Marshal(&metav1.DeleteOptions{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"}, Preconditions: &metav1.Preconditions{UID: &c.UID},
	})
	if err != nil {
		return err
	}
	err = s.Client.CM.Delete().Namespace(c.Namespace).Resource(certificates).Name(c.Name).Body(body).Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("removing Certificate %s: %w", key, err)
	}
	if err == nil {
		s.made.removed(key)
		s.tell(u.Parent, false, "DeleteCertificate", fmt.Sprintf("Successfully deleted unrequired Certificate %q", c.Name))
	}
	return nil
}
