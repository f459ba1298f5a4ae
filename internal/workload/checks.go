package workload

import (
	"fmt"
	"slices"
	"time"

	"github.com/cert-manager/cert-manager/pkg/apis/certmanager"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
)

// Problem is why a Secret does not do, with the reason and message that the conditions
// of a Certificate have (cert-manager internal/controller/certificates/policies).
type Problem struct{ Reason, Message string }

// Reasons of a [Problem].
const (
	ReasonDoesNotExist                    = "DoesNotExist"
	ReasonMissingData                     = "MissingData"
	ReasonInvalidKeyPair                  = "InvalidKeyPair"
	ReasonInvalidCertificate              = "InvalidCertificate"
	ReasonInvalidCertificateRequest       = "InvalidCertificateRequest"
	ReasonSecretMismatch                  = "SecretMismatch"
	ReasonIncorrectIssuer                 = "IncorrectIssuer"
	ReasonIncorrectCertificate            = "IncorrectCertificate"
	ReasonRequestChanged                  = "RequestChanged"
	ReasonExpired                         = "Expired"
	ReasonSecretTemplateMismatch          = "SecretTemplateMismatch"
	ReasonSecretManagedMetadataMismatch   = "SecretManagedMetadataMismatch"
	ReasonAdditionalOutputFormatsMismatch = "AdditionalOutputFormatsMismatch"
	ReasonManagedFieldsParseError         = "ManagedFieldsParseError"
	ReasonSecretOwnerRefMismatch          = "SecretOwnerRefMismatch"
)

// Current is what is known of the request by which the Secret's certificate was issued.
type Current struct {
	Key [32]byte // [KeyID] of its public key
	// Unreadable tells why its text is no request; empty for one that is.
	Unreadable string
	// Differences are those of its wish from the Certificate's.
	Differences []string
}

// PairProblem tells whether the Secret is not there, holds no key or certificate, or
// two that do not fit: what also a temporary certificate is judged by.
func PairProblem(s *SecretFacts) *Problem {
	switch {
	case !s.Exists:
		return &Problem{ReasonDoesNotExist, "Issuing certificate as Secret does not exist"}
	case !s.hasData:
		return &Problem{ReasonMissingData, "Issuing certificate as Secret does not contain any data"}
	case !s.hasKey:
		return &Problem{ReasonMissingData, "Issuing certificate as Secret does not contain a private key"}
	case !s.hasChain:
		return &Problem{ReasonMissingData, "Issuing certificate as Secret does not contain a certificate"}
	case s.keyError != "":
		return &Problem{ReasonInvalidKeyPair, "Issuing certificate as Secret contains invalid private key data: " + s.keyError}
	case s.chainError != "":
		return &Problem{ReasonInvalidCertificate, "Issuing certificate as Secret contains an invalid certificate: " + s.chainError}
	case !s.keyFits:
		return &Problem{ReasonInvalidKeyPair, "Issuing certificate as Secret contains a private key that does not match the certificate"}
	}
	return nil
}

// ContentProblem tells why a Certificate is to be issued anew, whatever the time: the
// checks that upstream's trigger and readiness have in common, in their order. current
// is nil where the request is gone: then names alone are compared.
func ContentProblem(c *cmapi.Certificate, s *SecretFacts, current *Current) *Problem {
	if p := PairProblem(s); p != nil {
		return p
	}
	if !s.issuedBy(c.Spec.IssuerRef) {
		return &Problem{ReasonIncorrectIssuer, fmt.Sprintf("Issuing certificate as Secret was previously issued by %q", issuerText(s.Issuer))}
	}
	if s.hasCertificateName && s.CertificateName != c.Name {
		return &Problem{ReasonIncorrectCertificate, fmt.Sprintf("Secret was issued for %q. If this message is not transient, "+
			"you might have two conflicting Certificates pointing to the same secret.", s.CertificateName)}
	}
	if fields := keyProblems(s.KeyAlgorithm, s.KeySize, &c.Spec); len(fields) > 0 {
		return &Problem{ReasonSecretMismatch, fmt.Sprintf("Existing private key is not up to date for spec: %v", fields)}
	}
	if current == nil {
		if fields := s.nameDifferences(&c.Spec); len(fields) > 0 {
			return &Problem{ReasonSecretMismatch, fmt.Sprintf("Issuing certificate as Existing issued Secret is not up to date for spec: %v", fields)}
		}
		return nil
	}
	switch {
	case current.Unreadable != "":
		return &Problem{ReasonInvalidCertificateRequest, "Failed to decode current CertificateRequest: " + current.Unreadable}
	case current.Key != s.Key:
		return &Problem{ReasonSecretMismatch, "Secret contains a private key that does not match the current CertificateRequest"}
	case len(current.Differences) > 0:
		return &Problem{ReasonRequestChanged, fmt.Sprintf("Fields on existing CertificateRequest resource not up to date: %v", current.Differences)}
	}
	return nil
}

// ExpiredProblem tells whether the life of the certificate has ended.
func ExpiredProblem(s *SecretFacts, now time.Time) *Problem {
	if now.After(s.NotAfter) {
		return &Problem{ReasonExpired, "Certificate expired on " + s.NotAfter.Format(time.RFC1123)}
	}
	return nil
}

// issuedBy judges annotations as upstream: without any, kind and group are still those
// that stand for none.
func (s *SecretFacts) issuedBy(ref cmmeta.IssuerReference) bool {
	if s.hasIssuer && s.Issuer.Name != ref.Name {
		return false
	}
	was, is := IssuerOf(s.Issuer), IssuerOf(ref)
	return was.Kind == is.Kind && was.Group == is.Group
}

func issuerText(ref cmmeta.IssuerReference) string {
	if ref.Group == "" {
		ref.Group = certmanager.GroupName
	}
	if ref.Kind == "" {
		ref.Kind = cmapi.IssuerKind
	}
	return fmt.Sprintf("%s.%s/%s", ref.Kind, ref.Group, ref.Name)
}

// nameDifferences compares the names of a certificate with a spec as upstream's
// FuzzyX509AltNamesMatchSpec: names may move between common name and DNS names, for
// issuers do that. Of a spec that nothing fulfils it says nothing.
func (s *SecretFacts) nameDifferences(spec *cmapi.CertificateSpec) []string {
	w, err := WishOf(spec)
	if err != nil {
		return nil
	}
	var expected []short
	for _, name := range w.DNSNames {
		expected = append(expected, shortOf(name))
	}
	all, dns := slices.Clone(s.names.dns), slices.Clone(expected)
	commonName := w.Subject().CommonName
	if commonName != "" {
		expected = append(expected, shortOf(commonName))
	}
	if s.names.commonName != "" {
		all = append(all, shortOf(s.names.commonName))
	}
	var fields []string
	if commonName != "" && !slices.Contains(all, shortOf(commonName)) || s.names.commonName != "" && !slices.Contains(expected, shortOf(s.names.commonName)) {
		fields = append(fields, "spec.commonName")
	}
	if !within(dns, all) || !within(s.names.dns, expected) {
		fields = append(fields, "spec.dnsNames")
	}
	if s.names.addresses != shortOf(addressTexts(w.IPAddresses)...) {
		fields = append(fields, "spec.ipAddresses")
	}
	if s.names.uris != shortOf(uriTexts(w.URIs)...) {
		fields = append(fields, "spec.uris")
	}
	if s.names.emails != shortOf(sorted(w.EmailAddresses)...) {
		fields = append(fields, "spec.emailAddresses")
	}
	return fields
}

func within(part, whole []short) bool {
	return !slices.ContainsFunc(part, func(s short) bool { return !slices.Contains(whole, s) })
}

// AppearanceProblem tells why a Secret is to be written again with the certificate that
// it has: labels, annotations, output formats, keystores, owner. In upstream's order,
// and with its messages; but annotations and labels of cert-manager.io that the template
// names itself are none too many.
func AppearanceProblem(c *cmapi.Certificate, s *SecretFacts, ownerRef bool) *Problem {
	if s.metadata == nil {
		return PairProblem(s) // there is none
	}
	for _, check := range []func(*cmapi.Certificate, *SecretFacts) *Problem{managedProblem, templateProblem, formatProblem} {
		if p := check(c, s); p != nil {
			return p
		}
	}
	if p := ownerProblem(c, s, ownerRef); p != nil {
		return p
	}
	return keystoreProblem(c, s)
}

func managedProblem(c *cmapi.Certificate, s *SecretFacts) *Problem {
	m := s.metadata
	if m.baseLabel != "" {
		return &Problem{ReasonSecretManagedMetadataMismatch, fmt.Sprintf("wrong base label %s value %q, expected \"true\"",
			cmapi.PartOfCertManagerControllerLabelKey, m.baseLabel)}
	}
	switch {
	case s.chainError != "":
		return &Problem{ReasonInvalidCertificate, "Failed getting secret annotations: " + s.chainError}
	case m.details != "":
		return &Problem{ReasonSecretTemplateMismatch, m.details}
	case s.managedFieldsError != "":
		return &Problem{ReasonManagedFieldsParseError, "failed to decode managed fields on Secret: " + s.managedFieldsError}
	}
	labels, annotations := templateOf(c)
	say := func(format string, list []string) *Problem {
		return &Problem{ReasonSecretManagedMetadataMismatch, fmt.Sprintf(format, list)}
	}
	if m.missingLabel {
		return say("Secret is missing these Managed Labels: %v", []string{cmapi.PartOfCertManagerControllerLabelKey})
	}
	if extra := notIn(m.extraLabels, labels); len(extra) > 0 {
		return say("Secret has these extra Labels: %v", extra)
	}
	if len(m.missingAnnotations) > 0 {
		return say("Secret is missing these Managed Annotations: %v", m.missingAnnotations)
	}
	if extra := notIn(m.extraAnnotations, annotations); len(extra) > 0 {
		return say("Secret has these extra Annotations: %v", extra)
	}
	return nil
}

func templateOf(c *cmapi.Certificate) (labels, annotations map[string]string) {
	if t := c.Spec.SecretTemplate; t != nil {
		return t.Labels, t.Annotations
	}
	return nil, nil
}

func notIn(list []string, m map[string]string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { _, ok := m[s]; return ok })
}

func templateProblem(c *cmapi.Certificate, s *SecretFacts) *Problem {
	labels, annotations := templateOf(c)
	say := func(message string) *Problem { return &Problem{ReasonSecretTemplateMismatch, message} }
	if conflicts(annotations, s.metadata.annotationsValues) {
		return say("Certificate's SecretTemplate Annotations missing or incorrect value on Secret")
	}
	if conflicts(labels, s.metadata.labelValues) {
		return say("Certificate's SecretTemplate Labels missing or incorrect value on Secret")
	}
	for _, k := range []struct {
		name   string
		wanted map[string]string
		owned  []string
		others []string
	}{
		{"Labels", labels, s.metadata.ownedLabels, s.metadata.extraLabels},
		{"Annotations", annotations, s.metadata.ownedAnnotations, s.metadata.extraAnnotations},
	} {
		var missing []string
		for key := range k.wanted {
			if !slices.Contains(k.owned, key) && !slices.Contains(k.others, key) && key != cmapi.PartOfCertManagerControllerLabelKey {
				missing = append(missing, key)
			}
		}
		slices.Sort(missing)
		if len(missing) > 0 {
			return say(fmt.Sprintf("Secret is missing these Template %s: %v", k.name, missing))
		}
		if extra := notIn(k.owned, k.wanted); len(extra) > 0 {
			return say(fmt.Sprintf("Secret has these extra %s: %v", k.name, extra))
		}
	}
	return nil
}

func conflicts(wanted map[string]string, have []metaValue) bool {
	for key, value := range wanted {
		k := shortOf(key)
		for _, v := range have {
			if v.key == k && v.value != shortOf(value) {
				return true
			}
		}
	}
	return false
}

func formatProblem(c *cmapi.Certificate, s *SecretFacts) *Problem {
	var der, combined bool
	for _, f := range c.Spec.AdditionalOutputFormats {
		der = der || f.Type == cmapi.CertificateOutputFormatDER
		combined = combined || f.Type == cmapi.CertificateOutputFormatCombinedPEM
	}
	switch {
	case der && !s.formats.der, combined && !s.formats.combined:
		return &Problem{ReasonAdditionalOutputFormatsMismatch, "Certificate's AdditionalOutputFormats doesn't match Secret Data"}
	case der != s.formats.ownedDER, combined != s.formats.ownedCombined:
		return &Problem{ReasonAdditionalOutputFormatsMismatch, "Certificate's AdditionalOutputFormats doesn't match Secret ManagedFields"}
	}
	return nil
}

func ownerProblem(c *cmapi.Certificate, s *SecretFacts, ownerRef bool) *Problem {
	i := slices.IndexFunc(s.references, func(r referenceFact) bool { return r.uid == c.UID })
	if ownerRef && (i < 0 || !s.references[i].there || s.references[i].value != referenceHash(ownerOf(c))) {
		return &Problem{ReasonSecretOwnerRefMismatch,
			fmt.Sprintf("unexpected Secret Owner Reference value on Secret --enable-certificate-owner-ref=%t", ownerRef)}
	}
	if owned := i >= 0 && s.references[i].owned; owned != ownerRef {
		return &Problem{ReasonSecretOwnerRefMismatch,
			fmt.Sprintf("unexpected managed Secret Owner Reference field on Secret --enable-certificate-owner-ref=%t", ownerRef)}
	}
	return nil
}

func keystoreProblem(c *cmapi.Certificate, s *SecretFacts) *Problem {
	say := func(message string) *Problem { return &Problem{ReasonSecretMismatch, message} }
	k, have := c.Spec.Keystores, s.keystores
	if k == nil {
		if have != (keystoreFacts{}) {
			return say("Keystore is not defined")
		}
		return nil
	}
	for _, one := range []struct {
		name              string
		defined, create   bool
		store, truststore bool
	}{
		{"JKS", k.JKS != nil, k.JKS != nil && k.JKS.Create, have.jks, have.jksTrust},
		{"PKCS12", k.PKCS12 != nil, k.PKCS12 != nil && k.PKCS12.Create, have.pkcs12, have.pkcs12Trust},
	} {
		switch {
		case one.create && (!one.store || !one.truststore && s.HasCA):
			return say(one.name + " Keystore key does not contain data")
		case one.defined && !one.create && (one.store || one.truststore):
			return say(one.name + " Keystore create disabled")
		case !one.defined && (one.store || one.truststore):
			return say(one.name + " Keystore not defined")
		}
	}
	return nil
}
