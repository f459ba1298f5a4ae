package kube

import (
	"cmp"
	"path/filepath"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubepki/kubepki/internal/trust"
)

// kubeconfig notes the anchors and the certificate of the kubeconfig itself. Without
// a file, as in a pod, there are none.
func (r *objectReader) kubeconfig(a Access, config *rest.Config) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = a.Kubeconfig
	all, err := rules.Load()
	if err != nil {
		return
	}
	name := cmp.Or(a.Context, all.CurrentContext)
	current := all.Contexts[name]
	config = rest.CopyConfig(config)
	if current == nil || rest.LoadTLSFiles(config) != nil {
		return
	}
	r.found.Context, r.found.User = name, current.AuthInfo
	if c := all.Clusters[current.Cluster]; c != nil && len(config.CAData) > 0 {
		r.found.CA = fieldOrFile(c.LocationOfOrigin, "clusters["+current.Cluster+"].cluster.certificate-authority-data", c.CertificateAuthority, len(c.CertificateAuthorityData) > 0)
		r.anchors(r.found.CA, trust.RoleAnchors, config.CAData)
	}
	if u := all.AuthInfos[current.AuthInfo]; u != nil && len(config.CertData) > 0 {
		r.found.Client = fieldOrFile(u.LocationOfOrigin, "users["+current.AuthInfo+"].user.client-certificate-data", u.ClientCertificate, len(u.ClientCertificateData) > 0)
		r.anchors(r.found.Client, trust.RoleCertificate, config.CertData)
	}
}

// fieldOrFile is where a credential of a kubeconfig stands on this machine.
func fieldOrFile(kubeconfig, field, file string, embedded bool) trust.Place {
	if embedded || file == "" {
		return trust.Place{Path: absolute(kubeconfig), Field: field}
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(filepath.Dir(kubeconfig), file)
	}
	return trust.Place{Path: absolute(file)}
}

func absolute(file string) string {
	if abs, err := filepath.Abs(file); err == nil {
		return abs
	}
	return file
}
