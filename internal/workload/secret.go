package workload

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"

	"github.com/kubepki/kubepki/internal/keystore"
	"github.com/kubepki/kubepki/internal/trust"
)

// Content is what a Secret shall hold, in PEM.
type Content struct {
	Key, Chain, CA []byte // CA may be empty
	// Made is the time that the entries of a Java keystore have.
	Made time.Time
	// Name and Issuer are the annotations on whose certificate it is and who issued it:
	// as spec.issuerRef of its request has it, empty kind and group and all. Empty ones
	// are not written: a temporary certificate has no issuer.
	Name   string
	Issuer cmmeta.IssuerReference
}

// Passwords are those that the references of keystores lead to; nil where there is no
// reference, or not where it leads ([PasswordRefs]).
type Passwords struct{ JKS, PKCS12 []byte }

// PasswordRefs returns the Secrets and keys in which the passwords of the keystores are;
// nil where there is no such keystore, or its password stands in the spec.
func PasswordRefs(spec *cmapi.CertificateSpec) (jks, pkcs12 *cmmeta.SecretKeySelector) {
	k := spec.Keystores
	if k == nil {
		return nil, nil
	}
	if k.JKS != nil && k.JKS.Create && k.JKS.PasswordSecretRef.Name != "" {
		jks = &k.JKS.PasswordSecretRef
	}
	if k.PKCS12 != nil && k.PKCS12.Create && k.PKCS12.PasswordSecretRef.Name != "" {
		pkcs12 = &k.PKCS12.PasswordSecretRef
	}
	return jks, pkcs12
}

// SecretOf returns the Secret of a Certificate, to be applied by force as
// [FieldManager]: data, labels and annotations as upstream writes them. The type of a
// Secret that is there already is kept, for it cannot change; it is empty for a new one.
func SecretOf(c *cmapi.Certificate, content Content, passwords Passwords, oldType corev1.SecretType, ownerRef bool) (*applycorev1.SecretApplyConfiguration, error) {
	data, err := secretData(c, content, passwords)
	if err != nil {
		return nil, err
	}
	labels, annotations := map[string]string{}, map[string]string{}
	if t := c.Spec.SecretTemplate; t != nil {
		for key := range t.Annotations {
			if isManaged(key) && key != cmapi.AllowsInjectionFromSecretAnnotation {
				return nil, fmt.Errorf("spec.secretTemplate.annotations: %s is set by the controller alone", key)
			}
		}
		maps.Copy(labels, t.Labels)
		maps.Copy(annotations, t.Annotations)
	}
	certificates, err := trust.ParseCertificates(content.Chain)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", corev1.TLSCertKey, err)
	}
	details, err := annotationsOf(certificates[0])
	if err != nil {
		return nil, err
	}
	maps.Copy(annotations, details)
	if content.Name != "" {
		annotations[cmapi.CertificateNameKey] = content.Name
	}
	if content.Issuer != (cmmeta.IssuerReference{}) {
		annotations[cmapi.IssuerNameAnnotationKey] = content.Issuer.Name
		annotations[cmapi.IssuerKindAnnotationKey] = content.Issuer.Kind
		annotations[cmapi.IssuerGroupAnnotationKey] = content.Issuer.Group
	}
	labels[cmapi.PartOfCertManagerControllerLabelKey] = "true"
	if oldType == "" {
		oldType = corev1.SecretTypeTLS
	}
	s := applycorev1.Secret(c.Spec.SecretName, c.Namespace).WithLabels(labels).WithAnnotations(annotations).WithData(data).WithType(oldType)
	if ownerRef {
		ref := ownerOf(c)
		s.WithOwnerReferences(&applymetav1.OwnerReferenceApplyConfiguration{
			APIVersion: &ref.APIVersion, Kind: &ref.Kind, Name: &ref.Name, UID: &ref.UID,
			Controller: ref.Controller, BlockOwnerDeletion: ref.BlockOwnerDeletion,
		})
	}
	return s, nil
}

// FieldManager is who owns the fields of a Certificate's Secret, the same as upstream's,
// so that either takes over from the other.
const FieldManager = "cert-manager-certificates-issuing"

func ownerOf(c *cmapi.Certificate) metav1.OwnerReference {
	return *metav1.NewControllerRef(c, cmapi.SchemeGroupVersion.WithKind(cmapi.CertificateKind))
}

func isManaged(key string) bool {
	return strings.HasPrefix(key, "cert-manager.io/") || strings.HasPrefix(key, "controller.cert-manager.io/")
}

func secretData(c *cmapi.Certificate, content Content, passwords Passwords) (map[string][]byte, error) {
	data := map[string][]byte{corev1.TLSPrivateKeyKey: content.Key, corev1.TLSCertKey: content.Chain}
	if len(content.CA) > 0 {
		data[cmmeta.TLSCAKey] = content.CA
	}
	for i, f := range c.Spec.AdditionalOutputFormats {
		switch f.Type {
		case cmapi.CertificateOutputFormatDER:
			der, err := keyDER(content.Key)
			if err != nil {
				return nil, err
			}
			data[cmapi.CertificateOutputFormatDERKey] = der
		case cmapi.CertificateOutputFormatCombinedPEM:
			data[cmapi.CertificateOutputFormatCombinedPEMKey] = combined(content.Key, content.Chain)
		default:
			return nil, fmt.Errorf("spec.additionalOutputFormats[%d].type: %q is neither DER nor CombinedPEM", i, f.Type)
		}
	}
	if c.Spec.Keystores == nil {
		return data, nil
	}
	return data, addKeystores(data, c.Spec.Keystores, content, passwords)
}

// keyDER is what the block of a key holds: PKCS#1, SEC 1 or PKCS#8, as it was encoded.
func keyDER(key []byte) ([]byte, error) {
	blocks, err := trust.Blocks(key)
	if err != nil || len(blocks) == 0 {
		return nil, errors.New("the private key is no PEM text")
	}
	return blocks[0].DER, nil
}

func combined(key, chain []byte) []byte { return bytes.Join([][]byte{key, chain}, []byte("\n")) }

func addKeystores(data map[string][]byte, k *cmapi.CertificateKeystores, content Content, passwords Passwords) error {
	if (k.JKS == nil || !k.JKS.Create) && (k.PKCS12 == nil || !k.PKCS12.Create) {
		return nil
	}
	e, err := entryOf(content)
	if err != nil {
		return err
	}
	if p := k.PKCS12; p != nil && p.Create {
		password, err := passwordOf("pkcs12", p.PasswordSecretRef, passwords.PKCS12, p.Password)
		if err != nil {
			return err
		}
		profile := keystore.Profile(p.Profile)
		if data[cmapi.PKCS12SecretKey], err = keystore.PKCS12(e, profile, password); err != nil {
			return fmt.Errorf("spec.keystores.pkcs12: %w", err)
		}
		if len(e.CAs) > 0 {
			if data[cmapi.PKCS12TruststoreKey], err = keystore.PKCS12Trust(e.CAs, profile, password); err != nil {
				return fmt.Errorf("spec.keystores.pkcs12: %w", err)
			}
		}
	}
	if j := k.JKS; j != nil && j.Create {
		password, err := passwordOf("jks", j.PasswordSecretRef, passwords.JKS, j.Password)
		if err != nil {
			return err
		}
		alias := "certificate"
		if j.Alias != nil {
			alias = *j.Alias
		}
		if data[cmapi.JKSSecretKey], err = keystore.JKS(e, alias, password, content.Made); err != nil {
			return fmt.Errorf("spec.keystores.jks: %w", err)
		}
		if len(e.CAs) > 0 {
			if data[cmapi.JKSTruststoreKey], err = keystore.JKSTrust(e.CAs, password, content.Made); err != nil {
				return fmt.Errorf("spec.keystores.jks: %w", err)
			}
		}
	}
	return nil
}

func entryOf(content Content) (keystore.Entry, error) {
	var key crypto.Signer
	var chain, cas []*x509.Certificate
	var err error
	if key, err = ParseKey(content.Key); err != nil {
		return keystore.Entry{}, fmt.Errorf("%s: %w", corev1.TLSPrivateKeyKey, err)
	}
	if chain, err = trust.ParseCertificates(content.Chain); err != nil {
		return keystore.Entry{}, fmt.Errorf("%s: %w", corev1.TLSCertKey, err)
	}
	if len(content.CA) > 0 {
		if cas, err = trust.ParseCertificates(content.CA); err != nil {
			return keystore.Entry{}, fmt.Errorf("%s: %w", cmmeta.TLSCAKey, err)
		}
	}
	return keystore.Entry{Key: key, Chain: chain, CAs: cas}, nil
}

// passwordOf takes the reference before the literal, as upstream.
func passwordOf(kind string, ref cmmeta.SecretKeySelector, referred []byte, literal *string) ([]byte, error) {
	field := "spec.keystores." + kind
	switch {
	case ref.Name != "" && len(referred) == 0:
		return nil, fmt.Errorf("%s.passwordSecretRef: Secret %q has no %q, or it is empty", field, ref.Name, ref.Key)
	case ref.Name != "":
		return referred, nil
	case literal == nil:
		return nil, fmt.Errorf("%s: needs passwordSecretRef or password", field)
	case *literal == "":
		return nil, fmt.Errorf("%s.password: is empty", field)
	}
	return []byte(*literal), nil
}

// annotationsOf are the annotations on what a certificate says. Upstream writes some
// that are empty, and not others; so that neither undoes what the other wrote, do both
// the same.
func annotationsOf(c *x509.Certificate) (map[string]string, error) {
	addresses, uris := make([]string, 0, len(c.IPAddresses)), make([]string, 0, len(c.URIs))
	for _, ip := range c.IPAddresses {
		addresses = append(addresses, ip.String())
	}
	for _, u := range c.URIs {
		uris = append(uris, u.String())
	}
	annotations := map[string]string{cmapi.CommonNameAnnotationKey: c.Subject.CommonName}
	if c.Subject.SerialNumber != "" {
		annotations[cmapi.SubjectSerialNumberAnnotationKey] = c.Subject.SerialNumber
	}
	for _, l := range []struct {
		key    string
		values []string
		always bool
	}{
		{cmapi.SubjectOrganizationsAnnotationKey, c.Subject.Organization, false},
		{cmapi.SubjectOrganizationalUnitsAnnotationKey, c.Subject.OrganizationalUnit, false},
		{cmapi.SubjectCountriesAnnotationKey, c.Subject.Country, false},
		{cmapi.SubjectProvincesAnnotationKey, c.Subject.Province, false},
		{cmapi.SubjectLocalitiesAnnotationKey, c.Subject.Locality, false},
		{cmapi.SubjectPostalCodesAnnotationKey, c.Subject.PostalCode, false},
		{cmapi.SubjectStreetAddressesAnnotationKey, c.Subject.StreetAddress, false},
		{cmapi.EmailsAnnotationKey, c.EmailAddresses, false},
		{cmapi.AltNamesAnnotationKey, c.DNSNames, true},
		{cmapi.IPSANAnnotationKey, addresses, true},
		{cmapi.URISANAnnotationKey, uris, true},
	} {
		if len(l.values) == 0 && !l.always {
			continue
		}
		text, err := commaSeparated(l.values)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", l.key, err)
		}
		annotations[l.key] = text
	}
	return annotations, nil
}

func commaSeparated(values []string) (string, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	if err := w.Write(values); err != nil {
		return "", err
	}
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n"), w.Error()
}
