package saserver

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/token"
)

// What kube-apiserver says of its documents
// (k8s.io/kubernetes/pkg/routes/openidmetadata.go).
const (
	DiscoveryType = "application/json"
	JWKSType      = "application/jwk-set+json"
)

// CacheControl is for how long others may keep the documents.
var CacheControl = fmt.Sprintf("public, max-age=%d", token.MaxAge)

// Publication says whose documents they are, and where.
type Publication struct {
	// Issuer is an https URL without query and fragment.
	Issuer string
	// JWKSURI is where the keys are; empty: where Kubernetes has them, below the
	// issuer.
	JWKSURI string
}

// Document is what others find at a URL.
type Document struct {
	URL       string
	Path      string // of the URL: /, then a path without empty elements and dots
	MediaType string
	Data      []byte
}

// Documents returns the keys, then the metadata that names them: written in this
// order, nobody finds the one without the other. The error tells that a URL can
// not be served.
func (p Publication) Documents(set *token.KeySet) (keys, discovery Document, err error) {
	metadata, err := set.Discovery(p.Issuer, p.JWKSURI)
	if err != nil {
		return keys, discovery, err
	}
	keys = Document{URL: metadata.JWKSURI, MediaType: JWKSType}
	discovery = Document{URL: token.DiscoveryURL(p.Issuer), MediaType: DiscoveryType}
	for _, d := range []*Document{&keys, &discovery} {
		if d.Path, err = pathOf(d.URL); err != nil {
			return keys, discovery, err
		}
	}
	if keys.Path == discovery.Path {
		return keys, discovery, fmt.Errorf("the keys and the metadata of the issuer are at one path, %s", keys.Path)
	}
	if keys.Data, err = set.JWKS(); err != nil {
		return keys, discovery, err
	}
	// As Kubernetes encodes it: & stands as \u0026.
	discovery.Data, err = json.Marshal(metadata)
	return keys, discovery, err
}

// pathOf returns the path of a URL that names a file.
func pathOf(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", fmt.Errorf("the URL %q: it does not parse", text)
	}
	path, rooted := strings.CutPrefix(u.Path, "/")
	if !rooted || !fs.ValidPath(path) || path == "." || u.RawPath != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", fmt.Errorf("the URL %q has no path that a file can have: use one without query, escapes, dots and empty parts", text)
	}
	return u.Path, nil
}

// InsideHost returns the host of a URL if it is one that only a machine itself
// or the pods of a cluster reach: localhost, or the name of a Service, with or
// without the cluster's domain. kubeadm's issuer is such a one
// (k8s.io/kubernetes/cmd/kubeadm/app/phases/controlplane/manifests.go). Empty:
// others may reach it, or it is no URL.
func InsideHost(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	host := u.Hostname()
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	below := func(domain string) bool { return strings.HasSuffix("."+name, "."+domain) }
	labels := strings.Split(name, ".")
	service := len(labels) > 2 && slices.Contains(labels[2:], "svc") // NAME.NAMESPACE.svc
	if service || below("cluster.local") || below("localhost") || net.ParseIP(host).IsLoopback() {
		return host
	}
	return ""
}
