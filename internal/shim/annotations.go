package shim

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rule has one annotation shape the spec of a Certificate.
type rule struct {
	key string
	set func(*cmapi.CertificateSpec, string) error
}

// rules are all such annotations. The size of a key is judged after its algorithm.
func rules() []rule {
	return slices.Concat([]rule{
		{cmapi.CommonNameAnnotationKey, func(s *cmapi.CertificateSpec, v string) error { s.CommonName = v; return nil }},
		{cmapi.AltNamesAnnotationKey, func(s *cmapi.CertificateSpec, v string) error { return more(&s.DNSNames, v) }},
		{cmapi.IPSANAnnotationKey, func(s *cmapi.CertificateSpec, v string) error { return more(&s.IPAddresses, v) }},
		{cmapi.EmailsAnnotationKey, func(s *cmapi.CertificateSpec, v string) error { s.EmailAddresses = strings.Split(v, ","); return nil }},
		{cmapi.DurationAnnotationKey, func(s *cmapi.CertificateSpec, v string) error { return duration(&s.Duration, v) }},
		{cmapi.RenewBeforeAnnotationKey, func(s *cmapi.CertificateSpec, v string) error { return duration(&s.RenewBefore, v) }},
		{cmapi.RenewBeforePercentageAnnotationKey, func(s *cmapi.CertificateSpec, v string) error { return number(&s.RenewBeforePercentage, v) }},
		{cmapi.RevisionHistoryLimitAnnotationKey, revisions},
		{cmapi.UsagesAnnotationKey, usages},
		{cmapi.IngressSecretTemplate, template},
	}, subjectRules(), keyRules())
}

// translate shapes the spec of a Certificate by the annotations of its parent.
func translate(s *cmapi.CertificateSpec, annotations map[string]string) error {
	s.Subject, s.PrivateKey = &cmapi.X509Subject{}, &cmapi.CertificatePrivateKey{}
	for _, r := range rules() {
		value, ok := annotations[r.key]
		if !ok {
			continue
		}
		if err := r.set(s, value); err != nil {
			return fmt.Errorf("invalid ingress annotation %q: %w", r.key, err)
		}
	}
	if equality.Semantic.DeepEqual(s.Subject, &cmapi.X509Subject{}) {
		s.Subject = nil
	}
	if *s.PrivateKey == (cmapi.CertificatePrivateKey{}) {
		s.PrivateKey = nil
	}
	return nil
}

func more(list *[]string, v string) error {
	if v != "" {
		*list = append(*list, strings.Split(v, ",")...)
	}
	return nil
}

func duration(to **metav1.Duration, v string) error {
	d, err := time.ParseDuration(v)
	*to = &metav1.Duration{Duration: d}
	return err
}

func number(to **int32, v string) error {
	n, err := strconv.ParseInt(v, 10, 32)
	small := int32(n)
	*to = &small
	return err
}

func revisions(s *cmapi.CertificateSpec, v string) error {
	if err := number(&s.RevisionHistoryLimit, v); err != nil {
		return err
	}
	if *s.RevisionHistoryLimit < 1 {
		return fmt.Errorf("revision history limit must be a positive number %q", v)
	}
	return nil
}

func usages(s *cmapi.CertificateSpec, v string) error {
	s.Usages = nil
	for name := range strings.SplitSeq(v, ",") {
		usage := cmapi.KeyUsage(strings.Trim(name, " "))
		if !slices.Contains(allUsages(), usage) {
			return fmt.Errorf("invalid key usage name %q", name)
		}
		s.Usages = append(s.Usages, usage)
	}
	return nil
}

// allUsages are those of the API's enumeration.
func allUsages() []cmapi.KeyUsage {
	return []cmapi.KeyUsage{
		cmapi.UsageSigning, cmapi.UsageDigitalSignature, cmapi.UsageContentCommitment, cmapi.UsageKeyEncipherment, cmapi.UsageKeyAgreement,
		cmapi.UsageDataEncipherment, cmapi.UsageCertSign, cmapi.UsageCRLSign, cmapi.UsageEncipherOnly, cmapi.UsageDecipherOnly, cmapi.UsageAny,
		cmapi.UsageServerAuth, cmapi.UsageClientAuth, cmapi.UsageCodeSigning, cmapi.UsageEmailProtection, cmapi.UsageSMIME,
		cmapi.UsageIPsecEndSystem, cmapi.UsageIPsecTunnel, cmapi.UsageIPsecUser, cmapi.UsageTimestamping, cmapi.UsageOCSPSigning,
		cmapi.UsageMicrosoftSGC, cmapi.UsageNetscapeSGC,
	}
}

func template(s *cmapi.CertificateSpec, v string) error {
	decoder := json.NewDecoder(strings.NewReader(v))
	decoder.DisallowUnknownFields()
	t := &cmapi.CertificateSecretTemplate{}
	if err := decoder.Decode(t); err != nil {
		return fmt.Errorf("error parsing secret template JSON: %w", err)
	}
	for key := range t.Annotations {
		if strings.HasPrefix(key, "cert-manager.io/") {
			return fmt.Errorf("secretTemplate must not have cert-manager.io/ annotations: %q", key)
		}
	}
	if len(t.Annotations) > 0 || len(t.Labels) > 0 {
		s.SecretTemplate = t
	}
	return nil
}

// subjectRules are the annotations of the subject: lists are CSV, so that a value may have
// a comma.
func subjectRules() []rule {
	list := func(key string, of func(*cmapi.X509Subject) *[]string) rule {
		return rule{key, func(s *cmapi.CertificateSpec, v string) (err error) {
			*of(s.Subject), err = values(v)
			return err
		}}
	}
	return []rule{
		list(cmapi.SubjectOrganizationsAnnotationKey, func(s *cmapi.X509Subject) *[]string { return &s.Organizations }),
		list(cmapi.SubjectOrganizationalUnitsAnnotationKey, func(s *cmapi.X509Subject) *[]string { return &s.OrganizationalUnits }),
		list(cmapi.SubjectCountriesAnnotationKey, func(s *cmapi.X509Subject) *[]string { return &s.Countries }),
		list(cmapi.SubjectProvincesAnnotationKey, func(s *cmapi.X509Subject) *[]string { return &s.Provinces }),
		list(cmapi.SubjectLocalitiesAnnotationKey, func(s *cmapi.X509Subject) *[]string { return &s.Localities }),
		list(cmapi.SubjectPostalCodesAnnotationKey, func(s *cmapi.X509Subject) *[]string { return &s.PostalCodes }),
		list(cmapi.SubjectStreetAddressesAnnotationKey, func(s *cmapi.X509Subject) *[]string { return &s.StreetAddresses }),
		{cmapi.SubjectSerialNumberAnnotationKey, func(s *cmapi.CertificateSpec, v string) error { s.Subject.SerialNumber = v; return nil }},
	}
}

// values are those of one line of CSV.
func values(v string) ([]string, error) {
	records, err := csv.NewReader(strings.NewReader(v)).ReadAll()
	switch {
	case err != nil:
		return nil, err
	case len(records) != 1:
		return nil, fmt.Errorf("%d lines of values where one is wanted", len(records))
	}
	return records[0], nil
}

func keyRules() []rule {
	one := func(key string, set func(*cmapi.CertificatePrivateKey, string), allowed ...string) rule {
		return rule{key, func(s *cmapi.CertificateSpec, v string) error {
			if !slices.Contains(allowed, v) {
				return fmt.Errorf("%q is none of %s", v, strings.Join(allowed, ", "))
			}
			set(s.PrivateKey, v)
			return nil
		}}
	}
	return []rule{
		one(cmapi.PrivateKeyAlgorithmAnnotationKey, func(k *cmapi.CertificatePrivateKey, v string) { k.Algorithm = cmapi.PrivateKeyAlgorithm(v) },
			string(cmapi.RSAKeyAlgorithm), string(cmapi.ECDSAKeyAlgorithm), string(cmapi.Ed25519KeyAlgorithm)),
		one(cmapi.PrivateKeyEncodingAnnotationKey, func(k *cmapi.CertificatePrivateKey, v string) { k.Encoding = cmapi.PrivateKeyEncoding(v) },
			string(cmapi.PKCS1), string(cmapi.PKCS8)),
		{cmapi.PrivateKeySizeAnnotationKey, size},
		one(cmapi.PrivateKeyRotationPolicyAnnotationKey, func(k *cmapi.CertificatePrivateKey, v string) { k.RotationPolicy = cmapi.PrivateKeyRotationPolicy(v) },
			string(cmapi.RotationPolicyNever), string(cmapi.RotationPolicyAlways)),
	}
}

// The sizes of an RSA key, in bits, that cert-manager makes.
const leastRSA, mostRSA = 2048, 8192

func size(s *cmapi.CertificateSpec, v string) error {
	n, err := strconv.Atoi(v)
	if err != nil {
		return err
	}
	bad := false
	switch s.PrivateKey.Algorithm {
	case cmapi.RSAKeyAlgorithm, "":
		bad = n < leastRSA || n > mostRSA
	case cmapi.ECDSAKeyAlgorithm:
		bad = n != 256 && n != 384 && n != 521
	}
	if bad {
		return fmt.Errorf("invalid private key size %q", v)
	}
	s.PrivateKey.Size = n
	return nil
}
