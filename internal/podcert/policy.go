package podcert

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/util/validation"
)

// What the API server accepts (k/k pkg/apis/certificates/types.go,
// MinMaxExpirationSeconds and MaxMaxExpirationSeconds).
const (
	MinLife = time.Hour
	MaxLife = 91 * 24 * time.Hour
)

// DefaultSignerName is the signer's name where none is configured.
const DefaultSignerName = "kubepki.dev/pod"

// Policy is what an administrator wants. The zero value is not usable:
// [DefaultPolicy] is where to begin.
type Policy struct {
	// SignerName is the signer whose requests are answered.
	SignerName string
	// TrustDomain is that of the SPIFFE IDs, such as example.org.
	TrustDomain string
	// MaxLife bounds the life of certificates, from [MinLife] to [MaxLife].
	// Requests that allow more get this.
	MaxLife time.Duration
	// KeyTypes are the kinds of keys that are certified, some of [KeyTypes].
	KeyTypes []string
	// Namespace is the only one whose pods get certificates; "": those of all do.
	Namespace string
	// AllowUnmounted lets nodes ask for pods that mount no podCertificate volume
	// of the signer, as kube-apiserver allows to those who have the permission
	// request-serviceaccounts-podcertificate-signer.
	AllowUnmounted bool
}

// DefaultPolicy is what holds where nothing is configured but the trust domain.
func DefaultPolicy(trustDomain string) Policy {
	return Policy{SignerName: DefaultSignerName, TrustDomain: trustDomain, MaxLife: MaxLife, KeyTypes: KeyTypes()}
}

// Validate tells what of a policy cannot be.
func (p Policy) Validate() error {
	if err := CheckSignerName(p.SignerName); err != nil {
		return err
	}
	if td, err := spiffeid.TrustDomainFromString(p.TrustDomain); err != nil {
		return fmt.Errorf("trust domain %q: %w", p.TrustDomain, err)
	} else if td.Name() != p.TrustDomain {
		return fmt.Errorf("trust domain %q: give the name alone, such as %s", p.TrustDomain, td.Name())
	}
	if p.MaxLife < MinLife || p.MaxLife > MaxLife {
		return fmt.Errorf("a life of %s is not possible: the API server accepts from %s to %s", p.MaxLife, MinLife, MaxLife)
	}
	if len(p.KeyTypes) == 0 {
		return fmt.Errorf("no key type is allowed: name some of %s", strings.Join(KeyTypes(), ", "))
	}
	for _, t := range p.KeyTypes {
		if !slices.Contains(KeyTypes(), t) {
			return fmt.Errorf("unknown key type %q: use some of %s", t, strings.Join(KeyTypes(), ", "))
		}
	}
	return nil
}

// maxSignerName is what the parts of a signer's name may be long
// (k/k pkg/apis/core/validation/validation.go, ValidateSignerName).
const maxSignerName = 571

// CheckSignerName refuses a name that the API server would not take as a
// signer's, DOMAIN/PATH, and those of kubernetes.io, which are reserved.
func CheckSignerName(name string) error {
	domain, path, ok := strings.Cut(name, "/")
	if !ok || !strings.Contains(domain, ".") || len(name) > maxSignerName ||
		len(validation.IsDNS1123Subdomain(domain)) > 0 || len(validation.IsDNS1123Subdomain(path)) > 0 {
		return fmt.Errorf("signer name %q: not of the form DOMAIN/NAME, such as %s", name, DefaultSignerName)
	}
	if domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io") {
		return fmt.Errorf("signer name %q: those of kubernetes.io are reserved for the Kubernetes project: use a domain of your own", name)
	}
	return nil
}
