package csr

import (
	"crypto/x509"
	"slices"
	"strings"
)

// signedKeyUsages and signedExtendedUsages are the usages of k8s.io/api/certificates/v1, as
// k/k pkg/controller/certificates/authority/policies.go maps them. Those of an
// authority are left out: RFC 5280 section 4.2.1.9 forbids "cert sign" without
// the CA flag, which a request is never given, and lists of revoked
// certificates are the authority's to sign.
var (
	signedKeyUsages = map[string]x509.KeyUsage{
		"signing":            x509.KeyUsageDigitalSignature,
		"digital signature":  x509.KeyUsageDigitalSignature,
		"content commitment": x509.KeyUsageContentCommitment,
		"key encipherment":   x509.KeyUsageKeyEncipherment,
		"key agreement":      x509.KeyUsageKeyAgreement,
		"data encipherment":  x509.KeyUsageDataEncipherment,
		"encipher only":      x509.KeyUsageEncipherOnly,
		"decipher only":      x509.KeyUsageDecipherOnly,
	}
	signedExtendedUsages = map[string]x509.ExtKeyUsage{
		"any":              x509.ExtKeyUsageAny,
		"server auth":      x509.ExtKeyUsageServerAuth,
		"client auth":      x509.ExtKeyUsageClientAuth,
		"code signing":     x509.ExtKeyUsageCodeSigning,
		"email protection": x509.ExtKeyUsageEmailProtection,
		"s/mime":           x509.ExtKeyUsageEmailProtection,
		"ipsec end system": x509.ExtKeyUsageIPSECEndSystem,
		"ipsec tunnel":     x509.ExtKeyUsageIPSECTunnel,
		"ipsec user":       x509.ExtKeyUsageIPSECUser,
		"timestamping":     x509.ExtKeyUsageTimeStamping,
		"ocsp signing":     x509.ExtKeyUsageOCSPSigning,
		"microsoft sgc":    x509.ExtKeyUsageMicrosoftServerGatedCrypto,
		"netscape sgc":     x509.ExtKeyUsageNetscapeServerGatedCrypto,
	}
)

func signedUsages(names []string) (x509.KeyUsage, []x509.ExtKeyUsage, error) {
	var bits x509.KeyUsage
	var extended []x509.ExtKeyUsage
	for _, n := range names {
		if bit, ok := signedKeyUsages[n]; ok {
			bits |= bit
		} else if u, ok := signedExtendedUsages[n]; ok {
			extended = append(extended, u)
		} else if n == "cert sign" || n == "crl sign" {
			return 0, nil, unsignable("usage %q is for authorities alone", n)
		} else {
			return 0, nil, unsignable("usage %q is not known", n)
		}
	}
	slices.Sort(extended)
	return bits, slices.Compact(extended), nil
}

// signerAccepts makes the checks of k/k pkg/controller/certificates/signer/
// signer.go and pkg/apis/certificates/helpers.go, which go by what crypto/x509
// has parsed. Other signers have no rules of their own.
func signerAccepts(signer string, c *x509.CertificateRequest, usages []string) error {
	switch signer {
	case KubeAPIServerClientSigner:
		return checkClientUsages(usages)
	case KubeAPIServerClientKubeletSigner:
		if len(c.DNSNames)+len(c.IPAddresses)+len(c.EmailAddresses)+len(c.URIs) > 0 {
			return unsignable("a kubelet's client certificate has no subject alternative names")
		}
		return checkOfNode(c, usages, "client auth")
	case KubeletServingSigner:
		switch {
		case len(c.DNSNames)+len(c.IPAddresses) == 0:
			return unsignable("a kubelet's serving certificate needs a DNS name or an IP address")
		case len(c.EmailAddresses) > 0:
			return unsignable("a kubelet's serving certificate has no e-mail addresses")
		case len(c.URIs) > 0:
			return unsignable("a kubelet's serving certificate has no URIs")
		}
		return checkOfNode(c, usages, "server auth")
	}
	return nil
}

func checkOfNode(c *x509.CertificateRequest, usages []string, role string) error {
	without := []string{"digital signature", role}
	with := append(without, "key encipherment")
	switch {
	case !slices.Equal(c.Subject.Organization, []string{"system:nodes"}):
		return unsignable("the organization of the subject is not system:nodes alone")
	case !strings.HasPrefix(c.Subject.CommonName, "system:node:"):
		return unsignable("the common name of the subject does not begin with system:node:")
	case !equalUsages(usages, without) && !equalUsages(usages, with):
		return unsignable("the usages are not digital signature and %s, with or without key encipherment", role)
	}
	return nil
}

func checkClientUsages(usages []string) error {
	for _, u := range usages {
		if u != "client auth" && u != "digital signature" && u != "key encipherment" {
			return unsignable("usage %q is not for a client of the API server", u)
		}
	}
	if !slices.Contains(usages, "client auth") {
		return unsignable(`usage "client auth" is missing`)
	}
	return nil
}

// equalUsages compares without regard to order and repetition.
func equalUsages(a, b []string) bool {
	return !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) }) &&
		!slices.ContainsFunc(b, func(s string) bool { return !slices.Contains(a, s) })
}
