package workload

import (
	"errors"
	"fmt"
	"maps"
	"net/mail"
	"slices"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Limits bound the times that a Certificate may name. The zero value bounds nothing.
type Limits struct {
	// Duration is the shortest life.
	Duration time.Duration
	// RenewBefore is how long before its end a certificate is renewed at the latest.
	RenewBefore time.Duration
}

// Upstream are the limits of cert-manager's admission webhook.
var Upstream = Limits{Duration: cmapi.MinimumCertificateDuration, RenewBefore: cmapi.MinimumRenewBefore}

// LimitsFor are the limits where the shortest life is not upstream's: the least
// renewBefore is the same part of it, and no more than upstream's.
func LimitsFor(shortest time.Duration) Limits {
	part := Upstream.Duration / Upstream.RenewBefore
	return Limits{Duration: shortest, RenewBefore: min(Upstream.RenewBefore, shortest/part)}
}

// Admit tells why cert-manager's admission webhook refuses a spec that [WishOf] takes
// (its internal/apis/certmanager/validation/certificate.go): where no webhook is
// installed the API server lets it through. The error is one line and names the field.
func Admit(spec *cmapi.CertificateSpec, limits Limits) error {
	for _, rule := range []func(*cmapi.CertificateSpec) error{
		admitSecretName, admitIssuerKind, admitEmails, admitSignature,
		func(s *cmapi.CertificateSpec) error { return admitTimes(s, limits) },
		admitHistory, admitTemplate, admitConstraints, admitFormats, admitKeystores, admitRenewal,
	} {
		if err := rule(spec); err != nil {
			return err
		}
	}
	return nil
}

func admitSecretName(s *cmapi.CertificateSpec) error {
	if s.SecretName == "" {
		return errors.New("spec.secretName: is empty")
	}
	if wrong := apivalidation.NameIsDNSSubdomain(s.SecretName, false); len(wrong) > 0 {
		return fmt.Errorf("spec.secretName: %q is no name of a Secret: %s", s.SecretName, wrong[0])
	}
	return nil
}

// admitIssuerKind finds an issuer that nobody serves: most often one of another group
// whose group was left out.
func admitIssuerKind(s *cmapi.CertificateSpec) error {
	ref := IssuerOf(s.IssuerRef)
	if ref.Group == cmapi.SchemeGroupVersion.Group && ref.Kind != cmapi.IssuerKind && ref.Kind != cmapi.ClusterIssuerKind {
		return fmt.Errorf("spec.issuerRef.kind: %q is neither Issuer nor ClusterIssuer of %s: where it is an issuer of another group, set spec.issuerRef.group", ref.Kind, ref.Group)
	}
	return nil
}

func admitEmails(s *cmapi.CertificateSpec) error {
	for i, text := range s.EmailAddresses {
		if a, err := mail.ParseAddress(text); err != nil || a.Address != text {
			return fmt.Errorf("spec.emailAddresses[%d]: %q is no bare address, as a@example.org is", i, text)
		}
	}
	return nil
}

var signaturesOf = map[cmapi.PrivateKeyAlgorithm][]cmapi.SignatureAlgorithm{
	cmapi.RSAKeyAlgorithm:     {cmapi.SHA256WithRSA, cmapi.SHA384WithRSA, cmapi.SHA512WithRSA},
	cmapi.ECDSAKeyAlgorithm:   {cmapi.ECDSAWithSHA256, cmapi.ECDSAWithSHA384, cmapi.ECDSAWithSHA512},
	cmapi.Ed25519KeyAlgorithm: {cmapi.PureEd25519},
}

func admitSignature(s *cmapi.CertificateSpec) error {
	if s.SignatureAlgorithm == "" {
		return nil
	}
	algorithm, _, err := keyShape(s)
	if err != nil {
		return err
	}
	if fits := signaturesOf[algorithm]; !slices.Contains(fits, s.SignatureAlgorithm) {
		return fmt.Errorf("spec.signatureAlgorithm: %q is not of a key of %s, which signs with one of %s", s.SignatureAlgorithm, algorithm, fits)
	}
	return nil
}

func admitTimes(s *cmapi.CertificateSpec, limits Limits) error {
	life, before, percentage := DefaultDuration, s.RenewBefore, s.RenewBeforePercentage
	if s.Duration != nil {
		life = s.Duration.Duration
	}
	switch {
	case life < limits.Duration:
		return fmt.Errorf("spec.duration: %s is shorter than %s, the shortest that is issued", life, limits.Duration)
	case before != nil && percentage != nil:
		return errors.New("spec.renewBefore: not together with spec.renewBeforePercentage")
	case before != nil && before.Duration < limits.RenewBefore:
		return fmt.Errorf("spec.renewBefore: %s is shorter than %s", before.Duration, limits.RenewBefore)
	case before != nil && before.Duration >= life:
		return fmt.Errorf("spec.renewBefore: %s is not shorter than the life of the certificate, %s", before.Duration, life)
	case percentage != nil && (*percentage <= 0 || *percentage >= 100):
		return fmt.Errorf("spec.renewBeforePercentage: %d is not between 0 and 100", *percentage)
	}
	if percentage == nil {
		return nil
	}
	// What is left after the percentage: so the webhook reads the field.
	if left := time.Duration(float64(life) * float64(100-*percentage) / 100); left < limits.RenewBefore {
		return fmt.Errorf("spec.renewBeforePercentage: %d %% leave %s of %s, less than %s", *percentage, left, life, limits.RenewBefore)
	}
	return nil
}

func admitHistory(s *cmapi.CertificateSpec) error {
	if n := s.RevisionHistoryLimit; n != nil && *n < 1 {
		return fmt.Errorf("spec.revisionHistoryLimit: %d is less than 1", *n)
	}
	return nil
}

func admitTemplate(s *cmapi.CertificateSpec) error {
	t := s.SecretTemplate
	if t == nil {
		return nil
	}
	path := field.NewPath("spec", "secretTemplate")
	for _, key := range slices.Sorted(maps.Keys(t.Annotations)) {
		if strings.HasPrefix(key, "cert-manager.io/") && key != cmapi.AllowsInjectionFromSecretAnnotation {
			return fmt.Errorf("spec.secretTemplate.annotations: %s is set by the controller alone", key)
		}
	}
	wrong := append(metav1validation.ValidateLabels(t.Labels, path.Child("labels")), apivalidation.ValidateAnnotations(t.Annotations, path.Child("annotations"))...)
	if len(wrong) > 0 {
		return wrong[0]
	}
	return nil
}

func admitConstraints(s *cmapi.CertificateSpec) error {
	if c := s.NameConstraints; c != nil && c.Permitted == nil && c.Excluded == nil {
		return errors.New("spec.nameConstraints: has neither permitted nor excluded")
	}
	return nil
}

func admitFormats(s *cmapi.CertificateSpec) error {
	seen := map[cmapi.CertificateOutputFormatType]bool{}
	for i, f := range s.AdditionalOutputFormats {
		if seen[f.Type] {
			return fmt.Errorf("spec.additionalOutputFormats[%d].type: %s stands there twice", i, f.Type)
		}
		seen[f.Type] = true
	}
	return nil
}

func admitKeystores(s *cmapi.CertificateSpec) error {
	k := s.Keystores
	if k == nil {
		return nil
	}
	one := func(kind, ref string, literal *string) error {
		name := "spec.keystores." + kind
		switch {
		case ref != "" && literal != nil:
			return fmt.Errorf("%s: passwordSecretRef and password exclude each other", name)
		case ref == "" && literal == nil:
			return fmt.Errorf("%s: needs passwordSecretRef or password", name)
		case literal != nil && *literal == "":
			return fmt.Errorf("%s.password: is empty", name)
		}
		return nil
	}
	if k.JKS != nil {
		if err := one("jks", k.JKS.PasswordSecretRef.Name, k.JKS.Password); err != nil {
			return err
		}
	}
	if k.PKCS12 != nil {
		return one("pkcs12", k.PKCS12.PasswordSecretRef.Name, k.PKCS12.Password)
	}
	return nil
}

func admitRenewal(s *cmapi.CertificateSpec) error {
	r := s.Renewal
	if r == nil {
		return nil
	}
	switch {
	case r.Policy == cmapi.CertificateRenewalPolicyDisabled && len(r.Windows) > 0:
		return errors.New("spec.renewal.windows: not together with the policy Disabled")
	case r.Policy != cmapi.CertificateRenewalPolicyDisabled && r.Policy != cmapi.CertificateRenewalPolicyRenewBefore:
		return fmt.Errorf("spec.renewal.policy: %q is neither RenewBefore nor Disabled", r.Policy)
	}
	for i, w := range r.Windows {
		// Any life will do: what is asked is whether the window can be read.
		if _, err := nextInWindow(w, time.Unix(0, 0), time.Unix(0, 0)); err != nil {
			return fmt.Errorf("spec.renewal.windows[%d]: %w", i, err)
		}
	}
	return nil
}

// AdmitIssuer tells why cert-manager's admission webhook refuses the spec of an issuer,
// but for what is said of one kind of issuers alone and stands with that kind.
func AdmitIssuer(spec *cmapi.IssuerSpec) error {
	var kinds []string
	for _, k := range []struct {
		name  string
		there bool
	}{
		{"acme", spec.ACME != nil}, {"ca", spec.CA != nil}, {"selfSigned", spec.SelfSigned != nil}, {"vault", spec.Vault != nil}, {"venafi", spec.Venafi != nil},
	} {
		if k.there {
			kinds = append(kinds, k.name)
		}
	}
	switch {
	case len(kinds) == 0:
		return errors.New("spec: names no kind of issuer: it needs one of acme, ca, selfSigned, vault and venafi")
	case len(kinds) > 1:
		return fmt.Errorf("spec: is of several kinds, %s: an issuer is of one", strings.Join(kinds, " and "))
	case spec.CA == nil:
		return nil
	case spec.CA.SecretName == "":
		return errors.New("spec.ca.secretName: is empty")
	}
	if i := slices.Index(spec.CA.OCSPServers, ""); i >= 0 {
		return fmt.Errorf("spec.ca.ocspServers[%d]: is empty", i)
	}
	if i := slices.Index(spec.CA.IssuingCertificateURLs, ""); i >= 0 {
		return fmt.Errorf("spec.ca.issuingCertificateURLs[%d]: is empty", i)
	}
	return nil
}
