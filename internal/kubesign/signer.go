package kubesign

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/trust"
)

// SignerFor is the built-in signer for an item, or why there is none (the rules of
// k/k pkg/controller/certificates/signer and plugin/pkg/admission/certificates).
func SignerFor(g *trust.Graph, i *renew.Item) (signer, reason string) {
	server, client := slices.Contains(i.Usages, x509.ExtKeyUsageServerAuth), slices.Contains(i.Usages, x509.ExtKeyUsageClientAuth)
	node := strings.HasPrefix(i.Subject.CommonName, "system:node:") && slices.Equal(i.Subject.Organization, []string{"system:nodes"})
	switch authority := authorityAt(g, i.Issuer); {
	case authority == catalog.EtcdCA, authority == catalog.FrontProxyCA:
		return "", fmt.Sprintf("it is of authority %s, with which no signer of certificates.k8s.io signs", authority)
	case server && client:
		return "", "no built-in signer gives serverAuth and clientAuth in one certificate"
	case server && node && len(i.DNSNames)+len(i.Addresses) > 0:
		return csr.KubeletServingSigner, ""
	case server:
		return "", fmt.Sprintf("no built-in signer signs it: %s is for the serving certificates of kubelets alone", csr.KubeletServingSigner)
	case slices.Contains(i.Subject.Organization, "system:masters"):
		return "", "the API server refuses requests for group system:masters (CertificateSubjectRestriction)"
	case node && len(i.Names()) == 0:
		return csr.KubeAPIServerClientKubeletSigner, ""
	}
	return csr.KubeAPIServerClientSigner, ""
}

func authorityAt(g *trust.Graph, at trust.Place) string {
	for _, a := range g.Authorities {
		if a.Certificate == at {
			return a.Name
		}
	}
	return ""
}
