package acmeissuer

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation"
)

// checkConfig finds what no server could mend in an issuer.
func checkConfig(c *cmacme.ACMEIssuer) *refusal {
	u, err := url.Parse(c.Server)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" || u.Fragment != "" || u.User != nil:
		return &refusal{invalidURL, fmt.Sprintf("spec.acme.server %q is not the https URL of a directory (RFC 8555 section 6.1)", c.Server), false}
	case c.PrivateKey.Name == "":
		return &refusal{invalidConfig, "spec.acme.privateKeySecretRef.name is empty: name the Secret that shall hold the account's key", false}
	case c.SkipTLSVerify && len(c.CABundle) > 0:
		return &refusal{invalidConfig, "spec.acme.skipTLSVerify and spec.acme.caBundle exclude each other: leave caBundle", false}
	}
	if eab := c.ExternalAccountBinding; eab != nil && (eab.KeyID == "" || eab.Key.Name == "" || eab.Key.Key == "") {
		return &refusal{invalidConfig, "spec.acme.externalAccountBinding needs keyID and keySecretRef with name and key", false}
	}
	for i, s := range c.Solvers {
		if (s.HTTP01 == nil) == (s.DNS01 == nil) {
			return &refusal{invalidSolver, fmt.Sprintf("spec.acme.solvers[%d] needs one of http01 and dns01", i), false}
		}
		if why := checkHTTP01(s.HTTP01); why != "" {
			return &refusal{invalidSolver, fmt.Sprintf("spec.acme.solvers[%d].http01%s", i, why), false}
		}
		if w := s.WaitInsteadOfSelfCheck; w != nil && w.Duration < 0 {
			return &refusal{invalidSolver, fmt.Sprintf("spec.acme.solvers[%d].waitInsteadOfSelfCheck is negative", i), false}
		}
	}
	return nil
}

// checkHTTP01 tells why cert-manager's admission refuses a solver; "": it does not.
func checkHTTP01(h *cmacme.ACMEChallengeSolverHTTP01) string {
	if h == nil {
		return ""
	}
	if (h.Ingress == nil) == (h.GatewayHTTPRoute == nil) {
		return " needs one of ingress and gatewayHTTPRoute"
	}
	if g := h.GatewayHTTPRoute; g != nil {
		return checkServiceType(".gatewayHTTPRoute", g.ServiceType)
	}
	n := 0
	for _, there := range []bool{h.Ingress.Class != nil, h.Ingress.IngressClassName != nil, h.Ingress.Name != ""} {
		if there {
			n++
		}
	}
	if n > 1 {
		return ".ingress: ingressClassName, class and name exclude each other"
	}
	if name := h.Ingress.IngressClassName; name != nil && len(validation.IsDNS1123Subdomain(*name)) > 0 {
		return fmt.Sprintf(".ingress.ingressClassName: %q is no name of an IngressClass: the older field class may be what is meant", *name)
	}
	return checkServiceType(".ingress", h.Ingress.ServiceType)
}

func checkServiceType(where string, t corev1.ServiceType) string {
	if t == "" || t == corev1.ServiceTypeClusterIP || t == corev1.ServiceTypeNodePort {
		return ""
	}
	return fmt.Sprintf("%s.serviceType: %q is neither ClusterIP nor NodePort", where, t)
}

// warningsOf tells what this controller does not do that an issuer wishes.
func warningsOf(c *cmacme.ACMEIssuer) []string {
	var all []string
	if c.SkipTLSVerify {
		all = append(all, "spec.acme.skipTLSVerify: the server's certificate is not verified")
	}
	for i, s := range c.Solvers {
		where := fmt.Sprintf("spec.acme.solvers[%d]", i)
		if s.HTTP01 != nil && s.HTTP01.Ingress != nil && s.HTTP01.Ingress.PodTemplate != nil || s.HTTP01 != nil && s.HTTP01.GatewayHTTPRoute != nil && s.HTTP01.GatewayHTTPRoute.PodTemplate != nil {
			all = append(all, where+": podTemplate is of no effect: this controller answers HTTP-01 itself and starts no pods")
		}
		if s.DNS01 != nil {
			if name := unsupported(s.DNS01); name != "" {
				all = append(all, where+": "+unsupportedMessage(name))
			}
		}
	}
	return all
}

// unsupported names the provider of a DNS-01 solver where it is none of ours.
func unsupported(d *cmacme.ACMEChallengeSolverDNS01) string {
	switch {
	case d.RFC2136 != nil || d.Webhook != nil:
		return ""
	case d.Akamai != nil:
		return "akamai"
	case d.CloudDNS != nil:
		return "cloudDNS"
	case d.Cloudflare != nil:
		return "cloudflare"
	case d.Route53 != nil:
		return "route53"
	case d.AzureDNS != nil:
		return "azureDNS"
	case d.DigitalOcean != nil:
		return "digitalocean"
	case d.AcmeDNS != nil:
		return "acmeDNS"
	}
	return "(nothing)"
}

func unsupportedMessage(provider string) string {
	return fmt.Sprintf("dns01.%s is not supported by this controller: use rfc2136, a webhook, or cert-manager for this issuer", provider)
}

// checkSolverSecrets finds Secrets that solvers name and that are not there, before an
// order needs them.
func (a *Accounts) checkSolverSecrets(ctx context.Context, issuer cmapi.GenericIssuer) *refusal {
	var wrong []string
	for i, s := range issuer.GetSpec().ACME.Solvers {
		if s.DNS01 == nil || s.DNS01.RFC2136 == nil || s.DNS01.RFC2136.TSIGSecret.Name == "" {
			continue
		}
		if err := a.checkSecret(ctx, a.namespaceOf(issuer), s.DNS01.RFC2136.TSIGSecret); err != nil {
			if !isTold(err) && !apierrors.IsNotFound(err) {
				return &refusal{invalidSolver, err.Error(), true}
			}
			wrong = append(wrong, fmt.Sprintf("spec.acme.solvers[%d]: %v", i, err))
		}
	}
	if len(wrong) > 0 {
		return &refusal{invalidSolver, strings.Join(wrong, "; "), true}
	}
	return nil
}

func (a *Accounts) checkSecret(ctx context.Context, namespace string, ref cmmeta.SecretKeySelector) error {
	_, err := a.secret(ctx, namespace, ref.Name, ref.Key)
	return err
}
